"""A controller as six labels, and back.

A row of labels is `[..., 6]`: the eight buttons packed in one byte (bit i is
`BUTTONS[i]`), the four stick axes as one of 17 levels, the shoulder as one of 5.

Two schemes. `clean` rounds to the nearest level, so level / 16 decodes exactly what
was encoded and the error of an axis is at most half a level. `compat` floors into 16
(shoulder 4) used classes, as the original labels did, although its decoding is the
same b / 16: full right or up is read back as 0.875 and everything but neutral is up
to a level too low.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BUTTONS = ("A", "B", "X", "Y", "Z", "L", "R", "D_UP")
MASKS = np.array([0x100, 0x200, 0x400, 0x800, 0x10, 0x40, 0x20, 0x08], np.uint16)
STICKS = ("main_x", "main_y", "c_x", "c_y")
COMPONENTS = ("buttons", *STICKS, "shoulder")
CLASSES = {"buttons": len(BUTTONS), **dict.fromkeys(STICKS, 17), "shoulder": 5}
LOGITS = sum(CLASSES.values())
NEUTRAL = np.array([0, 8, 8, 8, 8, 0], np.uint8)

_PROCESSED = {
    "main_x": "joystick_x",
    "main_y": "joystick_y",
    "c_x": "cstick_x",
    "c_y": "cstick_y",
}


def level(value: np.ndarray, top: int, protocol: str) -> np.ndarray:
    """Level of values in [0, 1]: 0..top (clean) or 0..top-1 (compat), uint8.

    Clean rounds ties to the even level, which is symmetric about neutral: processed
    sticks are multiples of 1/80, so ties do occur.
    """
    scaled = np.clip(np.asarray(value, np.float32), 0, 1) * np.float32(top)
    if protocol == "compat":
        return np.minimum(np.floor(scaled), top - 1).astype(np.uint8)
    return np.rint(scaled).astype(np.uint8)


def encode(pre: Mapping[str, np.ndarray], protocol: str) -> np.ndarray:
    """Labels of the controllers in `Character.pre`, uint8 [T, 6].

    Buttons come from the physical mask, the shoulder is the larger physical trigger,
    sticks are the processed axes s in [-1, 1] mapped by (s + 1) / 2.
    """
    mask = np.asarray(pre["buttons"], np.uint16)
    pressed = (mask[..., None] & MASKS) != 0
    axes = np.stack([pre[_PROCESSED[name]] for name in STICKS], axis=-1)
    levels = level((axes.astype(np.float32) + 1) / 2, 16, protocol)
    shoulder = level(np.maximum(pre["trigger_l"], pre["trigger_r"]), 4, protocol)
    return np.concatenate(
        [pack(pressed)[..., None], levels, shoulder[..., None]], axis=-1
    )


def decode(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Controllers of labels [..., 6]: what to press.

    Both protocols decode alike: b / 16 of a stick's range, b / 4 of the shoulder's.

    Returns:
      buttons bool [..., 8]; main_x, main_y, c_x, c_y float32 in [-1, 1]; shoulder
      float32 in [0, 1].
    """
    labels = np.asarray(labels)
    sticks = {
        name: (labels[..., i] / 8 - 1).astype(np.float32)
        for i, name in enumerate(STICKS, start=1)
    }
    shoulder = (labels[..., 5] / 4).astype(np.float32)
    return {"buttons": unpack(labels[..., 0]), **sticks, "shoulder": shoulder}


def pack(pressed: np.ndarray) -> np.ndarray:
    """Bool [..., 8] as one byte each, first button in the lowest bit."""
    return np.packbits(pressed, axis=-1, bitorder="little")[..., 0]


def unpack(packed: np.ndarray) -> np.ndarray:
    """The inverse of `pack`: bool [..., 8]."""
    bits = np.asarray(packed, np.uint8)[..., None]
    return np.unpackbits(bits, axis=-1, bitorder="little").astype(bool)
