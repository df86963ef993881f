"""Linear attention and delta-rule mixers against float64 loops from the equations."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from oracles import sigmoid, silu, softplus

from jaxbench.errors import InputError
from jaxbench.mixers.deltanet import (
    DeltaNet,
    DeltaProduct,
    GatedDeltaNet,
    KimiDeltaAttention,
)
from jaxbench.mixers.gla import GLA
from jaxbench.mixers.hgrn2 import BOUNDS, HGRN2
from jaxbench.mixers.mamba2 import Mamba2
from jaxbench.mixers.mamba3 import Mamba3
from jaxbench.mixers.retnet import Retention
from jaxbench.mixers.rwkv6 import ChannelMix as ChannelMix6
from jaxbench.mixers.rwkv6 import TimeMix as TimeMix6
from jaxbench.mixers.rwkv7 import VALUES
from jaxbench.mixers.rwkv7 import ChannelMix as ChannelMix7
from jaxbench.mixers.rwkv7 import TimeMix as TimeMix7

WIDTH, BATCH, LENGTH = 16, 2, 9


def rms(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def centred(x, epsilon):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


def unit(x, epsilon=1e-6):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + epsilon)


def turned(x, angle):
    """Pairs (x_i, x_{i + K/2}) as complex numbers, turned by the angles."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=-1)


def convolved(x_te, conv):
    """Four taps over an episode of its own, then SiLU."""
    padded = np.concatenate([np.zeros((len(conv["kernel"]) - 1, x_te.shape[1])), x_te])
    taps = len(conv["kernel"])
    y = [(padded[t : t + taps] * conv["kernel"]).sum(0) for t in range(len(x_te))]
    return silu(np.stack(y) + conv["bias"])


def heads_of(x_te, heads):
    return x_te.reshape(len(x_te), heads, -1)


def matrix_states(keys, decays, writes, reads=None):
    """S after each frame for one head: Diag(decay) S + b (a^T S) + k v^T."""
    state, states = np.zeros((keys.shape[-1], writes.shape[-1])), []
    for t in range(len(keys)):
        before = state
        state = np.broadcast_to(decays[t], keys[t].shape)[:, None] * before
        if reads is not None:
            a, b = reads[0][t], reads[1][t]
            state = state + np.outer(b, a @ before)
        state = state + np.outer(keys[t], writes[t])
        states.append(state)
    return np.stack(states)


def dense(p, name, x):
    return x @ p[name]["kernel"] + p[name].get("bias", 0)


def per_head(read):
    """Stacks what `read(h)` gives for each head, [T, H, V]."""
    return lambda count: np.stack([read(h) for h in range(count)], axis=1)


def gla(p, x):
    q, k, v = (heads_of(dense(p, n, x), 4) for n in ("query", "key", "value"))
    g = dense(p, "decay_up", dense(p, "decay_down", x))
    alpha = heads_of(sigmoid(g) ** (1 / 16), 4)

    def read(h):
        s = matrix_states(k[:, h], alpha[:, h], v[:, h])
        return np.einsum("tk,tkv->tv", q[:, h], s) / np.sqrt(q.shape[-1])

    o = rms(per_head(read)(4), p["head_norm"]["scale"]).reshape(len(x), -1)
    return dense(p, "out", o * silu(dense(p, "gate", x)))


def retention(p, x):
    q, k, v = (heads_of(dense(p, n, x), 4) for n in ("query", "key", "value"))
    half = q.shape[-1] // 2
    rate = 10_000.0 ** (-np.arange(half) / half)
    angle = np.arange(len(x))[:, None, None] * rate
    q, k = turned(q, angle), turned(k, angle) / np.sqrt(2 * half)

    def read(h):
        gamma = np.full(len(x), 1 - 2.0 ** (-5 - h))
        s = matrix_states(k[:, h], gamma, v[:, h])
        return np.einsum("tk,tkv->tv", q[:, h], s)

    o = centred(per_head(read)(4), 1e-6).reshape(len(x), -1)
    return dense(p, "out", o * silu(dense(p, "gate", x)))


