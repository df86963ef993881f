"""The controllers a chunk should hold: the decisions at frames t .. t + H - 1.

Place k of frame t's chunk is the label of frame t + k, so place 0 is the label that the
other heads learn. A chunk ends before the first of its frames that is not scored: where
the game ends or the player cannot act. What lies behind that is neutral and counts
nothing. A chunk holds nothing but labels, and only losses and the training encoder of
`act` read it: the model's own encoder never does.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda import controller, frames
from jaxbench.tasks.zelda.windows import Gather

# What `with_chunks` adds to a batch; no model needs it to act.
KEYS = ("chunk_btha", "chunk_valid_bth", "chunk_row_bt")


def with_chunks(
    gather: Gather, horizon: int, *, window: int, delay: int, readout: str
) -> Gather:
    """Adds the chunks to what a gather of the clean protocol gives.

    Args:
      gather: from `windows.clean_gather` with the same window, delay and readout.
      horizon: H, controllers in a chunk.

    Returns:
      A gather that also gives chunk_btha int32 [B, T', H, 6], chunk_valid_bth bool,
      and chunk_row_bt int32, a number of its own for each frame.
    """
    back = np.arange(1 - window if readout == "all" else 0, 1)
    ahead = np.arange(horizon)

    def gather_chunks(arrays: Mapping[str, jax.Array], examples_bk: jax.Array) -> Batch:
        start_b = arrays["perspective"][examples_bk[:, 0], frames.EGO]
        index_bt = jnp.maximum(examples_bk[:, 1, None] + back[None], 0)
        row_bt = start_b[:, None] + index_bt
        end = arrays["controller"].shape[0] - 1
        row_bth = row_bt[..., None] + ahead[None, None]
        # A game's last frame is never scored, so no chunk reaches into the next one.
        scored = arrays["status"][jnp.minimum(row_bth, end), 0] & frames.SCORED
        valid_bth = jnp.cumprod(scored != 0, axis=-1) == 1
        labels = arrays["controller"][jnp.minimum(row_bth + 1 + delay, end)]
        neutral = jnp.asarray(controller.NEUTRAL).reshape(1, 1, 1, -1)
        chunk = jnp.where(valid_bth[..., None], labels, neutral)
        return gather(arrays, examples_bk) | {
            "chunk_btha": chunk.astype(jnp.int32),
            "chunk_valid_bth": valid_bth,
            "chunk_row_bt": row_bt.astype(jnp.int32),
        }

    return gather_chunks


def places_right(
    arrays: Mapping[str, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    said: np.ndarray,
    *,
    horizon: int,
    delay: int,
) -> list[float]:
    """How often one controller for a whole chunk is right, at each of its H places.

    As `score.summarize` means it: the mean over the six groups. What a model that
    knows the present controller, or none, gets without looking at the game.

    Args:
      arrays: of the task.
      rows: of the frames of a split and how often each counts,
        `windows.scored_rows`.
      said: labels [N, 6] for every place of a frame's chunk.
      horizon: H.
      delay: of the task.
    """
    row, count = rows
    end = len(arrays["controller"]) - 1
    weight, found = count.astype(np.float64), []
    for k in range(horizon):
        scored = arrays["status"][np.minimum(row + k, end), 0] & frames.SCORED
        weight = weight * (scored != 0)
        true = arrays["controller"][np.minimum(row + k + 1 + delay, end)]
        right = (true == said).astype(np.float64)
        wrong = true[:, :1] ^ said[:, :1].astype(np.uint8)
        right[:, 0] = 1 - controller.unpack(wrong[:, 0]).mean(-1)
        total = weight.sum()
        found.append(float(weight @ right.mean(-1) / total) if total else 0.0)
    return found
