"""How every primitive walks over frames: one by one, or in the form the table names.

A primitive gives its arrays [B, T, ...] as a tuple of trees, `frames`, and a step
`step(*frame, state, reset_b) -> (output, state)` on those without the time axis. What
is the same in every frame, as weights are, goes along by keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.forms import choose

# The state a call goes on from; None is the initial one, zero unless told otherwise.
Start = Array | None
# True where an episode starts, [B, T], in a step [B]; None is nowhere.
Resets = Array | None
# Outputs of all frames, and the state after the last one.
Result = tuple[Array, Array]

Tree = TypeVar("Tree")
Step = Callable[..., tuple[Any, Any]]


def scan_frames(
    step: Step, frames: tuple, state: Any, reset_bt: Array | None, **fixed: Any
) -> tuple[Any, Any]:
    """Runs `step` frame after frame, as a `*_reference` does: outputs, last state."""

    def body(state: Any, xs: tuple[tuple, Array | None]) -> tuple[Any, Any]:
        frame, reset_b = xs
        y, state = step(*frame, state, reset_b, **fixed)
        return state, y

    last, y = lax.scan(body, state, time_first((frames, reset_bt)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), y), last


def one_frame(
    step: Step, frames: tuple, state: Any, reset_bt: Array | None, **fixed: Any
) -> tuple[Any, Any]:
    """Runs `step` on a call with a single frame, T = 1."""
    frame, reset_b = jax.tree.map(lambda x: x[:, 0], (frames, reset_bt))
    y, state = step(*frame, state, reset_b, **fixed)
    return jax.tree.map(lambda x: x[:, None], y), state


def run(
    primitive: str,
    step: Step,
    forms: Mapping[str, Callable[..., tuple[Any, Any]]],
    frames: tuple,
    state: Any,
    reset_bt: Array | None,
    *,
    size: int,
    **fixed: Any,
) -> tuple[Any, Any]:
    """Runs a primitive in the form `forms.json` names; a single frame is a step.

    Args:
      primitive: its name in `forms.json`.
      step: one frame.
      forms: `form(*frames, state, reset_bt) -> (outputs, state)` by name; those with a
        number after the name, "chunks:32", take it as `chunk`.
      frames: trees of arrays [B, T, ...].
      state: from the call before; None is the initial one.
      size: floats of state per sequence.
      fixed: what does not change along time, for the step and for every form.

    Raises:
      ValueError: the table names a form that the primitive does not have.
    """
    length = jax.tree.leaves(frames)[0].shape[1]
    if length == 1:
        return one_frame(step, frames, state, reset_bt, **fixed)
    form = choose(primitive, length=length, state_size=size)
    name, _, chunk = form.partition(":")
    if name not in forms:
        raise ValueError(f"unknown form of {primitive}: {form!r}")
    if chunk:
        fixed["chunk"] = int(chunk)
    return forms[name](*frames, state, reset_bt, **fixed)


def time_first(tree: Tree) -> Tree:
    """[B, T, ...] as [T, B, ...], every array of a tree."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), tree)


def float32(tree: Tree) -> Tree:
    """Every array of a tree in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def zeros_unless(state: Array | None, shape: tuple[int, ...]) -> Array:
    """The state in float32, zeros where it is None."""
    return jnp.zeros(shape, jnp.float32) if state is None else float32(state)


def over(flag: Array, like: Array) -> Array:
    """A flag [B] or [B, T] with ones for the other axes of `like`."""
    return flag.reshape(flag.shape + (1,) * (like.ndim - flag.ndim))


def restart(flag: Array | None, tree: Tree) -> Tree:
    """Zero where an episode starts, every array of a tree as it is elsewhere."""
    if flag is None:
        return tree

    def zero(x: Array) -> Array:
        nothing = False if x.dtype == bool else 0
        return jnp.where(over(flag, x), nothing, x)

    return jax.tree.map(zero, tree)


def before(first: Array, after: Array, flag: Array | None, axis: int = 1) -> Array:
    """The state each frame starts from: the one before it, or zero after a reset.

    Args:
      first: what the first frame starts from.
      after: the states after all frames, time along `axis`.
      flag: resets, the first axes those of `after`; None is nowhere.
      axis: 0 or 1.
    """
    earlier = lax.slice_in_dim(after, 0, after.shape[axis] - 1, axis=axis)
    starts = jnp.concatenate([jnp.expand_dims(first, axis), earlier], axis=axis)
    return restart(flag, starts)


def product(x: Array, kernel: Array) -> Array:
    """x @ kernel in the kernel's dtype, summed and returned in float32."""
    x = x.astype(kernel.dtype)
    return jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
