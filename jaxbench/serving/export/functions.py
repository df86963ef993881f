"""Functions of a trained run that are exported: one step, and a whole window."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.bench import build
from jaxbench.bench.trained import Run
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.serving.decide import CHUNK, act, first_memory, first_state, next_byte
from jaxbench.serving.export.runtime import Function, Port, function
from jaxbench.tasks.table import find
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.chunks import acting
from jaxbench.tasks.zelda.chunks.heads import ChunkHead
from jaxbench.tasks.zelda.stream import INPUTS

LABELS = "labels_ba"
Variables = Mapping[str, Any]


class State(NamedTuple):
    """Conversion of a state to and from a list of named real arrays.

    Attributes:
      ports: "state/" and the path of each leaf; a complex leaf is two, /real and /imag.
      initial: the arrays an episode starts from, by name.
      pack: state -> arrays in the order of the ports.
      unpack: the inverse.
    """

    ports: tuple[Port, ...]
    initial: dict[str, np.ndarray]
    pack: Callable[[Any], list[jax.Array]]
    unpack: Callable[[Sequence[jax.Array]], Any]


def open_state(initial: Any) -> State:
    """Makes the conversion for states like `initial`, where an episode starts."""
    leaves = jax.tree_util.tree_leaves_with_path(initial)
    structure = jax.tree.structure(initial)
    split = [jnp.iscomplexobj(leaf) for _, leaf in leaves]

    def pack(state: Any) -> list[jax.Array]:
        return [
            part
            for leaf, two in zip(jax.tree.leaves(state), split, strict=True)
            for part in ((jnp.real(leaf), jnp.imag(leaf)) if two else (leaf,))
        ]

    def unpack(arrays: Sequence[jax.Array]) -> Any:
        rest = iter(arrays)
        return jax.tree.unflatten(
            structure,
            [
                jax.lax.complex(next(rest), next(rest)) if s else next(rest)
                for s in split
            ],
        )

    names = [
        f"state/{path_name(path)}{part}"
        for (path, _), two in zip(leaves, split, strict=True)
        for part in (("/real", "/imag") if two else ("",))
    ]
    arrays = [np.asarray(x) for x in pack(initial)]
    ports = tuple(
        Port(name, x.shape, str(x.dtype)) for name, x in zip(names, arrays, strict=True)
    )
    return State(ports, dict(zip(names, arrays, strict=True)), pack, unpack)


def path_name(path: Sequence[Any]) -> str:
    """A path in a tree of parameters or states, with slashes."""
    parts = []
    for key in path:
        for field in ("key", "name", "idx"):
            if hasattr(key, field):
                parts.append(str(getattr(key, field)))
                break
    return "/".join(parts)


def next_name(port: Port) -> str:
    """Name of the output that is the next call's input `port`."""
    return "next/" + port.name.removeprefix("state/")


def with_weights(
    name: str,
    call: Callable[..., tuple[jax.Array, ...]],
    variables: Variables,
    inputs: Sequence[Port],
    outputs: Sequence[str],
    backbone: str,
) -> Function:
    """A `Function` of `call(variables, *inputs)`.

    Weights in a narrower float type than float32 are widened: no runtime multiplies
    bfloat16 on a CPU.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    structure = jax.tree.structure(variables)
    weights = {path_name(path): _wide(np.asarray(leaf)) for path, leaf in leaves}
    if len(weights) != len(leaves):
        raise ValueError("two parameters have the same path")

    def flat(weights: Mapping[str, Any], *given: Any) -> tuple[jax.Array, ...]:
        return call(jax.tree.unflatten(structure, list(weights.values())), *given)

    return function(name, flat, weights, inputs, outputs, backbone)


@dataclasses.dataclass(frozen=True)
class Exported:
    """The exported functions of one run.

    Attributes:
      step: (inputs of a frame or byte, state) -> (outputs, next state).
      window: inputs of a window -> outputs; None where the task is streamed only.
      state: of `step`.
    """

    step: Function
    window: Function | None
    state: State

    @property
    def functions(self) -> tuple[Function, ...]:
        """Step and window, or the step alone."""
        return (self.step,) if self.window is None else (self.step, self.window)


def of_run(run: Run, variables: Variables) -> Exported:
    """The functions of a run of `zelda` or `pile`, computed in float32.

    Raises:
      InputError: a run of another task: it is not used frame by frame.
    """
    model = in_float32(run)
    emits = find(run.task.name).emits
    if emits == "controller":
        return _policy(run, model, variables)
    if emits == "byte":
        return _language(run, model, variables)
    raise InputError(
        f"the run {run.folder} is of the task {run.task.name!r}, which is neither "
        "played nor written; export runs of configs/zelda.py or configs/pile.py"
    )


def in_float32(run: Run) -> Model:
    """The run's model with every product in float32."""
    if run.config["train"]["dtype"] == "float32":
        return run.model
    config = {**run.config, "train": {**run.config["train"], "dtype": "float32"}}
    task = dataclasses.replace(
        run.task,
        encoder=_module_in_float32(run.task.encoder),
        head=_module_in_float32(run.task.head),
    )
    return build.build_model(build.build_backbone(config), task)


