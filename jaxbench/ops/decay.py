"""Products of decays inside one chunk of frames, for the chunk forms of P3 and P4.

Decays come as logarithms g <= 0, one for a head ([B, H, C]) or one for a key channel
([B, H, C, K]); None is no decay at all. Sums of logarithms are formed from their terms,
never as differences of long sums, so nothing cancels. Episodes are numbered: what
another episode wrote is multiplied by 0, whatever the decays between.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxbench.ops.frames import Resets

# e^-80 is 0 next to 1 in float32; a gate at exactly 0 (g = -inf) becomes this.
SMALLEST_LOG = -80.0

# Largest exponent of a factor: e^40 times anything below 1e21 is finite in float32.
LARGEST = 40.0


def episode_numbers(reset_bt: Resets, batch: int, length: int) -> Array:
    """Counts resets up to and including each frame: int32 [B, T], 0 before any."""
    if reset_bt is None:
        return jnp.zeros((batch, length), jnp.int32)
    return jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)


def bounded(log_decay: Array, floor: float = SMALLEST_LOG) -> Array:
    """Float32 logarithms no smaller than `floor`; one at the bound has its gradient."""
    log_decay = log_decay.astype(jnp.float32)
    return jnp.where(log_decay < floor, floor, log_decay)


def from_start(g: Array | None, episode_bc: Array) -> Array:
    """What is left at frame i of the state before the chunk: [B, H, C(, K)].

    prod_{l <= i} e^{g_l}, and 0 once an episode has started in the chunk. Without
    decays [B, 1, C].
    """
    return _kept(episode_bc == 0, g, None if g is None else _running(g))


def before_frame(g: Array | None, episode_bc: Array) -> Array:
    """As `from_start`, without the frame's own decay: what frame i reads from before.

    prod_{l < i} e^{g_l}; 0 where an episode has started at i or before.
    """
    return _kept(episode_bc == 0, g, None if g is None else _one_later(_running(g)))


def to_end(g: Array | None, episode_bc: Array) -> Array:
    """What is left after the chunk of what frame j wrote: [B, H, C(, K)].

    prod_{l > j} e^{g_l}, and 0 if another episode has started since.
    """
    after = None if g is None else _after(g)
    return _kept(episode_bc == episode_bc[:, -1:], g, after)


def decayed_products_reference(
    before: Sequence[Array],
    after: Sequence[Array],
    cols: Sequence[Array],
    g: Array,
    episode_bc: Array,
) -> Array:
    """A_ij = sum_k rows_ik cols_jk prod_l e^{g_lk} for pairs of frames, one by one.

    Args:
      before: what reads before the decay and the write of its frame i: pairs j < i,
        the product over j < l < i. Each [B, H, C, K].
      after: what reads after both: pairs j <= i, the product over j < l <= i.
      cols: what was written at frame j.
      g: logarithms of decays, [B, H, C] or [B, H, C, K].
      episode_bc: numbers of the episodes.

    Returns:
      A, 0 for the other pairs: float32 [B, H, R, C, W, C], R the rows of `before` and
      then of `after`, W the columns. O(C^2 K) exponentials for each of them.
    """
    g = g if g.ndim == 4 else g[..., None]

    def one(rows: Array, col: Array, strict: bool) -> Array:
        sums = jnp.einsum("bhlk,ijl->bhijk", g, _between(g.shape[2], strict))
        seen = _seen(episode_bc, strict)[:, None, :, :, None]
        decay = jnp.exp(jnp.where(seen, sums, -jnp.inf))
        return (rows[:, :, :, None] * col[:, :, None] * decay).sum(-1)

    kinds = [(rows, True) for rows in before] + [(rows, False) for rows in after]
    made = [[one(rows, col, strict) for col in cols] for rows, strict in kinds]
    return jnp.stack([jnp.stack(line, axis=3) for line in made], axis=2)


def decayed_products(
    before: Sequence[Array],
    after: Sequence[Array],
    cols: Sequence[Array],
    g: Array | None,
    episode_bc: Array,
    *,
    floor: float = SMALLEST_LOG,
) -> Array:
    """`decayed_products_reference` by matmuls over all rows and columns at once.

    With decays for each key the chunk is halved until a block is so short that
    `floor` bounds its range. Inside a block decays split at the middle of that range,
    rows times e^(G_i - c), columns times e^(c - G_j), exponents of at most `LARGEST`
    either way; between two halves they split where the halves meet, both factors at
    most 1. A tighter bound saves halvings, and without one `SMALLEST_LOG` is a bound.

    Args:
      before, after, cols, g, episode_bc: as in the reference; g may be None.
      floor: no logarithm is smaller, see `bounded`; known when this is traced.

    Returns:
      As the reference. O(C^2 K) work; O(C K log C) exponentials for decays of each key,
      O(C^2) for decays of a head.
    """
    rows, col = _stacked((*before, *after)), _stacked(cols)
    kinds = (True,) * len(before) + (False,) * len(after)
    if g is not None and g.ndim == 3:
        decays = [_pair_decays(g, episode_bc, strict) for strict in kinds]
        return _products(rows, col) * jnp.stack(decays, 2)[:, :, :, :, None]
    if g is None:
        scores = _products(rows, col)
    else:
        scores = _per_key_products(rows, col, g, len(before), floor)
    seen = [_seen(episode_bc, strict) for strict in kinds]
    return jnp.where(jnp.stack(seen, 1)[:, None, :, :, None], scores, 0)


def _per_key_products(
    rows: Array, cols: Array, g: Array, strict: int, floor: float
) -> Array:
    """Products of [B, H, R, C, K] and [B, H, W, C, K], the first `strict` rows before.

    Pairs that are not in order hold anything, infinity too.
    """
    length = g.shape[2]
    halvings, size = 0, length
    while (size - 1) * -floor > 2 * LARGEST:
        halvings += 1
        size = -(-length // 2**halvings)

    def blocks(x: Array) -> Array:
        """[.., C, K] as [.., N, S, K]."""
        pad = (size << halvings) - length
        x = jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, pad), (0, 0)))
        return x.reshape(*x.shape[:-2], -1, size, x.shape[-1])

    # The axis of blocks comes before those of readers and writers.
    rows, cols, g = jnp.moveaxis(blocks(rows), 3, 2), blocks(cols), blocks(g)
    cols = jnp.moveaxis(cols, 3, 2)
    # The decay of a block's first frame separates no two frames of the block.
    since = _masked_sums(g, np.tri(size) * (np.arange(size) > 0))
    since = since - lax.stop_gradient(since[:, :, :, -1:] / 2)
    # The first frame's row reads no frame of the block before its write.
    earlier = jnp.concatenate([since[:, :, :, :1], since[:, :, :, :-1]], axis=3)
    scores = _products(
        rows * _for_rows(earlier, since, strict, rows.shape[3]),
        cols * jnp.exp(-since)[:, :, :, None],
    )
    inside, behind = _running(g), _after(g)
    while scores.shape[2] > 1:
        upto = inside[:, :, 1::2]
        upto = _for_rows(_one_later(upto), upto, strict, rows.shape[3])
        far = _products(
            rows[:, :, 1::2] * upto,
            cols[:, :, ::2] * jnp.exp(behind[:, :, ::2])[:, :, :, None],
        )
        first = jnp.concatenate([scores[:, :, ::2], jnp.zeros_like(far)], axis=-1)
        second = jnp.concatenate([far, scores[:, :, 1::2]], axis=-1)
        scores = jnp.concatenate([first, second], axis=4)
        rows, cols = _halves_joined(rows), _halves_joined(cols)
        whole = inside[:, :, :, -1:]
        inside = jnp.concatenate(
            [inside[:, :, ::2], inside[:, :, 1::2] + whole[:, :, ::2]], axis=3
        )
        behind = jnp.concatenate(
            [behind[:, :, ::2] + whole[:, :, 1::2], behind[:, :, 1::2]], axis=3
        )
    return scores[:, :, 0, :, :length, :, :length]


def _for_rows(earlier: Array, upto: Array, strict: int, readers: int) -> Array:
    """The exponentials that each of the readers needs, [B, H, N, R or 1, S, K]."""
    if strict == 0:
        return jnp.exp(upto)[:, :, :, None]
    if strict == readers:
        return jnp.exp(earlier)[:, :, :, None]
    both = [jnp.exp(earlier)] * strict + [jnp.exp(upto)] * (readers - strict)
    return jnp.stack(both, axis=3)


def _halves_joined(x: Array) -> Array:
    """[B, H, N, R, S, K] as [B, H, N / 2, R, 2 S, K]."""
    return jnp.concatenate([x[:, :, ::2], x[:, :, 1::2]], axis=4)


def _stacked(arrays: Sequence[Array]) -> Array:
    """[B, H, N, C, K] of N arrays [B, H, C, K]."""
    return jnp.stack([x.astype(jnp.float32) for x in arrays], axis=2)


def _products(rows: Array, cols: Array) -> Array:
    """All dot products of [.., R, C, K] and [.., W, C, K]: [.., R, C, W, C]."""
    *lead, readers, length, keys = rows.shape
    writers = cols.shape[-3]
    made = jnp.einsum(
        "...ik,...jk->...ij",
        rows.reshape(*lead, readers * length, keys),
        cols.reshape(*lead, writers * length, keys),
    )
    return made.reshape(*lead, readers, length, writers, length)


def _pair_decays(g_bhc: Array, episode_bc: Array, strict: bool) -> Array:
    """prod_l e^{g_l} for all pairs of frames, [B, H, C, C]."""
    between = _between(g_bhc.shape[-1], strict)
    exact = lax.Precision.HIGHEST
    sums = jnp.einsum("bhl,ijl->bhij", g_bhc, between, precision=exact)
    seen = _seen(episode_bc, strict)[:, None]
    return jnp.exp(jnp.where(seen, sums, -jnp.inf))


def _between(length: int, strict: bool) -> Array:
    """1 for the frames j < l <= i, strict j < l < i: float32 [C, C, C] over i, j, l."""
    i = jnp.arange(length)
    after = i[None, :, None] < i[None, None]
    upto = i[None, None] <= (i - 1 if strict else i)[:, None, None]
    return (after & upto).astype(jnp.float32)


def _seen(episode_bc: Array, strict: bool) -> Array:
    """Which frame j frame i may read, bool [B, C, C]."""
    i = jnp.arange(episode_bc.shape[1])
    causal = i[:, None] > i[None] if strict else i[:, None] >= i[None]
    return causal[None] & (episode_bc[:, :, None] == episode_bc[:, None])


def _kept(keep_bc: Array, g: Array | None, sums: Array | None) -> Array:
    """e^sums where the frame is kept, else 0."""
    keep = keep_bc[:, None]
    if g is None or sums is None:
        return keep.astype(jnp.float32)
    return jnp.where(keep[..., None] if g.ndim == 4 else keep, jnp.exp(sums), 0)


def _time_axis(g: Array) -> int:
    """The axis of frames of [B, H, C], [B, H, C, K] or [B, H, N, S, K]."""
    return 2 if g.ndim == 3 else g.ndim - 2


def _running(g: Array) -> Array:
    """Sums of the frames up to each."""
    return _masked_sums(g, np.tri(g.shape[_time_axis(g)]))


def _after(g: Array) -> Array:
    """Sums of the frames after each."""
    return _masked_sums(g, 1 - np.tri(g.shape[_time_axis(g)]))


def _masked_sums(g: Array, mask_il: np.ndarray) -> Array:
    # A matmul: one operation, where a running sum is a tree of slices.
    letters = "bhl" if g.ndim == 3 else "...lk"
    sums = f"il,{letters}->{letters.replace('l', 'i')}"
    return jnp.einsum(sums, jnp.float32(mask_il), g, precision="highest")


def _one_later(sums: Array) -> Array:
    """Each frame gets the value of the one before it, the first 0."""
    axis = _time_axis(sums)
    pad = [(0, 0)] * sums.ndim
    pad[axis] = (1, 0)
    return jnp.pad(lax.slice_in_dim(sums, 0, sums.shape[axis] - 1, axis=axis), pad)
