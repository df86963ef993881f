"""libmelee's frames as views, on objects that only look like libmelee's."""

from __future__ import annotations

import enum
import sys
from types import SimpleNamespace as Like

import jax
import numpy as np
import pytest
from policies import make_policy
from test_zelda_frames import make_game

from jaxbench.data.game import Items
from jaxbench.errors import InputError
from jaxbench.serving import bad_frame, melee
from jaxbench.serving.policy import BadFrame, Controller, controllers
from jaxbench.tasks.zelda import controller, features, view

SELECTED = {2: 8, 3: 18, 8: 6, 28: 26, 31: 24, 32: 25}  # in-game id -> select screen's


class Button(enum.Enum):
    BUTTON_A = "A"
    BUTTON_B = "B"
    BUTTON_X = "X"
    BUTTON_Y = "Y"
    BUTTON_Z = "Z"
    BUTTON_L = "L"
    BUTTON_R = "R"
    BUTTON_START = "START"
    BUTTON_D_UP = "D_UP"
    BUTTON_MAIN = "MAIN"
    BUTTON_C = "C"


MASKS = {
    name: int(mask)
    for name, mask in zip(controller.BUTTONS, controller.MASKS, strict=True)
}


@pytest.fixture
def game():
    """A game whose values libmelee can tell: whole ages, hitstun where it can be."""
    made = make_game(31, nana=True, items=3)
    rng = np.random.default_rng(0)
    for player in made.players:
        for fighter in (player.leader, player.nana):
            if fighter is None:
                continue
            here, post = fighter.present_t, fighter.post
            post["state"][:] = here * rng.choice([14, 60, 80, 89, 193], len(here))
            hit = np.isin(post["state"], [80, 89, 193])
            post["flags_3"][:] = np.where(hit & (rng.random(len(here)) < 0.5), 2, 0)
            post["flags_1"][:] = 0  # libmelee does not show this bit
            for name in ("state_age", "misc_as", "hitlag"):
                post[name][:] = np.round(np.abs(post[name]))
            stun = post["flags_3"] > 0
            # Elsewhere the slot holds anything at all, but not while being hit.
            post["misc_as"][:] = np.where(stun, post["misc_as"] + 1, 0)
    return made


def gamestate(game, t, garbage=77):
    """Frame t of a game as libmelee would show it."""

    def fighter(one):
        post, pre = ({k: v[t] for k, v in part.items()} for part in (one.post, one.pre))
        shoulder = max(pre["trigger_l"], pre["trigger_r"])
        stun = post["misc_as"] if post["flags_3"] & 2 else 0
        hit = post["state"] != 14 and post["state"] != 60
        return Like(
            character=Like(value=int(post["character"])),
            action=Like(value=np.uint16(post["state"])),
            position=Like(x=post["position_x"], y=post["position_y"]),
            percent=post["percent"],
            shield_strength=post["shield"],
            stock=post["stocks"],
            facing=bool(post["direction"] > 0),
            action_frame=int(post["state_age"]) + (post["state"] == 14),
            invulnerable=bool(post["hurtbox_state"]),
            hitlag_left=int(post["hitlag"]),
            hitstun_frames_left=int(stun) if hit else garbage,
            jumps_left=post["jumps"],
            on_ground=not post["airborne"],
            speed_air_x_self=post["self_x_air"],
            speed_y_self=post["self_y"],
            speed_x_attack=post["knockback_x"],
            speed_y_attack=post["knockback_y"],
            speed_ground_x_self=post["self_x_ground"],
            nana=None,
            controller_state=Like(
                button={
                    button: bool(pre["buttons"] & MASKS.get(button.value, 0))
                    for button in Button
                },
                main_stick=(pre["joystick_x"] / 2 + 0.5, pre["joystick_y"] / 2 + 0.5),
                c_stick=(pre["cstick_x"] / 2 + 0.5, pre["cstick_y"] / 2 + 0.5),
                l_shoulder=shoulder,
                r_shoulder=shoulder,
            ),
        )

    players = {}
    for player in game.players:
        players[player.port] = fighter(player.leader)
        if player.nana is not None and player.nana.present_t[t]:
            players[player.port].nana = fighter(player.nana)
    rows = np.flatnonzero(game.items.frame_i == t)
    item = game.items.fields
    return Like(
        frame=game.frame_t[t],
        stage=Like(value=SELECTED[game.stage]),
        players=players,
        projectiles=[
            Like(
                position=Like(x=item["position_x"][i], y=item["position_y"][i]),
                speed=Like(x=item["velocity_x"][i], y=item["velocity_y"][i]),
                owner=item["owner"][i] + 1,
                type=Like(value=item["type"][i]),
            )
            for i in rows
        ],
    )


ZERO = {who: {14} for who in range(33)}


