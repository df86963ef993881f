"""P3: gated linear attention, a matrix state that decays and is written by k v^T."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.decay import (
    SMALLEST_LOG,
    before_frame,
    bounded,
    decayed_products,
    episode_numbers,
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
    zeros_unless,
)


class GatedFrames(NamedTuple):
    """What the frames of a call bring, [B, T, ...]; in a step [B, ...].

    Attributes:
      q_bthk: Queries; scale them before. [B, T, 1, K] if all heads share them, which
        takes decays of a head.
      k_bthk: Keys, as the queries.
      v_bthv: Values.
      log_decay: g <= 0, [B, T, H] one for a head or [B, T, H, K] one for a key.
    """

    q_bthk: Array
    k_bthk: Array
    v_bthv: Array
    log_decay: Array


def gated_linear_attention_reference(
    frames: GatedFrames,
    s_bhkv: Start,
    reset_bt: Resets,
    *,
    bonus_hk: Array | None = None,
) -> Result:
    """S_t = Diag(e^{g_t}) S_{t-1} + k_t v_t^T, o_t = S_t^T q_t, by a scan over time.

    The recurrence of GLA (Yang et al. 2023, arXiv:2312.06635, eq. 3), RetNet, Mamba-2
    and HGRN-2. With a bonus it is that of RWKV-6 (Peng et al. 2024, arXiv:2404.05892,
    eq. 16): o_t = (S_{t-1} + Diag(u) k_t v_t^T)^T q_t, read before the decay.

    Args:
      frames: q, k, v and g.
      bonus_hk: u, weight of the frame's own write in what it reads; None reads after.

    Returns:
      o_bthv and the last state, float32. O(T K V) work and memory per head.
    """
    start = memory(frames.k_bthk[:, 0], frames.v_bthv[:, 0], s_bhkv)
    step = gated_linear_attention_step
    return scan_frames(step, (frames,), start, reset_bt, bonus_hk=bonus_hk)


def gated_linear_attention_step(
    frame: GatedFrames, s_bhkv: Start, reset_b: Resets, *, bonus_hk: Array | None = None
) -> Result:
    """One frame of `gated_linear_attention_reference`: o_bhv and the state."""
    q, k, v, g = float32(frame)
    s_bhkv = restart(reset_b, memory(k, v, s_bhkv))
    g = bounded(g)
    decay = jnp.exp(g if g.ndim == 3 else g[..., None])
    write = jnp.einsum("bhk,bhv->bhkv", k, v)  # an axis of 1 is not repeated
    if bonus_hk is None:
        # GLA, eq. 3.
        s_bhkv = decay[..., None] * s_bhkv + write
        return jnp.einsum("bhk,bhkv->bhv", q, s_bhkv), s_bhkv
    # RWKV-6, eq. 16: the frame reads its own write through u, before the decay.
    own_bh = jnp.einsum("bhk,hk,bhk->bh", q, float32(bonus_hk), k)
    o_bhv = jnp.einsum("bhk,bhkv->bhv", q, s_bhkv) + own_bh[..., None] * v
    return o_bhv, decay[..., None] * s_bhkv + write


def gated_linear_attention_chunks(
    frames: GatedFrames,
    s_bhkv: Start,
    reset_bt: Resets,
    *,
    bonus_hk: Array | None = None,
    chunk: int = 64,
    floor: float = SMALLEST_LOG,
) -> Result:
    """`gated_linear_attention_reference` by matmuls over chunks of `chunk` frames.

    Inside a chunk O = (Q K^T * decays) V + (Q * decay since the start) S; the state
    moves from chunk to chunk by a scan, each chunk rematerialised. O(T C (K + V) +
    T K V) work; memory: C^2 numbers per head, and one state per chunk. `floor` as in
    `gated_linear_attention`.
    """
    of_chunk = functools.partial(_chunk, bonus_hk, floor)
    return over_chunks(of_chunk, frames, s_bhkv, reset_bt, chunk, floor)


def gated_linear_attention(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    log_decay: Array,
    s_bhkv: Start = None,
    reset_bt: Resets = None,
    *,
    bonus_hk: Array | None = None,
    floor: float = SMALLEST_LOG,
) -> Result:
    """`gated_linear_attention_reference` in the form `forms.json` names.

    Queries and keys that all heads share stay [B, T, 1, K]: their products are formed
    once, and no copy for each head is kept for the backward pass.
    Log decays below `floor` count as `floor`. What a caller knows of how it makes them
    makes the chunk form faster, see `ops.decay`.
    """
    if floor > SMALLEST_LOG:
        log_decay = bounded(log_decay, floor)
    chunks = functools.partial(gated_linear_attention_chunks, floor=floor)
    return run(
        "gated_linear" if log_decay.ndim == 3 else "gated_linear_keys",
        gated_linear_attention_step,
        {"chunks": chunks, "scan": gated_linear_attention_reference},
        (GatedFrames(q_bthk, k_bthk, v_bthv, log_decay),),
        s_bhkv,
        reset_bt,
        size=q_bthk.shape[-1] * math.prod(v_bthv.shape[2:]),
        bonus_hk=bonus_hk,
    )


def over_chunks(
    step: Callable[[Array | None, Any, Array], tuple[Array, Array]],
    frames: Any,
    state: Start,
    reset_bt: Resets,
    chunk: int,
    floor: float,
) -> Result:
    """Runs `step(state, frames, episode_bc) -> (state, o_bhcv)` over chunks of frames.

    Args:
      step: one chunk; its arrays are [B, H, C, ...]. A state of None is zero.
      frames: `GatedFrames` or `DeltaFrames`; zeros do nothing to the state.
      state: before the first frame; None is zero.
      reset_bt: True where an episode starts; None is nowhere.
      chunk: the most frames of a chunk; chunks are as equal as they can be.
      floor: of the logarithms of decays, see `bounded`.

    Returns:
      o_bthv and the state after the last frame.
    """
    if frames.log_decay is not None:
        frames = frames._replace(log_decay=bounded(frames.log_decay, floor))
    batch, length = frames.q_bthk.shape[:2]
    episode_bt = episode_numbers(reset_bt, batch, length)
    count = math.ceil(length / chunk)
    size = math.ceil(length / count)
    pad = count * size - length
    if count == 1:
        one = jax.tree.map(lambda x: float32(jnp.swapaxes(x, 1, 2)), frames)
        end, o_bhcv = step(state, one, episode_bt)
        return jnp.swapaxes(o_bhcv, 1, 2), end

    def blocks(x: Array, mode: str = "constant") -> Array:
        around = ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)
        x = jnp.pad(x, around, mode=mode)
        return jnp.moveaxis(x.reshape(batch, count, size, *x.shape[2:]), 1, 0)

    split = jax.tree.map(lambda x: float32(jnp.swapaxes(blocks(x), 2, 3)), frames)
    # Padding goes on with the last episode, so it keeps that episode's state.
    episodes = blocks(episode_bt, "edge")
    # Each chunk counts from its own start: 0 is the episode of the state it is given.
    before = jnp.pad(episodes[:-1, :, -1:], ((1, 0), (0, 0), (0, 0)))
    episodes = episodes - before

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(state: Array, xs: tuple) -> Result:
        return step(state, *xs)

    state = memory(frames.k_bthk[:, 0], frames.v_bthv[:, 0], state)
    end, o_nbhcv = lax.scan(body, state, (split, episodes))
    o_bnchv = jnp.moveaxis(o_nbhcv, 0, 1).swapaxes(2, 3)
    o_bthv = o_bnchv.reshape(batch, count * size, *o_bnchv.shape[3:])
    return o_bthv[:, :length], end


def _chunk(
    bonus_hk: Array | None,
    floor: float,
    s_bhkv: Start,
    inputs: GatedFrames,
    episode_bc: Array,
) -> Result:
    q, k, v, g = inputs
    before, after = ((), (q,)) if bonus_hk is None else ((q,), ())
    made = decayed_products(before, after, (k,), g, episode_bc, floor=floor)
    o = jnp.einsum("bhij,bhjv->bhiv", made[:, :, 0, :, 0], v)
    if bonus_hk is not None:
        own = jnp.einsum("bhik,hk,bhik->bhi", q, float32(bonus_hk), k)
        o = o + own[..., None] * v
    kept = to_end(g, episode_bc)
    if g.ndim == 3:  # a decay of the head scales values as well as keys
        written = jnp.einsum("bhjk,bhjv->bhkv", k, kept[..., None] * v)
    else:
        written = jnp.einsum("bhjk,bhjv->bhkv", k * kept, v)
    if s_bhkv is None:
        return written, o
    carry = (from_start if bonus_hk is None else before_frame)(g, episode_bc)
    if g.ndim == 3:
        o = o + carry[..., None] * jnp.einsum("bhik,bhkv->bhiv", q, s_bhkv)
    else:
        o = o + jnp.einsum("bhik,bhkv->bhiv", q * carry, s_bhkv)
    whole = as_keys(from_start(g, episode_bc)[:, :, -1:])
    return jnp.swapaxes(whole, 2, 3) * s_bhkv + written, o


def as_keys(x: Array) -> Array:
    """[B, H, C] or [B, H, C, K] as something that multiplies [B, H, C, K]."""
    return x[..., None] if x.ndim == 3 else x


def memory(k_bhk: Array, v_bhv: Array, s_bhkv: Start) -> Array:
    """The state [B, H, K, V] of keys and values like these, zeros where it is None."""
    return zeros_unless(s_bhkv, (*v_bhv.shape[:2], k_bhk.shape[-1], v_bhv.shape[-1]))
