"""The optax chain: clip, AdamW by parameter group, schedule."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jaxbench.errors import InputError, nearest

SCHEDULES = ("constant", "cosine", "linear", "cosine_restarts", "exponential")


def schedule(
    name: str,
    *,
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    final_fraction: float = 0.0,
) -> optax.Schedule:
    """Builds a learning-rate schedule: linear warm-up from 0, then `name`.

    Args:
      name: one of `SCHEDULES`. `cosine_restarts` has four cycles, each twice as long
        as the one before (SGDR, Loshchilov & Hutter 2017, arXiv:1608.03983).
      learning_rate: peak, reached at step `warmup_steps`.
      warmup_steps: updates of the warm-up; update 0 has rate 0 when it is positive.
      total_steps: updates of the whole run, warm-up included.
      final_fraction: what is left of the peak at the end (cosine, linear,
        exponential; in each cycle of cosine_restarts). Exponential needs it positive.

    Raises:
      InputError: unknown name, or a warm-up that is longer than the run.
    """
    if name not in SCHEDULES:
        raise InputError(
            f"train.schedule={name!r} is unknown; nearest: {nearest(name, SCHEDULES)}"
        )
    if warmup_steps >= total_steps and name != "constant":
        raise InputError(
            f"train.warmup_steps={warmup_steps} must be below the run's {total_steps} "
            f"steps for schedule {name!r}; lower it or train longer"
        )
    steps = max(total_steps - warmup_steps, 1)
    if name == "constant":
        after = optax.constant_schedule(learning_rate)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, steps, final_fraction)
    elif name == "linear":
        after = optax.linear_schedule(
            learning_rate, learning_rate * final_fraction, steps
        )
    elif name == "exponential":
        if final_fraction <= 0:
            raise InputError(
                "train.schedule='exponential' needs train.final_fraction > 0"
            )
        after = optax.exponential_decay(learning_rate, steps, final_fraction)
    else:
        first = max(steps // 15, 1)
        lengths = [first, 2 * first, 4 * first]
        lengths.append(max(steps - sum(lengths), 1))
        after = optax.join_schedules(
            [
                optax.cosine_decay_schedule(learning_rate, length, final_fraction)
                for length in lengths
            ],
            [lengths[0], sum(lengths[:2]), sum(lengths[:3])],
        )
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def parameter_groups(params: Any) -> Any:
    """Labels each parameter: "ssm", "vector" or "matrix".

    "ssm": the leaf's name starts with `ssm_` (see `jaxbench.mixers`): no weight decay
    and a learning rate of its own. "vector": fewer than two axes (biases, norm
    scales): no weight decay. "matrix": everything else, with weight decay.
    """

    def label(path: tuple[Any, ...], leaf: jax.Array) -> str:
        if str(path[-1].key).startswith("ssm_"):
            return "ssm"
        return "matrix" if leaf.ndim >= 2 else "vector"

    return jax.tree_util.tree_map_with_path(label, params)


def adamw(
    *,
    shape: optax.Schedule,
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

    Args:
      shape: schedule with peak 1; the rate at update n is `learning_rate * shape(n)`.
      learning_rate: peak of the groups "matrix" and "vector".
      ssm_learning_rate: peak of the group "ssm".
      weight_decay: decoupled decay of the group "matrix".
      decay_vectors: whether "vector" and "ssm" parameters decay too, as the original
        Melee benchmark did.
      b1, b2, eps: Adam's moments and denominator floor.
      clip_norm: largest global gradient norm.
    """

    def group(peak: float, decay: float) -> optax.GradientTransformation:
        def at_peak(learning_rate: Any) -> optax.GradientTransformation:
            def rate(count: Any) -> Any:
                return learning_rate * shape(count)

            return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=decay)

        return optax.inject_hyperparams(at_peak)(learning_rate=peak)

    small_decay = weight_decay if decay_vectors else 0.0
    by_group = optax.multi_transform(
        {
            "matrix": group(learning_rate, weight_decay),
            "vector": group(learning_rate, small_decay),
            "ssm": group(ssm_learning_rate, small_decay),
        },
        parameter_groups,
    )
    if clip_norm <= 0:
        return by_group
    return optax.chain(optax.clip_by_global_norm(clip_norm), by_group)
