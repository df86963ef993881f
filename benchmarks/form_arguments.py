"""What the primitives are given when `forms.py` times them: as in a training step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from jaxbench.ops.hippo import hippo_legs_nplr

HEADS = 4


class Shape(NamedTuple):
    """What is timed, and up to which length it speaks for others.

    Attributes:
      batch, length, width: B, T and D.
      max_length: of the row; None is any length.
    """

    batch: int
    length: int
    width: int
    max_length: int | None


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _complex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (_normal(rng, *shape) + 1j * _normal(rng, *shape)).astype(np.complex64)


def _decay(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0.9, 0.999, shape).astype(np.float32)


def diagonal(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Decay and input of `ops.diagonal`, real."""
    size = shape[:3]
    return _decay(rng, *size), _normal(rng, *size)


def selective_scan(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arguments of `ops.selective_scan`: inner width 2 D, 16 states."""
    batch, length, width, _ = shape
    inner, states = 2 * width, 16
    step = rng.uniform(1e-3, 1e-1, (batch, length, inner)).astype(np.float32)
    rate = np.tile(-np.arange(1, states + 1, dtype=np.float32), (inner, 1))
    rows = (_normal(rng, batch, length, states) for _ in range(2))
    return _normal(rng, batch, length, inner), step, rate, *rows, _normal(rng, inner)


def lstm(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Gates and recurrent kernel of `ops.cell.lstm_scan`."""
    batch, length, width, _ = shape
    kernel = _normal(rng, width, 4 * width) / width**0.5
    return _normal(rng, batch, length, 4 * width), kernel


def gru(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Gates, recurrent kernel and inner bias of `ops.cell.gru_scan`."""
    batch, length, width, _ = shape
    kernel = _normal(rng, width, 3 * width) / width**0.5
    return _normal(rng, batch, length, 3 * width), kernel, _normal(rng, width)


def dense_cell(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Input, recurrent matrix and gate of `ops.dense_cell`: half an orthogonal one."""
    batch, length, width, _ = shape
    kernel = 0.5 * np.linalg.qr(_normal(rng, width, width))[0]
    keep = rng.uniform(0.7, 0.95, (batch, length, width)).astype(np.float32)
    return _normal(rng, batch, length, width), kernel, keep


def dense_linear(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Input and matrix of `ops.dense_linear`, of norm 0.999."""
    batch, length, width, _ = shape
    kernel = 0.999 * np.linalg.qr(_normal(rng, width, width))[0]
    return _normal(rng, batch, length, width), kernel.astype(np.float32)


def elementwise_cell(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Input, weight on the state and gate of the ladder's E65."""
    batch, length, width, _ = shape
    keep = rng.uniform(0.7, 0.95, (batch, length, width)).astype(np.float32)
    weight = np.full(width, 0.5, np.float32)
    return _normal(rng, batch, length, width), weight, keep


def convolution(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Input and a kernel as long, of `ops.convolution`."""
    batch, length, width, _ = shape
    return _normal(rng, batch, length, width), _normal(rng, length, width) / length


def _steps(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    log_dt = rng.uniform(np.log(1e-3), np.log(1e-1), shape.width)
    return log_dt.astype(np.float32)


def diagonal_ssm(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arguments of `ops.lti.diagonal_ssm`: S4D-Lin with 64 states."""
    batch, length, width, _ = shape
    half = 32
    a_dn = np.tile(-0.5 + 1j * np.pi * np.arange(half), (width, 1))
    return (
        _normal(rng, batch, length, width),
        _steps(shape, rng),
        a_dn.astype(np.complex64),
        np.ones((width, half), np.complex64),
        _complex(rng, width, half),
        _normal(rng, width),
    )


def dplr_ssm(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arguments of `ops.lti.dplr_ssm`: S4 with 64 states."""
    batch, length, width, _ = shape
    rows = (np.tile(row, (width, 1)) for row in hippo_legs_nplr(64)[:3])
    return (
        _normal(rng, batch, length, width),
        _steps(shape, rng),
        *(row.astype(np.complex64) for row in rows),
        _complex(rng, width, 32),
        _normal(rng, width),
    )


def _heads(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    batch, length, width, _ = shape
    x = _normal(rng, batch, length, HEADS, width // HEADS)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def gated_linear(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Queries, keys, values and one decay for a head."""
    q, k, v = (_heads(shape, rng) for _ in range(3))
    return q, k, v, np.log(_decay(rng, *k.shape[:3]))


def gated_linear_keys(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Queries, keys, values and one decay for a key."""
    q, k, v = (_heads(shape, rng) for _ in range(3))
    return q, k, v, np.log(_decay(rng, *k.shape))


def delta_rule(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arguments of `ops.delta_rule` with one decay for a head."""
    q, k, v, log_decay = gated_linear(shape, rng)
    return q, 0.5 * k, v, log_decay, -k, 0.5 * k


def delta_rule_keys(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arguments of `ops.delta_rule` with one decay for a key."""
    q, k, v, log_decay = gated_linear_keys(shape, rng)
    return q, 0.5 * k, v, log_decay, -k, 0.5 * k
