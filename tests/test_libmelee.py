"""libmelee itself reads recordings, frame by frame; its frames are what ours are.

Dolphin is not needed: libmelee's console streams a file as it streams a game. What it
shows otherwise than a recording is listed in `serving.melee`, and here.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from policies import make_policy

from jaxbench.data import slippi
from jaxbench.data.simulation.record import simulate_replays
from jaxbench.serving import bad_frame
from jaxbench.serving import melee as adapter
from jaxbench.tasks.zelda import features, view

libmelee = pytest.importorskip("melee", reason="libmelee is not installed")

SHOULDER = 5  # of the six labels
# Groups that recordings before 3.0 lack, and libmelee shows as zeros.
LACKING = ("velocity", "hitlag", "items")


def streamed(path: Path, frames: int):
    """The console and each of its frames from the timer's start on, rolled back ones
    in their last version."""
    console = libmelee.Console(
        path=str(path),
        is_dolphin=False,
        skip_rollback_frames=False,
        allow_old_version=True,
    )
    assert console.connect()
    last = None
    while (found := console.step()) is not None:
        if last is not None and found.frame > last.frame and last.frame >= 0:
            yield console, last
        if found.frame > frames:
            return
        last = found
    assert last is not None
    yield console, last


def differences(path: Path, frames: int) -> tuple[Counter, int]:
    """How often each feature differs, over both players, and the frames compared.

    An age that libmelee cuts to whole frames counts when it is off by a whole one.
    """
    game = slippi.parse(path)
    live, recorded = [], []
    for console, state in streamed(path, frames):
        t = int(np.searchsorted(game.frame_t, state.frame))
        assert game.frame_t[t] == state.frame
        for player, of in enumerate(game.players):
            seen = adapter.view_of_gamestate(
                state, of.port, zero_indices=console.zero_indices
            )
            assert bad_frame.problems(seen) == [None]
            live.append(seen)
            recorded.append(view.view_of_replay(game, player, t))
    a, b = (view.arrays(view.joined(views)) for views in (live, recorded))
    seen, expected = map(jax.device_get, map(jax.jit(view.inputs), (a, b)))
    found = Counter()
    for name, values in expected.items():
        apart = np.abs(np.subtract(seen[name], values, dtype=np.float64))
        if name != "numeric_btf":
            found[name] = int((apart > 0).sum())
            continue
        for feature, apart_b in zip(features.NUMERIC, apart[:, 0].T, strict=True):
            # Measures are stored as halves.
            least = 1.1 / 60 if feature.endswith("state_age") else 1e-5
            found[feature] = int((apart_b >= least).sum())
    differ = view.own_controller(a) != view.own_controller(b)
    found["shoulder"] = int(differ[:, SHOULDER].sum())
    found["controller"] = int(differ[:, :SHOULDER].sum())
    return +found, len(live)


def test_a_simulated_game_is_read_alike(tmp_path):
    [path] = simulate_replays(tmp_path, games=1, seconds=20)
    found, count = differences(path, 1000)
    # Of two triggers libmelee shows the one value that the game makes of them.
    assert count == 2002 and set(found) <= {"shoulder"}


@pytest.mark.parametrize("number", [0, 14, 34, 46])
def test_a_real_recording_is_read_alike(melee_train, number):
    path = sorted(melee_train.glob("*.slp"))[number]
    game = slippi.parse(path)
    found, count = differences(path, 1500)
    assert count == 3002
    for name in LACKING:
        lacks = game.version < (3, 5, 0)
        assert found.pop(f"available.{name}", 0) == (count if lacks else 0)
    # The intangible bit, and of two triggers the one value the game makes of them.
    assert set(found) <= {"own.invulnerable", "opponent.invulnerable", "shoulder"}
    assert found["own.invulnerable"] < 0.03 * count
    assert found["shoulder"] < 0.15 * count


def test_a_policy_decides_the_same_from_libmelee(tmp_path):
    """With what it pressed told, as in play, only cut ages are left, hardly a label."""
    [path] = simulate_replays(tmp_path, games=1, seconds=5)
    game = slippi.parse(path)
    policy = make_policy("gru")
    live_state = recorded_state = policy.initial_state()
    same = []
    for console, state in streamed(path, 200):
        t = int(np.searchsorted(game.frame_t, state.frame))
        recorded = view.view_of_replay(game, 0, t)
        previous = view.own_controller(view.arrays(recorded)).astype(np.int32)
        live = adapter.view_of_gamestate(state, 1, zero_indices=console.zero_indices)
        live_state, a = policy.step_views(live_state, live, previous_ba=previous)
        recorded_state, b = policy.step_views(
            recorded_state, recorded, previous_ba=previous
        )
        same.append(np.array_equal(a, b))
    assert len(same) == 201 and live_state.skipped == 0
    assert np.mean(same) > 0.98
