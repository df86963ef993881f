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
    preset = presets.find(settings.pop("preset")) if "preset" in settings else None
    config = ConfigDict()
    config.task = "zelda"
    config.protocol = "clean"  # clean, compat
    config.seed = 0
    config.purpose = "score"  # score; sweep: a point of a learning-rate curve

    config.data = ConfigDict(
        {
            "replays": "",  # folder of .slp files; "" for the built-in simulation
            "character": "zelda",  # who to imitate; "any" for every port
            "max_files": 0,  # first files by name; 0 for all
            "validation_fraction": 0.1,  # of the games
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
        }
    )
    config.model = ConfigDict(
        {
            # A row of the zoo, or a pattern of rows.
            "backbone": backbone or (preset.backbone if preset else "s4"),
            "width": 256,
            "depth": common.optional_int(),  # None: the row's own
            "options": "",  # of the mixers: "heads=8 window=16 channel.experts=4"
            "dropout": 0.1,  # on residual branches
            # independent, autoregressive; over chunks: diffusion, act, flow_matching
            "head": "independent",
            "head_options": "",  # of those over chunks: "horizon=8 steps=20"
            "readout": "last",  # score the last frame of a window, or all of them
            "remat": False,  # recompute activations in the backward pass
        }
    )
    config.train = ConfigDict(
        {
            "epochs": 3,
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
            "label_smoothing": 0.0,
            "focal_gamma": 0.0,
            "button_weight": 1.0,
            "stick_edge_weight": 1.0,
            "dtype": "float32",  # compute type: float32, bfloat16
            "parameter_dtype": "float32",  # of parameters and Adam's moments
            "ema_decay": 0.0,  # of averaged parameters for evaluation; 0 for none
            "steps_per_dispatch": 16,
            "evaluate_every": 0,  # steps, besides each epoch's end
            "checkpoint_every": 1000,  # steps, besides each evaluation
            "keep_best": 1,  # best checkpoints to keep
            "patience": 0,  # validations without a gain that end the run; 0 for never
            "min_delta": 0.0,  # what is a gain in the validation metric
            "max_skips": 0,  # updates that may not be finite before the run is over
        }
    )
    config.xla = common.xla_defaults()

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
    if preset:
        common.apply_settings(config, preset.settings(config.model.backbone))
    common.apply_settings(config, settings)
    return config
