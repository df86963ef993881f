"""P7: windows of the last frames against lists."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxbench.ops import window as ops

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]
FORMS = {"reference": ops.sliding_windows_reference, "fast": ops.sliding_windows}


def sample(length, seed=0):
    rng = np.random.default_rng([seed, length])
    x = rng.normal(size=(3, length, 2)).astype(np.float32)
    return x, rng.random((3, length)) < 0.1


def lists(x, window, reset, before=None):
    """The windows from a Python list per episode."""
    batch, length, width = x.shape
    w = np.zeros((batch, length, window, width), np.float32)
    valid = np.zeros((batch, length, window), bool)
    for i in range(batch):
        seen = [] if before is None else list(before[i])
        for t in range(length):
            if reset is not None and reset[i, t]:
                seen = []
            seen.append(x[i, t])
            last = seen[-window:]
            w[i, t, window - len(last) :] = last
            valid[i, t, window - len(last) :] = True
    return w, valid


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("window", [1, 2, 7])
@pytest.mark.parametrize("form", FORMS)
def test_values(form, window, length):
    x, reset = sample(length)
    for flags in (None, reset):
        w, valid, ring = jax.jit(FORMS[form], static_argnums=1)(x, window, None, flags)
        want_w, want_valid = lists(x, window, flags)
        np.testing.assert_array_equal(w, want_w)
        np.testing.assert_array_equal(valid, want_valid)
        np.testing.assert_array_equal(ring.x_bwd, want_w[:, -1, 1:])
        np.testing.assert_array_equal(ring.valid_bw, want_valid[:, -1, 1:])


@pytest.mark.parametrize("form", FORMS)
def test_chunks_and_steps_are_the_whole(form):
    x, reset = sample(100, seed=1)
    want_w, want_valid = lists(x, 6, reset)
    ring, parts = None, []
    for start, stop in ((0, 1), (1, 4), (4, 37), (37, 100)):
        cut = slice(start, stop)
        run = jax.jit(FORMS[form], static_argnums=1)
        w, valid, ring = run(x[:, cut], 6, ring, reset[:, cut])
        parts.append((w, valid))
    got = [np.concatenate(p, 1) for p in zip(*parts, strict=True)]
    np.testing.assert_array_equal(got[0], want_w)
    np.testing.assert_array_equal(got[1], want_valid)
    step = jax.jit(ops.sliding_windows_step, static_argnums=1)
    ring = ops.initial_ring(3, window=6, width=2)
    for t in range(100):
        w, valid, ring = step(x[:, t], 6, ring, reset[:, t])
        np.testing.assert_array_equal(w, want_w[:, t])
        np.testing.assert_array_equal(valid, want_valid[:, t])


@pytest.mark.parametrize("form", FORMS)
def test_full_ring_continues_an_unbroken_episode(form):
    x, _ = sample(30, seed=2)
    _, _, ring = FORMS[form](x, 5)
    more, _ = sample(30, seed=3)
    w, valid, _ = FORMS[form](more, 5, ring)
    assert valid.all()
    np.testing.assert_array_equal(w, lists(more, 5, None, before=x)[0])


@pytest.mark.parametrize("length", [1, 65])
def test_gradients(length):
    x, reset = sample(length, seed=4)
    window = 5
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(3, length, window, 2)).astype(np.float32)
    tail = rng.normal(size=(3, window - 1, 2)).astype(np.float32)
    before = sample(window - 1, seed=6)[0]

    def gradient(form):
        def loss(x, before):
            ring = ops.WindowRing(before, np.ones((3, window - 1), bool))
            w, _, ring = FORMS[form](x, window, ring, reset)
            return (w * weight).sum() + (ring.x_bwd * tail).sum()

        return jax.jit(jax.grad(loss, (0, 1)))(x, before)

    want = np.zeros((3, window - 1 + length, 2))
    for i in range(3):
        start = 0
        for t in range(length):
            now = window - 1 + t
            start = now if reset[i, t] else start
            for j in range(window):
                source = now - window + 1 + j
                if source >= start:
                    want[i, source] += weight[i, t, j]
        for j in range(window - 1):
            if length + j >= start:
                want[i, length + j] += tail[i, j]
    for form in FORMS:
        d_x, d_before = gradient(form)
        np.testing.assert_allclose(d_x, want[:, window - 1 :], atol=1e-5)
        np.testing.assert_allclose(d_before, want[:, : window - 1], atol=1e-5)
