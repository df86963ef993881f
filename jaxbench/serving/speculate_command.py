"""`jaxbench speculate`: how much faster a trained run decodes behind a smaller one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress as Bar
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
from jaxbench.serving.chains import Chain, byte_chain, controller_chain
from jaxbench.serving.speculative import (
    Alone,
    Settings,
    Side,
    Speculator,
    Statistics,
    prompt_tokens,
)
from jaxbench.tasks.table import find
from jaxbench.tasks.zelda.chunks import options as chunks
from jaxbench.tasks.zelda.stream import open_stream

# The three decoders take turns, so that what else the machine does meets them all.
BLOCKS = 20
CHAINED = ("byte", "controller")
Clock = Callable[[], float]


def speculate_command(options: argparse.Namespace) -> int:
    """Speculates, prints the text where there is one and a table; the exit code.

    Raises:
      InputError: as `measure_speculation`.
    """
    settings = Settings(
        lookahead=options.lookahead,
        temperature=options.temperature,
        mode=options.mode,
        threshold=options.threshold,
    )
    measured, tokens_tg = measure_speculation(
        options.target,
        options.draft,
        settings,
        tokens=options.tokens,
        prompt=os.fsencode(options.prompt),
        seed=options.seed,
        which=options.which,
    )
    if tokens_tg.shape[1] == 1:
        out = sys.stdout.buffer
        out.write(os.fsencode(options.prompt) + bytes(tokens_tg[:, 0].tolist()))
        out.write(b"\n")
        out.flush()
    console = Console()
    console = console if console.is_terminal else Console(width=100)
    console.print(speculation_table(measured))
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
) -> tuple[dict[str, Any], np.ndarray]:
    """Decodes with a draft, with the target alone and with the draft alone, in turns.

    Language runs continue the prompt. Policies play the frames of the target's
    validation games, see `controller_chain`. All three draw at the same temperature,
    as many tokens a call as a round can give, and end a call with the tokens on the
    host, so that no speed-up is one of fewer dispatches. Compiling is not counted.

    Args:
      target_folder, draft_folder: of finished runs; the target's `result.json` gets
        the answer as `speculative`.
      settings: how to speculate.
      tokens: bytes or controllers each of the three draws, at least.
      prompt: bytes to continue.
      seed: of the draws.
      which: "best" or "last" weights.
      clock: seconds, for tests.

    Returns:
      The answer, and the tokens that came of speculating, int32 [tokens, G]. The
      answer: device; draft {backbone, seed, config_hash, parameters}; weights {which,
      step, draft_step}; lookahead, temperature, mode, threshold (None where lossless),
      seed, tokens; proposed, accepted, acceptance_rate, tokens_per_call and lengths as
      in `Statistics`, over whole rounds; tokens_per_s, target_tokens_per_s and
      draft_tokens_per_s, medians over blocks; speed_up, the median over blocks of
      target's time over speculation's; estimate, see `estimated_speed_up`.

    Raises:
      InputError: no finished run, no checkpoint, its data is gone, the two do not go
        together, or a number is out of its range.
    """
    if tokens < 1:
        raise InputError(f"tokens={tokens} must be at least 1")
    target_run, draft_run = open_run(target_folder), open_run(draft_folder)
    check_pair(target_run, draft_run)
    emits = find(target_run.task.name).emits
    if prompt and emits != "byte":
        raise InputError(
            f"the run {target_folder} is of the task {target_run.task.name!r}, which "
            "has no text to continue; leave out --prompt"
        )
    placement = one_device()
    loaded = [restore_variables(r, which, placement) for r in (target_run, draft_run)]
    target = Side(target_run.model, loaded[0][0])
    draft = Side(draft_run.model, loaded[1][0])
    chain, start = _chain(target_run, tokens), None
    if emits == "byte":
        start = prompt_tokens(prompt)
    speculator = Speculator(target, draft, chain, settings, seed=seed)
    length, temperature = settings.lookahead + 1, settings.temperature
    decoders: dict[str, Speculator | Alone] = {"speculation": speculator}
    for name, side in (("target", target), ("draft", draft)):
        decoders[name] = Alone(
            side, chain, length=length, temperature=temperature, seed=seed
        )
    print("speculate: compiling", file=sys.stderr, flush=True)
    for decoder in decoders.values():
        decoder.restart(start)
        decoder()  # Compiles.
        decoder.restart(start)
    speculator.reset_statistics()
    drawn, times = take_turns(decoders, tokens, clock)
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
        **_counts(speculator.statistics),
        **speeds(speculator.statistics, times),
    }
    write_measurement(target_folder, ("speculative",), measured)
    return measured, drawn[:tokens]


def check_pair(target: Run, draft: Run) -> None:
    """Refuses two runs of which one cannot be the other's draft.

    Raises:
      InputError: their tasks differ or have no chain of tokens, their protocols,
        windows or delays differ, or a backbone has no state to carry on.
    """
    task = target.task.name
    if task != draft.task.name:
        raise InputError(
            f"target {target.folder} is of the task {task!r} and draft {draft.folder} "
            f"of {draft.task.name!r}; a draft must draw the same tokens"
        )
    if find(task).emits not in CHAINED:
        raise InputError(
            f"the run {target.folder} is of the task {task!r}, which draws no tokens "
            "one after the other; name runs of configs/pile.py or configs/zelda.py"
        )
    if find(task).emits == "controller":
        for name, of_target, of_draft in (
            ("protocol", target.task.protocol, draft.task.protocol),
            *(
                (
                    f"data.{name}",
                    target.config["data"][name],
                    draft.config["data"][name],
                )
                for name in ("window", "delay")
            ),
        ):
            if of_target != of_draft:
                raise InputError(
                    f"target {target.folder} has {name}={of_target!r} and draft "
                    f"{draft.folder} {name}={of_draft!r}; train the draft with the "
                    "target's"
                )
        if target.task.protocol != "clean":
            raise InputError(
                f"the run {target.folder} is of the protocol "
                f"{target.task.protocol!r}, whose models do not read the previous "
                "controller: no token depends on another; use protocol=clean"
            )
    for run in (target, draft):
        head = run.config["model"].get("head")
        if head in chunks.DEFAULTS:
            raise InputError(
                f"the run {run.folder} has head={head}, which has no probabilities to "
                "compare; name runs of head=independent or autoregressive"
            )
        backbone = run.config["model"]["backbone"]
        if run.model.stack.window:
            raise InputError(
                f"the backbone {backbone!r} of the run {run.folder} sees whole windows "
                "anew at every token and carries no state; choose one that streams, "
                "jaxbench list says which"
            )


def take_turns(
    decoders: Mapping[str, Speculator | Alone], tokens: int, clock: Clock
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Lets every decoder draw `tokens` tokens, in blocks that alternate.

    Returns:
      What the first of them drew, at least `tokens`; for each, the seconds a token took
      in each block.
    """
    blocks = min(BLOCKS, tokens)
    counts = dict.fromkeys(decoders, 0)
    times: dict[str, list[float]] = {name: [] for name in decoders}
    drawn: list[np.ndarray] = []
    first = next(iter(decoders))
    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("speculate", total=blocks)
        if not console.is_terminal:
            print(f"speculate: drawing {tokens:,} tokens", file=sys.stderr, flush=True)
        for block in range(1, blocks + 1):
            for name, decoder in decoders.items():
                before, goal = counts[name], -(-tokens * block // blocks)
                begin = clock()
                # The block before may have drawn this one's tokens already.
                while counts[name] == before or counts[name] < goal:
                    out = decoder()
                    counts[name] += len(out)
                    if name == first:
                        drawn.append(out)
                times[name].append((clock() - begin) / (counts[name] - before))
            bar.update(shown, completed=block)
    return np.concatenate(drawn), {name: np.array(x) for name, x in times.items()}


def speeds(statistics: Statistics, times: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Rates and speed-up from the seconds a token took in each block."""
    typical = {name: float(np.median(x)) for name, x in times.items()}
    return {
        "tokens_per_s": 1 / typical["speculation"],
        "target_tokens_per_s": 1 / typical["target"],
        "draft_tokens_per_s": 1 / typical["draft"],
        "speed_up": float(np.median(times["target"] / times["speculation"])),
        "estimate": estimated_speed_up(
            statistics.acceptance_rate,
            len(statistics.lengths) - 1,
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
    """The answer of `measure_speculation` for people."""
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
        ("tokens/s, target alone", f"{measured['target_tokens_per_s']:,.0f}"),
        ("tokens/s, draft alone", f"{measured['draft_tokens_per_s']:,.0f}"),
        ("speed-up", f"{measured['speed_up']:.2f}"),
        ("speed-up if chunks cost one token", f"{measured['estimate']:.2f}"),
    ):
        table.add_row(name, value)
    return table


def _counts(statistics: Statistics) -> dict[str, Any]:
    return {
        "proposed": statistics.proposed,
        "accepted": statistics.accepted,
        "acceptance_rate": statistics.acceptance_rate,
        "tokens_per_call": statistics.tokens_per_call,
        "lengths": list(statistics.lengths),
    }


def _chain(run: Run, tokens: int) -> Chain:
    if find(run.task.name).emits == "byte":
        return byte_chain()
    arrays = jax.device_put(dict(run.task.arrays), one_device().whole)
    return controller_chain(open_stream(run.task, arrays, "validation", tokens))
