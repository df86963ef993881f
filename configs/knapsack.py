"""0-1 knapsack: the largest value that fits the capacity.

    python run.py --config=configs/knapsack.py:lstm
    python run.py --config=configs/knapsack.py:mamba2,level=L1..L3,target=dp

Levels L1 (4 items) to L5 (5 to 14 items, the report's numbers). `protocol=compat` is
the published report.
"""

from ml_collections import ConfigDict

from configs import pentathlon


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    return pentathlon.recipe(
        "knapsack",
        argument,
        data={
            "level": "L1",  # L1 .. L5; L1..L3 for a curriculum
            "target": "direct",  # the optimum at once, as digits, or dp: step by step
        },
        compat_data={"level": "original"},
        train={"batch_size": 256, "max_steps": 20_000},
    )
