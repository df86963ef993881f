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
_FIGHTERS = (frames.EGO, frames.OPPONENT, frames.EGO_NANA, frames.OPPONENT_NANA)
_BITS = (frames.PRESENT, frames.RIGHT, frames.AIRBORNE, frames.INVULNERABLE)
_HITSTUN = frames.MEASURES.index("hitstun")
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
    columns = jnp.asarray(_FIGHTERS)
    first_bn = table[:, columns][:, None, :]
    row_btn = jnp.where(first_bn > 0, first_bn + index_bt[..., None], 0)
    stage_b = table[:, frames.STAGE]
    status_btns = arrays["status"][row_btn].astype(jnp.int32)
    position_btnc = arrays["position"][row_btn]
    measure_btnm = arrays["measure"][row_btn].astype(jnp.float32)
    # Bits and positions of the fighters are of equal shape: one operation for all.
    flag_btnk = (status_btns[..., :1] & jnp.asarray(_BITS)[None, None, None]) != 0
    flag_btnk = flag_btnk.astype(jnp.float32)
    present_btn1 = flag_btnk[..., :1]
    ledge_b = jnp.asarray(frames.LEDGES)[stage_b]
    leader = _leaders(
        present_btn1[..., :2, :],
        flag_btnk[..., :2, 1:],
        position_btnc[..., :2, :],
        status_btns[..., :2, 1:3].astype(jnp.float32),
        measure_btnm[..., :2, :],
        ledge_b[:, None, None, None],
    )
    nana = _nanas(
        present_btn1[..., 2:, :],
        flag_btnk[..., 2:, 1:],
        position_btnc[..., 2:, :] - position_btnc[..., :2, :],
        measure_btnm[..., 2:, :],
    )
    frame_bt = table[:, None, frames.FIRST_ID] + index_bt
    item_btf, item_type_bti = _items(arrays, row_btn[..., 0], position_btnc[..., 0, :])
    bits_bg = arrays["available"][perspective_b].astype(jnp.float32)
    shape = index_bt.shape
    nobody = present_btn1[..., 0] <= 0
    return {
        "numeric_btf": jnp.concatenate(
            [
                leader.reshape(*shape, -1),
                nana.reshape(*shape, -1),
                _between(present_btn1, position_btnc),
                jnp.clip(frame_bt[..., None].astype(jnp.float32) / 28800, 0, 1),
                item_btf,
                jnp.broadcast_to(bits_bg[:, None], (*shape, bits_bg.shape[1])),
            ],
            axis=-1,
        ),
        "action_state_btn": jnp.where(
            nobody,
            ABSENT,
            jnp.minimum(
                arrays["action_state"][row_btn].astype(jnp.int32), ACTION_STATES
            ),
        ),
        "character_btp": jnp.where(
            nobody[..., :2], ABSENT, jnp.minimum(status_btns[..., :2, 3], CHARACTERS)
        ),
        "stage_bt": jnp.broadcast_to(stage_b[:, None], shape),
        "item_type_bti": item_type_bti,
    }


def _leaders(
    present: jax.Array,
    flags: jax.Array,
    position: jax.Array,
    counts: jax.Array,
    measure: jax.Array,
    ledge: jax.Array,
) -> jax.Array:
    """The numbers `LEADER` of both players, [B, T, 2, len(LEADER)]."""
    right, airborne_invulnerable = flags[..., :1], flags[..., 1:]
    safe = jnp.maximum(ledge, 1)
    to_ledge = jnp.clip((safe - jnp.abs(position[..., :1])) / safe, -10, 10)
    return jnp.concatenate(
        [
            present,
            measure[..., :1],
            present * (2 * right - 1),
            jnp.clip(position * 0.05, -10, 10),
            present * (ledge > 0) * to_ledge,
            measure[..., 1:2],
            # Jumps that are left, of six; stocks, of four.
            jnp.minimum(counts / jnp.asarray([6.0, 4.0])[None, None, None], 1),
            airborne_invulnerable,
            measure[..., 2:],
        ],
        axis=-1,
    )


def _nanas(
    present: jax.Array, flags: jax.Array, offset: jax.Array, measure: jax.Array
) -> jax.Array:
    """The numbers `NANA` of both players' Nanas, [B, T, 2, len(NANA)]."""
    return jnp.concatenate(
        [
            present,
            present * jnp.clip(offset * 0.05, -10, 10),
            present * (2 * flags[..., :1] - 1),
            measure[..., :1],
            flags[..., 1:],
            measure[..., _HITSTUN : _HITSTUN + 1],
        ],
        axis=-1,
    )


def _between(present: jax.Array, position: jax.Array) -> jax.Array:
    """Distance and offset from the player to the opponent, [B, T, 3]."""
    here = present[..., 0, :] * present[..., 1, :]
    d_btc = (position[..., 1, :] - position[..., 0, :]) * here
    distance = jnp.hypot(d_btc[..., :1], d_btc[..., 1:])
    scale = jnp.asarray([200.0, 100.0])[None, None]
    return jnp.concatenate(
        [jnp.clip(distance / 200, 0, 1.5), jnp.clip(d_btc / scale, -10, 10)], axis=-1
    )


def _items(
    arrays: Mapping[str, jax.Array], row_bt: jax.Array, own_btc: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Features [B, T, slots * 5] and types of the nearest items of others."""
    slot = arrays["item_slot"][row_bt]
    here = (slot > 0).astype(jnp.float32)[..., None]
    offset = here * (arrays["item_position"][slot] - own_btc[..., None, :])
    velocity = arrays["item_velocity"][slot].astype(jnp.float32)
    columns = [here, jnp.clip(offset * 0.05, -10, 10), velocity]
    types = arrays["item_type"][slot].astype(jnp.int32)
    numeric = jnp.concatenate(columns, axis=-1).reshape(*row_bt.shape, -1)
    return numeric, jnp.where(slot > 0, types, ABSENT)
