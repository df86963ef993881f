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
    config = ConfigDict()
    config.task = "world"
    config.protocol = "clean"
    config.seed = 0
    config.purpose = "score"  # score; sweep: a point of a learning-rate curve

    config.data = ConfigDict(
        {
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
        }
    )
    config.model = ConfigDict(
        {
            "backbone": backbone or "gru",  # a row of the zoo, or a pattern of rows
            "width": 256,
            "depth": common.optional_int(),  # None: the row's own
            "options": "",  # of the mixers: "heads=8 window=16 channel.experts=4"
            "dropout": 0.0,  # on residual branches
            "residual": True,  # say the change to the next frame, or the frame itself
            "remat": False,  # recompute activations in the backward pass
        }
    )
    config.train = ConfigDict(
        {
            "epochs": 10,
            "max_steps": 0,  # stop earlier; 0 for no limit
            "batch_size": 64,
            "learning_rate": 1e-3,
            "ssm_learning_rate": 1e-3,  # cap for decays, time steps, state matrices
            "schedule": "cosine",  # constant, cosine, linear, cosine_restarts, ...
            "final_fraction": 0.05,  # of the learning rate, at the end
            "warmup_steps": 200,
            "clip_norm": 1.0,
            "weight_decay": 0.01,
            "decay_vectors": False,  # decay biases, norms and SSM parameters too
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "dtype": "float32",  # compute type: float32, bfloat16
            "parameter_dtype": "float32",  # of parameters and Adam's moments
            "ema_decay": 0.0,  # of averaged parameters for evaluation; 0 for none
            "steps_per_dispatch": 16,
            "evaluate_every": 0,  # steps, besides each epoch's end
            "checkpoint_every": 1000,  # steps, besides each evaluation
            "max_skips": 0,  # updates that may not be finite before the run is over
        }
    )
    config.xla = common.xla_defaults()
    common.apply_settings(config, settings)
    return config