def hgrn2(p, x, bound=0.0):
    forget = bound + (1 - bound) * sigmoid(dense(p, "forget", x))
    q, v = silu(dense(p, "query", x)), dense(p, "value", x)
    q, v, forget = (heads_of(y, 2) for y in (q, v, forget))

    def read(h):
        s = matrix_states(1 - forget[:, h], forget[:, h], v[:, h])
        return np.einsum("tk,tkv->tv", q[:, h], s)

    o = per_head(read)(2).reshape(len(x), -1)
    return dense(p, "out", rms(o, p["output_norm"]["scale"]))


def mamba2(p, x):
    z, u, dt = np.split(dense(p, "project", x), [32, 32 + 32 + 2 * 8], axis=-1)
    u, b, c = np.split(convolved(u, p["conv"]), [32, 40], axis=-1)
    dt, u = softplus(dt + p["ssm_dt_bias"]), heads_of(u, 2)

    def read(h):
        decay = np.exp(-np.exp(p["ssm_a_log"][h]) * dt[:, h])
        s = matrix_states(b, decay, dt[:, h, None] * u[:, h])
        return np.einsum("tn,tnp->tp", c, s) + p["ssm_d"][h] * u[:, h]

    y = per_head(read)(2).reshape(len(x), -1) * silu(z)
    return dense(p, "out", rms(y, p["output_norm"]["scale"]))


def mamba3(p, x, turned=4):
    """The two-tap recurrence written out, with a complex state.

    Channels that are not turned are complex numbers that stay real.
    """
    half = turned // 2
    sizes = np.cumsum([32, 32, 8, 8, 2, 2])

    def paired(row):
        return np.concatenate([row[:half] + 1j * row[half:turned], row[turned:]])

    z, v, b, c, dt, mix, theta = np.split(dense(p, "project", x), sizes, axis=-1)
    dt, share, v = softplus(dt + p["ssm_dt_bias"]), sigmoid(mix), heads_of(v, 2)

    def read(h):
        k = rms(b, p["input_norm"]["scale"]) + p["input_bias"][h]
        q = rms(c, p["read_norm"]["scale"]) + p["read_bias"][h]
        state, out = np.zeros((8 - half, 16), complex), []
        before = np.zeros((8 - half, 16), complex)
        for t in range(len(x)):
            # The state turns by the angle of the frame instead of k by their sum.
            angle = np.pi * np.tanh(theta[t]) * dt[t, h]
            turn = np.exp(-1j * np.pad(angle, (0, 8 - turned)))[:, None]
            decay = np.exp(-np.exp(p["ssm_a_log"][h]) * dt[t, h])
            write = np.outer(paired(k[t]), v[t, h])
            state = decay * turn * (state + (1 - share[t, h]) * dt[t, h] * before)
            state = state + share[t, h] * dt[t, h] * write
            before = write
            read_out = paired(q[t]).conj() @ state
            out.append(read_out.real + p["ssm_d"][h] * v[t, h])
        return np.stack(out)

    y = per_head(read)(2).reshape(len(x), -1)
    return dense(p, "out", y * silu(z))


def delta(p, x, kind):
    inputs = p["_Inputs_0"]
    q, k, v = (
        heads_of(convolved(dense(inputs, n, x), inputs[f"{n}_conv"]), 4)
        for n in ("query", "key", "value")
    )
    q, k = unit(q) / np.sqrt(q.shape[-1]), unit(k)
    beta = sigmoid(dense(p, "beta", x))
    decay = np.ones(k.shape)
    if kind == "gated":
        dt = softplus(dense(p, "decay", x) + p["ssm_dt_bias"])
        decay = np.exp(-np.exp(p["ssm_a_log"]) * dt)[..., None] * decay
    if kind == "kimi":
        dt = dense(p, "decay_up", dense(p, "decay_down", x)) + p["ssm_dt_bias"]
        dt = heads_of(softplus(dt), 4)
        decay = np.exp(-np.exp(p["ssm_a_log"])[:, None] * dt)

    def read(h):
        state, out = np.zeros((k.shape[-1], v.shape[-1])), []
        for t in range(len(x)):
            key, rate = k[t, h], beta[t, h]
            state = decay[t, h][:, None] * state
            state = state + rate * np.outer(key, v[t, h] - key @ state)
            out.append(q[t, h] @ state)
        return np.stack(out)

    o = rms(per_head(read)(4), p["head_norm"]["scale"]).reshape(len(x), -1)
    if kind == "gated":
        o = o * silu(dense(p, "gate", x))
    if kind == "kimi":
        o = o * sigmoid(dense(p, "gate_up", dense(p, "gate_down", x)))
    return dense(p, "out", o)


