"""P7: for maps of a whole window, the last frames of every frame."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxbench.ops.frames import Resets, restart, scan_frames


class WindowRing(NamedTuple):
    """The last window - 1 inputs, oldest first; zero and not valid where absent."""

    x_bwd: Array
    valid_bw: Array


def initial_ring(batch_size: int, *, window: int, width: int) -> WindowRing:
    """A ring that holds nothing."""
    shape = (batch_size, window - 1)
    return WindowRing(jnp.zeros((*shape, width), jnp.float32), jnp.zeros(shape, bool))


def sliding_windows_step(
    x_bd: Array, window: int, ring: WindowRing | None = None, reset_b: Resets = None
) -> tuple[Array, Array, WindowRing]:
    """One frame of `sliding_windows_reference`: w_bwd, valid_bw and the ring."""
    batch = x_bd.shape[0]
    x, valid = restart(reset_b, _ring(x_bd, window, ring))
    w = jnp.concatenate([x.astype(x_bd.dtype), x_bd[:, None]], 1)
    valid = jnp.concatenate([valid, jnp.ones((batch, 1), bool)], 1)
    return w, valid, WindowRing(w[:, 1:].astype(jnp.float32), valid[:, 1:])


def sliding_windows_reference(
    x_btd: Array, window: int, ring: WindowRing | None = None, reset_bt: Resets = None
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

    def step(
        x_bd: Array, ring: WindowRing, reset_b: Resets
    ) -> tuple[tuple[Array, Array], WindowRing]:
        w_bwd, valid_bw, ring = sliding_windows_step(x_bd, window, ring, reset_b)
        return (w_bwd, valid_bw), ring

    start = _ring(x_btd, window, ring)
    (w_btwd, valid_btw), last = scan_frames(step, (x_btd,), start, reset_bt)
    return w_btwd, valid_btw, last


def sliding_windows(
    x_btd: Array, window: int, ring: WindowRing | None = None, reset_bt: Resets = None
) -> tuple[Array, Array, WindowRing]:
    """`sliding_windows_reference` by one gather."""
    batch, length = x_btd.shape[:2]
    ring = _ring(x_btd, window, ring)
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
    x_btd: Array, window: int, ring: WindowRing | None = None, reset_bt: Resets = None
) -> tuple[Array, Array, WindowRing]:
    """The last frame's window alone: w_bwd, valid_bw and the ring. O(T + window)."""
    batch, length = x_btd.shape[:2]
    ring = _ring(x_btd, window, ring)
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


def _ring(x: Array, window: int, ring: WindowRing | None) -> WindowRing:
    if ring is not None:
        return ring
    return initial_ring(x.shape[0], window=window, width=x.shape[-1])
