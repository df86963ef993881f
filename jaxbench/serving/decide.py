"""One step of a trained model: what play, latency, export and text decoding all run.

A policy reads a frame and answers with a controller, a language model reads a byte and
draws the next. Both are pure functions of (model, variables, input, memory); nothing
here knows of files, games or clocks.

A policy's memory is a dictionary of arrays on the device:

  backbone: the backbone's state; of a policy that sees windows, the frames it saw last
    and how many of them are of this game.
  plan: the chunks that a head averages over (`chunks.ensemble`), () of other heads.
  keys_b: the random key of each game, where labels are drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxbench.models.model import Model
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.chunks import acting, action
from jaxbench.tasks.zelda.chunks.heads import ChunkHead
from jaxbench.tasks.zelda.heads import AutoregressiveHead, choose

Variables = Mapping[str, Any]
Frames = Mapping[str, Any]
Memory = dict[str, Any]
Scores = dict[str, jax.Array]
# Name of the output of a head over chunks; other heads name theirs by component.
CHUNK = "chunk_bhc"
# Parameters up to so many bytes are constants of the compiled step.
MOST_CONSTANTS = 2**26


def bind(step: Callable[..., Any], variables: Any, **jit: Any) -> Any:
    """Compiles `step(variables, *rest)` as a function of the rest.

    Small models close over their parameters: a call then passes no parameters, and XLA
    sees constants. Of a large one that would double the memory and slow the compiler.

    Args:
      step: pure.
      variables: bound as the first argument.
      jit: of `jax.jit`; argument numbers count from 0 after the variables.
    """
    leaves = jax.tree.leaves(variables)
    if sum(leaf.nbytes for leaf in leaves) <= MOST_CONSTANTS:
        return jax.jit(functools.partial(step, variables), **jit)
    if "donate_argnums" in jit:
        jit["donate_argnums"] += 1
    return functools.partial(jax.jit(step, **jit), variables)


def first_memory(
    model: Model,
    variables: Variables,
    games: int,
    *,
    window: int = 0,
    frame: Frames | None = None,
    seed: int | None = None,
) -> Memory:
    """A policy's memory before the first frame of `games` games.

    Args:
      model, variables: the policy's.
      games: B.
      window: frames that are seen anew at each step; 0 carries the backbone's state.
      frame: a frame [1, 1, ...] as the encoder reads it, for the shapes of a window.
      seed: of the games' random keys; None where nothing is drawn.
    """

    def make(variables: Variables) -> Memory:
        memory: Memory = {"plan": acting.first_plan(model.head, games)}
        if window:
            frames = {
                name: jnp.zeros((games, window, *x.shape[2:]), x.dtype)
                for name, x in (frame or {}).items()
                if name not in ("reset_bt", "target_bta")
            }
            count_b = jnp.zeros(games, jnp.int32)
            memory["backbone"] = {"frames": frames, "count_b": count_b}
        else:
            memory["backbone"] = model.apply(variables, games, method="initial_state")
        if seed is not None:
            fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
            memory["keys_b"] = jax.vmap(fold)(jnp.arange(games))
        return memory

    return jax.jit(make)(variables)


def act(
    model: Model,
    variables: Variables,
    frames: Frames,
    memory: Memory,
    *,
    window: int = 0,
    temperature: float = 0.0,
) -> tuple[jax.Array, Scores, Memory]:
    """Decides from B games' newest frames.

    Args:
      model, variables: the policy's.
      frames: what the encoder reads, [B, T, ...]; T is 1 with a window. Where
        `reset_bt` is true a game starts.
      memory: after the frame before. A "backbone" of None is the initial state.
      window: frames the memory holds; 0 for a carried state.
      temperature: 0 takes the likeliest label of each group; else labels are drawn with
        the memory's keys. A factor on the noise of a head over chunks.

    Returns:
      Controllers, int32 [B, 6]; the scores they were chosen by, logits [B, classes] of
      each component given those before it, or `CHUNK` [B, H, 13]; the memory after.
    """
    start_b = frames["reset_bt"][:, -1]
    after = dict(memory)
    h_btd, after["backbone"] = read(model, variables, frames, memory, window)
    # Method of `apply`: Flax modules cannot be called inside a vmap.
    head: Any = functools.partial(model.apply, variables, method=_decide)
    if temperature == 0:
        drawn, scores = head(h_btd, jax.random.key(0), 0.0)
    else:
        keys = jax.vmap(jax.random.split)(memory["keys_b"])
        after["keys_b"] = keys[:, 0]

        def of_game(h_td: jax.Array, key: jax.Array) -> Any:
            return jax.tree.map(lambda x: x[0], head(h_td[None], key, temperature))

        drawn, scores = jax.vmap(of_game)(h_btd, keys[:, 1])
    labels_ba, after["plan"] = acting.follow(memory["plan"], drawn, start_b)
    return labels_ba, scores, after


def read(
    model: Model, variables: Variables, frames: Frames, memory: Memory, window: int
) -> tuple[jax.Array, Any]:
    """The backbone's output for the newest frame, [B, 1, D], and its new memory.

    With a window these are the windows of `windows.clean_gather`: before a game's first
    frame they repeat it, and each of those frames is a reset.
    """
    if not window:
        features = functools.partial(model.apply, variables, method=_features)
        return features(frames, memory["backbone"])
    start_b = frames["reset_bt"][:, 0]
    seen = memory["backbone"]

    def push(old: jax.Array, new: jax.Array) -> jax.Array:
        begun = jnp.repeat(new, window, axis=1)
        return where_game(start_b, begun, jnp.concatenate([old[:, 1:], new], axis=1))

    held = {name: push(old, frames[name]) for name, old in seen["frames"].items()}
    count_b = jnp.where(start_b, 1, jnp.minimum(seen["count_b"] + 1, window))
    place = jnp.arange(window)[None]
    reset_bt = (place <= window - count_b[:, None]) | (place == 0)
    batch = {**held, "reset_bt": reset_bt}
    h_btd, _ = model.apply(variables, batch, None, method=_features)
    return h_btd, {"frames": held, "count_b": count_b}


def next_byte(
    model: Model,
    variables: Variables,
    byte_b: jax.Array,
    state: Any,
    key: jax.Array | None = None,
    temperature: float = 0.0,
) -> tuple[jax.Array, jax.Array, Any]:
    """Reads a byte of B texts and draws the next one.

    Args:
      model, variables: of a language model.
      byte_b: int32 [B].
      state: after the byte before.
      key: of the draw, unused at temperature 0.
      temperature: divides the logits; 0 takes the likeliest.

    Returns:
      The byte drawn, int32 [B]; float32 logits [B, 256]; the state after `byte_b`.
    """
    logits_btv, state = model.apply(variables, {"bytes_bt": byte_b[:, None]}, state)
    logits_bv = logits_btv[:, -1]
    if temperature == 0:
        return jnp.argmax(logits_bv, axis=-1).astype(jnp.int32), logits_bv, state
    assert key is not None
    drawn_b = jax.random.categorical(key, logits_bv / temperature)
    return drawn_b.astype(jnp.int32), logits_bv, state


def first_state(model: Model, variables: Variables, count: int = 1) -> Any:
    """The backbone's state before any frame or byte of `count` sequences."""

    def make(variables: Variables) -> Any:
        return model.apply(variables, count, method="initial_state")

    return jax.jit(make)(variables)


