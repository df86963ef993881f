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

from jaxbench.tasks.task import Batch, Statistics
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.encoder import buttons

NEUTRAL_LEVEL = 8
MOST_CLASSES = max(controller.CLASSES[name] for name in controller.COMPONENTS[1:])
# Below every logit; its softmax is 0 and its gradient too.
IMPOSSIBLE = -1e30
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

    Returns:
      `loss(outputs, batch) -> (mean, sums)`; batch needs target_bta, previous_bta,
      valid_bt and weight_b, outputs the logits [B, T', K] of every group.
    """
    plain = label_smoothing == 0 and focal_gamma == 0
    unit = button_weight == 1 and stick_edge_weight == 1

    def loss(
        outputs: Mapping[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, Statistics]:
        target = batch["target_bta"]
        previous = batch["previous_bta"][:, -target.shape[1] :]
        weight = batch["weight_b"][:, None] * batch["valid_bt"].astype(jnp.float32)
        terms_btk = _terms(outputs, target, 0.0, 0.0)
        objective = (
            terms_btk
            if plain
            else _terms(outputs, target, label_smoothing, focal_gamma)
        )
        if not unit:
            objective = _reweighted(objective, target, button_weight, stick_edge_weight)
        total = jnp.sum(weight[..., None] * objective)
        statistics = {
            "weight": jnp.sum(weight),
            "objective": total,
            "loss": jnp.sum(weight[..., None] * terms_btk, axis=(0, 1)),
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
    losses = zip(names, s["loss"], strict=True)
    terms = {f"loss/{name}": ratio(value, weight) for name, value in losses}
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
    true, said, pressed = s["buttons"]
    right, changed, changed_right = s["labels"]
    seen = (said + pressed) > 0
    per_button = 2 * true[seen] / (said + pressed)[seen]
    return {
        **{f"accuracy/{k}": ratio(right[i], weight) for i, k in enumerate(names)},
        "accuracy/buttons_exact": ratio(right[-1], weight),
        "f1/buttons_micro": ratio(2 * true.sum(), (said + pressed).sum()),
        "f1/buttons_macro": float(per_button.mean()) if seen.any() else 0.0,
        **{
            f"change/{k}": ratio(changed_right[i], changed[i])
            for i, k in enumerate((*names, "any"))
        },
        "change/frames": float(changed[-1]),
    }


def ratio(top: np.ndarray, bottom: np.ndarray) -> float:
    """top / bottom, 0 where nothing was counted."""
    return float(top / bottom) if bottom > 0 else 0.0


def _terms(
    outputs: Mapping[str, jax.Array], target: jax.Array, eps: float, gamma: float
) -> jax.Array:
    """Loss of every group at every scored frame, [B, T', 6]."""
    pressed = buttons(target[..., 0]).astype(jnp.float32)
    binary = _binary(outputs["buttons"], pressed, eps, gamma).mean(-1, keepdims=True)
    categorical = _categorical(_levels(outputs, target), target[..., 1:], eps, gamma)
    return jnp.concatenate([binary, categorical], axis=-1)


def _levels(outputs: Mapping[str, jax.Array], target: jax.Array) -> jax.Array:
    """Logits of all groups but the buttons, [B, T', 5, 17]: one operation for five.

    A class that a group has not is impossible: it changes no sum and no argmax.
    """
    groups = []
    for name in controller.COMPONENTS[1:]:
        logits, classes = outputs[name], controller.CLASSES[name]
        expected = (*target.shape[:-1], classes)
        if logits.shape != expected:
            raise ValueError(f"logits {name} have shape {logits.shape}, not {expected}")
        more = [(0, 0)] * (logits.ndim - 1) + [(0, MOST_CLASSES - classes)]
        groups.append(jnp.pad(logits, more, constant_values=IMPOSSIBLE))
    return jnp.stack(groups, axis=-2)


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
    classes = [controller.CLASSES[name] for name in controller.COMPONENTS[1:]]
    off = jnp.asarray([eps / (k - 1) for k in classes], jnp.float32)[None, None]
    known = jnp.where(logits > IMPOSSIBLE, log_p, 0)
    term = -((1 - eps - off) * true + off * known.sum(-1))
    if gamma == 0:
        return term
    return term * _focal((1 - eps - off) * jnp.exp(true) + off, gamma)


def _focal(p: jax.Array, gamma: float) -> jax.Array:
    # The floor keeps the gradient of x^gamma finite at x = 0 for gamma < 1.
    return jnp.maximum(1 - p, 1e-6) ** gamma


def _reweighted(
    terms_btk: jax.Array, target: jax.Array, button: float, edge: float
) -> jax.Array:
    away = jnp.abs(target[..., 1:3] - NEUTRAL_LEVEL) / NEUTRAL_LEVEL
    one = jnp.ones_like(terms_btk[..., :1])
    rest = jnp.ones_like(terms_btk[..., 3:])
    factors = [button * one, 1 + (edge - 1) * away, rest]
    return terms_btk * jnp.concatenate(factors, axis=-1)


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

    Returns:
      labels [3, 7]: what is right, what differs from before, and what is both, of the
      six groups, of the buttons' right ones the share, and last of all eight buttons
      (right) or of all six groups (the others). buttons [3, 8]: pressed and said so,
      said, pressed.
    """
    true, before = buttons(target[..., 0]), buttons(previous[..., 0])
    said = outputs["buttons"] > 0
    same, differ = said == true, true != before
    exact = same.all(-1, keepdims=True)
    level = jnp.argmax(_levels(outputs, target), -1)
    correct, moved = level == target[..., 1:], target[..., 1:] != previous[..., 1:]
    any_moved = (target != previous).any(-1, keepdims=True)
    all_right = exact & correct.all(-1, keepdims=True)
    labels = jnp.concatenate(
        [
            same.mean(-1, keepdims=True),
            correct,
            exact,
            differ.sum(-1, keepdims=True),
            moved,
            any_moved,
            (differ & same).sum(-1, keepdims=True),
            moved & correct,
            any_moved & all_right,
        ],
        axis=-1,
        dtype=jnp.float32,
    )
    pressed = jnp.concatenate([said & true, said, true], axis=-1)
    sums = jnp.sum(
        weight[..., None] * jnp.concatenate([labels, pressed], -1), axis=(0, 1)
    )
    return {"labels": sums[:21].reshape(3, 7), "buttons": sums[21:].reshape(3, 8)}
