"""The optax chain: clip, AdamW by parameter group, schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbench.errors import InputError, nearest
from jaxbench.training.packed import Packed, group_of

SCHEDULES = (
    "constant",
    "cosine",
    "linear",
    "cosine_restarts",
    "exponential",
    "oscillating",
)
# Steps of the warm-up and of half a period of "oscillating".
OSCILLATION = 1000

# Last words of the names of parameters that never decay, however many axes they have:
# one number for each channel of each head, and tables of learned vectors.
UNDECAYED = frozenset(
    ("bias", "scale", "slope", "bonus", "embedding", "latents", "place", "types")
)

# (updates done, fraction of the budget that is spent) -> part of the peak rate.
Shape = Callable[[Any, Any], Any]


def schedule(name: str, *, warmup: float = 0.0, final_fraction: float = 0.0) -> Shape:
    """Builds the shape of a learning rate: linear warm-up from 0, then `name`.

    All but "oscillating" are functions of the fraction of the budget that is spent, so
    fast and slow models end at the same rate, whether steps are counted or seconds.

    Args:
      name: one of `SCHEDULES`. `cosine_restarts` has four cycles, each twice as long
        as the one before (SGDR, Loshchilov & Hutter 2017, arXiv:1608.03983).
        `oscillating` is that of the Elman benchmark, a function of the step alone:
        1000 steps of warm-up, then a cosine of period 2000 that is 0 at step 1000.
      warmup: fraction of the budget; the peak is reached at its end. The rate of the
        first update is 0 when it is positive.
      final_fraction: what is left of the peak at the end (cosine, linear,
        exponential; in each cycle of cosine_restarts; in the troughs of oscillating).
        Exponential needs it positive.

    Raises:
      InputError: unknown name, or a warm-up that is as long as the run.
    """
    if name not in SCHEDULES:
        raise InputError(
            f"train.schedule={name!r} is unknown; nearest: {nearest(name, SCHEDULES)}"
        )
    if name == "oscillating":
        return functools.partial(_oscillating, final_fraction)
    if warmup >= 1 and name != "constant":
        raise InputError(
            f"a warm-up of {warmup:g} of the run must be below 1 for schedule "
            f"{name!r}; lower it or train longer"
        )
    after = _after_warmup(name, final_fraction)

    def shape(step: Any, fraction: Any) -> Any:
        del step
        # A budget of seconds may be overdrawn by part of a dispatch.
        spent = jnp.clip((fraction - warmup) / max(1 - warmup, 1e-9), 0, 1)
        if warmup == 0:
            return after(spent)
        return jnp.where(fraction < warmup, fraction / warmup, after(spent))

    return shape


def _after_warmup(name: str, final: float) -> Callable[[Any], Any]:
    """The part of the peak at a fraction, from 0 to 1, of what follows the warm-up."""
    if name == "constant":
        return optax.constant_schedule(1.0)
    if name == "cosine":
        return optax.cosine_decay_schedule(1.0, 1, final)
    if name == "linear":
        return optax.linear_schedule(1.0, final, 1)
    if name == "exponential":
        if final <= 0:
            raise InputError(
                "train.schedule='exponential' needs train.final_fraction > 0"
            )
        return optax.exponential_decay(1.0, 1, final)
    lengths = [1 / 15, 2 / 15, 4 / 15, 8 / 15]
    return optax.join_schedules(
        [optax.cosine_decay_schedule(1.0, length, final) for length in lengths],
        [1 / 15, 3 / 15, 7 / 15],
    )


def _oscillating(final: float, step: Any, fraction: Any) -> Any:
    """Ignores how much of the budget is spent, as the original did."""
    del fraction
    wave = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * step / OSCILLATION))
    return jnp.where(step < OSCILLATION, step / OSCILLATION, wave)


def parameter_groups(params: Any) -> Any:
    """Labels each parameter, or each vector of packed ones: "ssm", "vector", "matrix".

    A parameter's name is the declaration of its role (see `jaxbench.mixers`). "ssm":
    the name starts with `ssm_`: no weight decay and a learning rate of its own.
    "vector": the last word of the name is one of `UNDECAYED`, or the parameter has
    fewer than two axes: no weight decay. "matrix": everything else (kernels, filters,
    recurrent weights, stored patterns), with weight decay.

    Axes alone do not tell: a norm of each head has a scale of [H, K], and stacked
    layers or runs side by side put an axis in front of everything.
    """
    if isinstance(params, Packed):
        return params.replace(vectors={name: group_of(name) for name in params.vectors})

    def label(path: tuple[Any, ...], leaf: jax.Array) -> str:
        name = str(path[-1].key)
        if name.startswith("ssm_"):
            return "ssm"
        decays = leaf.ndim >= 2 and name.rpartition("_")[2] not in UNDECAYED
        return "matrix" if decays else "vector"

    return jax.tree_util.tree_map_with_path(label, params)


class Rates(NamedTuple):
    """State of the last part of the chain, which scales updates by the learning rate.

    Attributes:
      step: int32 scalar, updates done.
      spent: float32 scalar, the fraction of the budget; see `spend`.
      learning_rate, ssm_learning_rate: float32 scalars, the peaks.
    """

    step: jax.Array
    spent: jax.Array
    learning_rate: jax.Array
    ssm_learning_rate: jax.Array


def adamw(
    *,
    shape: Shape,
    learning_rate: float,
    ssm_learning_rate: float,
    weight_decay: float,
    decay_vectors: bool,
    b1: float,
    b2: float,
    eps: float,
    clip_norm: float,
) -> optax.GradientTransformation:
    """AdamW by parameter group behind one global-norm clip.

    AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101. The clip sees the gradient of
    all groups together, before Adam; `clip_norm=0` leaves it out. The peak rates are
    numbers in the optimiser's state, not constants of the program: runs that differ in
    their rate alone share one compiled program.

    Takes a tree of parameters or a `Packed` one; both give the same updates.

    Args:
      shape: from `schedule`; the rate at update n is `learning_rate * shape(n, f)`,
        where f is what `spend` last wrote into the state.
      learning_rate: peak of the groups "matrix" and "vector".
      ssm_learning_rate: peak of the group "ssm".
      weight_decay: decoupled decay of the group "matrix".
      decay_vectors: whether "vector" and "ssm" parameters decay too, as the original
        Melee benchmark did.
      b1, b2, eps: Adam's moments and denominator floor.
      clip_norm: largest global gradient norm.
    """

    def decayed(params: Any) -> Any:
        groups = parameter_groups(params)
        return jax.tree.map(lambda group: group == "matrix", groups)

    def init(params: Any) -> Rates:
        del params
        peaks = (jnp.float32(learning_rate), jnp.float32(ssm_learning_rate))
        return Rates(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32), *peaks)

    def update(updates: Any, state: Rates, params: Any = None) -> tuple[Any, Rates]:
        del params
        part = shape(state.step, state.spent)
        usual, ssm = state.learning_rate * part, state.ssm_learning_rate * part

        def scale(leaf: jax.Array, group: str) -> jax.Array:
            return -(ssm if group == "ssm" else usual).astype(leaf.dtype) * leaf

        scaled = jax.tree.map(scale, updates, parameter_groups(updates))
        return scaled, state._replace(step=state.step + 1)

    return optax.chain(
        *([optax.clip_by_global_norm(clip_norm)] if clip_norm > 0 else []),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, None if decay_vectors else decayed),
        optax.GradientTransformation(init, update),
    )


def spend(opt_state: optax.OptState, fraction: jax.Array) -> optax.OptState:
    """Tells an optimiser of `adamw` which fraction of the budget is spent."""
    return optax.tree_utils.tree_set(opt_state, spent=fraction)
