"""Which windows exist, and how a batch of them is cut out of the arrays on the device.

Clean: an example is (perspective, frame t). Its window is the `window` frames up to t;
frames before the game's first repeat the first and carry a reset, so that the true
first frame starts from the initial state. The label is the controller of frame t + 1 +
delay; the previous controller, an input, is that of t' + delay for each frame t' of the
window: the last one the player had sent when it decided. With delay 0 it is the
controller of frame t' itself. The copy-previous floor repeats exactly that.

Compat: an example is the last row of a window over the concatenation of all games,
boundaries crossed, nothing padded; the label is the controller of the same frame, whose
effect the state already shows. (A frame delay d pairs the state of f - d with the
controller of f.) The previous controller is that of the frame before, neutral at a
game's first; it is scored, never an input. The original's chunked shuffle is not
reproduced, any order draws the same windows; its single-frame MLP case is the windowed
one with a last-frame backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.data.game import Game
from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda import compat, controller, features, frames

Gather = Callable[[Mapping[str, jax.Array], jax.Array], Batch]
Labels = tuple[np.ndarray, np.ndarray, np.ndarray]


def clean_examples(
    arrays: Mapping[str, np.ndarray],
    perspectives: Sequence[frames.Perspective],
    chosen: Iterable[int],
    stride: int,
) -> np.ndarray:
    """Every `stride`-th scored frame of the chosen perspectives, int32 [N, 2]."""
    found = [np.zeros((0, 2), np.int32)]
    for p in chosen:
        start = perspectives[p].start
        bits = arrays["status"][start : start + perspectives[p].length, 0]
        index = np.flatnonzero(bits & frames.SCORED)[::stride]
        found.append(np.stack([np.full_like(index, p), index], 1).astype(np.int32))
    return np.concatenate(found)


def clean_gather(window: int, delay: int, readout: str) -> Gather:
    """Builds the clean `Task.gather` for examples int32 [B, 2].

    A third column of the examples is a delay of each window, instead of `delay`. The
    batch holds what `features.inputs` gives, previous_bta int32 [B, T, 6],
    reset_bt bool [B, T], and for the scored frames (T' = 1 for readout "last", else T)
    target_bta int32 [B, T', 6] and valid_bt bool [B, T'].
    """
    back = np.arange(1 - window, 1)

    def gather(arrays: Mapping[str, jax.Array], examples_bk: jax.Array) -> Batch:
        perspective_b, last_b = examples_bk[:, 0], examples_bk[:, 1]
        raw_bt = last_b[:, None] + back[None]
        index_bt = jnp.maximum(raw_bt, 0)
        row_bt = arrays["perspective"][perspective_b, frames.EGO][:, None] + index_bt
        scored = slice(None) if readout == "all" else slice(-1, None)
        row_s = row_bt[:, scored]
        valid_bt = (arrays["status"][row_s, 0] & frames.SCORED) != 0
        # A frame without a label is not valid; its rows stay inside the array.
        end = arrays["controller"].shape[0] - 1
        delay_b1 = examples_bk[:, 2:] if examples_bk.shape[1] > 2 else delay
        label_s = jnp.minimum(row_s + 1 + delay_b1, end)
        previous_bt = jnp.minimum(row_bt + delay_b1, end)
        return features.inputs(arrays, perspective_b, index_bt) | {
            "previous_bta": arrays["controller"][previous_bt].astype(jnp.int32),
            "target_bta": arrays["controller"][label_s].astype(jnp.int32),
            "valid_bt": valid_bt & (raw_bt[:, scored] >= 0),
            "reset_bt": (raw_bt <= 0).at[:, 0].set(True),
        }

    return gather


def clean_labels(
    arrays: Mapping[str, np.ndarray],
    examples: np.ndarray,
    *,
    window: int,
    delay: int,
    readout: str,
) -> Labels:
    """The scored frames of a split: targets [M, 6], previous [M, 6], times scored [M].

    With readout "all" a frame is scored by every window that holds it.
    """
    row, count = scored_rows(arrays, examples, window=window, readout=readout)
    labels = arrays["controller"]
    return labels[row + 1 + delay], labels[row + delay], count


def scored_rows(
    arrays: Mapping[str, np.ndarray], examples: np.ndarray, *, window: int, readout: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the frames that clean examples score, and how often each is scored."""
    start = arrays["perspective"][examples[:, 0], frames.EGO]
    count = np.zeros(len(arrays["controller"]), np.int64)
    for back in range(window if readout == "all" else 1):
        index = examples[:, 1] - back
        count += np.bincount((start + index)[index >= 0], minlength=len(count))
    count *= (arrays["status"][:, 0] & frames.SCORED) != 0
    row = np.flatnonzero(count)
    return row, count[row]


def compat_arrays(
    games: Sequence[Game], delay: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The rows of games in order, and where each game's begin (int64 [games + 1])."""
    columns = [np.zeros((0, len(compat.STORED)), jnp.bfloat16)]
    labels = [np.zeros((0, 6), np.uint8)]
    for game in games:
        kept = compat.rows(game)
        ego = compat.port(game, 1)
        if ego is None or len(kept) <= delay:
            columns.append(columns[0])
            labels.append(labels[0])
            continue
        pre = {name: values[kept] for name, values in ego.leader.pre.items()}
        columns.append(compat.columns(game)[: len(kept) - delay])
        labels.append(controller.encode(pre, "compat")[delay:])
    bounds = np.cumsum([len(part) for part in labels])
    joined = np.concatenate(labels)
    begins = np.zeros(len(joined) + 1, bool)
    begins[bounds] = True
    return {
        "columns": np.concatenate(columns),
        "controller": joined,
        "begins": begins[:-1],
    }, bounds


def compat_gather(window: int) -> Gather:
    """Builds the compat `Task.gather` for examples int32 [B].

    The batch holds frame_btf bfloat16 [B, T, 288], reset_bt (true at t = 0 only), and
    previous_bta, target_bta int32 [B, 1, 6], valid_bt of the last frame.
    """
    back = np.arange(1 - window, 1)

    def gather(arrays: Mapping[str, jax.Array], examples_b: jax.Array) -> Batch:
        row_bt = examples_b[:, None] + back[None]
        last_bt = examples_b[:, None]
        before = arrays["controller"][jnp.maximum(last_bt - 1, 0)].astype(jnp.int32)
        neutral = jnp.broadcast_to(
            jnp.asarray(controller.NEUTRAL, jnp.int32)[None, None], before.shape
        )
        begins = arrays["begins"][last_bt][..., None]
        return {
            "frame_btf": compat.vector(arrays["columns"][row_bt]),
            "previous_bta": jnp.where(begins, neutral, before),
            "target_bta": arrays["controller"][last_bt].astype(jnp.int32),
            "valid_bt": jnp.ones(last_bt.shape, bool),
            "reset_bt": jnp.broadcast_to((back == back[0])[None], row_bt.shape),
        }

    return gather


def compat_labels(arrays: Mapping[str, np.ndarray], examples: np.ndarray) -> Labels:
    """The scored frames of a split, as `clean_labels`; each is scored once."""
    labels = arrays["controller"]
    previous = labels[np.maximum(examples - 1, 0)]
    begins = arrays["begins"][examples][:, None]
    previous = np.where(begins, controller.NEUTRAL[None], previous)
    return labels[examples], previous, np.ones(len(examples), np.int64)
