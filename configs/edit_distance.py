"""Edit distance of two strings.

    python run.py --config=configs/edit_distance.py:gru
    python run.py --config=configs/edit_distance.py:mamba2,level=L1..L3,target=dp

Levels L1 (4 to 6 letters) to L3 (16 to 24). `protocol=compat` is the published report's
generator, with the mask that its own code lacked.
"""

from ml_collections import ConfigDict

from configs import pentathlon


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    return pentathlon.recipe(
        "edit_distance",
        argument,
        data={
            "level": "L1",  # L1 .. L3; L1..L3 for a curriculum
            "target": "direct",  # the distance at once, or dp: row by row
        },
        compat_data={"level": "original"},
        train={"batch_size": 256, "max_steps": 20_000},
    )
