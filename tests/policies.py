"""Small untrained policies, and what training's programs say of the same frames."""

from __future__ import annotations

import functools

import jax
import numpy as np
from drawn import draw

from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.serving.policy import Policy
from jaxbench.serving.weights import example_batch
from jaxbench.tasks.zelda import controller, frames, imitation, windows

WINDOW = 8


@functools.lru_cache(maxsize=16)
def make_model(backbone, head="independent", width=16, depth=1):
    """A model and variables in which everything differs from its initial value."""
    encoder, output = imitation.modules("clean", width=width, head=head)
    stack = build_stack(backbone, width=width, depth=depth)
    model = Model(encoder=encoder, stack=stack, head=output, readout="last")
    batch = example_batch(2)
    if backbone == "gru":  # any values will do for its parameters
        return model, {"constants": {}} | jax.device_put(draw(model, batch))
    variables = jax.jit(lambda: dict(model.init(jax.random.key(0), batch)))()
    leaves, tree = jax.tree.flatten(variables["params"])
    rng = np.random.default_rng(1)
    moved = [x + 0.1 * rng.standard_normal(x.shape).astype(x.dtype) for x in leaves]
    constants = variables.get("constants", {})
    return model, {"params": jax.tree.unflatten(tree, moved), "constants": constants}


@functools.lru_cache(maxsize=16)
def make_policy(backbone="gru", head="independent", depth=1, **settings):
    """A policy of `make_model`; the same one for the same arguments."""
    model, variables = make_model(backbone, head, depth=depth)
    return Policy.of(model, variables, **{"window": WINDOW} | settings)


def batch_logits(policy, game, player, delay=0):
    """What training's evaluation gives at every stored frame: logits and labels.

    In window mode of each frame's window, else of the game as one long sequence.
    """
    arrays, perspectives = frames.store(
        [game], [(0, player)], delay=delay, drop_idle=False
    )
    length = perspectives[0].length
    whole = policy.mode == "stateful"
    gather = windows.clean_gather(length if whole else policy.window, delay, "last")
    last = np.array([length - 1]) if whole else np.arange(length)
    examples = np.stack([np.zeros_like(last), last], axis=1).astype(np.int32)

    def evaluate(model, batch):
        h_btd, _ = model.stack(
            model.encoder(batch), None, batch["reset_bt"], last_only=not whole
        )
        labels = model.head.sample(h_btd, jax.random.key(0), 0.0)
        return model.head(h_btd, {"target_bta": labels}), labels

    def program(arrays, examples):
        batch = dict(gather(arrays, examples))
        return policy.model.apply(policy.variables, batch, method=evaluate)

    logits, labels = jax.device_get(jax.jit(program)(arrays, examples))
    # [1, T, ...] of the sequence, [T, 1, ...] of the windows.
    flat = {name: x.reshape(length, -1) for name, x in logits.items()}
    return flat, labels.reshape(length, 6)


def human_labels(game, player):
    """The controllers of a player, int32 [T, 6]."""
    leader = game.players[player].leader
    return controller.encode(leader.pre, "clean").astype(np.int32)
