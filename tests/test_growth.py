"""Gradients of recurrences do not grow with the window, at their initial values.

An exponential growth is unseen in windows of 30 frames and ends runs on longer ones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_laws import KINDS

from jaxbench.models.block import mixer_class, takes_lower

WIDTH = 16
# Frames, of which the first alone is the measure.
LENGTHS = (30, 128, 512, 2048)
# Largest gradient of any input and length, over that of 30 frames of noise: a mean over
# frames that are alike has a gradient that does not depend on their number.
FACTOR = 100
# What carries a window of frames, not a recurrence.
ATTENTION = frozenset("attention llama_legacy decision_transformer zamba".split())
# (mixer, input) -> why its gradient is not bounded, which must then be so.
SUMS = (
    "linear and forgets nothing: its state grows with the window, squared in the gate"
)
WAIVERS = {
    ("ntm:NTM", "zero"): "an empty memory meets an empty key: a cosine of zeros, whose "
    "slope is 1000, in a loop",
    **{
        (
            f"elman_diagonal:LinearDiagonal,delta=True,projections={kind}",
            "constant",
        ): SUMS
        for kind in ("tiedkq", "noz", "full")
    },
    ("ttt:TTT", "zero"): "its inner norm divides 0 by the root of 1e-6, the source's, "
    "once in the model and again in the gradient it learns by",
}
# Nonlinear in the state, frame after frame: where errors can multiply.
NONLINEAR = ("recurrent:LSTM", "recurrent:GRU", "xlstm:SLSTM", "liquid:CfC")
NONLINEAR += ("spiking:SNN", "elman_dense:E1", "nonlinear_delta:DeltaMemory")


def recurrent() -> list[str]:
    return [
        label
        for label, (mixer, _, temporal, window) in KINDS.items()
        if temporal and not window and mixer.split(":")[0] not in ATTENTION
    ]


def inputs(length: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0).normal(size=(1, length, WIDTH))
    frames = {"noise": noise, "constant": 0 * noise + noise[:, :1], "zero": 0 * noise}
    return {name: x_btd.astype(np.float32) for name, x_btd in frames.items()}


def gradient_norms(label: str, lengths: tuple[int, ...]) -> dict[str, list[float]]:
    """Norms over all parameters for the mean of the first frames, by kind of input.

    One program of the longest window: frames are causal, so a mean over the first n is
    that of a window of n.
    """
    mixer, options, *_ = KINDS[label]
    made = mixer_class(mixer)
    module, length = made(WIDTH, **dict(options)), lengths[-1]

    def apply(function, *args, x_btd):
        given = {"lower": {"embedding": x_btd}} if takes_lower(made) else {}
        return function(*args, x_btd, **given)

    key = jax.random.key(0)
    start = jnp.zeros((1, 2, WIDTH))
    variables = jax.jit(lambda key: apply(module.init, key, x_btd=start))(key)
    # An output projection of zeros would hide what is below it.
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: leaf if leaf.any() or leaf.ndim < 2 else _kernel(rng, leaf),
        jax.device_get(variables),
    )
    weight_d = rng.normal(size=WIDTH).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(params, x_btd, share_t):
        y_btd = apply(module.apply, {**variables, "params": params}, x_btd=x_btd)[0]
        return jnp.einsum("btd,d,t->", y_btd, weight_d, share_t)

    norms: dict[str, list[float]] = {}
    for name, x_btd in inputs(length).items():
        norms[name] = []
        for count in lengths:
            share_t = (np.arange(length) < count).astype(np.float32) / count
            leaves = jax.tree.leaves(gradient(variables["params"], x_btd, share_t))
            squares = sum(np.square(np.float64(leaf)).sum() for leaf in leaves)
            norms[name].append(float(np.sqrt(squares)))
    return norms


def _kernel(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    return (rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[-2])).astype(leaf.dtype)


def check(label: str, lengths: tuple[int, ...]) -> None:
    norms = gradient_norms(label, lengths)
    most = FACTOR * norms["noise"][0]
    for name, values in norms.items():
        bounded = np.isfinite(values).all() and max(values) < most
        assert bounded != ((label, name) in WAIVERS), (name, norms)


@pytest.mark.parametrize("label", NONLINEAR)
def test_gradients_of_nonlinear_cells_do_not_grow_with_the_window(label):
    check(label, (LENGTHS[0], LENGTHS[2]))


@pytest.mark.slow
@pytest.mark.parametrize("label", recurrent())
def test_gradients_do_not_grow_with_the_window(label):
    check(label, LENGTHS)
