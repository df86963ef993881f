"""Spectral normalisation: a matrix scaled to a chosen largest singular value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

# At the start singular values of a random matrix crowd below the largest one.
FIRST_ITERATIONS = 128


def spectral_normalize(
    w_nm: jax.Array, start_m: jax.Array, *, target: float, iterations: int
) -> jax.Array:
    """W target / sigma, with sigma = |u^T W v| from power iterations.

    The gradient passes through sigma with u and v held fixed (Miyato et al. 2018,
    arXiv:1802.05957, section 2.1). W is scaled up as well as down, so its norm is the
    target always, within the error of sigma, which is never too large.

    Args:
      w_nm: Matrix [N, M], or [H, N, M], each by itself. float32.
      start_m: Where v starts, [M] or [H, M], of any length but 0: `first_direction`.
      target: Largest singular value of the result.
      iterations: Products with W and with its transpose, each that often.
    """
    fixed = lax.stop_gradient(w_nm)
    v_m = _iterate(fixed, lax.stop_gradient(start_m), iterations)
    u_n = _unit(_times(fixed, v_m))
    stretched_n = _times(w_nm, v_m)
    sigma = jnp.abs(jnp.sum(u_n * stretched_n, axis=-1))
    return w_nm * (target / (sigma + 1e-8))[..., None, None]


def first_direction(key: jax.Array, w_nm: jax.Array) -> jax.Array:
    """The direction that the initial W stretches most, to start iterations from.

    The source carries v from one call to the next, which a pure function cannot; from
    here the first calls are exact, and v follows W as it is trained.
    """
    shape = (*w_nm.shape[:-2], w_nm.shape[-1])
    return _iterate(w_nm, jax.random.normal(key, shape), FIRST_ITERATIONS)


def _iterate(w_nm: jax.Array, v_m: jax.Array, iterations: int) -> jax.Array:
    def body(_: int, v_m: jax.Array) -> jax.Array:
        return _unit(_times(w_nm.swapaxes(-1, -2), _unit(_times(w_nm, v_m))))

    return lax.fori_loop(0, iterations, body, _unit(v_m))


def _times(w_nm: jax.Array, v_m: jax.Array) -> jax.Array:
    return jnp.einsum("...nm,...m->...n", w_nm, v_m, precision=lax.Precision.HIGHEST)


def _unit(x: jax.Array) -> jax.Array:
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * lax.rsqrt(squares + 1e-30)
