"""The laws of primitives, of every form: a float64 loop says what is right."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from oracles import check_slopes, tree_error

# form(frames, fixed, state, reset_bt) -> (outputs, state), on trees of arrays.
Form = Callable[..., tuple[Any, Any]]
# Several chunks of every form that has some, and frames left over.
LENGTH, LONG = 65, 301


@dataclasses.dataclass(frozen=True)
class Primitive:
    """A primitive of `jaxbench.ops` as the laws see it.

    Attributes:
      forms: by name, with "reference", the plain one, and "chosen", the dispatcher.
      step: the form of one frame, without the time axis.
      loop: a form in float64, one frame after the other.
      draw: `draw(rng, length) -> frames, fixed, state`, float32 or complex64: what
        comes with every frame, what does not change along time, and a state.
      near: largest error of values, in units of the largest value and one.
      close: largest error of gradients beside those of the reference.
      slope: largest error of those beside differences of the loop `nudge` apart.
      rate: share of frames at which an episode starts.
      start: `start(fixed, state)`, the state of an episode's start; zeros by default.
    """

    forms: Mapping[str, Form]
    step: Form
    loop: Form
    draw: Callable[[np.random.Generator, int], tuple[Any, Any, Any]]
    near: float = 4e-6
    close: float = 1e-5
    slope: float = 1e-5
    nudge: float = 1e-6
    rate: float = 0.08
    start: Callable[[Any, Any], Any] = lambda fixed, state: jax.tree.map(
        np.zeros_like, state
    )

    def sample(self, length: int, seed: int) -> tuple[Any, Any, Any, np.ndarray]:
        """Frames, what is fixed, state and resets; one sequence goes on at frame 0."""
        rng = np.random.default_rng([seed, length])
        drawn = self.draw(rng, length)
        batch = jax.tree.leaves(drawn[0])[0].shape[0]
        reset_bt = rng.random((batch, length)) < self.rate
        reset_bt[:, 0] = np.arange(batch) == 1
        return *drawn, reset_bt


def inexact(x: Any) -> bool:
    """Whether an array holds real or complex numbers, and no counts or flags."""
    return np.issubdtype(x.dtype, np.inexact)


def doubles(tree: Any) -> Any:
    """The same numbers in float64 or complex128."""

    def double(x):
        return np.asarray(x, np.result_type(x, np.float64)) if inexact(x) else x

    return jax.tree.map(double, tree)


def exact(p: Primitive) -> None:
    """Values and gradients are the loop's, from any state and with resets."""
    for length in (1, LENGTH):
        _exact_at(p, length)


def _exact_at(p: Primitive, length: int) -> None:
    *inputs, reset_bt = p.sample(length, seed=1)
    rng = np.random.default_rng(2)
    right = p.loop(*doubles(inputs), reset_bt)
    weights = []
    for x in filter(inexact, jax.tree.leaves(right)):
        parts = rng.normal(size=(2, *x.shape))
        weights.append(parts[0] + 1j * parts[1] if np.iscomplexobj(x) else parts[0])
    leaves, tree = jax.tree.flatten(inputs)
    places = [i for i, x in enumerate(leaves) if inexact(x)]
    moving = [leaves[i] for i in places]

    def loss(run, xp, *moved):
        moved = dict(zip(places, moved, strict=True))
        inputs = tree.unflatten([moved.get(i, x) for i, x in enumerate(leaves)])
        result = run(*inputs, reset_bt)
        found = list(filter(inexact, jax.tree.leaves(result)))
        total = 0.1 * xp.sum(xp.abs(found[0]) ** 2)
        for weight, x in zip(weights, found, strict=True):
            total += xp.sum(xp.real(weight * x))
        return total, result

    def gradients(name):
        of_form = functools.partial(loss, p.forms[name], jnp)
        every = tuple(range(len(moving)))
        return jax.jit(jax.grad(of_form, every, has_aux=True))(*moving)

    want, plain = gradients("reference")
    assert tree_error(plain, right) < p.near
    # A single frame is a step; of more, what is chosen is among the others.
    others = p.forms.keys() - {"reference", "chosen"} if length > 1 else ()
    for name in sorted(others) or ["chosen"]:
        got, values = gradients(name)
        assert tree_error(values, right) < p.near, name
        assert tree_error(got, want) < p.close, name

    def of_loop(*moved):
        return loss(p.loop, np, *moved)[0]

    slopes = {"tolerance": p.slope, "step": p.nudge, "least": 1e-6}
    check_slopes(want, moving, of_loop, rng, **slopes)


