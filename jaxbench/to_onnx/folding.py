"""What is known at conversion is computed then, in numpy where that is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .elementwise import COMPARE, SAME
from .graph import FOLD, Const

# Compiling each of a model's thousands of constant operations would take minutes.
_SAME: dict[str, Callable[..., Any]] = {
    **{k: FOLD[op] for k, op in {**SAME, **COMPARE}.items() if op in FOLD},
    **{"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor},
    **{"not": np.bitwise_not, "ne": np.not_equal, "pow": np.power},
    **{"log1p": np.log1p, "expm1": np.expm1, "square": np.square},
    **{"real": np.real, "imag": np.imag, "conj": np.conj},
    **{"copy": lambda x: x, "stop_gradient": lambda x: x},
    "complex": lambda a, b: a + 1j * b,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
# Moving an array does not change what it is: its name stays that of the parameter.
_MOVES = {
    *("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim"),
    *("convert_element_type", "copy", "stop_gradient", "slice", "split"),
}


def fold(eqn: Any, inputs: Sequence[Const]) -> list[Const]:
    """The results of an equation whose operands are all known."""
    name, arrays = eqn.primitive.name, [x.array for x in inputs]
    named = [x for x in inputs if x.label]
    label = max(named, key=lambda x: x.array.size).label if named else ""
    if label and name not in _MOVES and not label.endswith("/folded"):
        label = f"{label}/folded"
    aval = eqn.outvars[0].aval
    with np.errstate(all="ignore"):
        found = _in_numpy(name, eqn.params, arrays, aval)
    if found is not None:
        return [Const(found.astype(aval.dtype, copy=False), label)]
    # In the default mode the results could be tracers of a caller's transformation.
    with jax.ensure_compile_time_eval():
        results = eqn.primitive.bind(*map(jnp.asarray, arrays), **eqn.params)
    if not eqn.primitive.multiple_results:
        results = [results]
    return [Const(np.asarray(x), label) for x in results]


def _in_numpy(name: str, p: Any, arrays: Sequence[Any], aval: Any) -> Any:
    shape = tuple(aval.shape)
    if name in _SAME:
        return np.broadcast_to(_SAME[name](*arrays), shape)
    if name == "iota":
        along = [1] * len(shape)
        along[p["dimension"]] = shape[p["dimension"]]
        counted = np.arange(shape[p["dimension"]]).reshape(along)
        return np.broadcast_to(counted.astype(aval.dtype), shape)
    x: Any = arrays[0] if arrays else None
    if name in ("reshape", "squeeze", "expand_dims"):
        return np.reshape(x, shape)
    if name == "broadcast_in_dim":
        thin = [1] * len(shape)
        for axis, size in zip(p["broadcast_dimensions"], x.shape, strict=True):
            thin[axis] = size
        return np.broadcast_to(x.reshape(thin), shape)
    if name == "transpose":
        return np.transpose(x, p["permutation"])
    if name == "slice":
        strides = p["strides"] or (1,) * x.ndim
        spans = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
        return x[tuple(slice(*span) for span in spans)]
    if name == "concatenate":
        return np.concatenate(arrays, p["dimension"])
    if name == "select_n" and arrays[0].dtype == bool:
        return np.where(arrays[0], arrays[2], arrays[1])
    if name == "convert_element_type" and x.dtype.kind in "biufc":
        kinds = (x.dtype.kind, np.dtype(aval.dtype).kind)
        # From a fraction to an integer numpy and XLA differ outside the range.
        return None if kinds in (("f", "i"), ("f", "u")) else x.astype(aval.dtype)
    if name == "integer_pow":
        return np.power(x, np.asarray(p["y"], x.dtype)) if x.dtype.kind == "f" else None
    if name in ("reduce_sum", "reduce_max", "reduce_min"):
        return np.asarray(getattr(np, name[7:])(x, axis=tuple(p["axes"])))
    return None
