"""The diagonal rows of E74: a vector of 96 numbers where E74 has a matrix.

Sixteen rows: two updates, four sets of projections, a tanh or none. The source is the
repository ekg/elman (2026), whose fused kernel did not do what was meant: keys were not
normalised, queries were projected and not used, and no gradient reached the cell. Each
mixer has the field `cured`: false computes what that kernel computed, but for the
gradients, which are real in both forms.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import lecun
from jaxbench.layers.ladder import self_gate, xavier
from jaxbench.layers.matrix_memory import MatrixMemory
from jaxbench.layers.norms import l2_normalize
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.elementwise_cell import tanh_diagonal

# What the projections are: which of k, v, q come from a matrix of their own, and
# whether there is a fourth, z.
PROJECTIONS = ("tiedkvq", "tiedkq", "noz", "full")

# What the simple update keeps of the last frame.
_KEPT = 0.9


class DiagonalState(NamedTuple):
    """One number for each key channel, float32."""

    s_bn: jax.Array


class _Options(MatrixMemory):
    expansion: int = 2
    state_size: int = 96
    delta: bool = True
    projections: str = "full"
    cured: bool = True


class _Terms(_Options):
    """Factor, addition and read-out of every frame, float32 [B, T, n] each."""

    @nn.compact
    def __call__(self, x_btd):
        if self.projections not in PROJECTIONS:
            raise InputError(
                f"projections={self.projections!r} must be one of "
                f"{', '.join(PROJECTIONS)}"
            )
        init = xavier() if self.cured else nn.initializers.normal(0.02)
        x_bte = self.dense(self.expansion * self.width, "inner", init=init)(x_btd)

        def project(name: str) -> jax.Array:
            return self.project(x_bte, name)[:, :, 0]

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


class _Diagonal(_Options):
    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2) work."""
        (s_bn,) = state or (None,)
        a, b, read = _Terms(
            self.width,
            self.dtype,
            expansion=self.expansion,
            state_size=self.state_size,
            delta=self.delta,
            projections=self.projections,
            cured=self.cured,
            name="terms",
        )(x_btd)
        s_btn, s_bn = self.recur(a, b, s_bn, reset_bt)
        normal = nn.initializers.normal(0.02 * self.out_scale)
        init = lecun(self.out_scale) if self.cured else normal
        out = self.dense(self.width, "out", init=init)
        return out(self_gate(s_btn * read)), DiagonalState(s_bn)

    def state_shapes(self):
        self.at_least(1, "state_size")
        return DiagonalState((self.state_size,))


class LinearDiagonal(_Diagonal):
    """s_t = (1 - z k^2) s_{t-1} + v k, or 0.9 s_{t-1} + v k;  o = s_t q.

    x = W_in u;  k, v, q, z = W x;  output W_out SG(o), SG(o) = o SiLU(o). Cured: k of
    length 1 over the n channels, so that 1 - z k^2 is in [0, 1]; z = sigmoid(W_z x)
    weakens what the delta update looks up, or what the simple update reads; z = 1
    without that projection; W_in Xavier-uniform. Uncured: k as projected, o = s, z = 1,
    W_z and an own W_q computed and not used, W_in and W_out normal with deviation 0.02:
    a fifth of the k have k^2 > 2 and the state overflows.

    Attributes:
      expansion: width of x over model width.
      state_size: n.
      delta: the update with 1 - z k^2; false: the one with 0.9.
      projections: "tiedkvq" one matrix for k, v and q; "tiedkq" one for k and q, one
        for v; "noz" one each; "full" one each and one for z.
      cured: false: what the source's kernel computed.
    """

    def recur(self, a, b, s_bn, reset_bt):
        """All frames at once."""
        return diagonal(a, b, s_bn, reset_bt)


class TanhDiagonal(_Diagonal):
    """s_t = tanh((1 - z k^2) s_{t-1} + v k), or tanh(0.9 s_{t-1} + v k);  o = s_t q.

    The rest, cured and not, as in `LinearDiagonal`; the tanh keeps the uncured state
    from overflowing.

    Attributes:
      expansion: width of x over model width.
      state_size: n.
      delta: the update with 1 - z k^2; false: the one with 0.9.
      projections: "tiedkvq" one matrix for k, v and q; "tiedkq" one for k and q, one
        for v; "noz" one each; "full" one each and one for z.
      cured: false: what the source's kernel computed.
    """

    def recur(self, a, b, s_bn, reset_bt):
        """T steps one by one."""
        return tanh_diagonal(a, b, s_bn, reset_bt)
