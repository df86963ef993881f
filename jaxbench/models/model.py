"""A whole model: encoder, stack, head."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from jaxbench.models.stack import Stack, StackState

READOUTS = ("last", "all")


class Model(nn.Module):
    """head(stack(encoder(batch))): the same call trains, continues and plays.

    Attributes:
      encoder: `encoder(batch) -> x_btd` of the stack's width.
      stack: the backbone, from `build.build_stack`.
      head: `head(h_btd, batch) -> outputs`; h has T = 1 where `readout` is "last".
      readout: "last" gives the head the last frame only (and computes no more than it
        needs), "all" every frame.
    """

    encoder: nn.Module
    stack: Stack
    head: nn.Module
    readout: str

    def __call__(
        self, batch: dict[str, jax.Array], state: StackState | None = None
    ) -> tuple[Any, StackState]:
        """Runs the model on a batch.

        Args:
          batch: what encoder and head read. `batch["reset_bt"]`, bool [B, T], where
            present: true where an episode starts.
          state: from `initial_state` or the previous call; None is the initial one.

        Returns:
          The head's outputs, and the state after the last frame.
        """
        if self.readout not in READOUTS:
            raise ValueError(f"readout {self.readout!r} is none of {READOUTS}")
        x_btd = self.encoder(batch)
        h_btd, state = self.stack(
            x_btd, state, batch.get("reset_bt"), last_only=self.readout == "last"
        )
        return self.head(h_btd, batch), state

    def initial_state(self, batch_size: int) -> StackState:
        """Returns the state an episode starts from.

        Call it as `model.apply(variables, batch_size, method="initial_state")`;
        `variables` may be empty unless a mixer learns its initial state.
        """
        return self.stack.initial_state(batch_size)
