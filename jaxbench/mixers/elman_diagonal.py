"""The diagonal rows of E74: a vector of 96 numbers where E74 has a matrix.

Sixteen rows: two updates, four sets of projections, a tanh or none. The source is the
repository ekg/elman (2026), whose fused kernel did not do what was meant: keys were not
normalised, queries were projected and not used, and no gradient reached the cell. Each
mixer has the field `cured`: false computes what that kernel computed, but for the
gradients, which are real in both forms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import lecun
from jaxbench.layers.ladder import self_gate, xavier
from jaxbench.layers.matrix_memory import project_heads
from jaxbench.layers.norms import l2_normalize
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.tanh_diagonal import tanh_diagonal

# What the projections are: which of k, v, q come from a matrix of their own, and
# whether there is a fourth, z.
PROJECTIONS = ("tiedkvq", "tiedkq", "noz", "full")

# What the simple update keeps of the last frame.
_KEPT = 0.9


class DiagonalState(NamedTuple):
    """What a diagonal memory carries.

    Attributes:
      s_bn: one number for each key channel, float32.
    """

    s_bn: jax.Array


class LinearDiagonal(nn.Module):
    """s_t = (1 - z k^2) s_{t-1} + v k, or 0.9 s_{t-1} + v k;  o = s_t q.

    x = W_in u;  k, v, q, z = W x;  output W_out SG(o), SG(o) = o SiLU(o). Cured: k of
    length 1 over the n channels, so that 1 - z k^2 is in [0, 1]; z = sigmoid(W_z x)
    weakens what the delta update looks up, or what the simple update reads; z = 1
    without that projection; W_in Xavier-uniform. Uncured: k as projected, o = s, z = 1,
    W_z and an own W_q computed and not used, W_in and W_out normal with deviation 0.02:
    a fifth of the k have k^2 > 2 and the state overflows.

    Attributes:
      width: model width D.
      dtype: type of the projections; factors and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      state_size: n.
      delta: the update with 1 - z k^2; false: the one with 0.9.
      projections: "tiedkvq" one matrix for k, v and q; "tiedkq" one for k and q, one
        for v; "noz" one each; "full" one each and one for z.
      cured: false: what the source's kernel computed.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    state_size: int = 96
    delta: bool = True
    projections: str = "full"
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: DiagonalState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, DiagonalState]:
        """Mixes [B, T, D] along time; O(T D^2) work, in parallel over frames."""
        a, b, read = _Terms(
            self.expansion * self.width,
            self.state_size,
            self.delta,
            self.projections,
            self.cured,
            self.dtype,
            name="terms",
        )(x_btd)
        s_btn, s_bn = diagonal(a, b, None if state is None else state.s_bn, reset_bt)
        out = _out(self.width, self.dtype, self.out_scale, self.cured)
        return out(self_gate(s_btn * read)), DiagonalState(s_bn)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> DiagonalState:
        """Returns zeros."""
        return _initial_state(batch_size, self.state_size)


class TanhDiagonal(nn.Module):
    """s_t = tanh((1 - z k^2) s_{t-1} + v k), or tanh(0.9 s_{t-1} + v k);  o = s_t q.

    The rest, cured and not, as in `LinearDiagonal`; the tanh keeps the uncured state
    from overflowing.

    Attributes:
      width: model width D.
      dtype: type of the projections; factors and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      state_size: n.
      delta: the update with 1 - z k^2; false: the one with 0.9.
      projections: "tiedkvq" one matrix for k, v and q; "tiedkq" one for k and q, one
        for v; "noz" one each; "full" one each and one for z.
      cured: false: what the source's kernel computed.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    state_size: int = 96
    delta: bool = True
    projections: str = "full"
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: DiagonalState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, DiagonalState]:
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one by one."""
        a, b, read = _Terms(
            self.expansion * self.width,
            self.state_size,
            self.delta,
            self.projections,
            self.cured,
            self.dtype,
            name="terms",
        )(x_btd)
        start = None if state is None else state.s_bn
        s_btn, s_bn = tanh_diagonal(a, b, start, reset_bt)
        out = _out(self.width, self.dtype, self.out_scale, self.cured)
        return out(self_gate(s_btn * read)), DiagonalState(s_bn)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> DiagonalState:
        """Returns zeros."""
        return _initial_state(batch_size, self.state_size)


class _Terms(nn.Module):
    """Factor, addition and read-out of every frame, float32 [B, T, n] each."""

    inner: int
    size: int
    delta: bool
    projections: str
    cured: bool
    dtype: Any

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        if self.projections not in PROJECTIONS:
            raise InputError(
                f"projections={self.projections!r} must be one of "
                f"{', '.join(PROJECTIONS)}"
            )
        init = xavier() if self.cured else nn.initializers.normal(0.02)
        dense = nn.Dense(
            self.inner, use_bias=False, dtype=self.dtype, kernel_init=init, name="inner"
        )
        x_bte = dense(x_btd)

        def project(name: str) -> jax.Array:
            return project_heads(x_bte, 1, self.size, self.dtype, name)[:, :, 0]

        k = project("key")
        v = k if self.projections == "tiedkvq" else project("value")
        q = k if self.projections.startswith("tied") else project("query")
        z = jnp.ones_like(k)
        if self.projections == "full":
            z = nn.sigmoid(project("gate"))
        if not self.cured:
            a = 1 - jnp.square(k) if self.delta else jnp.full_like(k, _KEPT)
            return a, v * k, jnp.ones_like(k)
        k = l2_normalize(k)
        if self.delta:
            return 1 - z * jnp.square(k), v * k, q
        return jnp.full_like(k, _KEPT), v * k, q * z


def _out(width: int, dtype: Any, scale: float, cured: bool) -> nn.Dense:
    init = lecun(scale) if cured else nn.initializers.normal(0.02 * scale)
    return nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name="out")


def _initial_state(batch_size: int, size: int) -> DiagonalState:
    if size < 1:
        raise InputError(f"state_size={size} must be at least 1")
    return DiagonalState(jnp.zeros((batch_size, size), jnp.float32))
