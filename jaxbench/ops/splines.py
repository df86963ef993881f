"""P7: cubic B-splines on a uniform grid over [-1, 1], the basis of KAN.

A grid of G cells of width 2 / G is extended by three cells on each side. The G + 3
bases each cover four cells; in a cell four of them are active, and on [-1, 1] they sum
to 1. Towards the outer knots, 1 + 6 / G from the middle, they taper off; beyond, all
are 0 with gradient 0.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

DEGREE = 3


def cubic_spline_basis(x_nd: Array, grid: int) -> Array:
    """The G + 3 bases at every x, from the distance to each basis's centre.

    With z = |x - centre| in cells, B = (relu(2 - z)^3 - 4 relu(1 - z)^3) / 6. With u
    the fraction of x in its cell, that is u^3 / 6 for the basis that starts there,
    (-3u^3 + 3u^2 + 3u + 1) / 6, (3u^3 - 6u^2 + 4) / 6 and (1 - u)^3 / 6 for the one
    that ends; written by distance there is no cell to find, so no jump between cells
    and nothing to clip outside them.

    Args:
      x_nd: points [..., D].
      grid: G, cells on [-1, 1].

    Returns:
      Float32 [..., G + 3, D]: the channels stay last. O(G) per point.
    """
    cells_nd = (x_nd.astype(jnp.float32) + 1) * (grid / 2)
    # The first basis starts three cells before -1, so its centre is one before.
    centre_g = jnp.arange(grid + DEGREE, dtype=jnp.float32) - 1
    shape = (1,) * (x_nd.ndim - 1) + (grid + DEGREE, 1)
    z_ngd = jnp.abs(cells_nd[..., None, :] - centre_g.reshape(shape))
    outer = jnp.maximum(2 - z_ngd, 0)
    inner = jnp.maximum(1 - z_ngd, 0)
    return (outer * outer * outer - 4 * inner * inner * inner) / 6


def spline_basis_reference(x_nd: Array, grid: int, degree: int = DEGREE) -> Array:
    """The bases of any degree by the recursion of Cox and de Boor, the readable twin.

    B_{g,0} = [t_g <= x < t_{g+1}]; B_{g,p} = (x - t_g) / (t_{g+p} - t_g) B_{g,p-1}
    + (t_{g+p+1} - x) / (t_{g+p+1} - t_{g+1}) B_{g+1,p-1}, with knots
    t_g = -1 + (g - degree) 2 / G (de Boor 1978, chapter X, equation 4).

    Args:
      x_nd: points [..., D].
      grid: G, cells on [-1, 1].
      degree: 3 is cubic.

    Returns:
      Float32 [..., G + degree, D].
    """
    x = x_nd.astype(jnp.float32)[..., None, :]
    cell = jnp.arange(grid + 2 * degree + 1, dtype=jnp.float32) - degree
    knot = (cell * (2 / grid) - 1).reshape((1,) * (x_nd.ndim - 1) + (-1, 1))
    basis = ((knot[..., :-1, :] <= x) & (x < knot[..., 1:, :])).astype(jnp.float32)
    for p in range(1, degree + 1):
        rising = (x - knot[..., : -p - 1, :]) / (
            knot[..., p:-1, :] - knot[..., : -p - 1, :]
        )
        falling = (knot[..., p + 1 :, :] - x) / (
            knot[..., p + 1 :, :] - knot[..., 1:-p, :]
        )
        basis = rising * basis[..., :-1, :] + falling * basis[..., 1:, :]
    return basis
