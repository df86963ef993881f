"""Named settings of `configs/zelda.py`: how long, how large, how regularised.

Those of the original benchmark's training command, as texts of the recipe's own
`key=value` language. Imports no jax. What differs: batches that were accumulated are
one batch here, which is split only where memory asks for it; games are always held out
and parsed once, so "no validation" and "precompute" have no counterpart; restarts come
in four cycles, each twice as long as the one before, whatever the length of the run.
"""

from __future__ import annotations

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve

# Every key that a preset sets, for those that do not set it themselves.
_ALL = """
    data.max_files=0 data.window=60 data.validation_fraction=0.1 data.mirror=0.0
    data.noise=0.0 data.noise_scale=0.01 model.width=64 train.epochs=3
    train.batch_size=64 train.learning_rate=0.0001 train.schedule=constant
    train.warmup_steps=0 train.label_smoothing=0.0 train.ema_decay=0.0
    train.keep_best=1 train.patience=0 train.min_delta=0.0 model.depth=2
"""
_GPU_QUICK = """
    model.backbone=mamba max_files=20 batch_size=256 window=30 depth=1 mirror=0.5
    noise=0.2
"""
_GPU_STANDARD = """
    model.backbone=mamba epochs=20 max_files=100 batch_size=256 width=128 mirror=0.5
    noise=0.3 label_smoothing=0.1 patience=5 ema_decay=0.999 keep_best=5
    schedule=cosine warmup_steps=500
"""
_PRODUCTION = f"""
    {_GPU_STANDARD} model.options=state_size=32 epochs=100 max_files=0 batch_size=1024
    depth=3 width=256 validation_fraction=0.15 patience=10 min_delta=0.001
    ema_decay=0.9995 keep_best=10 schedule=cosine_restarts warmup_steps=2000
"""
# When to take it, and what it sets; of a key that is given twice the last counts.
PRESETS = {
    "quick": (
        "does it run, in a minute on a CPU",
        "model.backbone=mlp epochs=1 max_files=5 batch_size=32 width=32",
    ),
    "standard": (
        "a first model, on a CPU",
        "model.backbone=mlp epochs=10 max_files=50 mirror=0.5 noise=0.2 patience=5 "
        "label_smoothing=0.05 schedule=cosine learning_rate=0.0003",
    ),
    "full_cpu": (
        "what a CPU can do in a night",
        "model.backbone=mlp epochs=30 max_files=200 width=128 mirror=0.5 noise=0.3 "
        "label_smoothing=0.1 patience=7 min_delta=0.005 ema_decay=0.999 "
        "schedule=cosine warmup_steps=500",
    ),
    "gpu_quick": ("whether mamba learns at all, in minutes on a GPU", _GPU_QUICK),
    "gpu_mlp_quick": (
        "a quick model without memory, on a GPU",
        "model.backbone=mlp epochs=5 max_files=50 batch_size=256 width=128 mirror=0.5 "
        "schedule=cosine learning_rate=0.0003 warmup_steps=100",
    ),
    "gpu_lstm_quick": (
        "whether lstm learns at all, in minutes on a GPU",
        f"{_GPU_QUICK} model.backbone=lstm max_files=30",
    ),
    "gpu_gru_quick": (
        "whether gru learns at all, in minutes on a GPU",
        f"{_GPU_QUICK} model.backbone=gru max_files=30",
    ),
    "gpu_attention_quick": (
        "whether swa learns at all, in minutes on a GPU",
        f"{_GPU_QUICK} model.backbone=swa model.options=heads=4 max_files=30",
    ),
    "gpu_standard": ("a model worth comparing, in an hour on a GPU", _GPU_STANDARD),
    "full": (
        "all replays, on a GPU",
        f"{_GPU_STANDARD} epochs=50 max_files=0 batch_size=512 width=256 patience=7 "
        "min_delta=0.005 warmup_steps=1000",
    ),
    "production": ("the best that the data gives", _PRODUCTION),
    "rtx4090_quick": (
        "gpu_quick where 24 GB are at hand",
        f"{_GPU_QUICK} batch_size=512 max_files=30",
    ),
    "rtx4090_standard": (
        "gpu_standard where 24 GB are at hand",
        f"{_GPU_STANDARD} max_files=200 batch_size=512",
    ),
    "rtx4090_full": (
        "production where 24 GB are at hand",
        f"{_PRODUCTION} epochs=50 batch_size=2048 warmup_steps=1000",
    ),
}
for _name, _character, _window in (
    ("mewtwo", "mewtwo", 90),
    ("ganondorf", "ganondorf", 60),
    ("link", "link", 75),
    ("game_and_watch", "mr_game_and_watch", 45),
    ("zelda", "zelda", 60),
):
    PRESETS[_name] = (
        f"production for {_character.replace('_', ' ')}",
        f"{_PRODUCTION} data.character={_character} window={_window}",
    )


def find(name: str, backbone: str = "") -> dict[str, str]:
    """Keys of the recipe and their values as text.

    Args:
      name: of the preset.
      backbone: that is trained; "" for the preset's own. Another one keeps its own
        options, and a pattern of several mixers its own layers.

    Raises:
      InputError: there is no such preset; the nearest are named.
    """
    if name not in PRESETS:
        raise InputError(
            f"preset={name!r} is unknown; nearest: {nearest(name, PRESETS)} "
            "(`jaxbench list presets` prints them)"
        )
    settings = dict(item.split("=", 1) for item in _ALL.split())
    paths = {path.rpartition(".")[2]: path for path in settings}
    for item in PRESETS[name][1].split():
        key, value = item.split("=", 1)
        settings[paths.get(key, key)] = value
    if backbone and backbone != settings["model.backbone"]:
        settings["model.backbone"] = backbone
        settings.pop("model.options", None)
    layers = resolve(settings["model.backbone"]).layers(None)
    if len({layer.name for layer in layers}) > 1:
        # The first layers of a pattern would not be that pattern.
        del settings["model.depth"]
    return settings


COLUMNS = (
    *("preset", "backbone", "epochs", "replays", "batch", "window", "layers", "width"),
    *("augmentation", "smoothing", "held out", "early stop", "ema", "keep"),
    *("learning rate", "for"),
)


def table_row(name: str) -> list[str]:
    """What `jaxbench list presets` prints of one, in the order of `COLUMNS`."""
    row = {path.rpartition(".")[2]: value for path, value in find(name).items()}
    on = {key: value for key, value in row.items() if value not in ("0", "0.0")}
    changes = [f"{key} {on[key]}" for key in ("mirror", "noise") if key in on]
    if "noise" in on:
        changes[-1] += f" x {row['noise_scale']}"
    patience = on.get("patience")
    rate = f"{row['schedule']} {float(row['learning_rate']):g}"
    return [
        name,
        f"{row['backbone']} {row.get('options', '')}".strip(),
        row["epochs"],
        on.get("max_files", "all"),
        *(row[key] for key in ("batch_size", "window", "depth", "width")),
        ", ".join(changes) or "-",
        on.get("label_smoothing", "-"),
        row["validation_fraction"],
        f"{patience} (> {float(row['min_delta']):g})" if patience else "-",
        on.get("ema_decay", "-"),
        row["keep_best"],
        f"{rate}, warm-up {on['warmup_steps']}" if "warmup_steps" in on else rate,
        PRESETS[name][0],
    ]
