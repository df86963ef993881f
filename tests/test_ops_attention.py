"""P6: attention against a float64 loop over the frames each query may see."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_slopes, relative_error, tree_error

from jaxbench.ops import attention as ops


def one_by_one(form):
    """A form that takes its arrays as `banded_attention` does."""

    def run(q, k, v, *, cache=None, reset_bt=None, log_decay_bth=None, **given):
        frames = ops.BandFrames(q, k, v, log_decay_bth)
        return form(frames, cache, reset_bt, **given)

    return run


FORMS = {
    "reference": one_by_one(ops.banded_attention_reference),
    "blocks": one_by_one(ops.banded_attention_blocks),
    "chosen": ops.banded_attention,
}
BATCH, HEADS, GROUPS, KEY, VALUE = 2, 4, 2, 5, 3


def loop(q, k, v, window, before=None, reset=None, scale=None):
    """Each head of each frame on its own, over a list of visible frames."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o = np.zeros((*q.shape[:3], v.shape[-1]))
    for i in range(q.shape[0]):
        seen = [] if before is None else list(zip(before[0][i], before[1][i], strict=1))
        for t in range(q.shape[1]):
            if reset is not None and reset[i, t]:
                seen = []
            seen.append((k[i, t], v[i, t]))
            visible = seen[-window:]
            for head in range(q.shape[2]):
                group = head // (q.shape[2] // k.shape[2])
                keys = np.array([s[0][group] for s in visible], np.float64)
                values = np.array([s[1][group] for s in visible], np.float64)
                score = scale * keys @ q[i, t, head].astype(np.float64)
                weight = np.exp(score - score.max())
                o[i, t, head] = weight @ values / weight.sum()
    return o


def sample(length, groups=GROUPS, seed=0, scale=1.0):
    rng = np.random.default_rng([seed, length])
    q = scale * rng.normal(size=(BATCH, length, HEADS, KEY))
    k = rng.normal(size=(BATCH, length, groups, KEY))
    v = rng.normal(size=(BATCH, length, groups, VALUE))
    return [x.astype(np.float32) for x in (q, k, v)], rng.random((BATCH, length)) < 0.08


def full_cache(window, groups=GROUPS, seed=9):
    """A cache filled by a stream that has run for a while, and its frames."""
    (_, k, v), _ = sample(max(window - 1, 1) + 4, groups, seed)
    slots = window - 1
    kept = k[:, k.shape[1] - slots :], v[:, v.shape[1] - slots :]
    valid = np.ones((BATCH, slots), bool)
    return ops.AttentionCache(*kept, valid, np.array([7, 40], np.int32)), kept


@pytest.mark.parametrize(("window", "length"), [(8, 65), (200, 65)])
def test_values(window, length):
    args, reset = sample(length)
    cache, before = full_cache(window)
    for form in ("reference", "blocks"):
        run = jax.jit(functools.partial(FORMS[form], window=window))
        o, _ = run(*args, cache=cache, reset_bt=reset)
        assert relative_error(o, loop(*args, window, before, reset)) < 2e-6
        o, _ = run(*args)
        assert relative_error(o, loop(*args, window)) < 2e-6


@pytest.mark.integration
@pytest.mark.parametrize(("groups", "scale"), [(1, None), (2, 0.0), (4, 3.0)])
def test_shared_heads_and_scale(groups, scale):
    args, _ = sample(20, groups)
    for form in FORMS.values():
        o, _ = jax.jit(functools.partial(form, window=6, scale=scale))(*args)
        assert relative_error(o, loop(*args, 6, scale=scale)) < 2e-6


@pytest.mark.parametrize("length", [1, 65])
def test_gradients(length):
    args, reset = sample(length, seed=1)
    cache, before = full_cache(5)
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(BATCH, length, HEADS, VALUE))
    inputs = (*args, *before)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(form, *inputs):
        def loss(q, k, v, k_before, v_before):
            past = cache._replace(k_bwhk=k_before, v_bwhk=v_before)
            o, after = FORMS[form](q, k, v, window=5, cache=past, reset_bt=reset)
            return (weight * o).sum() + (after.k_bwhk**2).sum() + after.v_bwhk.sum()

        return jax.grad(loss, tuple(range(5)))(*inputs)

    def exact(q, k, v, k_before, v_before):
        o = loop(q, k, v, 5, (k_before, v_before), reset)
        total = (weight * o).sum()
        for i in range(BATCH):
            keys, values = list(k_before[i]), list(v_before[i])
            for t in range(length):
                keys, values = ([], []) if reset[i, t] else (keys, values)
                keys, values = [*keys, k[i, t]], [*values, v[i, t]]
            total += sum((x**2).sum() for x in keys[-4:])
            total += sum(x.sum() for x in values[-4:])
        return total

    want = gradients("reference", *inputs)
    for form in ("blocks", "chosen"):
        assert tree_error(gradients(form, *inputs), want) < 5e-6
    check_slopes(want, inputs, exact, rng, least=1e-6)


