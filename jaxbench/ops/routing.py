"""Which experts see which frame, and how each expert's frames get to it.

No expert has a capacity: no frame is dropped, and what a frame gets depends on that
frame alone, so whole windows, chunks and single steps agree (up to experts that tie to
the last bit). Extra axis letters: n frames of all sequences, k choices of a frame,
x experts, g groups of rows with one expert each, r rows of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

# Rows of a group, at most: above, groups save no more and padding grows.
MAX_ROWS = 256

# (rows [G, R, D], expert of each group) -> [G, R, V]
Experts = Callable[[Array, Array], Array]


class Routing(NamedTuple):
    """Where each frame goes.

    Attributes:
      weight_nk: factor on each chosen expert's output, float32.
      expert_nk: the chosen experts, int32.
    """

    weight_nk: Array
    expert_nk: Array


def top_k_routing(logit_nx: Array, k: int) -> Routing:
    """The k experts of largest logit, weighted by a softmax over those k.

    The same as the softmax over all, renormalised. Source: Shazeer et al. 2017,
    arXiv:1701.06538, eq. 3 to 5, without the noise.
    """
    top_nk, expert_nk = lax.top_k(logit_nx.astype(jnp.float32), k)
    return Routing(jax.nn.softmax(top_nk, axis=-1), expert_nk)


def switch_routing(logit_nx: Array) -> Routing:
    """The one expert of largest logit, weighted by its probability among all.

    The probability is what the router learns by. Source: Fedus et al. 2021,
    arXiv:2101.03961, eq. 1 and 2 with one expert.
    """
    probability_nx = jax.nn.softmax(logit_nx.astype(jnp.float32), axis=-1)
    return Routing(*lax.top_k(probability_nx, 1))


def hash_bits(experts: int) -> int:
    """Sign bits that `hash_routing` needs.

    Where `experts` is no power of two, four more than enough, so that the parts of
    the codes that the experts get differ by less than 1/16.
    """
    bits = max(1, (experts - 1).bit_length())
    return bits if experts == 1 << bits else bits + 4


def hash_routing(x_nd: Array, projection_dc: Array, experts: int) -> Routing:
    """The expert named by the signs of fixed projections of the frame; weight 1.

    The signs, read as a binary number of C bits, are scaled to 0 ... experts - 1. The
    frames of one expert lie in one cone, so near frames stay together. Nothing is
    learned: after Roller et al. 2021, arXiv:2106.04426, who hash token ids; frames
    have none.

    Args:
      x_nd: frames; compared with 0 in float32, without gradient.
      projection_dc: C = `hash_bits(experts)` random directions.
      experts: their number.
    """
    product_nc = jnp.matmul(
        x_nd.astype(jnp.float32), projection_dc, precision=lax.Precision.HIGHEST
    )
    bits = projection_dc.shape[1]
    place_c = 1 << jnp.arange(bits, dtype=jnp.int32)[::-1]
    code_n = jnp.sum(jnp.where(product_nc > 0, place_c[None], 0), axis=-1)
    expert_n1 = ((code_n * experts) >> bits)[:, None]
    return Routing(jnp.ones(expert_n1.shape, jnp.float32), expert_n1)


def expert_share(expert_nk: Array, experts: int) -> Array:
    """Fraction of all choices that fell on each expert, float32 [X], sum 1."""
    chosen = expert_nk.reshape(-1, 1) == jnp.arange(experts)[None]
    return jnp.mean(chosen.astype(jnp.float32), axis=0)


def load_balance(logit_nx: Array, expert_nk: Array) -> Array:
    """X sum_x f_x P_x: f the share of choices, P the mean probability. Scalar.

    1 where use and probabilities are even, X where all frames agree on one expert;
    the gradient goes through P. Source: Fedus et al. 2021, eq. 4 to 6 (there k = 1).
    """
    experts = logit_nx.shape[-1]
    probability_nx = jax.nn.softmax(logit_nx.astype(jnp.float32), axis=-1)
    share_x = expert_share(expert_nk, experts)
    return experts * jnp.sum(share_x * jnp.mean(probability_nx, axis=0))


def mix_experts_reference(
    x_nd: Array, routing: Routing, apply: Experts, experts: int
) -> Array:
    """y_n = sum_k weight_nk f_{expert_nk}(x_n), every expert at work on every frame.

    Args:
      x_nd: frames.
      routing: where they go.
      apply: `apply(x_grd, expert_g) -> y_grv`, the expert of each group on its rows.
      experts: their number X.

    Returns:
      Float32 [N, V]; X applications for each frame.
    """
    hot_nkx = jax.nn.one_hot(routing.expert_nk, experts, dtype=jnp.float32)
    weight_nx = jnp.sum(routing.weight_nk[..., None] * hot_nkx, axis=1)
    return mix_all_experts(x_nd, weight_nx, apply)


def mix_all_experts(x_nd: Array, weight_nx: Array, apply: Experts) -> Array:
    """y_n = sum_x weight_nx f_x(x_n), float32: a soft mixture (Jacobs et al. 1991)."""
    experts = weight_nx.shape[-1]
    x_xnd = jnp.broadcast_to(x_nd[None], (experts, *x_nd.shape))
    y_xnv = apply(x_xnd, jnp.arange(experts)).astype(jnp.float32)
    return jnp.einsum("nx,xnv->nv", weight_nx, y_xnv)


def mix_experts(x_nd: Array, routing: Routing, apply: Experts, experts: int) -> Array:
    """`mix_experts_reference` at the cost of the chosen experts.

    Choices are put in groups of one expert, the last group of each expert filled up
    with zero frames (Gale et al. 2022, arXiv:2211.15841, section 4, with groups in the
    place of sparse blocks). K N choices take at most K N + X (R - 1) rows and
    K N / R + X copies of an expert's weights; R, from the shape, keeps that below
    twice the work, and where X applications for each frame are as cheap, they are made.
    """
    frames, choices = routing.expert_nk.shape
    rows = group_rows(frames * choices, experts)
    groups = (frames * choices + experts * (rows - 1)) // rows
    if groups * rows >= frames * experts:
        return mix_experts_reference(x_nd, routing, apply, experts)
    slot_a, expert_g = group_by_expert(
        routing.expert_nk.reshape(-1), experts, rows, groups
    )
    frame_a = jnp.repeat(jnp.arange(frames), choices)
    # Slots nobody takes read past the end, where the filling is.
    frame_s = jnp.full((groups * rows,), frames).at[slot_a].set(frame_a)
    x_sd = jnp.take(x_nd, frame_s, axis=0, mode="fill", fill_value=0)
    y_grv = apply(x_sd.reshape(groups, rows, -1), expert_g)
    y_av = y_grv.reshape(groups * rows, -1)[slot_a].astype(jnp.float32)
    y_nkv = y_av.reshape(frames, choices, -1)
    return jnp.sum(y_nkv * routing.weight_nk[..., None], axis=1)


def group_rows(choices: int, experts: int) -> int:
    """Rows of a group: the power of two below an expert's even part of the choices."""
    return min(MAX_ROWS, 1 << (max(1, choices // experts).bit_length() - 1))


def group_by_expert(
    expert_a: Array, experts: int, rows: int, groups: int
) -> tuple[Array, Array]:
    """Gives each choice a slot of its own in a group of its expert.

    Args:
      expert_a: expert of each choice.
      experts: their number X.
      rows: of a group.
      groups: at least (A + X (rows - 1)) // rows, which any choices fit in.

    Returns:
      slot_a: group * rows + row, all different.
      expert_g: expert of each group, 0 <= x < X also where the group is empty.
    """
    hot_ax = (expert_a[:, None] == jnp.arange(experts)[None]).astype(jnp.int32)
    # How many choices before this one fell on the same expert.
    order_a = jnp.sum((jnp.cumsum(hot_ax, axis=0) - 1) * hot_ax, axis=1)
    count_x = -(-jnp.sum(hot_ax, axis=0) // rows)
    end_x = jnp.cumsum(count_x)
    slot_a = (end_x - count_x)[expert_a] * rows + order_a
    full_g = jnp.sum(end_x[None] <= jnp.arange(groups)[:, None], axis=1)
    return slot_a, jnp.minimum(full_g, experts - 1)
