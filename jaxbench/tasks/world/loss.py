"""The error of the next frame, and what is told of it.

    loss = (state_error + 0.2 action_state_nats) + 0.5 reward_error + 0.1 done_nats

The mean over frames at which both can act; the parts in brackets only count where the
episode goes on. `state_error` of the metrics is the squared error of the next state
over the variance of its change in training, the mean over the state: predicting the
mean change comes to about 1, whatever the model is trained to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbench.tasks.task import Batch, Statistics
from jaxbench.tasks.world import frame, states

STATE_WEIGHT, ACTION_STATE_WEIGHT, REWARD_WEIGHT, DONE_WEIGHT = 1.0, 0.2, 0.5, 0.1
_POSITION = states.columns("position")
Loss = Callable[[Any, Batch], tuple[jax.Array, Statistics]]


def make(scales: frame.Scales, residual: bool) -> Loss:
    """Builds `Task.loss` of batches that `windows.make_gather` cuts.

    Its statistics are sums over frames, of states by column; "weight" counts the frames
    at which both can act, "valid" those of them whose next frame is scored.
    """
    one = np.ones_like(np.asarray(scales.std))
    # From the scale that is learned to that of changes.
    ratio_s = one if residual else np.asarray(scales.std) / scales.change_std

    def loss(
        outputs: Mapping[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, Statistics]:
        alive_bt = batch["weight_b"][:, None] * batch["alive_bt"]
        valid_bt = batch["weight_b"][:, None] * batch["valid_bt"]
        off_bts = outputs["state_bts"] - batch["target_bts"]
        squares_bts = valid_bt[..., None] * jnp.square(off_bts)
        nats_btn = optax.softmax_cross_entropy_with_integer_labels(
            outputs["action_state_btnk"], batch["next_action_state_btn"]
        )
        nats = jnp.sum(valid_bt * nats_btn.mean(-1))
        reward_off = alive_bt * jnp.square(outputs["reward_bt"] - batch["reward_bt"])
        done_nats = alive_bt * optax.sigmoid_binary_cross_entropy(
            outputs["done_bt"], batch["done_bt"]
        )
        total = (
            STATE_WEIGHT * jnp.sum(squares_bts) / squares_bts.shape[-1]
            + ACTION_STATE_WEIGHT * nats
            + REWARD_WEIGHT * jnp.sum(reward_off)
            + DONE_WEIGHT * jnp.sum(done_nats)
        )
        weight = jnp.sum(alive_bt)
        statistics = {
            "weight": weight,
            "valid": jnp.sum(valid_bt),
            "loss": total,
            "state": jnp.sum(squares_bts, axis=(0, 1)) * jnp.square(ratio_s),
            "reward": jnp.sum(reward_off),
            "done": jnp.sum(done_nats),
            "action_state": nats,
        }
        learned = off_bts * ratio_s[None, None] * scales.change_std[None, None]
        return total / jnp.maximum(weight, 1.0), statistics | _counts(
            outputs, batch, valid_bt, learned
        )

    return loss


def summarize(statistics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics from summed statistics; see `made` for what floors share of them."""
    s = statistics
    weight, valid = float(s["weight"]), max(float(s["valid"]), 1.0)
    changes = float(s["changes"])
    return {
        **made(np.asarray(s["state"]) / valid, float(s["distance"]) / valid),
        "action_state_accuracy": float(s["right"]) / valid,
        "action_state_accuracy/changes": float(s["changes_right"]) / max(changes, 1.0),
        "action_state_nats": float(s["action_state"]) / valid,
        "reward_error": float(s["reward"]) / weight,
        "done_nats": float(s["done"]) / weight,
        "loss": float(s["loss"]) / weight,
        "frames": weight,
    }


def made(error_s: np.ndarray, distance: float) -> dict[str, float]:
    """Metrics of the state: the error, by group, and the distance of positions.

    Args:
      error_s: mean squared error over the variance of changes, [STATE].
      distance: mean distance of a fighter from where it came to be, in units.
    """
    groups = {
        f"state_error/{name}": float(error_s[states.columns(name)].mean())
        for name in states.GROUPS
    }
    return {"state_error": float(error_s.mean()), "distance": distance, **groups}


def _counts(
    outputs: Mapping[str, jax.Array],
    batch: Batch,
    valid_bt: jax.Array,
    off_bts: jax.Array,
) -> Statistics:
    """Distances of both fighters' positions, and how often their next state is known.

    A change is a fighter whose action state is another one at the next frame.
    """
    distance_btn = jnp.sqrt(jnp.sum(jnp.square(off_bts[..., _POSITION]), axis=-1))
    said_btn = jnp.argmax(outputs["action_state_btnk"], axis=-1)
    right_btn = said_btn == batch["next_action_state_btn"]
    changed_btn = batch["action_state_btn"] != batch["next_action_state_btn"]
    return {
        "distance": jnp.sum(valid_bt * distance_btn.mean(-1)),
        "right": jnp.sum(valid_bt * right_btn.mean(-1)),
        "changes": jnp.sum(valid_bt * changed_btn.sum(-1)),
        "changes_right": jnp.sum(valid_bt * (changed_btn & right_btn).sum(-1)),
    }