@pytest.mark.parametrize("window", [1, 9])
def test_whole_is_chunks_is_steps_over_a_long_run(window):
    args, reset = sample(301, seed=3)
    q, k, v = args
    reset[:, ::2] = False
    run = jax.jit(functools.partial(ops.banded_attention, window=window))
    whole, last = run(*args, reset_bt=reset)
    assert relative_error(whole, loop(*args, window, reset=reset)) < 2e-6
    cache = ops.initial_cache(
        BATCH, window=window, heads=GROUPS, key_size=KEY, value_size=VALUE
    )
    parts = []
    for start, stop in ((0, 1), (1, 151), (151, 301)):
        x = slice(start, stop)
        o, cache = run(q[:, x], k[:, x], v[:, x], cache=cache, reset_bt=reset[:, x])
        parts.append(o)
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-6
    for x, y in zip(cache, last, strict=True):
        np.testing.assert_array_equal(x, y)
    cache = None
    for t in range(301):
        x = slice(t, t + 1)
        o, cache = run(q[:, x], k[:, x], v[:, x], cache=cache, reset_bt=reset[:, x])
        assert relative_error(o, whole[:, x]) < 1e-6
    for x, y in zip(cache, last, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("form", ["reference", "blocks"])
def test_reset_leaves_the_cache_of_a_fresh_start(form):
    args, reset = sample(150, seed=4)
    reset[:] = False
    reset[:, 145] = True
    run = jax.jit(functools.partial(FORMS[form], window=9))
    _, cache = run(*args, reset_bt=reset)
    _, fresh = run(*(x[:, 145:] for x in args))
    for x, y in zip(cache, fresh, strict=True):
        np.testing.assert_array_equal(x, y)
    assert np.asarray(cache.valid_bw).sum(1).tolist() == [5, 5]
    np.testing.assert_array_equal(cache.position_b, [5, 5])


def test_positions_count_from_the_episode_start():
    reset = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    start = jnp.array([7, 7, 2], jnp.int32)
    position, following = ops.positions(start, reset, 5)
    want = [[7, 8, 0, 1, 2], [0, 1, 2, 3, 0], [2, 3, 4, 5, 6]]
    np.testing.assert_array_equal(position, want)
    np.testing.assert_array_equal(following, [3, 1, 7])
    assert position.dtype == following.dtype == jnp.int32
    position, following = ops.positions(start, None, 2)
    np.testing.assert_array_equal(position, [[7, 8], [7, 8], [2, 3]])


@pytest.mark.parametrize("form", ["reference", "blocks"])
def test_nothing_crosses_a_reset_not_even_large_values(form):
    (q, k, v), reset = sample(30, seed=5)
    reset[:] = False
    reset[:, 10] = True
    changed = k.copy(), v.copy()
    changed[0][:, :10] *= 1e4
    changed[1][:, :10] += 1e6
    run = jax.jit(functools.partial(FORMS[form], window=30))
    got, _ = run(q, *changed, reset_bt=reset)
    want, _ = run(q, k, v, reset_bt=reset)
    np.testing.assert_array_equal(got[:, 10:], want[:, 10:])


def test_cross_attention_with_a_mask():
    rng = np.random.default_rng(6)
    q = rng.normal(size=(2, 3, HEADS, KEY)).astype(np.float32)
    k = rng.normal(size=(2, 7, GROUPS, KEY)).astype(np.float32)
    v = rng.normal(size=(2, 7, GROUPS, VALUE)).astype(np.float32)
    mask = rng.random((2, 3, 7)) < 0.5
    mask[:, :, 0] = True
    mask[1, 2] = False

    def plain(mask):
        o = np.zeros((2, 3, HEADS, VALUE))
        for i, t, h in np.ndindex(2, 3, HEADS):
            see = np.flatnonzero(mask[i, t])
            score = k[i, see, h // 2].astype(np.float64) @ q[i, t, h] * KEY**-0.5
            weight = np.exp(score)
            if see.size:
                o[i, t, h] = weight @ v[i, see, h // 2] / weight.sum()
        return o

    assert relative_error(ops.attention(q, k, v, mask), plain(mask)) < 2e-6
    assert relative_error(ops.attention(q, k, v), plain(np.ones_like(mask))) < 2e-6
    wide = mask[:, :1]
    want = plain(np.repeat(wide, 3, 1))
    assert relative_error(ops.attention(q, k, v, wide), want) < 2e-6
    loss = jax.grad(lambda *x: (ops.attention(*x, mask) ** 2).sum(), (0, 1, 2))
    grads = jax.jit(loss)(q, k, v)
    assert all(np.isfinite(g).all() for g in grads)
    np.testing.assert_array_equal(grads[0][1, 2], np.zeros((HEADS, KEY)))


@pytest.mark.integration
@pytest.mark.parametrize("form", ["reference", "blocks"])
def test_huge_scores_stay_finite(form):
    args, reset = sample(70, seed=7, scale=1e4)
    cache, _ = full_cache(5)

    def loss(*x):
        return FORMS[form](*x, window=5, cache=cache, reset_bt=reset)[0].sum()

    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*args)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in grads)


def test_low_precision_keeps_a_float32_cache():
    args, _ = sample(6, seed=8)
    low = [jnp.asarray(x, jnp.bfloat16) for x in args]
    run = jax.jit(functools.partial(ops.banded_attention, window=4))
    o, cache = run(*low)
    assert o.dtype == jnp.bfloat16
    assert cache.k_bwhk.dtype == cache.v_bwhk.dtype == jnp.float32
    want, _ = run(*args)
    assert np.abs(np.asarray(o, np.float32) - want).max() < 0.05


def test_long_sequences_hold_scores_of_the_band_only():
    args, _ = sample(1024)
    run = jax.jit(functools.partial(ops.banded_attention, window=16))
    text = run.lower(*args).as_text()
    assert "1024x1024" not in text
    assert "64x128xf32" in text


def test_heads_that_do_not_divide_are_an_error():
    (q, _, _), _ = sample(4)
    _, k, v = sample(4, groups=3)[0]
    with pytest.raises(ValueError, match="4 query heads"):
        ops.attention(q, k, v)


def forgetting_loop(q, k, v, log_decay, window, reset):
    """Each head of each frame on its own; the decays summed frame by frame."""
    q, k, v, log_decay = (x.astype(np.float64) for x in (q, k, v, log_decay))
    o = np.zeros((*q.shape[:3], v.shape[-1]))
    for i, t, head in np.ndindex(*q.shape[:3]):
        start = max([0, t - window + 1, *np.flatnonzero(reset[i, : t + 1])])
        group = head // (q.shape[2] // k.shape[2])
        weights = []
        for s in range(start, t + 1):
            fade = log_decay[i, s + 1 : t + 1, head].sum()
            weights.append(k[i, s, group] @ q[i, t, head] * KEY**-0.5 + fade)
        weights = np.exp(np.array(weights) - max(weights))
        o[i, t, head] = weights @ v[i, start : t + 1, group] / weights.sum()
    return o


def log_decays(length, seed=10, mean=1.0):
    rng = np.random.default_rng([seed, length])
    return -rng.exponential(mean, (BATCH, length, HEADS)).astype(np.float32)


@pytest.mark.parametrize(("window", "length"), [(200, 1), (8, 65)])
def test_forgetting_values(window, length):
    args, reset = sample(length + 20, seed=11)
    decay = log_decays(length + 20)
    want = forgetting_loop(*args, decay, window, reset)
    for form in ("reference", "blocks"):
        run = jax.jit(functools.partial(FORMS[form], window=window))
        o, cache = run(
            *(x[:, :20] for x in args),
            reset_bt=reset[:, :20],
            log_decay_bth=decay[:, :20],
        )
        assert relative_error(o, want[:, :20]) < 2e-6
        o, _ = run(
            *(x[:, 20:] for x in args),
            cache=cache,
            reset_bt=reset[:, 20:],
            log_decay_bth=decay[:, 20:],
        )
        assert relative_error(o, want[:, 20:]) < 2e-6


def test_forgetting_gradients():
    args, reset = sample(80, seed=12)
    inputs = (*args, log_decays(80))
    weight = np.random.default_rng(13).normal(size=(BATCH, 80, HEADS, VALUE))

    def gradients(form):
        def loss(q, k, v, decay):
            o, _ = FORMS[form](q, k, v, window=9, reset_bt=reset, log_decay_bth=decay)
            return (weight * o).sum()

        return jax.device_get(jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*inputs))

    want = gradients("reference")
    assert tree_error(gradients("blocks"), want) < 5e-6
    assert all(np.abs(grad).sum() > 1 for grad in want)

    def exact(*inputs):
        return (weight * forgetting_loop(*inputs, 9, reset)).sum()

    check_slopes(want, inputs, exact, np.random.default_rng(14))


