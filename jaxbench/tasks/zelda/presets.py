"""Named settings of `configs/zelda.py`: how long, how large, how regularised.

Those of the original benchmark's training command, in this project's words. Imports no
jax. What differs: batches that were accumulated are one batch here, which is split only
where memory asks for it; games are always held out and parsed once, so "no validation"
and "precompute" have no counterpart; restarts come in four cycles, each twice as long
as the one before, whatever the length of the run.
"""

from __future__ import annotations

import dataclasses

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve


@dataclasses.dataclass(frozen=True)
class Preset:
    """One row of the table; every field but the first two sets keys of the recipe.

    Attributes:
      about: when to take it.
      backbone: trained where the recipe's text names none.
      options: of that backbone; another keeps its own.
      epochs, files: passes over the first so many replays by name; 0 for all.
      batch: windows of one update.
      window, depth, width: frames seen, layers, channels; a pattern of several mixers
        keeps its own layers.
      character: imitated; "" leaves the recipe's.
      mirror, noise, noise_scale: see `augment.Augment`.
      label_smoothing, validation, ema, keep: as in the recipe; shares, and checkpoints.
      patience, min_delta: validations (epochs) without a gain that end the run.
      schedule, rate, warmup: of the learning rate; its peak; updates.
    """

    about: str
    backbone: str
    options: str = ""
    epochs: int = 3
    files: int = 0
    batch: int = 64
    window: int = 60
    depth: int = 2
    width: int = 64
    character: str = ""
    mirror: float = 0.0
    noise: float = 0.0
    noise_scale: float = 0.01
    label_smoothing: float = 0.0
    validation: float = 0.1
    patience: int = 0
    min_delta: float = 0.0
    ema: float = 0.0
    keep: int = 1
    schedule: str = "constant"
    rate: float = 1e-4
    warmup: int = 0

    def settings(self, backbone: str) -> dict[str, str]:
        """Keys of the recipe and their values as text, for a run of `backbone`."""
        values = {
            "data.max_files": self.files,
            "data.window": self.window,
            "data.validation_fraction": self.validation,
            "data.mirror": self.mirror,
            "data.noise": self.noise,
            "data.noise_scale": self.noise_scale,
            "model.width": self.width,
            "train.epochs": self.epochs,
            "train.batch_size": self.batch,
            "train.learning_rate": self.rate,
            "train.schedule": self.schedule,
            "train.warmup_steps": self.warmup,
            "train.label_smoothing": self.label_smoothing,
            "train.ema_decay": self.ema,
            "train.keep_best": self.keep,
            "train.patience": self.patience,
            "train.min_delta": self.min_delta,
        }
        # The first layers of a pattern would not be that pattern.
        if len({layer.name for layer in resolve(backbone).layers(None)}) == 1:
            values["model.depth"] = self.depth
        if self.options and backbone == self.backbone:
            values["model.options"] = self.options
        if self.character:
            values["data.character"] = self.character
        return {path: str(value) for path, value in values.items()}


def _gpu_quick(backbone: str, batch: int = 256, options: str = "") -> Preset:
    return Preset(
        f"whether {backbone} learns at all, in minutes on a GPU",
        backbone,
        options,
        epochs=3,
        files=20 if backbone == "mamba" else 30,
        batch=batch,
        window=30,
        depth=1,
        mirror=0.5,
        noise=0.2,
    )


_GPU_STANDARD = Preset(
    "a model worth comparing, in an hour on a GPU",
    "mamba",
    epochs=20,
    files=100,
    batch=256,
    width=128,
    mirror=0.5,
    noise=0.3,
    label_smoothing=0.1,
    patience=5,
    ema=0.999,
    keep=5,
    schedule="cosine",
    warmup=500,
)
_PRODUCTION = dataclasses.replace(
    _GPU_STANDARD,
    about="the best that the data gives",
    options="state_size=32",
    epochs=100,
    files=0,
    batch=4 * 256,
    depth=3,
    width=256,
    validation=0.15,
    patience=10,
    min_delta=0.001,
    ema=0.9995,
    keep=10,
    schedule="cosine_restarts",
    warmup=2000,
)


