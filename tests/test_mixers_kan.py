"""KAN: the equations in float64, the memory of its basis, its initial kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw

from jaxbench.errors import InputError
from jaxbench.mixers.kan import KAN, SplineDense

WIDTH, GRID = 16, 5


def frames(seed=0, shape=(2, 7, WIDTH)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(**options):
    mixer = KAN(WIDTH, **options)
    return mixer, draw(mixer, frames())["params"]


def bump(t):
    """The cubic B-spline with knots 0, 1, 2, 3, 4, by its four pieces."""
    if 0 <= t < 1:
        return t**3 / 6
    if 1 <= t < 2:
        return (-3 * t**3 + 12 * t**2 - 12 * t + 4) / 6
    if 2 <= t < 3:
        return (3 * t**3 - 24 * t**2 + 60 * t - 44) / 6
    return (4 - t) ** 3 / 6 if 3 <= t < 4 else 0.0


def stage(x, kernel):
    """One stage of one frame, edge by edge, in float64."""
    u = np.tanh((x - x.mean()) / np.sqrt(x.var() + 1e-6))
    y = np.zeros(kernel.shape[1])
    for i in range(WIDTH):
        y += kernel[i] * u[i] / (1 + np.exp(-u[i]))
        for g in range(GRID + 3):
            row = WIDTH * (1 + g) + i
            y += kernel[row] * bump((u[i] + 1) * GRID / 2 + 3 - g)
    return y


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_values_are_those_of_the_equations(stages):
    mixer, params = built(stages=stages)
    names = [f"stage_{i}" for i in range(stages - 1)] + ["out"]
    assert sorted(params) == sorted(names)
    x = frames(2)
    got, state = jax.jit(mixer.apply)({"params": params}, x)
    assert state == ()
    for where in np.ndindex(x.shape[:2]):
        want = x[where].astype(np.float64)
        for name in names:
            want = stage(want, params[name]["kernel"].astype(np.float64))
        np.testing.assert_allclose(got[where], want, rtol=1e-5, atol=1e-5)


def test_the_backward_pass_keeps_no_basis():
    """At batch 64 of 30 frames and width 256 the basis of a layer is 16 MB."""
    layer = SplineDense(256, GRID)
    x = jax.ShapeDtypeStruct((64, 30, 256), jnp.float32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)

    def kept(params, x):
        return jax.tree.leaves(jax.vjp(layer.apply, params, x)[1])

    shapes = jax.eval_shape(kept, params, x)
    basis = 64 * 30 * 256 * (GRID + 3)
    assert max(leaf.size for leaf in shapes) < basis / 2
    kernel = 256 * (GRID + 4) * 256
    assert sum(leaf.size for leaf in shapes) <= 64 * 30 * 256 + 2 * kernel


def test_splines_start_small_and_the_last_stage_takes_the_scale():
    mixer = KAN(256, out_scale=0.5)
    params = jax.jit(mixer.init)(jax.random.key(0), jnp.zeros((1, 1, 256)))["params"]
    for name, scale in (("stage_0", 1.0), ("out", 0.5)):
        kernel = params[name]["kernel"]
        assert kernel.shape == (256 * (GRID + 4), 256)
        assert np.std(kernel[:256]) == pytest.approx(scale / 16, rel=0.05)
        assert np.std(kernel[256:]) == pytest.approx(scale * 0.02 / 16, rel=0.05)


@pytest.mark.integration
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e3])
def test_gradients_are_finite_for_any_size_of_input(dtype, factor):
    mixer, params = built(dtype=dtype)

    def loss(params, x):
        y, _ = mixer.apply({"params": params}, x)
        assert y.dtype == dtype
        return jnp.sum(y.astype(jnp.float32) ** 2)

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, factor * frames(3))
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
    if factor == 1.0:
        rows = np.abs(grads[0]["out"]["kernel"]).reshape(GRID + 4, WIDTH, WIDTH)
        assert np.all(rows.max((1, 2)) > 0), "a basis learns nothing"


@pytest.mark.parametrize("option", ["stages", "grid"])
def test_options_out_of_range_are_one_line(option):
    mixer = KAN(WIDTH, **{option: 0})
    with pytest.raises(InputError) as caught:
        mixer.init(jax.random.key(0), frames())
    assert caught.value.args == (f"{option}=0 of kan must be at least 1",)
