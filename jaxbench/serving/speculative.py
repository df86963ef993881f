"""Speculative decoding of text: a draft goes ahead, the target follows in chunks.

A round begins with a byte that is drawn but not yet read. The draft reads it and draws
K bytes, the target reads all K + 1 as one chunk from its carried state, `acceptance`
keeps the first n proposals and draws one more. Both states then have to be those after
exactly n + 1 bytes.

The draft's are kept at every step, one is picked. The target's chunk gives the last
only, right where all K were kept. Else the n + 1 bytes are read again from the saved
state, as a chunk of that length: `lax.switch` holds one branch for each n.

Two other ways were measured, on two CPU cores with K = 4. Reading byte by byte and
keeping the target's states too takes as long as the target alone, about twice this way
for `swa` and `deltanet`. Reading again byte by byte takes 1.2 to 2 times as long for
these two and 0.6 times for `gru`, which is sequential anyway. They compile in a third
and in half of the time.

Policies were decoded in the same way once, group by group of a controller: 0.35 and
0.40 of the target's speed (`results/closed_loop`), so only text is left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.serving.acceptance import accept, probabilities
from jaxbench.serving.decide import bind, first_state, next_byte
from jaxbench.serving.writing import SEPARATOR, check_prompt
from jaxbench.tasks import rules

MODES = ("lossless", "threshold")
# Each length a target may have to read again is a program of its own.
MOST_AHEAD = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to speculate.

    Attributes:
      lookahead: K, bytes the draft proposes a round.
      temperature: of both models' draws; 0 takes the likeliest.
      mode: "lossless", or "threshold", which does not preserve the distribution.
      threshold: of the mode `threshold`.

    Raises:
      InputError: a value out of its range.
    """

    lookahead: int = 4
    temperature: float = 1.0
    mode: str = "lossless"
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if not 1 <= self.lookahead <= MOST_AHEAD:
            raise InputError(
                f"lookahead={self.lookahead} must be from 1 to {MOST_AHEAD}: bytes "
                "that the draft proposes a round"
            )
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature} must be 0 or more")
        if self.mode not in MODES:
            raise InputError(f"mode={self.mode!r} is none of {', '.join(MODES)}")
        if not 0 <= self.threshold < math.inf:
            raise InputError(f"threshold={self.threshold} must be 0 or more")


class Side(NamedTuple):
    """A trained language model."""

    model: Model
    variables: Any


class Progress(NamedTuple):
    """Where a decoding stands, all of it on the device.

    Attributes:
      states: of each model, after all bytes but the last.
      byte: int32, the last byte, not yet read.
      key: of the coming draws.
    """

    states: tuple[Any, ...]
    byte: jax.Array
    key: jax.Array


# (variables of each model, progress) -> (progress, proposals kept, bytes [K + 1]); the
# bytes after `kept + 1` are no output.
Round = Callable[[Any, Progress], tuple[Progress, jax.Array, jax.Array]]


class Decoder:
    """Draws bytes, a round a call: one dispatch, one answer fetched.

    Args:
      sides: the models that `step` decodes with.
      step: of `speculating` or `alone`.
      seed: of the draws. The same seed gives the same bytes again; not those of another
        lookahead or of the target alone, which are equally distributed.

    Attributes:
      progress: where it stands; good until the next call.
      kept: of each round so far, how many proposals were kept.
    """

    def __init__(self, sides: Sequence[Side], step: Round, *, seed: int = 0):
        rules.seed("seed", seed)
        self._sides, self._key = tuple(sides), jax.random.key(seed)
        variables = tuple(side.variables for side in sides)
        self._round = bind(step, variables, donate_argnums=0)
        self.restart(SEPARATOR)

    def restart(self, text: bytes) -> None:
        """Begins anew after `text`, one byte or more, with the same draws."""
        self.kept: list[int] = []
        read = np.frombuffer(text[:-1], np.uint8).astype(np.int32)
        # Copies, because each call gives its memory to the next.
        self.progress = Progress(
            states=tuple(
                jax.tree.map(jnp.copy, state_after(side, read)) for side in self._sides
            ),
            byte=jnp.int32(text[-1]),
            key=jnp.copy(self._key),
        )

    def __call__(self) -> list[int]:
        """The next 1 to K + 1 bytes."""
        self.progress, *done = self._round(self.progress)
        kept, bytes_k = jax.device_get(done)
        self.kept.append(int(kept))
        return bytes_k[: kept + 1].tolist()

    def go_on(self, prompt: bytes, count: int) -> Iterator[int]:
        """Reads a prompt, then draws `count` bytes. `kept` counts whole rounds.

        Raises:
          InputError: the prompt is not bytes.
        """
        self.restart(SEPARATOR + check_prompt(prompt))
        left = count
        while left > 0:
            done = self()[:left]
            left -= len(done)
            yield from done


