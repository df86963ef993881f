"""The loss of six groups, its statistics, and what they mean.

    L = BCE(buttons; mean over the 8) + CE(main_x) + CE(main_y) + CE(c_x) + CE(c_y)
        + CE(shoulder)

in nats, averaged over the scored frames. Uniform logits cost
ln 2 + 4 ln 17 + ln 5 = 13.635.

The options change only what is minimised. The metrics `loss` and `loss/*` are always
the plain terms above, so that runs with different options, and floors, compare.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.errors import InputError
from jaxbench.tasks.task import Batch, Statistics
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.encoder import buttons

NEUTRAL_LEVEL = 8
Loss = Callable[[Mapping[str, jax.Array], Batch], tuple[jax.Array, Statistics]]


@functools.cache
def make(
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    button_weight: float = 1.0,
    stick_edge_weight: float = 1.0,
) -> Loss:
    """Builds `Task.loss`.

    Args:
      label_smoothing: eps. A button's target t becomes t (1 - 2 eps) + eps; of K
        classes the true one gets 1 - eps, every other eps / (K - 1).
      focal_gamma: every term is multiplied by (1 - p_t)^gamma, p_t the probability
        that the prediction gives to the (smoothed) target. 0 is off.
      button_weight: factor on the button term.
      stick_edge_weight: the main stick's terms are multiplied by
        1 + (e - 1) |b - 8| / 8 where b is the true level. 1 is off.

    Raises:
      InputError: an option out of its range.

    Returns:
      `loss(outputs, batch) -> (mean, sums)`; batch needs target_bta, previous_bta,
      valid_bt and weight_b, outputs the logits [B, T', K] of every group.
    """
    if not 0 <= label_smoothing < 0.5:
        raise InputError(f"label_smoothing={label_smoothing}: must be in [0, 0.5)")
    for name, value in (
        ("focal_gamma", focal_gamma),
        ("button_weight", button_weight),
        ("stick_edge_weight", stick_edge_weight),
    ):
        if not 0 <= value < float("inf"):
            raise InputError(f"{name}={value}: must be a finite number >= 0")
    plain = label_smoothing == 0 and focal_gamma == 0
    unit = button_weight == 1 and stick_edge_weight == 1

    def loss(
        outputs: Mapping[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, Statistics]:
        target = batch["target_bta"]
        previous = batch["previous_bta"][:, -target.shape[1] :]
        weight = batch["weight_b"][:, None] * batch["valid_bt"].astype(jnp.float32)
        terms = _terms(outputs, target, 0.0, 0.0)
        objective = (
            terms if plain else _terms(outputs, target, label_smoothing, focal_gamma)
        )
        if not unit:
            objective = _reweighted(objective, target, button_weight, stick_edge_weight)
        total = jnp.sum(jnp.stack([jnp.sum(weight * t) for t in objective.values()]))
        statistics = {
            "weight": jnp.sum(weight),
            "objective": total,
            **{f"loss/{k}": jnp.sum(weight * term) for k, term in terms.items()},
            **counts(outputs, target, previous, weight),
        }
        return total / jnp.maximum(statistics["weight"], 1e-9), statistics

    return loss


def summarize(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of summed statistics.

    Returns:
      loss, loss/<group>: nats. objective: what was minimised. accuracy/<group>
      (buttons: mean over the 8), accuracy/buttons_exact (all 8 right). f1/buttons_micro
      over all presses, f1/buttons_macro over the buttons that were pressed or
      predicted. change/<group>: accuracy where that group's true label differs from
      the previous controller (buttons: over the single buttons that differ);
      change/any: all six right where any differs; change/frames: how many frames those
      are, by weight. Repeating the previous controller scores 0 on every change/
      accuracy. A ratio over nothing is 0.
    """
    s = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    weight = s["weight"]
    names = controller.COMPONENTS
    terms = {f"loss/{name}": ratio(s[f"loss/{name}"], weight) for name in names}
    return {
        "loss": sum(terms.values()),
        **terms,
        "objective": ratio(s["objective"], weight),
        **accuracies(s),
    }


def accuracies(s: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The metrics of `summarize` that come from `counts`: those of decided labels.

    Args:
      s: summed statistics as float64, `weight` among them.
    """
    weight, names = s["weight"], controller.COMPONENTS
    true, said, pressed = (s[f"buttons/{k}"] for k in ("true", "said", "pressed"))
    seen = (said + pressed) > 0
    per_button = 2 * true[seen] / (said + pressed)[seen]
    return {
        **{f"accuracy/{k}": ratio(s[f"right/{k}"], weight) for k in names},
        "accuracy/buttons_exact": ratio(s["right/buttons_exact"], weight),
        "f1/buttons_micro": ratio(2 * true.sum(), (said + pressed).sum()),
        "f1/buttons_macro": float(per_button.mean()) if seen.any() else 0.0,
        **{
            f"change/{k}": ratio(s[f"changed_right/{k}"], s[f"changed/{k}"])
            for k in (*names, "any")
        },
        "change/frames": float(s["changed/any"]),
    }


def ratio(top: np.ndarray, bottom: np.ndarray) -> float:
    """top / bottom, 0 where nothing was counted."""
    return float(top / bottom) if bottom > 0 else 0.0


def _terms(
    outputs: Mapping[str, jax.Array], target: jax.Array, eps: float, gamma: float
) -> dict[str, jax.Array]:
    """Loss of every group at every scored frame, [B, T']."""
    pressed = buttons(target[..., 0]).astype(jnp.float32)
    terms = {"buttons": _binary(outputs["buttons"], pressed, eps, gamma).mean(-1)}
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        _check(name, outputs[name], target)
        terms[name] = _categorical(outputs[name], target[..., i], eps, gamma)
    return terms


def _binary(logits: jax.Array, t: jax.Array, eps: float, gamma: float) -> jax.Array:
    t = t * (1 - 2 * eps) + eps
    term = jax.nn.softplus(logits) - t * logits
    if gamma == 0:
        return term
    p = jax.nn.sigmoid(logits)
    return term * _focal(t * p + (1 - t) * (1 - p), gamma)


def _categorical(
    logits: jax.Array, label: jax.Array, eps: float, gamma: float
) -> jax.Array:
    log_p = jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_p, label[..., None], axis=-1)[..., 0]
    if eps == 0 and gamma == 0:
        return -true
    off = eps / (logits.shape[-1] - 1)
    term = -((1 - eps - off) * true + off * log_p.sum(-1))
    if gamma == 0:
        return term
    return term * _focal((1 - eps - off) * jnp.exp(true) + off, gamma)


def _focal(p: jax.Array, gamma: float) -> jax.Array:
    # The floor keeps the gradient of x^gamma finite at x = 0 for gamma < 1.
    return jnp.maximum(1 - p, 1e-6) ** gamma


def _reweighted(
    terms: dict[str, jax.Array], target: jax.Array, button: float, edge: float
) -> dict[str, jax.Array]:
    scaled = terms | {"buttons": terms["buttons"] * button}
    for i, name in ((1, "main_x"), (2, "main_y")):
        away = jnp.abs(target[..., i] - NEUTRAL_LEVEL) / NEUTRAL_LEVEL
        scaled[name] = terms[name] * (1 + (edge - 1) * away)
    return scaled


def counts(
    outputs: Mapping[str, jax.Array],
    target: jax.Array,
    previous: jax.Array,
    weight: jax.Array,
) -> Statistics:
    """Sums behind accuracies, F1 and accuracies on changes.

    Args:
      outputs: [B, T', K] of every group; of them, the sign of a button's and the
        largest of the others' count.
      target, previous: labels [B, T', 6].
      weight: of the frames, [B, T'].
    """
    true, before = buttons(target[..., 0]), buttons(previous[..., 0])
    said = outputs["buttons"] > 0
    right = {"buttons": (said == true).astype(jnp.float32).mean(-1)}
    moved = {"buttons": (true != before).astype(jnp.float32).sum(-1)}
    moved_right = {"buttons": ((true != before) & (said == true)).sum(-1)}
    all_right = (said == true).all(-1)
    sums = {"right/buttons_exact": jnp.sum(weight * all_right)}
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        correct = jnp.argmax(outputs[name], -1) == target[..., i]
        moved[name] = target[..., i] != previous[..., i]
        moved_right[name] = moved[name] & correct
        right[name] = correct
        all_right &= correct
    moved["any"] = (target != previous).any(-1)
    moved_right["any"] = moved["any"] & all_right
    for kind, values in (
        ("right", right),
        ("changed", moved),
        ("changed_right", moved_right),
    ):
        for name, value in values.items():
            sums[f"{kind}/{name}"] = jnp.sum(weight * value)
    for kind, hits in (("true", said & true), ("said", said), ("pressed", true)):
        sums[f"buttons/{kind}"] = jnp.sum(weight[..., None] * hits, axis=(0, 1))
    return sums


def _check(name: str, logits: jax.Array, target: jax.Array) -> None:
    expected = (*target.shape[:-1], controller.CLASSES[name])
    if logits.shape != expected:
        raise ValueError(f"logits {name} have shape {logits.shape}, not {expected}")
