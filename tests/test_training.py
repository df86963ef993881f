"""The optimiser, the step, the loop and its checkpoints, on a toy task."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import BATCH, Parts, optimizer

from jaxbench.data.order import EpochOrder, epoch_order
from jaxbench.errors import InputError
from jaxbench.training import checkpoint, loop
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.optimizer import parameter_groups, schedule, spend
from jaxbench.training.packed import unpack
from jaxbench.training.programs import place_span
from jaxbench.training.records import flatten, read_metrics
from jaxbench.training.writers import MetricWriter


@pytest.fixture
def parts(toy_parts) -> Parts:
    return toy_parts


def equal_trees(a, b) -> bool:
    def raw(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(raw(x), raw(y)) for x, y in pairs)


# --- optimiser ---------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (3,)])
def test_groups_follow_roles_whatever_axes_stand_in_front(leading):
    roles = {
        "matrix": ("kernel", "recurrent", "decay_down", "key", "scale_kernel"),
        "vector": ("bias", "scale", "heads_bias", "gain_slope", "embedding"),
        "ssm": ("ssm_a_log", "ssm_gate_bias"),
    }
    for role, names in roles.items():
        params = {"layer": {name: jnp.ones((*leading, 2, 2)) for name in names}}
        groups = parameter_groups(params)["layer"]
        assert groups == dict.fromkeys(names, role)
    one_axis = {"shift_key": jnp.ones(2), "scale": jnp.ones((*leading, 2))}
    assert set(parameter_groups(one_axis).values()) == {"vector"}


def test_only_matrices_decay_and_ssm_has_its_own_rate():
    chain = optimizer(0.1, ssm_learning_rate=0.01, weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "ssm_d": jnp.ones(2)}
    update, state = jax.jit(chain.update), jax.jit(chain.init)(params)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = update(zero, state, params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)
    np.testing.assert_array_equal(updates["ssm_d"], 0)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = update(grads, state, params)
    # Adam's first step is one learning rate long, whatever the gradient's size.
    np.testing.assert_allclose(updates["bias"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["ssm_d"], -0.01, rtol=1e-5)


def test_clip_acts_on_the_norm_of_all_groups_together():
    # SGD-like reading of Adam's first moment: m = (1 - b1) * clipped gradient.
    chain = optimizer(clip_norm=1.0)
    params = {"kernel": jnp.zeros((1, 3)), "ssm_d": jnp.zeros(1)}
    grads = {"kernel": jnp.full((1, 3), 10.0), "ssm_d": jnp.full(1, 10.0)}
    _, state = jax.jit(chain.update)(grads, jax.jit(chain.init)(params), params)
    moments = [
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if ".mu" in jax.tree_util.keystr(path)
    ]
    norm = np.sqrt(sum(float(jnp.sum(m**2)) for m in moments))
    np.testing.assert_allclose(norm, 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    "name, end", [("cosine", 0.1), ("linear", 0.1), ("exponential", 0.1)]
)
def test_schedules_warm_up_peak_and_end(name, end):
    rate = schedule(name, warmup=0.1, final_fraction=end)
    assert float(rate(0, 0.0)) == 0.0
    np.testing.assert_allclose(rate(0, 0.05), 0.5, rtol=1e-6)
    np.testing.assert_allclose(rate(0, 0.1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(rate(0, 1.0), end, rtol=1e-4)
    # A budget of seconds may be overdrawn by part of a dispatch.
    np.testing.assert_allclose(rate(0, 1.01), end, rtol=1e-4)


def test_constant_schedule_is_the_originals():
    rate = schedule("constant", warmup=1000 / 500)
    np.testing.assert_allclose(rate(0, 250 / 500), 0.25, rtol=1e-6)


def test_restarts_come_back_to_the_peak():
    rate = schedule("cosine_restarts")
    starts = [0, 1 / 15 + 1e-6, 3 / 15 + 1e-6, 7 / 15 + 1e-6]
    np.testing.assert_allclose([rate(0, f) for f in starts], 1.0, rtol=1e-5)
    assert float(rate(0, 0.066)) < 0.05


def test_the_oscillating_schedule_follows_the_step_alone():
    rate = schedule("oscillating")
    for fraction in (0.0, 0.7):
        found = [float(rate(step, fraction)) for step in (0, 500, 1000, 2000, 3000)]
        np.testing.assert_allclose(found, [0, 0.5, 0, 1, 0], atol=1e-6)


def test_schedule_errors_name_the_nearest():
    with pytest.raises(InputError, match=r"nearest: .*cosine"):
        schedule("cosin")
    with pytest.raises(InputError, match="must be below 1"):
        schedule("cosine", warmup=1.0)


def test_the_rate_follows_what_is_spent():
    chain = optimizer(0.1, shape=schedule("linear"))
    params = {"bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.ones_like, params)
    for fraction in (0.0, 0.5, 0.75):
        state = spend(chain.init(params), jnp.float32(fraction))
        updates, _ = chain.update(grads, state, params)
        np.testing.assert_allclose(updates["bias"], -0.1 * (1 - fraction), rtol=1e-5)


# --- order -------------------------------------------------------------------


def test_each_epoch_is_a_full_permutation_of_its_own():
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(0, 0, 50))


def test_steps_do_not_depend_on_how_they_are_dispatched():
    rows = np.arange(40, dtype=np.int32)
    one = EpochOrder(rows, batch_size=4, seed=1)
    other = EpochOrder(rows, batch_size=4, seed=1)
    whole = one.steps(10, 10, 10)
    parts = [other.steps(10 + s, 1, 3)[0] for s in range(10)]
    np.testing.assert_array_equal(whole, np.stack(parts))
    assert sorted(whole.reshape(-1)) == list(range(40))


def test_fewer_examples_than_a_batch_is_an_input_error():
    with pytest.raises(InputError, match=r"train\.batch_size=4"):
        EpochOrder(np.arange(3, dtype=np.int32), batch_size=4, seed=0)


# --- step and dispatch ---------------------------------------------------------


def test_a_dispatch_equals_its_steps_one_by_one(parts):
    rows_kb = parts.order.steps(0, 3, 8)
    given = jnp.asarray(rows_kb)
    together, statistics = parts.programs.train(
        parts.start(), parts.arrays, given, parts.span(3)
    )
    state, total = parts.start(), 0.0
    for k in range(3):
        own = jnp.asarray(np.roll(rows_kb, -k, axis=0))
        span = place_span(parts.placement, [1], float(k), 1.0, 100)
        state, single = parts.programs.train(state, parts.arrays, own, span)
        total += float(single["error"])
    assert int(together.step) == 3 and float(statistics["steps"]) == 3
    np.testing.assert_allclose(statistics["error"], total, rtol=1e-6)
    assert equal_trees(together, state)


@pytest.mark.parametrize("rate", [np.nan, np.inf, 3e38])
def test_parameters_that_are_not_finite_are_never_kept(parts, rate):
    """A finite gradient, and a rate that is no number or overflows."""
    state = parts.start()
    state = state.replace(
        opt_state=optax.tree_utils.tree_set(
            state.opt_state, learning_rate=jnp.float32(rate)
        )
    )
    before = jax.device_get(state.params)
    rows = jnp.asarray(parts.order.steps(0, 3, parts.programs.steps_per_dispatch))
    span = parts.span(3)
    after, _ = parts.programs.train(state, parts.arrays, rows, span)
    assert int(after.broken_leaf) == -1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
    if not np.isfinite(rate):
        assert int(after.broken_step) == int(after.step) == 0
        assert equal_trees(after.params, before)


def test_ema_follows_the_parameters(parts):
    first = parts.start()
    start = jax.device_get(first.params)
    rows_kb = jnp.asarray(parts.order.steps(0, 1, 8))
    state, _ = parts.programs.train(first, parts.arrays, rows_kb, parts.span(1))
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, start, state.params)
    for a, b in zip(
        jax.tree.leaves(expected), jax.tree.leaves(state.ema_params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_padding_of_the_last_batch_counts_nothing(parts):
    """21 validation examples in groups of 16: compare with numpy on all 21."""
    state = parts.start()
    (metrics,) = loop.score(state, parts.arrays, parts.programs, parts.validation)
    rows = jnp.asarray(parts.task.splits["validation"])
    batch = parts.task.gather(parts.arrays, rows)
    outputs, _ = parts.model.apply(unpack(state.evaluation_variables()), batch)
    expected = np.mean((np.asarray(outputs) - np.asarray(batch["y_b"])) ** 2)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


# --- loop ----------------------------------------------------------------------


def test_training_learns_and_writes_everything(parts, tmp_path):
    state, outcome = parts.train(tmp_path / "run", 40, checkpoint_every=0)
    assert outcome.status == "ok" and outcome.step == 40 == int(state.step)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    validation = [r for r in records if r["split"] == "validation"]
    assert [r["step"] for r in validation] == [8, 16, 24, 32, 40]
    assert validation[-1]["loss"] < 0.5 * validation[0]["loss"]
    assert outcome.best["metrics"]["loss"] == min(r["loss"] for r in validation)
    train = [r for r in records if r["split"] == "train"]
    assert train[-1]["step"] == 40 and train[-1]["gradient_norm"] > 0
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    saved = Checkpoints(tmp_path / "run" / "checkpoints")
    assert saved.latest_step("last") == 40
    assert saved.latest_step("best") == outcome.best["step"]
    saved.close()


@pytest.mark.integration
def test_what_mixers_sow_is_logged_and_joins_the_loss(tmp_path):
    parts = Parts(backbone="mlp/moe")
    parts.train(tmp_path / "run", 8)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    for record in records:
        if record["split"] == "train":
            largest = record["model/blocks_0/channel/max_share"]
            smallest = record["model/blocks_0/channel/min_share"]
            assert 0 <= smallest < 1 / 8 < largest <= 1
            # Balance costs 0.01 where the experts are used alike, more elsewhere.
            assert 0.0099 < record["auxiliary_loss"] < 0.08
            total = record["loss"] + record["auxiliary_loss"]
            assert record["total_loss"] == pytest.approx(total, rel=1e-5)
        else:
            assert not any(key.startswith("model/") for key in record)


class Killed(BaseException):
    """Nothing catches it, so nothing more is written."""


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_stopped_anywhere_goes_on_to_the_same_numbers(parts, tmp_path, killed):
    """Before every dispatch, and before every batch of every validation."""
    saves = {"checkpoint_every": 4}
    asks, events = [], []
    whole, expected = parts.train(
        tmp_path / "whole", 12, stop=lambda: asks.append(1), **saves
    )
    records = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    for place in range(len(asks)):
        folder, asked = tmp_path / f"cut{place}", iter(range(100))

        def stop(place=place, asked=asked):
            if next(asked) < place:
                return None
            if killed:
                raise Killed
            return "SIGTERM received"

        try:
            _, first = parts.train(folder, 12, stop=stop, **saves)
            assert first.status == "interrupted" and first.reason == "SIGTERM received"
            events.append((first.step, first.due))
        except Killed:
            pass
        resumed, second = parts.train(folder, 12, **saves)
        assert second.status == "ok" and second.step == 12 and not second.due
        assert equal_trees(resumed, whole)
        assert second.best == expected.best and second.last == expected.last
        assert read_metrics(folder / "metrics.jsonl") == records
        saved = Checkpoints(folder / "checkpoints")
        assert saved.latest_step() == 12
        assert saved.latest_step("best") == expected.best["step"]
        assert saved.facts(12)["best"] == expected.best
        saved.close()
    if not killed:
        # In both of the validations, in both of their batches.
        assert [events.count((step, True)) for step in (8, 12)] == [2, 2]


def test_a_validation_begins_when_its_state_is_on_disk(parts, tmp_path, monkeypatch):
    saved, score = [], loop.score

    def look(states, *rest):
        checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
        saved.append((int(states.step), checkpoints.latest_step()))
        checkpoints.close()
        return score(states, *rest)

    monkeypatch.setattr(loop, "score", look)
    parts.train(tmp_path / "run", 20, checkpoint_every=0)
    assert saved == [(8, 8), (16, 16), (20, 20)]


def test_a_state_lost_after_the_last_checkpoint_is_trained_again(parts, tmp_path):
    """As after kill -9: later checkpoints are gone, later metrics are there."""
    saves = {"checkpoint_every": 12}
    whole, expected = parts.train(tmp_path / "run", 24, **saves)
    before = read_metrics(tmp_path / "run" / "metrics.jsonl")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "last" / "24")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 24, "spl')  # a line cut short by the kill
    again, outcome = parts.train(tmp_path / "run", 24, **saves)
    assert equal_trees(again, whole) and outcome.best == expected.best
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == before


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_divergence_stops_at_the_step_and_names_it(
    parts, tmp_path, monkeypatch, poison
):
    signal = np.array(parts.arrays["signal"])
    signal[40] = poison  # in the windows of examples 36..40
    monkeypatch.setattr(parts, "arrays", place(parts, signal))
    order = epoch_order(3, 0, 64)
    expected = min(i // BATCH for i, e in enumerate(order) if 36 <= e <= 40)
    state, outcome = parts.train(tmp_path / "run", 16, checkpoint_every=0)
    assert outcome.status == "diverged"
    assert outcome.step == expected == int(state.step)
    assert f"step {expected}: the gradient of encoder/" in outcome.reason
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    for record in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        assert np.isfinite(list(v for k, v in record.items() if k != "split")).all()


def place(parts, signal):
    return {"signal": jax.device_put(signal, parts.placement.whole)}


def test_evaluate_every_adds_validations(parts, tmp_path):
    _, outcome = parts.train(tmp_path / "run", 8, evaluate_every=3, checkpoint_every=0)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    steps = [r["step"] for r in records if r["split"] == "validation"]
    assert steps == [3, 6, 8]
    assert outcome.last["step"] == 8


# --- files ---------------------------------------------------------------------


def test_a_checkpoint_of_another_model_is_refused(parts, tmp_path):
    parts.train(tmp_path / "run", 8, checkpoint_every=0)
    without_average = parts.programs.abstract_state.replace(ema_params=())
    saved = Checkpoints(tmp_path / "run" / "checkpoints")
    with pytest.raises(InputError, match="does not fit this configuration"):
        saved.restore(without_average)
    saved.close()


def test_a_damaged_file_of_a_checkpoint_is_never_read(parts, tmp_path):
    """One bit of any file, or its second half; no other weights come of it."""
    parts.train(tmp_path / "run", 8, checkpoint_every=0)
    saved = Checkpoints(tmp_path / "run" / "checkpoints")
    abstract = parts.programs.abstract_state
    state = tmp_path / "run" / "checkpoints" / "last" / "8"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert len(files) > 8
    rng = np.random.default_rng(0)
    for path in files:
        good = path.read_bytes()
        flipped = bytearray(good)
        flipped[rng.integers(len(good))] ^= 1 << rng.integers(8)
        for bad in (bytes(flipped), good[: len(good) // 2], b""):
            path.write_bytes(bad)
            with pytest.raises(InputError, match=r"last/8 is damaged: \S+ \w+") as e:
                saved.restore(abstract)
            assert "\n" not in str(e.value)
            with pytest.raises(InputError, match="is damaged"):
                saved.facts(8)
        path.write_bytes(good)
    assert int(saved.restore(abstract)[0].step) == 8
    saved.close()


def test_a_state_without_its_manifest_was_not_saved(parts, tmp_path):
    """As after a kill between the two; nothing older went before."""
    saved = Checkpoints(tmp_path)
    state = parts.start()
    for step in (1, 2, 3):
        saved.save("best", state.replace(step=jnp.int32(step)), {"at": step})
    assert saved.latest_step("best") == 3
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["3"]
    (tmp_path / "best" / "3" / "manifest.json").unlink()
    assert saved.latest_step("best") is None
    saved.save("best", state.replace(step=jnp.int32(3)), {"at": "again"})
    abstract = parts.programs.abstract_state
    assert saved.restore(abstract, "best")[1] == {"at": "again"}
    saved.close()


def test_a_full_disk_is_recognised_and_refused_up_front(tmp_path, monkeypatch):
    cause = OSError(28, "No space left on device")
    wrapped = ValueError("write failed")
    wrapped.__cause__ = cause
    assert checkpoint.disk_is_full(wrapped)
    assert not checkpoint.disk_is_full(ValueError("another"))
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda p: usage)
    with pytest.raises(InputError, match="MB free and the run needs"):
        checkpoint.require_space(tmp_path / "new" / "run", 1000)


def test_a_disk_that_fills_up_ends_the_run_before_a_save(parts, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    saved = Checkpoints(tmp_path / "checkpoints")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda p: usage)
    with pytest.raises(InputError, match="no space left on the disk"):
        saved.save("last", parts.start(), {})
    assert saved.latest_step() is None
    saved.close()


def test_hyperparameters_reach_tensorboard(tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    writer = MetricWriter(tmp_path)
    writer.write(3, "train", {"loss": 1.5})
    writer.hyperparameters({"train": {"rate": 0.1}}, {"loss": 1.0})
    writer.close()
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Scalars("train/loss")[0].value == 1.5
    hparams = list((tmp_path / "hparams").glob("events.*"))
    assert len(hparams) == 1
    assert flatten({"train": {"rate": 0.1}}) == {"train.rate": 0.1}
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 1.5