def state_after(side: Side, bytes_t: np.ndarray) -> Any:
    """The state after a text's first bytes, read as one chunk."""
    if not len(bytes_t):
        return first_state(*side)

    @jax.jit
    def read(variables: Any, bytes_t: jax.Array) -> Any:
        return side.model.apply(variables, {"bytes_bt": bytes_t[None]})[1]

    return read(side.variables, jnp.asarray(bytes_t, jnp.int32))


def alone(model: Model, length: int, temperature: float) -> Round:
    """A round of one model without a draft, for comparison: `length` bytes.

    As many as a round can give, so that what a comparison shows is speculation and not
    fewer dispatches.
    """

    def run(variables: Any, progress: Progress) -> Any:
        keys = jax.random.split(progress.key, length + 1)

        def body(carry: Any, key: jax.Array) -> Any:
            state, byte = carry
            (byte,), _, state = next_byte(
                model, variables[0], byte[None], state, key, temperature
            )
            return (state, byte), byte

        start = (progress.states[0], progress.byte)
        (state, byte), bytes_k = jax.lax.scan(body, start, keys[1:])
        return Progress((state,), byte, keys[0]), jnp.int32(length - 1), bytes_k

    return run


def speculating(target: Model, draft: Model, settings: Settings) -> Round:
    """A round of the target behind the draft; see the module's docstring."""
    ahead, temperature = settings.lookahead, settings.temperature
    threshold = settings.threshold if settings.mode == "threshold" else None

    def run(variables: Any, progress: Progress) -> Any:
        key, accept_key, draft_key = jax.random.split(progress.key, 3)

        def body(carry: Any, key: jax.Array) -> Any:
            state, byte = carry
            (byte,), logits_bv, state = next_byte(
                draft, variables[1], byte[None], state, key, temperature
            )
            return (state, byte), (state, byte, logits_bv[0])

        # The last step's draw is not used; its state is, where all are kept.
        start = (progress.states[1], progress.byte)
        draws = jax.random.split(draft_key, ahead + 1)
        _, (states, proposed_k, q_kv) = jax.lax.scan(body, start, draws)
        q_kv = probabilities(q_kv[:ahead], temperature)
        proposed_k = proposed_k[:ahead]
        read_k = jnp.concatenate([progress.byte[None], proposed_k])

        def read(length: int) -> Any:
            batch = {"bytes_bt": read_k[None, :length]}
            return target.apply(variables[0], batch, progress.states[0])

        logits_bkv, whole = read(ahead + 1)
        p_kv = probabilities(logits_bkv[0], temperature)
        kept, byte = accept(p_kv, q_kv, proposed_k, accept_key, threshold=threshold)
        branches = [lambda n=n: read(n)[1] for n in range(1, ahead + 1)]
        after = jax.lax.switch(kept, [*branches, lambda: whole])
        of_draft = jax.tree.map(lambda x: x[kept], states)
        bytes_k = jnp.pad(proposed_k, (0, 1)).at[kept].set(byte)
        return Progress((after, of_draft), byte, key), kept, bytes_k

    return run
