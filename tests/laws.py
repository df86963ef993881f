"""The laws of mixers and stacks, held by two programs: one chunk and one step.

A third, the gradient of a call without a state, is compiled where a law asks for it.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from drawn import draw, shapes_of

BATCH, CHUNK = 3, 7


class Case:
    """One module of the contract of mixers, its drawn parameters and its programs.

    Attributes:
      module: what is tested, of any width.
      temporal: whether information moves along time in it.
      lower: whether its calls are given what layers hand up a stack.
      fresh: the state an episode starts from.
      used: a state that no episode starts from.
      traces: how often the two programs were traced.
    """

    def __init__(
        self, module: nn.Module, *, seed: int, temporal: bool, lower: bool = False
    ):
        self.module, self.seed = module, seed
        self.temporal, self.lower = temporal, lower
        x_btd = self.frames(0)
        self.variables = draw(module, x_btd, seed=seed, **self.given(x_btd))
        state = module.apply(self.variables, BATCH, method="initial_state")
        self.fresh = jax.device_get(state)
        self.traces = 0

        def apply(variables, x_btd, state, reset_bt):
            self.traces += 1
            return self.apply(variables, x_btd, state, reset_bt)

        def loss(params, x_btd):
            variables = {**self.variables, "params": params}
            y_btd, state = self.apply(variables, x_btd)
            weight = np.random.default_rng(seed).normal(size=y_btd.shape)
            return jnp.sum(y_btd * weight.astype(np.float32)), (y_btd, state)

        self._apply = jax.jit(apply)
        self._gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def given(self, x_btd):
        return {"lower": {"embedding": x_btd[..., ::-1]}} if self.lower else {}

    def apply(self, variables, x_btd, *rest, module=None):
        module = module or self.module
        return module.apply(variables, x_btd, *rest, **self.given(x_btd))[:2]

    def frames(self, seed: int, length: int = CHUNK) -> np.ndarray:
        rng = np.random.default_rng([self.seed, seed])
        shape = (BATCH, length, self.module.width)
        return rng.normal(size=shape).astype(np.float32)

    def resets(self, seed: int, length: int = CHUNK, rate: float = 0.2) -> np.ndarray:
        rng = np.random.default_rng([self.seed, seed])
        reset_bt = rng.random((BATCH, length)) < rate
        reset_bt[0, 1:3] = [True, False]
        return reset_bt

    def run(self, x_btd, state=None, reset_bt=None):
        state = self.fresh if state is None else state
        if reset_bt is None:
            reset_bt = np.zeros(x_btd.shape[:2], bool)
        return jax.device_get(self._apply(self.variables, x_btd, state, reset_bt))

    def run_in(self, lengths, x_btd, state, reset_bt):
        outputs, start = [], 0
        for length in lengths:
            part = slice(start, start + length)
            y_btd, state = self.run(x_btd[:, part], state, reset_bt[:, part])
            outputs.append(y_btd)
            start += length
        return np.concatenate(outputs, axis=1), state

    @functools.cached_property
    def used(self) -> Any:
        return self.run(self.frames(99))[1]

    def gradient(self, x_btd):
        """Gradients of parameters and frames, and what a call without a state gives."""
        params = self.variables.get("params", {})
        return jax.device_get(self._gradient(params, x_btd))


def changed(array, where, value):
    """A copy of `array` with `value` at `where`."""
    copy = np.array(array)
    copy[where] = value
    return copy


def shapes(tree):
    """Shapes and types of a tree, comparable."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def close(actual, expected, tolerance: float = 1e-4) -> None:
    def check(path, x, y):
        np.testing.assert_allclose(
            x, y, tolerance, tolerance, err_msg=jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(check, actual, expected)


def streaming(case: Case) -> None:
    """Chunks are steps, at odd cuts, with resets, from any state, traced once each."""
    length = 2 * CHUNK + 1
    x_btd, reset_bt = case.frames(4, length), case.resets(4, length)
    for state in (case.fresh, case.used):
        steps = case.run_in([1] * length, x_btd, state, reset_bt)
        for cuts in ([CHUNK, 1, CHUNK], [1, CHUNK, CHUNK], [1, 1, CHUNK, *[1] * 6]):
            close(case.run_in(cuts, x_btd, state, reset_bt), steps)
    assert case.traces == 2, "values of frames, states or resets trace again"


def typed(case: Case) -> None:
    """Shapes, float32 and finite values; the state keeps its shape."""
    x_btd = case.frames(1)
    y_btd, state = case.run(x_btd)
    assert y_btd.shape == x_btd.shape and y_btd.dtype == np.float32
    for leaf in jax.tree.leaves((y_btd, state)):
        assert np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(case.variables.get("params", {})):
        assert leaf.dtype == jnp.float32
    assert shapes(state) == shapes(case.fresh)
    assert all(leaf.shape[0] == BATCH for leaf in jax.tree.leaves(state))


def causal(case: Case) -> None:
    """No frame sees a later one, each sees itself."""
    reset_bt, x_btd = case.resets(3), case.frames(3)
    before, _ = case.run(x_btd, case.used, reset_bt)
    for t in (1, 4, CHUNK - 1):
        x_changed = changed(x_btd, np.s_[:, t], -2 * x_btd[:, t])
        after, _ = case.run(x_changed, case.used, reset_bt)
        # Decays are split at the mean of a chunk, so rounding knows the later frames.
        close(after[:, :t], before[:, :t], 5e-6)
        assert np.abs(after[:, t] - before[:, t]).max() > 1e-3


def reset(case: Case) -> None:
    """What follows a reset is a separate sequence, whatever came before."""
    start = CHUNK // 2
    reset_bt = changed(np.zeros((BATCH, CHUNK), bool), np.s_[:, start], True)
    x_btd, none = case.frames(5), np.zeros((BATCH, CHUNK - start), bool)
    alone = case.run_in([1] * (CHUNK - start), x_btd[:, start:], case.fresh, none)
    # A left-padded window: its first real frame repeated, and a reset where it starts.
    padding = np.repeat(x_btd[:, start : start + 1], start, axis=1)
    for past in (x_btd[:, :start], 1e3 * x_btd[:, :start], padding):
        x_joined = np.concatenate([past, x_btd[:, start:]], axis=1)
        y_btd, state = case.run(x_joined, case.used, reset_bt)
        close((y_btd[:, start:], state), alone)


def rows(case: Case) -> None:
    """Rows of a batch do not meet."""
    reset_bt, x_btd = case.resets(6), case.frames(6)
    before = case.run(x_btd, case.used, reset_bt)
    other = case.run(
        changed(x_btd, 1, -5 * x_btd[1]),
        jax.tree.map(lambda leaf: changed(leaf, 1, 0), case.used),
        changed(reset_bt, 1, ~reset_bt[1]),
    )
    close(*jax.tree.map(lambda leaf: leaf[[0, 2]], (other, before)), 1e-6)
    assert np.abs(other[0][1] - before[0][1]).max() > 1e-3


def order(case: Case) -> None:
    """What moves information along time knows the order of frames; the rest cannot."""
    x_btd = case.frames(7)
    shuffled = np.concatenate([x_btd[:, -2::-1], x_btd[:, -1:]], axis=1)
    difference = np.abs(case.run(shuffled)[0][:, -1] - case.run(x_btd)[0][:, -1])
    if case.temporal:
        assert (difference.max(axis=-1) > 1e-4).all()
    else:
        assert difference.max() == 0


def bfloat16(case: Case) -> None:
    """Computing in bfloat16 keeps float32 parameters and states. Shapes only."""
    module = case.module.clone(dtype=jnp.bfloat16)
    x_btd = case.frames(10).astype(jnp.bfloat16.dtype)
    made = shapes_of(module, x_btd, **case.given(x_btd))
    assert shapes(made) == shapes(case.variables)
    run = functools.partial(case.apply, module=module)
    reset_bt = np.zeros((BATCH, CHUNK), bool)
    y_btd, state = jax.eval_shape(run, case.variables, x_btd, case.fresh, reset_bt)
    assert y_btd.dtype == jnp.bfloat16
    assert shapes(state) == shapes(case.fresh)


def gradient(case: Case) -> None:
    """Every parameter and frame gets one; a call without a state starts fresh."""
    x_btd = case.frames(8)
    (of_params, of_x), fresh = case.gradient(x_btd)
    close(fresh, case.run(x_btd), 1e-5)
    for path, leaf in jax.tree_util.tree_flatten_with_path(of_params)[0]:
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.abs(leaf).max() > 1e-7, jax.tree_util.keystr(path)
    assert (np.abs(of_x).max(axis=(1, 2)) > 1e-7).all()


def extremes(case: Case) -> None:
    """Values and gradients are finite on zeros and on huge inputs."""
    x_btd = case.frames(9)
    for scaled in (np.zeros_like(x_btd), np.float32(1e3) * x_btd):
        for leaf in jax.tree.leaves(case.gradient(scaled)):
            assert np.isfinite(leaf).all()


FORWARD = {
    law.__name__: law
    for law in (typed, streaming, causal, reset, rows, order, bfloat16)
}
BACKWARD = {law.__name__: law for law in (gradient, extremes)}
