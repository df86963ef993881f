"""P3 with exponential gates and a normaliser: mLSTM's memory, Performer's sums.

S_t = f_t S_{t-1} + i_t k_t v_t^T,  n_t = f_t n_{t-1} + i_t k_t,  o_t = q_t^T S_t / den

with one forget gate f and one input gate i a head, both given as logarithms. The sums
are kept divided by e^m, m_t = max(log f_t + m_{t-1}, log i_t) the largest logarithm of
a weight so far, so no gate overflows (Beck et al. 2024, arXiv 2405.04517, sections 2.2
and 2.3). m is a choice of units: it carries no gradient, and S e^m and n e^m have the
gradients of the sums themselves.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.frames import Resets, float32, one_frame, scan_frames

Normalizer = Literal["maxabs", "sum"]

# Frames a chunk holds at most: scores are [CHUNK, CHUNK], chunks follow one another.
CHUNK = 64

# Added to the denominator, in units of the largest weight: without, an empty query, as
# SiLU makes from large inputs, would read 0 / 0 once e^-m underflows.
EPSILON = 1e-6

# The logarithm of a float32 that is large and still finite.
LARGE = 85.0


class NormalizedFrames(NamedTuple):
    """What the frames of a call bring, [B, T, ...]; in a step [B, ...].

    Attributes:
      q_bthk: Queries.
      k_bthk: Keys.
      v_bthv: Values.
      log_f_bth: Logarithm of the forget gate, <= 0; -inf forgets everything.
      log_i_bth: Logarithm of the input gate, any size; -inf writes nothing.
    """

    q_bthk: Array
    k_bthk: Array
    v_bthv: Array
    log_f_bth: Array
    log_i_bth: Array


class NormalizedState(NamedTuple):
    """The sums divided by e^m, float32."""

    s_bhkv: Array
    n_bhk: Array
    m_bh: Array  # -inf where nothing has been written


def initial_state(
    batch_size: int, *, heads: int, key_size: int, value_size: int
) -> NormalizedState:
    """Sums of nothing: S = 0, n = 0, m = -inf."""
    return NormalizedState(
        jnp.zeros((batch_size, heads, key_size, value_size), jnp.float32),
        jnp.zeros((batch_size, heads, key_size), jnp.float32),
        jnp.full((batch_size, heads), -jnp.inf, jnp.float32),
    )


def normalized_linear_attention_reference(
    frames: NormalizedFrames,
    state: NormalizedState | None,
    reset_bt: Resets,
    *,
    normalizer: Normalizer,
) -> tuple[Array, NormalizedState]:
    """The recurrence above by a plain `lax.scan` of `normalized_linear_attention_step`.

    Args:
      frames: q, k, v and the logarithms of f and i.
      state: The sums before the first frame; None is `initial_state`.
      normalizer: "maxabs": den = max(|q . n|, 1) + 1e-6 e^m, the 1 being e^-m in units
        of e^m. "sum": den = q . n + 1e-6 e^m, for weights q . k that are not negative;
        the second term is relative to the largest gate, so small keys are no problem.

    Returns:
      o_bthv and the state after the last frame, float32. O(T K V) work per head.

    Raises:
      ValueError: the normaliser is none of these.
    """
    start = _state(frames.q_bthk[:, 0], frames.v_bthv[:, 0], state)
    step = normalized_linear_attention_step
    return scan_frames(step, (frames,), start, reset_bt, normalizer=normalizer)


def normalized_linear_attention_step(
    frame: NormalizedFrames,
    state: NormalizedState | None,
    reset_b: Resets,
    *,
    normalizer: Normalizer,
) -> tuple[Array, NormalizedState]:
    """One frame of `normalized_linear_attention_reference`: o_bhv and the state."""
    q, k, v, log_f, log_i = float32(frame)
    s, n, m = _state(q, v, state)
    if reset_b is not None:
        s = jnp.where(reset_b[:, None, None, None], 0, s)
        n = jnp.where(reset_b[:, None, None], 0, n)
        m = jnp.where(reset_b[:, None], -jnp.inf, m)
    log_keep = log_f + m
    # Beck et al. 2024, eq. 15: the largest logarithm so far is the unit of the sums.
    m = lax.stop_gradient(jnp.maximum(log_keep, log_i))
    keep, write = (jnp.exp(x - _finite(m))[..., None] for x in (log_keep, log_i))
    written = write * k
    n = keep * n + written
    s = keep[..., None] * s + written[..., None] * v[:, :, None]
    read = jnp.einsum("bhk,bhkv->bhv", q, s)
    total = jnp.einsum("bhk,bhk->bh", q, n)
    o = read / _denominator(total, m, normalizer)[..., None]
    return o, NormalizedState(s, n, m)


def normalized_linear_attention_chunks(
    frames: NormalizedFrames,
    state: NormalizedState | None,
    reset_bt: Resets,
    *,
    normalizer: Normalizer,
) -> tuple[Array, NormalizedState]:
    """`normalized_linear_attention_reference` by matmuls in chunks of at most `CHUNK`.

    Inside a chunk every frame weighs every earlier one, and the state as one more
    column (the parallel form in the paper's appendix); between chunks goes the state.
    Each chunk is rematerialised unless it is the only one: the backward pass keeps
    one state per chunk. O(T (CHUNK (K + V) + K V)) work per head.
    """
    batch, length = frames.q_bthk.shape[:2]
    heads_first = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2), float32(frames))
    q, k, v, log_f, log_i = heads_first
    # With ones beside v, n is the last column of S: one matmul makes both.
    v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1), jnp.float32)], -1)
    inputs = (q, k, v, log_f, log_i)
    s, n, m = _state(frames.q_bthk[:, 0], frames.v_bthv[:, 0], state)
    carry = (jnp.concatenate([s, n[..., None]], -1), m)
    run = functools.partial(_chunk, normalizer=normalizer)
    count = -(-length // CHUNK)
    if count == 1:
        carry, o = run(carry, (*inputs, reset_bt))
    else:
        # A frame that keeps everything and writes nothing changes nothing.
        fills = (0, 0, 0, 0, -jnp.inf)
        chunks = [
            _split(x, 2, count, fill) for x, fill in zip(inputs, fills, strict=True)
        ]
        resets = None if reset_bt is None else _split(reset_bt, 1, count, False)
        body = jax.checkpoint(run, prevent_cse=False)
        carry, o = lax.scan(body, carry, (*chunks, resets))
        o = jnp.moveaxis(o, 0, 2).reshape(batch, o.shape[2], -1, o.shape[-1])
    s, m = carry
    o_bthv = jnp.swapaxes(o[:, :, :length], 1, 2)
    return o_bthv, NormalizedState(s[..., :-1], s[..., -1], m)


def normalized_linear_attention(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    log_f_bth: Array,
    log_i_bth: Array,
    state: NormalizedState | None = None,
    reset_bt: Resets = None,
    *,
    normalizer: Normalizer,
) -> tuple[Array, NormalizedState]:
    """`normalized_linear_attention_reference`, one frame as a step, more by matmuls.

    Not a matter of measurement, so not in `forms.json`: the scan reads and writes the
    whole state every frame, the matmuls once a chunk.
    """
    frames = NormalizedFrames(q_bthk, k_bthk, v_bthv, log_f_bth, log_i_bth)
    if q_bthk.shape[1] > 1:
        return normalized_linear_attention_chunks(
            frames, state, reset_bt, normalizer=normalizer
        )
    step = normalized_linear_attention_step
    return one_frame(step, (frames,), state, reset_bt, normalizer=normalizer)


def _chunk(
    carry: tuple[Array, Array], inputs: tuple, *, normalizer: Normalizer
) -> tuple[tuple[Array, Array], Array]:
    """One chunk, time after heads: ((s_bhkv, m_bh), o_bhtv), n the last column of s."""
    s_bhkv, m_bh = carry
    q, k, v, log_f, log_i, reset_bt = inputs
    log_weight = _log_weights(log_f, log_i, m_bh, reset_bt)
    m_bht = lax.stop_gradient(log_weight.max(-1))
    weight = jnp.exp(log_weight - _finite(m_bht)[..., None])
    of_state, of_frames = weight[..., :1], weight[..., 1:]
    scores = jnp.einsum("bhtk,bhsk->bhts", q, k) * of_frames
    read = of_state * jnp.einsum("bhtk,bhkv->bhtv", q, s_bhkv)
    read = read + jnp.einsum("bhts,bhsv->bhtv", scores, v)
    den = _denominator(read[..., -1], m_bht, normalizer)
    last = jnp.swapaxes(of_frames[:, :, -1:], 2, 3)
    s_bhkv = of_state[:, :, -1:] * s_bhkv + jnp.einsum("bhtk,bhtv->bhkv", last * k, v)
    return (s_bhkv, m_bht[..., -1]), read[..., :-1] / den[..., None]


def _log_weights(
    log_f_bht: Array, log_i_bht: Array, m_bh: Array, reset_bt: Resets
) -> Array:
    """Logarithms of the weights in frame t of the state (s = 0) and of frame s - 1.

    Each column sums the forget gates after its own frame. Differences of one running
    sum would need less work and lose digits wherever a gate was nearly closed before.
    """
    length = log_f_bht.shape[-1]
    frame, column = jnp.arange(length), jnp.arange(length + 1)
    after = (frame[:, None] >= column[None])[None, None]
    decay = jnp.cumsum(jnp.where(after, log_f_bht[..., None], 0), axis=2)
    start = jnp.concatenate([m_bh[..., None], log_i_bht], -1)
    visible = (frame[:, None] + 1 >= column[None])[None]
    if reset_bt is not None:
        episode = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
        of_column = jnp.pad(episode, ((0, 0), (1, 0)))
        visible = visible & (episode[:, :, None] == of_column[:, None])
    return jnp.where(visible[:, None], decay + start[:, :, None], -jnp.inf)


def _denominator(total: Array, m: Array, normalizer: Normalizer) -> Array:
    if normalizer == "maxabs":
        one = jnp.exp(jnp.minimum(-m, LARGE))
        return jnp.maximum(jnp.abs(total), one) + EPSILON
    if normalizer == "sum":
        return total + EPSILON
    raise ValueError(f"normalizer {normalizer!r} is neither 'maxabs' nor 'sum'")


def _finite(m: Array) -> Array:
    """m, or 0 where nothing was written: -inf - -inf would be NaN."""
    return jnp.where(jnp.isneginf(m), 0, m)


def _state(
    q_bhk: Array, v_bhv: Array, state: NormalizedState | None
) -> NormalizedState:
    if state is not None:
        return state
    batch, heads, size = q_bhk.shape
    return initial_state(batch, heads=heads, key_size=size, value_size=v_bhv.shape[-1])


def _split(x: Array, axis: int, count: int, fill: float) -> Array:
    """Cuts the time axis into `count` equal parts, filled up at the end: [count, ..]"""
    size = -(-x.shape[axis] // count)
    around = [(0, 0)] * x.ndim
    around[axis] = (0, size * count - x.shape[axis])
    x = jnp.pad(x, around, constant_values=fill)
    shape = (*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)
