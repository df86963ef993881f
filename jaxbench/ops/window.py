"""P7: for maps of a whole window, the last frames of every frame."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class WindowRing(NamedTuple):
    """The last window - 1 inputs, oldest first; zero and not valid where absent."""

    x_bwd: Array
    valid_bw: Array


def initial_ring(batch_size: int, *, window: int, width: int) -> WindowRing:
    """A ring that holds nothing."""
    shape = (batch_size, window - 1)
    return WindowRing(jnp.zeros((*shape, width), jnp.float32), jnp.zeros(shape, bool))


def sliding_windows_step(
    x_bd: Array,
    window: int,
    ring: WindowRing | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array, WindowRing]:
    """One frame of `sliding_windows_reference`: w_bwd, valid_bw and the ring."""
    batch, width = x_bd.shape
    if ring is None:
        ring = initial_ring(batch, window=window, width=width)
    x, valid = ring
    if reset_b is not None:
        x = jnp.where(reset_b[:, None, None], 0, x)
        valid = valid & ~reset_b[:, None]
    w = jnp.concatenate([x.astype(x_bd.dtype), x_bd[:, None]], 1)
    valid = jnp.concatenate([valid, jnp.ones((batch, 1), bool)], 1)
    return w, valid, WindowRing(w[:, 1:].astype(jnp.float32), valid[:, 1:])


def sliding_windows_reference(
    x_btd: Array,
    window: int,
    ring: WindowRing | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array, WindowRing]:
    """w_t = (x_{t-window+1}, ..., x_t), within the episode, by a scan.

    Args:
      x_btd: Frames.
      window: How many frames a window holds, the current one included.
      ring: What came before; None is nothing.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      w_btwd oldest first, zero where the episode has no such frame; valid_btw, false
      there; and the ring after the last frame. O(T window D) memory.
    """
    batch, _, width = x_btd.shape
    start = initial_ring(batch, window=window, width=width) if ring is None else ring

    def body(
        ring: WindowRing, xs: tuple[Array, Array | None]
    ) -> tuple[WindowRing, tuple[Array, Array]]:
        w, valid, ring = sliding_windows_step(xs[0], window, ring, xs[1])
        return ring, (w, valid)

    resets = None if reset_bt is None else reset_bt.T
    last, (w, valid) = lax.scan(body, start, (jnp.moveaxis(x_btd, 1, 0), resets))
    return jnp.moveaxis(w, 0, 1), jnp.moveaxis(valid, 0, 1), last


def sliding_windows(
    x_btd: Array,
    window: int,
    ring: WindowRing | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array, WindowRing]:
    """`sliding_windows_reference` by one gather."""
    batch, length, width = x_btd.shape
    if ring is None:
        ring = initial_ring(batch, window=window, width=width)
    slots = window - 1
    x = jnp.concatenate([ring.x_bwd.astype(x_btd.dtype), x_btd], 1)
    valid = jnp.concatenate([ring.valid_bw, jnp.ones((batch, length), bool)], 1)
    index_tw = jnp.arange(length)[:, None] + jnp.arange(window)[None]
    w, valid_btw = x[:, index_tw], valid[:, index_tw]
    last_x, last_valid = x[:, length:], valid[:, length:]
    if reset_bt is not None:
        episode = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
        before = jnp.pad(episode, ((0, 0), (slots, 0)))
        valid_btw = valid_btw & (before[:, index_tw] == episode[:, :, None])
        w = jnp.where(valid_btw[..., None], w, 0)
        last_valid = last_valid & (before[:, length:] == episode[:, -1:])
        last_x = jnp.where(last_valid[..., None], last_x, 0)
    return w, valid_btw, WindowRing(last_x.astype(jnp.float32), last_valid)


def last_window(
    x_btd: Array,
    window: int,
    ring: WindowRing | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array, WindowRing]:
    """The last frame's window alone: w_bwd, valid_bw and the ring. O(T + window)."""
    batch, length, width = x_btd.shape
    if ring is None:
        ring = initial_ring(batch, window=window, width=width)
    skip = max(length - window, 0)
    before = window - 1 if skip == 0 else 0
    x = jnp.concatenate([ring.x_bwd[:, :before].astype(x_btd.dtype), x_btd], 1)
    present = jnp.ones((batch, length), bool)
    valid = jnp.concatenate([ring.valid_bw[:, :before], present], 1)
    if reset_bt is not None:
        episode = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
        episode = jnp.pad(episode, ((0, 0), (before, 0)))
        valid = valid & (episode == episode[:, -1:])
    w, valid = x[:, -window:], valid[:, -window:]
    w = jnp.where(valid[..., None], w, 0)
    return w, valid, WindowRing(w[:, 1:].astype(jnp.float32), valid[:, 1:])