def test_forgetting_whole_is_chunks_is_steps_and_does_not_drift():
    window = 9
    (q, k, v), reset = sample(401, seed=15)
    # 10,000 nats are forgotten: a running sum would keep two or three decimals.
    decay = log_decays(401, mean=25.0)
    reset[:, 1:] = False
    run = jax.jit(functools.partial(ops.banded_attention, window=window))
    whole, last = run(q, k, v, reset_bt=reset, log_decay_bth=decay)
    want = forgetting_loop(q, k, v, decay, window, reset)
    assert relative_error(whole, want) < 2e-6
    cache = ops.initial_cache(
        BATCH,
        window=window,
        heads=GROUPS,
        key_size=KEY,
        value_size=VALUE,
        decays=HEADS,
    )
    parts = []
    for start, stop in ((0, 1), (1, 201), (201, 401)):
        x = slice(start, stop)
        o, cache = run(
            q[:, x],
            k[:, x],
            v[:, x],
            cache=cache,
            reset_bt=reset[:, x],
            log_decay_bth=decay[:, x],
        )
        parts.append(o)
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-6
    jax.tree.map(np.testing.assert_array_equal, cache, last)
    cache = None
    for t in range(401):
        x = slice(t, t + 1)
        given = {"reset_bt": reset[:, x], "log_decay_bth": decay[:, x]}
        o, cache = run(q[:, x], k[:, x], v[:, x], cache=cache, **given)
        assert relative_error(o, whole[:, x]) < 1e-6
    jax.tree.map(np.testing.assert_array_equal, cache, last)


