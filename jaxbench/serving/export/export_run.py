"""Exports one run: writes its files once they agree with jax, with scores and times."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.bench.facts import device, versions
from jaxbench.bench.run_folder import write_json
from jaxbench.bench.trained import (
    Run,
    one_device,
    open_run,
    restore_variables,
    write_measurement,
)
from jaxbench.errors import InputError
from jaxbench.serving.export import bundle, callers, describe, functions
from jaxbench.serving.export.functions import Exported
from jaxbench.serving.export.inputs import Inputs, open_inputs
from jaxbench.serving.export.limits import LEAST, check_options
from jaxbench.serving.export.parity import LIMIT, Parity, collect, compare
from jaxbench.serving.export.runtime import (
    Call,
    Function,
    jax_call,
    stablehlo_call,
    to_onnx,
    to_stablehlo,
)
from jaxbench.serving.timing import WARM_UP, time_in_turn
from jaxbench.tasks.table import find
from jaxbench.tasks.zelda.chunks.heads import ChunkHead

# Windows compared, evenly spread over the frames.
WINDOWS = 64
# Calls timed: a 99th percentile of few calls is that of the slowest.
TIMED = {"step": 2000, "window": 300}
Say = Callable[[str], None]


def export_run(
    folder: Path,
    *,
    out: Path | None = None,
    formats: Sequence[str] = ("onnx",),
    int8: bool = False,
    exclude: Sequence[str] = (),
    which: str = "best",
    frames: int = 1000,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Exports a finished run of `zelda` or `pile`.

    Every file is loaded again and compared with jax on frames of the run's validation
    games, or bytes of its held-out text: `frames` steps in a row, each implementation
    with its own state, and `WINDOWS` windows. Files of INT8 are not held to a limit:
    their scores say what they cost.

    Args:
      folder: the run's; its `result.json` gets the answer as `export`.
      out: where to write; None is `export` in the run's folder. What an earlier export
        left there is replaced.
      formats: some of `options.FORMATS`.
      int8: quantise the ONNX files too.
      exclude: see `to_onnx.quantize`.
      which: "best" or "last" weights.
      frames: compared and scored, at least `LEAST`.
      say: told what is being done.

    Returns:
      out (the folder's name), weights, device, files {name: {bytes, ...}}, parity
      {file: Parity}, scores {function: {kind: metrics}}, timing {function: {kind:
      summary}}.

    Raises:
      InputError: no finished run, no checkpoint, its data is gone, a package is
        missing, an operation has no counterpart, a file does not answer as jax does,
        or the folder holds something else. Nothing is kept then.
    """
    check_options(formats, int8, frames)
    out = folder / "export" if out is None else out
    _check_place(out)
    run = open_run(folder)
    variables, at_step = restore_variables(run, which, one_device())
    made = functions.of_run(run, variables)
    inputs = open_inputs(run, frames)
    found = _make(made, inputs, formats, int8, exclude, say)
    facts = {
        "weights": {"which": which, "step": at_step},
        "device": device(),
        "frames": len(inputs.steps),
        **{name: found[name] for name in ("files", "parity", "scores")},
        "timing": {
            f.name: _time(f, made, inputs, found["calls"], say) for f in made.functions
        },
    }
    _write(out, run, made, facts, found["contents"])
    facts["out"] = out.name
    write_measurement(folder, ("export",), facts)
    return facts


