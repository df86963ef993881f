"""P4: the generalised delta rule, a matrix state that is read before it is written."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxbench.ops.decay import (
    SMALLEST_LOG,
    before_frame,
    bounded,
    decayed_products,
    from_start,
    to_end,
)
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    float32,
    restart,
    run,
    scan_frames,
)
from jaxbench.ops.gated_linear import as_keys, memory, over_chunks

EXACT = lax.Precision.HIGHEST


class DeltaFrames(NamedTuple):
    """What the frames of a call bring, [B, T, ...]; in a step [B, ...].

    Attributes:
      q_bthk: Queries; scale them before.
      k_bthk: Keys of the write.
      v_bthv: Values.
      log_decay: g <= 0, [B, T, H] one for a head or [B, T, H, K] one for a key; None
        is no decay.
      a_bthk: What reads the state before the decay.
      b_bthk: Where what was read is written; None is by the keys, so that a frame
        writes once: S += k (v + S^T a)^T. With -a = k / e^g, b = beta k, |k| = 1 and
        beta in [0, 2] the transition does not expand.
    """

    q_bthk: Array
    k_bthk: Array
    v_bthv: Array
    log_decay: Array | None
    a_bthk: Array
    b_bthk: Array | None


def delta_rule_reference(
    frames: DeltaFrames, s_bhkv: Start, reset_bt: Resets
) -> Result:
    """S_t = Diag(e^{g_t}) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T, o_t = S_t^T q_t.

    a reads the state, b writes what was read. DeltaNet (Yang et al. 2024,
    arXiv:2406.06484, eq. 4): g = 0, a = -k, key beta k, which is b as well. Gated
    DeltaNet (Yang et al. 2024, arXiv:2412.06464, eq. 10): g for a head, a = -e^g k.
    KDA (2025, arXiv:2510.26692, eq. 1): g for a key. RWKV-7 (Peng et al. 2025,
    arXiv:2503.14456, eq. 17): a = -kappa, b = kappa * eta.

    Args:
      frames: q, k, v, g, a and b.

    Returns:
      o_bthv and the last state, float32. O(T K V) work and memory per head.
    """
    start = memory(frames.k_bthk[:, 0], frames.v_bthv[:, 0], s_bhkv)
    return scan_frames(delta_rule_step, (frames,), start, reset_bt)


def delta_rule_step(frame: DeltaFrames, s_bhkv: Start, reset_b: Resets) -> Result:
    """One frame of `delta_rule_reference`: o_bhv and the state."""
    q, k, v, g, a, b = float32(frame)
    s_bhkv = restart(reset_b, memory(k, v, s_bhkv))
    # Eq. 17 of RWKV-7: what a reads, before the decay, b writes back after it.
    read_bhv = jnp.einsum("bhk,bhkv->bhv", a, s_bhkv)
    if g is not None:
        g = bounded(g)
        s_bhkv = jnp.exp(g if g.ndim == 3 else g[..., None])[..., None] * s_bhkv
    if b is None:
        v = v + read_bhv
    else:
        s_bhkv = s_bhkv + jnp.einsum("bhk,bhv->bhkv", b, read_bhv)
    s_bhkv = s_bhkv + jnp.einsum("bhk,bhv->bhkv", k, v)
    return jnp.einsum("bhk,bhkv->bhv", q, s_bhkv), s_bhkv


def delta_rule_chunks(
    frames: DeltaFrames,
    s_bhkv: Start,
    reset_bt: Resets,
    *,
    chunk: int = 32,
    floor: float = SMALLEST_LOG,
) -> Result:
    """`delta_rule_reference` by matmuls over chunks of about `chunk` frames.

    The UT transform (Yang et al. 2024, arXiv:2406.06484, section 3.2): all reads of a
    chunk solve one unit lower triangular system, U = (I - A_ab)^{-1} (A_ak V + A S).
    The inverse is made of matmuls in float32, see `solve_unit_lower`: exact, and as
    fast on a matrix unit as a solve is slow. O(C^2 (K + V) + C^3 log C) work per chunk;
    each chunk is rematerialised.

    Args:
      frames, s_bhkv, reset_bt: as in `delta_rule_reference`.
      chunk: the most frames of a chunk.
      floor: as in `delta_rule`.
    """
    of_chunk = functools.partial(_chunk, floor)
    return over_chunks(of_chunk, frames, s_bhkv, reset_bt, chunk, floor)


def delta_rule(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    log_decay: Array | None,
    a_bthk: Array,
    b_bthk: Array | None,
    s_bhkv: Start = None,
    reset_bt: Resets = None,
    *,
    floor: float = SMALLEST_LOG,
) -> Result:
    """`delta_rule_reference` in the form `forms.json` names for this shape.

    Log decays below `floor` count as `floor`. What a caller knows of how it makes them
    makes the chunk form faster, see `ops.decay`.
    """
    if log_decay is not None and floor > SMALLEST_LOG:
        log_decay = bounded(log_decay, floor)
    keyed = log_decay is not None and log_decay.ndim == 4
    chunks = functools.partial(delta_rule_chunks, floor=floor)
    return run(
        "delta_rule_keys" if keyed else "delta_rule",
        delta_rule_step,
        {"chunks": chunks, "scan": delta_rule_reference},
        (DeltaFrames(q_bthk, k_bthk, v_bthv, log_decay, a_bthk, b_bthk),),
        s_bhkv,
        reset_bt,
        size=math.prod(q_bthk.shape[2:]) * v_bthv.shape[-1],
    )


@jax.custom_vjp
def solve_unit_lower(m_bhcc: Array, r_bhcv: Array) -> Array:
    """(I - M)^{-1} R for strictly lower M, exact after 2 log2 C products of C x C.

    Not a triangular solve, which has been seen to hang in a training step on a CPU with
    two XLA threads. The backward pass is two products with the inverse:
    dR = (I - M)^{-T} dU and dM = dR U^T.
    """
    return _matmul(inverse_unit_lower(m_bhcc), r_bhcv)


def inverse_unit_lower(m_bhcc: Array) -> Array:
    """(I - M)^{-1} for strictly lower M.

    Inverts blocks of 1, 2, 4, ... rows: each is made of the two half as large and the
    block of M between them. No power of M is formed: with transitions that do not
    shrink the state (eigenvalues near -1) powers grow far beyond the inverse, and
    their rounding with them.
    """
    size = m_bhcc.shape[-1]
    inverse = jnp.broadcast_to(jnp.eye(size, dtype=m_bhcc.dtype), m_bhcc.shape)
    rows = np.arange(size)
    half = 1
    while half < size:
        block = rows // half
        between = (block[:, None] % 2 == 1) & (block[None] == block[:, None] - 1)
        left = jnp.where(between[None, None], m_bhcc, 0)
        inverse = inverse + _matmul(_matmul(inverse, left), inverse)
        half *= 2
    return inverse


def _solve_forward(m_bhcc: Array, r_bhcv: Array) -> tuple[Array, tuple[Array, Array]]:
    inverse = inverse_unit_lower(m_bhcc)
    u_bhcv = _matmul(inverse, r_bhcv)
    return u_bhcv, (inverse, u_bhcv)


def _solve_backward(
    kept: tuple[Array, Array], u_bar_bhcv: Array
) -> tuple[Array, Array]:
    inverse, u_bhcv = kept
    r_bar_bhcv = jnp.einsum("bhij,bhiv->bhjv", inverse, u_bar_bhcv, precision=EXACT)
    m_bar_bhcc = jnp.einsum("bhiv,bhjv->bhij", r_bar_bhcv, u_bhcv, precision=EXACT)
    return m_bar_bhcc, r_bar_bhcv


solve_unit_lower.defvjp(_solve_forward, _solve_backward)


def _chunk(
    floor: float, s_bhkv: Start, inputs: DeltaFrames, episode_bc: Array
) -> Result:
    q, k, v, g, a, b = inputs
    length = k.shape[2]
    writers = (k,) if b is None else (k, b)
    made = decayed_products((a,), (q,), writers, g, episode_bc, floor=floor)
    a_ak, a_ab = made[:, :, 0, :, 0], made[:, :, 0, :, -1]
    read = _matmul(a_ak, v)
    if s_bhkv is not None:
        # What reads before and after the decay, at once.
        carry = from_start(g, episode_bc)
        reads = (a * as_keys(before_frame(g, episode_bc)), q * as_keys(carry))
        from_state = _matmul(jnp.concatenate(reads, axis=2), s_bhkv)
        read = read + from_state[:, :, :length]
    # U = (I - A_ab)^{-1} (A_ak V + A S), section 3.2 of Yang et al. 2024.
    u = solve_unit_lower(a_ab, read)
    written = v + u if b is None else jnp.concatenate([v, u], axis=2)
    o = made[:, :, 1].reshape(*k.shape[:3], -1) @ written
    kept = [x * as_keys(to_end(g, episode_bc)) for x in writers]
    new = jnp.swapaxes(jnp.concatenate(kept, axis=2), 2, 3) @ written
    if s_bhkv is None:
        return new, o
    whole = jnp.swapaxes(as_keys(carry[:, :, -1:]), 2, 3)
    return whole * s_bhkv + new, o + from_state[:, :, length:]


def _matmul(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=EXACT)
