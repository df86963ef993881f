"""Which windows exist, and how a batch of them is cut out of the arrays on the device.

An example is (perspective, first frame): `window` frames in a row, each with the
controllers that act on the next, and that next frame as its target. The first frame is
a reset. No window reaches over a game's end, nothing is padded; windows start at frame
1 or later, so that a frame before the first is there for the floor that needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.tasks.task import Batch
from jaxbench.tasks.world import frame, states
from jaxbench.tasks.zelda.features import CHARACTERS

Gather = Callable[[Mapping[str, jax.Array], jax.Array], Batch]


def examples(
    arrays: Mapping[str, np.ndarray],
    perspectives: Sequence[states.Perspective],
    chosen: Iterable[int],
    *,
    window: int,
    stride: int,
) -> np.ndarray:
    """Every `stride`-th window in which something is predicted, int32 [N, 2]."""
    found = [np.zeros((0, 2), np.int32)]
    for p in chosen:
        seen = perspectives[p]
        valid = states.steps(arrays, seen.start, seen.rival, seen.length)["valid_t"]
        before = np.append(0, np.cumsum(valid))
        first = np.arange(1, len(valid) - window + 1, stride)
        first = first[before[first + window] > before[first]]
        found.append(np.stack([np.full_like(first, p), first], 1).astype(np.int32))
    return np.concatenate(found)


def make_gather(window: int, residual: bool) -> Gather:
    """Builds `Task.gather` for examples int32 [B, 2].

    The batch holds what `frame.inputs` gives, now_bts and next_bts (in the game's
    units), target_bts, next_action_state_btn, reward_bt (in `Scales.reward`), done_bt,
    alive_bt and valid_bt (see `states.steps`) as float32, and reset_bt.
    """
    ahead = np.arange(window + 1)

    def gather(arrays: Mapping[str, jax.Array], examples_bk: jax.Array) -> Batch:
        table_bk = arrays["perspective"][examples_bk[:, 0]]
        index_bt = examples_bk[:, 1:] + ahead[None]
        start_bn = table_bk[:, [states.OWN, states.OPPONENT]]
        row_btn = start_bn[:, None, :] + index_bt[..., None]
        scales = frame.Scales.of(arrays)
        seen = read(arrays, row_btn, table_bk[:, states.STAGE])
        now, then = (
            jax.tree.map(lambda x, part=part: x[:, part], seen)
            for part in (slice(None, -1), slice(1, None))
        )
        flags = arrays["flags"][row_btn]
        alive = ((flags & states.ALIVE) != 0).all(axis=-1)
        done = ((flags & states.DONE) != 0).any(axis=-1)[:, :-1]
        harm = arrays["harm"][row_btn[:, :-1]]
        sent = arrays["controller"][row_btn[:, 1:]].astype(jnp.int32)
        first = jnp.zeros(done.shape, bool).at[:, 0].set(True)
        return frame.inputs(now, sent, scales) | {
            "now_bts": now.state_bs,
            "next_bts": then.state_bs,
            "target_bts": frame.target(now.state_bs, then.state_bs, scales, residual),
            "next_action_state_btn": then.action_state_bn,
            "reward_bt": (harm[..., 1] - harm[..., 0]) / scales.reward[None],
            "done_bt": done.astype(jnp.float32),
            "alive_bt": alive[:, :-1].astype(jnp.float32),
            "valid_bt": (alive[:, :-1] & alive[:, 1:] & ~done).astype(jnp.float32),
            "reset_bt": first,
        }

    return gather


def read(arrays: Mapping[str, Any], row_btn: Any, stage_b: Any) -> frame.Frame:
    """The frames whose fighters are at rows [B, T, 2], on stages [B]."""
    state = arrays["state"][row_btn]
    character = arrays["character"][row_btn].astype(jnp.int32)
    return frame.Frame(
        state_bs=state.reshape(*row_btn.shape[:2], states.STATE),
        action_state_bn=frame.known_states(arrays["action_state"][row_btn]),
        character_bn=jnp.minimum(character, CHARACTERS),
        stage_b=jnp.broadcast_to(stage_b[:, None], row_btn.shape[:2]),
    )