def delta_product(p, x, updates):
    """Products of matrices I - beta k k^T, multiplied out frame by frame."""
    inputs = p["_Inputs_0"]
    q, k, v = (
        heads_of(convolved(dense(inputs, n, x), inputs[f"{n}_conv"]), many * 4)
        for n, many in (("query", 1), ("key", updates), ("value", updates))
    )
    q, k = unit(q) / np.sqrt(q.shape[-1]), unit(k)
    beta = 2 * sigmoid(dense(p, "beta", x))

    def read(h):
        width = k.shape[-1]
        state, out = np.zeros((width, v.shape[-1])), []
        for t in range(len(x)):
            turn, write = np.eye(width), np.zeros_like(state)
            for head in range(h, updates * 4, 4):
                key, rate = k[t, head], beta[t, head]
                once = np.eye(width) - rate * np.outer(key, key)
                turn, write = once @ turn, once @ write
                write = write + rate * np.outer(key, v[t, head])
            state = turn @ state + write
            out.append(q[t, h] @ state)
        return np.stack(out)

    o = rms(per_head(read)(4), p["head_norm"]["scale"]).reshape(len(x), -1)
    return dense(p, "out", o)


def group_norm(o_thv, p, epsilon):
    flat = centred(o_thv, epsilon).reshape(len(o_thv), -1)
    return flat * p["norm"]["scale"] + p["norm"]["bias"]


def before(x):
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def rwkv6(p, x):
    step = before(x) - x
    low = np.tanh((x + step * p["shift_base"]) @ p["shift_down"]).reshape(len(x), 5, -1)
    delta_std = np.einsum("tsr,srd->std", low, p["shift_up"])
    names = ("decay", "key", "value", "receptance", "gate")
    mixed = {
        name: x + step * (p[f"shift_{name}"] + d)
        for name, d in zip(names, delta_std, strict=True)
    }
    logit = p["ssm_decay"] + np.tanh(mixed["decay"] @ p["decay_down"]) @ p["decay_up"]
    decay = heads_of(np.exp(-np.exp(logit)), 2)
    r, k, v = (
        heads_of(dense(p, name, mixed[name]), 2)
        for name in ("receptance", "key", "value")
    )

    def read(h):
        s = matrix_states(k[:, h], decay[:, h], v[:, h])
        old = np.concatenate([np.zeros_like(s[:1]), s[:-1]])
        own = p["bonus"][h][:, None] * np.einsum("tk,tv->tkv", k[:, h], v[:, h])
        return np.einsum("tk,tkv->tv", r[:, h], old + own)

    o = group_norm(per_head(read)(2), p["head_norm"], 1e-5 * 8)
    return dense(p, "out", o * silu(dense(p, "gate", mixed["gate"])))


def rwkv7(p, x, first=None):
    step = before(x) - x
    mixed = {
        name: x + step * p[f"shift_{name}"]
        for name in ("receptance", "decay", "key", "value", "rate", "gate")
    }
    r, k, v = (dense(p, n, mixed[n]) for n in ("receptance", "key", "value"))

    def low(name, source, activation=lambda y: y):
        return activation(mixed[source] @ p[f"{name}_down"]) @ p[f"{name}_up"]

    decay = np.exp(
        -np.exp(-0.5) * sigmoid(p["ssm_decay"] + low("decay", "decay", np.tanh))
    )
    eta = sigmoid(p["rate_bias"] + low("rate", "rate"))
    if first is not None:
        v = v + (first - v) * sigmoid(p["share_bias"] + low("share", "value"))
    kappa = unit(heads_of(k * p["key_removed"], 2), 1e-12)
    k = k * (1 + (eta - 1) * p["key_rate"])
    r, k, v, eta, decay = (heads_of(y, 2) for y in (r, k, v, eta, decay))

    def read(h):
        pair = (-kappa[:, h], kappa[:, h] * eta[:, h])
        s = matrix_states(k[:, h], decay[:, h], v[:, h], pair)
        return np.einsum("tk,tkv->tv", r[:, h], s)

    o = group_norm(per_head(read)(2), p["head_norm"], 1e-5 * 8)
    own = np.einsum("thk,thk,hk->th", r, k, p["bonus"])[..., None] * v
    gate = low("gate", "gate", sigmoid)
    return dense(p, "out", (o + own.reshape(len(x), -1)) * gate)


