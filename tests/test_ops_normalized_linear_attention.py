"""P3 stabilised and normalised: every form against sums in their own units, float64."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import one_by_one

from jaxbench.ops import normalized_linear_attention as ops

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]
NORMALIZERS = ["maxabs", "sum"]
FORMS = {
    **{
        form: one_by_one(
            getattr(ops, f"normalized_linear_attention_{form}"), ops.NormalizedFrames
        )
        for form in ("reference", "chunks")
    },
    "chosen": ops.normalized_linear_attention,
}
BATCH, HEADS, KEY, VALUE = 2, 2, 3, 2


@functools.cache
def compiled(normalizer):
    """The reference and the chunks in one program."""

    def both(args, state, reset):
        forms = (FORMS["reference"], FORMS["chunks"])
        return [run(*args, state, reset, normalizer=normalizer) for run in forms]

    return jax.jit(both)


def relative_error(got, want) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    return float(np.abs(got - want).max() / (np.abs(want).max() + 1e-30))


def relative_error_below(bound, got, want):
    assert relative_error(got, want) < bound


def loop(args, state, reset, normalizer):
    """o, S and n in units of 1, and m, frame by frame, head by head, in float64."""
    q, k, v, log_f, log_i = (np.asarray(x, np.float64) for x in args)
    s, n, m = (np.array(x, np.float64) for x in state)
    unit = np.where(np.isneginf(m), 1, np.exp(m))
    s, n = s * unit[..., None, None], n * unit[..., None]
    o = np.zeros(v.shape)
    for b, t, h in np.ndindex(q.shape[:3]):
        at, bh = (b, t, h), (b, h)
        if reset is not None and reset[b, t]:
            s[bh], n[bh], m[bh] = 0, 0, -np.inf
        f, i = np.exp(log_f[at]), np.exp(log_i[at])
        m[bh] = max(log_f[at] + m[bh], log_i[at])
        s[bh] = f * s[bh] + i * np.outer(k[at], v[at])
        n[bh] = f * n[bh] + i * k[at]
        total = q[at] @ n[bh]
        den = max(abs(total), 1) if normalizer == "maxabs" else total
        o[at] = q[at] @ s[bh] / (den + 1e-6 * np.exp(m[bh]))
    return o, (s, n, m)


def sample(length, normalizer, seed=0):
    """Signed queries and keys where the normaliser allows them."""
    rng = np.random.default_rng([seed, length])
    q, k = rng.normal(size=(2, BATCH, length, HEADS, KEY))
    n = rng.normal(size=(BATCH, HEADS, KEY))
    if normalizer == "sum":
        q, k, n = np.abs(q), np.abs(k), np.abs(n)
    args = (
        q,
        k,
        rng.normal(size=(BATCH, length, HEADS, VALUE)),
        -np.exp(2 * rng.normal(size=(BATCH, length, HEADS)) - 2),
        rng.normal(size=(BATCH, length, HEADS)),
    )
    s, m = rng.normal(size=(BATCH, HEADS, KEY, VALUE)), rng.normal(size=(BATCH, HEADS))
    state = ops.NormalizedState(*(x.astype(np.float32) for x in (s, n, m)))
    reset = rng.random((BATCH, length)) < 0.1
    return tuple(x.astype(np.float32) for x in args), state, reset


def check(got, want, tolerance=2e-5):
    (o, state), (want_o, (s, n, m)) = got, want
    assert relative_error(o, want_o) < tolerance
    unit = np.exp(-m)
    assert relative_error(state.s_bhkv, s * unit[..., None, None]) < tolerance
    assert relative_error(state.n_bhk, n * unit[..., None]) < tolerance
    assert np.abs(state.m_bh - m).max() < 1e-5 * (np.abs(m).max() + 1)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_values(length, normalizer):
    args, state, reset = sample(length, normalizer)
    want = loop(args, state, reset, normalizer)
    for got in compiled(normalizer)(args, state, reset):
        check(got, want)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_whole_is_chunks_is_steps(normalizer):
    args, state, reset = sample(100, normalizer, seed=1)
    fresh = ops.initial_state(BATCH, heads=HEADS, key_size=KEY, value_size=VALUE)
    run = jax.jit(functools.partial(FORMS["chosen"], normalizer=normalizer))
    want = loop(args, fresh, None, normalizer)
    check(run(*args), want)
    check(run(*args, fresh), want)
    want = loop(args, state, reset, normalizer)
    parts = []
    for part in (slice(0, 1), slice(1, 2), slice(2, 51), slice(51, 100)):
        frames = (x[:, part] for x in args)
        o, state = run(*frames, state, reset[:, part])
        parts.append(o)
    check((np.concatenate(parts, 1), state), want)


@pytest.mark.parametrize(
    ("length", "normalizer"),
    [(1, "maxabs"), (65, "maxabs"), (65, "sum")],
)
def test_gradients(length, normalizer):
    args, state, reset = sample(length, normalizer, seed=2)
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=x.shape) for x in (args[2], *state[:2])]

    def loss(o, s, n):
        """Of the sums in units of 1: the stored ones depend on a choice of units."""
        o_weight, s_weight, n_weight = weights
        return (o_weight * o + o**2).sum() + (s_weight * s).sum() + (n_weight * n).sum()

    def stabilised(run, args, state):
        o, (s, n, m) = run(*args, state, reset, normalizer=normalizer)
        unit = jnp.exp(m)
        return loss(o, s * unit[..., None, None], n * unit[..., None])

    @jax.jit
    def gradients(args, state):
        forms = (FORMS["reference"], FORMS["chosen"])
        return [
            jax.grad(functools.partial(stabilised, run), (0, 1))(args, state)
            for run in forms
        ]

    inputs = [np.asarray(x, np.float64) for x in (*args, *state)]
    for i, grads in enumerate(
        zip(*map(jax.tree.leaves, gradients(args, state)), strict=True)
    ):
        assert relative_error(grads[1], grads[0]) < 1e-4
        direction = rng.normal(size=inputs[i].shape)
        ends = []
        for sign in (1, -1):
            moved = list(inputs)
            moved[i] = moved[i] + sign * 1e-6 * direction
            o, (s, n, _) = loop(moved[:5], moved[5:], reset, normalizer)
            ends.append(loss(o, s, n))
        slope = (ends[0] - ends[1]) / 2e-6
        for grad in grads:
            terms = np.asarray(grad, np.float64) * direction
            assert abs(slope - terms.sum()) < 1e-4 * np.abs(terms).sum() + 1e-5


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("log_f", [0.0, -50.0, "mixed"])
@pytest.mark.parametrize("log_i", [-40.0, 40.0, "mixed"])
def test_extreme_gates(log_i, log_f, normalizer):
    """Closed gates among open ones cost no digits; no size of a gate overflows."""
    # Weights of one sign: a sum that nearly cancels is ill-conditioned in any form.
    (q, k, v, *gates), state, reset = sample(100, "sum", seed=4)
    rng = np.random.default_rng(5)
    for i, value in enumerate((log_f, log_i)):
        if value == "mixed":
            choices = ([0.0, -0.3, -50.0], [-40.0, 0.0, 40.0])[i]
            gates[i] = rng.choice(choices, gates[i].shape).astype(np.float32)
        else:
            gates[i] = np.full_like(gates[i], value)
    args = (q, k, v, *gates)
    want = loop(args, state, reset, normalizer)
    for got in compiled(normalizer)(args, state, reset):
        check(got, want, 5e-6)


@functools.cache
def gradient_of_a_sum(normalizer):
    def loss(args, state, run):
        o, (s, n, _) = run(*args, state, normalizer=normalizer)
        return jnp.sin(o).sum() + jnp.sin(s).sum() + jnp.sin(n).sum()

    forms = (FORMS["reference"], FORMS["chunks"])
    return jax.jit(
        lambda args, state: [jax.grad(loss, (0, 1))(args, state, run) for run in forms]
    )


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("log_f", [0.0, -50.0, -np.inf])
@pytest.mark.parametrize("log_i", [-np.inf, -1000.0, -40.0, 40.0, 1000.0])
def test_gradients_are_finite_at_extreme_gates(log_i, log_f, normalizer):
    (*qkv, gate, _), state, _ = sample(70, "sum", seed=6)
    args = (*qkv, np.full_like(gate, log_f), np.full_like(gate, log_i))
    empty = ops.initial_state(BATCH, heads=HEADS, key_size=KEY, value_size=VALUE)
    for start in (empty, state):
        for leaf in jax.tree.leaves(gradient_of_a_sum(normalizer)(args, start)):
            assert np.isfinite(leaf).all()


@pytest.mark.integration
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_the_unit_of_the_state_carries_no_gradient(normalizer):
    args, state, _ = sample(70, "sum", seed=6)
    want, got = gradient_of_a_sum(normalizer)(args, state)
    jax.tree.map(functools.partial(relative_error_below, 1e-4), got, want)
    for run in FORMS.values():
        (_, last), pull = jax.vjp(functools.partial(run, normalizer=normalizer), *args)
        zeros = jax.tree.map(jnp.zeros_like, last)
        ones = zeros._replace(m_bh=jnp.ones_like(last.m_bh))
        for grad in pull((jnp.zeros_like(args[2]), ones)):
            np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_a_gate_of_zero_forgets_everything_or_writes_nothing(normalizer):
    args, state, reset = sample(65, normalizer, seed=7)
    q, k, v, log_f, log_i = args
    never, closed = np.zeros_like(reset), np.where(reset[..., None], -np.inf, log_f)
    run, near = compiled(normalizer), functools.partial(relative_error_below, 1e-4)
    forgotten = run((q, k, v, closed, log_i), state, never)
    jax.tree.map(near, forgotten, run(args, state, reset))
    silent = (q, k, v, np.zeros_like(log_f), np.full_like(log_i, -np.inf))
    empty = ops.initial_state(BATCH, heads=HEADS, key_size=KEY, value_size=VALUE)
    for start in (state, empty):
        for o, last in run(silent, start, never):
            jax.tree.map(np.testing.assert_array_equal, last, start)
            assert np.isfinite(o).all()
            assert (o == 0).all() == (start is empty)


def test_sum_does_not_depend_on_the_size_of_the_gates_and_maxabs_does():
    args, _, _ = sample(65, "sum", seed=8)
    empty = ops.initial_state(BATCH, heads=HEADS, key_size=KEY, value_size=VALUE)
    never = np.zeros((BATCH, 65), bool)
    for form in range(2):
        outputs = {
            (name, shift): compiled(name)((*args[:4], args[4] + shift), empty, never)
            for name in NORMALIZERS
            for shift in (0, np.float32(-500))
        }
        of = {key: got[form][0] for key, got in outputs.items()}
        assert relative_error(of["sum", -500], of["sum", 0]) < 1e-3
        assert np.abs(of["maxabs", 0]).max() > 0.1
        assert np.abs(of["maxabs", -500]).max() < 1e-30


def test_bfloat16_inputs_are_summed_in_float32():
    args, state, reset = sample(65, "maxabs", seed=9)
    half = [jnp.asarray(x, jnp.bfloat16) for x in args[:3]]
    got = compiled("maxabs")((*half, *args[3:]), state, reset)
    exact = [np.asarray(x, np.float32) for x in half]
    for (o, last), want in zip(
        got, compiled("maxabs")((*exact, *args[3:]), state, reset), strict=True
    ):
        assert {x.dtype for x in (o, *last)} == {jnp.dtype(jnp.float32)}
        assert relative_error(o, want[0]) < 1e-6


def test_unknown_normalizers_are_refused():
    args, _, _ = sample(2, "sum")
    for run in FORMS.values():
        with pytest.raises(ValueError, match="'mean' is neither 'maxabs' nor 'sum'"):
            run(*args, normalizer="mean")
