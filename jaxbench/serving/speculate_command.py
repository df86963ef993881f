"""`jaxbench speculate`: how much faster a language run decodes behind a smaller one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from jaxbench.bench.facts import device
from jaxbench.bench.trained import (
    Run,
    one_device,
    open_run,
    restore_variables,
    write_measurement,
)
from jaxbench.errors import InputError
from jaxbench.serving.bar import counting
from jaxbench.serving.each_run import wide_console
from jaxbench.serving.speculative import (
    Decoder,
    Settings,
    Side,
    alone,
    speculating,
)
from jaxbench.serving.writing import SEPARATOR
from jaxbench.tasks.table import find

# The three decoders take turns, so that what else the machine does meets them all.
BLOCKS = 20
Clock = Callable[[], float]


def speculate_command(options: argparse.Namespace) -> int:
    """Decodes behind a draft, prints text and table, and returns the exit code.

    Raises:
      InputError: as `measure_speculation`.
    """
    settings = Settings(
        lookahead=options.lookahead,
        temperature=options.temperature,
        mode=options.mode,
        threshold=options.threshold,
    )
    measured, text = measure_speculation(
        options.target,
        options.draft,
        settings,
        tokens=options.tokens,
        prompt=os.fsencode(options.prompt),
        seed=options.seed,
        which=options.which,
    )
    out = sys.stdout.buffer
    out.write(os.fsencode(options.prompt) + text + b"\n")
    out.flush()
    wide_console(100).print(speculation_table(measured))
    return os.EX_OK


def measure_speculation(
    target_folder: Path,
    draft_folder: Path,
    settings: Settings,
    *,
    tokens: int = 2000,
    prompt: bytes = b"",
    seed: int = 0,
    which: str = "best",
    clock: Clock = time.perf_counter,
) -> tuple[dict[str, Any], bytes]:
    """Decodes with a draft, with the target alone and with the draft alone, in turns.

    All three continue the prompt at the same temperature, draw as many bytes a call as
    a round can give, and end a call with the bytes on the host, so that no speed-up is
    one of fewer dispatches. Compiling is not counted.

    Args:
      target_folder, draft_folder: of finished runs of `pile`; the target's
        `result.json` gets the answer as `speculative`.
      settings: how to speculate.
      tokens: bytes each of the three draws, at least.
      prompt: bytes to continue.
      seed: of the draws.
      which: "best" or "last" weights.
      clock: seconds, for tests.

    Returns:
      The answer, and the bytes that came of speculating. The answer: device; draft
      {backbone, seed, config_hash, parameters}; weights {which, step, draft_step};
      lookahead, temperature, mode, threshold (None where lossless), seed, tokens; what
      `counts` gives; tokens_per_s, target_tokens_per_s and draft_tokens_per_s, medians
      over blocks; speed_up, the median over blocks of target's time over speculation's;
      estimate, see `estimated_speed_up`.

    Raises:
      InputError: no finished run, no checkpoint, its data is gone, the two do not go
        together, or a number is out of its range.
    """
    if tokens < 1:
        raise InputError(f"tokens={tokens} must be at least 1")
    target_run, draft_run = open_run(target_folder), open_run(draft_folder)
    check_pair(target_run, draft_run)
    placement = one_device()
    loaded = [restore_variables(r, which, placement) for r in (target_run, draft_run)]
    target = Side(target_run.model, loaded[0][0])
    draft = Side(draft_run.model, loaded[1][0])
    temperature = settings.temperature
    speculator = Decoder(
        (target, draft), speculating(target.model, draft.model, settings), seed=seed
    )
    decoders = {"speculation": speculator}
    for name, side in (("target", target), ("draft", draft)):
        one = alone(side.model, settings.lookahead + 1, temperature)
        decoders[name] = Decoder((side,), one, seed=seed)
    print("speculate: compiling", file=sys.stderr, flush=True)
    for decoder in decoders.values():
        decoder()  # Compiles.
        decoder.restart(SEPARATOR + prompt)
    drawn, times = take_turns(decoders, tokens, clock)
    counted = counts(speculator.kept, settings.lookahead)
    measured = {
        "device": device(),
        "draft": {
            "backbone": draft_run.result["backbone"],
            "seed": draft_run.result["seed"],
            "config_hash": draft_run.result["config_hash"],
            "parameters": draft_run.result["params"]["total"],
        },
        "weights": {"which": which, "step": loaded[0][1], "draft_step": loaded[1][1]},
        "lookahead": settings.lookahead,
        "temperature": temperature,
        "mode": settings.mode,
        "threshold": settings.threshold if settings.mode == "threshold" else None,
        "seed": seed,
        "tokens": tokens,
        **counted,
        **speeds(counted["acceptance_rate"], settings.lookahead, times),
    }
    write_measurement(target_folder, ("speculative",), measured)
    return measured, bytes(drawn[:tokens])


def check_pair(target: Run, draft: Run) -> None:
    """Refuses two runs of which one cannot be the other's draft.

    Raises:
      InputError: a run is of another task than `pile`, or its backbone has no state to
        carry on.
    """
    for run in (target, draft):
        if find(run.task.name).emits != "byte":
            raise InputError(
                f"the run {run.folder} is of the task {run.task.name!r}; only text is "
                "speculated, name runs of configs/pile.py"
            )
        if run.model.stack.window:
            backbone = run.config["model"]["backbone"]
            raise InputError(
                f"the backbone {backbone!r} of the run {run.folder} sees whole windows "
                "anew at every token and carries no state; choose one that streams, "
                "jaxbench list says which"
            )


def take_turns(
    decoders: Mapping[str, Callable[[], list[int]]], tokens: int, clock: Clock
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Lets every decoder draw `tokens` bytes, in blocks that alternate.

    Returns:
      What the first of them drew, at least `tokens`; for each, the seconds a byte took
      in each block.
    """
    blocks = min(BLOCKS, tokens)
    done = dict.fromkeys(decoders, 0)
    times: dict[str, list[float]] = {name: [] for name in decoders}
    drawn: list[int] = []
    first = next(iter(decoders))
    print(f"speculate: drawing {tokens:,} tokens", file=sys.stderr, flush=True)
    with counting(blocks, "speculate") as advance:
        for block in range(1, blocks + 1):
            for name, decoder in decoders.items():
                before, goal = done[name], -(-tokens * block // blocks)
                begin = clock()
                # The block before may have drawn this one's bytes already.
                while done[name] == before or done[name] < goal:
                    out = decoder()
                    done[name] += len(out)
                    if name == first:
                        drawn += out
                times[name].append((clock() - begin) / (done[name] - before))
            advance(block)
    return drawn, {name: np.array(x) for name, x in times.items()}


def counts(kept: Sequence[int], lookahead: int) -> dict[str, Any]:
    """Statistics of rounds, given how many of `lookahead` proposals each kept.

    Returns:
      proposed; accepted, without the byte that follows the kept ones; acceptance_rate,
      in which proposals after the first not kept count as not kept; tokens_per_call,
      bytes for each call of the target; lengths, rounds by the number kept, 0 to K.
    """
    rounds, accepted = len(kept), sum(kept)
    return {
        "proposed": rounds * lookahead,
        "accepted": accepted,
        "acceptance_rate": accepted / (rounds * lookahead) if rounds else 0.0,
        "tokens_per_call": (accepted + rounds) / rounds if rounds else 0.0,
        "lengths": np.bincount(np.array(kept, int), minlength=lookahead + 1).tolist(),
    }


def speeds(
    acceptance_rate: float, lookahead: int, times: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Rates and speed-up from the seconds a byte took in each block."""
    typical = {name: float(np.median(x)) for name, x in times.items()}
    return {
        "tokens_per_s": 1 / typical["speculation"],
        "target_tokens_per_s": 1 / typical["target"],
        "draft_tokens_per_s": 1 / typical["draft"],
        "speed_up": float(np.median(times["target"] / times["speculation"])),
        "estimate": estimated_speed_up(
            acceptance_rate,
            lookahead,
            draft_seconds=typical["draft"],
            target_seconds=typical["target"],
        ),
    }


def estimated_speed_up(
    acceptance_rate: float,
    lookahead: int,
    *,
    draft_seconds: float,
    target_seconds: float,
) -> float:
    """(K a + 1) t_target / (K t_draft + t_target), seconds of one token each.

    It takes a chunk of K + 1 tokens to cost the target no more than one, and the state
    after fewer to cost nothing: what the measured speed-up lacks of it is that.
    """
    gained = (lookahead * acceptance_rate + 1) * target_seconds
    return gained / (lookahead * draft_seconds + target_seconds)


def speculation_table(measured: Mapping[str, Any]) -> Table:
    """Table of the answer of `measure_speculation`."""
    mode = measured["mode"]
    if measured["threshold"] is not None:
        mode += f" {measured['threshold']:g}, not the target's distribution"
    table = Table(
        title=f"speculative decoding, {mode}",
        title_justify="left",
        caption=f"on {measured['device']['kind']}",
        caption_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    draft = measured["draft"]
    rounds = sum(measured["lengths"])
    # jaxbench latency and sample make a call for each byte, and are slower by that.
    calls = f"{measured['lookahead'] + 1} bytes a call"
    for name, value in (
        ("draft", f"{draft['backbone']}, {draft['parameters']:,} parameters"),
        ("lookahead", str(measured["lookahead"])),
        ("temperature", f"{measured['temperature']:g}"),
        ("proposed", f"{measured['proposed']:,}"),
        ("accepted", f"{measured['accepted']:,}"),
        ("acceptance rate", f"{measured['acceptance_rate']:.1%}"),
        ("tokens per target call", f"{measured['tokens_per_call']:.2f}"),
        *(
            (f"rounds with {n} accepted", f"{count:,} ({count / rounds:.0%})")
            for n, count in enumerate(measured["lengths"])
        ),
        ("tokens/s", f"{measured['tokens_per_s']:,.0f}"),
        (f"tokens/s, target alone, {calls}", f"{measured['target_tokens_per_s']:,.0f}"),
        (f"tokens/s, draft alone, {calls}", f"{measured['draft_tokens_per_s']:,.0f}"),
        ("speed-up", f"{measured['speed_up']:.2f}"),
        ("speed-up if chunks cost one token", f"{measured['estimate']:.2f}"),
    ):
        table.add_row(name, value)
    return table
