"""The compiled part of a policy: what a frame and what was seen before it decide.

`see` below is `(variables, seen, frame, start_b) -> (h_btd, seen)`: the backbone's
output for the last frame, [B, 1, D], and what to remember of it. `frame` is what the
encoder reads of one frame, [B, 1, ...]; a game starts where `start_b` is true.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxbench.models.model import Model
from jaxbench.serving.weights import Variables, example_batch
from jaxbench.tasks.zelda import view as views
from jaxbench.tasks.zelda.chunks import acting

See = Callable[..., tuple[jax.Array, Any]]
Memory = dict[str, Any]


def first_memory(
    model: Model, variables: Variables, games: int, *, window: int, seed: int
) -> Memory:
    """What is remembered of games that have not begun.

    Args:
      model, variables: the policy's.
      games: B.
      window: frames to remember; 0 remembers the model's own state instead.
      seed: of the games' random keys.
    """

    def make(variables: Variables) -> Memory:
        game_keys = jax.vmap(
            functools.partial(jax.random.fold_in, jax.random.key(seed))
        )
        keys_b = game_keys(jnp.arange(games))
        rest = {"keys_b": keys_b, "plan": acting.first_plan(model.head, games)}
        if not window:
            state = model.apply(variables, games, method="initial_state")
            return {"seen": state, **rest}
        batch = example_batch(games)
        frames = {
            name: jnp.zeros((games, window, *x.shape[2:]), x.dtype)
            for name, x in batch.items()
            if name not in ("target_bta", "reset_bt")
        }
        count_b = jnp.zeros(games, jnp.int32)
        return {"seen": {"frames": frames, "count_b": count_b}, **rest}

    return jax.jit(make)(variables)


def make_answer(
    model: Model, see: See, temperature: float
) -> Callable[..., tuple[jax.Array, Memory]]:
    """Builds the program of a frame: labels [B, 6] and the memory after it."""

    def answer(
        variables: Variables,
        memory: Memory,
        rows: Mapping[str, jax.Array],
        previous_ba: jax.Array,
        start_b: jax.Array,
        idle_b: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        frame = views.inputs(rows) | {"previous_bta": previous_ba[:, None]}
        h_btd, seen = see(variables, memory["seen"], frame, start_b)
        keys_b = memory["keys_b"]
        if temperature == 0:
            drawn = sample(model, variables, h_btd, jax.random.key(0), 0.0)
        else:
            both = jax.vmap(jax.random.split)(keys_b)
            keys_b = jnp.where(idle_b, keys_b, both[:, 0])
            drawn = jax.vmap(
                lambda h_td, key: sample(
                    model, variables, h_td[None], key, temperature
                )[0]
            )(h_btd, both[:, 1])
        labels_ba, plan = acting.follow(memory["plan"], drawn[:, -1], start_b)
        kept = {
            name: jax.tree.map(functools.partial(choose, idle_b), memory[name], new)
            for name, new in (("seen", seen), ("plan", plan))
        }
        return labels_ba, {**kept, "keys_b": keys_b}

    return answer


def make_logits(model: Model, see: See) -> Callable[..., dict[str, jax.Array]]:
    """Builds the program that gives a frame's logits and changes nothing."""

    def logits(
        variables: Variables,
        memory: Memory,
        rows: Mapping[str, jax.Array],
        previous_ba: jax.Array,
        start_b: jax.Array,
    ) -> dict[str, jax.Array]:
        frame = views.inputs(rows) | {"previous_bta": previous_ba[:, None]}
        h_btd, _ = see(variables, memory["seen"], frame, start_b)
        labels_bta = sample(model, variables, h_btd, jax.random.key(0), 0.0)
        groups: Any = model.apply(variables, h_btd, labels_bta, method=head_logits)
        return {name: values[:, -1] for name, values in groups.items()}

    return logits


def see_stream(model: Model) -> See:
    """Builds what sees one frame with the model's own state: h [B, 1, D] and state."""

    def see(
        variables: Variables, state: Any, frame: Mapping[str, jax.Array], start_b: Any
    ) -> tuple[jax.Array, Any]:
        batch = {**frame, "reset_bt": start_b[:, None]}
        return model.apply(variables, batch, state, method=features)

    return see


def see_window(model: Model, window: int) -> See:
    """Builds what sees the last frames and nothing else: h [B, 1, D] and the frames.

    They are the windows of `windows.clean_gather`: before a game's first frame they
    repeat it, and each of those frames is a reset.
    """

    def see(
        variables: Variables, seen: Any, frame: Mapping[str, jax.Array], start_b: Any
    ) -> tuple[jax.Array, Any]:
        def push(old: jax.Array, new: jax.Array) -> jax.Array:
            begun = jnp.repeat(new, window, axis=1)
            return choose(start_b, begun, jnp.concatenate([old[:, 1:], new], axis=1))

        frames = jax.tree.map(push, seen["frames"], dict(frame))
        count_b = jnp.where(start_b, 1, jnp.minimum(seen["count_b"] + 1, window))
        place = jnp.arange(window)[None]
        reset_bt = (place <= window - count_b[:, None]) | (place == 0)
        batch = {**frames, "reset_bt": reset_bt}
        h_btd, _ = model.apply(variables, batch, None, method=features)
        return h_btd, {"frames": frames, "count_b": count_b}

    return see


def features(model: Model, batch: dict[str, jax.Array], state: Any) -> Any:
    """The backbone's output for a batch's last frame, and its state. For `apply`."""
    x_btd = model.encoder(batch)
    return model.stack(x_btd, state, batch["reset_bt"], last_only=True)


def head_logits(model: Model, h_btd: jax.Array, labels_bta: jax.Array) -> Any:
    """The head's logits given labels. For `apply`."""
    return model.head(h_btd, {"target_bta": labels_bta})


def sample(
    model: Model,
    variables: Variables,
    h_btd: jax.Array,
    key: jax.Array,
    temperature: float,
) -> jax.Array:
    """What the head draws of the backbone's output: see `chunks.acting.draw`."""

    def draw(model: Model, h_btd: jax.Array) -> jax.Array:
        return acting.draw(model.head, h_btd, key, temperature)

    drawn: Any = model.apply(variables, h_btd, method=draw)
    return drawn


def choose(first_b: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """For each game `one` where `first_b` is true, else `other`."""
    chosen = first_b.reshape(first_b.shape + (1,) * (one.ndim - 1))
    return jnp.where(chosen, one, other)
