"""P3 and P4: every form against float64 loops, at odd lengths, extremes and resets."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import one_by_one, tree_error
from primitive_laws import LAWS, Primitive, doubles, exact

from jaxbench.ops import delta_rule as delta_ops
from jaxbench.ops import gated_linear as gated_ops
from jaxbench.ops.delta_rule import solve_unit_lower

BATCH, HEADS, KEYS, VALUES = 2, 2, 3, 5


def gates(rng, shape, kind, floor=0.0):
    """Logarithms of decays: mild, all 1, all 0, 0 or `floor`, or all kinds at once."""
    if kind == "ends":
        return rng.integers(0, 2, size=shape) * floor
    if kind == "one":
        return np.zeros(shape)
    if kind == "zero":
        return np.full(shape, -np.inf)
    g = -np.exp(rng.normal(-2, 1, size=shape))
    if kind == "extreme":
        pick = rng.integers(0, 5, size=shape)
        g = np.select([pick == 0, pick == 1, pick == 2], [0, -1e-6, -30], g)
        g = np.where(pick == 3, -1000.0, g)
    return g


def draw(per_key, delta, rng, length, **gate):
    shape = (BATCH, length, HEADS)
    q, k = rng.normal(size=(2, *shape, KEYS))
    v = rng.normal(size=(*shape, VALUES))
    g = gates(rng, (*shape, KEYS) if per_key else shape, **{"kind": "mild"} | gate)
    state = rng.normal(size=(BATCH, HEADS, KEYS, VALUES))
    frames = [q, k, v, g]
    if delta:
        k = k / np.linalg.norm(k, axis=-1, keepdims=True)
        beta = rng.uniform(0, 1, size=(*shape, 1))
        decay = np.exp(g if per_key else g[..., None])
        frames = [q, beta * k, v, g, -decay * k, beta * k]
    return [x.astype(np.float32) for x in frames], (), state.astype(np.float32)


def draw_shared(rng, length):
    """Queries and keys that all heads share."""
    (q, k, *rest), _, state = draw(False, False, rng, length)
    return [q[:, :, :1], k[:, :, :1], *rest], (), state


def draw_bonus(rng, length):
    frames, _, state = draw(True, False, rng, length)
    return frames, rng.normal(size=(HEADS, KEYS)).astype(np.float32), state


def draw_once(per_key, rng, length):
    """A delta rule that writes by its keys, so that a frame writes once."""
    (*frames, _), _, state = draw(per_key, True, rng, length)
    return [*frames, None], (), state


def loop(frames, bonus, s, reset):
    """The recurrence for one batch row and head at a time, in float64."""
    q, k, v, g, *reads = frames
    q, k = (np.broadcast_to(x, (*v.shape[:3], KEYS)) for x in (q, k))
    o, last = np.zeros(v.shape), np.zeros(s.shape)
    for row in range(q.shape[0]):
        for head in range(q.shape[2]):
            state = s[row, head]
            for t in range(q.shape[1]):
                at = (row, t, head)
                state = np.zeros_like(state) if reset[row, t] else state
                before = state
                decay = np.diag(np.exp(np.broadcast_to(g[at], k[at].shape)))
                state = decay @ before + np.outer(k[at], v[at])
                if reads:
                    a, b = reads
                    b = k if b is None else b
                    state += np.outer(b[at], before.T @ a[at])
                o[at] = state.T @ q[at]
                if len(bonus):
                    u = np.diag(bonus[head])
                    o[at] = (before + u @ np.outer(k[at], v[at])).T @ q[at]
            last[row, head] = state
    return o, last


def taking_frames(run):
    """A form of the laws from one that takes its arrays one by one."""

    def form(frames, bonus, s, reset, **given):
        given |= {"bonus_hk": bonus} if len(bonus) else {}
        return run(*frames, s, reset, **given)

    return form


def primitive(module, name, bundle, draw):
    made = {
        form: taking_frames(one_by_one(getattr(module, f"{name}_{form}"), bundle))
        for form in ("reference", "chunks", "step")
    }
    chunks = functools.partial(made["chunks"], chunk=32)
    chosen = taking_frames(getattr(module, name))
    forms = {"reference": made["reference"], "chunks": chunks, "chosen": chosen}
    # Sums of many products, whose size grows with the length.
    bounds = {"near": 2e-5, "close": 1e-4, "slope": 1e-4}
    return Primitive(forms, made["step"], loop, draw, **bounds)


GATED = (gated_ops, "gated_linear_attention", gated_ops.GatedFrames)
DELTA = (delta_ops, "delta_rule", delta_ops.DeltaFrames)
PRIMITIVES = {
    f"{kind}_{decay}": primitive(
        *(DELTA if kind == "delta" else GATED),
        functools.partial(draw, decay == "key", kind == "delta"),
    )
    for kind in ("gated", "delta")
    for decay in ("head", "key")
}
# Decays at their ends are for those above.
OTHERS = {
    "bonus": primitive(*GATED, draw_bonus),
    "shared": primitive(*GATED, draw_shared),
    "once_head": primitive(*DELTA, functools.partial(draw_once, False)),
    "once_key": primitive(*DELTA, functools.partial(draw_once, True)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", PRIMITIVES | OTHERS)
def test_law(name, law):
    LAWS[law]((PRIMITIVES | OTHERS)[name])


@pytest.mark.parametrize("kind", ["one", "zero", "extreme"])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_forms_hold_at_the_ends_of_the_gates(name, kind):
    p = PRIMITIVES[name]
    exact(dataclasses.replace(p, draw=functools.partial(p.draw, kind=kind), close=2e-4))


@pytest.mark.parametrize("rate", [0.08, 1.0], ids=["some", "everywhere"])
@pytest.mark.parametrize("floor", [-0.61, -5.0])
@pytest.mark.parametrize("name", ["gated_key", "delta_key"])
def test_chunks_under_a_bound(name, floor, rate):
    """As RWKV-7 and GLA declare theirs, with gates at both ends of the range."""
    p = PRIMITIVES[name]
    chunks = functools.partial(p.forms["chunks"], chunk=64, floor=floor)
    drawn = functools.partial(p.draw, kind="ends", floor=floor)
    exact(
        dataclasses.replace(
            p, forms=p.forms | {"chunks": chunks}, draw=drawn, rate=rate
        )
    )


def test_decays_below_the_bound_count_as_the_bound():
    p = PRIMITIVES["gated_key"]
    (q, k, v, _), _, s, reset = p.sample(30, seed=5)
    frames, clipped = ([q, k, v, np.full_like(q, g)] for g in (-np.inf, -5.0))
    expected, _ = p.forms["reference"](clipped, (), s, reset)
    for length in (30, 1):
        cut = [x[:, :length] for x in frames]
        got, _ = p.forms["chosen"](cut, (), s, reset[:, :length], floor=-5.0)
        assert tree_error(got, expected[:, :length]) < 2e-5


def test_low_precision_inputs_are_summed_in_float32():
    p = PRIMITIVES["gated_key"]
    frames, _, s, reset = p.sample(30, seed=6)
    low = [jnp.asarray(x, jnp.bfloat16) for x in frames[:3]]
    got = jax.jit(p.forms["chunks"])([*low, frames[3]], (), s, reset)
    right = loop([np.float64(x) for x in (*low, frames[3])], (), s, reset)
    assert tree_error(got, right) < 2e-5


@pytest.mark.integration
@pytest.mark.parametrize("chunk", [7, 40, 128])
@pytest.mark.parametrize("name", ["gated_key", "delta_key"])
def test_any_chunk_length_gives_the_same(name, chunk):
    *inputs, reset = PRIMITIVES[name].sample(100, seed=2)
    run = functools.partial(PRIMITIVES[name].forms["chunks"], chunk=chunk)
    assert (
        tree_error(jax.jit(run)(*inputs, reset), loop(*doubles(inputs), reset)) < 2e-5
    )


def test_delta_rule_without_reads_is_gated_linear_attention():
    frames, _, s, reset = PRIMITIVES["gated_key"].sample(40, seed=4)
    nothing = np.zeros_like(frames[1])
    expected = PRIMITIVES["gated_key"].forms["chunks"](frames, (), s, reset)
    chunks = jax.jit(PRIMITIVES["delta_key"].forms["chunks"])
    assert (
        tree_error(chunks([*frames, nothing, nothing], (), s, reset), expected) < 2e-5
    )


def test_delta_rule_writes_what_it_will_read():
    """With beta 1 and a new key each frame, a key read back gives its value."""
    chunks = jax.jit(PRIMITIVES["delta_head"].forms["chunks"])
    key = np.eye(KEYS, dtype=np.float32)[None, :, None]
    v = np.random.default_rng(5).normal(size=(1, KEYS, 1, VALUES)).astype(np.float32)
    g = np.zeros((1, KEYS, 1), np.float32)
    s = None
    for value in (v, -v):
        _, s = chunks([key, key, value, g, -key, key], (), s, None)
        np.testing.assert_allclose(s[0, 0], value[0, :, 0], atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 15, 30, 64])
def test_blocks_solve_the_triangular_system(size):
    rng = np.random.default_rng(size)
    m = np.tril(rng.normal(size=(2, 1, size, size)), -1) / np.sqrt(size)
    r = rng.normal(size=(2, 1, size, 3))
    expected = np.linalg.solve(np.eye(size) - m, r)
    actual = solve_unit_lower(jnp.asarray(m, jnp.float32), jnp.asarray(r, jnp.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_reflections_of_few_directions_do_not_lose_digits():
    """Keys in a plane, rates of 2: powers of the system reach 1e18, its inverse 2."""
    size, rng = 64, np.random.default_rng(0)
    k = rng.normal(size=(size, 2))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    m = np.tril(-2 * k @ k.T, -1)
    r = rng.normal(size=(size, 3))
    expected = np.linalg.solve(np.eye(size) - m, r)
    arrays = (jnp.asarray(x[None, None], jnp.float32) for x in (m, r))
    actual = solve_unit_lower(*arrays)[0, 0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_no_triangular_solve_in_the_gradient_of_a_chosen_form():
    frames, _, s, reset = PRIMITIVES["delta_key"].sample(30, seed=0)
    program = jax.make_jaxpr(
        jax.grad(lambda *x: delta_ops.delta_rule(*x, s, reset)[0].sum(), (0, 1, 2))
    )(*frames)
    assert "triangular_solve" not in str(program)
