"""Primitives that work number by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxbench.to_onnx.graph import Const, Graph, Real, scalar

Handler = Callable[[Graph, Any, Sequence[Real]], Any]


def _same(op: str) -> Handler:
    """A node of the same meaning; the result has the operands' type."""

    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        return g.elementwise(op, *xs)

    return handler


def _test(op: str, negated: bool = False) -> Handler:
    """A comparison."""

    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        if op != "Equal" and xs[0].dtype == bool:
            xs = [g.cast(x, np.int32) for x in xs]
        found = g.elementwise(op, *xs, dtype=bool)
        return g.elementwise("Not", found) if negated else found

    return handler


def _logic(on_bool: str, on_integers: str) -> Handler:
    """A bitwise operation."""

    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        return g.elementwise(on_bool if xs[0].dtype == bool else on_integers, *xs)

    return handler


def square(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """x^2."""
    return g.elementwise("Mul", xs[0], xs[0])


def rsqrt(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """1 / sqrt(x)."""
    return g.elementwise("Reciprocal", g.elementwise("Sqrt", xs[0]))


def erfc(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """1 - erf(x): exact to the rounding of 1, not to that of a small result."""
    return g.elementwise("Sub", scalar(1, xs[0].dtype), g.elementwise("Erf", xs[0]))


def expm1(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """exp(x) - 1 that keeps its digits near 0, where it is 2 t / (1 - t), t=tanh(x/2).

    Far from 0, where 1 - t vanishes, it is the difference.
    """
    x, kind = xs[0], xs[0].dtype
    one, limit = scalar(1, kind), scalar(0.5, kind)
    far = g.elementwise("Sub", g.elementwise("Exp", x), one)
    near_x = g.elementwise("Max", g.elementwise("Min", x, limit), scalar(-0.5, kind))
    t = g.elementwise("Tanh", g.elementwise("Mul", near_x, limit))
    near = g.elementwise(
        "Div", g.elementwise("Add", t, t), g.elementwise("Sub", one, t)
    )
    small = g.elementwise("Less", g.elementwise("Abs", x), limit, dtype=bool)
    return g.elementwise("Where", small, near, far)


def log1p(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """log(1 + x) that keeps its digits near 0: log(u) x / (u - 1), u = 1 + x."""
    x, kind = xs[0], xs[0].dtype
    one = scalar(1, kind)
    u = g.elementwise("Add", x, one)
    shift = g.elementwise("Sub", u, one)
    same = g.elementwise("Equal", shift, scalar(0, kind), dtype=bool)
    safe = g.elementwise("Where", same, one, shift)
    log = g.elementwise("Log", u)
    slope = g.elementwise("Div", x, safe)
    # Far out x / (u - 1) is 1, and where x is infinite it would be no number.
    near = g.elementwise("Less", g.elementwise("Abs", x), scalar(0.5, kind), dtype=bool)
    scaled = g.elementwise("Mul", log, slope)
    found = g.elementwise("Where", near, scaled, log)
    return g.elementwise("Where", same, x, found)


def integer_pow(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """x^n, n a whole number known now."""
    x, n = xs[0], eqn.params["y"]
    if n == 0:
        return scalar(1, x.dtype)
    found = x
    if abs(n) <= 4:
        for _ in range(abs(n) - 1):
            found = g.elementwise("Mul", found, x)
    else:
        found = g.elementwise("Pow", x, scalar(abs(n), x.dtype), dtype=x.dtype)
    return g.elementwise("Reciprocal", found) if n < 0 else found


def power(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """x^y."""
    return g.elementwise("Pow", *xs, dtype=xs[0].dtype)


def remainder(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """The remainder with the sign of x."""
    return g.elementwise("Mod", *xs, fmod=1)


def rounded(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """To the nearest whole number: ties to even, or away from zero."""
    x = xs[0]
    if int(eqn.params["rounding_method"]) == 1:
        return g.elementwise("Round", x)
    half = scalar(0.5, x.dtype)
    whole = g.elementwise("Floor", g.elementwise("Add", g.elementwise("Abs", x), half))
    return g.elementwise("Mul", whole, g.elementwise("Sign", x))


def is_finite(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Whether it is neither infinite nor no number."""
    odd = [g.elementwise(op, xs[0], dtype=bool) for op in ("IsNaN", "IsInf")]
    return g.elementwise("Not", g.elementwise("Or", *odd))


def shift_right(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """floor(x / 2^n); ONNX shifts unsigned numbers only."""
    x, by = xs
    step = _two_to(g, by)
    rest = g.elementwise("Mod", x, step)
    return g.elementwise("Div", g.elementwise("Sub", x, rest), step)


def shift_left(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """x 2^n."""
    return g.elementwise("Mul", xs[0], _two_to(g, xs[1]))


def _two_to(g: Graph, by: Real) -> Real:
    """2^n in n's type, now where n is known."""
    if isinstance(by, Const):
        return Const((2 ** by.array.astype(np.int64)).astype(by.dtype))
    return g.elementwise("Pow", scalar(2, by.dtype), by, dtype=by.dtype)


def clamp(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """min(max(x, low), high)."""
    low, x, high = xs
    return g.elementwise("Min", g.elementwise("Max", x, low), high)


def select(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """cases[which]."""
    which, *cases = xs
    found = cases[0]
    if which.dtype == bool:
        return where(g, which, cases[1], found)
    for i, case in enumerate(cases[1:], start=1):
        here = g.elementwise("Equal", which, scalar(i, which.dtype), dtype=bool)
        found = where(g, here, case, found)
    return found


def where(g: Graph, condition: Real, yes: Real, no: Real) -> Real:
    """`yes` where the condition holds; bools too, for which Where has no kernel."""
    if yes.dtype != bool:
        return g.elementwise("Where", condition, yes, no)
    both = g.elementwise("And", condition, yes)
    otherwise = g.elementwise("And", g.elementwise("Not", condition), no)
    return g.elementwise("Or", both, otherwise)


def convert(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Another type."""
    return g.cast(xs[0], eqn.params["new_dtype"])


def identity(g: Graph, eqn: Any, xs: Sequence[Real]) -> Any:
    """What says something to the compiler and computes nothing."""
    return list(xs)


def divide(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """x / y; whole numbers towards zero, as in C."""
    return g.elementwise("Div", *xs)


HANDLERS: dict[str, Handler] = {
    "add": _same("Add"),
    "add_any": _same("Add"),
    "sub": _same("Sub"),
    "mul": _same("Mul"),
    "div": divide,
    "max": _same("Max"),
    "min": _same("Min"),
    "neg": _same("Neg"),
    "exp": _same("Exp"),
    "log": _same("Log"),
    "sin": _same("Sin"),
    "cos": _same("Cos"),
    "tan": _same("Tan"),
    "tanh": _same("Tanh"),
    "sinh": _same("Sinh"),
    "cosh": _same("Cosh"),
    "asin": _same("Asin"),
    "acos": _same("Acos"),
    "atan": _same("Atan"),
    "sqrt": _same("Sqrt"),
    "abs": _same("Abs"),
    "sign": _same("Sign"),
    "floor": _same("Floor"),
    "ceil": _same("Ceil"),
    "logistic": _same("Sigmoid"),
    "erf": _same("Erf"),
    "erfc": erfc,
    "square": square,
    "rsqrt": rsqrt,
    "expm1": expm1,
    "log1p": log1p,
    "integer_pow": integer_pow,
    "pow": power,
    "rem": remainder,
    "round": rounded,
    "is_finite": is_finite,
    "eq": _test("Equal"),
    "ne": _test("Equal", negated=True),
    "lt": _test("Less"),
    "le": _test("LessOrEqual"),
    "gt": _test("Greater"),
    "ge": _test("GreaterOrEqual"),
    "and": _logic("And", "BitwiseAnd"),
    "or": _logic("Or", "BitwiseOr"),
    "xor": _logic("Xor", "BitwiseXor"),
    "not": _logic("Not", "BitwiseNot"),
    "shift_right_arithmetic": shift_right,
    "shift_left": shift_left,
    "clamp": clamp,
    "select_n": select,
    "convert_element_type": convert,
    "copy": identity,
    "copy_p": identity,
    "stop_gradient": identity,
    "optimization_barrier": identity,
    "name": identity,
}
