"""P2: causal convolutions along time, with kernels as long as the sequence or short."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.forms import choose
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    one_frame,
    restart,
    scan_frames,
)

# Up to this many taps a short convolution is one sum of shifted products.
UNROLLED_TAPS = 8

# Lags in one fused loop. Measured on CPU at [64, 64, 512]: 4 and 8 are slower than one
# by one (145, 113 and 40 ms); 16 takes 13 ms, 32 takes 20.
GROUP = 16

# Up to this many frames the gradient of the taps goes through all pairs of frames.
GRAM = 64


def causal_convolution_reference(
    u_btd: Array, k_ld: Array, reset_bt: Resets = None
) -> Array:
    """y_t = sum_l k_l u_{t-l} over the frames of the episode of t, per channel.

    Args:
      u_btd: Input.
      k_ld: Taps, tap 0 for the current frame; at most T of them are used.

    Returns:
      y_btd, float32. The lags are scanned one by one: O(T L) per channel.
    """
    u_btd, k_ld = _prepare(u_btd, k_ld)
    length, lags = u_btd.shape[1], k_ld.shape[0]
    episode = _episode(reset_bt)
    u_padded, e_padded = _padded(u_btd, episode, lags)

    def body(y: Array, xs: tuple[Array, Array]) -> tuple[Array, None]:
        lag, k_d = xs
        u = _tap(u_padded, e_padded, episode, lags - lag, length)
        return y + k_d[None, None] * u, None

    return lax.scan(body, jnp.zeros_like(u_btd), (jnp.arange(lags), k_ld))[0]


def causal_convolution_lags(
    u_btd: Array, k_ld: Array, reset_bt: Resets = None
) -> Array:
    """`causal_convolution_reference` with a gradient that keeps only u and k.

    The one form for resets inside the sequence: a tap counts where no episode starts
    in (t - l, t].
    """
    u_btd, k_ld = _prepare(u_btd, k_ld)
    return _lags(u_btd, k_ld, _episode(reset_bt))


def causal_convolution_toeplitz(u_btd: Array, k_ld: Array) -> Array:
    """`causal_convolution_reference` without resets as a matmul for each channel.

    O(T^2) per channel, T^2 D floats for the matrices: for T up to a few hundred.
    """
    u_btd, k_ld = _prepare(u_btd, k_ld)
    length = u_btd.shape[1]
    k_ld = jnp.pad(k_ld, ((0, length - k_ld.shape[0]), (0, 0)))
    k_dst = toeplitz(k_ld.T)
    return jnp.einsum("dst,bsd->btd", k_dst, u_btd, precision=lax.Precision.HIGHEST)


def causal_convolution_fft(u_btd: Array, k_ld: Array) -> Array:
    """`causal_convolution_reference` without resets by FFT. O(T log T) per channel."""
    u_btd, k_ld = _prepare(u_btd, k_ld)
    length = u_btd.shape[1]
    # At least 2T, or the end of the sequence wraps round to its beginning.
    size = 1 << (2 * length - 1).bit_length()
    u = jnp.fft.rfft(u_btd, size, axis=1)
    k = jnp.fft.rfft(k_ld, size, axis=0)
    return jnp.fft.irfft(u * k[None], size, axis=1)[:, :length]


def causal_convolution(u_btd: Array, k_ld: Array, reset_bt: Resets = None) -> Array:
    """`causal_convolution_reference` in the form `forms.json` names for this shape."""
    if reset_bt is not None:
        return causal_convolution_lags(u_btd, k_ld, reset_bt)
    form = choose("causal_convolution", length=u_btd.shape[1], state_size=k_ld.size)
    if form == "toeplitz":
        return causal_convolution_toeplitz(u_btd, k_ld)
    if form == "fft":
        return causal_convolution_fft(u_btd, k_ld)
    raise ValueError(f"unknown form of the causal convolution: {form!r}")


def toeplitz(k_dt: Array) -> Array:
    """The matrices [D, S, T] with k_{t-s} at (s, t), zero for t < s.

    Built by repeating and reshaping, so that its gradient is a sum, not a scatter.
    """
    width, length = k_dt.shape
    row = jnp.pad(k_dt, ((0, 0), (0, length)))
    rows = jnp.tile(row, (1, length))[:, : length * (2 * length - 1)]
    return rows.reshape(width, length, 2 * length - 1)[:, :, :length]


def short_convolution_reference(
    x_btd: Array,
    kernel_wd: Array,
    bias_d: Array | None = None,
    state_bwd: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """y_t = bias + sum_j kernel_j x_{t-W+1+j}, per channel, by a scan of the step.

    Args:
      x_btd: Input.
      kernel_wd: Taps, the last one for the current frame.
      bias_d: Bias; None is none.
      state_bwd: The last W - 1 inputs, oldest first [B, W - 1, D]; None is zero.
      reset_bt: True where an episode starts: frames before it count as zero.

    Returns:
      y_btd in the dtype of x and the state after the last frame, float32.
    """
    before = _taps_before(x_btd[:, 0], kernel_wd, state_bwd)
    fixed = {"kernel_wd": kernel_wd, "bias_d": bias_d}
    return scan_frames(short_convolution_step, (x_btd,), before, reset_bt, **fixed)


def short_convolution_step(
    x_bd: Array,
    state_bwd: Start,
    reset_b: Resets,
    *,
    kernel_wd: Array,
    bias_d: Array | None = None,
) -> Result:
    """One frame of `short_convolution_reference`: y_bd and the state."""
    state_bwd = restart(reset_b, _taps_before(x_bd, kernel_wd, state_bwd))
    x_bwd = jnp.concatenate([state_bwd, x_bd[:, None].astype(jnp.float32)], 1)
    y_bd = (x_bwd * kernel_wd.astype(jnp.float32)[None]).sum(1)
    if bias_d is not None:
        y_bd = y_bd + bias_d[None]
    return y_bd.astype(x_bd.dtype), x_bwd[:, 1:]


def short_convolution(
    x_btd: Array,
    kernel_wd: Array,
    bias_d: Array | None = None,
    state_bwd: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`short_convolution_reference` as a sum of shifted products. O(T W)."""
    taps, length = kernel_wd.shape[0], x_btd.shape[1]
    if length == 1:
        fixed = {"kernel_wd": kernel_wd, "bias_d": bias_d}
        return one_frame(short_convolution_step, (x_btd,), state_bwd, reset_bt, **fixed)
    state_bwd = _taps_before(x_btd[:, 0], kernel_wd, state_bwd)
    x = jnp.concatenate([state_bwd, x_btd.astype(jnp.float32)], 1)
    kernel = kernel_wd.astype(jnp.float32)
    episode = _episode(reset_bt)
    if episode is not None:
        episode = jnp.pad(episode, ((0, 0), (taps - 1, 0)))
    if taps <= UNROLLED_TAPS:
        y = _shifted_products(x, kernel, episode, length)
    else:
        y = _lags(x, kernel[::-1], episode)[:, taps - 1 :]
    if bias_d is not None:
        y = y + bias_d[None, None]
    state_bwd = x[:, length:]
    if episode is not None:
        here = episode[:, length:] == episode[:, -1:]
        state_bwd = jnp.where(here[..., None], state_bwd, 0)
    return y.astype(x_btd.dtype), state_bwd