def _check_place(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / bundle.MANIFEST).exists():
        raise InputError(
            f"{out} is not empty and holds no export; name another folder with --out"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder with --out")


def _make(
    made: Exported,
    inputs: Inputs,
    formats: Sequence[str],
    int8: bool,
    exclude: Sequence[str],
    say: Say,
) -> dict[str, Any]:
    """Converts every function: files, parity with jax, scores, and the loaded calls."""
    contents: dict[str, bytes] = {
        bundle.INITIAL: bundle.state_bytes(made.state.initial)
    }
    files: dict[str, dict[str, Any]] = {
        bundle.INITIAL: {"kind": "state", "function": "step"}
    }
    parity: dict[str, Any] = {}
    scores: dict[str, dict[str, Any]] = {}
    calls: dict[str, dict[str, Call]] = {}
    for f in made.functions:
        own, of, initial = _calls_of(f, made, inputs)
        ports = made.state.ports if initial is not None else ()
        say(f"{f.name} in jax on {len(own)} calls")
        reference = collect(jax_call(f), own, initial)
        scores[f.name] = {"jax": inputs.score(reference, of)}
        calls[f.name] = {}
        for kind, content, more in _versions(f, formats, int8, exclude):
            name = f.name + bundle.SUFFIXES[kind]
            say(f"{name}: {len(content) / 1e6:.1f} MB, compared with jax")
            call = _open(f, kind, content)
            outputs = collect(call, own, initial)
            parity[name] = (close := compare(reference, outputs, ports)).facts()
            if kind != "int8":
                _require_close(name, f, close)
            scores[f.name][kind] = inputs.score(outputs, of)
            contents[name] = content
            files[name] = {"kind": kind, "function": f.name, **more}
            calls[f.name][kind] = call
    for name, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        files[name] |= {"bytes": len(content), "sha256": digest}
    return {
        "contents": contents,
        "files": files,
        "parity": parity,
        "scores": scores,
        "calls": calls,
    }


def _calls_of(
    f: Function, made: Exported, inputs: Inputs
) -> tuple[Sequence[Mapping[str, np.ndarray]], list[int], Any]:
    """Inputs to compare a function on, their indices, and its initial state."""
    if f.name == "step":
        return inputs.steps, list(range(len(inputs.steps))), made.state.initial
    last = len(inputs.windows) - 1
    of = np.linspace(0, last, WINDOWS).round().astype(int).tolist()
    return [inputs.windows[n] for n in of], of, None


def _versions(
    f: Function, formats: Sequence[str], int8: bool, exclude: Sequence[str]
) -> Any:
    """Yields kind, content and manifest entries of each file of a function."""
    if "onnx" in formats:
        model = to_onnx(f)
        yield "onnx", model.SerializeToString(), {}
        if int8:
            small, done, left = _quantized(model, exclude)
            counts = {"products_int8": done, "products_float32": left}
            yield "int8", small.SerializeToString(), counts
    if "stablehlo" in formats:
        yield "stablehlo", to_stablehlo(f), {}


def _quantized(model: Any, exclude: Sequence[str]) -> tuple[Any, int, int]:
    from jaxbench.to_onnx import ConversionError, quantize

    try:
        return quantize(model, exclude)
    except ConversionError as error:
        # The message begins with the name of the option.
        raise InputError(f"--{error}") from error


def _open(f: Function, kind: str, content: bytes) -> Call:
    if kind == "stablehlo":
        return stablehlo_call(content, f.inputs, f.outputs)
    from jaxbench.to_onnx.runtime import open_model

    return open_model(content)


def _require_close(name: str, f: Function, close: Parity) -> None:
    if not close.largest <= LIMIT:
        raise InputError(
            f"{name} of {f.backbone!r} differs from jax by {close.largest:.1e} of the "
            f"largest logit in {close.count} calls, more than {LIMIT:.0e}; nothing "
            "was kept"
        )


def _time(
    f: Function,
    made: Exported,
    inputs: Inputs,
    calls: Mapping[str, Mapping[str, Call]],
    say: Say,
) -> dict[str, Any]:
    count = TIMED[f.name]
    say(f"{f.name}: {count} calls of each timed in turn")
    step = f.name == "step"
    own = [(inputs.steps if step else inputs.windows)[n] for n in range(LEAST)]
    initial = made.state.initial if step else {}
    players = {"jax": callers.jax_caller(f, own, initial)}
    for kind, call in calls[f.name].items():
        # What jax loads again is the same program: it is not timed twice.
        if kind != "stablehlo":
            players[kind] = callers.file_caller(call, own, initial)
    times = time_in_turn(players, count, min(WARM_UP, count))
    return {name: callers.summary(of) for name, of in times.items()}


def _write(
    out: Path,
    run: Run,
    made: Exported,
    facts: Mapping[str, Any],
    contents: Mapping[str, bytes],
) -> None:
    """Writes the folder under another name and then renames it."""
    manifest = {
        "version": bundle.VERSION,
        **_identity(run),
        "weights": facts["weights"],
        "versions": _versions_used(),
        "functions": {
            f.name: {
                "inputs": [port.facts() for port in f.inputs],
                "outputs": [port.facts() for port in f.outputs],
            }
            for f in made.functions
        },
        "state": [port.facts() for port in made.state.ports],
        "files": facts["files"],
        "parity": facts["parity"],
        "scores": facts["scores"],
    }
    manifest["sha256"] = bundle.manifest_hash(manifest)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, content in contents.items():
            (partial / name).write_bytes(content)
        write_json(partial / bundle.MANIFEST, manifest)
        # A folder cannot take the place of one that holds files.
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _identity(run: Run) -> dict[str, Any]:
    """Manifest entries that identify the run and document inputs and outputs."""
    config, task = run.config, run.task
    facts: dict[str, Any] = {
        "task": task.name,
        "protocol": task.protocol,
        "backbone": config["model"]["backbone"],
        "width": run.model.stack.width,
        "depth": len(run.model.stack.layers),
        "config_hash": run.result["config_hash"],
        "data_fingerprint": task.source.get("fingerprint"),
        "trained_dtype": config["train"]["dtype"],
    }
    if find(task.name).emits == "byte":
        return facts | {
            "inputs": {"byte_b": {"values": "the byte that was read, 0 to 255"}},
            "outputs": {"logits_v": {"order": "the next byte, 0 to 255"}},
        }
    data = config["data"]
    if isinstance(run.model.head, ChunkHead):
        facts["chunk"] = describe.chunk()
    return facts | {
        "character": data["character"],
        "window": task.tokens_per_example,
        "delay": data["delay"],
        "head": config["model"]["head"],
        "inputs": describe.inputs(run),
        "controller": describe.controls(),
    }


def _versions_used() -> dict[str, Any]:
    known = versions()
    found: dict[str, Any] = {name: known[name] for name in ("jaxbench", "jax", "flax")}
    for name in ("onnx", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    if found["onnx"] != "absent":
        from jaxbench.to_onnx.graph import OPSET

        found["opset"] = OPSET
    return found
