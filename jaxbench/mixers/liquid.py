"""Liquid networks: neurons whose time constants depend on the input and the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.inits import (
    lecun,
    orthogonal_gates,
    softplus_inverse_log_uniform,
    symmetric_uniform,
)
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.cell import cell_scan

# Frames whose steps of the solver are kept for the backward pass.
_BLOCK = 64

# Butcher tableaux of the explicit solvers: rows of a, then the weights b. Steps have a
# fixed size, so the order is that of b; an adaptive solver would take another number of
# steps for each sequence of a batch, and compile and stream as none of the rows do.
TABLEAUX: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": (((),), (1.0,)),
    "midpoint": (((), (1 / 2,)), (0.0, 1.0)),
    "rk4": (
        ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
    # Dormand & Prince 1980, the solution of order 5.
    "dopri5": (
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
}
SOLVERS = ("fused", *TABLEAUX)


class LiquidState(NamedTuple):
    """The neurons, float32; they are the output of the previous frame."""

    h_bd: jax.Array


class CfC(Mixer):
    """Closed-form continuous-time network.

    Equations:
      z_t = tanh(W x_t + R h_{t-1} + b)
      g, k = tanh(W' z_t + b');  s = sigmoid(W' z_t + b')
      h_t = (1 - s) g + s k
      output  h

    Source: Hasani et al. 2021, arXiv:2106.13898, the final form.

    Differences:
      - Frames are evenly spaced, so the time in the gate is 1 and part of its weights.
      - The shared backbone has one layer, and there is no output projection.

    Attributes:
      backbone_width: width of z.
    """

    backbone_width: int = 128

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D K) work for a backbone of width K."""
        size = self.backbone_width
        input_btk = self.dense(size, "project", bias=True)(x_btd)
        recurrent = self.param("recurrent", lecun(), (self.width, size))
        heads = self.param("heads", lecun(), (size, 3 * self.width))
        bias = self.param("heads_bias", nn.initializers.zeros, (3 * self.width,))
        recurrent, heads = recurrent.astype(self.dtype), heads.astype(self.dtype)

        def cell(state, input_bk):
            z_bk = jnp.tanh(input_bk + _product(state.h_bd, recurrent))
            g, k, s = jnp.split(_product(z_bk, heads) + bias[None], 3, axis=-1)
            s = jax.nn.sigmoid(s)
            # h_t = (1 - s) g + s k
            h_bd = (1 - s) * jnp.tanh(g) + s * jnp.tanh(k)
            return LiquidState(h_bd), h_bd

        y_btd, state = cell_scan(
            cell,
            input_btk.astype(jnp.float32),
            state,
            self.initial_state(x_btd.shape[0]),
            reset_bt,
        )
        return y_btd.astype(self.dtype), state

    def check(self):
        self.at_least(1, "backbone_width")

    def state_shapes(self):
        return LiquidState((self.width,))


class LTC(Mixer):
    """Liquid time-constant network, solved by a fixed number of steps a frame.

    Equations:
      dh/dt = -(1/τ + f) h + f A,  f = sigmoid(W x + R h + μ)
      K steps a frame, fused:  h = (h + f A / K) / (1 + (1/τ + f) / K)
      output  h

    Fused steps are stable for every τ > 0 and f >= 0, and |h| stays below the larger of
    |A| and its start. τ = softplus(p). Explicit ones are of order 1, 2, 4 and 5.

    Source: Hasani et al. 2020, arXiv:2006.04439, eq. 1 and 3.

    Differences:
      - f is a sigmoid, as in the authors' code, which keeps it positive.
      - Time is counted in frames, and τ starts between 1 and 30 of them.
      - There is no output projection.
      - The solver `dopri5` takes steps of a fixed size, without error control.

    Attributes:
      unfolds: K, steps of the solver in a frame.
      solver: "fused", or an explicit one: "euler", "midpoint", "rk4" or "dopri5".
    """

    unfolds: int = 6
    solver: str = "fused"

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T K D^2) work, T K steps one by one."""
        step = 1 / self.unfolds
        input_btd = self.dense(self.width, "project", bias=True)(x_btd)
        recurrent = self.param("recurrent", orthogonal_gates, (self.width, self.width))
        recurrent = recurrent.astype(self.dtype)
        tau_init = softplus_inverse_log_uniform(1.0, 30.0)
        tau_d = jax.nn.softplus(self.param("ssm_tau", tau_init, (self.width,)))
        target_d = self.param("target", symmetric_uniform(1.0), (self.width,))

        def cell(state, input_bd):
            def terms(h_bd):
                """f A and 1/τ + f, of which eq. 1 is h' = f A - (1/τ + f) h."""
                f_bd = jax.nn.sigmoid(input_bd + _product(h_bd, recurrent))
                return f_bd * target_d[None], 1 / tau_d[None] + f_bd

            def slope(h_bd):
                pull_bd, rate_bd = terms(h_bd)
                return pull_bd - rate_bd * h_bd

            def unfold(h_bd, _):
                if self.solver != "fused":
                    moved_bd = step * _increment(self.solver, slope, h_bd, step)
                    return h_bd + moved_bd, None
                # Eq. 3: h = (h + f A / K) / (1 + (1/τ + f) / K)
                pull_bd, rate_bd = terms(h_bd)
                return (h_bd + step * pull_bd) / (1 + step * rate_bd), None

            h_bd, _ = jax.lax.scan(unfold, state.h_bd, length=self.unfolds)
            return LiquidState(h_bd), h_bd

        y_btd, state = cell_scan(
            cell,
            input_btd.astype(jnp.float32),
            state,
            self.initial_state(x_btd.shape[0]),
            reset_bt,
            block=_BLOCK,
        )
        return y_btd.astype(self.dtype), state

    def check(self):
        self.at_least(1, "unfolds")
        if self.solver not in SOLVERS:
            raise InputError(
                f"solver={self.solver!r} is unknown; nearest: "
                f"{nearest(self.solver, SOLVERS)}"
            )

    def state_shapes(self):
        return LiquidState((self.width,))


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel in the kernel's dtype, summed and returned in float32."""
    return jnp.matmul(
        x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
    )


def _increment(
    solver: str, slope: Callable[[jax.Array], jax.Array], h: jax.Array, step: float
) -> jax.Array:
    """Σ b_i k_i with k_i = slope(h + step Σ a_ij k_j), an explicit Runge-Kutta step."""
    rows, weights = TABLEAUX[solver]
    slopes: list[jax.Array] = []
    for row in rows:
        moved = sum((a * k for a, k in zip(row, slopes, strict=True) if a), 0.0)
        slopes.append(slope(h + step * moved))
    return sum(b * k for b, k in zip(weights, slopes, strict=True) if b)
