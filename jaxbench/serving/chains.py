"""What is drawn token by token: bytes of a text, controllers of a game.

A chain says how a model reads tokens and what distributions its head gives them. A
token is int32 [G], G groups of classes: a byte has one, a controller six.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxbench.models.model import Model
from jaxbench.serving.acceptance import button_probabilities, draw, probabilities
from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.stream import Stream

Arrays = Mapping[str, jax.Array]
Distributions = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Chain:
    """How tokens are read and drawn.

    Attributes:
      groups: G.
      batch: `batch(arrays, position, tokens_tg)`, what a model reads at T places from
        `position` on: row t is the token before place t. A batch [1, T, ...].
      distributions: `distributions(outputs, temperature)`, a head's logits as
        probabilities, for each group [..., classes].
      arrays: what `batch` needs besides, on the device.
    """

    groups: int
    batch: Callable[[Arrays, jax.Array, jax.Array], Batch]
    distributions: Callable[[Any, float], Distributions]
    arrays: Arrays = dataclasses.field(default_factory=dict)


def byte_chain() -> Chain:
    """Text of language models: token t of the input is byte t."""

    def batch(arrays: Arrays, position: jax.Array, tokens_tg: jax.Array) -> Batch:
        del arrays, position
        return {"bytes_bt": tokens_tg[None, :, 0]}

    def distributions(outputs: jax.Array, temperature: float) -> Distributions:
        return (probabilities(outputs, temperature),)

    return Chain(1, batch, distributions)


def controller_chain(stream: Stream) -> Chain:
    """Controllers on the frames of recorded games, one game after the other.

    What the players see is what was recorded, except for the previous controller: that
    is the one drawn at the frame before. A game's first frame has the recorded one, and
    resets the state. After the stream's last frame comes its first. So the coming
    frames are known here, as they are not in a game that is being played: this measures
    how far a draft can go ahead, it is no way to play.

    Args:
      stream: from `open_stream`, of the protocol `clean`. With a delay the previous
        controller is the last one sent, which is the one drawn before, too.
    """
    frames = dict(stream.frames)
    arrays = {
        "recorded_na": jnp.asarray(frames.pop("previous_bta")),
        "start_n": jnp.asarray(stream.start_n),
        **{name: jnp.asarray(x) for name, x in frames.items()},
    }
    length = len(stream)

    def batch(arrays: Arrays, position: jax.Array, tokens_tg: jax.Array) -> Batch:
        index_t = (position + jnp.arange(tokens_tg.shape[0])) % length
        start_t = arrays["start_n"][index_t]
        recorded_ta = arrays["recorded_na"][index_t].astype(jnp.int32)
        previous_ta = jnp.where(start_t[:, None], recorded_ta, tokens_tg)
        seen = {name: arrays[name][index_t][None] for name in frames}
        return seen | {"previous_bta": previous_ta[None], "reset_bt": start_t[None]}

    def distributions(outputs: Arrays, temperature: float) -> Distributions:
        return tuple(
            (button_probabilities if name == "buttons" else probabilities)(
                outputs[name], temperature
            )
            for name in controller.COMPONENTS
        )

    return Chain(len(controller.COMPONENTS), batch, distributions, arrays)


def hidden(model: Model, batch: Batch, state: Any) -> tuple[jax.Array, Any]:
    """Features of every token of a batch, h_btd, whatever the readout, and the state.

    A method for `Model.apply`.
    """
    x_btd = model.encoder(batch)
    return model.stack(x_btd, state, batch.get("reset_bt"), last_only=False)


def outputs(model: Model, h_btd: jax.Array, labels_btg: jax.Array) -> Any:
    """The head's logits, given true (or proposed) groups where it reads them.

    A method for `Model.apply`.
    """
    return model.head(h_btd, {"target_bta": labels_btg})


def draw_token(
    model: Model,
    variables: Any,
    chain: Chain,
    h_d: jax.Array,
    key: jax.Array,
    temperature: float,
) -> tuple[jax.Array, Distributions]:
    """Draws a token group by group, int32 [G], and gives what each was drawn from."""
    labels_g, drawn_from = jnp.zeros(chain.groups, jnp.int32), []
    for g, group_key in enumerate(jax.random.split(key, chain.groups)):
        p_v = group_distribution(model, variables, chain, h_d, labels_g, g, temperature)
        labels_g = labels_g.at[g].set(draw(p_v, group_key))
        drawn_from.append(p_v)
    return labels_g, tuple(drawn_from)


def group_distribution(
    model: Model,
    variables: Any,
    chain: Chain,
    h_d: jax.Array,
    labels_g: jax.Array,
    group: int,
    temperature: float,
) -> jax.Array:
    """Probabilities of one group [classes], given the groups before it.

    The head computes all groups, of which the compiler keeps this one.
    """
    given = (h_d[None, None], labels_g[None, None])
    logits = model.apply(variables, *given, method=outputs)
    return chain.distributions(logits, temperature)[group][0, 0]
