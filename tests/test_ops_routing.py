"""Routing: choices and weights against loops, groups that lose no frame."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax

from jaxbench.ops import routing as ops
from jaxbench.ops.routing import Routing

WIDTH, OUT = 6, 5


def sample(frames, experts, seed=0):
    rng = np.random.default_rng([seed, frames, experts])
    x = rng.normal(size=(frames, WIDTH)).astype(np.float32)
    kernel = rng.normal(size=(experts, WIDTH, OUT)).astype(np.float32)
    logit = rng.normal(size=(frames, experts)).astype(np.float32)
    return x, kernel, logit


def experts_of(kernel):
    kernel = jnp.asarray(kernel)

    def apply(x_grd, expert_g):
        return jnp.tanh(jnp.einsum("grd,gdv->grv", x_grd, kernel[expert_g]))

    return apply


def mixed(x, kernel, weight, expert):
    """Frame by frame, choice by choice, in float64."""
    y = np.zeros((x.shape[0], OUT))
    for n in range(x.shape[0]):
        for w, e in zip(weight[n], expert[n], strict=True):
            y[n] += w * np.tanh(x[n].astype(np.float64) @ kernel[e])
    return y


def test_top_k_is_the_renormalised_softmax():
    _, _, logit = sample(50, 8)
    weight, expert = ops.top_k_routing(jnp.asarray(logit), 3)
    probability = softmax(logit.astype(np.float64))
    for n in range(50):
        best = np.argsort(-probability[n])[:3]
        assert list(expert[n]) == list(best)
        want = probability[n, best] / probability[n, best].sum()
        np.testing.assert_allclose(weight[n], want, rtol=1e-5)


def test_switch_keeps_the_probability_so_the_router_learns():
    _, _, logit = sample(20, 4)
    weight, expert = ops.switch_routing(jnp.asarray(logit))
    probability = softmax(logit.astype(np.float64))
    assert np.array_equal(expert[:, 0], probability.argmax(1))
    np.testing.assert_allclose(weight[:, 0], probability.max(1), rtol=1e-5)
    slope = jax.grad(lambda z: ops.switch_routing(z).weight_nk.sum())(logit)
    assert np.all(np.abs(slope).max(1) > 0)


@pytest.mark.parametrize("experts", [1, 2, 3, 6, 8, 13])
def test_hash_uses_every_expert_about_equally_and_depends_on_direction_only(experts):
    rng = np.random.default_rng(experts)
    bits = ops.hash_bits(experts)
    x = rng.normal(size=(20_000, 32)).astype(np.float32)
    # Orthogonal directions have independent signs, so that the shares are known.
    axes = np.linalg.qr(rng.normal(size=(32, 32)))[0][:, :bits].astype(np.float32)
    weight, expert = ops.hash_routing(x, jnp.asarray(axes), experts)
    assert np.all(np.asarray(weight) == 1)
    share = np.bincount(np.asarray(expert)[:, 0], minlength=experts) / len(x)
    assert share.shape == (experts,) and abs(share - 1 / experts).max() < 0.015
    sign = x @ axes > 0
    code = (sign * 2.0 ** np.arange(bits)[::-1]).sum(1)
    assert np.array_equal(np.asarray(expert)[:, 0], code * experts // 2**bits)
    far = ops.hash_routing(100 * x, jnp.asarray(axes), experts).expert_nk
    assert np.array_equal(far, expert)


def test_load_balance_is_one_where_use_is_even_and_the_count_where_it_is_not():
    experts = 4
    even = 30 * jnp.eye(experts)
    chosen = ops.switch_routing(even).expert_nk
    assert float(ops.load_balance(even, chosen)) == pytest.approx(1)
    one = jnp.tile(even[:1], (8, 1))
    chosen = ops.switch_routing(one).expert_nk
    assert float(ops.load_balance(one, chosen)) == pytest.approx(experts)


def test_load_balance_counts_and_teaches():
    _, _, logit = sample(40, 5, seed=3)
    logit[:, 2] += 1
    chosen = np.asarray(ops.top_k_routing(jnp.asarray(logit), 2).expert_nk)
    share = np.bincount(chosen.ravel(), minlength=5) / chosen.size
    want = 5 * np.sum(share * softmax(logit.astype(np.float64)).mean(0))
    got, slope = jax.value_and_grad(ops.load_balance)(jnp.asarray(logit), chosen)
    assert float(got) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(ops.expert_share(chosen, 5), share, rtol=1e-6)
    # Descent takes probability from the expert that is used most.
    assert np.all(np.asarray(slope)[:, 2] > 0)


@pytest.mark.parametrize(
    ("frames", "experts", "k"),
    [(1, 8, 2), (1, 1, 1), (3, 8, 1), (7, 8, 2), (40, 8, 2), (41, 5, 1), (1200, 4, 1)],
)
def test_mixing_groups_equals_the_loop_and_drops_nothing(frames, experts, k):
    x, kernel, logit = sample(frames, experts, seed=1)
    route = ops.top_k_routing(jnp.asarray(logit), k)
    want = mixed(x, kernel, np.asarray(route.weight_nk), np.asarray(route.expert_nk))
    for mix in (ops.mix_experts, ops.mix_experts_reference):
        got = jax.jit(lambda x, r, m=mix: m(x, r, experts_of(kernel), experts))(
            x, route
        )
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("used", [[0], [7], [0, 7], [3, 4, 5]])
def test_an_expert_may_get_everything(used):
    """A capacity would drop frames here; empty experts must leave no trace."""
    x, kernel, _ = sample(64, 8, seed=2)
    expert = np.resize(used, (64, 1)).astype(np.int32)
    weight = np.linspace(0.5, 2, 64, dtype=np.float32)[:, None]
    route = Routing(jnp.asarray(weight), jnp.asarray(expert))
    got = jax.jit(lambda x, r: ops.mix_experts(x, r, experts_of(kernel), 8))(x, route)
    np.testing.assert_allclose(got, mixed(x, kernel, weight, expert), atol=1e-5)


def test_gradients_of_groups_equal_those_of_the_reference():
    x, kernel, logit = sample(64, 8, seed=4)
    weight = np.random.default_rng(0).normal(size=(64, OUT)).astype(np.float32)

    def loss(mix, x, kernel, logit):
        y = mix(x, ops.top_k_routing(logit, 2), experts_of(kernel), 8)
        return jnp.sum(y * weight)

    got, want = (
        jax.jit(jax.grad(functools.partial(loss, mix), argnums=(0, 1, 2)))(
            x, kernel, logit
        )
        for mix in (ops.mix_experts, ops.mix_experts_reference)
    )
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, atol=2e-5)
        assert np.abs(w).max() > 0.1


def test_soft_mixture_weighs_every_expert():
    x, kernel, logit = sample(9, 3)
    weight = softmax(logit)
    got = ops.mix_all_experts(jnp.asarray(x), jnp.asarray(weight), experts_of(kernel))
    every = np.tile(np.arange(3), (9, 1))
    np.testing.assert_allclose(got, mixed(x, kernel, weight, every), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_every_choice_has_a_slot_of_its_own_in_a_group_of_its_expert(rows):
    rng = np.random.default_rng(rows)
    group = jax.jit(ops.group_by_expert, static_argnums=(1, 2, 3))
    for choices in (1, 48):
        expert = rng.integers(6, size=choices)
        groups = (choices + 6 * (rows - 1)) // rows
        slot, owner = map(np.asarray, group(expert, 6, rows, groups))
        assert len(set(slot)) == choices
        assert slot.min() >= 0 and slot.max() < groups * rows
        assert np.array_equal(owner[slot // rows], expert)
        assert owner.min() >= 0 and owner.max() < 6


@pytest.mark.parametrize("choices", [1, 2, 128, 3840, 10**6])
def test_padding_never_doubles_the_work(choices):
    rows = ops.group_rows(choices, 8)
    assert 1 <= rows <= ops.MAX_ROWS
    assert choices + 8 * (rows - 1) <= 2 * choices
