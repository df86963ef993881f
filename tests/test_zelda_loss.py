"""The loss and its metrics against numpy, the oracle, and predictors without eyes."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from recipes import recipe

from jaxbench.errors import InputError
from jaxbench.tasks.zelda import controller, floors, loss

NAMES = controller.COMPONENTS
PLAIN = jax.jit(loss.make())


def random_labels(rng, shape):
    top = (256, 17, 17, 17, 17, 5)
    return np.stack([rng.integers(0, k, shape) for k in top], -1).astype(np.int32)


def make_batch(seed=0, batch=7, time=3, weight=None):
    rng = np.random.default_rng(seed)
    target = random_labels(rng, (batch, time))
    previous = target.copy()
    moved = rng.random((batch, time, 6)) < 0.3
    previous[moved] = random_labels(rng, (batch, time))[moved]
    outputs = {
        k: rng.normal(size=(batch, time, n)).astype(np.float32) * 2
        for k, n in controller.CLASSES.items()
    }
    return outputs, {
        "target_bta": target,
        "previous_bta": previous,
        "valid_bt": rng.random((batch, time)) < 0.8,
        "weight_b": np.ones(batch, np.float32) if weight is None else weight,
    }


def slow_terms(outputs, target, eps=0.0, gamma=0.0, button=1.0, edge=1.0):
    """Six terms of one frame, in plain python floats."""
    bits = [(int(target[0]) >> i) & 1 for i in range(8)]
    terms, total = {}, 0.0
    for i, bit in enumerate(bits):
        p = 1 / (1 + math.exp(-float(outputs["buttons"][i])))
        t = bit * (1 - 2 * eps) + eps
        value = -(t * math.log(p) + (1 - t) * math.log(1 - p))
        total += value * (1 - (t * p + (1 - t) * (1 - p))) ** gamma
    terms["buttons"] = button * total / 8
    for name, label in zip(NAMES[1:], target[1:], strict=True):
        z = [float(v) for v in outputs[name]]
        norm = math.log(sum(math.exp(v) for v in z))
        count = len(z)
        t = [1 - eps if k == label else eps / (count - 1) for k in range(count)]
        p = [math.exp(v - norm) for v in z]
        value = -sum(a * math.log(b) for a, b in zip(t, p, strict=True))
        value *= (1 - sum(a * b for a, b in zip(t, p, strict=True))) ** gamma
        if name in ("main_x", "main_y"):
            value *= 1 + (edge - 1) * abs(int(label) - 8) / 8
        terms[name] = value
    return terms


def slow_mean(outputs, batch, **options):
    total, weight = dict.fromkeys(NAMES, 0.0), 0.0
    count, time = batch["valid_bt"].shape
    for b in range(count):
        for t in range(time):
            w = float(batch["weight_b"][b]) * bool(batch["valid_bt"][b, t])
            row = {k: v[b, t] for k, v in outputs.items()}
            for name, value in slow_terms(
                row, batch["target_bta"][b, t], **options
            ).items():
                total[name] += w * value
            weight += w
    return {name: value / weight for name, value in total.items()}


def test_uniform_logits_cost_13_635():
    _, batch = make_batch(batch=64)
    outputs = {
        k: np.zeros((64, 3, n), np.float32) for k, n in controller.CLASSES.items()
    }
    value, sums = PLAIN(outputs, batch)
    expected = math.log(2) + 4 * math.log(17) + math.log(5)
    assert expected == pytest.approx(13.635, abs=5e-4)
    assert float(value) == pytest.approx(expected, abs=1e-6 * 13)
    metrics = loss.summarize(jax.device_get(sums))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["loss/buttons"] == pytest.approx(math.log(2), rel=1e-6)
    assert metrics["loss/shoulder"] == pytest.approx(math.log(5), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(option, marks=pytest.mark.integration)
            for option in (
                {"eps": 0.1},
                {"gamma": 2.0},
                {"gamma": 0.5},
                {"button": 4.0},
                {"edge": 2.5},
            )
        ),
        {"eps": 0.05, "gamma": 1.5, "button": 3.0, "edge": 2.0},
    ],
)
def test_every_option_against_plain_python(options):
    names = {
        "eps": "label_smoothing",
        "gamma": "focal_gamma",
        "button": "button_weight",
        "edge": "stick_edge_weight",
    }
    outputs, batch = make_batch(3)
    function = jax.jit(loss.make(**{names[k]: v for k, v in options.items()}))
    value, sums = function(outputs, batch)
    expected = slow_mean(outputs, batch, **options)
    assert float(value) == pytest.approx(sum(expected.values()), rel=1e-5)
    metrics = loss.summarize(jax.device_get(sums))
    assert metrics["objective"] == pytest.approx(float(value), rel=1e-5)
    # The reported terms never change with the options.
    for name, term in slow_mean(outputs, batch).items():
        assert metrics[f"loss/{name}"] == pytest.approx(term, rel=1e-5)


def test_statistics_of_batches_add_up_and_padding_counts_nothing():
    outputs, batch = make_batch(4, batch=8)
    whole = PLAIN(outputs, batch)[1]
    parts = []
    for rows in (slice(0, 5), slice(5, 8)):
        part = {k: v[rows] for k, v in batch.items()}
        parts.append(PLAIN({k: v[rows] for k, v in outputs.items()}, part)[1])
    for name, value in whole.items():
        both = np.asarray(parts[0][name]) + np.asarray(parts[1][name])
        np.testing.assert_allclose(value, both, rtol=1e-5, err_msg=name)
    weight = np.float32([1] * 5 + [0] * 3)
    masked_mean, masked = PLAIN(outputs, batch | {"weight_b": weight})
    for name, value in masked.items():
        np.testing.assert_allclose(value, parts[0][name], rtol=1e-5, err_msg=name)
    sums = float(parts[0]["objective"]) / float(parts[0]["weight"])
    assert float(masked_mean) == pytest.approx(sums, rel=1e-5)


def test_an_empty_batch_is_zero_not_nan():
    outputs, batch = make_batch(5)
    value, sums = PLAIN(outputs, batch | {"weight_b": np.zeros(7, np.float32)})
    assert float(value) == 0
    assert all(v == 0 for v in loss.summarize(jax.device_get(sums)).values())


def test_counts_against_a_loop():
    outputs, batch = make_batch(6, batch=40)
    metrics = loss.summarize(jax.device_get(PLAIN(outputs, batch)[1]))
    valid = batch["valid_bt"]
    target, before = batch["target_bta"][valid], batch["previous_bta"][valid]
    said = {k: v[valid] for k, v in outputs.items()}
    press = said["buttons"] > 0
    true = controller.unpack(target[:, 0])
    old = controller.unpack(before[:, 0])
    assert metrics["accuracy/buttons"] == pytest.approx(np.mean(press == true))
    exact = np.mean([np.array_equal(a, b) for a, b in zip(press, true, strict=True)])
    assert metrics["accuracy/buttons_exact"] == pytest.approx(exact)
    f1 = []
    for b in range(8):
        hits = sum(press[:, b] & true[:, b])
        wrong = sum(press[:, b] ^ true[:, b])
        f1.append(2 * hits / (2 * hits + wrong))
    assert metrics["f1/buttons_macro"] == pytest.approx(np.mean(f1))
    hits, wrong = np.sum(press & true), np.sum(press ^ true)
    assert metrics["f1/buttons_micro"] == pytest.approx(2 * hits / (2 * hits + wrong))
    flips = true != old
    assert metrics["change/buttons"] == pytest.approx(np.mean((press == true)[flips]))
    right = (press == true).all(1)
    for i, name in enumerate(NAMES[1:], start=1):
        correct = np.argmax(said[name], -1) == target[:, i]
        moved = target[:, i] != before[:, i]
        assert metrics[f"accuracy/{name}"] == pytest.approx(np.mean(correct))
        assert metrics[f"change/{name}"] == pytest.approx(np.mean(correct[moved]))
        right &= correct
    moved = np.any(target != before, 1)
    assert metrics["change/any"] == pytest.approx(np.mean(right[moved]))
    assert metrics["change/frames"] == moved.sum() > 0


def score(outputs, batch):
    return loss.summarize(jax.device_get(PLAIN(outputs, batch)[1]))


def test_the_oracle_reaches_the_ceiling_and_repeating_never_sees_a_change():
    _, batch = make_batch(7, batch=50, time=1)
    oracle = floors.repeat(batch["target_bta"][:, 0].astype(np.uint8))
    metrics = score({k: v[:, None] for k, v in oracle.items()}, batch)
    for name, value in metrics.items():
        if name.startswith(("accuracy/", "f1/")) or (
            name.startswith("change/") and name != "change/frames"
        ):
            assert value == pytest.approx(1), name
        if name.startswith(("loss", "objective")):
            assert value == pytest.approx(0, abs=1e-6), name
    copied = floors.repeat(batch["previous_bta"][:, 0].astype(np.uint8))
    metrics = score({k: v[:, None] for k, v in copied.items()}, batch)
    for name in (*NAMES, "any"):
        assert metrics[f"change/{name}"] == 0
    assert 0 < metrics["accuracy/main_x"] < 1


def correlated(seed, count):
    """Labels that persist: the next is the previous with probability 0.9."""
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, (count,)).astype(np.uint8)
    labels[:, 2] = 8  # one group is constant
    for t in range(1, count):
        if rng.random() < 0.9:
            labels[t] = labels[t - 1]
    return labels[1:], labels[:-1], rng.integers(1, 4, count - 1)


def test_floors_are_what_they_claim_to_be():
    train, validation = correlated(0, 4000), correlated(1, 1500)
    found = floors.measure(train, validation, PLAIN)
    assert set(found) == {"marginal", "copy_previous"}
    assert set(found["marginal"]) == set(found["copy_previous"])
    target, previous, count = validation
    for i, name in enumerate(NAMES[1:], start=1):
        k = controller.CLASSES[name]
        table = np.ones((k, k))
        for new, old, n in zip(train[0][:, i], train[1][:, i], train[2], strict=True):
            table[old, new] += n
        p = table / table.sum(1, keepdims=True)
        expected = -np.average(np.log(p[previous[:, i], target[:, i]]), weights=count)
        assert found["copy_previous"][f"loss/{name}"] == pytest.approx(
            expected, rel=1e-4
        )
        once = np.ones(k) + np.bincount(train[0][:, i], weights=train[2], minlength=k)
        expected = -np.average(np.log((once / once.sum())[target[:, i]]), weights=count)
        assert found["marginal"][f"loss/{name}"] == pytest.approx(expected, rel=1e-4)
        same = np.average(target[:, i] == previous[:, i], weights=count)
        assert found["copy_previous"][f"accuracy/{name}"] == pytest.approx(same)
    assert found["copy_previous"]["loss"] < 0.5 * found["marginal"]["loss"]
    assert found["copy_previous"]["change/any"] == 0
    assert found["marginal"]["loss"] < math.log(2) + 4 * math.log(17) + math.log(5)


def test_the_marginal_is_the_best_constant_on_its_own_split():
    split = correlated(2, 3000)
    best = floors.measure(split, split, PLAIN)["marginal"]["loss"]
    rng = np.random.default_rng(0)
    for _ in range(3):
        noise = {k: rng.normal(size=n) * 0.3 for k, n in controller.CLASSES.items()}

        def constant(previous, noise=noise):
            tables = floors._tables(split[0], np.zeros_like(split[0]), split[2])
            logits = floors._look_up(tables, np.zeros_like(previous))
            return {
                k: (v + noise[k][None]).astype(np.float32) for k, v in logits.items()
            }

        assert floors.evaluate(constant, split, PLAIN)["loss"] > best


def test_mismatched_logits_are_refused():
    outputs, batch = make_batch(8)
    outputs["c_x"] = outputs["c_x"][..., :16]
    with pytest.raises(ValueError, match="c_x"):
        PLAIN(outputs, batch)


@pytest.mark.parametrize(
    "option",
    [
        {"label_smoothing": 0.5},
        {"label_smoothing": -0.1},
        {"focal_gamma": -1.0},
        {"button_weight": float("nan")},
        {"stick_edge_weight": float("inf")},
    ],
)
def test_options_out_of_range_are_refused(option):
    (name,) = option
    with pytest.raises(InputError, match=f"train.{name}=.* must (lie in|be a finite)"):
        recipe("zelda", **option)


def test_gradients_stay_finite_at_extreme_logits():
    outputs, batch = make_batch(9)
    extreme = {k: np.sign(v) * 80 for k, v in outputs.items()}
    function = loss.make(
        label_smoothing=0.1, focal_gamma=0.5, button_weight=3.0, stick_edge_weight=2.0
    )
    grads = jax.jit(jax.grad(lambda z: function(z, batch)[0]))(extreme)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