def _prepare(u_btd: Array, k_ld: Array) -> tuple[Array, Array]:
    used = k_ld[: u_btd.shape[1]]
    return u_btd.astype(jnp.float32), used.astype(jnp.float32)


def _episode(reset_bt: Resets) -> Array | None:
    """Numbers the episodes of a call; what came before it is episode 0."""
    return None if reset_bt is None else jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)


def _taps_before(x_bd: Array, kernel_wd: Array, state_bwd: Start) -> Array:
    shape = (x_bd.shape[0], kernel_wd.shape[0] - 1, x_bd.shape[1])
    if state_bwd is None:
        return jnp.zeros(shape, jnp.float32)
    if state_bwd.shape != shape:
        raise ValueError(f"state has shape {state_bwd.shape}, expected {shape}")
    return state_bwd.astype(jnp.float32)


def _shifted_products(
    x: Array, kernel_wd: Array, episode: Array | None, length: int
) -> Array:
    taps = kernel_wd.shape[0]
    y = jnp.zeros((x.shape[0], length, x.shape[2]), x.dtype)
    for j in range(taps):
        tap = x[:, j : j + length]
        if episode is not None and j < taps - 1:
            here = episode[:, j : j + length] == episode[:, taps - 1 :]
            tap = jnp.where(here[..., None], tap, 0)
        y = y + tap * kernel_wd[j][None, None]
    return y


def _same(e_bt: Array | None, e_bs: Array | None) -> Array | bool:
    """True, as [B, T, 1], where a frame and its lagged one are of one episode."""
    if e_bt is None or e_bs is None:
        return True
    return jnp.equal(e_bt, e_bs)[..., None]


