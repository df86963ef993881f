"""What training does to its windows: mirrors, errors, delays."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import recipe
from test_zelda_frames import make_game

from jaxbench.data.game import Character, Items
from jaxbench.data.order import DrawnDelays, EpochOrder
from jaxbench.errors import InputError
from jaxbench.tasks.zelda import features, imitation
from jaxbench.tasks.zelda.augment import Augment, mirrored
from jaxbench.training.step import loss_and_grads

pytestmark = pytest.mark.usefixtures("no_floors")
SIDEWAYS_POST = (
    *("position_x", "direction", "self_x_air", "self_x_ground", "knockback_x"),
)


@pytest.fixture
def no_floors(monkeypatch):
    """Builds tasks without measuring their floors."""
    none = {"marginal": {}, "copy_previous": {}}
    monkeypatch.setattr(imitation.floors, "measure", lambda *labels: none)


def build(games, **changes):
    settings = {"character": "falco", "window": 5, "validation_fraction": 0.34}
    return imitation.build(games, recipe("zelda", **settings | changes), 8, {})


def negated(fields, names):
    return {k: -v if k in names else v for k, v in fields.items()}


def mirrored_game(game):
    """The game as a camera behind the stage would have recorded it."""

    def turned(fighter: Character | None):
        if fighter is None:
            return None
        return dataclasses.replace(
            fighter,
            pre=negated(fighter.pre, ("joystick_x", "cstick_x")),
            post=negated(fighter.post, SIDEWAYS_POST),
        )

    players = tuple(
        dataclasses.replace(p, leader=turned(p.leader), nana=turned(p.nana))
        for p in game.players
    )
    items = game.items
    if items is not None:
        fields = negated(items.fields, ("position_x", "velocity_x"))
        items = Items(**{**vars(items), "fields": fields})
    return dataclasses.replace(game, players=players, items=items)


def batch_of(task, rows=slice(None, None, 7)):
    return jax.jit(task.gather)(task.arrays, task.splits["train"][rows])


def test_a_mirrored_window_is_that_of_a_mirrored_game():
    games = [make_game(i, nana=i == 0, items=2) for i in range(3)]
    there = batch_of(build(games))
    turned = [mirrored_game(game) for game in games]
    expected = batch_of(build(turned))
    found = mirrored(there)
    assert np.abs(found["numeric_btf"] - there["numeric_btf"]).max() > 1
    assert (found["target_bta"] != there["target_bta"]).any()
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6, err_msg=name)
    for name, values in mirrored(found).items():
        np.testing.assert_array_equal(values, there[name], err_msg=name)


def test_so_many_windows_are_changed_whole_or_not_at_all():
    games = [make_game(i) for i in range(3)]
    batch = batch_of(build(games), slice(None, None, 1))
    count = len(batch["reset_bt"])
    column = features.NUMERIC.index("own.facing")
    turned = jax.jit(Augment(mirror=0.25))(batch, jax.random.key(1))
    sign_bt = turned["numeric_btf"][..., column] * batch["numeric_btf"][..., column]
    assert (np.abs(np.asarray(sign_bt).mean(1)) == 1).all()
    share = float((sign_bt[:, 0] < 0).mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / count) ** 0.5

    noisy = jax.jit(Augment(noise=0.5, noise_scale=0.02))(batch, jax.random.key(2))
    error_btf = np.asarray(noisy["numeric_btf"] - batch["numeric_btf"])
    changed_b = (error_btf != 0).any((1, 2))
    assert abs(changed_b.mean() - 0.5) < 4 * 0.5 / count**0.5
    names = [name.rpartition(".")[2] for name in features.NUMERIC]
    for f, name in enumerate(names):
        values = error_btf[changed_b][..., f]
        here = np.asarray(batch["numeric_btf"])[changed_b][..., f] != 0
        assert (values[~here] == 0).all(), name
        if name in ("x", "percent", "hitstun", "self_y") and here.sum() > 200:
            assert abs(values[here].std() - 0.02) < 0.002, name
        if name in ("present", "facing", "stocks", "airborne", "frame"):
            assert (values == 0).all(), name
    for name in set(batch) - {"numeric_btf"}:
        np.testing.assert_array_equal(noisy[name], batch[name])
    assert not Augment() and not Augment(noise=0.5, noise_scale=0)


def test_delays_are_drawn_for_training_alone():
    games = [make_game(i) for i in range(3)]
    fixed = {d: build(games, delay=d, drop_idle=False) for d in (1, 3)}
    task = build(games, delay=1, max_delay=3, drop_idle=False)
    order = task.order(batch_size=64, seed=5)
    rows = order.steps(0, 2, 2).reshape(-1, 3)
    assert set(rows[:, 2]) == {1, 2, 3}
    again = task.order(batch_size=64, seed=5).steps(1, 1, 1)
    np.testing.assert_array_equal(again[0], rows[64:])
    batch = jax.jit(task.gather)(task.arrays, rows)
    for delay, other in fixed.items():
        chosen = rows[:, 2] == delay
        expected = jax.jit(other.gather)(other.arrays, rows[chosen][:, :2])
        for name in ("target_bta", "previous_bta", "numeric_btf"):
            np.testing.assert_array_equal(batch[name][chosen], expected[name])
    # No label lies behind the end of its game.
    last = max(delay for delay in fixed)
    ends = {p: rows_.max() for p, rows_ in by_game(fixed[last]).items()}
    assert all(rows_.max() == ends[p] for p, rows_ in by_game(task).items())
    validation = task.splits["validation"]
    assert (validation[:, 2] == 1).all()
    np.testing.assert_array_equal(validation[:, :2], fixed[last].splits["validation"])
    source = task.source["options"]
    assert source["delay"] == 1 and source["max_delay"] == 3
    assert "max_delay" not in fixed[1].source["options"]


def by_game(task):
    rows = task.splits["train"]
    return {p: rows[rows[:, 0] == p, 1] for p in np.unique(rows[:, 0])}


def test_drawn_delays_depend_on_the_step_alone():
    examples = np.zeros((50, 3), np.int32)
    order = DrawnDelays(
        EpochOrder(examples, batch_size=10, seed=3), low=2, high=4, seed=3
    )
    whole = order.steps(0, 5, 5)[..., -1]
    parts = [order.steps(n, 1, 2)[0, :, -1] for n in range(5)]
    np.testing.assert_array_equal(whole, parts)
    drawn = np.concatenate([order.steps(5 * e, 5, 5)[..., -1] for e in range(40)])
    counts = np.bincount(drawn.ravel(), minlength=5)
    assert counts[:2].sum() == 0 and (np.abs(counts[2:] - 2000 / 3) < 100).all()
    assert (examples == 0).all()


def test_a_step_learns_from_the_changed_batch(toy_parts):
    parts = toy_parts

    def double(batch, key):
        del key
        return {**batch, "y_b": 2 * batch["y_b"], "x_btd": 2 * batch["x_btd"]}

    rows = parts.task.splits["train"][:8]
    batch = dict(parts.task.gather(parts.task.arrays, rows))
    batch["weight_b"] = jnp.ones(8)
    state = parts.start()
    changed = dataclasses.replace(parts.task, augment=double)
    given = dict(model=parts.model, micro_batches=2)
    learn = jax.jit(functools.partial(loss_and_grads, task=parts.task, **given))
    found = jax.jit(functools.partial(loss_and_grads, task=changed, **given))(
        state, batch
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        learn(state, double(batch, None)),
    )
    assert abs(found[0] - learn(state, batch)[0]) > 1e-6


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(max_delay=1, delay=2), "data.max_delay=1 must be longer than data.delay"),
        (dict(max_delay=-1), "max_delay=-1 must not be negative"),
        (
            dict(max_delay=2, protocol="compat"),
            "data.max_delay need protocol=clean",
        ),
        (
            dict(mirror=0.5, protocol="compat"),
            "data.mirror, data.noise and",
        ),
        (dict(max_delay=2, head="act"), "head=act learns chunks of one delay"),
        (dict(mirror=1.5), r"data.mirror=1.5 must lie in \[0, 1\]"),
        (dict(noise=0.1, noise_scale=-1), "data.noise_scale=-1.0 must not be negative"),
    ],
)
def test_what_cannot_be_augmented_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        recipe("zelda", **changes)
