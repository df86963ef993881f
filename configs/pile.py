"""Model bytes of text: about 100 M parameters in ten minutes, scored on held-out text.

    python run.py --config=configs/pile.py:mamba2
    python run.py --config=configs/pile.py:e61,size=1m,budget=10min \
        --config.data.corpus=classics100.xz
    python run.py --config=configs/pile.py:gated_deltanet*2+swa,size=10m,budget=50MB
    python run.py --config=configs/pile.py:e71,size=published,protocol=compat

Without a corpus it reads the Python installation's own sources and its results say
`python`. `protocol=compat` after the colon takes over the training of the Elman
benchmark, its oscillating learning rate and bfloat16 parameters included, and builds
rows that it published with their faults.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    backbone, settings = common.split_argument(argument)
    config = common.recipe(
        "pile",
        data={
            "corpus": "",  # file, or folder of .jsonl.zst; "" for Python's own sources
            "splits": "",  # "train=0:90M,validation=90M:95M,test=95M:100M"; "": found
            "window": 512,  # bytes a model sees
            "sampler": "random",  # random offsets; sequential: the original's chunks
            "validation_bytes": 2_000_000,  # scored at most, from the start; 0 for all
            "cache": "~/.cache/jaxbench/corpora",  # unpacked corpora; "" for none
        },
        model={
            "backbone": backbone or "mamba2",
            "size": "100m",  # 1m, 10m, 100m, 350m, published, with its embedding
            "width": 0,
        },
        train={
            "budget": "10min",  # of training: 10min, 50MB of text, or 2000steps
            "batch_size": 32,
            "final_fraction": 0.1,
            "warmup_fraction": 0.02,  # of the budget
            "weight_decay": 0.1,
            "b2": 0.95,
            "evaluations": 10,  # validations at most, evenly over the budget
            "evaluation_share": 0.2,  # of the budget, for validations; 0: any part
            "max_skips": 10,
        },
    )
    if settings.get("protocol") == "compat":
        config.data.sampler = "sequential"
        config.train.learning_rate = 3e-4
        config.train.ssm_learning_rate = 3e-4
        config.train.schedule = "oscillating"
        config.train.final_fraction = 0.0
        config.train.weight_decay = 0.01
        config.train.decay_vectors = True
        config.train.dtype = "bfloat16"
        config.train.parameter_dtype = "bfloat16"
    common.apply_settings(config, settings)
    return config
