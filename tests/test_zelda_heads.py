"""Both heads: shapes, order of conditioning, and drawing controllers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw

from jaxbench.tasks.zelda import controller, heads


@functools.cache
def setup(name, dtype=jnp.float32):
    """A head's program, drawn parameters, and a batch of 5 by 2 frames for them."""
    h = np.random.default_rng(1).normal(size=(5, 2, 16)).astype(dtype)
    labels = np.stack(
        [
            np.random.default_rng(i).integers(0, k, (5, 2))
            for i, k in enumerate((256, 17, 17, 17, 17, 5))
        ],
        axis=-1,
    )
    head = heads.HEADS[name](dtype=dtype)
    inputs = {"target_bta": jnp.asarray(labels)}
    return jax.jit(head.apply), draw(head, h, inputs), jnp.asarray(h), inputs


@functools.cache
def sampler(name, temperature):
    """The program that draws controllers."""
    given = dict(temperature=temperature, method="sample")
    return jax.jit(functools.partial(heads.HEADS[name]().apply, **given))


@pytest.mark.parametrize(
    "dtype",
    [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.integration)],
)
@pytest.mark.parametrize("name", list(heads.HEADS))
def test_eighty_one_float32_logits(name, dtype):
    apply, params, h, batch = setup(name, dtype)
    outputs = apply(params, h, batch)
    widths = {k: v.shape[-1] for k, v in outputs.items()}
    assert widths == dict(controller.CLASSES) and sum(widths.values()) == 81
    for value in outputs.values():
        assert value.dtype == jnp.float32 and value.shape[:2] == (5, 2)
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_layer_widths(name):
    params = setup(name)[1]["params"]
    before = 0
    for component, classes in controller.CLASSES.items():
        hidden = 32 if component == "shoulder" else 64
        wide = 16 + (before if name == "autoregressive" else 0)
        assert params[f"hidden_{component}"]["kernel"].shape == (wide, hidden)
        assert params[f"out_{component}"]["kernel"].shape == (hidden, classes)
        before += classes


def test_independent_logits_are_the_stated_layers():
    apply, params, h, batch = setup("independent")
    p = jax.tree.map(np.asarray, params["params"])
    outputs = apply(params, h, batch)
    for name in controller.COMPONENTS:
        first, last = p[f"hidden_{name}"], p[f"out_{name}"]
        hidden = np.maximum(np.asarray(h) @ first["kernel"] + first["bias"], 0)
        expected = hidden @ last["kernel"] + last["bias"]
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)


@pytest.mark.parametrize("changed", range(6))
def test_a_group_is_seen_by_the_groups_after_it_only(changed):
    apply, params, h, batch = setup("autoregressive")
    labels = batch["target_bta"]
    top = (256, 17, 17, 17, 17, 5)[changed]
    other = labels.at[..., changed].set((labels[..., changed] + 1) % top)
    one = apply(params, h, {"target_bta": labels})
    two = apply(params, h, {"target_bta": other})
    for i, name in enumerate(controller.COMPONENTS):
        same = np.array_equal(one[name], two[name])
        assert same == (i <= changed), name


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_greedy_choices_are_the_argmax_of_their_own_teacher_forced_logits(name):
    apply, params, h, _ = setup(name)
    chosen = sampler(name, 0.0)(params, h, jax.random.key(0))
    assert chosen.shape == (5, 2, 6) and chosen.dtype == jnp.int32
    logits = apply(params, h, {"target_bta": chosen})
    pressed = controller.unpack(np.asarray(chosen[..., 0]))
    np.testing.assert_array_equal(pressed, np.asarray(logits["buttons"]) > 0)
    for i, group in enumerate(controller.COMPONENTS[1:], start=1):
        np.testing.assert_array_equal(chosen[..., i], np.argmax(logits[group], -1))


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_samples_are_draws_from_their_own_teacher_forced_logits(name):
    """Redraws every group from the logits given the sampled controller."""
    apply, params, h, _ = setup(name)
    key, temperature = jax.random.key(7), 0.7
    chosen = sampler(name, temperature)(params, h, key)
    logits = apply(params, h, {"target_bta": chosen})
    keys = jax.random.split(key, 6)
    for i, group in enumerate(controller.COMPONENTS):
        again = heads.choose(group, logits[group], keys[i], temperature)
        np.testing.assert_array_equal(chosen[..., i], again)
    cold = sampler(name, 1e-4)(params, h, key)
    greedy = sampler(name, 0.0)(params, h, key)
    np.testing.assert_array_equal(cold, greedy)


def test_draws_have_the_probabilities_of_the_logits():
    logits = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.5])
    many = jnp.broadcast_to(logits[None], (20000, 5))
    key = jax.random.key(3)
    drawn = np.asarray(heads.choose("shoulder", many, key, 2.0))
    expected = np.asarray(jax.nn.softmax(logits / 2))
    seen = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_allclose(seen, expected, atol=0.02)
    eight = jnp.linspace(-3, 3, 8)
    many = jnp.broadcast_to(eight[None], (20000, 8))
    packed = np.asarray(heads.choose("buttons", many, key, 2.0))
    seen = controller.unpack(packed).mean(0)
    np.testing.assert_allclose(seen, jax.nn.sigmoid(eight / 2), atol=0.02)


def test_a_negative_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        heads.choose("main_x", jnp.zeros(17), jax.random.key(0), -1.0)
