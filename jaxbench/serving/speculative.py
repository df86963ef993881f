"""Speculative decoding: a small draft goes ahead, a large target follows in chunks.

A round begins with a token that is drawn but not yet read. The draft reads it and draws
K tokens, the target reads all K + 1 as one chunk from its carried state, `acceptance`
keeps the first n proposals and draws one more. Both states then have to be those after
exactly n + 1 tokens.

The draft's are kept at every step, one is picked. The target's chunk gives the last
only, right where all K were kept. Else the n + 1 tokens are read again from the saved
state, as a chunk of that length: `lax.switch` holds one branch for each n.

Two other ways were measured, on two CPU cores with K = 4. Reading token by token and
keeping the target's states too takes as long as the target alone, about twice this way
for `swa` and `deltanet`. Reading again token by token takes 1.2 to 2 times as long for
these two and 0.6 times for `gru`, which is sequential anyway. They compile in a third
and in half of the time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.serving.acceptance import Accepted, accept_groups
from jaxbench.serving.chains import (
    Chain,
    draw_token,
    group_distribution,
    hidden,
    outputs,
)
from jaxbench.tasks.pile.text import SEPARATOR, check_prompt

MODES = ("lossless", "threshold")
# Each length a target may have to read again is a program of its own.
MOST_AHEAD = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to speculate.

    Attributes:
      lookahead: K, tokens the draft proposes a round.
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
                f"lookahead={self.lookahead} must be from 1 to {MOST_AHEAD}: tokens "
                "that the draft proposes a round"
            )
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature} must be 0 or more")
        if self.mode not in MODES:
            raise InputError(f"mode={self.mode!r} is none of {', '.join(MODES)}")
        if not 0 <= self.threshold < math.inf:
            raise InputError(f"threshold={self.threshold} must be 0 or more")


class Statistics(NamedTuple):
    """What has come of the rounds so far.

    Attributes:
      lengths: lengths[n] is in how many rounds n of the K proposals were kept.
    """

    lengths: tuple[int, ...]

    @classmethod
    def none(cls, lookahead: int) -> Statistics:
        """Of no rounds."""
        return cls((0,) * (lookahead + 1))

    def add(self, count: int) -> Statistics:
        """With one more round, in which `count` proposals were kept."""
        lengths = list(self.lengths)
        lengths[count] += 1
        return Statistics(tuple(lengths))

    @property
    def rounds(self) -> int:
        """Rounds, each a call of the target."""
        return sum(self.lengths)

    @property
    def proposed(self) -> int:
        """Tokens the draft proposed, K a round."""
        return self.rounds * (len(self.lengths) - 1)

    @property
    def accepted(self) -> int:
        """Proposals that were kept; the token after them is not counted."""
        return sum(n * rounds for n, rounds in enumerate(self.lengths))

    @property
    def acceptance_rate(self) -> float:
        """Kept of all proposed; 0 before the first round.

        Proposals after the first that was not kept count as not kept.
        """
        return self.accepted / self.proposed if self.rounds else 0.0

    @property
    def tokens(self) -> int:
        """Tokens that came out."""
        return self.accepted + self.rounds

    @property
    def tokens_per_call(self) -> float:
        """Tokens for each round; 0 before the first."""
        return self.tokens / self.rounds if self.rounds else 0.0


class Side(NamedTuple):
    """One of the two: a trained model.

    Attributes:
      model: without weights.
      variables: its weights.
    """

    model: Model
    variables: Any


class Progress(NamedTuple):
    """Where a decoding stands, all of it on the device.

    Attributes:
      target, draft: states after all tokens but the last.
      token_g: the last token, int32 [G], not yet read.
      position: the place at which it will be read.
      key: of the coming draws.
    """

    target: Any
    draft: Any
    token_g: jax.Array
    position: jax.Array
    key: jax.Array


class Speculator:
    """Draws from the target what the draft has proposed, a round a call.

    A round is one program: one dispatch, one answer fetched.

    Args:
      target, draft: read the same chain.
      chain: what is drawn.
      settings: how.
      seed: of the draws. The same seed gives the same tokens again; not those of
        another lookahead or of the target alone, which are equally distributed.
    """

    def __init__(
        self,
        target: Side,
        draft: Side,
        chain: Chain,
        settings: Settings,
        *,
        seed: int = 0,
    ):
        self.settings = settings
        self._sides, self._chain = (target, draft), chain
        self._key = jax.random.key(seed)
        self._round = jax.jit(
            make_round(target.model, draft.model, chain, settings), donate_argnums=2
        )
        self._variables = (target.variables, draft.variables)
        self.restart()
        self.reset_statistics()

    def restart(self, tokens_tg: np.ndarray | None = None) -> None:
        """Begins anew: from the initial states, with the same draws.

        Args:
          tokens_tg: what stands before, int32 [T, G], read as one chunk; None is one
            token of zeros, for a chain whose first place does not read it.
        """
        self._progress = _start(self._sides, self._chain, tokens_tg, self._key)

    def reset_statistics(self) -> None:
        """Forgets the rounds so far."""
        self.statistics = Statistics.none(self.settings.lookahead)

    @property
    def progress(self) -> Progress:
        """Where it stands; good until the next call."""
        return self._progress

    def __call__(self) -> np.ndarray:
        """One round: the tokens that came of it, int32 [1..K+1, G]."""
        self._progress, done = self._round(
            self._variables, self._chain.arrays, self._progress
        )
        count, tokens_kg = jax.device_get(done)
        self.statistics = self.statistics.add(int(count))
        return tokens_kg[: count + 1]


class Alone:
    """One model without a draft, for comparison: draws and reads token after token.

    A call draws `length` tokens in one program, as many as a round can give, so that
    what a comparison shows is speculation and not fewer dispatches.

    Args:
      side: the model.
      chain: what is drawn.
      length: tokens a call.
      temperature: of the draws; 0 takes the likeliest.
      seed: of the draws.
    """

    def __init__(
        self,
        side: Side,
        chain: Chain,
        *,
        length: int,
        temperature: float,
        seed: int = 0,
    ):
        def run(variables: Any, arrays: Any, progress: Progress) -> Any:
            keys = jax.random.split(progress.key, length + 1)
            steps = _Steps(side.model, variables, chain, arrays, temperature)

            def body(carry: Any, key: jax.Array) -> Any:
                state, token_g, position = carry
                state, token_g, _ = steps.draw(state, token_g, position, key)
                return (state, token_g, position + 1), token_g

            start = (progress.target, progress.token_g, progress.position)
            end, tokens_tg = jax.lax.scan(body, start, keys[1:])
            state, token_g, position = end
            return Progress(state, (), token_g, position, keys[0]), tokens_tg

        self._side, self._chain = side, chain
        self._key = jax.random.key(seed)
        self._run = jax.jit(run, donate_argnums=2)
        self.restart()

    def restart(self, tokens_tg: np.ndarray | None = None) -> None:
        """Begins anew, as `Speculator.restart`."""
        self._progress = _start((self._side,), self._chain, tokens_tg, self._key)

    def __call__(self) -> np.ndarray:
        """The next tokens, int32 [length, G]."""
        self._progress, tokens_tg = self._run(
            self._side.variables, self._chain.arrays, self._progress
        )
        return np.asarray(tokens_tg)


def read_tokens(side: Side, chain: Chain, tokens_tg: np.ndarray) -> Any:
    """The state after a chain's first tokens, read as one chunk."""
    if not len(tokens_tg):
        return side.model.apply(side.variables, 1, method="initial_state")

    @jax.jit
    def read(variables: Any, arrays: Any, tokens_tg: jax.Array) -> Any:
        batch = chain.batch(arrays, jnp.int32(0), tokens_tg)
        return side.model.apply(variables, batch, None, method=hidden)[1]

    return read(side.variables, chain.arrays, jnp.asarray(tokens_tg, jnp.int32))


