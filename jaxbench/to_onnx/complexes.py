"""Complex arithmetic as pairs of real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import arrays, indexing, products
from .elementwise import Handler, where
from .graph import Const, Graph, Pair, Real, UnsupportedError, Value

# A transform over more points would be a matrix of more than 64 MB.
MAX_POINTS = 4096


def is_complex(dtype: Any) -> bool:
    """Whether a type is one of the complex ones."""
    return np.issubdtype(dtype, np.complexfloating)


def parts(value: Value) -> Pair:
    """A value as real and imaginary part."""
    if isinstance(value, Pair):
        return value
    assert isinstance(value, Const), value
    real, imag = (
        Const(np.ascontiguousarray(getattr(value.array, part)), label)
        for part in ("real", "imag")
        for label in [value.label and f"{value.label}/{part}"]
    )
    return Pair(real, imag)


def convert(g: Graph, eqn: Any, *xs: Any) -> Any:
    """Converts an equation that reads or gives complex numbers.

    Raises:
      UnsupportedError: an operation that is not in `HANDLERS`.
    """
    name = eqn.primitive.name
    if name not in HANDLERS:
        raise UnsupportedError(f"{name} of complex numbers")
    # Constants of complex numbers come whole.
    kinds = [is_complex(v.aval.dtype) for v in eqn.invars]
    given = [parts(x) if two else x for x, two in zip(xs, kinds, strict=True)]
    return HANDLERS[name](g, eqn, *given)


def _converted(g: Graph, eqn: Any, x: Any) -> Any:
    kind = eqn.params["new_dtype"]
    if isinstance(x, Pair):
        return x if is_complex(kind) else g.cast(x.real, kind)
    return Pair(g.cast(x, np.float32), Const(np.zeros(x.shape, np.float32)))


def _select(g: Graph, eqn: Any, which: Real, no: Pair, yes: Pair) -> Pair:
    return Pair(*(where(g, which, b, a) for a, b in zip(no, yes, strict=True)))


def _apart(handler: Handler) -> Handler:
    """The handler on real and imaginary parts apart: it moves numbers, or is linear."""

    def both(g: Graph, eqn: Any, *xs: Any) -> Any:
        # Indices are whole numbers, the same for both parts.
        halves = [
            handler(g, eqn, *(x[i] if isinstance(x, Pair) else x for x in xs))
            for i in (0, 1)
        ]
        if isinstance(halves[0], list):
            return [Pair(*pair) for pair in zip(*halves, strict=True)]
        return Pair(*halves)

    return both


def _each(op: str) -> Handler:
    def handler(g: Graph, eqn: Any, *xs: Pair) -> Pair:
        return Pair(*(g.op(op, *halves) for halves in zip(*xs, strict=True)))

    return handler


def _zero(x: Real) -> bool:
    return isinstance(x, Const) and not x.array.any()


def _product(g: Graph, a: Pair, b: Pair, times: Callable[[Real, Real], Real]) -> Pair:
    """(a.real + i a.imag) (b.real + i b.imag), without products with a known 0."""

    def combine(op: str, first: tuple[Real, Real], second: tuple[Real, Real]) -> Real:
        if any(map(_zero, second)):
            return times(*first)
        if any(map(_zero, first)):
            return g.op("Neg", times(*second)) if op == "Sub" else times(*second)
        return g.op(op, times(*first), times(*second))

    return Pair(
        combine("Sub", (a.real, b.real), (a.imag, b.imag)),
        combine("Add", (a.real, b.imag), (a.imag, b.real)),
    )


def _multiply(g: Graph, eqn: Any, a: Pair, b: Pair) -> Pair:
    return _product(g, a, b, lambda x, y: g.op("Mul", x, y))


def _divide(g: Graph, eqn: Any, a: Pair, b: Pair) -> Pair:
    above = a if _zero(b.imag) else _multiply(g, eqn, a, _conjugate(g, eqn, b))
    over = b.real if _zero(b.imag) else _square(g, b)
    return Pair(*(g.op("Div", x, over) for x in above))


def _conjugate(g: Graph, eqn: Any, a: Pair) -> Pair:
    return Pair(a.real, g.op("Neg", a.imag))


def _square(g: Graph, a: Pair) -> Real:
    """|a|^2."""
    return g.op("Add", *(g.op("Mul", x, x) for x in a))


def _exponential(g: Graph, eqn: Any, a: Pair) -> Pair:
    size = g.op("Exp", a.real)
    return Pair(*(g.op("Mul", size, g.op(turn, a.imag)) for turn in ("Cos", "Sin")))


def _power(g: Graph, eqn: Any, a: Pair) -> Pair:
    n, found = eqn.params["y"], a
    if n < 1:
        raise UnsupportedError(f"complex numbers to the power of {n}")
    for _ in range(n - 1):
        found = _multiply(g, eqn, found, a)
    return found


def _dot(g: Graph, eqn: Any, a: Pair, b: Pair) -> Pair:
    def dot(x: Real, y: Real) -> Real:
        x, y = (g.full(z, arrays.shape_of(eqn, i)) for i, z in enumerate((x, y)))
        return products.dot(g, x, y, eqn.params["dimension_numbers"])

    return _product(g, a, b, dot)


def _fft(g: Graph, eqn: Any, x: Any) -> Any:
    """A discrete Fourier transform over the last axis as products with matrices.

    Cost: n^2 a row instead of n log n; up to `MAX_POINTS` points.
    """
    kind = str(eqn.params["fft_type"]).rpartition(".")[2]
    kind = {"0": "FFT", "1": "IFFT", "2": "RFFT", "3": "IRFFT"}.get(kind, kind)
    lengths = eqn.params["fft_lengths"]
    if len(lengths) != 1 or lengths[0] > MAX_POINTS:
        raise UnsupportedError(f"fft over {'x'.join(map(str, lengths))} points")
    (n,) = lengths
    k = np.arange(n)
    turns = 2 * np.pi * ((k[:, None] * k[None]) % n) / n
    cos, sin = np.cos(turns), np.sin(turns)

    def dot(x: Real, matrix: np.ndarray) -> Real:
        whole = g.full(x, arrays.shape_of(eqn))
        last = len(whole.shape) - 1
        constant = Const(np.asarray(matrix, np.float32))
        return products.dot(g, whole, constant, (((last,), (0,)), ((), ())))

    half = n // 2 + 1
    if kind == "RFFT":
        return Pair(dot(x, cos[:, :half]), dot(x, -sin[:, :half]))
    if kind == "IRFFT":
        # Frequencies between 0 and n / 2 stand for their mirror images too.
        times = np.full((half, 1), 2.0)
        times[0] = 1
        if n % 2 == 0:
            times[-1] = 1
        real = dot(x.real, times * cos[:half] / n)
        return g.op("Sub", real, dot(x.imag, times * sin[:half] / n))
    if kind == "IFFT":
        cos, sin = cos / n, -sin / n
    # (re + i im)(cos - i sin)
    return Pair(
        g.op("Add", dot(x.real, cos), dot(x.imag, sin)),
        g.op("Sub", dot(x.imag, cos), dot(x.real, sin)),
    )


HANDLERS: dict[str, Handler] = {
    **{name: _apart(handler) for name, handler in arrays.HANDLERS.items()},
    **{name: _apart(products.HANDLERS[name]) for name in ("reduce_sum", "cumsum")},
    **{name: _apart(indexing.HANDLERS[name]) for name in ("dynamic_slice", "gather")},
    **{"add": _each("Add"), "sub": _each("Sub"), "neg": _each("Neg")},
    **dict.fromkeys(("copy", "stop_gradient"), lambda g, eqn, a: a),
    "complex": lambda g, eqn, real, imag: Pair(real, imag),
    "convert_element_type": _converted,
    "fft": _fft,
    "select_n": _select,
    "real": lambda g, eqn, a: a.real,
    "imag": lambda g, eqn, a: a.imag,
    "conj": _conjugate,
    "exp": _exponential,
    "abs": lambda g, eqn, a: g.op("Sqrt", _square(g, a)),
    "square": lambda g, eqn, a: _multiply(g, eqn, a, a),
    "mul": _multiply,
    "div": _divide,
    "dot_general": _dot,
    "integer_pow": _power,
}
