"""Imitate a Melee player from Slippi replays, at 60 frames per second.

    python run.py --config=configs/zelda.py:s4
    python run.py --config=configs/zelda.py:s4 \
        --config.data.replays=FOLDER --config.data.character=falco
    python run.py --config=configs/zelda.py:mamba*2+swa,width=128,epochs=1
    python run.py --config=configs/zelda.py:gru,protocol=compat
    python run.py --config=configs/zelda.py:mamba,preset=gpu_standard

Without replays it trains on the built-in simulation and its results say `simulated`.
`protocol=compat` after the colon also takes over the original benchmark's learning
rate, schedule and weight decay.
"""

from ml_collections import ConfigDict

from configs import common
from jaxbench.tasks.zelda import presets


def get_config(argument: str = "") -> ConfigDict:
    """Returns the recipe; `argument` is the text after the colon."""
    backbone, settings = common.split_argument(argument)
    config = common.recipe(
        "zelda",
        data={
            "replays": "",  # folder of .slp files; "" for the built-in simulation
            "character": "zelda",  # who to imitate; "any" for every port
            "max_files": 0,  # first files by name; 0 for all
            "validation_fraction": 0.1,  # of the games: chooses the best weights
            "test_fraction": 0.1,  # of the games: scored once, at the end (clean)
            "splits": 1,  # how many ways of holding games out the seeds go through
            "split_by": "game",  # or player: nobody who trains is held out (clean)
            "split_seed": 0,  # who is held out: the same games for every `seed`
            "drop_idle": True,  # do not score frames of the dead and entering (clean)
            "window": 30,  # frames a decision sees
            "stride": 1,  # frames between windows
            "delay": 0,  # frames between seeing and acting, besides the one
            "max_delay": 0,  # training draws delays up to this one; 0 for `delay` alone
            "mirror": 0.0,  # share of training windows with left and right exchanged
            "noise": 0.0,  # share of training windows measured with an error
            "noise_scale": 0.01,  # its standard deviation, in a feature's unit
            "simulated_games": 12,  # when there are no replays
            "workers": 0,  # parsing processes; 0 for one per core
            "cache": "~/.cache/jaxbench/replays",  # parsed replays; "" for none
        },
        model={
            "backbone": backbone or "s4",
            "dropout": 0.1,
            # independent, autoregressive; over chunks: diffusion, act, flow_matching
            "head": "independent",
            "head_options": "",  # of those over chunks: "horizon=8 steps=20"
            "readout": "last",  # score the last frame of a window, or all of them
        },
        train={
            "epochs": 3,
            "max_steps": 0,  # stop earlier; 0 for no limit
            "final_fraction": 0.05,
            "warmup_steps": 200,
            "label_smoothing": 0.0,
            "focal_gamma": 0.0,
            "button_weight": 1.0,
            "stick_edge_weight": 1.0,
            "evaluate_every": 0,  # steps, besides each epoch's end
            "keep_best": 1,  # best checkpoints to keep
            "patience": 0,  # validations without a gain that end the run; 0 for never
            "min_delta": 0.0,  # what is a gain in the validation metric
        },
    )
    if settings.get("protocol") == "compat":
        # The original's: constant rate after 1000 steps of warm-up, decay on all
        # parameters, dropout never active.
        config.model.dropout = 0.0
        config.train.learning_rate = 1e-4
        config.train.ssm_learning_rate = 1e-4
        config.train.schedule = "constant"
        config.train.warmup_steps = 1000
        config.train.weight_decay = 1e-5
        config.train.decay_vectors = True
    if "preset" in settings:
        common.apply_settings(config, presets.find(settings.pop("preset"), backbone))
    common.apply_settings(config, settings)
    return config
