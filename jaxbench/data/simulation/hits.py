"""Attacks that meet fighters: damage, knockback, hitstun, shields, grabs."""

from __future__ import annotations

import numpy as np

from jaxbench.data.simulation import arena, moves
from jaxbench.data.simulation.fight import SHIELD_MAX, Inputs, State
from jaxbench.data.simulation.moves import A

_WEIGHT_F = arena.attribute("weight")

_BODY_X, _BODY_Y, _BODY_HALF = np.float32(6), np.float32(7), np.float32(9)
_LAUNCH_SPEED = np.float32(0.035)
_HITSTUN = np.float32(0.4)
_TUMBLE = np.float32(80)
_INFLUENCE = np.float32(0.3)
_PERCENT_MAX = np.float32(999)
_REFLECT_FRAMES = 2
_SHIELD_DRAIN, _SHIELD_GAIN = np.float32(0.28), np.float32(0.07)
_SHIELD_AFTER_BREAK = np.float32(30)


def vulnerable(s: State) -> np.ndarray:
    """Returns bool [B, 2]: an attack that reaches the fighter does something."""
    return (s.invulnerable == 0) & ~intangible(s) & ~moves.IS_AWAY[s.action]


def intangible(s: State) -> np.ndarray:
    """Returns bool [B, 2]: the action itself lets attacks pass."""
    return (s.age >= moves.INTANGIBLE_FIRST[s.action]) & (
        s.age <= moves.INTANGIBLE_LAST[s.action]
    )


def strike(s: State, i: Inputs, live: np.ndarray) -> None:
    """Resolves attacks of both players at once, then projectiles, in place."""
    target = vulnerable(s)[:, ::-1]
    action = s.action
    active = live & (s.age >= moves.HIT_START[action])
    active &= (s.age <= moves.HIT_END[action]) & ~s.connected
    reach_x = s.x + s.facing * moves.HIT_X[action]
    reach_y = s.y + moves.HIT_Y[action]
    other = slice(None, None, -1)
    body_x, body_y = s.x[:, other], s.y[:, other] + _BODY_Y
    radius = moves.HIT_RADIUS[action]
    meets = np.abs(body_x - reach_x) <= radius + _BODY_X
    meets &= np.abs(body_y - reach_y) <= radius + _BODY_HALF
    hit = active & meets & target
    if hit.any():
        grab = hit & (action == A.CATCH)
        grab &= ~s.airborne[:, other] & ~moves.IS_DAMAGE[action[:, other]]
        hit &= grab | (action != A.CATCH)
        # Of two grabs on the same frame the first player's counts.
        grab[:, 1] &= ~grab[:, 0]
        hit &= grab | (action != A.CATCH)
        throw = _throw_of(s, i)
        move = np.where(grab, throw, action)
        s.connected |= hit
        _resolve(s, i, hit, grab, move, s.facing.copy())
        s.begin(grab, throw)
    _strike_with_shots(s, i)


def _throw_of(s: State, i: Inputs) -> np.ndarray:
    throw = np.where(i.x * s.facing < -0.3, A.THROW_B, A.THROW_F)
    vertical = np.abs(i.y) > np.abs(i.x)
    return np.where(vertical, np.where(i.y > 0, A.THROW_HI, A.THROW_LW), throw)


def _strike_with_shots(s: State, i: Inputs) -> None:
    flying = s.shot_left > 0
    if not flying.any():
        return
    other = slice(None, None, -1)
    radius = moves.HIT_RADIUS[A.SHOT] + np.abs(s.shot_vx) / 2
    meets = np.abs(s.x[:, other] - s.shot_x) <= radius + _BODY_X
    meets &= np.abs(s.y[:, other] + _BODY_Y - s.shot_y) <= 4 + _BODY_HALF
    hit = flying & meets & vulnerable(s)[:, other]
    if hit.any():
        s.put(hit, shot_left=0)
        move = np.full_like(s.action, A.SHOT)
        none = np.zeros_like(hit)
        _resolve(s, i, hit, none, move, np.sign(s.shot_vx), lag_self=False)


