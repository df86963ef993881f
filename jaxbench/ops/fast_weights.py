"""P5: test-time training, weights that learn while the sequence runs (TTT-Linear).

Each head has a linear model f(x) = x + LN(x W + c), LN with scale gamma and shift beta.
Frame t is an example of it, input k_t and target v_t, with the inner loss
|f(k_t) - v_t|^2 / 2, and reads it at q_t. W and c learn by gradient descent in
mini-batches of b frames, counted from the start of the episode. With
delta_t the gradient of the loss at Z = k_t W + c,

    e = (gamma xhat + beta - (v - k)) * gamma,   xhat = (Z - mean Z) / s
    delta_t = (e - mean(e) - xhat mean(e * xhat)) / s,

W, c those the mini-batch of t starts with, and i = 1 .. b the place of t in it,

    W_t = W - tau_i sum_j eta_j k_j^T delta_j,   c_t = c - tau_i sum_j eta_j delta_j
    y_t = q_t + LN(q_t W_t + c_t)

over the frames j <= t of the mini-batch; the next one starts with W_b and c_b. Source:
Sun et al. 2024, arXiv:2407.04620, sections 2.4 to 2.7 and appendix A, with the rates
tau_i eta_j and the residual inner model of the authors' code.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.attention import positions
from jaxbench.ops.frames import (
    Resets,
    float32,
    one_frame,
    over,
    scan_frames,
)

EPSILON = 1e-6


class InnerModel(NamedTuple):
    """What ordinary training learns of the model that learns at test time, float32.

    Attributes:
      w_hkk: W of a new episode; inputs are rows, [H, in, out].
      c_hk: c of a new episode.
      gamma_hk: scale of LN.
      beta_hk: shift of LN.
      tau_m: factor on the rate at each place in a mini-batch; its length is b.
    """

    w_hkk: Array
    c_hk: Array
    gamma_hk: Array
    beta_hk: Array
    tau_m: Array


class TTTFrames(NamedTuple):
    """What the frames of a call bring, [B, T, ...]; in a step [B, ...].

    Attributes:
      q_bthk: Where the inner model is read.
      k_bthk: Its inputs.
      v_bthk: Its targets.
      eta_bth: Inner learning rates, at least 0.
    """

    q_bthk: Array
    k_bthk: Array
    v_bthk: Array
    eta_bth: Array


class FastWeights(NamedTuple):
    """The state: weights, and the gradients of the mini-batch that is not yet full.

    Attributes:
      w_bhkk: W the running mini-batch started with, float32.
      c_bhk: c likewise.
      grad_w_bhkk: sum of eta_j k_j^T delta_j over its frames so far.
      grad_c_bhk: sum of eta_j delta_j.
      count_b: how many frames those are, 0 .. b - 1; int32.
    """

    w_bhkk: Array
    c_bhk: Array
    grad_w_bhkk: Array
    grad_c_bhk: Array
    count_b: Array


def initial_fast_weights(model: InnerModel, batch_size: int) -> FastWeights:
    """The state an episode starts from: the learned W and c, an empty mini-batch."""
    w_bhkk = jnp.broadcast_to(model.w_hkk[None], (batch_size, *model.w_hkk.shape))
    c_bhk = jnp.broadcast_to(model.c_hk[None], (batch_size, *model.c_hk.shape))
    return FastWeights(
        w_bhkk,
        c_bhk,
        jnp.zeros_like(w_bhkk),
        jnp.zeros_like(c_bhk),
        jnp.zeros((batch_size,), jnp.int32),
    )


def mini_batch_places(
    count_b: Array, reset_bt: Resets, length: int, size: int
) -> Array:
    """Places 0 .. size - 1 of frames in their mini-batches, int32 [B, T].

    Args:
      count_b: place of the first frame, if no episode starts there.
      reset_bt: True where an episode starts, and with it a mini-batch; None is nowhere.
      length: T.
      size: b, frames in a mini-batch.
    """
    return positions(count_b, reset_bt, length)[0] % size


def ttt_linear_step(
    frame: TTTFrames, state: FastWeights | None, reset_b: Resets, *, model: InnerModel
) -> tuple[Array, FastWeights]:
    """One frame of `ttt_linear_reference`: y_bhk and the state. O(H K^2)."""
    q, k, v, eta = float32(frame)
    fresh = initial_fast_weights(model, q.shape[0])
    if state is None:
        state = fresh
    elif reset_b is not None:
        state = jax.tree.map(lambda new, old: _where(reset_b, new, old), fresh, state)
    w, c, grad_w, grad_c, count_b = state
    gamma, beta = model.gamma_hk[None], model.beta_hk[None]
    z = _product("bhk,bhkv->bhv", k, w) + c
    update = eta[..., None] * _delta(k, v, z, gamma, beta)
    grad_w = grad_w + k[..., None] * update[..., None, :]
    grad_c = grad_c + update
    tau_b = model.tau_m[count_b]
    w_now = w - tau_b[:, None, None, None] * grad_w
    c_now = c - tau_b[:, None, None] * grad_c
    z = _product("bhk,bhkv->bhv", q, w_now) + c_now
    y = q + gamma * _normalize(z)[0] + beta
    # At the last place of a mini-batch tau is the one its update is made with.
    after = FastWeights(w, c, grad_w, grad_c, count_b + 1)
    return y, _commit(after, model.tau_m[-1], model.tau_m.shape[0])


def ttt_linear_reference(
    frames: TTTFrames, state: FastWeights | None, reset_bt: Resets, *, model: InnerModel
) -> tuple[Array, FastWeights]:
    """TTT-Linear by a scan of `ttt_linear_step`; the equations are at the file's head.

    Args:
      frames: q, k, v and eta.
      state: From the previous call; None is `initial_fast_weights`.
      reset_bt: True where an episode starts: W and c are the learned ones again, and
        a new mini-batch starts there. None is nowhere.
      model: What an episode starts with; its `tau_m` says how long a mini-batch is.

    Returns:
      y_bthk, float32, and the state after the last frame. O(T H K^2); the backward
      pass keeps several matrices for every frame.
    """
    batch = frames.q_bthk.shape[0]
    start = initial_fast_weights(model, batch) if state is None else state
    return scan_frames(ttt_linear_step, (frames,), start, reset_bt, model=model)


def ttt_linear(
    q_bthk: Array,
    k_bthk: Array,
    v_bthk: Array,
    eta_bth: Array,
    model: InnerModel,
    state: FastWeights | None = None,
    reset_bt: Resets = None,
) -> tuple[Array, FastWeights]:
    """`ttt_linear_reference` in chunks as long as a mini-batch.

    The dual form (section 2.5): within a mini-batch all delta are taken at the same W,
    so that q_t W_t is q_t W and attention without softmax, of q to k with values delta,
    and no frame has a matrix of its own. Chunks need not begin where mini-batches do:
    a chunk of at most b frames meets at most three kinds of them,

        the one that was running when the chunk began, which starts with W;
        the one after it, which starts with W_b: at most one, as the next is b later;
        those that start at a reset, with the learned W: any number,

    and none of the last two ends before the chunk does. So a chunk reads at three W
    with masks, whatever the resets and the entry state; without both (known while
    tracing) chunks are mini-batches and one W is enough. Measured on CPU, forward and
    backward, at [64, 30, 4, 64] and b = 10, in seconds of one core: 0.14 fresh, 0.23
    with resets, 0.26 with a state too.

    O(T H K (b + K)), T / b chunks one after the other; the backward pass keeps the
    state of every chunk, 2 H K (K + 1) floats each, and computes the rest again.
    """
    frames = float32(TTTFrames(q_bthk, k_bthk, v_bthk, eta_bth))
    batch, length = q_bthk.shape[:2]
    if length == 1:
        return one_frame(ttt_linear_step, (frames,), state, reset_bt, model=model)
    aligned = state is None and reset_bt is None
    now = initial_fast_weights(model, batch) if state is None else state

    @jax.checkpoint
    def body(state: FastWeights, xs: tuple) -> tuple[FastWeights, Array]:
        run = _aligned_chunk if aligned else _chunk
        return run(model, state, *xs)

    # Heads before frames: products are then plain batched matmuls.
    heads_first = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 2), frames)
    size = model.tau_m.shape[0]
    whole, parts = length // size * size, []
    if whole:
        xs = jax.tree.map(lambda x: _in_chunks(x, 2, whole, size), heads_first)
        resets = None if reset_bt is None else _in_chunks(reset_bt, 1, whole, size)
        now, y_nbhck = lax.scan(body, now, (xs, resets))
        y_bnchk = y_nbhck.transpose(1, 0, 3, 2, 4)
        parts.append(y_bnchk.reshape(batch, whole, *y_bnchk.shape[3:]))
    if whole < length:
        xs = jax.tree.map(lambda x: x[:, :, whole:], heads_first)
        resets = None if reset_bt is None else reset_bt[:, whole:]
        now, y_bhck = body(now, (xs, resets))
        parts.append(jnp.moveaxis(y_bhck, 1, 2))
    return jnp.concatenate(parts, axis=1), now


def _aligned_chunk(
    model: InnerModel, state: FastWeights, frames: TTTFrames, reset_bc: None
) -> tuple[FastWeights, Array]:
    """At most one mini-batch, from its first frame on. Arrays are [B, H, C, K]."""
    del reset_bc
    q, k, v, eta = frames
    w, c, grad_w, grad_c, count_b = state
    length, size = q.shape[2], model.tau_m.shape[0]
    gamma, beta = model.gamma_hk[None, :, None], model.beta_hk[None, :, None]
    kq = jnp.concatenate([k, q], axis=2)
    k_read, q_read = jnp.split(_read(kq, w, c), 2, axis=2)
    update = eta[..., None] * _delta(k, v, k_read, gamma, beta)
    tau_c = model.tau_m[:length]
    before_cs = jnp.tril(jnp.ones((length, length), bool))
    learned = _learned(q, k, update, before_cs[None])
    z = q_read - tau_c[None, None, :, None] * learned
    y = q + gamma * _normalize(z)[0] + beta
    sum_w, sum_c = _product("bhck,bhcv->bhkv", k, update), update.sum(2)
    if length < size:
        return FastWeights(w, c, sum_w, sum_c, count_b + length), y
    tau = model.tau_m[-1]
    return FastWeights(w - tau * sum_w, c - tau * sum_c, grad_w, grad_c, count_b), y


def _chunk(
    model: InnerModel, state: FastWeights, frames: TTTFrames, reset_bc: Resets
) -> tuple[FastWeights, Array]:
    """At most b frames from any state, with resets anywhere; see `ttt_linear`."""
    q, k, v, eta = frames
    w, c, grad_w, grad_c, count_b = state
    gamma, beta = model.gamma_hk[None, :, None], model.beta_hk[None, :, None]
    length, size = q.shape[2], model.tau_m.shape[0]
    place_bc = mini_batch_places(count_b, reset_bc, length, size)
    which_bc = _which_mini_batch(count_b, reset_bc, length, size)
    running = _over_heads(which_bc == 0)
    kq = jnp.concatenate([k, q], axis=2)

    def choose(at_running: Array, at_next: Array, at_reset: Array) -> Array:
        y = jnp.where(_over_heads(which_bc == 1), at_next, at_running)
        return jnp.where(_over_heads(which_bc > 1), at_reset, y)

    def update_at(z: Array) -> Array:
        return eta[..., None] * _delta(k, v, z, gamma, beta)

    k_running, q_running = jnp.split(_read(kq, w, c), 2, axis=2)
    k_reset, q_reset = k_running, q_running
    if reset_bc is not None:
        z = _product("bhck,hkv->bhcv", kq, model.w_hkk) + model.c_hk[None, :, None]
        k_reset, q_reset = jnp.split(z, 2, axis=2)
    # The running mini-batch first: the one after it starts with what it learned.
    of_running = jnp.where(running, update_at(k_running), 0)
    tau = model.tau_m[-1]
    w_next = w - tau * (grad_w + _product("bhck,bhcv->bhkv", k, of_running))
    c_next = c - tau * (grad_c + of_running.sum(2))
    k_next, q_next = jnp.split(_read(kq, w_next, c_next), 2, axis=2)
    update = update_at(choose(k_running, k_next, k_reset))

    time_c = jnp.arange(length)
    same = which_bc[:, :, None] == which_bc[:, None]
    learned = _learned(q, k, update, same & (time_c[:, None] >= time_c[None])[None])
    learned = learned + jnp.where(running, _read(q, grad_w, grad_c), 0)
    z = choose(q_running, q_next, q_reset)
    z = z - _over_heads(model.tau_m[place_bc]) * learned
    y = q + gamma * _normalize(z)[0] + beta

    last = which_bc[:, -1]
    update = jnp.where(_over_heads(which_bc == last[:, None]), update, 0)
    grad_w = _where(last == 0, grad_w, jnp.zeros_like(grad_w))
    grad_w = grad_w + _product("bhck,bhcv->bhkv", k, update)
    grad_c = _where(last == 0, grad_c, jnp.zeros_like(grad_c)) + update.sum(2)
    w = _where(last > 1, model.w_hkk[None], _where(last == 1, w_next, w))
    c = _where(last > 1, model.c_hk[None], _where(last == 1, c_next, c))
    return _commit(FastWeights(w, c, grad_w, grad_c, place_bc[:, -1] + 1), tau, size), y


def _which_mini_batch(
    count_b: Array, reset_bc: Resets, length: int, size: int
) -> Array:
    """0: the one running before the chunk, 1: the one after it, 2, 3 ..: at resets."""
    age_bc = count_b[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    which_bc = (age_bc >= size).astype(jnp.int32)
    if reset_bc is None:
        return which_bc
    resets_bc = jnp.cumsum(reset_bc.astype(jnp.int32), axis=1)
    return jnp.where(resets_bc > 0, resets_bc + 1, which_bc)


def _commit(state: FastWeights, tau: Array, size: int) -> FastWeights:
    """Moves the weights where the mini-batch is full, and empties it."""
    w, c, grad_w, grad_c, count_b = state
    full_b = count_b == size
    return FastWeights(
        _where(full_b, w - tau * grad_w, w),
        _where(full_b, c - tau * grad_c, c),
        _where(full_b, jnp.zeros_like(grad_w), grad_w),
        _where(full_b, jnp.zeros_like(grad_c), grad_c),
        jnp.where(full_b, 0, count_b),
    )


def _delta(k: Array, v: Array, z: Array, gamma: Array, beta: Array) -> Array:
    """The gradient of |k + LN(z) - v|^2 / 2 with respect to z, frame by frame."""
    xhat, inverse = _normalize(z)
    e = (gamma * xhat + beta - (v - k)) * gamma
    along = (e * xhat).mean(-1, keepdims=True)
    return (e - e.mean(-1, keepdims=True) - xhat * along) * inverse


def _normalize(z: Array) -> tuple[Array, Array]:
    """z with mean 0 and variance 1 along the last axis, and the factor it took."""
    centred = z - z.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    inverse = lax.rsqrt(variance + EPSILON)
    return centred * inverse, inverse


def _learned(q: Array, k: Array, update: Array, mask_bcs: Array) -> Array:
    """sum_j (q_i . k_j + 1) update_j over the frames the mask allows; 1 is c's part."""
    scores = _product("bhck,bhsk->bhcs", q, k) + 1
    scores = jnp.where(mask_bcs[:, None], scores, 0)
    return _product("bhcs,bhsv->bhcv", scores, update)


def _read(x_bhck: Array, w_bhkk: Array, c_bhk: Array) -> Array:
    return _product("bhck,bhkv->bhcv", x_bhck, w_bhkk) + c_bhk[:, :, None]


def _product(spec: str, x: Array, y: Array) -> Array:
    """einsum in full float32: the weights are a sum over the whole episode."""
    return jnp.einsum(spec, x, y, precision=lax.Precision.HIGHEST)


def _over_heads(x_bc: Array) -> Array:
    return x_bc[:, None, :, None]


def _where(mask_b: Array, x: Array, y: Array) -> Array:
    return jnp.where(over(mask_b, x), x, y)


def _in_chunks(x: Array, axis: int, whole: int, size: int) -> Array:
    """The first `whole` frames as [chunk, ..., size, ...]."""
    x = lax.slice_in_dim(x, 0, whole, axis=axis)
    shape = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)
