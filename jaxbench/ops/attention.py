"""P6: softmax attention, banded and causal with a cache, or with any mask."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.frames import Resets, float32, over

# Finite, so that a row in which every key is masked has no NaN in either pass.
MASKED = -1e9

# Blocks shorter than this are small matmuls that waste the machine.
BLOCK = 64


class AttentionCache(NamedTuple):
    """The last window - 1 keys and values, oldest first.

    Keys are stored as the caller passed them: rotated, where positions are rotary.
    A slot that holds nothing of the running episode is zero and not valid. Each frame
    keeps its own log decay, not a running sum: nothing grows in an endless stream.
    """

    k_bwhk: Array
    v_bwhk: Array
    valid_bw: Array
    position_b: Array  # frames since the episode started, int32
    log_decay_bwh: Array | None = None  # where the attention forgets; query heads


def initial_cache(
    batch_size: int,
    *,
    window: int,
    heads: int,
    key_size: int,
    value_size: int,
    decays: int = 0,
) -> AttentionCache:
    """An empty cache for `heads` key-value heads. Arrays are float32.

    `decays` is the number of query heads where the attention forgets, else 0.
    """
    slots = window - 1
    log_decay = jnp.zeros((batch_size, slots, decays), jnp.float32) if decays else None
    return AttentionCache(
        jnp.zeros((batch_size, slots, heads, key_size), jnp.float32),
        jnp.zeros((batch_size, slots, heads, value_size), jnp.float32),
        jnp.zeros((batch_size, slots), bool),
        jnp.zeros((batch_size,), jnp.int32),
        log_decay,
    )


def positions(position_b: Array, reset_bt: Resets, length: int) -> tuple[Array, Array]:
    """Counts frames since the episode started.

    Args:
      position_b: Position of the first frame, if no reset is there; int32.
      reset_bt: True where an episode starts (position 0); None is nowhere.
      length: T.

    Returns:
      position_bt and the position of the frame that follows, both int32.
    """
    time_t = jnp.arange(length, dtype=jnp.int32)
    position_bt = position_b[:, None] + time_t[None]
    if reset_bt is not None:
        start_bt = lax.cummax(jnp.where(reset_bt, time_t[None], -1), axis=1)
        position_bt = jnp.where(start_bt < 0, position_bt, time_t[None] - start_bt)
    return position_bt, position_bt[:, -1] + 1


def attention(
    q_bthk: Array,
    k_bshk: Array,
    v_bshv: Array,
    mask_bts: Array | None = None,
    *,
    scale: float | None = None,
) -> Array:
    """o_t = sum_s softmax_s(scale q_t . k_s) v_s over the keys the mask allows.

    Vaswani et al. 2017 (arXiv 1706.03762), equation 1.

    Args:
      q_bthk: Queries.
      k_bshk: Keys; their heads divide those of the queries, which share them in
        consecutive groups.
      v_bshv: Values, heads as the keys.
      mask_bts: True where t may see s; an axis of size 1 is repeated; None is all.
        A query that sees nothing gets zero.
      scale: Factor on the scores; None is key_size ** -0.5.

    Returns:
      o_bthv in the dtype of the queries; the softmax is float32. O(T S) per head.
    """
    weights = _weights(q_bthk, k_bshk, mask_bts, scale)
    if mask_bts is not None:
        weights = jnp.where(mask_bts[:, None], weights, 0)
    return _read(weights, v_bshv, q_bthk.dtype)


class BandFrames(NamedTuple):
    """What the frames of a call bring, [B, T, ...]; in a step [B, ...].

    Attributes:
      q_bthk: Queries.
      k_bthk: Keys, possibly of fewer heads; see `attention`.
      v_bthv: Values.
      log_decay_bth: f <= 0 for each query head, float32; None is 0. If given, the
        cache must be one with decays.
    """

    q_bthk: Array
    k_bthk: Array
    v_bthv: Array
    log_decay_bth: Array | None = None


def banded_attention_reference(
    frames: BandFrames,
    cache: AttentionCache | None,
    reset_bt: Resets,
    *,
    window: int,
    scale: float | None = None,
) -> tuple[Array, AttentionCache]:
    """Causal attention to the last `window` frames, by the full score matrix.

    Frame t sees the frames s with t - window < s <= t of its own episode, among them
    those in the cache (Beltagy et al. 2020, arXiv 2004.05150, section 3.1, causal).
    A window of at least the stream's length is ordinary causal attention; the cache
    then holds the whole stream.

    With log decays f the score of frame s is scale q_t . k_s + sum_{s<l<=t} f_l: each
    frame lets what came before it fade (Lin et al. 2025, arXiv 2503.02130, eq. 4-6).

    Args:
      frames: q, k, v and f.
      cache: What came before; None is nothing.
      window: How many frames a frame sees, itself included; at least 1.
      scale: Factor on the scores; None is key_size ** -0.5.

    Returns:
      o_bthv and the cache after the last frame. O(T (T + window)) per head; the sums
      of decays add a factor log(T + window) to what is not a matmul.
    """
    q, length = frames.q_bthk, frames.q_bthk.shape[1]
    seen = _with_cache(frames, cache, reset_bt)
    slots = seen.k.shape[1] - length
    age = (jnp.arange(length)[:, None] + slots) - jnp.arange(slots + length)[None]
    mask = ((age >= 0) & (age < window))[None]
    if seen.valid is not None:
        mask = mask & seen.valid[:, None]
    if seen.episode is not None:
        mask = mask & (seen.episode[:, slots:, None] == seen.episode[:, None])
    bias = None if seen.log_decay is None else _decay_between(seen.log_decay, length)
    o_bthv = _read(_weights(q, seen.k, mask, scale, bias), seen.v, q.dtype)
    return o_bthv, _next_cache(seen, cache, reset_bt, window, length)


def banded_attention_blocks(
    frames: BandFrames,
    cache: AttentionCache | None,
    reset_bt: Resets,
    *,
    window: int,
    scale: float | None = None,
) -> tuple[Array, AttentionCache]:
    """`banded_attention_reference` in blocks that see themselves and the one before.

    A block is as long as the band reaches back, at least `BLOCK`: O(T window) scores.
    """
    batch, length = frames.q_bthk.shape[:2]
    seen = _with_cache(frames, cache, reset_bt)
    slots = seen.k.shape[1] - length
    size = _block_size(window)
    count = -(-length // size)

    def with_previous(x: Array, fill: int = 0) -> Array:
        """[B, slots + T, ..] as [B count, 2 size, ..]."""
        around = ((0, 0), (size - slots, count * size - length))
        rest = ((0, 0),) * (x.ndim - 2)
        x = jnp.pad(x, around + rest, constant_values=fill)
        x = x.reshape(batch, count + 1, size, *x.shape[2:])
        pairs = jnp.concatenate([x[:, :-1], x[:, 1:]], 2)
        return pairs.reshape(batch * count, 2 * size, *x.shape[3:])

    valid = seen.valid
    valid = jnp.ones((batch, slots + length), bool) if valid is None else valid
    age = jnp.arange(size)[:, None] + size - jnp.arange(2 * size)[None]
    mask = ((age >= 0) & (age < window))[None] & with_previous(valid)[:, None]
    if seen.episode is not None:
        episode = with_previous(seen.episode, fill=-1)
        mask = mask & (episode[:, size:, None] == episode[:, None])
    q = frames.q_bthk
    q = jnp.pad(q, ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
    q = q.reshape(batch * count, size, *q.shape[2:])
    bias = None
    if seen.log_decay is not None:
        bias = _decay_between(with_previous(seen.log_decay), size)
    weights = _weights(q, with_previous(seen.k), mask, scale, bias)
    o = _read(weights, with_previous(seen.v), q.dtype)
    o_bthv = o.reshape(batch, count * size, *o.shape[2:])[:, :length]
    return o_bthv, _next_cache(seen, cache, reset_bt, window, length)


def banded_attention(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    *,
    window: int,
    cache: AttentionCache | None = None,
    reset_bt: Resets = None,
    scale: float | None = None,
    log_decay_bth: Array | None = None,
) -> tuple[Array, AttentionCache]:
    """`banded_attention_reference`, in blocks where they hold fewer scores.

    Not a matter of measurement, so not in `forms.json`: both forms are matmuls.
    """
    slots = 0 if cache is None else window - 1
    blocks = 2 * _block_size(window) < q_bthk.shape[1] + slots
    form = banded_attention_blocks if blocks else banded_attention_reference
    frames = BandFrames(q_bthk, k_bthk, v_bthv, log_decay_bth)
    return form(frames, cache, reset_bt, window=window, scale=scale)


def _block_size(window: int) -> int:
    return max(window - 1, BLOCK)


def _weights(
    q_bthk: Array,
    k_bshk: Array,
    mask_bts: Array | None,
    scale: float | None,
    bias_bhts: Array | None = None,
) -> Array:
    """Softmax of the scaled, biased, masked scores, float32 [B, H, T, S]."""
    batch, length, heads, size = q_bthk.shape
    groups = k_bshk.shape[2]
    if heads % groups:
        raise ValueError(f"{heads} query heads cannot share {groups} key heads")
    if heads == groups:
        # Not a special case of the other branch: a fifth axis of 1 costs a sixth more.
        scores = jnp.einsum(
            "bthk,bshk->bhts", q_bthk, k_bshk, preferred_element_type=jnp.float32
        )
    else:
        q = q_bthk.reshape(batch, length, groups, heads // groups, size)
        scores = jnp.einsum(
            "btgrk,bsgk->bgrts", q, k_bshk, preferred_element_type=jnp.float32
        ).reshape(batch, heads, length, -1)
    # Vaswani et al. 2017, eq. 1.
    scores = scores * (size**-0.5 if scale is None else scale)
    if bias_bhts is not None:
        scores = scores + bias_bhts
    if mask_bts is not None:
        scores = jnp.where(mask_bts[:, None], scores, MASKED)
    return jax.nn.softmax(scores, axis=-1)


def _read(weights_bhts: Array, v_bshv: Array, dtype: jnp.dtype) -> Array:
    """The weighted mean of the values, [B, T, H, V] in `dtype`."""
    batch, heads, length, _ = weights_bhts.shape
    weights, groups = weights_bhts.astype(v_bshv.dtype), v_bshv.shape[2]
    if heads == groups:
        return jnp.einsum("bhts,bshv->bthv", weights, v_bshv).astype(dtype)
    weights = weights.reshape(batch, groups, heads // groups, length, -1)
    o = jnp.einsum("bgrts,bsgv->btgrv", weights, v_bshv)
    return o.reshape(batch, length, heads, -1).astype(dtype)


class _Seen(NamedTuple):
    """The cached and the new frames, [B, S, ...]."""

    k: Array
    v: Array
    log_decay: Array | None
    valid: Array | None  # None: all
    episode: Array | None  # its number; None: all are of one


def _with_cache(
    frames: BandFrames, cache: AttentionCache | None, reset_bt: Resets
) -> _Seen:
    k, v, length = frames.k_bthk, frames.v_bthv, frames.k_bthk.shape[1]
    decay = _decay_with_cache(frames.log_decay_bth, cache)
    episode = None
    if reset_bt is not None:
        episode = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
    if cache is None:
        return _Seen(k, v, decay, None, episode)
    slots = cache.valid_bw.shape[1]
    k = jnp.concatenate([cache.k_bwhk.astype(k.dtype), k], 1)
    v = jnp.concatenate([cache.v_bwhk.astype(v.dtype), v], 1)
    valid = jnp.pad(cache.valid_bw, ((0, 0), (0, length)), constant_values=1)
    if episode is not None:
        episode = jnp.pad(episode, ((0, 0), (slots, 0)))
    return _Seen(k, v, decay, valid, episode)


def _decay_with_cache(
    log_decay_bth: Array | None, cache: AttentionCache | None
) -> Array | None:
    """Log decays of the cached and the new frames."""
    if cache is not None and (cache.log_decay_bwh is None) != (log_decay_bth is None):
        raise ValueError("log decays are in one of cache and call, not in both")
    if log_decay_bth is None:
        return None
    log_decay_bth = log_decay_bth.astype(jnp.float32)
    if cache is None or cache.log_decay_bwh is None:
        return log_decay_bth
    return jnp.concatenate([cache.log_decay_bwh, log_decay_bth], 1)


def _decay_between(log_decay_bsh: Array, length: int) -> Array:
    """sum_{s<l<=t} f_l for the last `length` frames t and all frames s, [B, H, T, S].

    Summed from t backwards for each t, not as a difference of two running sums: the
    near frames, which matter, have short sums, and what lies before a reset or out
    of the band cannot take digits from what does not.
    """
    total = log_decay_bsh.shape[1]
    next_bsh = jnp.pad(log_decay_bsh[:, 1:], ((0, 0), (0, 1), (0, 0)))
    age = jnp.arange(total - length, total)[:, None] - jnp.arange(total)[None]
    steps_bhts = jnp.where(
        (age > 0)[None, None], jnp.moveaxis(next_bsh, 2, 1)[:, :, None], 0
    )
    return lax.cumsum(steps_bhts, axis=3, reverse=True)


def _next_cache(
    seen: _Seen,
    cache: AttentionCache | None,
    reset_bt: Resets,
    window: int,
    length: int,
) -> AttentionCache:
    batch, total = seen.k.shape[:2]
    slots = window - 1
    valid = jnp.ones((batch, total), bool) if seen.valid is None else seen.valid
    if seen.episode is not None:
        valid = valid & (seen.episode == seen.episode[:, -1:])

    def last(x: Array) -> Array:
        x = x[:, max(total - slots, 0) :]
        missing = slots - x.shape[1]
        return jnp.pad(x, ((0, 0), (missing, 0)) + ((0, 0),) * (x.ndim - 2))

    valid = last(valid)

    def kept(x: Array) -> Array:
        return jnp.where(over(valid, x), last(x), 0)

    zero = jnp.zeros((batch,), jnp.int32)
    start = zero if cache is None else cache.position_b
    return AttentionCache(
        float32(kept(seen.k)),
        float32(kept(seen.v)),
        valid,
        positions(start, reset_bt, length)[1],
        None if seen.log_decay is None else kept(seen.log_decay),
    )
