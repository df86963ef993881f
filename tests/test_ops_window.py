"""P7: windows of the last frames against lists."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from primitive_laws import LAWS, Primitive

from jaxbench.ops import window as ops

BATCH, WIDTH = 3, 2


def of_laws(run, window):
    """A form of the laws from one that returns windows, what is there, and the ring."""

    def form(x, _, ring, reset):
        w, valid, ring = run(x, window, ring, reset)
        return (w, valid), ring

    return form


def loop(window, x, _, ring, reset):
    """The windows from a Python list per episode; a ring with gaps is none of these."""
    batch, length, width = x.shape
    w = np.zeros((batch, length, window, width), x.dtype)
    valid = np.zeros((batch, length, window), bool)
    for i in range(batch):
        seen = list(ring.x_bwd[i][ring.valid_bw[i]])
        for t in range(length):
            seen = [*([] if reset[i, t] else seen), x[i, t]][-window:]
            w[i, t, window - len(seen) :] = seen
            valid[i, t, window - len(seen) :] = True
    return (w, valid), ops.WindowRing(w[:, -1, 1:], valid[:, -1, 1:])


def draw(window, rng, length):
    """Frames, and a ring that is full."""
    x, before = (
        rng.normal(size=(BATCH, n, WIDTH)).astype(np.float32)
        for n in (length, window - 1)
    )
    return x, (), ops.WindowRing(before, np.ones((BATCH, window - 1), bool))


WINDOWS = {
    window: Primitive(
        forms={
            "reference": of_laws(ops.sliding_windows_reference, window),
            "chosen": of_laws(ops.sliding_windows, window),
        },
        step=of_laws(ops.sliding_windows_step, window),
        loop=functools.partial(loop, window),
        draw=functools.partial(draw, window),
        near=1e-7,
    )
    for window in (1, 2, 7)
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("window", WINDOWS)
def test_law(window, law):
    LAWS[law](WINDOWS[window])
