"""Builds the imitation task: games in, `Task` out."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.data.game import Game
from jaxbench.data.order import DrawnDelays, EpochOrder
from jaxbench.errors import InputError, nearest
from jaxbench.tasks.task import Order, Task
from jaxbench.tasks.zelda import floors, loss, protocols, windows
from jaxbench.tasks.zelda.augment import Augment
from jaxbench.tasks.zelda.chunks import heads as chunk_heads
from jaxbench.tasks.zelda.chunks import options as chunk_options
from jaxbench.tasks.zelda.chunks import score as chunk_score
from jaxbench.tasks.zelda.chunks import targets
from jaxbench.tasks.zelda.encoder import CleanEncoder, CompatEncoder
from jaxbench.tasks.zelda.heads import HEADS
from jaxbench.xla import ONCE, compiler_options

# Part of the fingerprint: change it when the same games give other examples.
SCHEMA = 1
PROTOCOLS = {
    "clean": (protocols.clean, CleanEncoder),
    "compat": (protocols.original, CompatEncoder),
}
_CLEAN_INPUTS = (
    *("numeric_btf", "action_state_btn", "character_btp", "stage_bt"),
    *("item_type_bti", "previous_bta"),
)


def build(
    games: Sequence[Game],
    *,
    protocol: str,
    character: str,
    width: int,
    source: Mapping[str, Any],
    window: int = 30,
    stride: int = 1,
    delay: int = 0,
    readout: str = "last",
    head: str = "independent",
    head_options: Mapping[str, Any] = MappingProxyType({}),
    drop_idle: bool = True,
    validation_fraction: float = 0.1,
    seed: int = 0,
    dtype: jnp.dtype = jnp.float32,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    button_weight: float = 1.0,
    stick_edge_weight: float = 1.0,
    max_delay: int = 0,
    augment: Augment | None = None,
) -> Task:
    """The task of predicting a player's controller from a window of frames.

    Clean: the states of frames <= t and the controllers already sent predict the
    controller of frame t + 1 + delay of every human player of `character`; two-player
    games only. Compat: port 1 against port 2, state and controller of the same frame;
    `character`, `seed` and `drop_idle` select nothing. See `protocols`, `windows`.

    Args:
      games: in the loader's order, without duplicates.
      protocol: "clean" or "compat".
      character: whom to imitate, any spelling the loader knows, or "any".
      width: of the encoder's output.
      source: what the games are; passed through into `Task.source`, which adds the
        fingerprint, options, splits, counts, what was left out, and bytes held.
      window, stride: frames a model sees; frames from one example to the next.
      delay: frames between decision and effect; 0 offline.
      readout: "last" scores the last frame of a window, "all" every frame (clean).
      head: "independent", "autoregressive", or one of `chunks.heads.POLICIES`, which
        learn chunks of controllers and are scored by what they decode to (clean).
      head_options: settings of a head over chunks, see `chunks.options`.
      drop_idle: do not score frames at which the player is dead or entering.
      validation_fraction, seed: share of the games held out, and who draws them.
      dtype: compute type of encoder and head.
      label_smoothing, focal_gamma, button_weight, stick_edge_weight: `loss.make`.
      max_delay: where it is longer than `delay`, training draws a delay between both
        for each window, so that a model learns to act under any of them; validation
        keeps `delay`.
      augment: what training does to its windows; None for nothing.

    Raises:
      InputError: a value out of its range, fewer than two usable games, a split
        without a single window, or nobody plays `character`.
    """
    options = protocols.Options(
        character=character,
        window=window,
        stride=stride,
        delay=delay,
        readout=readout,
        drop_idle=drop_idle,
        validation_fraction=validation_fraction,
        seed=seed,
        max_delay=max_delay,
    )
    _check(options, protocol, head, width)
    _check_augmentation(options, protocol, head, augment)
    settings = chunk_options.resolve(head, head_options)
    score = loss.make(
        label_smoothing=label_smoothing,
        focal_gamma=focal_gamma,
        button_weight=button_weight,
        stick_edge_weight=stick_edge_weight,
    )
    make_data, _ = PROTOCOLS[protocol]
    encoder, output = modules(
        protocol, width=width, head=head, head_options=head_options, dtype=dtype
    )
    if head not in HEADS:
        _require_unshaped(
            head,
            label_smoothing=(label_smoothing, 0),
            focal_gamma=(focal_gamma, 0),
            button_weight=(button_weight, 1),
            stick_edge_weight=(stick_edge_weight, 1),
        )
    data = make_data(games, options)
    described = {**source, **_describe(games, data, protocol, options)}
    splits, order = _training(data.splits, options)
    task = functools.partial(
        Task,
        name="zelda",
        protocol=protocol,
        encoder=encoder,
        head=output,
        readout=readout,
        arrays=data.arrays,
        splits=splits,
        order=order,
        tokens_per_example=window,
        augment=augment or None,
    )
    if head in HEADS:
        return task(
            gather=data.gather,
            loss=score,
            summarize=loss.summarize,
            primary="loss",
            maximize=False,
            floors=floors.measure(
                data.labels["train"], data.labels["validation"], score
            ),
            source=described,
        )
    cut: dict[str, Any] = {"window": window, "delay": delay, "readout": readout}
    # Boards rank runs of the same options: never these beside runs scored in nats.
    learned = {"head": head, "horizon": settings["horizon"]}
    return task(
        gather=targets.with_chunks(data.gather, settings["horizon"], **cut),
        loss=chunk_score.loss,
        summarize=chunk_score.summarize,
        primary=chunk_score.PRIMARY,
        maximize=True,
        floors=chunk_score.measure_floors(data, settings["horizon"], **cut),
        source={**described, "options": described["options"] | learned},
    )


def modules(
    protocol: str,
    *,
    width: int,
    head: str,
    head_options: Mapping[str, Any] = MappingProxyType({}),
    dtype: jnp.dtype = jnp.float32,
) -> tuple[nn.Module, nn.Module]:
    """Encoder and head of the task, which need no data.

    Args:
      protocol: "clean" or "compat".
      width: of the encoder's output.
      head, head_options: as in `build`.
      dtype: compute type.

    Raises:
      InputError: an option the head does not have, or cannot have.
    """
    _, encoder = PROTOCOLS[protocol]
    made = encoder(width=width, dtype=dtype)
    if head in HEADS:
        chunk_options.resolve(head, head_options)
        return made, HEADS[head](dtype=dtype)
    return made, chunk_heads.make(head, head_options, dtype)


def fingerprint(
    games: Sequence[Game], protocol: str, options: protocols.Options
) -> str:
    """SHA-256 over the games' bytes, the protocol, the options and the schema."""
    facts = {
        "schema": SCHEMA,
        "protocol": protocol,
        "options": options.facts(),
        "games": sorted(game.sha256 for game in games),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def varying_columns(
    gather: windows.Gather,
    arrays: Mapping[str, np.ndarray],
    examples: np.ndarray,
    window: int,
) -> dict[str, int]:
    """How many input columns differ anywhere in an even sample of windows, and of all.

    A table index counts as one column, the previous controller as six. The sample
    holds some 60,000 frames, so it costs the same memory for any window.
    """
    count = max(1, 61_440 // window)
    sample = examples[np.linspace(0, len(examples) - 1, count).astype(np.int64)]
    batch = jax.jit(gather, compiler_options=compiler_options(ONCE))(arrays, sample)
    names = ("frame_btf",) if "frame_btf" in batch else _CLEAN_INPUTS
    varying = total = 0
    for name in names:
        values = np.asarray(batch[name], np.float32)
        columns = values.reshape(values.shape[0] * values.shape[1], -1)
        varying += int(np.count_nonzero(np.ptp(columns, axis=0)))
        total += columns.shape[1]
    return {"varying": varying, "columns": total}


def _check(options: protocols.Options, protocol: str, head: str, width: int) -> None:
    for name, value, valid in (
        ("protocol", protocol, PROTOCOLS),
        ("readout", options.readout, ("last", "all")),
        ("head", head, (*HEADS, *chunk_heads.POLICIES)),
    ):
        if value not in valid:
            raise InputError(
                f"{name}={value!r} is none of {', '.join(valid)}; "
                f"nearest: {nearest(str(value), valid, 1)}"
            )
    for name, number, least in (
        ("width", width, 1),
        ("window", options.window, 1),
        ("stride", options.stride, 1),
        ("delay", options.delay, 0),
        ("max_delay", options.max_delay, 0),
        ("seed", options.seed, 0),
    ):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise InputError(f"{name}={number!r}: must be a whole number >= {least}")
    if protocol == "compat" and head not in HEADS:
        raise InputError(
            f"head={head} needs protocol=clean: compat's windows do not say where a "
            "game ends, so there are no chunks; use head=independent"
        )
    if not 0 < options.validation_fraction < 1:
        raise InputError(
            f"validation_fraction={options.validation_fraction}: must be between 0 "
            "and 1"
        )


def _check_augmentation(
    options: protocols.Options, protocol: str, head: str, augment: Augment | None
) -> None:
    if options.max_delay and options.max_delay <= options.delay:
        raise InputError(
            f"data.max_delay={options.max_delay} must be longer than "
            f"data.delay={options.delay}, or 0 for that delay alone"
        )
    if protocol == "compat" and (augment or options.max_delay):
        raise InputError(
            "data.mirror, data.noise and data.max_delay need protocol=clean: compat "
            "trains on the original's windows as they are"
        )
    if options.max_delay and head not in HEADS:
        raise InputError(
            f"data.max_delay={options.max_delay}: head={head} learns chunks of one "
            "delay; leave it at 0"
        )


def _training(
    splits: Mapping[str, np.ndarray], options: protocols.Options
) -> tuple[Mapping[str, np.ndarray], Callable[..., Order]]:
    """The splits and training's order, with a column of delays where they vary."""
    if not options.max_delay:
        return splits, functools.partial(EpochOrder, splits["train"])
    low, high = options.delay, options.max_delay
    # All splits alike: training and validation are programs of one form.
    splits = {
        name: np.pad(rows, ((0, 0), (0, 1)), constant_values=low)
        for name, rows in splits.items()
    }

    def order(*, batch_size: int, seed: int) -> Order:
        epochs = EpochOrder(splits["train"], batch_size=batch_size, seed=seed)
        return DrawnDelays(epochs, low=low, high=high, seed=seed)

    return splits, order


def _require_unshaped(head: str, **given: tuple[float, float]) -> None:
    """Refuses what shapes a loss over classes: chunks have none."""
    for name, (value, off) in given.items():
        if value != off:
            raise InputError(
                f"train.{name}={value}: head={head} has no classes to shape a loss of; "
                f"leave it at {off}"
            )


def _describe(
    games: Sequence[Game],
    data: protocols.Data,
    protocol: str,
    options: protocols.Options,
) -> dict[str, Any]:
    held = sum(array.nbytes for array in data.arrays.values())
    rows = len(data.arrays["controller"])
    examples = data.splits["train"]
    return {
        "fingerprint": fingerprint(games, protocol, options),
        "protocol": protocol,
        "options": options.facts(),
        **data.facts,
        "left_out": data.left_out,
        "splits": {
            name: {
                "games": data.parts[name],
                "examples": len(examples),
                "frames": len(data.labels[name][2]),
            }
            for name, examples in data.splits.items()
        },
        "bytes": held,
        "bytes_per_row": round(held / rows, 1),
        "varying_columns": varying_columns(
            data.gather, data.arrays, examples, options.window
        ),
    }
