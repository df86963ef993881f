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

from jaxbench.ops.convolution import causal_convolution_fft
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    restart,
    run,
    scan_frames,
)
from jaxbench.ops.lti_blocks import (
    BLOCK,
    Block,
    as_complex,
    as_real,
    as_row,
    at_least_float32,
    contract,
    pair,
    run_in_blocks,
    state_or_zero,
)


class DiagonalSSM(NamedTuple):
    """S4D, one system for each channel.

    Attributes:
      log_dt_d: Logarithm of the time step.
      a_dn: Eigenvalues of one conjugate half, complex, Re < 0.
      b_dn: Input matrix, complex.
      c_dn: Read-out, complex.
      d_d: Skip.
    """

    log_dt_d: Array
    a_dn: Array
    b_dn: Array
    c_dn: Array
    d_d: Array


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
    u_bd: Array, state: Start, reset_b: Resets, *, ssm: DiagonalSSM
) -> Result:
    """One frame of `diagonal_ssm_reference`: y_bd and the state [B, D, N]."""
    u_bd = at_least_float32(u_bd)
    a_bar, b_bar = diagonal_ssm_discretize(*ssm[:3])
    x_bdn = restart(reset_b, state_or_zero(u_bd, ssm.a_dn, state))
    x_bdn = a_bar[None] * x_bdn + b_bar[None] * u_bd[..., None]
    return pair(ssm.c_dn[None], x_bdn) + ssm.d_d[None] * u_bd, x_bdn


def diagonal_ssm_reference(
    u_btd: Array, state: Start, reset_bt: Resets, *, ssm: DiagonalSSM
) -> Result:
    """S4D by a scan: x_t = Abar x_{t-1} + Bbar u_t, y_t = 2 Re(C x_t) + D u_t.

    Args:
      u_btd: Input; every channel has a system of its own.
      state: x [B, D, N] complex64; None is zero.
      ssm: The systems.

    Returns:
      y_btd, float32, and the last state. O(T N) per channel.
    """
    start = state_or_zero(u_btd[:, 0], ssm.a_dn, state)
    return scan_frames(diagonal_ssm_step, (u_btd,), start, reset_bt, ssm=ssm)


def diagonal_ssm_convolution(
    u_btd: Array, state: Start, reset_bt: Resets, *, ssm: DiagonalSSM
) -> Result:
    """`diagonal_ssm_reference` as a convolution with the kernel, in blocks.

    O(T (64 + N)) per channel; a block costs nothing for states that nobody reads.
    """
    z_dn = jnp.exp(ssm.log_dt_d)[:, None] * ssm.a_dn
    _, b_bar_dn = diagonal_ssm_discretize(*ssm[:3])

    def block(length: int) -> Block:
        power_dln = _powers(z_dn, length + 1)
        return Block(
            diagonal_ssm_kernel(*ssm[:4], length),
            as_real(power_dln[:, :-1] * b_bar_dn[:, None]),
            as_row(power_dln[:, 1:] * ssm.c_dn[:, None]),
            advance,
        )

    def advance(frames: int) -> Callable[[Array], Array]:
        decay_dn = jnp.exp(frames * z_dn)
        return lambda x_dbs: as_real(as_complex(x_dbs) * decay_dn[:, None])

    return run_in_blocks(block, ssm.a_dn, u_btd, ssm.d_d, state, reset_bt)


def diagonal_ssm_fft(
    u_btd: Array, state: Start, reset_bt: Resets, *, ssm: DiagonalSSM
) -> Result:
    """`diagonal_ssm_reference` by FFT for a fresh, unbroken sequence.

    O(T log T) per channel, and the blocks only for a last state that somebody reads.
    Where there are resets or a state to start from, the blocks do it all.
    """
    y_btd, last = diagonal_ssm_convolution(u_btd, state, reset_bt, ssm=ssm)
    if state is None and reset_bt is None:
        k_ld = diagonal_ssm_kernel(*ssm[:4], u_btd.shape[1])
        y_btd = causal_convolution_fft(u_btd, k_ld) + ssm.d_d[None, None] * u_btd
    return y_btd, last