def _resolve(
    s: State,
    i: Inputs,
    hit: np.ndarray,
    grab: np.ndarray,
    move: np.ndarray,
    side: np.ndarray,
    lag_self: bool = True,
) -> None:
    """Applies hits; arrays are indexed by attacker, column 1 - p is the target."""
    other = slice(None, None, -1)
    damage = moves.DAMAGE[move]
    lag = np.floor(damage / 3 + 3).astype(np.int32)
    shielding = moves.IS_SHIELDED[s.action][:, other]
    blocked = hit & shielding & ~grab
    landed = hit & ~blocked
    if lag_self:
        s.put(hit & ~grab, hitlag=lag)
    s.last_attack[landed] = move[landed]
    chained = (s.hitstun > 0)[:, other]
    s.combo[landed] = np.where(chained, s.combo + 1, 1)[landed]
    s.damage += np.where(landed, damage, np.float32(0))
    if blocked.any():
        _block(s, blocked[:, other], damage[:, other], lag[:, other], side[:, other])
    if landed.any():
        _hurt(s, i, landed[:, other], move[:, other], lag[:, other], side[:, other])


def _block(
    s: State, mask: np.ndarray, damage: np.ndarray, lag: np.ndarray, side: np.ndarray
) -> None:
    perfect = mask & (s.action == A.GUARD_ON) & (s.age <= _REFLECT_FRAMES)
    s.begin(perfect, A.GUARD_REFLECT)
    full = mask & ~perfect
    s.put(full, shield=s.shield - damage)
    s.begin(full, A.GUARD_HIT)
    stun = np.floor(damage * np.float32(0.45) + 3).astype(np.int32)
    s.put(full, span=stun, vx=side * (damage * np.float32(0.06) + np.float32(0.4)))
    s.put(mask, hitlag=lag)


def _hurt(
    s: State,
    i: Inputs,
    mask: np.ndarray,
    move: np.ndarray,
    lag: np.ndarray,
    side: np.ndarray,
) -> None:
    damage = moves.DAMAGE[move]
    percent = np.minimum(s.percent + damage, _PERCENT_MAX)
    s.put(mask, percent=percent)
    # Melee's formula, for a victim at `percent` after the hit.
    weight = np.float32(200) / (_WEIGHT_F[s.fighter] + np.float32(100))
    force = (percent / 10 + percent * damage / 20) * weight * np.float32(1.4) + 18
    force = force * moves.GROWTH[move] / np.float32(100) + moves.BASE[move]
    cos, sin = side * moves.ANGLE_COS[move], moves.ANGLE_SIN[move]
    tumble = force >= _TUMBLE
    grounded_spike = (sin < 0) & ~s.airborne
    sin = np.where(grounded_spike, -sin * np.float32(0.8), sin)
    # The stick bends the launch by its part across it, some 17 degrees at most.
    bend = np.where(tumble, _INFLUENCE * (i.y * cos - i.x * sin), np.float32(0))
    cos, sin = cos - bend * sin, sin + bend * cos
    size = np.maximum(np.sqrt(cos * cos + sin * sin), np.float32(1e-6))
    speed = force * _LAUNCH_SPEED / size
    lifted = s.airborne | tumble | (sin > 0.5)
    s.put(mask, kx=speed * cos, ky=np.where(lifted, speed * sin, np.float32(0)))
    s.put(mask, vx=0, vy=0, hitlag=lag)
    s.put(mask, hitstun=np.floor(force * _HITSTUN).astype(np.int32))
    strength = (force >= 30).astype(np.int32) + (force >= 55)
    weak = np.where(lifted, A.DAMAGE_AIR, A.DAMAGE_N) + strength
    steep = np.abs(sin) > np.float32(0.9) * size
    fly = np.where(steep, np.where(sin > 0, A.FLY_TOP, A.FLY_LW), A.FLY_N)
    fly = np.where((force > 150) & ~steep, A.FLY_ROLL, fly)
    s.begin(mask, np.where(tumble, fly, weak))
    s.put(mask, facing=np.where(side == 0, s.facing, -side), fast_falling=False)
    rising = mask & lifted & ~s.airborne
    s.put(rising, airborne=True)
    s.jumps -= rising & (s.jumps > 0)
    # The players of a pair are 0 and 1, so the attacker is the other number.
    s.put(mask, last_hit_by=np.array([[1, 0]], np.int32))


def wear_shields(s: State, live: np.ndarray) -> None:
    """Drains raised shields, restores lowered ones, breaks empty ones, in place."""
    up = moves.IS_SHIELDED[s.action] & live
    change = np.where(up, -_SHIELD_DRAIN, _SHIELD_GAIN)
    s.put(live, shield=np.minimum(s.shield + change, SHIELD_MAX))
    broken = moves.IS_SHIELDED[s.action] & (s.shield <= 0)
    if broken.any():
        s.put(broken, shield=_SHIELD_AFTER_BREAK)
        s.begin(broken, A.DIZZY)
        s.put(broken, hitlag=0)
    s.put(s.shield < 0, shield=np.maximum(s.shield, 0))
