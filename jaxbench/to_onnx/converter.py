"""From a jax function to an ONNX model.

The function's jaxpr is walked: calls are inlined, what is known is computed, and each
other equation becomes nodes through `HANDLERS`, a table from the name of a primitive to
a function. An operation that is not in it is an error only where an output needs its
result.
"""

from __future__ import annotations

import dataclasses
import functools
import sysconfig
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

from . import arrays, complexes, elementwise, indexing, loops, products
from .folding import fold
from .graph import (
    IR_VERSION,
    OPSET,
    Const,
    ConversionError,
    Graph,
    Missing,
    Pair,
    Tensor,
    UnsupportedError,
    Value,
    described,
    live_nodes,
    reads,
    rename,
)
from .rules import RULES, by_operator

HANDLERS: dict[str, elementwise.Handler] = {
    **elementwise.HANDLERS,
    **arrays.HANDLERS,
    **products.HANDLERS,
    **indexing.HANDLERS,
}
# A path in a tree, with slashes.
path_name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
# Primitive -> its parameter that holds the jaxpr to inline.
CALLS = {
    **dict.fromkeys(("jit", "pjit", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("closed_call", "core_call"), "call_jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}
# A draw depends on a key; what is converted answers the same input alike.
RANDOM = {
    *("random_bits", "random_seed", "random_split", "random_fold_in", "random_wrap"),
    *("random_unwrap", "random_gamma", "threefry2x32", "rng_bit_generator"),
}


def convert(
    function: Any,
    params: Any,
    *inputs: Any,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    name: str = "function",
    unroll: int = loops.UNROLL,
    rules: Collection[str] = tuple(RULES),
) -> onnx.ModelProto:
    """Converts `function(params, *inputs)` to an ONNX model.

    Args:
      function: pure; returns an array, or a tree of arrays.
      params: a tree of arrays that the model holds, each named by its path, such as
        "params/dense/kernel".
      inputs: an array each, or what has its shape and dtype (`jax.ShapeDtypeStruct`),
        or a tree of them. The model's shapes are fixed.
      input_names: of the leaves of `inputs`; their paths by default: "x0", "x1/h".
      output_names: of the leaves of the result; by default "y", or their paths: "y/0".
      name: of the graph.
      unroll: loops of at most so many equations in all are written out; longer ones
        become Scan.
      rules: names of those in `rules.RULES` that make the graph smaller.

    Returns:
      The model, checked by onnx; random numbers, such as dropout's, are refused.

    Raises:
      ConversionError: an output needs an operation that cannot be converted, or is
        complex; the message names it and where it comes from.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
    weights, leaves, results = map(
        jax.tree_util.tree_leaves_with_path, (params, inputs, shapes)
    )
    names_in = list(input_names) or [f"x{path_name(path)}" for path, _ in leaves]
    names_out = list(output_names) or [
        "/".join(filter(None, ["y", path_name(path)])) for path, _ in results
    ]
    g = Graph(by_operator(rules), "views" in rules)
    known = [Const(np.asarray(x), path_name(p)) for p, x in weights]
    ports = [
        g.input(label, x.shape, x.dtype)
        for label, (_, x) in zip(names_in, leaves, strict=True)
    ]
    for label in names_out:
        g.unique(label)
    found = Walker(g, unroll).walk(closed.jaxpr, closed.consts, [*known, *ports], "")
    ends: list[Tensor] = []
    for label, value, (_, out) in zip(names_out, found, results, strict=True):
        if isinstance(value, Missing):
            raise ConversionError(
                f"{value.what} has no counterpart here; it comes from {value.where}"
            )
        if isinstance(value, Pair):
            raise ConversionError(f"output {label} is complex; split it in two arrays")
        ends.append(g.end(g.full(value, out.shape), [x.name for x in ends]))
    nodes = live_nodes(g.bodies[0].nodes, [x.name for x in ends])
    read = {each for node in nodes for each in reads(node)}
    names = {x.name: label for x, label in zip(ends, names_out, strict=True)}
    rename(nodes, names)
    outputs = [described(dataclasses.replace(x, name=names[x.name])) for x in ends]
    kept = [(k, x) for k, x in g.initializers.items() if k in read]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [described(port) for port in ports],
            outputs,
            [numpy_helper.from_array(array, label) for label, array in kept],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="to_onnx",
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


class Walker:
    """Turns the equations of jaxprs into nodes of one graph.

    Args:
      g: the graph.
      unroll: see `convert`.
    """

    def __init__(self, g: Graph, unroll: int):
        self.g = g
        self.unroll = unroll

    def walk(
        self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], scope: str
    ) -> list[Value]:
        """The values of a jaxpr's results, given those of its operands."""
        values: dict[Any, Value] = {}

        def read(x: Any) -> Value:
            if hasattr(x, "val"):
                return Const(np.asarray(x.val, x.aval.dtype))
            return values[x]

        arrays = [Const(np.asarray(x)) for x in consts]
        variables = [*jaxpr.constvars, *jaxpr.invars]
        values.update(zip(variables, [*arrays, *inputs], strict=True))
        for eqn in jaxpr.eqns:
            found = self.equation(eqn, [read(x) for x in eqn.invars], scope)
            values.update(zip(eqn.outvars, found, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def equation(self, eqn: Any, xs: Sequence[Value], scope: str) -> Sequence[Value]:
        """The results of one equation."""
        name, count = eqn.primitive.name, len(eqn.outvars)
        here = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if name in CALLS:
            inner = eqn.params[CALLS[name]]
            consts = getattr(inner, "consts", ())
            return self.walk(getattr(inner, "jaxpr", inner), consts, xs, here)
        missing = next((x for x in xs if isinstance(x, Missing)), None)
        if missing is not None:
            return [missing] * count
        self.g.scope = here
        try:
            found = self._convert(eqn, xs, here)
        except UnsupportedError as error:
            what = str(error) if name in str(error) else f"{name} ({error})"
            return [Missing(f"the operation {what}", source(eqn))] * count
        return found if isinstance(found, list) else [found]

    def _convert(self, eqn: Any, xs: Sequence[Any], here: str) -> Any:
        name = eqn.primitive.name
        if name in RANDOM:
            raise UnsupportedError(f"{name}, which draws random numbers,")
        if name == "scan":
            return loops.scan(self, eqn, xs, here)
        if all(isinstance(x, Const) for x in xs):
            return fold(eqn, xs)
        kinds = [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]
        if any(complexes.is_complex(kind) for kind in kinds) or name == "fft":
            return complexes.convert(self.g, eqn, *xs)
        if name not in HANDLERS:
            raise UnsupportedError(name)
        return HANDLERS[name](self.g, eqn, *xs)


def source(eqn: Any) -> str:
    """Where an equation was written: file, line and function outside of libraries."""
    paths = sysconfig.get_paths()
    libraries = [paths["stdlib"], paths["purelib"], paths["platlib"]]
    libraries.append(str(Path(__file__).parent))
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not any(frame.file_name.startswith(f) for f in libraries):
            path = Path(frame.file_name)
            # From the outermost package on; a script alone is its name.
            package = [p for p in path.parents if (p / "__init__.py").exists()]
            place = path.relative_to(package[-1].parent) if package else path.name
            caller = frame.function_name.rpartition(".")[2]
            return f"{place}:{frame.line_num} ({caller})"
    return "an unknown place"
