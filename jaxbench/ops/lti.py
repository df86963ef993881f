"""P2: linear time-invariant state-space layers, diagonal (S4D) and S4's own form.

Both keep one half of N conjugate pairs per channel, so a real read-out is
R(z) = 2 Re(sum_n z_n). Both run frame by frame, or in blocks of up to 64 frames in
which the layer is a convolution and only the state passes from block to block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.convolution import (
    causal_convolution,
    causal_convolution_fft,
    causal_convolution_lags,
    causal_convolution_reference,
    causal_convolution_toeplitz,
    short_convolution,
    short_convolution_reference,
    short_convolution_step,
)
from jaxbench.ops.forms import choose
from jaxbench.ops.hippo import hippo_legs_matrix, hippo_legs_nplr
from jaxbench.ops.lti_blocks import (
    BLOCK,
    Block,
    as_complex,
    as_real,
    as_row,
    at_least_float32,
    contract,
    pair,
    run_by_scan,
    run_in_blocks,
    state_or_zero,
    zero_at_reset,
)

__all__ = [
    "causal_convolution",
    "causal_convolution_fft",
    "causal_convolution_lags",
    "causal_convolution_reference",
    "causal_convolution_toeplitz",
    "diagonal_ssm",
    "diagonal_ssm_convolution",
    "diagonal_ssm_discretize",
    "diagonal_ssm_fft",
    "diagonal_ssm_kernel",
    "diagonal_ssm_reference",
    "diagonal_ssm_step",
    "dplr_kernel",
    "dplr_ssm",
    "dplr_ssm_convolution",
    "dplr_ssm_reference",
    "dplr_step",
    "hippo_legs_matrix",
    "hippo_legs_nplr",
    "short_convolution",
    "short_convolution_reference",
    "short_convolution_step",
]


def diagonal_ssm_discretize(
    log_dt_d: Array, a_dn: Array, b_dn: Array
) -> tuple[Array, Array]:
    """Zero-order hold: exp(dt A) and (exp(dt A) - 1) / A * B, both [D, N].

    Gu et al. 2022 (arXiv 2206.11893), section 3.1. A must not be 0: Re(A) < 0.
    """
    z_dn = jnp.exp(log_dt_d)[:, None] * a_dn
    return jnp.exp(z_dn), jnp.expm1(z_dn) / a_dn * b_dn


def diagonal_ssm_kernel(
    log_dt_d: Array, a_dn: Array, b_dn: Array, c_dn: Array, length: int
) -> Array:
    """k_l = 2 Re sum_n C_n Bbar_n exp(l dt A_n) for l < length, real [L, D].

    Every power is an exponential of the product, split as l = 64 i + j so that
    (L / 64 + 64) N exponentials and one matmul do per channel.
    """
    z_dn = jnp.exp(log_dt_d)[:, None] * a_dn
    _, b_bar_dn = diagonal_ssm_discretize(log_dt_d, a_dn, b_dn)
    fine = min(length, BLOCK)
    coarse = -(-length // fine)
    inner_dln = _powers(z_dn, fine)
    outer_dln = _powers(fine * z_dn, coarse) * (c_dn * b_bar_dn)[:, None]
    k_dij = contract("dis,djs->dij", as_row(outer_dln), as_real(inner_dln))
    return k_dij.reshape(-1, coarse * fine)[:, :length].T


def diagonal_ssm_step(
    u_bd: Array,
    log_dt_d: Array,
    a_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array]:
    """One frame of `diagonal_ssm_reference`: y_bd and the state [B, D, N]."""
    u_bd = at_least_float32(u_bd)
    bars = diagonal_ssm_discretize(log_dt_d, a_dn, b_dn)
    x_bdn = zero_at_reset(state_or_zero(u_bd, a_dn, state), reset_b)
    return _diagonal_frame(bars, c_dn, d_d, u_bd, x_bdn)


def diagonal_ssm_reference(
    u_btd: Array,
    log_dt_d: Array,
    a_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """S4D by a scan: x_t = Abar x_{t-1} + Bbar u_t, y_t = 2 Re(C x_t) + D u_t.

    Args:
      u_btd: Input; every channel has a system of its own.
      log_dt_d: Logarithm of the time step.
      a_dn: Eigenvalues of one conjugate half, complex, Re < 0.
      b_dn: Input matrix, complex.
      c_dn: Read-out, complex.
      d_d: Skip.
      state: x [B, D, N] complex64; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      y_btd, float32, and the last state. O(T N) per channel.
    """
    bars = diagonal_ssm_discretize(log_dt_d, a_dn, b_dn)

    def frame(u_bd: Array, x_bdn: Array) -> tuple[Array, Array]:
        return _diagonal_frame(bars, c_dn, d_d, u_bd, x_bdn)

    return run_by_scan(frame, u_btd, state_or_zero(u_btd[:, 0], a_dn, state), reset_bt)


def diagonal_ssm_convolution(
    u_btd: Array,
    log_dt_d: Array,
    a_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`diagonal_ssm_reference` as a convolution with the kernel, in blocks.

    O(T (64 + N)) per channel; a block costs nothing for states that nobody reads.
    """
    z_dn = jnp.exp(log_dt_d)[:, None] * a_dn
    _, b_bar_dn = diagonal_ssm_discretize(log_dt_d, a_dn, b_dn)

    def block(length: int) -> Block:
        power_dln = _powers(z_dn, length + 1)
        return Block(
            diagonal_ssm_kernel(log_dt_d, a_dn, b_dn, c_dn, length),
            as_real(power_dln[:, :-1] * b_bar_dn[:, None]),
            as_row(power_dln[:, 1:] * c_dn[:, None]),
            advance,
        )

    def advance(frames: int) -> Callable[[Array], Array]:
        decay_dn = jnp.exp(frames * z_dn)
        return lambda x_dbs: as_real(as_complex(x_dbs) * decay_dn[:, None])

    return run_in_blocks(
        block, u_btd, d_d, state_or_zero(u_btd[:, 0], a_dn, state, True), reset_bt
    )


