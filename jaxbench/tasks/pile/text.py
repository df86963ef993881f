"""A language model used for real: text read and written byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.errors import InputError
from jaxbench.models.model import Model

# What stands before a text: the byte that ends a document.
SEPARATOR = b"\x1e"


class Writer:
    """Reads bytes and says which comes next, one at a time, through the step form.

    The state stays on the device; a byte costs one call, whatever came before.

    Args:
      model, variables: trained.
      temperature: of the draw; 0 takes the likeliest byte.
      seed: of the draws.

    Raises:
      InputError: a temperature below 0.
    """

    def __init__(
        self,
        model: Model,
        variables: Mapping[str, Any],
        *,
        temperature: float = 1.0,
        seed: int = 0,
    ):
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature={temperature} must be 0 or more")

        def step(variables: Any, state: Any, byte: jax.Array, key: jax.Array) -> Any:
            batch = {"bytes_bt": byte[None, None]}
            logits_btv, state = model.apply(variables, batch, state)
            logits_v = logits_btv[0, 0]
            if temperature == 0:
                return jnp.argmax(logits_v), logits_v, state
            drawn = jax.random.categorical(key, logits_v / temperature)
            return drawn, logits_v, state

        def initial(variables: Any) -> Any:
            return model.apply(variables, 1, method="initial_state")

        self._step = jax.jit(step, donate_argnums=1)
        self._variables = variables
        self._key = jax.random.key(seed)
        self._fold = jax.jit(jax.random.fold_in)
        self._initial = jax.jit(initial)(variables)
        self.restart()

    def restart(self) -> None:
        """Begins anew: from the initial state, with the same draws."""
        # A copy, because each call gives its state's memory to the next.
        self._state = jax.tree.map(jnp.copy, self._initial)
        self._count = 0
        self.logits_v: jax.Array | None = None

    def __call__(self, byte: int) -> int:
        """Reads `byte` and draws the next one; `logits_v` are its float32 logits."""
        key = self._fold(self._key, self._count)
        drawn, self.logits_v, self._state = self._step(
            self._variables, self._state, np.int32(byte), key
        )
        self._count += 1
        return int(drawn)

    def go_on(self, prompt: bytes, count: int) -> Iterator[int]:
        """Reads a prompt, then draws `count` bytes, each of which it reads in turn.

        Raises:
          InputError: the prompt is not bytes.
        """
        byte = 0
        for byte in SEPARATOR + check_prompt(prompt):
            drawn = self(byte)
        for _ in range(count):
            yield drawn
            drawn = self(drawn)


def check_prompt(prompt: Any) -> bytes:
    """Refuses what is not bytes.

    Raises:
      InputError: naming what it is instead.
    """
    if not isinstance(prompt, bytes | bytearray):
        raise InputError(
            f"a prompt must be bytes, not {type(prompt).__name__} "
            f"({str(prompt)[:40]!r}); encode text first, for example as UTF-8"
        )
    return bytes(prompt)