def where_game(first_b: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Of each game `one` where `first_b` is true, else `other`."""
    chosen = first_b.reshape(first_b.shape + (1,) * (one.ndim - 1))
    return jnp.where(chosen, one, other)


def _features(model: Model, batch: dict[str, jax.Array], state: Any) -> Any:
    """Output for the batch's last frame, and the state after it. For `apply`."""
    x_btd = model.encoder(batch)
    h_btd, state = model.stack(x_btd, state, batch["reset_bt"], last_only=True)
    return h_btd[:, -1:], state


def _decide(
    model: Model, h_btd: jax.Array, key: jax.Array, temperature: float
) -> tuple[jax.Array, Scores]:
    """The head's choice for the last frame, and its scores. For `apply`.

    Group by group where the head is autoregressive; the compiler drops what is unused.
    """
    if isinstance(model.head, ChunkHead):
        chunk_bhc = model.head.chunk(h_btd, key, temperature)[:, -1]
        whole = model.head.ensembled
        drawn = chunk_bhc if whole else action.decode(chunk_bhc[:, 0])
        return drawn, {CHUNK: chunk_bhc}
    names = controller.COMPONENTS
    keys = jax.random.split(key, len(names))
    labels = [jnp.zeros(h_btd.shape[:2], jnp.int32) for _ in names]
    scores = {}
    for i, name in enumerate(names):
        if i == 0 or isinstance(model.head, AutoregressiveHead):
            given = {"target_bta": jnp.stack(labels, axis=-1)}
            logits = model.head(h_btd, given)
        labels[i] = choose(name, logits[name], keys[i], temperature)
        scores[name] = logits[name][:, -1]
    return jnp.stack(labels, axis=-1)[:, -1], scores
