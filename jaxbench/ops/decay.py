"""Products of decays inside one chunk of frames, for the chunk forms of P3 and P4.

Decays come as logarithms g <= 0, one for a head ([B, H, C]) or one for a key channel
([B, H, C, K]). Sums of logarithms are formed from their terms, never as differences of
long cumulative sums, so nothing cancels and no exponent is positive. Episodes are
numbered: what another episode wrote is multiplied by 0.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax

# e^-80 is 0 next to 1 in float32; a gate at exactly 0 (g = -inf) becomes this.
SMALLEST_LOG = -80.0

# Frames of a block in which every pair has an exponent of its own for every key.
PAIRS = 16


def episode_numbers(reset_bt: Array | None, batch: int, length: int) -> Array:
    """Counts resets up to and including each frame: int32 [B, T], 0 before any."""
    if reset_bt is None:
        return jnp.zeros((batch, length), jnp.int32)
    return jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)


def bounded(log_decay: Array) -> Array:
    """Float32 logarithms no smaller than `SMALLEST_LOG`."""
    return jnp.maximum(log_decay.astype(jnp.float32), SMALLEST_LOG)


def from_start(g: Array, episode_bc: Array) -> Array:
    """What is left at frame i of the state before the chunk: [B, H, C(, K)].

    prod_{l <= i} e^{g_l}, and 0 once an episode has started in the chunk.
    """
    keep = _per_frame(episode_bc == 0, g)
    return jnp.where(keep, jnp.exp(jnp.cumsum(g, axis=2)), 0)


def before_frame(g: Array, episode_bc: Array) -> Array:
    """As `from_start`, without the frame's own decay: what frame i reads from before.

    prod_{l < i} e^{g_l}; 0 where an episode has started at i or before.
    """
    keep = _per_frame(episode_bc == 0, g)
    return jnp.where(keep, jnp.exp(jnp.cumsum(g, axis=2) - g), 0)


def to_end(g: Array, episode_bc: Array) -> Array:
    """What is left after the chunk of what frame j wrote: [B, H, C(, K)].

    prod_{l > j} e^{g_l}, and 0 if another episode has started since.
    """
    after = lax.cumsum(g, axis=2, reverse=True) - g
    keep = _per_frame(episode_bc == episode_bc[:, -1:], g)
    return jnp.where(keep, jnp.exp(after), 0)


def decayed_products(
    rows_bhck: Array, cols_bhck: Array, g: Array, episode_bc: Array, *, strict: bool
) -> Array:
    """A_ij = sum_k rows_ik cols_jk prod_l e^{g_lk}, float32 [B, H, C, C].

    Args:
      rows_bhck: what reads, frame i.
      cols_bhck: what was written, frame j.
      g: logarithms of decays, [B, H, C] or [B, H, C, K].
      episode_bc: numbers of the episodes.
      strict: false: j <= i, the product over j < l <= i (reads after the decay and the
        write of its frame); true: j < i, over j < l < i (reads before both).

    Returns:
      A, 0 for the other pairs. O(C^2 K) work; with decays for each key O(16 C K)
      numbers and O(C^2 K / 16) exponentials more.
    """
    if g.ndim == 3:
        products = jnp.einsum("bhik,bhjk->bhij", rows_bhck, cols_bhck)
        return products * _pair_decays(g, episode_bc, strict)
    return _per_key_products(rows_bhck, cols_bhck, g, episode_bc, strict)


def _pair_decays(g_bhc: Array, episode_bc: Array, strict: bool) -> Array:
    """prod_l e^{g_l} for all pairs of frames, [B, H, C, C]."""
    i = jnp.arange(g_bhc.shape[-1])
    last = i - 1 if strict else i
    between = (i[None, :, None] < i[None, None]) & (
        i[None, None] <= last[:, None, None]
    )
    sums = jnp.einsum(
        "bhl,ijl->bhij",
        g_bhc,
        between.astype(jnp.float32),
        precision=lax.Precision.HIGHEST,
    )
    seen = _seen(episode_bc, strict)[:, None]
    return jnp.exp(jnp.where(seen, sums, -jnp.inf))


def _seen(episode_bc: Array, strict: bool) -> Array:
    """Which frame j frame i may read, bool [B, C, C]."""
    i = jnp.arange(episode_bc.shape[1])
    causal = i[:, None] > i[None] if strict else i[:, None] >= i[None]
    return causal[None] & (episode_bc[:, :, None] == episode_bc[:, None])


def _per_key_products(
    rows: Array, cols: Array, g: Array, episode_bc: Array, strict: bool
) -> Array:
    """`decayed_products` in blocks: pairs of one block directly, others by a product.

    For i in block r and j before it, the decays split at the start of r: those up to
    i times those after j, both at most 1, so that pair of blocks is one matmul.
    """
    batch, heads, length, keys = rows.shape
    count = math.ceil(length / PAIRS)
    size = math.ceil(length / count)
    pad = ((0, 0), (0, 0), (0, count * size - length), (0, 0))
    rows, cols, g = (jnp.pad(x, pad) for x in (rows, cols, g))
    shape = (batch, heads, count, size, keys)
    g_blocks = g.reshape(shape)
    inside = jnp.cumsum(g_blocks, axis=3)
    upto = inside - g_blocks if strict else inside

    # Pairs inside a block.
    i = jnp.arange(size)
    causal = i[:, None] > i[None] if strict else i[:, None] >= i[None]
    sums = upto[:, :, :, :, None] - inside[:, :, :, None]
    decay = jnp.exp(jnp.where(causal[None, None, None, :, :, None], sums, -jnp.inf))
    near = jnp.einsum(
        "bhrik,bhrjk,bhrijk->bhrij", rows.reshape(shape), cols.reshape(shape), decay
    )
    if count == 1:
        scores = near[:, :, 0]
    else:
        far = _far_products(rows.reshape(shape), cols, g, jnp.exp(upto))
        own = jnp.eye(count, dtype=bool)[None, None, :, None, :, None]
        scores = jnp.where(own, near[:, :, :, :, None], far)
        scores = scores.reshape(batch, heads, count * size, count * size)
    seen = _seen(episode_bc, strict)[:, None]
    return jnp.where(seen, scores[:, :, :length, :length], 0)


def _far_products(rows: Array, cols: Array, g: Array, upto: Array) -> Array:
    """Pairs (i in block r, j in a block before r): [B, H, R, S, R, S], else 0."""
    batch, heads, count, size, keys = rows.shape
    g_blocks = g.reshape(batch, heads, count, size, keys)
    after = lax.cumsum(g_blocks, axis=3, reverse=True) - g_blocks
    # Blocks c < m < r lie between the block of j and that of i.
    block = jnp.arange(count)
    between = (block[None, :, None] < block[None, None]) & (
        block[None, None] < block[:, None, None]
    )
    whole = jnp.einsum(
        "bhmk,rcm->bhrck",
        g_blocks.sum(axis=3),
        between.astype(jnp.float32),
        precision=lax.Precision.HIGHEST,
    )
    sums = whole[:, :, :, :, None] + after[:, :, None]
    before = (block[:, None] > block[None])[None, None, :, :, None, None]
    decayed = jnp.exp(jnp.where(before, sums, -jnp.inf)) * cols.reshape(
        batch, heads, 1, count, size, keys
    )
    return jnp.einsum("bhrik,bhrcjk->bhricj", rows * upto, decayed)


def _per_frame(flag_bc: Array, g: Array) -> Array:
    flag = flag_bc[:, None]
    return flag[..., None] if g.ndim == 4 else flag