def diagonal_ssm(
    u_btd: Array,
    log_dt_d: Array,
    a_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`diagonal_ssm_reference` in the form `forms.json` names for this shape."""
    forms = {
        "scan": diagonal_ssm_reference,
        "convolution": diagonal_ssm_convolution,
        "fft": diagonal_ssm_fft,
    }
    ssm, size = DiagonalSSM(log_dt_d, a_dn, b_dn, c_dn, d_d), 2 * a_dn.size
    given = (forms, (u_btd,), state, reset_bt)
    return run("diagonal_ssm", diagonal_ssm_step, *given, size=size, ssm=ssm)


class DplrSSM(NamedTuple):
    """S4, A = Lambda - p p* for each channel.

    Attributes:
      log_dt_d: Logarithm of the time step.
      lambda_dn: Eigenvalues of one conjugate half, complex, Re < 0.
      p_dn: The low-rank term, complex.
      b_dn: Input matrix, complex.
      c_dn: Read-out, complex.
      d_d: Skip.
    """

    log_dt_d: Array
    lambda_dn: Array
    p_dn: Array
    b_dn: Array
    c_dn: Array
    d_d: Array


def dplr_ssm_step(
    u_bd: Array, state: Start, reset_b: Resets, *, ssm: DplrSSM
) -> Result:
    """One frame of `dplr_ssm_reference`: y_bd and the state [B, D, N]. O(N)."""
    u_bd = at_least_float32(u_bd)
    x_bdn = restart(reset_b, state_or_zero(u_bd, ssm.lambda_dn, state))
    x_bdn = _dplr_advance(_dplr_frame(*ssm[:4]), u_bd, x_bdn)
    return pair(ssm.c_dn[None], x_bdn) + ssm.d_d[None] * u_bd, x_bdn


def dplr_ssm_reference(
    u_btd: Array, state: Start, reset_bt: Resets, *, ssm: DplrSSM
) -> Result:
    """S4 by a scan: x' = (Lambda - p p*) x + B u, y = C x + D u, bilinear.

    With h = dt / 2 and M = 1 / (1 - h Lambda), a frame is
    z = M ((1 + h Lambda) x - h p R(conj(p) x) + 2 h B u);
    x = z - M h p R(conj(p) z) / (1 + R(conj(p) M h p))
    (Gu et al. 2021, arXiv 2111.00396, equation 3 and appendix C.2, on half states and
    multiplied by h, which float32 needs for the gradient of small dt).

    Args:
      u_btd: Input; every channel has a system of its own.
      state: x [B, D, N] complex64; None is zero.
      ssm: The systems.

    Returns:
      y_btd, float32, and the last state. O(T N) per channel.
    """
    start = state_or_zero(u_btd[:, 0], ssm.lambda_dn, state)
    return scan_frames(dplr_ssm_step, (u_btd,), start, reset_bt, ssm=ssm)


def dplr_ssm_convolution(
    u_btd: Array, state: Start, reset_bt: Resets, *, ssm: DplrSSM
) -> Result:
    """`dplr_ssm_reference` as a convolution with its impulse response, in blocks.

    O(T (64 + N)) per channel for whole fresh windows of up to 64 frames; a state
    that passes between blocks adds O(N^3) per channel for a power of the transition.
    """
    frame = _dplr_frame(*ssm[:4])

    def block(length: int) -> Block:
        write_ldn = _dplr_impulse(frame, length)

        def backwards(w_dn: Array, _: None) -> Result:
            w_dn = _dplr_transpose(frame, w_dn)
            return w_dn, w_dn

        _, read_ldn = lax.scan(backwards, ssm.c_dn, None, length=length)
        kernel_ld = pair(ssm.c_dn[None], write_ldn)
        write_dln, read_dln = (jnp.moveaxis(x, 0, 1) for x in (write_ldn, read_ldn))
        return Block(kernel_ld, as_real(write_dln), as_row(read_dln), advance)

    def advance(frames: int) -> Callable[[Array], Array]:
        power_dsr = _matrix_power(_dplr_matrix(frame), frames)
        return lambda x_dbs: contract("dsr,dbr->dbs", power_dsr, x_dbs)

    return run_in_blocks(block, ssm.lambda_dn, u_btd, ssm.d_d, state, reset_bt)


def dplr_ssm(
    u_btd: Array,
    log_dt_d: Array,
    lambda_dn: Array,
    p_dn: Array,
    b_dn: Array,
    c_dn: Array,
    d_d: Array,
    state: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`dplr_ssm_reference` in the form `forms.json` names for this shape."""
    forms = {"scan": dplr_ssm_reference, "convolution": dplr_ssm_convolution}
    ssm = DplrSSM(log_dt_d, lambda_dn, p_dn, b_dn, c_dn, d_d)
    size = 2 * lambda_dn.size
    given = (forms, (u_btd,), state, reset_bt)
    return run("dplr_ssm", dplr_ssm_step, *given, size=size, ssm=ssm)


class _Frame(NamedTuple):
    """The frame of `dplr_ssm_reference` with half steps h = dt / 2.

    Written with 2 / dt the gradient of dt is a small difference of terms of 2 / dt.
    """

    plus_dn: Array  # 1 + h Lambda
    inverse_dn: Array  # 1 / (1 - h Lambda)
    conj_p_dn: Array
    step_p_dn: Array  # h p
    inverse_p_dn: Array  # h p / (1 - h Lambda)
    step_b_dn: Array  # 2 h B
    gain_d: Array  # 1 / (1 + R(conj(p) h p / (1 - h Lambda)))


def _dplr_frame(log_dt_d: Array, lambda_dn: Array, p_dn: Array, b_dn: Array) -> _Frame:
    dt_dn = jnp.exp(log_dt_d)[:, None]
    half_dn = dt_dn / 2
    conj_p_dn = p_dn.conj()
    inverse_dn = 1 / (1 - half_dn * lambda_dn)
    inverse_p_dn = half_dn * p_dn * inverse_dn
    return _Frame(
        plus_dn=1 + half_dn * lambda_dn,
        inverse_dn=inverse_dn,
        conj_p_dn=conj_p_dn,
        step_p_dn=half_dn * p_dn,
        inverse_p_dn=inverse_p_dn,
        step_b_dn=dt_dn * b_dn,
        gain_d=1 / (1 + pair(conj_p_dn, inverse_p_dn)),
    )


def _dplr_advance(frame: _Frame, u_bd: Array | None, x_bdn: Array) -> Array:
    plus, inverse, conj_p, step_p, inverse_p, step_b, gain = (x[None] for x in frame)
    z = plus * x_bdn - step_p * pair(conj_p, x_bdn)[..., None]
    if u_bd is not None:
        z = z + step_b * u_bd[..., None]
    z = inverse * z
    return z - inverse_p * (gain * pair(conj_p, z))[..., None]


def _dplr_transpose(frame: _Frame, w_dn: Array) -> Array:
    """The row w' with R(w' x) = R(w x') for x' one frame after x, without input."""
    plus, inverse, conj_p, step_p, inverse_p, _, gain = frame
    z = inverse * (w_dn - conj_p * (gain * pair(inverse_p, w_dn))[..., None])
    return plus * z - conj_p * pair(step_p, z)[..., None]


def _dplr_impulse(frame: _Frame, length: int) -> Array:
    """The states [L, D, N] after a unit input in frame 0, by the O(N) frame.

    None of the poles of the generating function, whose node at -1 overflows in float32.
    """

    def body(x: Array, _: None) -> Result:
        return _dplr_advance(frame, None, x), x

    zero = jnp.zeros_like(frame.step_b_dn)[None]
    one = jnp.ones_like(frame.gain_d)[None]
    first = _dplr_advance(frame, one, zero)
    return lax.scan(body, first, None, length=length)[1][:, 0]


def _dplr_matrix(frame: _Frame) -> Array:
    """One frame without input as real matrices [D, 2N, 2N]."""
    width, size = frame.conj_p_dn.shape
    unit = jnp.eye(size, dtype=frame.conj_p_dn.dtype)
    basis = jnp.concatenate([unit, 1j * unit])[:, None]
    columns = _dplr_advance(frame, None, jnp.tile(basis, (1, width, 1)))
    return jnp.transpose(as_real(columns), (1, 2, 0))


def _matrix_power(m_dsr: Array, exponent: int) -> Array:
    """By repeated squaring; `jnp.linalg.matrix_power` sets no precision."""
    square, odd = divmod(exponent, 2)
    if not square:
        return m_dsr
    power = _matrix_power(contract("dsr,drt->dst", m_dsr, m_dsr), square)
    return contract("dsr,drt->dst", power, m_dsr) if odd else power


def _powers(z_dn: Array, length: int) -> Array:
    """exp(l z) for l < length, [D, L, N]."""
    ramp_l = jnp.arange(length).astype(z_dn.real.dtype)
    return jnp.exp(z_dn[:, None] * ramp_l[None, :, None])