def logits_name(component: str) -> str:
    """Name of the output with a group's logits."""
    return f"logits/{component}"


def frame_ports(run: Run, length: int) -> tuple[Port, ...]:
    """Inputs of a policy for `length` frames, [1, length, ...]; bfloat16 as float32."""
    example = run.task.splits["validation"][:1]
    batch = jax.eval_shape(run.task.gather, dict(run.task.arrays), example)
    ports = []
    for name in INPUTS[run.task.protocol]:
        of = batch[name]
        dtype = "float32" if of.dtype == jnp.bfloat16 else str(of.dtype)
        ports.append(Port(name, (1, length, *of.shape[2:]), dtype))
    return (*ports, Port("reset_bt", (1, length), "bool"))


def _policy(run: Run, model: Model, variables: Variables) -> Exported:
    state = open_state(first_memory(model, variables, 1))
    answers = [CHUNK]
    if not isinstance(model.head, ChunkHead):
        answers = list(map(logits_name, controller.COMPONENTS))
    backbone = run.config["model"]["backbone"]

    def make(length: int, carried: bool) -> Function:
        ports = frame_ports(run, length)

        def call(variables: Any, *given: jax.Array) -> tuple[jax.Array, ...]:
            frames = dict(zip([p.name for p in ports], given, strict=False))
            memory = {"backbone": None, "plan": acting.first_plan(model.head, 1)}
            if carried:
                memory = state.unpack(given[len(ports) :])
            labels_ba, scores, after = act(model, variables, frames, memory)
            return (
                *scores.values(),
                labels_ba,
                *(state.pack(after) if carried else []),
            )

        inputs = (*ports, *state.ports) if carried else ports
        ends = [next_name(p) for p in state.ports] if carried else []
        name, outputs = "step" if carried else "window", [*answers, LABELS, *ends]
        return with_weights(name, call, variables, inputs, outputs, backbone)

    window = make(run.task.tokens_per_example, False)
    return Exported(make(1, True), window, state)


def _language(run: Run, model: Model, variables: Variables) -> Exported:
    state = open_state(first_state(model, variables))

    def call(
        variables: Any, byte_b: jax.Array, *given: jax.Array
    ) -> tuple[jax.Array, ...]:
        _, logits_bv, end = next_byte(model, variables, byte_b, state.unpack(given))
        return (logits_bv[0], *state.pack(end))

    step = with_weights(
        "step",
        call,
        variables,
        (Port("byte_b", (1,), "int32"), *state.ports),
        ["logits_v", *map(next_name, state.ports)],
        run.config["model"]["backbone"],
    )
    return Exported(step, None, state)


def _module_in_float32(module: Any) -> Any:
    fields = {field.name for field in dataclasses.fields(module)}
    return module.clone(dtype=jnp.float32) if "dtype" in fields else module


def _wide(array: np.ndarray) -> np.ndarray:
    narrow = array.dtype.kind == "f" or array.dtype == jnp.bfloat16
    return array.astype(np.float32) if narrow and array.dtype.itemsize < 4 else array
