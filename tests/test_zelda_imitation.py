"""The whole task: what is built, what is refused, and that it can be learned."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import recipe
from test_zelda_frames import make_game

from jaxbench.errors import InputError
from jaxbench.tasks.zelda import floors, imitation, protocols

OPTIONS = protocols.Options(
    character="falco",
    window=30,
    stride=1,
    delay=0,
    readout="last",
    drop_idle=True,
    validation_fraction=0.1,
    seed=0,
    max_delay=0,
)
FACTS = {"source": "by hand"}


@pytest.fixture
def no_floors(monkeypatch):
    """Builds tasks without measuring their floors."""
    none = {"marginal": {}, "copy_previous": {}}
    monkeypatch.setattr(imitation.floors, "measure", lambda *labels: none)


def make_games(games=5, **change):
    return [make_game(200 + i, **change) for i in range(games)]


def build(games, source=None, **changes):
    given = {"character": "falco", "width": 16, "test_fraction": 0} | changes
    config = recipe("zelda", **given)
    return imitation.build(games, config, config["model"]["width"], source or {})


@pytest.mark.integration
@pytest.mark.parametrize(
    ("head", "protocol"),
    [("independent", "clean"), ("autoregressive", "compat")],
)
def test_a_few_steps_of_gradient_descent_lower_the_loss(protocol, head):
    task = build(
        make_games(), protocol=protocol, head=head, validation_fraction=0.4, window=6
    )
    batch = jax.jit(task.gather)(task.arrays, task.splits["train"][::50])
    batch["weight_b"] = jnp.ones(len(batch["reset_bt"]))
    last = slice(-1, None)

    def forward(params):
        x_btd = task.encoder.apply(params["encoder"], batch)
        return task.loss(task.head.apply(params["head"], x_btd[:, last], batch), batch)

    keys = jax.random.split(jax.random.key(0))
    encoder = task.encoder.init(keys[0], batch)
    x_btd = task.encoder.apply(encoder, batch)
    assert x_btd.shape == (*batch["reset_bt"].shape, 16)
    head_params = task.head.init(keys[1], x_btd[:, last], batch)
    params = {"encoder": encoder, "head": head_params}
    optimizer = optax.adam(3e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        grads, _ = jax.grad(forward, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    before = task.summarize(jax.device_get(forward(params)[1]))
    for _ in range(60):
        params, state = step(params, state)
    after = task.summarize(jax.device_get(forward(params)[1]))
    assert after[task.primary] < 0.8 * before[task.primary]
    assert all(np.isfinite(list(after.values())))


@pytest.mark.usefixtures("no_floors")
def test_bfloat16_encoders_keep_float32_parameters():
    for protocol in ("clean", "compat"):
        task = build(make_games(), protocol=protocol, dtype="bfloat16")
        batch = jax.eval_shape(task.gather, task.arrays, task.splits["train"][:3])
        params = jax.eval_shape(task.encoder.init, jax.random.key(0), batch)
        made = jax.eval_shape(task.encoder.apply, params, batch)
        assert made.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("f4")}


@pytest.mark.usefixtures("no_floors")
def test_both_sides_of_a_game_are_in_one_split():
    games = make_games(10, externals=(20, 20), internals=(22, 22), count=200)
    task = build(games, validation_fraction=0.3, split_seed=4)
    names = {k: set(v["games"]) for k, v in task.source["splits"].items()}
    assert not names["train"] & names["validation"]
    assert len(names["validation"]) == 3 and len(names["train"]) == 7
    assert task.source["perspectives"] == 20
    used = {k: set(v[:, 0].tolist()) for k, v in task.splits.items()}
    assert not used["train"] & used["validation"]
    assert len(used["train"] | used["validation"]) == 20


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    games = make_games(10, count=200)

    def held(seed):
        options = dataclasses.replace(OPTIONS, seed=seed)
        return protocols.clean(games, options).parts["validation"]

    assert held(0) == held(0)
    assert len({tuple(held(seed)) for seed in range(8)}) > 1


@pytest.mark.usefixtures("no_floors")
def test_games_are_held_out_twice_once_to_choose_and_once_to_score():
    games = make_games(10, externals=(20, 20), internals=(22, 22), count=200)
    shares = {"validation_fraction": 0.2, "test_fraction": 0.2}
    task = build(games, **shares)
    held = {k: v["games"] for k, v in task.source["splits"].items()}
    assert [len(held[k]) for k in ("train", "validation", "test")] == [6, 2, 2]
    assert len({name for names in held.values() for name in names}) == 10
    assert task.finals == ("test",) and task.source["split_by"] == "game"
    # Training and validation data are those of before, less the games of the test.
    assert (
        held["validation"]
        == build(games, **shares | {"test_fraction": 0}).source["splits"]["validation"][
            "games"
        ]
    )
    few = build(games[:2], **shares)
    assert set(few.splits) == {"train", "validation"} and few.finals == ()


def test_players_who_train_are_not_held_out_if_that_is_asked():
    """Players a and b meet, so their games stay together; nobody knows who "" is."""
    played = ["ab", "a", "b", "c", "c", "d", "e", "f", " ", " ", " ", "g"]
    games = [
        dataclasses.replace(
            game,
            players=tuple(
                dataclasses.replace(player, who=(names + names[-1])[i].strip())
                for i, player in enumerate(game.players)
            ),
        )
        for names, game in zip(
            played,
            make_games(12, externals=(20, 20), internals=(22, 22), count=200),
            strict=True,
        )
    ]
    who = {game.name: {p.who for p in game.players} for game in games}
    for seed in range(6):
        options = dataclasses.replace(
            OPTIONS, seed=seed, split_by="player", test_fraction=0.2
        )
        data = protocols.clean(games, options)
        held = {
            name: set().union(*(who[g] for g in data.parts[name]))
            for name in data.parts
        }
        assert not held["train"] & (held["validation"] | held["test"])
        assert not held["validation"] & held["test"] and "" in held["train"]
        for counts in data.players.values():
            assert counts == {"also_train": 0, "unknown": 0}
    mixed = [
        protocols.clean(games, dataclasses.replace(OPTIONS, seed=seed)).players
        for seed in range(6)
    ]
    assert any(counts["validation"]["also_train"] for counts in mixed)
    assert any(counts["validation"]["unknown"] for counts in mixed)
    alone = dataclasses.replace(OPTIONS, split_by="player")
    with pytest.raises(InputError, match="split_by=player: 0 groups of games"):
        protocols.clean(games[8:11], alone)


@pytest.mark.usefixtures("no_floors")
def test_seeds_go_through_the_splits():
    games = make_games(10, count=200)
    runs = [build(games, seed=seed, splits=3, test_fraction=0.1) for seed in range(6)]
    held = [tuple(run.source["splits"]["test"]["games"]) for run in runs]
    assert held[:3] == held[3:] and len(set(held[:3])) > 1
    assert [run.source["split"] for run in runs] == [0, 1, 2] * 2
    # Of one board all the same.
    assert len({run.source["fingerprint"] for run in runs}) == 1
    assert "split" not in build(games, seed=1).source


@pytest.mark.usefixtures("no_floors")
def test_windows_start_at_frame_zero_and_stride_thins_them():
    games = make_games(3, count=400)
    every, third = build(games), build(games, stride=3)
    assert every.splits["train"][:, 1].min() == 0
    assert len(every.splits["train"]) == 2 * (400 - 123 - 1)
    assert len(third.splits["train"]) == 2 * -(-(400 - 123 - 1) // 3)


@pytest.mark.usefixtures("no_floors")
def test_only_human_two_player_games_are_used_and_the_rest_is_listed():
    games = [
        *make_games(3),
        make_game(300, ports=(1, 2, 3), externals=(20, 2, 9), internals=(22, 1, 18)),
        make_game(301, kind="cpu"),
        make_game(302, count=90),
        make_game(303, externals=(2, 9), internals=(1, 18)),
    ]
    task = build(games)
    assert task.source["games_used"] == 3
    reasons = {s["game"]: s["reason"] for s in task.source["left_out"]}
    assert "3 players" in reasons["game_300.slp"]
    assert "cpu" in reasons["game_301.slp"]
    assert "timer" in reasons["game_302.slp"]
    assert "game_303.slp" not in reasons  # nobody plays the character there


def test_source_passes_through_and_is_json():
    task = build(make_games(), source=FACTS)
    kept = json.loads(json.dumps(dict(task.source)))
    assert kept["source"] == "by hand" and kept["options"]["window"] == 30
    assert kept["bytes"] == sum(a.nbytes for a in task.arrays.values())
    assert kept["splits"]["train"]["examples"] == len(task.splits["train"])
    assert 0 < kept["varying_columns"]["varying"] <= kept["varying_columns"]["columns"]
    assert json.dumps({k: dict(v) for k, v in task.floors.items()})


@pytest.mark.usefixtures("no_floors")
def test_the_fingerprint_follows_bytes_protocol_and_options():
    games = make_games()
    base = build(games).source["fingerprint"]
    assert base == build(games).source["fingerprint"] and len(base) == 64
    assert base == build(games[::-1]).source["fingerprint"]
    other = [dataclasses.replace(games[0], sha256="0" * 64), *games[1:]]
    assert imitation.fingerprint(games, "clean", OPTIONS) == base
    changed = {
        imitation.fingerprint(other, "clean", OPTIONS),
        imitation.fingerprint(games, "compat", OPTIONS),
    }
    for option in ({"window": 10}, {"delay": 1}, {"seed": 1}, {"character": "fox"}):
        options = dataclasses.replace(OPTIONS, **option)
        changed.add(imitation.fingerprint(games, "clean", options))
    assert len(changed | {base}) == 7
    # Neither width nor loss options change which examples there are.
    assert base == build(games, width=8, button_weight=3.0).source["fingerprint"]


def test_floors_match_the_task_evaluated_by_its_own_gather():
    task = build(make_games(), readout="all", window=5, validation_fraction=0.4)
    batch = jax.jit(task.gather)(task.arrays, task.splits["validation"])
    batch["weight_b"] = jnp.ones(len(batch["reset_bt"]))
    target = np.asarray(batch["target_bta"])
    flat = floors.repeat(np.asarray(batch["previous_bta"], np.uint8).reshape(-1, 6))
    outputs = {k: v.reshape(*target.shape[:2], -1) for k, v in flat.items()}
    metrics = task.summarize(jax.device_get(jax.jit(task.loss)(outputs, batch)[1]))
    for name, value in task.floors["copy_previous"].items():
        if not name.startswith(("loss", "objective")):
            assert value == pytest.approx(metrics[name], rel=1e-5), name
    assert set(metrics) == set(task.floors["marginal"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "claen"}, "nearest: clean"),
        ({"head": "autoregresive"}, "nearest: autoregressive"),
        ({"readout": "first"}, "readout='first'"),
        ({"protocol": "compat", "readout": "all"}, "readout=last"),
        ({"window": 0}, "window=0"),
        ({"window": 2.5}, "window='2.5' is not of type int"),
        ({"stride": 0}, "stride=0"),
        ({"delay": -1}, "delay=-1"),
        ({"split_seed": -1}, "seed=-1"),
        ({"width": 0}, "width=0"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"label_smoothing": 0.7}, "label_smoothing=0.7"),
        ({"character": "zeldo"}, "zelda"),
        ({"character": "pichu"}, "pichu"),
        ({"delay": 500}, "hold no window"),
        ({"protocol": "compat", "window": 5000}, "hold no window"),
    ],
)
def test_mistakes_are_one_clear_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        build(make_games(3), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", ["clean", "compat"])
def test_one_game_is_too_few(protocol):
    with pytest.raises(InputError, match="add replays"):
        build(make_games(1), protocol=protocol)


def test_skipped_games_explain_why_there_are_too_few():
    games = [make_game(1), make_game(2, kind="cpu")]
    with pytest.raises(InputError, match=r"1 of 2.*game_002\.slp: port 1 is a cpu"):
        build(games)


@pytest.mark.integration
def test_real_replays_build_both_protocols(melee_train):
    from jaxbench.data.slippi import parse

    wanted = (
        *("falco-falco_battlefield_a772*", "iceclimbers*", "falco-cfalcon_yoshis*"),
        *("samus-falco*", "falco-peach*"),
    )
    games = [parse(next(melee_train.glob(pattern))) for pattern in wanted]
    clean = build(games, validation_fraction=0.2)
    assert clean.source["perspectives"] == 6 and clean.source["games_used"] == 5
    rows = sum(2 * np.count_nonzero(g.frame_t >= 0) for g in games)
    nana = np.count_nonzero(games[1].frame_t >= 0)
    assert len(clean.arrays["position"]) == 1 + rows + nana
    compat = build(games, protocol="compat", validation_fraction=0.2)
    total = sum(len(g.frame_t) for g in games)
    assert sum(len(v) for v in compat.splits.values()) == total - 2 * 29
    assert compat.source["varying_columns"]["columns"] == 288
    assert compat.source["varying_columns"]["varying"] <= 48
    for task in (clean, compat):
        copied, marginal = task.floors["copy_previous"], task.floors["marginal"]
        assert copied["loss"] < marginal["loss"] < 13.635
        assert copied["change/any"] == 0
        batch = jax.jit(task.gather)(task.arrays, task.splits["train"][::97])
        for name, value in batch.items():
            if jnp.issubdtype(value.dtype, jnp.floating):
                assert np.isfinite(np.asarray(value, np.float32)).all(), name
