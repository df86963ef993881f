"""Mixture of experts: each routing in float64, losses, metrics, one frame at a time."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.mixers.moe import EXPERTS, ROUTINGS, MoE

WIDTH = 16


def frames(seed=0, batch=2, length=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, length, WIDTH)).astype(np.float32)


@functools.cache
def built(**options):
    mixer = MoE(WIDTH, **options)
    return mixer, draw(mixer, frames())


def run(mixer, variables, x):
    return jax.jit(lambda v, x: mixer.apply(v, x, mutable=["losses", "metrics"]))(
        variables, x
    )


def one_expert(params, e, x, kind):
    """Expert e on one frame, in float64."""
    h = x @ params["in"]["kernel"][e].astype(np.float64)
    if kind == "glu":
        gate, value = np.split(h, 2)
        h = gate / (1 + np.exp(-gate)) * value
    else:
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    return h @ params["out"]["kernel"][e]


def by_loop(variables, x, routing, kind, k):
    """The layer frame by frame; returns y and each frame's expert -> weight."""
    params = variables["params"]
    experts = params["in"]["kernel"].shape[0]
    y, use = np.zeros(x.shape), []
    for where in np.ndindex(x.shape[:2]):
        frame = x[where].astype(np.float64)
        if routing == "hash":
            sign = frame @ variables["constants"]["projection"] > 0
            code = int("".join("01"[int(s)] for s in sign), 2)
            weight = {code * experts // 2 ** len(sign): 1.0}
        else:
            r = np.exp(frame @ params["router"]["kernel"])
            r /= r.sum()
            count = {"top_k": k, "switch": 1, "soft": experts}[routing]
            best = np.argsort(-r)[:count]
            total = r[best].sum() if routing == "top_k" else 1.0
            weight = {int(e): r[e] / total for e in best}
        for e, w in weight.items():
            y[where] += w * one_expert(params, e, frame, kind)
        use.append(weight)
    return y, use


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("kind", EXPERTS)
def test_values_are_those_of_the_equations(routing, kind):
    mixer, variables = built(routing=routing, expert=kind, experts=6, top_k=3)
    x = frames(2)
    (y, state), _ = run(mixer, variables, x)
    want, _ = by_loop(variables, x, routing, kind, 3)
    assert state == ()
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_losses_and_metrics_are_sown_scalars(routing):
    mixer, variables = built(routing=routing, load_balance=0.5)
    assert not {"losses", "metrics"} & variables.keys()
    x = frames(3)
    _, sown = run(mixer, variables, x)
    _, use = by_loop(variables, x, routing, "mlp", 2)
    share = np.zeros(8)
    for weight in use:
        for e, w in weight.items():
            share[e] += (w if routing == "soft" else 1 / len(weight)) / len(use)
    (largest,) = sown["metrics"]["max_share"]
    (smallest,) = sown["metrics"]["min_share"]
    (evenness,) = sown["metrics"]["use_entropy"]
    assert largest == pytest.approx(share.max(), rel=1e-4)
    assert smallest == pytest.approx(share.min(), rel=1e-4)
    entropy = -sum(s * math.log(s) for s in share if s > 0) / math.log(8)
    assert evenness == pytest.approx(entropy, rel=1e-4)
    if routing in ("soft", "hash"):
        assert "losses" not in sown
        return
    r = np.exp(x.reshape(-1, WIDTH) @ variables["params"]["router"]["kernel"])
    r /= r.sum(1, keepdims=True)
    (loss,) = sown["losses"]["load_balance"]
    assert loss == pytest.approx(0.5 * 8 * (share * r.mean(0)).sum(), rel=1e-4)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_frame_gets_the_same_alone_as_among_others(routing):
    mixer, variables = built(routing=routing)
    apply = jax.jit(lambda x: mixer.apply(variables, x)[0])
    # Nearly all frames are the same, so their experts would be over any capacity.
    x = np.tile(frames(4)[:1, :1], (3, 30, 1)) + 1e-3 * frames(5, 3, 30)
    whole = apply(x)
    for t in (0, 13, 29):
        np.testing.assert_allclose(apply(x[:, t : t + 1])[:, 0], whole[:, t], atol=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("routing", ["top_k", "switch", "soft"])
def test_the_task_alone_teaches_router_and_used_experts(routing):
    mixer, variables = built(routing=routing)
    weight = frames(6, 4, 30)

    def loss(params):
        return jnp.sum(mixer.apply({"params": params}, frames(7, 4, 30))[0] * weight)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all()
        assert np.all(np.abs(leaf).reshape(leaf.shape[0], -1).max(1) > 0), path


def test_hash_learns_no_route_and_keeps_its_projection_out_of_the_parameters():
    _, variables = built(routing="hash")
    assert variables["params"].keys() == {"in", "out"}
    assert variables["constants"]["projection"].shape == (WIDTH, 3)


@pytest.mark.integration
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("factor", [0.0, 1e3])
def test_bfloat16_has_finite_gradients_for_any_size_of_input(routing, factor):
    mixer, variables = built(routing=routing, dtype=jnp.bfloat16)

    def loss(params, x):
        y, _ = mixer.apply({**variables, "params": params}, x)
        assert y.dtype == jnp.bfloat16
        return jnp.sum(jnp.square(y.astype(jnp.float32)))

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        variables["params"], factor * frames(8)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.integration
def test_every_expert_starts_like_a_dense_layer():
    mixer = MoE(64, experts=8, out_scale=0.5)
    params = jax.jit(mixer.init)(jax.random.key(0), jnp.zeros((1, 1, 64)))["params"]
    assert params["in"]["kernel"].shape == (8, 64, 256)
    assert params["out"]["kernel"].shape == (8, 256, 64)
    for e in range(8):
        assert np.std(params["in"]["kernel"][e]) == pytest.approx(1 / 8, rel=0.05)
        assert np.std(params["out"]["kernel"][e]) == pytest.approx(0.5 / 16, rel=0.05)
    glu = MoE(96, expert="glu")
    shapes = jax.eval_shape(glu.init, jax.random.key(0), jnp.zeros((1, 1, 96)))
    assert shapes["params"]["in"]["kernel"].shape == (8, 96, 512)


@pytest.mark.integration
def test_sown_values_pass_through_remat():
    mixer, variables = built()
    again = nn.remat(MoE)(WIDTH)

    def loss(module, params):
        (y, _), sown = module.apply({"params": params}, frames(9), mutable=["losses"])
        return jnp.sum(y**2) + sum(jax.tree.leaves(sown["losses"]))

    got, want = (
        jax.jit(jax.grad(functools.partial(loss, module)))(variables["params"])
        for module in (again, mixer)
    )
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, atol=1e-5)


def test_one_expert_is_that_expert():
    mixer, variables = built(experts=1, routing="switch")
    x = frames(10)
    (y, _), sown = run(mixer, variables, x)
    want, _ = by_loop(variables, x, "switch", "mlp", 1)
    np.testing.assert_allclose(y, want, atol=1e-5)
    assert sown["metrics"]["use_entropy"] == (1.0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"routing": "switsh"}, "routing='switsh' .* nearest: switch"),
        ({"expert": "ffn"}, "expert='ffn' .* mlp, glu"),
        ({"experts": 0}, "experts=0 of moe must be at least 1"),
        ({"experts": 2, "top_k": 3}, "top_k=3 of moe must be from 2 to experts=2"),
        ({"top_k": 1}, "top_k=1 .* routing='switch'"),
        ({"expansion": 0.0}, "expansion=0.0"),
        ({"load_balance": -0.1}, "load_balance=-0.1"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        MoE(WIDTH, **options).init(jax.random.key(0), frames())
    assert "\n" not in caught.value.args[0]
