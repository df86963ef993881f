"""Meaning of a policy's inputs and outputs, as its manifest documents them."""

from __future__ import annotations

from typing import Any

from jaxbench.bench.trained import Run
from jaxbench.data.characters import INTERNAL_NAME, stage_name
from jaxbench.tasks.zelda import compat, controller, features, frames

# Feature -> (what is measured, divided by, least, most): clip(measure / by).
SCALES: dict[str, tuple[str, float, float, float]] = {
    "present": ("1 where the fighter or item is there", 1, 0, 1),
    "percent": ("damage in percent", 100, 0, 5),
    "facing": ("1 to the right, -1 to the left", 1, -1, 1),
    "x": ("horizontal position in units", 20, -10, 10),
    "y": ("vertical position in units", 20, -10, 10),
    "dx": ("units to the right of the own leader; a Nana: of her leader", 20, -10, 10),
    "dy": ("units above the own leader; a Nana: above her leader", 20, -10, 10),
    "ledge": ("(edge - |x|) / edge of the stage", 1, -10, 10),
    "shield": ("shield left", 100, 0, 1),
    "jumps": ("jumps left", 6, 0, 1),
    "stocks": ("stocks left", 4, 0, 1),
    "airborne": ("1 in the air", 1, 0, 1),
    "invulnerable": ("1 where nothing hits", 1, 0, 1),
    "state_age": ("frames in the action state", 60, 0, 2),
    "hitlag": ("frames of hitlag left", 20, 0, 1),
    "hitstun": ("frames of hitstun left", 120, 0, 1),
    **{name: ("units per frame", 2, -10, 10) for name in frames.SPEEDS},
    "velocity_x": ("units per frame", 2, -10, 10),
    "velocity_y": ("units per frame", 2, -10, 10),
    "distance": ("units between the leaders", 200, 0, 1.5),
    "relative_x": ("opponent's x minus own", 200, -10, 10),
    "relative_y": ("opponent's y minus own", 100, -10, 10),
    "frame": ("frame id since the timer started", 28800, 0, 1),
}


def controls() -> dict[str, Any]:
    """Encoding of a controller as six labels."""
    return {
        "components": list(controller.COMPONENTS),
        "classes": dict(controller.CLASSES),
        "buttons": list(controller.BUTTONS),
        "neutral": controller.NEUTRAL.tolist(),
        "decode": {
            "buttons": "bit i of label 0 is button i",
            "sticks": "label / 8 - 1, in [-1, 1]",
            "shoulder": "label / 4, in [0, 1]",
        },
    }


def chunk() -> dict[str, Any]:
    """Encoding of a controller as 13 numbers, at each place of a chunk."""
    return {
        "order": [*controller.BUTTONS, *controller.STICKS, "shoulder"],
        "places": "the controllers of this decision and of the frames after it",
        "decode": {
            "buttons": "pressed where above 0",
            "sticks": "in [-1, 1], to the nearest of 17 levels",
            "shoulder": "in [0, 1], to the nearest of 5 levels",
        },
    }


def inputs(run: Run) -> dict[str, Any]:
    """Names, order and scales of a policy's inputs, and the vocabularies of its ids."""
    if run.task.protocol == "compat":
        return {
            "frame_btf": {
                "columns": compat.WIDE,
                "varying": list(compat.INFORMATIVE),
                "note": "the original benchmark's vector, rounded to bfloat16",
            }
        }
    known = len(frames.STAGES)
    return {
        "numeric_btf": {
            "order": list(features.NUMERIC),
            "scales": {name: list(_scale(name)) for name in features.NUMERIC},
            "absent": 0,
        },
        "action_state_btn": {
            "order": ["own", "opponent", "own_nana", "opponent_nana"],
            "values": "Melee's action state id",
            "unknown": features.ACTION_STATES,
            "absent": features.ABSENT,
        },
        "character_btp": {
            "order": ["own", "opponent"],
            "values": {str(i): name for i, name in sorted(INTERNAL_NAME.items())},
            "unknown": features.CHARACTERS,
            "absent": features.ABSENT,
        },
        "stage_bt": {
            "values": {str(i): stage_name(s) for i, s in enumerate(frames.STAGES)},
            "stage_ids": list(frames.STAGES),
            "edges": [round(float(x), 2) for x in frames.LEDGES[:known]],
            "unknown": known,
        },
        "item_type_bti": {
            "order": [f"item_{i}" for i in range(frames.ITEM_SLOTS)],
            "values": f"Melee's item type id, below {frames.ITEM_TYPES}",
            "absent": features.ABSENT,
        },
        "previous_bta": {
            "order": list(controller.COMPONENTS),
            "values": "labels of the last controller that was sent",
        },
    }


def _scale(feature: str) -> tuple[str, float, float, float]:
    group, _, name = feature.rpartition(".")
    if group == "available":
        return (f"1 where the recording has {name}", 1, 0, 1)
    return SCALES[name]
