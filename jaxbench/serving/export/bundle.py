"""An exported run's folder: manifest, files, and how they are opened again."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.errors import InputError
from jaxbench.serving.export.limits import require
from jaxbench.serving.export.runtime import Call, Port, next_state, stablehlo_call

# Version of the manifest: change it when an older reader would misread a newer folder.
VERSION = 1
MANIFEST, INITIAL = "manifest.json", "initial_state.npz"
FORMATS = ("onnx", "int8", "stablehlo")
SUFFIXES = {"onnx": ".onnx", "int8": ".int8.onnx", "stablehlo": ".stablehlo"}


@dataclasses.dataclass(frozen=True)
class ExportedRun:
    """A run opened from its exported files.

    Attributes:
      manifest: content of `manifest.json`.
      initial: the state that an episode starts from, arrays by name.
    """

    manifest: Mapping[str, Any]
    initial: Mapping[str, np.ndarray]
    _calls: Mapping[str, Call]

    def step(
        self, inputs: Mapping[str, Any], state: Mapping[str, np.ndarray] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Runs the exported step on one frame or byte.

        Args:
          inputs: arrays by the names in `manifest["functions"]["step"]["inputs"]`.
          state: from the last call; None is the initial one. It is left as it is.

        Returns:
          The outputs (logits or a chunk, and for a policy the labels), and the next
          state.

        Raises:
          InputError: an input is missing or of another shape.
        """
        given = {**inputs, **(self.initial if state is None else state)}
        self._check("step", given)
        found = self._calls["step"](given)
        outputs = {k: x for k, x in found.items() if not k.startswith("next/")}
        return outputs, next_state(found, self.initial)

    def window(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Runs the exported window function on a whole window of frames.

        Raises:
          InputError: an input is missing or of another shape, or the run has no
            window: it is a language model.
        """
        if "window" not in self._calls:
            raise InputError(
                f"the exported run of {self.manifest['backbone']} has no window; step "
                "through its input"
            )
        self._check("window", inputs)
        return self._calls["window"](inputs)

    def _check(self, function: str, given: Mapping[str, Any]) -> None:
        for port in self.manifest["functions"][function]["inputs"]:
            name, shape = port["name"], port["shape"]
            if name not in given:
                raise InputError(f"{function} reads {name}, which is missing")
            if list(np.shape(given[name])) != shape:
                raise InputError(
                    f"{function}: {name} is {list(np.shape(given[name]))}, not {shape}"
                )


def load_exported(
    folder: Path | str, *, kind: str = "onnx", threads: int = 1
) -> ExportedRun:
    """Opens a folder that `jaxbench export` wrote; neither run nor data is needed.

    Args:
      folder: with its `manifest.json`.
      kind: "onnx" (float32), "int8" or "stablehlo" (needs jax, runs on its device).
      threads: of ONNX Runtime.

    Raises:
      InputError: there is no manifest, it is of another version, a file is missing or
        is not the one that was written, or the kind was not exported.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if kind not in FORMATS:
        raise InputError(f"kind={kind!r} is none of {', '.join(FORMATS)}")
    for name, entry in manifest["files"].items():
        check_file(folder / name, entry["sha256"])
    files = {
        entry["function"]: (folder / name, manifest["functions"][entry["function"]])
        for name, entry in manifest["files"].items()
        if entry["kind"] == kind
    }
    if "step" not in files:
        have = sorted({e["kind"] for e in manifest["files"].values()} - {"state"})
        raise InputError(
            f"{folder} holds no {kind} files, only {', '.join(have)}; export the run "
            "again with them"
        )
    with np.load(folder / INITIAL, allow_pickle=False) as arrays:
        initial = {port["name"]: arrays[port["name"]] for port in manifest["state"]}
    calls = {}
    for name, (path, ports) in files.items():
        if kind == "stablehlo":
            inputs, outputs = (
                tuple(Port(p["name"], tuple(p["shape"]), p["dtype"]) for p in ports[k])
                for k in ("inputs", "outputs")
            )
            calls[name] = stablehlo_call(path.read_bytes(), inputs, outputs)
        else:
            require("onnx", "onnxruntime")
            from jaxbench.to_onnx.runtime import open_model

            calls[name] = open_model(path, threads)
    return ExportedRun(manifest, initial, calls)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads and checks a folder's manifest.

    Raises:
      InputError: it is missing, no JSON, changed by hand, or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no {MANIFEST}: name a folder that jaxbench export wrote"
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({str(error)[:80]}); export the run again"
        ) from None
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != VERSION:
        raise InputError(
            f"{path} is of version {version!r} and this jaxbench reads {VERSION}; "
            "export the run again"
        )
    if manifest.get("sha256") != manifest_hash(manifest):
        raise InputError(
            f"{path} was changed after it was written: its sha256 does not match; "
            "export the run again"
        )
    return manifest


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own `sha256` field."""
    content = {k: v for k, v in manifest.items() if k != "sha256"}
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_file(path: Path, expected: str) -> None:
    """Refuses a file that is not the one that was written.

    Raises:
      InputError: it is missing, or its sha256 is another.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing, though the manifest names it; export the run again"
        ) from None
    if found != expected:
        raise InputError(
            f"{path} is not what was exported: its sha256 is {found[:12]} and the "
            f"manifest says {expected[:12]}; export the run again"
        )


def state_bytes(initial: Mapping[str, np.ndarray]) -> bytes:
    """The initial state as an .npz file."""
    buffer = io.BytesIO()
    # A keyword of savez cannot be "file"; names of states begin with "state/".
    arrays: dict[str, Any] = dict(initial)
    np.savez(buffer, **arrays)
    return buffer.getvalue()