@pytest.mark.parametrize("port", [1, 2])
def test_a_game_state_shows_what_a_recording_of_it_shows(game, port):
    inputs = jax.jit(view.inputs)
    for t in (130, 160, 175, 200, 231):
        live = melee.view_of_gamestate(gamestate(game, t), port, zero_indices=ZERO)
        recorded = view.view_of_replay(game, port - 1, t)
        assert bad_frame.problems(live) == [None]
        a, b = (view.arrays(one) for one in (live, recorded))
        np.testing.assert_array_equal(view.own_controller(a), view.own_controller(b))
        expected = inputs(b)
        for name, values in inputs(a).items():
            np.testing.assert_allclose(values, expected[name], atol=1e-6, err_msg=name)
    assert features.NUMERIC[0] == "own.present" and values is not None


def test_stages_have_their_in_game_ids(game):
    shown = gamestate(game, 150)
    for inside, selected in SELECTED.items():
        shown.stage = Like(value=selected)
        assert melee.view_of_gamestate(shown, 1).stage_b.tolist() == [inside]
    shown.stage = Like(value=0)  # no stage
    with pytest.raises(BadFrame, match="the stage is -1"):
        bad_frame.raise_first(bad_frame.problems(melee.view_of_gamestate(shown, 1)))


def test_a_known_press_replaces_the_shoulder_of_the_game(game):
    shown = gamestate(game, 150)
    held = controllers(np.array([[0, 8, 8, 8, 8, 2]]))[0]
    seen = melee.view_of_gamestate(shown, 1, held=held)
    assert view.own_controller(view.arrays(seen))[0, 5] == 2
    shown.players[1].controller_state.l_shoulder = 1.0
    free = melee.view_of_gamestate(shown, 1)
    assert view.own_controller(view.arrays(free))[0, 5] == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: s.players.pop(2),
            r"not in a game of two, players are in ports \[1\]",
        ),
        (lambda s: s.players.pop(1), r"port 1 is not in .* ports \[2\]"),
        (lambda s: delattr(s.players[1], "position"), "cannot be read .*position"),
        (lambda s: delattr(s, "projectiles"), "cannot be read .*projectiles"),
        (lambda s: setattr(s.players[2], "percent", None), "cannot be read"),
        (lambda s: setattr(s.players[2], "character", Like(value=255)), None),
        (lambda s: setattr(s.players[1].position, "x", float("nan")), None),
        (lambda s: setattr(s.players[1], "action", Like(value=-1)), "cannot be read"),
    ],
)
def test_a_game_state_that_cannot_be_read_is_a_bad_frame(game, spoil, message):
    shown = gamestate(game, 150)
    spoil(shown)
    if message is None:  # it can be read, and not acted on
        with pytest.raises(BadFrame, match=r"character is 255|position_x is nan"):
            seen = melee.view_of_gamestate(shown, 1)
            bad_frame.raise_first(bad_frame.problems(seen))
        return
    with pytest.raises(BadFrame, match=message) as caught:
        melee.view_of_gamestate(shown, 1)
    assert "\n" not in str(caught.value)


def test_frames_without_items_still_know_their_items(game):
    shown = gamestate(game, 150)
    shown.projectiles = []
    seen = melee.view_of_gamestate(shown, 1)
    assert isinstance(seen.items, Items) and len(seen.items.frame_i) == 0
    known = view.arrays(seen)["available"][0]
    assert known.all()


class Pad:
    """Remembers what is held, as a console would."""

    def __init__(self):
        self.down, self.tilt, self.shoulder = {Button.BUTTON_Y}, {}, {}

    def press_button(self, button):
        self.down.add(button)

    def release_button(self, button):
        self.down.discard(button)

    def tilt_analog(self, stick, x, y):
        self.tilt[stick] = (x, y)

    def press_shoulder(self, side, amount):
        self.shoulder[side] = amount


def test_pressing_holds_all_of_a_controller(monkeypatch):
    monkeypatch.setitem(sys.modules, "melee", Like(Button=Button))
    pad = Pad()
    melee.press(Controller(1.0, -0.5, 0.0, -1.0, 0.75, ("A", "D_UP")), pad)
    assert pad.down == {Button.BUTTON_A, Button.BUTTON_D_UP}
    assert pad.tilt == {Button.BUTTON_MAIN: (1.0, 0.25), Button.BUTTON_C: (0.5, 0.0)}
    assert pad.shoulder == {Button.BUTTON_L: 0.75, Button.BUTTON_R: 0.0}
    melee.press(controllers(controller.NEUTRAL[None])[0], pad)
    assert pad.down == set() and set(pad.tilt.values()) == {(0.5, 0.5)}


def test_pressing_without_libmelee_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "melee", None)
    with pytest.raises(InputError, match="pip install melee"):
        melee.press(controllers(controller.NEUTRAL[None])[0], Pad())


def test_a_policy_plays_a_game_state(game):
    policy = make_policy("gru")
    state = policy.initial_state()
    for t in (130, 131):
        live = melee.view_of_gamestate(gamestate(game, t), 2, zero_indices=ZERO)
        recorded = view.view_of_replay(game, 1, t)
        told = [policy.logits(state, one)["main_x"] for one in (live, recorded)]
        np.testing.assert_allclose(*told, atol=1e-4)
        state, _ = policy.step(state, live, strict=True)
    assert state.skipped == 0