def prompt_tokens(prompt: bytes) -> np.ndarray:
    """A prompt as tokens of `byte_chain`, after the byte that ends a document.

    Raises:
      InputError: the prompt is not bytes.
    """
    text = SEPARATOR + check_prompt(prompt)
    return np.frombuffer(text, np.uint8).astype(np.int32)[:, None]


def write(decode: Speculator | Alone, prompt: bytes, count: int) -> Iterator[int]:
    """Reads a prompt, then draws `count` bytes.

    Statistics count whole rounds, of which the last may have given more.

    Raises:
      InputError: the prompt is not bytes.
    """
    decode.restart(prompt_tokens(prompt))
    left = count
    while left > 0:
        for token_g in decode()[:left]:
            left -= 1
            yield int(token_g[0])


def play(decode: Speculator | Alone, count: int) -> np.ndarray:
    """Controllers for the first `count` frames of a stream, int32 [count, 6]."""
    decode.restart()
    done: list[np.ndarray] = []
    while sum(map(len, done)) < count:
        done.append(decode())
    return np.concatenate(done)[:count]


class _Steps(NamedTuple):
    """Token by token through a model's step form, inside a program."""

    model: Model
    variables: Any
    chain: Chain
    arrays: Any
    temperature: float

    def draw(
        self, state: Any, token_g: jax.Array, position: jax.Array, key: jax.Array
    ) -> Any:
        """Reads a token and draws the next: state, token, what it was drawn from."""
        batch = self.chain.batch(self.arrays, position, token_g[None])
        h_btd, state = self.model.apply(self.variables, batch, state, method=hidden)
        token_g, drawn_from = draw_token(
            self.model, self.variables, self.chain, h_btd[0, 0], key, self.temperature
        )
        return state, token_g, drawn_from


