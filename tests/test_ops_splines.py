"""Cubic B-splines: the closed form against Cox-de Boor and the four cell values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbench.ops.splines import cubic_spline_basis, spline_basis_reference

GRIDS = [1, 2, 5, 8]


def points(grid):
    """Inside, on the taper, outside, and on both sides of every knot."""
    edge = 1 + 6 / grid
    knots = np.linspace(-edge, edge, grid + 7)
    near = np.concatenate([knots - 1e-3, knots, knots + 1e-3])
    x = np.concatenate([np.linspace(-edge - 1, edge + 1, 401), near])
    return np.resize(x, (len(x) // 3, 3)).astype(np.float32)


def by_cells(x, grid):
    """Float64: the cell of x, its fraction u, and the four values active there."""
    y = np.zeros((*x.shape[:-1], grid + 3, x.shape[-1]))
    for where in np.ndindex(x.shape):
        cell, u = divmod((float(x[where]) + 1) * grid / 2 + 3, 1)
        values = (
            (1 - u) ** 3 / 6,
            (3 * u**3 - 6 * u**2 + 4) / 6,
            (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
            u**3 / 6,
        )
        for offset, value in enumerate(values):
            basis = int(cell) - 3 + offset
            if 0 <= cell < grid + 6 and 0 <= basis < grid + 3:
                y[*where[:-1], basis, where[-1]] = value
    return y


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_cox_de_boor_and_the_cell_form(grid):
    x = points(grid)
    got = np.asarray(cubic_spline_basis(x, grid))
    assert got.shape == (x.shape[0], grid + 3, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got, by_cells(x, grid), atol=1e-6)
    reference = spline_basis_reference(jnp.asarray(x), grid)
    np.testing.assert_allclose(got, reference, atol=1e-6)


def test_gradients_equal_cox_de_boor():
    x = points(5)
    weight = np.random.default_rng(0).normal(size=(x.shape[0], 8, 3))

    def loss(basis, x):
        return jnp.sum(basis(x, 5) * weight.astype(np.float32))

    got = jax.grad(lambda x: loss(cubic_spline_basis, x))(x)
    want = jax.grad(lambda x: loss(spline_basis_reference, x))(x)
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert np.abs(want).max() > 1


@pytest.mark.parametrize("grid", GRIDS)
def test_sums_to_one_on_the_grid_and_tapers_off(grid):
    inside = np.linspace(-1, 1, 501, dtype=np.float32)[:, None]
    total = np.asarray(cubic_spline_basis(inside, grid)).sum(1)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    edge = 1 + 6 / grid
    taper = np.linspace(1, edge, 501, dtype=np.float32)[:, None]
    falling = np.asarray(cubic_spline_basis(taper, grid)).sum(1)[:, 0]
    assert np.all(np.diff(falling) <= 1e-6) and falling[-1] == pytest.approx(0)
    mirrored = np.asarray(cubic_spline_basis(-taper, grid))[:, ::-1]
    np.testing.assert_allclose(mirrored, cubic_spline_basis(taper, grid), atol=1e-6)


def test_is_zero_with_zero_gradient_beyond_the_outer_knots():
    x = np.float32([[-1e30, -1e3, -2.5, -2.2001, 2.2001, 2.5, 1e3, 1e30]])
    assert np.all(np.asarray(cubic_spline_basis(x, 5)) == 0)
    slope = jax.grad(lambda x: cubic_spline_basis(x, 5).sum())(x)
    assert np.all(np.asarray(slope) == 0)
    near = np.asarray(cubic_spline_basis(np.float32([[-2.15, 2.15]]), 5))
    assert near[0, 0, 0] > 0 and near[0, -1, 1] > 0


@pytest.mark.parametrize("order", [0, 1, 2])
def test_value_slope_and_curvature_are_continuous_at_every_knot(order):
    def basis(x):
        return cubic_spline_basis(x[None], 5)[:, 0]

    for _ in range(order):
        basis = jax.jacfwd(basis)
    knots = (np.arange(12) * 0.4 - 2.2).astype(np.float32)
    # The third derivative is at most 3 * 2.5^3, so this is what a step may change.
    step = 1e-4
    before, after = (
        np.stack([np.asarray(basis(jnp.float32(k + s))) for k in knots])
        for s in (-step, step)
    )
    assert np.abs(after - before).max() < 2 * step * 50
    assert np.abs(after).max() > 0.1


def test_takes_bfloat16_and_computes_in_float32():
    x = jnp.asarray([[0.25, -0.5]], jnp.bfloat16)
    got = cubic_spline_basis(x, 5)
    assert got.dtype == jnp.float32
    assert jnp.array_equal(got, cubic_spline_basis(x.astype(jnp.float32), 5))