@pytest.mark.integration
@pytest.mark.parametrize("form", ["reference", "blocks"])
def test_forgetting_takes_no_digits_across_a_reset(form):
    args, reset = sample(150, seed=16)
    decay = log_decays(150)
    reset[:] = False
    reset[:, 70] = True
    before = decay.copy()
    before[:, :71] = -1e9
    run = jax.jit(functools.partial(FORMS[form], window=20))
    got, cache = run(*args, reset_bt=reset, log_decay_bth=before)
    want, fresh = run(*args, reset_bt=reset, log_decay_bth=decay)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[:, 70:], want[:, 70:])
    jax.tree.map(np.testing.assert_array_equal, cache, fresh)


@pytest.mark.integration
@pytest.mark.parametrize("form", ["reference", "blocks"])
def test_forgetting_nothing_is_attention_and_all_is_the_last_frame(form):
    args, reset = sample(90, seed=17)
    run = jax.jit(functools.partial(FORMS[form], window=12, reset_bt=reset))
    want, _ = run(*args)
    nothing = np.zeros((BATCH, 90, HEADS), np.float32)
    np.testing.assert_array_equal(run(*args, log_decay_bth=nothing)[0], want)
    got, _ = run(*args, log_decay_bth=nothing - 1e6)
    own = np.repeat(args[2], HEADS // GROUPS, axis=2)
    np.testing.assert_allclose(got, own, rtol=1e-6)


def test_a_cache_without_decays_is_an_error():
    args, _ = sample(4)
    cache, _ = full_cache(5)
    with pytest.raises(ValueError, match="one of cache and call"):
        ops.banded_attention(*args, window=5, cache=cache, log_decay_bth=log_decays(4))