def fresh(p: Primitive) -> None:
    """No state is that of an episode's start, and no resets are none."""
    frames, fixed, state, reset_bt = p.sample(33, seed=3)
    given = doubles((frames, fixed, p.start(fixed, state)))
    right = p.loop(*given, np.zeros_like(reset_bt))
    for name, form in p.forms.items():
        got = jax.jit(form)(frames, fixed, None, None)
        assert tree_error(got, right) < p.near, name


def streaming(p: Primitive) -> None:
    """The whole is chunks is steps over a long run, and does not drift."""
    frames, fixed, state, reset_bt = p.sample(LONG, seed=4)
    run, step = jax.jit(p.forms["chosen"]), jax.jit(p.step)
    whole, last = run(frames, fixed, state, reset_bt)
    right = p.loop(*doubles((frames, fixed, state)), reset_bt)
    assert tree_error((whole, last), right) < 2 * p.near

    def part(tree, at):
        return jax.tree.map(lambda x: x[:, at], tree)

    middle, now, parts = LONG // 2, state, []
    for at in (slice(0, 1), slice(1, middle), slice(middle, LONG)):
        y, now = run(part(frames, at), fixed, now, reset_bt[:, at])
        parts.append(y)
    joined = jax.tree.map(lambda *x: np.concatenate(x, 1), *parts)
    assert tree_error((joined, now), (whole, last)) < p.near
    now = state
    for t in range(LONG):
        y, now = step(part(frames, t), fixed, now, reset_bt[:, t])
        assert tree_error(y, part(whole, t)) < 2 * p.near, t
    assert tree_error(now, last) < p.near


def bfloat16(p: Primitive) -> None:
    """Frames of half the precision leave a state of the full one. Shapes only."""
    frames, fixed, state, _ = p.sample(LENGTH, seed=5)

    def half(x):
        return x if np.iscomplexobj(x) else jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)

    low = jax.tree.map(half, frames)
    for name, form in p.forms.items():
        _, last = jax.eval_shape(form, low, fixed, None, None)
        for found, wanted in zip(
            jax.tree.leaves(last), jax.tree.leaves(state), strict=True
        ):
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name


def known(p: Primitive) -> None:
    """Gradients are the reference's where no state or no resets are known to be there.

    For forms that leave out what they need not compute.
    """
    frames, fixed, state, reset_bt = p.sample(LENGTH, seed=7)
    for start, flags in ((None, None), (state, None), (None, reset_bt)):

        def gradients(name, start=start, flags=flags):
            def loss(frames, fixed):
                result = p.forms[name](frames, fixed, start, flags)
                found = list(filter(inexact, jax.tree.leaves(result)))
                total = 0.1 * jnp.sum(jnp.abs(found[0]) ** 2)
                return total + sum(jnp.sum(jnp.real(x)) for x in found)

            return jax.jit(jax.grad(loss, (0, 1)))(frames, fixed)

        want = gradients("reference")
        for name in sorted(p.forms.keys() - {"reference", "chosen"}) or ["chosen"]:
            assert tree_error(gradients(name), want) < p.close, name


def half(p: Primitive) -> None:
    """Gradients of kernels in bfloat16 are near the reference's, and in bfloat16."""
    frames, fixed, state, _ = p.sample(33, seed=6)
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (frames, fixed))

    def gradients(name):
        def loss(low):
            y, last = p.forms[name](*low, state, None)
            return sum(jnp.mean(x**2) for x in jax.tree.leaves((y, last)))

        return jax.tree.leaves(jax.jit(jax.grad(loss))(low))

    want = gradients("reference")
    for name in p.forms:
        for x, y in zip(gradients(name), want, strict=True):
            assert x.dtype == jnp.bfloat16
            x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
            assert np.abs(x - y).max() < 0.05 * np.abs(y).max(), name


LAWS = {law.__name__: law for law in (exact, fresh, streaming, bfloat16)}