def _start(
    sides: tuple[Side, ...], chain: Chain, tokens_tg: np.ndarray | None, key: jax.Array
) -> Progress:
    """Where a decoding begins: everything but the last token read."""
    if tokens_tg is None:
        tokens_tg = np.zeros((1, chain.groups), np.int32)
    # Copies, because each call gives its memory to the next.
    states = [
        jax.tree.map(jnp.copy, read_tokens(side, chain, tokens_tg[:-1]))
        for side in sides
    ]
    return Progress(
        target=states[0],
        draft=states[1] if len(states) > 1 else (),
        token_g=jnp.asarray(tokens_tg[-1], jnp.int32),
        position=jnp.int32(len(tokens_tg) - 1),
        key=jnp.copy(key),
    )


def make_round(target: Model, draft: Model, chain: Chain, settings: Settings) -> Any:
    """The program of a round; see the module's docstring."""
    ahead, temperature = settings.lookahead, settings.temperature
    threshold = settings.threshold if settings.mode == "threshold" else None

    def run(variables: Any, arrays: Any, progress: Progress) -> Any:
        of_target, of_draft = variables
        key, accept_key, draft_key = jax.random.split(progress.key, 3)

        # The last step's draw is not used, its state is where all are kept.
        steps = _Steps(draft, of_draft, chain, arrays, temperature)

        def body(carry: Any, key: jax.Array) -> Any:
            state, token_g, position = carry
            state, token_g, q = steps.draw(state, token_g, position, key)
            return (state, token_g, position + 1), (state, token_g, q)

        start = (progress.draft, progress.token_g, progress.position)
        draws = jax.random.split(draft_key, ahead + 1)
        _, (states, proposed_kg, q) = jax.lax.scan(body, start, draws)
        q, proposed_kg = [q_kv[:ahead] for q_kv in q], proposed_kg[:ahead]

        read_kg = jnp.concatenate([progress.token_g[None], proposed_kg])

        def read(length: int) -> Any:
            batch = chain.batch(arrays, progress.position, read_kg[:length])
            return target.apply(of_target, batch, progress.target, method=hidden)

        h_bkd, whole = read(ahead + 1)
        logits = target.apply(
            of_target, h_bkd[:, :ahead], proposed_kg[None], method=outputs
        )
        p = [p_bkv[0] for p_bkv in chain.distributions(logits, temperature)]

        def conditional(n: jax.Array, g: int, labels_g: jax.Array) -> jax.Array:
            return group_distribution(
                target, of_target, chain, h_bkd[0, n], labels_g, g, temperature
            )

        count, next_g = accept_groups(
            p, q, proposed_kg, conditional, accept_key, threshold=threshold
        )
        branches = [lambda n=n: read(n)[1] for n in range(1, ahead + 1)]
        after = jax.lax.switch(count, [*branches, lambda: whole])
        tokens_kg = jnp.pad(proposed_kg, ((0, 1), (0, 0))).at[count].set(next_g)
        done = Progress(
            target=after,
            draft=jax.tree.map(lambda x: x[count], states),
            token_g=next_g,
            position=progress.position + count + 1,
            key=key,
        )
        return done, Accepted(count, tokens_kg)

    return run
