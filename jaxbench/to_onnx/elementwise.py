"""Primitives that work number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import Const, Graph, Real

# handler(graph, equation, *operands) -> a value, or a list of them.
Handler = Callable[..., Any]
# Those that ONNX has under another name.
SAME = {
    **{"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "max": "Max"},
    **{"min": "Min", "neg": "Neg", "exp": "Exp", "log": "Log", "sin": "Sin"},
    **{"cos": "Cos", "tan": "Tan", "tanh": "Tanh", "sinh": "Sinh", "cosh": "Cosh"},
    **{"asin": "Asin", "acos": "Acos", "atan": "Atan", "sqrt": "Sqrt", "abs": "Abs"},
    **{"sign": "Sign", "floor": "Floor", "ceil": "Ceil", "logistic": "Sigmoid"},
    # Whole numbers towards zero, as in C.
    **{"erf": "Erf", "div": "Div"},
}
COMPARE = {
    **{"eq": "Equal", "lt": "Less", "le": "LessOrEqual"},
    **{"gt": "Greater", "ge": "GreaterOrEqual"},
}


def _same(op: str) -> Handler:
    return lambda g, eqn, *xs: g.op(op, *xs)


def _test(op: str) -> Handler:
    def handler(g: Graph, eqn: Any, *xs: Real) -> Real:
        if op != "Equal" and xs[0].dtype == bool:
            xs = tuple(g.cast(x, np.int32) for x in xs)
        return g.op(op, *xs)

    return handler


def _logic(op: str) -> Handler:
    """And, Or, Xor, Not of truth values, or of the bits of whole numbers."""

    def handler(g: Graph, eqn: Any, *xs: Real) -> Real:
        return g.op(op if xs[0].dtype == bool else f"Bitwise{op}", *xs)

    return handler


def expm1(g: Graph, eqn: Any, x: Real) -> Real:
    """exp(x) - 1 that keeps its digits near 0, where it is 2 t / (1 - t), t=tanh(x/2).

    Far from 0, where 1 - t vanishes, it is the difference.
    """
    far = g.op("Sub", g.op("Exp", x), 1)
    near_x = g.op("Max", g.op("Min", x, 0.5), -0.5)
    t = g.op("Tanh", g.op("Mul", near_x, 0.5))
    near = g.op("Div", g.op("Add", t, t), g.op("Sub", 1, t))
    return g.op("Where", g.op("Less", g.op("Abs", x), 0.5), near, far)


def log1p(g: Graph, eqn: Any, x: Real) -> Real:
    """log(1 + x) that keeps its digits near 0: log(u) x / (u - 1), u = 1 + x.

    Of exp(-|y|), as in softplus, which is in (0, 1], it is 2 atanh(x / (x + 2)).
    """
    power = g.made_by(g.tensor(x), "Exp")
    size = power and g.made_by(power[0], "Neg")
    if size and g.made_by(size[0], "Abs"):
        return g.op("Mul", g.op("Atanh", g.op("Div", x, g.op("Add", x, 2))), 2)
    u = g.op("Add", x, 1)
    shift = g.op("Sub", u, 1)
    same = g.op("Equal", shift, 0)
    log = g.op("Log", u)
    slope = g.op("Div", x, g.op("Where", same, 1, shift))
    # Far out x / (u - 1) is 1, and where x is infinite it would be no number.
    near = g.op("Less", g.op("Abs", x), 0.5)
    found = g.op("Where", near, g.op("Mul", log, slope), log)
    return g.op("Where", same, x, found)


def integer_pow(g: Graph, eqn: Any, x: Real) -> Real:
    """x^n, n a whole number known now."""
    n, found = eqn.params["y"], x
    if n == 0:
        return Const(np.ones(x.shape, x.dtype))
    if abs(n) <= 4:
        for _ in range(abs(n) - 1):
            found = g.op("Mul", found, x)
    else:
        found = g.op("Pow", x, abs(n), dtype=x.dtype)
    return g.op("Reciprocal", found) if n < 0 else found


def rounded(g: Graph, eqn: Any, x: Real) -> Real:
    """To the nearest whole number: ties to even, or away from zero."""
    if int(eqn.params["rounding_method"]) == 1:
        return g.op("Round", x)
    whole = g.op("Floor", g.op("Add", g.op("Abs", x), 0.5))
    return g.op("Mul", whole, g.op("Sign", x))


def is_finite(g: Graph, eqn: Any, x: Real) -> Real:
    """Whether x is neither infinite nor no number."""
    return g.op("Not", g.op("Or", g.op("IsNaN", x), g.op("IsInf", x)))


def shift_right(g: Graph, eqn: Any, x: Real, by: Real) -> Real:
    """floor(x / 2^n); ONNX shifts unsigned numbers only."""
    step = _two_to(g, by)
    return g.op("Div", g.op("Sub", x, g.op("Mod", x, step)), step)


def _two_to(g: Graph, by: Real) -> Real:
    if isinstance(by, Const):
        return Const((2 ** by.array.astype(np.int64)).astype(by.dtype))
    return g.op("Pow", 2, by)


def select(g: Graph, eqn: Any, which: Real, *cases: Real) -> Real:
    """cases[which]."""
    found = cases[0]
    if which.dtype == bool:
        return where(g, which, cases[1], found)
    for i, case in enumerate(cases[1:], start=1):
        found = where(g, g.op("Equal", which, i), case, found)
    return found


def where(g: Graph, condition: Real, yes: Real, no: Real) -> Real:
    """`yes` where the condition holds; bools too, for which Where has no kernel."""
    if isinstance(condition, Const):
        if condition.array.all() == condition.array.any():
            chosen = yes if condition.array.all() else no
            rank = max(len(x.shape) for x in (condition, yes, no))
            return g.reshape(chosen, (*[1] * (rank - len(chosen.shape)), *chosen.shape))
    if yes.dtype != bool:
        return g.op("Where", condition, yes, no)
    otherwise = g.op("And", g.op("Not", condition), no)
    return g.op("Or", g.op("And", condition, yes), otherwise)


def _identity(g: Graph, eqn: Any, *xs: Real) -> Any:
    """What says something to the compiler and computes nothing."""
    return list(xs)


HANDLERS: dict[str, Handler] = {
    **{name: _same(op) for name, op in SAME.items()},
    **{name: _test(op) for name, op in COMPARE.items()},
    **{op.lower(): _logic(op) for op in ("And", "Or", "Xor", "Not")},
    "ne": lambda g, eqn, x, y: g.op("Not", g.op("Equal", x, y)),
    "square": lambda g, eqn, x: g.op("Mul", x, x),
    "rsqrt": lambda g, eqn, x: g.op("Reciprocal", g.op("Sqrt", x)),
    # Exact to the rounding of 1, not to that of a small result.
    "erfc": lambda g, eqn, x: g.op("Sub", 1, g.op("Erf", x)),
    "expm1": expm1,
    "log1p": log1p,
    "integer_pow": integer_pow,
    "pow": lambda g, eqn, x, y: g.op("Pow", x, y, dtype=x.dtype),
    # With the sign of x.
    "rem": lambda g, eqn, x, y: g.op("Mod", x, y, fmod=1),
    "round": rounded,
    "is_finite": is_finite,
    "shift_right_arithmetic": shift_right,
    "shift_left": lambda g, eqn, x, by: g.op("Mul", x, _two_to(g, by)),
    "clamp": lambda g, eqn, low, x, high: g.op("Min", g.op("Max", x, low), high),
    "select_n": select,
    "convert_element_type": lambda g, eqn, x: g.cast(x, eqn.params["new_dtype"]),
    **dict.fromkeys(("copy", "copy_p", "stop_gradient", "name"), _identity),
    "optimization_barrier": _identity,
}
