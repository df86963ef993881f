"""Word problem of a finite group: the product of all elements so far.

    python run.py --config=configs/word_problem.py:lstm
    python run.py --config=configs/word_problem.py:deltanet,options=negative=True

Levels L1 to L6 have 4 to 25 elements; tests are two and four times as long. A5 needs a
state that is tracked step by step, Z60 is its commutative control. `protocol=compat` is
the published report's character version.
"""

from ml_collections import ConfigDict

from configs import pentathlon


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    return pentathlon.recipe(
        "word_problem",
        argument,
        data={
            "level": "L2",  # L1 .. L6: 4, 8, 12, 16, 20, 25; L1..L3 for a curriculum
            "group": "A5",  # A5, A4xZ5, Z60
        },
        compat_data={"level": "original"},
        train={"batch_size": 256},
    )
