"""What the clean protocol shows a model at each frame, computed on the device.

Fixed against the original's 288 columns (see `compat`): facing has its sign, hitstun is
hitstun and hitlag is hitlag, invulnerability reads the hurtbox, the ledge is the
stage's own, the previous controller, Nana and the opponent's items are there, action
states and characters are table indices, and a field that the recording's version lacks
is 0 with its availability bit 0 instead of a made-up value. Scales are the original's;
hitlag, which it had not, is in units of 20 frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxbench.tasks.zelda import frames

_MEASURES = ("state_age", "hitlag", "hitstun", *frames.SPEEDS)
LEADER = (
    *("present", "percent", "facing", "x", "y", "ledge", "shield", "jumps"),
    *("stocks", "airborne", "invulnerable", *_MEASURES),
)
NANA = (
    *("present", "dx", "dy", "facing", "percent", "airborne", "invulnerable"),
    "hitstun",
)
ITEM = ("present", "dx", "dy", "velocity_x", "velocity_y")
NUMERIC = (
    *(f"own.{name}" for name in LEADER),
    *(f"opponent.{name}" for name in LEADER),
    *(f"own_nana.{name}" for name in NANA),
    *(f"opponent_nana.{name}" for name in NANA),
    *("distance", "relative_x", "relative_y", "frame"),
    *(f"item_{i}.{name}" for i in range(frames.ITEM_SLOTS) for name in ITEM),
    *(f"available.{name}" for name in frames.AVAILABLE),
)
ACTION_STATES = 399
CHARACTERS = 33
ABSENT = -1


def inputs(
    arrays: Mapping[str, jax.Array], perspective_b: jax.Array, index_bt: jax.Array
) -> dict[str, jax.Array]:
    """The frames `index_bt` of games seen by `perspective_b`.

    Cost: one gather of four rows (two leaders, two Nanas) and four item rows a frame.

    Args:
      arrays: from `frames.store`.
      perspective_b: int32 [B], rows of `arrays["perspective"]`.
      index_bt: int32 [B, T], frames counted from the perspective's first.

    Returns:
      numeric_btf float32 [B, T, len(NUMERIC)]; action_state_btn int32 [B, T, 4] (own,
      opponent's, the Nanas'; the last index of the table is "unknown", ABSENT nobody);
      character_btp int32 [B, T, 2]; stage_bt int32; item_type_bti int32 [B, T, 4].
    """
    table = arrays["perspective"][perspective_b]
    start_bn = table[:, [frames.EGO, frames.OPPONENT]]
    nana_bn = table[:, [frames.EGO_NANA, frames.OPPONENT_NANA]]
    first_bn = jnp.concatenate([start_bn, nana_bn], axis=1)[:, None, :]
    row_btn = jnp.where(first_bn > 0, first_bn + index_bt[..., None], 0)
    stage_b = table[:, frames.STAGE]
    ledge_b = jnp.asarray(frames.LEDGES)[stage_b]
    fighter = _fighters(arrays, row_btn, ledge_b[:, None, None])
    here_bt = fighter["present"][..., 0] * fighter["present"][..., 1]
    dx_bt = (fighter["raw_x"][..., 1] - fighter["raw_x"][..., 0]) * here_bt
    dy_bt = (fighter["raw_y"][..., 1] - fighter["raw_y"][..., 0]) * here_bt
    frame_bt = table[:, None, frames.FIRST_ID] + index_bt
    spatial = [
        jnp.clip(jnp.hypot(dx_bt, dy_bt) / 200, 0, 1.5),
        jnp.clip(dx_bt / 200, -10, 10),
        jnp.clip(dy_bt / 100, -10, 10),
        jnp.clip(frame_bt.astype(jnp.float32) / 28800, 0, 1),
    ]
    item_btif, item_type_bti = _items(arrays, row_btn[..., 0], fighter)
    bits_bg = arrays["available"][perspective_b].astype(jnp.float32)
    shape = (*index_bt.shape, bits_bg.shape[1])
    numeric = [
        *[fighter[name][..., n] for n in (0, 1) for name in LEADER],
        *[fighter[name][..., n] for n in (2, 3) for name in NANA],
        *spatial,
    ]
    return {
        "numeric_btf": jnp.concatenate(
            [
                jnp.stack(numeric, axis=-1),
                item_btif.reshape(*index_bt.shape, -1),
                jnp.broadcast_to(bits_bg[:, None], shape),
            ],
            axis=-1,
        ),
        "action_state_btn": fighter["action_state"],
        "character_btp": fighter["character"][..., :2],
        "stage_bt": jnp.broadcast_to(stage_b[:, None], index_bt.shape),
        "item_type_bti": item_type_bti,
    }


def _fighters(
    arrays: Mapping[str, jax.Array], row_btn: jax.Array, ledge_b11: jax.Array
) -> dict[str, jax.Array]:
    """Named features of four fighters, each [B, T, 4], 0 for one that is not there."""
    status = arrays["status"][row_btn].astype(jnp.int32)
    bits = status[..., 0]
    position = arrays["position"][row_btn]
    measure = arrays["measure"][row_btn].astype(jnp.float32)
    state = arrays["action_state"][row_btn].astype(jnp.int32)

    def flag(bit: int) -> jax.Array:
        return ((bits & bit) != 0).astype(jnp.float32)

    present = flag(frames.PRESENT)
    x, y = position[..., 0], position[..., 1]
    # The leader a Nana belongs to, in the order (own, opponent's, own, opponent's).
    leader = jnp.concatenate([position[..., :2, :]] * 2, axis=-2)
    safe = jnp.broadcast_to(jnp.maximum(ledge_b11, 1), x.shape)
    known = present * (ledge_b11 > 0)
    named = {name: measure[..., i] for i, name in enumerate(frames.MEASURES)}
    return named | {
        "present": present,
        "raw_x": x,
        "raw_y": y,
        "facing": present * (2 * flag(frames.RIGHT) - 1),
        "x": jnp.clip(x * 0.05, -10, 10),
        "y": jnp.clip(y * 0.05, -10, 10),
        "dx": present * jnp.clip((x - leader[..., 0]) * 0.05, -10, 10),
        "dy": present * jnp.clip((y - leader[..., 1]) * 0.05, -10, 10),
        "ledge": known * jnp.clip((safe - jnp.abs(x)) / safe, -10, 10),
        "jumps": jnp.minimum(status[..., 1] / 6, 1),
        "stocks": jnp.clip(status[..., 2] / 4, 0, 1),
        "airborne": flag(frames.AIRBORNE),
        "invulnerable": flag(frames.INVULNERABLE),
        "action_state": _index(state, ACTION_STATES, present),
        "character": _index(status[..., 3], CHARACTERS, present),
    }


def _index(ids: jax.Array, count: int, present: jax.Array) -> jax.Array:
    """Table index: the id, `count` where it is unknown, ABSENT where nobody is."""
    return jnp.where(present > 0, jnp.minimum(ids, count), ABSENT)


def _items(
    arrays: Mapping[str, jax.Array], ego_bt: jax.Array, fighter: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Features [B, T, slots, 5] and types of the nearest items of others."""
    slot = arrays["item_slot"][ego_bt]
    position = arrays["item_position"][slot]
    velocity = arrays["item_velocity"][slot].astype(jnp.float32)
    here = (slot > 0).astype(jnp.float32)
    dx = here * (position[..., 0] - fighter["raw_x"][..., :1])
    dy = here * (position[..., 1] - fighter["raw_y"][..., :1])
    columns = [
        here,
        jnp.clip(dx * 0.05, -10, 10),
        jnp.clip(dy * 0.05, -10, 10),
        velocity[..., 0],
        velocity[..., 1],
    ]
    types = arrays["item_type"][slot].astype(jnp.int32)
    return jnp.stack(columns, axis=-1), jnp.where(slot > 0, types, ABSENT)