def _padded(
    u_btd: Array, episode: Array | None, before: int
) -> tuple[Array, Array | None]:
    """Frames of no episode, number -1, in front."""
    u_padded = jnp.pad(u_btd, ((0, 0), (before, 0), (0, 0)))
    if episode is None:
        return u_padded, None
    return u_padded, jnp.pad(episode, ((0, 0), (before, 0)), constant_values=-1)


def _frames(x: Array, start: Array, count: int) -> Array:
    return lax.dynamic_slice_in_dim(x, start, count, axis=1)


def _tap(
    u_padded: Array,
    e_padded: Array | None,
    episode: Array | None,
    start: Array,
    length: int,
) -> Array:
    """The frames from `start` on, zero where their episode is another one."""
    u = _frames(u_padded, start, length)
    if e_padded is None:
        return u
    return jnp.where(_same(episode, _frames(e_padded, start, length)), u, 0)


def _sum_over_lags(u_btd: Array, k_ld: Array, episode: Array | None) -> Array:
    """Scans groups of lags; the lags of a group are one fused loop."""
    length = u_btd.shape[1]
    groups = -(-k_ld.shape[0] // GROUP)
    lags = groups * GROUP
    u_padded, e_padded = _padded(u_btd, episode, lags)
    k_ld = jnp.pad(k_ld, ((0, lags - k_ld.shape[0]), (0, 0)))

    def body(y: Array, xs: tuple[Array, Array]) -> tuple[Array, None]:
        group, k_wd = xs
        start = lags - group * GROUP - (GROUP - 1)
        u = _frames(u_padded, start, length + GROUP - 1)
        e = None if e_padded is None else _frames(e_padded, start, length + GROUP - 1)
        for j in range(GROUP):
            at = slice(GROUP - 1 - j, GROUP - 1 - j + length)
            here = _same(episode, None if e is None else e[:, at])
            y = y + k_wd[j][None, None] * jnp.where(here, u[:, at], 0)
        return y, None

    grouped = k_ld.reshape(groups, GROUP, -1)
    return lax.scan(body, jnp.zeros_like(u_btd), (jnp.arange(groups), grouped))[0]


@jax.custom_vjp
def _lags(u_btd: Array, k_ld: Array, episode: Array | None) -> Array:
    return _sum_over_lags(u_btd, k_ld, episode)


def _lags_forward(
    u_btd: Array, k_ld: Array, episode: Array | None
) -> tuple[Array, tuple]:
    return _sum_over_lags(u_btd, k_ld, episode), (u_btd, k_ld, episode)


def _lags_backward(kept: tuple, g_btd: Array) -> tuple[Array, Array, None]:
    u_btd, k_ld, episode = kept
    # Backwards in time the transposed convolution is a causal one. Episode numbers
    # are only compared, so their order does not matter, but -1 must stay unused.
    flipped = None if episode is None else episode[:, ::-1]
    d_u = _lags(g_btd[:, ::-1], k_ld, flipped)[:, ::-1]
    short = u_btd.shape[1] <= GRAM
    d_k = (_taps_by_gram if short else _taps_by_lag)(u_btd, g_btd, episode)
    return d_u, d_k[: k_ld.shape[0]], None


def _taps_by_gram(u_btd: Array, g_btd: Array, episode: Array | None) -> Array:
    """sum_bt g_t u_{t-l} for all lags: g_t u_s over the batch, then its diagonals.

    The [D-last] products of all frames stay in cache, where reading u and g anew for
    every lag does not.
    """
    length, width = u_btd.shape[1:]

    def body(gram_std: Array, xs: tuple) -> tuple[Array, None]:
        u_td, g_td, e_t = xs
        here = True if e_t is None else (e_t[:, None] == e_t[None])[..., None]
        return gram_std + jnp.where(here, u_td[:, None] * g_td[None], 0), None

    zero = jnp.zeros((length, length, width), u_btd.dtype)
    gram_std, _ = lax.scan(body, zero, (u_btd, g_btd, episode))
    taps = jax.ShapeDtypeStruct((width, length), u_btd.dtype)
    (d_k,) = jax.linear_transpose(toeplitz, taps)(jnp.moveaxis(gram_std, 2, 0))
    return d_k.T


def _taps_by_lag(u_btd: Array, g_btd: Array, episode: Array | None) -> Array:
    """The same in O(T D) memory."""
    length = u_btd.shape[1]
    u_padded, e_padded = _padded(u_btd, episode, length)

    def body(_: None, lag: Array) -> tuple[None, Array]:
        u = _tap(u_padded, e_padded, episode, length - lag, length)
        return None, jnp.einsum("btd,btd->d", g_btd, u)

    return lax.scan(body, None, jnp.arange(length))[1]


_lags.defvjp(_lags_forward, _lags_backward)
