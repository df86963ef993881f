"""Six labels of a controller, both ways."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxbench.tasks.zelda import controller


def pads(sticks, buttons=0, left=0.0, right=0.0):
    count = len(sticks)
    axis = np.asarray(sticks, np.float32)
    return {
        **{k: axis for k in ("joystick_x", "joystick_y", "cstick_x", "cstick_y")},
        "buttons": np.full(count, buttons, np.uint16),
        "trigger_l": np.full(count, left, np.float32),
        "trigger_r": np.full(count, right, np.float32),
    }


@pytest.mark.parametrize("protocol", ["clean", "compat"])
def test_a_neutral_pad_is_the_neutral_label(protocol):
    labels = controller.encode(pads([0.0]), protocol)
    np.testing.assert_array_equal(labels, [controller.NEUTRAL])
    back = controller.decode(labels)
    assert back["main_x"] == 0 and back["shoulder"] == 0 and not back["buttons"].any()


def test_compat_floors_into_sixteen_and_four_classes():
    values = np.arange(-80, 81) / 80
    labels = controller.encode(pads(values), "compat")
    for value, row in zip(values, labels, strict=True):
        assert row[1] == min(math.floor(16 * np.float32((value + 1) / 2)), 15)
    assert set(labels[:, 1]) == set(range(16))
    for v, expected in ((0, 0), (0.25, 1), (0.49, 1), (0.75, 3), (0.99, 3), (1, 3)):
        assert controller.encode(pads([0], left=v), "compat")[0, 5] == expected
    # Its decoding does not undo it: full right is read back as 14/16.
    assert controller.decode(labels)["main_x"][-1] == pytest.approx(0.875)


def test_clean_rounds_to_the_nearest_level():
    values = np.linspace(-1, 1, 1001)
    labels = controller.encode(pads(values), "clean")
    for value, row in zip(values, labels, strict=True):
        distance = [abs(np.float32(value) - (k / 8 - 1)) for k in range(17)]
        assert distance[row[1]] <= min(distance) + 1e-6
    assert set(labels[:, 3]) == set(range(17))
    error = np.abs(controller.decode(labels)["c_x"] - values)
    assert error.max() <= 1 / 16 + 1e-6


def test_clean_is_symmetric_about_neutral_also_at_ties():
    values = np.arange(81) / 80
    right = controller.encode(pads(values), "clean")[:, 1].astype(int)
    left = controller.encode(pads(-values), "clean")[:, 1].astype(int)
    np.testing.assert_array_equal(right - 8, 8 - left)


def test_clean_levels_survive_decoding_and_encoding():
    levels = np.arange(17)
    labels = np.stack([levels * 15, *[levels] * 4, levels % 5], 1).astype(np.uint8)
    pad = controller.decode(labels)
    masks = (pad["buttons"] * controller.MASKS[None]).sum(1).astype(np.uint16)
    pre = {
        "joystick_x": pad["main_x"],
        "joystick_y": pad["main_y"],
        "cstick_x": pad["c_x"],
        "cstick_y": pad["c_y"],
        "buttons": masks,
        "trigger_l": pad["shoulder"],
        "trigger_r": np.zeros(17, np.float32),
    }
    np.testing.assert_array_equal(controller.encode(pre, "clean"), labels)


def test_buttons_are_the_eight_physical_bits_in_order():
    expected = {
        "A": 0x100,
        "B": 0x200,
        "X": 0x400,
        "Y": 0x800,
        "Z": 0x10,
        "L": 0x40,
        "R": 0x20,
        "D_UP": 0x08,
    }
    for i, (name, mask) in enumerate(expected.items()):
        labels = controller.encode(pads([0], buttons=mask), "clean")
        assert labels[0, 0] == 1 << i and controller.BUTTONS[i] == name
        assert list(np.flatnonzero(controller.decode(labels)["buttons"][0])) == [i]
    # Start and the other directions of the d-pad are no part of it.
    assert controller.encode(pads([0], buttons=0x1007), "clean")[0, 0] == 0


def test_the_shoulder_is_the_larger_physical_trigger():
    for left, right in ((0.3, 0.8), (0.8, 0.3)):
        row = controller.encode(pads([0], left=left, right=right), "clean")[0]
        assert row[5] == 3  # 3.2 of 4


def test_packing_is_its_own_inverse():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(controller.pack(controller.unpack(every)), every)
    assert controller.LOGITS == 81
