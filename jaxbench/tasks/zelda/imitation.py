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
from jaxbench.tasks.rules import parse_options
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
    config: Mapping[str, Any],
    width: int,
    source: Mapping[str, Any],
) -> Task:
    """The task of predicting a player's controller from a window of frames.

    Clean: the states of frames <= t and the controllers already sent predict the
    controller of frame t + 1 + delay of every human player of `data.character`;
    two-player games only. Compat: port 1 against port 2, state and controller of the
    same frame; `character`, `split_seed` and `drop_idle` select nothing. See
    `protocols`, `windows`.

    A `data.max_delay` longer than `data.delay` draws a delay between both for each
    training window, so that a model learns to act under any of them; validation keeps
    `delay`.

    Args:
      games: in the loader's order, without duplicates.
      config: the resolved recipe, configs/zelda.py, whose values were checked.
      width: of the encoder's output.
      source: what the games are; passed through into `Task.source`, which adds the
        fingerprint, options, splits, counts, what was left out, and bytes prepared.

    Raises:
      InputError: fewer than two usable games, a split without a single window, or
        nobody plays the character.
    """
    data, model, train = config["data"], config["model"], config["train"]
    options = protocols.Options.of(config)
    protocol, head = config["protocol"], model["head"]
    head_options = parse_options(model["head_options"], "model.head_options")
    window, readout = options.window, options.readout
    score = loss.make(
        label_smoothing=train["label_smoothing"],
        focal_gamma=train["focal_gamma"],
        button_weight=train["button_weight"],
        stick_edge_weight=train["stick_edge_weight"],
    )
    encoder, output = modules(
        protocol,
        width=width,
        head=head,
        head_options=head_options,
        dtype=getattr(jnp, train["dtype"]),
    )
    make_data, _ = PROTOCOLS[protocol]
    prepared = make_data(games, options)
    described = {**source, **_describe(games, prepared, protocol, options)}
    splits, order = _training(prepared.splits, options)
    augment = Augment(data["mirror"], data["noise"], data["noise_scale"])
    task = functools.partial(
        Task,
        name="zelda",
        protocol=protocol,
        encoder=encoder,
        head=output,
        readout=readout,
        arrays=prepared.arrays,
        splits=splits,
        order=order,
        tokens_per_example=window,
        finals=tuple(name for name in splits if name == "test"),
        augment=augment or None,
    )
    if head in HEADS:
        if "test" in splits:
            described["splits"]["test"]["floors"] = floors.measure(
                prepared.labels["train"], prepared.labels["test"], score
            )
        return task(
            gather=prepared.gather,
            loss=score,
            summarize=loss.summarize,
            primary="loss",
            maximize=False,
            floors=floors.measure(
                prepared.labels["train"], prepared.labels["validation"], score
            ),
            source=described,
        )
    horizon = chunk_options.resolve(head, head_options)["horizon"]
    cut: dict[str, Any] = {
        "window": window,
        "delay": options.delay,
        "readout": readout,
    }
    # Boards rank runs of the same options: never these beside runs scored in nats.
    learned = {"head": head, "horizon": horizon}
    return task(
        gather=targets.with_chunks(prepared.gather, horizon, **cut),
        loss=chunk_score.loss,
        summarize=chunk_score.summarize,
        primary=chunk_score.PRIMARY,
        maximize=True,
        floors=chunk_score.measure_floors(prepared, horizon, **cut),
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
      head: "independent", "autoregressive", or one of `chunks.heads.POLICIES`, which
        learn chunks of controllers and are scored by what they decode to (clean).
      head_options: settings of a head over chunks, see `chunks.options`.
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
                **({"players": data.players[name]} if name in data.players else {}),
            }
            for name, examples in data.splits.items()
        },
        "bytes": held,
        "bytes_per_row": round(held / rows, 1),
        "varying_columns": varying_columns(
            data.gather, data.arrays, examples, options.window
        ),
    }
