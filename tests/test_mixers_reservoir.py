"""The reservoir: its frozen numbers, and its states against a float64 loop."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from drawn import draw
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.mixers.reservoir import Reservoir, spectral_radius

BATCH, LENGTH, WIDTH, SIZE = 2, 10, 16, 48


def frames(seed: int, length: int = LENGTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)


@functools.cache
def made(leak: float = 0.8):
    mixer = Reservoir(WIDTH, size=SIZE, density=0.3, leak=leak)
    variables = draw(mixer, frames(0))
    recurrent = variables["constants"]["recurrent"]
    recurrent *= 0.9 / np.abs(np.linalg.eigvals(recurrent)).max()
    return mixer, variables, jax.jit(mixer.apply)


@pytest.mark.parametrize("leak", [0.8, 1.0])
def test_equals_a_float64_loop_from_a_used_state_with_resets(leak):
    _, variables, apply = made(leak)
    _, state = apply(variables, frames(1))
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, 5], reset[1, 0] = True, True
    y, last = apply(variables, frames(2), state, reset)
    frozen = jax.tree.map(np.float64, variables["constants"])
    out = jax.tree.map(np.float64, variables["params"]["out"])
    h, x = np.float64(state.h_bn), np.float64(frames(2))
    for t in range(LENGTH):
        h = np.where(reset[:, t, None], 0, h)
        drive = x[:, t] @ frozen["input"] + h @ frozen["recurrent"] + frozen["bias"]
        h = (1 - leak) * h + leak * np.tanh(drive)
        want = np.concatenate([h, x[:, t]], axis=-1) @ out["kernel"] + out["bias"]
        np.testing.assert_allclose(y[:, t], want, 1e-5, 1e-5)
    np.testing.assert_allclose(last.h_bn, h, 1e-5, 1e-5)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("size", "density", "radius"), [(512, 0.1, 0.9), (90, 0.1, 0.99), (40, 1.0, 1.3)]
)
def test_spectral_radius_density_and_input_scale_are_as_asked(size, density, radius):
    mixer = Reservoir(WIDTH, size=size, density=density, radius=radius)
    variables = jax.jit(mixer.init)(jax.random.key(3), frames(0)[:, :2])
    frozen = jax.tree.map(np.float64, variables["constants"])
    largest = np.abs(np.linalg.eigvals(frozen["recurrent"])).max()
    assert largest == pytest.approx(radius, rel=1e-4)
    share = np.mean(frozen["recurrent"] != 0)
    assert share == pytest.approx(density, abs=4 * (0.25 / size**2) ** 0.5)
    assert np.std(frames(1, 500) @ frozen["input"]) == pytest.approx(0.5, rel=0.1)


def test_spectral_radius_of_known_matrices():
    turn = 0.7 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    jordan = np.array([[0.5, 100.0], [0.0, 0.5]])
    random = np.random.default_rng(0).normal(size=(30, 30))
    for matrix in (turn, jordan, random, np.diag([-3.0, 1.0, 2.0])):
        want = np.abs(np.linalg.eigvals(matrix)).max()
        assert float(spectral_radius(matrix)) == pytest.approx(want, rel=1e-4)


def test_only_the_read_out_is_trained():
    mixer, variables, _ = made()
    assert set(variables["params"]) == {"out"}
    x = frames(4)
    gradient = jax.jit(jax.grad(lambda v: mixer.apply(v, x)[0].sum()))(variables)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["constants"]))
    assert (gradient["params"]["out"]["kernel"] != 0).any()


@pytest.mark.integration
def test_layers_and_seeds_have_reservoirs_of_their_own():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x_btd):
            for _ in range(2):
                x_btd, _ = Reservoir(WIDTH, size=SIZE, density=0.3)(x_btd)
            return x_btd

    init = jax.jit(Two().init)
    drawn = [init(jax.random.key(seed), frames(0))["constants"] for seed in (0, 0, 1)]
    leaves = [jax.tree.leaves(constants) for constants in drawn]
    assert all((x == y).all() for x, y in zip(*leaves[:2], strict=True))
    assert all((x != y).any() for x, y in zip(*leaves[1:], strict=True))
    first, second = (drawn[0][f"Reservoir_{i}"] for i in (0, 1))
    assert (first["recurrent"] != second["recurrent"]).any()
    assert (first["input"] != second["input"]).any()


def test_two_pasts_under_one_input_end_in_one_state():
    mixer, variables, apply = made()
    x, start = frames(5, 200), mixer.initial_state(BATCH)
    far = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.9, np.float32), start)
    _, one = apply(variables, x, start)
    _, other = apply(variables, x, far)
    assert np.abs(one.h_bn - other.h_bn).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"density": 0.0}, r"density=0\.0"),
        ({"leak": 1.5}, r"leak=1\.5"),
        ({"radius": 0.0}, r"radius=0\.0"),
        ({"size": 32}, "size=32 times density=0.1 must be at least 8"),
    ],
)
def test_bad_options_are_input_errors(options, match):
    with pytest.raises(InputError, match=match):
        Reservoir(WIDTH, **options).init(jax.random.key(0), frames(0))
