"""Flip-flop language: remember one bit over any distance, and ignore the rest.

    python run.py --config=configs/flip_flop.py:lstm
    python run.py --config=configs/flip_flop.py:transformer,level=L1..L4,train_mix=yes

Levels L1 to L4 have 64 to 512 tokens, eight in ten instructions are to ignore; tests
have more and fewer. `protocol=compat` is the published report, whose answers are
shifted by one: its best possible accuracy is 10.7 %.
"""

from ml_collections import ConfigDict

from configs import pentathlon


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    return pentathlon.recipe(
        "flip_flop",
        argument,
        data={
            "level": "L2",  # L1 .. L4; L1..L4 for a curriculum
            "train_mix": False,  # train on denser and sparser sequences too
        },
        compat_data={"level": "original"},
        train={"batch_size": 16, "learning_rate": 3e-4, "warmup_fraction": 0.005},
    )
