"""Multi-query associative recall: what value went with this key?

    python run.py --config=configs/mqar.py:deltanet
    python run.py --config=configs/mqar.py:transformer/conv,level=L2,learning_rate=3e-3
    python run.py --config=configs/mqar.py:transformer,vocabulary=64,pairs=8,tokens=32

Levels L0 (4 pairs in 32 tokens) to L4 (64 in 512), and "mixed". `protocol=compat` is
the published report: keys and values from one vocabulary, its five models
(deltanet_report, lstm_report, gru_report, rope_report, vanilla_report), batch 32 at
3e-4; its code's own preset is batch_size=16,learning_rate=1e-3.
"""

from ml_collections import ConfigDict

from configs import pentathlon


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    return pentathlon.recipe(
        "mqar",
        argument,
        data={
            "level": "L1",  # L0 .. L4, mixed, custom; L1..L3 for a curriculum
            "vocabulary": 8192,  # half keys, half values
            "filler": "zero",  # zero, random: tokens between the queries
            "pairs": 0,  # with tokens: a level of its own, "custom"
            "tokens": 0,
            "train_examples": 100_000,
        },
        compat_data={"level": "K32"},  # K32, K64: pairs
    )