def channel6(p, x):
    step = before(x) - x
    key = np.maximum(dense(p, "key", x + step * p["shift_key"]), 0) ** 2
    gate = sigmoid(dense(p, "receptance", x + step * p["shift_receptance"]))
    return gate * dense(p, "out", key)


def channel7(p, x):
    mixed = x + (before(x) - x) * p["shift_key"]
    return dense(p, "out", np.maximum(dense(p, "key", mixed), 0) ** 2)


MIXERS = {
    "gla": (GLA(WIDTH), gla),
    "retnet": (Retention(WIDTH), retention),
    "hgrn2": (HGRN2(WIDTH, heads=2), hgrn2),
    "mamba2": (Mamba2(WIDTH, state_size=8, heads=2), mamba2),
    "mamba3": (Mamba3(WIDTH, state_size=8, heads=2), mamba3),
    "mamba3_whole": (
        Mamba3(WIDTH, state_size=8, heads=2, rope_fraction=1.0),
        functools.partial(mamba3, turned=8),
    ),
    "deltanet": (DeltaNet(WIDTH), functools.partial(delta, kind="plain")),
    "deltaproduct": (
        DeltaProduct(WIDTH, householders=3),
        functools.partial(delta_product, updates=3),
    ),
    "gated_deltanet": (GatedDeltaNet(WIDTH), functools.partial(delta, kind="gated")),
    "kda": (KimiDeltaAttention(WIDTH), functools.partial(delta, kind="kimi")),
    "rwkv6": (TimeMix6(WIDTH, heads=2, shift_rank=4, decay_rank=4), rwkv6),
    "rwkv7": (TimeMix7(WIDTH, heads=2, rank=4, gate_rank=4), rwkv7),
    "rwkv6_channel": (ChannelMix6(WIDTH), channel6),
    "rwkv7_channel": (ChannelMix7(WIDTH), channel7),
}


def frames(seed, batch=BATCH):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, LENGTH, WIDTH)).astype(np.float32)


def drawn(mixer, x_btd, **given):
    return draw(mixer, x_btd, **given)["params"]


def takes_lower(mixer: nn.Module) -> bool:
    return isinstance(mixer, (HGRN2, TimeMix7))


@pytest.mark.parametrize("name", MIXERS)
def test_mixer_is_the_recurrence_of_its_paper(name):
    """Two episodes in one batch row: each is the loop over its own frames."""
    mixer, oracle = MIXERS[name]
    x_btd = frames(2)
    given = {"lower": {}} if takes_lower(mixer) else {}
    params = drawn(mixer, x_btd, **given)
    reset_bt = np.zeros((BATCH, LENGTH), bool)
    reset_bt[1, 4] = True

    @jax.jit
    def run(x_btd, reset_bt):
        return mixer.apply({"params": params}, x_btd, None, reset_bt, **given)[0]

    exact = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    y_btd = run(x_btd, reset_bt)
    whole, first, second = x_btd[0], x_btd[1, :4], x_btd[1, 4:]
    for part, y in ((whole, y_btd[0]), (first, y_btd[1, :4]), (second, y_btd[1, 4:])):
        expected = oracle(exact, part.astype(np.float64))
        np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-5)


def test_expand_ratio_is_the_width_of_a_head():
    assert HGRN2(16, expand_ratio=4).state_shapes() == HGRN2(16, heads=4).state_shapes()