def _character(name: str, window: int) -> Preset:
    return dataclasses.replace(
        _PRODUCTION,
        about=f"production for {name.replace('_', ' ')}",
        character=name,
        window=window,
    )


PRESETS = {
    "quick": Preset(
        "does it run, in a minute on a CPU",
        "mlp",
        epochs=1,
        files=5,
        batch=32,
        width=32,
    ),
    "standard": Preset(
        "a first model, on a CPU",
        "mlp",
        epochs=10,
        files=50,
        mirror=0.5,
        noise=0.2,
        label_smoothing=0.05,
        patience=5,
        schedule="cosine",
        rate=3e-4,
    ),
    "full_cpu": Preset(
        "what a CPU can do in a night",
        "mlp",
        epochs=30,
        files=200,
        width=128,
        mirror=0.5,
        noise=0.3,
        label_smoothing=0.1,
        patience=7,
        min_delta=0.005,
        ema=0.999,
        schedule="cosine",
        warmup=500,
    ),
    "gpu_quick": _gpu_quick("mamba"),
    "gpu_mlp_quick": Preset(
        "a quick model without memory, on a GPU",
        "mlp",
        epochs=5,
        files=50,
        batch=256,
        width=128,
        mirror=0.5,
        schedule="cosine",
        rate=3e-4,
        warmup=100,
    ),
    "gpu_lstm_quick": _gpu_quick("lstm"),
    "gpu_gru_quick": _gpu_quick("gru"),
    "gpu_attention_quick": _gpu_quick("swa", options="heads=4"),
    "gpu_standard": _GPU_STANDARD,
    "full": dataclasses.replace(
        _GPU_STANDARD,
        about="all replays, on a GPU",
        epochs=50,
        files=0,
        batch=2 * 256,
        width=256,
        patience=7,
        min_delta=0.005,
        warmup=1000,
    ),
    "production": _PRODUCTION,
    "rtx4090_quick": dataclasses.replace(
        _gpu_quick("mamba", batch=512),
        about="gpu_quick where 24 GB are at hand",
        files=30,
    ),
    "rtx4090_standard": dataclasses.replace(
        _GPU_STANDARD,
        about="gpu_standard where 24 GB are at hand",
        files=200,
        batch=512,
    ),
    "rtx4090_full": dataclasses.replace(
        _PRODUCTION,
        about="production where 24 GB are at hand",
        epochs=50,
        batch=4 * 512,
        warmup=1000,
    ),
    "mewtwo": _character("mewtwo", 90),
    "ganondorf": _character("ganondorf", 60),
    "link": _character("link", 75),
    "game_and_watch": _character("mr_game_and_watch", 45),
    "zelda": _character("zelda", 60),
}


def find(name: str) -> Preset:
    """The preset of that name.

    Raises:
      InputError: there is none; the nearest are named.
    """
    if name not in PRESETS:
        raise InputError(
            f"preset={name!r} is unknown; nearest: {nearest(name, PRESETS)} "
            "(`jaxbench list presets` prints them)"
        )
    return PRESETS[name]


COLUMNS = (
    *("preset", "backbone", "epochs", "replays", "batch", "window", "layers", "width"),
    *("augmentation", "smoothing", "held out", "early stop", "ema", "keep"),
    *("learning rate", "for"),
)


def table_row(name: str) -> list[str]:
    """What `jaxbench list presets` prints of one, in the order of `COLUMNS`."""
    row = PRESETS[name]
    changes = [f"mirror {row.mirror:g}"] if row.mirror else []
    if row.noise:
        changes.append(f"noise {row.noise:g} x {row.noise_scale:g}")
    stop = f"{row.patience} (> {row.min_delta:g})" if row.patience else "-"
    rate = f"{row.schedule} {row.rate:g}"
    return [
        name,
        f"{row.backbone} {row.options}".strip(),
        str(row.epochs),
        str(row.files or "all"),
        str(row.batch),
        str(row.window),
        str(row.depth),
        str(row.width),
        ", ".join(changes) or "-",
        f"{row.label_smoothing:g}" if row.label_smoothing else "-",
        f"{row.validation:g}",
        stop,
        f"{row.ema:g}" if row.ema else "-",
        str(row.keep),
        f"{rate}, warm-up {row.warmup}" if row.warmup else rate,
        row.about,
    ]
