"""P6: attention against a float64 loop over the frames each query may see."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import relative_error, tree_error
from primitive_laws import LAWS, Primitive, doubles

from jaxbench.ops import attention as ops

BATCH, HEADS, GROUPS, KEY, VALUE, WINDOW = 2, 4, 2, 5, 3, 9


def loop(frames, _, cache, reset, window=WINDOW, scale=KEY**-0.5):
    """Each head of each frame on its own, over a list of the frames it may see.

    A frame is its key, its value and how much is forgotten at it.
    """
    q, k, v, *decay = frames
    f = decay[0] if decay else np.zeros(q.shape[:3])
    o, last = np.zeros((*q.shape[:3], v.shape[-1])), jax.tree.map(np.array, cache)
    for i in range(q.shape[0]):
        slots = np.flatnonzero(cache.valid_bw[i])
        faded = (
            cache.log_decay_bwh if decay else np.zeros((*cache.valid_bw.shape, HEADS))
        )
        seen = [(cache.k_bwhk[i, s], cache.v_bwhk[i, s], faded[i, s]) for s in slots]
        count = int(cache.position_b[i])
        for t in range(q.shape[1]):
            seen, count = ([], 0) if reset[i, t] else (seen, count)
            seen, count = [*seen, (k[i, t], v[i, t], f[i, t])][-window:], count + 1
            keys, values, fades = map(np.stack, zip(*seen, strict=True))
            # What lies between a frame and t: the sum over l of s < l <= t.
            fade = np.cumsum(fades[::-1], axis=0)[::-1] - fades
            for head in range(q.shape[2]):
                group = head // (q.shape[2] // k.shape[2])
                score = scale * keys[:, group] @ q[i, t, head] + fade[:, head]
                weight = np.exp(score - score.max())
                o[i, t, head] = weight @ values[:, group] / weight.sum()
        kept = seen[max(len(seen) - window + 1, 0) :]
        for leaf in last:
            if leaf is not None:
                leaf[i] = 0
        last.position_b[i], last.valid_bw[i] = count, False
        for slot, parts in zip(range(window - 1)[::-1], kept[::-1], strict=False):
            last.valid_bw[i, slot] = True
            last.k_bwhk[i, slot], last.v_bwhk[i, slot] = parts[:2]
            if decay:
                last.log_decay_bwh[i, slot] = parts[2]
    return o, last


def draw(forgets, rng, length, window=WINDOW, groups=GROUPS, mean=1.0):
    """Frames, and the cache of a stream that has run for a while."""

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def several(length):
        shape = (BATCH, length)
        k, v = normal(*shape, groups, KEY), normal(*shape, groups, VALUE)
        decay = -rng.exponential(mean, (*shape, HEADS)).astype(np.float32)
        return [k, v, *([decay] if forgets else [])]

    k, v, *decay = several(window - 1)
    valid = np.ones((BATCH, window - 1), bool)
    cache = ops.AttentionCache(k, v, valid, np.array([7, 40], np.int32), *decay)
    return [normal(BATCH, length, HEADS, KEY), *several(length)], (), cache


def bundled(form, **given):
    """A form of the laws that is given frames as a list."""
    given = {"window": WINDOW} | given
    return lambda frames, _, cache, reset: form(
        ops.BandFrames(*frames), cache, reset, **given
    )


def chosen(frames, _, cache, reset, **given):
    q, k, v, *decay = frames
    given = {"window": WINDOW, "log_decay_bth": decay[0] if decay else None} | given
    return ops.banded_attention(q, k, v, cache=cache, reset_bt=reset, **given)


def step(frames, fixed, cache, reset):
    one = [x[:, None] for x in frames]
    o, cache = chosen(one, fixed, cache, reset[:, None])
    return o[:, 0], cache


FORMS = {
    "reference": ops.banded_attention_reference,
    "blocks": ops.banded_attention_blocks,
}
PRIMITIVES = {
    name: Primitive(
        forms={form: bundled(run) for form, run in FORMS.items()} | {"chosen": chosen},
        step=step,
        loop=loop,
        draw=functools.partial(draw, name != "plain", **given),
        near=2e-6,
    )
    # 10,000 nats are forgotten: a running sum would keep two or three decimals.
    for name, given in {"plain": {}, "forgetting": {}, "far": {"mean": 25.0}}.items()
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_law(name, law):
    LAWS[law](PRIMITIVES[name])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("window", "groups", "scale"), [(1, 1, None), (6, 2, 0.0), (200, 4, 3.0)]
)
def test_windows_shared_heads_and_scales(window, groups, scale):
    rng = np.random.default_rng(0)
    frames, _, cache = draw(True, rng, 65, window, groups)
    reset = rng.random((BATCH, 65)) < 0.08
    given = {"window": window, "scale": scale}
    right = loop(
        *doubles((frames, ())),
        cache,
        reset,
        window,
        scale=KEY**-0.5 if scale is None else scale,
    )
    for form in FORMS.values():
        run = jax.jit(bundled(form, **given))
        assert tree_error(run(frames, (), cache, reset), right) < 2e-6


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


@pytest.mark.parametrize("form", FORMS)
def test_nothing_crosses_a_reset_not_even_large_values(form):
    (q, k, v, decay), _, _ = draw(True, np.random.default_rng(5), 30)
    reset = np.zeros((BATCH, 30), bool)
    reset[:, 10] = True
    k2, v2, decay2 = (np.array(x) for x in (k, v, decay))
    k2[:, :10] *= 1e4
    v2[:, :10] += 1e6
    decay2[:, :11] = -1e9
    run = jax.jit(bundled(FORMS[form]))
    got, cache = run([q, k2, v2, decay2], (), None, reset)
    want, fresh = run([q, k, v, decay], (), None, reset)
    np.testing.assert_array_equal(got[:, 10:], want[:, 10:])
    jax.tree.map(np.testing.assert_array_equal, cache, fresh)


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
@pytest.mark.parametrize("form", FORMS)
def test_huge_scores_stay_finite(form):
    (q, *frames), _, cache, reset = PRIMITIVES["plain"].sample(70, seed=7)

    def loss(frames):
        return bundled(FORMS[form])(frames, (), cache, reset)[0].sum()

    for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))([1e4 * q, *frames])):
        assert np.isfinite(leaf).all()


def test_low_precision_keeps_a_float32_cache():
    frames, _, _ = draw(False, np.random.default_rng(8), 6)
    low = [jnp.asarray(x, jnp.bfloat16) for x in frames]
    o, _ = jax.jit(chosen)(low, (), None, None)
    want, _ = jax.jit(chosen)(frames, (), None, None)
    assert o.dtype == jnp.bfloat16
    assert np.abs(np.asarray(o, np.float32) - want).max() < 0.05


def test_long_sequences_hold_scores_of_the_band_only():
    frames, _, _ = draw(False, np.random.default_rng(0), 1024)
    run = jax.jit(functools.partial(ops.banded_attention, window=16))
    text = run.lower(*frames).as_text()
    assert "1024x1024" not in text
    assert "64x128xf32" in text


def test_heads_that_do_not_divide_are_an_error():
    q, k, v = draw(False, np.random.default_rng(0), 4, groups=3)[0]
    with pytest.raises(ValueError, match="4 query heads"):
        ops.attention(q, k, v)


@pytest.mark.integration
@pytest.mark.parametrize("form", FORMS)
def test_forgetting_nothing_is_attention_and_all_is_the_last_frame(form):
    frames, _, _, reset = PRIMITIVES["plain"].sample(90, seed=17)
    run = jax.jit(bundled(FORMS[form]))
    want, _ = run(frames, (), None, reset)
    nothing = np.zeros((BATCH, 90, HEADS), np.float32)
    same, _ = run([*frames, nothing], (), None, reset)
    np.testing.assert_array_equal(same, want)
    got, _ = run([*frames, nothing - 1e6], (), None, reset)
    own = np.repeat(frames[2], HEADS // GROUPS, axis=2)
    np.testing.assert_allclose(got, own, rtol=1e-6)


def test_a_cache_without_decays_is_an_error():
    frames, _, _ = draw(True, np.random.default_rng(0), 4)
    _, _, cache = draw(False, np.random.default_rng(0), 4)
    with pytest.raises(ValueError, match="one of cache and call"):
        chosen(frames, (), cache, None)