def test_upper_hgrn2_layers_keep_their_lower_bound():
    bottom, top = (HGRN2(WIDTH, layer=i, layers=3, heads=2) for i in (0, 2))
    x_btd = frames(3)
    params = drawn(bottom, x_btd, lower={})
    _, _, lower = jax.jit(bottom.apply)({"params": params}, x_btd, lower={})
    share = np.exp(params["ssm_gamma"]) / np.exp(params["ssm_gamma"]).sum(0)
    np.testing.assert_allclose(lower[BOUNDS][0], 0, atol=1e-6)
    np.testing.assert_allclose(lower[BOUNDS][2], share[1] + share[2], rtol=1e-5)
    params = drawn(top, x_btd, lower=lower)
    y_btd, *_ = jax.jit(top.apply)({"params": params}, x_btd, lower=lower)
    exact = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    bound = np.asarray(lower[BOUNDS][2], np.float64)
    expected = hgrn2(exact, x_btd[0].astype(np.float64), bound)
    np.testing.assert_allclose(y_btd[0], expected, rtol=2e-4, atol=2e-5)


def test_upper_rwkv7_layers_move_towards_the_values_of_the_lowest():
    bottom, top = (TimeMix7(WIDTH, layer=i, layers=2, heads=2) for i in (0, 1))
    x_btd = frames(4)
    params = drawn(bottom, x_btd, lower={})
    _, _, lower = jax.jit(bottom.apply)({"params": params}, x_btd, lower={})
    params = drawn(top, x_btd, lower=lower)
    y_btd, *_ = jax.jit(top.apply)({"params": params}, x_btd, lower=lower)
    exact = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    first = np.asarray(lower[VALUES][0], np.float64)
    expected = rwkv7(exact, x_btd[0].astype(np.float64), first)
    np.testing.assert_allclose(y_btd[0], expected, rtol=2e-4, atol=2e-5)


def test_gated_deltanet_without_decay_is_deltanet():
    gated, plain = GatedDeltaNet(WIDTH, value_expansion=1), DeltaNet(WIDTH)
    x_btd = frames(5)
    params = drawn(gated, x_btd)
    # e^-30 of decay, and a gate of 1.
    params["ssm_a_log"] = np.full(4, -30, np.float32)
    shared = {k: params[k] for k in ("_Inputs_0", "beta", "head_norm", "out")}
    kernel = np.linalg.lstsq(x_btd.reshape(-1, WIDTH), np.full((18, WIDTH), 1.2785))[0]
    params["gate"] = {"kernel": kernel.astype(np.float32)}
    gate = nn.silu(x_btd @ params["gate"]["kernel"])
    expected, state = jax.jit(plain.apply)({"params": shared}, x_btd)
    actual, state_gated = jax.jit(gated.apply)({"params": params}, x_btd)
    np.testing.assert_allclose(state_gated.s_bhkv, state.s_bhkv, rtol=1e-5, atol=1e-6)
    out = np.linalg.inv(shared["out"]["kernel"].astype(np.float64))
    np.testing.assert_allclose(
        actual @ out, (expected @ out) * gate, rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (GLA(18), "heads=4 does not divide width=18"),
        (GLA(12, key_expansion=0.5), "heads=4 does not divide width=6"),
        (Retention(12), "width=12 over heads=4 gives heads of 3"),
        (DeltaNet(18), "heads=4 does not divide width=18"),
        (DeltaProduct(16, householders=0), "householders=0 must be at least 1"),
        (HGRN2(16, heads=5), "heads=5 does not divide width=16"),
        (HGRN2(16, expand_ratio=3), "expand_ratio=3 does not divide width=16"),
        (HGRN2(16, heads=2, expand_ratio=4), "contradict each other"),
        (Mamba2(16, heads=5), "heads=5 does not divide width=32"),
        (Mamba3(16, state_size=6), "state_size=6 times rope_fraction=0.5 must be even"),
        (Mamba3(16, rope_fraction=0.3), "rope_fraction=0.3 must be one of"),
        (TimeMix6(16, heads=3), "heads=3 does not divide width=16"),
    ],
)
def test_what_does_not_fit_is_one_line(mixer, message):
    x_btd = jnp.zeros((1, 2, mixer.width))
    given = {"lower": {}} if takes_lower(mixer) else {}
    with pytest.raises(InputError, match=message) as error:
        jax.eval_shape(functools.partial(mixer.init, **given), jax.random.key(0), x_btd)
    assert "\n" not in str(error.value)
