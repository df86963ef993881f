"""Complex arithmetic as pairs of real numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxbench.to_onnx import arrays, indexing, products
from jaxbench.to_onnx.arrays import shape_of
from jaxbench.to_onnx.elementwise import where
from jaxbench.to_onnx.graph import (
    Const,
    Graph,
    Pair,
    Real,
    UnsupportedError,
    Value,
    scalar,
)

# A transform over more points would be a matrix of more than 64 MB.
MAX_POINTS = 4096
# Work on real and imaginary parts apart: they move numbers, or are linear.
_APART = {
    **arrays.HANDLERS,
    **{k: products.HANDLERS[k] for k in ("reduce_sum", "cumsum")},
    **{k: indexing.HANDLERS[k] for k in ("dynamic_slice", "gather")},
}
Binary = Callable[[Graph, Pair, Pair], Pair]


def is_complex(dtype: Any) -> bool:
    """Whether a type is one of the complex ones."""
    return np.issubdtype(dtype, np.complexfloating)


def parts(value: Value) -> Pair:
    """A value as real and imaginary part."""
    if isinstance(value, Pair):
        return value
    assert isinstance(value, Const), value
    real = np.ascontiguousarray(value.array.real)
    imag = np.ascontiguousarray(value.array.imag)
    label = value.label and f"{value.label}/real"
    other = value.label and f"{value.label}/imag"
    return Pair(Const(real, label), Const(imag, other))


def convert(g: Graph, eqn: Any, xs: Sequence[Any]) -> Any:
    """Converts an equation that reads or gives complex numbers.

    Raises:
      UnsupportedError: an operation that no backbone uses on them.
    """
    name = eqn.primitive.name
    if name == "complex":
        return Pair(*xs)
    if name == "convert_element_type":
        return _converted(g, eqn, xs[0])
    if name == "fft":
        return fft(g, eqn, xs)
    if name == "select_n":
        which, no, yes = xs
        no, yes = parts(no), parts(yes)
        return Pair(*(where(g, which, b, a) for a, b in zip(no, yes, strict=True)))
    if name in _APART:
        return _apart(g, eqn, xs)
    given = [parts(x) for x in xs]
    if name in _ONE:
        return _ONE[name](g, given[0])
    if name in _TWO:
        return _TWO[name](g, *given)
    if name == "dot_general":
        return _dot(g, eqn, *given)
    if name == "integer_pow":
        return _power(g, given[0], eqn.params["y"])
    raise UnsupportedError(f"{name} of complex numbers")


def _converted(g: Graph, eqn: Any, x: Any) -> Any:
    if isinstance(x, Pair):
        if is_complex(eqn.params["new_dtype"]):
            return x
        return g.cast(x.real, eqn.params["new_dtype"])
    real = g.cast(x, np.float32)
    return Pair(real, scalar(0, np.float32))


def _apart(g: Graph, eqn: Any, xs: Sequence[Any]) -> Any:
    handler = _APART[eqn.primitive.name]
    both = []
    for i in (0, 1):
        # Indices are whole numbers, the same for both parts.
        given = [
            parts(x)[i] if is_complex(v.aval.dtype) else x
            for x, v in zip(xs, eqn.invars, strict=True)
        ]
        both.append(handler(g, eqn, given))
    if isinstance(both[0], list):
        return [Pair(*pair) for pair in zip(*both, strict=True)]
    return Pair(*both)


def _map(op: str) -> Callable[[Graph, Pair, Pair], Pair]:
    def handler(g: Graph, a: Pair, b: Pair) -> Pair:
        return Pair(*(g.elementwise(op, x, y) for x, y in zip(a, b, strict=True)))

    return handler


def _multiply(g: Graph, a: Pair, b: Pair) -> Pair:
    def times(x: Real, y: Real) -> Real:
        return g.elementwise("Mul", x, y)

    return Pair(
        g.elementwise("Sub", times(a.real, b.real), times(a.imag, b.imag)),
        g.elementwise("Add", times(a.real, b.imag), times(a.imag, b.real)),
    )


def _divide(g: Graph, a: Pair, b: Pair) -> Pair:
    over = _size2(g, b)
    above = _multiply(g, a, _conjugate(g, b))
    return Pair(*(g.elementwise("Div", x, over) for x in above))


def _conjugate(g: Graph, a: Pair) -> Pair:
    return Pair(a.real, g.elementwise("Neg", a.imag))


def _size2(g: Graph, a: Pair) -> Real:
    squares = [g.elementwise("Mul", x, x) for x in a]
    return g.elementwise("Add", *squares)


def _negative(g: Graph, a: Pair) -> Pair:
    return Pair(*(g.elementwise("Neg", x) for x in a))


def _exponential(g: Graph, a: Pair) -> Pair:
    size = g.elementwise("Exp", a.real)
    turns = [g.elementwise(op, a.imag) for op in ("Cos", "Sin")]
    return Pair(*(g.elementwise("Mul", size, x) for x in turns))


def _power(g: Graph, a: Pair, n: int) -> Pair:
    if n < 1:
        raise UnsupportedError(f"complex numbers to the power of {n}")
    found = a
    for _ in range(n - 1):
        found = _multiply(g, found, a)
    return found


def _dot(g: Graph, eqn: Any, a: Pair, b: Pair) -> Pair:
    dimensions = eqn.params["dimension_numbers"]

    def dot(x: Real, y: Real) -> Real:
        left, right = g.full(x, shape_of(eqn)), g.full(y, shape_of(eqn, 1))
        return products.dot(g, left, right, dimensions)

    return Pair(
        g.elementwise("Sub", dot(a.real, b.real), dot(a.imag, b.imag)),
        g.elementwise("Add", dot(a.real, b.imag), dot(a.imag, b.real)),
    )


def fft(g: Graph, eqn: Any, xs: Sequence[Any]) -> Any:
    """A discrete Fourier transform over the last axis as products with matrices.

    Cost: n^2 a row instead of n log n; up to `MAX_POINTS` points.
    """
    kind = str(eqn.params["fft_type"]).rpartition(".")[2]
    kind = {"0": "FFT", "1": "IFFT", "2": "RFFT", "3": "IRFFT"}.get(kind, kind)
    lengths = eqn.params["fft_lengths"]
    if len(lengths) != 1 or lengths[0] > MAX_POINTS:
        raise UnsupportedError(f"fft over {'x'.join(map(str, lengths))} points")
    (n,) = lengths
    given = parts(xs[0]) if is_complex(eqn.invars[0].aval.dtype) else None
    k = np.arange(n)
    turns = 2 * np.pi * ((k[:, None] * k[None]) % n) / n
    cos, sin = np.cos(turns), np.sin(turns)

    def dot(x: Real, matrix: np.ndarray) -> Real:
        whole = g.full(x, shape_of(eqn))
        constant = Const(np.asarray(matrix, np.float32))
        dimensions = (((len(whole.shape) - 1,), (0,)), ((), ()))
        return products.dot(g, whole, constant, dimensions)

    if kind == "RFFT":
        half = n // 2 + 1
        return Pair(dot(xs[0], cos[:, :half]), dot(xs[0], -sin[:, :half]))
    assert given is not None
    if kind == "IRFFT":
        # Frequencies between 0 and n / 2 stand for their mirror images too.
        half = n // 2 + 1
        times = np.full((half, 1), 2.0)
        times[0] = 1
        if n % 2 == 0:
            times[-1] = 1
        real = dot(given.real, times * cos[:half] / n)
        return g.elementwise("Sub", real, dot(given.imag, times * sin[:half] / n))
    if kind == "IFFT":
        cos, sin = cos / n, -sin / n
    # (re + i im)(cos - i sin)
    return Pair(
        g.elementwise("Add", dot(given.real, cos), dot(given.imag, sin)),
        g.elementwise("Sub", dot(given.imag, cos), dot(given.real, sin)),
    )


_ONE: dict[str, Callable[[Graph, Pair], Any]] = {
    "real": lambda g, a: a.real,
    "imag": lambda g, a: a.imag,
    "conj": _conjugate,
    "neg": _negative,
    "exp": _exponential,
    "abs": lambda g, a: g.elementwise("Sqrt", _size2(g, a)),
    "square": lambda g, a: _multiply(g, a, a),
    "copy": lambda g, a: a,
    "stop_gradient": lambda g, a: a,
}
_TWO: dict[str, Binary] = {
    "add": _map("Add"),
    "sub": _map("Sub"),
    "mul": _multiply,
    "div": _divide,
}