def diagonal_ssm_fft(
    u_btd: Array,
    log_dt_d: Array,
    a_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
) -> tuple[Array, Array]:
    """`diagonal_ssm_reference` for a fresh, unbroken sequence, by FFT.

    O(T log T) per channel, and the blocks only for a last state that somebody reads.
    """
    k_ld = diagonal_ssm_kernel(log_dt_d, a_dn, b_dn, c_dn, u_btd.shape[1])
    y_btd = causal_convolution_fft(u_btd, k_ld) + d_d[None, None] * u_btd
    last = diagonal_ssm_convolution(u_btd, log_dt_d, a_dn, b_dn, c_dn, d_d)[1]
    return y_btd, last


def diagonal_ssm(
    u_btd: Array,
    log_dt_d: Array,
    a_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`diagonal_ssm_reference` in the form `forms.json` names for this shape."""
    params = (log_dt_d, a_dn, b_dn, c_dn, d_d)
    if u_btd.shape[1] == 1:
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y, state = diagonal_ssm_step(u_btd[:, 0], *params, state, reset_b)
        return y[:, None], state
    form = choose("diagonal_ssm", length=u_btd.shape[1], state_size=2 * a_dn.size)
    if form == "fft" and state is None and reset_bt is None:
        return diagonal_ssm_fft(u_btd, *params)
    # The FFT form has neither resets nor a state to start from; blocks have both.
    run = diagonal_ssm_reference if form == "scan" else diagonal_ssm_convolution
    return run(u_btd, *params, state, reset_bt)


def dplr_kernel(
    log_dt_d: Array,
    lambda_dn: Array,
    p_dn: Array,
    b_dn: Array,
    c_dn: Array,
    length: int,
) -> Array:
    """The impulse response of `dplr_ssm_reference` without D, real [L, D].

    Runs the O(N) frame on an impulse: O(L N) per channel and none of the poles of the
    generating function, whose node at -1 overflows in float32.
    """
    system = _dplr_system(log_dt_d, lambda_dn, p_dn, b_dn)
    write_ldn = _dplr_impulse(system, length)
    return pair(c_dn[None], write_ldn)


def dplr_step(
    u_bd: Array,
    log_dt_d: Array,
    lambda_dn: Array,
    p_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array]:
    """One frame of `dplr_ssm_reference`: y_bd and the state [B, D, N]. O(N)."""
    u_bd = at_least_float32(u_bd)
    system = _dplr_system(log_dt_d, lambda_dn, p_dn, b_dn)
    x_bdn = zero_at_reset(state_or_zero(u_bd, lambda_dn, state), reset_b)
    x_bdn = _dplr_advance(system, u_bd, x_bdn)
    return pair(c_dn[None], x_bdn) + d_d[None] * u_bd, x_bdn


def dplr_ssm_reference(
    u_btd: Array,
    log_dt_d: Array,
    lambda_dn: Array,
    p_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """S4 by a scan: x' = (Lambda - p p*) x + B u, y = C x + D u, bilinear.

    With s = 2 / dt and D0 = 1 / (s - Lambda), a frame is
    z = (s + Lambda) x - p R(conj(p) x) + 2 B u;
    x = D0 z - D0 p R(conj(p) D0 z) / (1 + R(conj(p) D0 p))
    (Gu et al. 2021, arXiv 2111.00396, equation 3 and appendix C.2, on half states).

    Args:
      u_btd: Input; every channel has a system of its own.
      log_dt_d: Logarithm of the time step.
      lambda_dn: Eigenvalues of one conjugate half, complex, Re < 0.
      p_dn: The low-rank term, complex.
      b_dn: Input matrix, complex.
      c_dn: Read-out, complex.
      d_d: Skip.
      state: x [B, D, N] complex64; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      y_btd, float32, and the last state. O(T N) per channel.
    """
    system = _dplr_system(log_dt_d, lambda_dn, p_dn, b_dn)

    def frame(u_bd: Array, x_bdn: Array) -> tuple[Array, Array]:
        x_bdn = _dplr_advance(system, u_bd, x_bdn)
        return pair(c_dn[None], x_bdn) + d_d[None] * u_bd, x_bdn

    return run_by_scan(
        frame, u_btd, state_or_zero(u_btd[:, 0], lambda_dn, state), reset_bt
    )


def dplr_ssm_convolution(
    u_btd: Array,
    log_dt_d: Array,
    lambda_dn: Array,
    p_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`dplr_ssm_reference` as a convolution with its impulse response, in blocks.

    O(T (64 + N)) per channel for whole fresh windows of up to 64 frames; a state
    that passes between blocks adds O(N^3) per channel for a power of the transition.
    """
    system = _dplr_system(log_dt_d, lambda_dn, p_dn, b_dn)

    def block(length: int) -> Block:
        write_ldn = _dplr_impulse(system, length)

        def backwards(w_dn: Array, _: None) -> tuple[Array, Array]:
            w_dn = _dplr_transpose(system, w_dn)
            return w_dn, w_dn

        _, read_ldn = lax.scan(backwards, c_dn, None, length=length)
        kernel_ld = pair(c_dn[None], write_ldn)
        write_dln, read_dln = (jnp.moveaxis(x, 0, 1) for x in (write_ldn, read_ldn))
        return Block(kernel_ld, as_real(write_dln), as_row(read_dln), advance)

    def advance(frames: int) -> Callable[[Array], Array]:
        power_dsr = _matrix_power(_dplr_matrix(system), frames)
        return lambda x_dbs: contract("dsr,dbr->dbs", power_dsr, x_dbs)

    x_bdn = state_or_zero(u_btd[:, 0], lambda_dn, state, True)
    return run_in_blocks(block, u_btd, d_d, x_bdn, reset_bt)


def dplr_ssm(
    u_btd: Array,
    log_dt_d: Array,
    lambda_dn: Array,
    p_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`dplr_ssm_reference` in the form `forms.json` names for this shape."""
    params = (log_dt_d, lambda_dn, p_dn, b_dn, c_dn, d_d)
    if u_btd.shape[1] == 1:
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y, state = dplr_step(u_btd[:, 0], *params, state, reset_b)
        return y[:, None], state
    forms = {"scan": dplr_ssm_reference, "convolution": dplr_ssm_convolution}
    form = choose("dplr_ssm", length=u_btd.shape[1], state_size=2 * lambda_dn.size)
    return forms[form](u_btd, *params, state, reset_bt)


class _Dplr(NamedTuple):
    plus_dn: Array  # 2 / dt + Lambda
    inverse_dn: Array  # 1 / (2 / dt - Lambda)
    p_dn: Array
    inverse_p_dn: Array
    b2_dn: Array
    gain_d: Array  # 1 / (1 + R(conj(p) D0 p))


def _dplr_system(log_dt_d: Array, lambda_dn: Array, p_dn: Array, b_dn: Array) -> _Dplr:
    rate_dn = 2 * jnp.exp(-log_dt_d)[:, None]
    inverse_dn = 1 / (rate_dn - lambda_dn)
    gain_d = 1 / (1 + pair(p_dn.conj(), inverse_dn * p_dn))
    return _Dplr(
        rate_dn + lambda_dn, inverse_dn, p_dn, inverse_dn * p_dn, 2 * b_dn, gain_d
    )


def _dplr_advance(system: _Dplr, u_bd: Array | None, x_bdn: Array) -> Array:
    plus, inverse, p, inverse_p, b2, gain = (x[None] for x in system)
    z = plus * x_bdn - p * pair(p.conj(), x_bdn)[..., None]
    if u_bd is not None:
        z = z + b2 * u_bd[..., None]
    z = inverse * z
    return z - inverse_p * (gain * pair(p.conj(), z))[..., None]


def _dplr_transpose(system: _Dplr, w_dn: Array) -> Array:
    """The row w' with R(w' x) = R(w x') for x' one frame after x, without input."""
    plus, inverse, p, inverse_p, _, gain = system
    z = inverse * (w_dn - p.conj() * (gain * pair(inverse_p, w_dn))[..., None])
    return plus * z - p.conj() * pair(p, z)[..., None]


def _dplr_impulse(system: _Dplr, length: int) -> Array:
    """The states [L, D, N] after a unit input in frame 0."""

    def body(x: Array, _: None) -> tuple[Array, Array]:
        return _dplr_advance(system, None, x), x

    zero = jnp.zeros_like(system.b2_dn)[None]
    one = jnp.ones_like(system.gain_d)[None]
    first = _dplr_advance(system, one, zero)
    return lax.scan(body, first, None, length=length)[1][:, 0]


def _dplr_matrix(system: _Dplr) -> Array:
    """One frame without input as real matrices [D, 2N, 2N]."""
    width, size = system.p_dn.shape
    unit = jnp.eye(size, dtype=system.p_dn.dtype)
    basis = jnp.concatenate([unit, 1j * unit])[:, None]
    columns = _dplr_advance(system, None, jnp.tile(basis, (1, width, 1)))
    return jnp.transpose(as_real(columns), (1, 2, 0))


def _matrix_power(m_dsr: Array, exponent: int) -> Array:
    result = None
    while exponent:
        if exponent % 2:
            result = (
                m_dsr if result is None else contract("dsr,drt->dst", result, m_dsr)
            )
        exponent //= 2
        if exponent:
            m_dsr = contract("dsr,drt->dst", m_dsr, m_dsr)
    return result


def _diagonal_frame(
    bars: tuple[Array, Array], c_dn: Array, d_d: Array, u_bd: Array, x_bdn: Array
) -> tuple[Array, Array]:
    x_bdn = bars[0][None] * x_bdn + bars[1][None] * u_bd[..., None]
    return pair(c_dn[None], x_bdn) + d_d[None] * u_bd, x_bdn


def _powers(z_dn: Array, length: int) -> Array:
    """exp(l z) for l < length, [D, L, N]."""
    ramp_l = jnp.arange(length).astype(z_dn.real.dtype)
    return jnp.exp(z_dn[:, None] * ramp_l[None, :, None])
