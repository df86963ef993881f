"""Predict the next frame of Melee from the frames and both controllers before it.

    python run.py --config=configs/world.py:gru
    python run.py --config=configs/world.py:gru --config.data.replays=FOLDER
    python run.py --config=configs/world.py:mamba,residual=no,width=128
    jaxbench rollout --run=RUN

Without replays it trains on the built-in simulation and its results say `simulated`.
Runs that differ in `seed` alone make an ensemble (`jaxbench rollout --run=A --run=B`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    backbone, settings = common.split_argument(argument)
    config = common.recipe(
        "world",
        data={
            "replays": "",  # folder of .slp files; "" for the built-in simulation
            "character": "any",  # whose games, seen from their side
            "max_files": 0,  # first files by name; 0 for all
            "validation_fraction": 0.1,  # of the games
            "split_seed": 0,  # which are held out: the same games for every `seed`
            "window": 64,  # frames in a row; every one of them is scored
            "stride": 32,  # frames between windows
            "simulated_games": 12,  # when there are no replays
            "workers": 0,  # parsing processes; 0 for one per core
            "cache": "~/.cache/jaxbench/replays",  # parsed replays; "" for none
        },
        model={
            "backbone": backbone or "gru",
            "residual": True,  # say the change to the next frame, or the frame itself
        },
        train={
            "epochs": 10,
            "max_steps": 0,  # stop earlier; 0 for no limit
            "final_fraction": 0.05,
            "warmup_steps": 200,
            "evaluate_every": 0,  # steps, besides each epoch's end
        },
    )
    common.apply_settings(config, settings)
    return config
