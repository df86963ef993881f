"""The Elman ladder where every channel of the state sees all: E1, E42, E56, E63, E66.

The old state goes through a matrix (E1H: one for each head). Inside a tanh the frames
come one after the other (`ops.dense_cell`); without it (E42) the recurrence is linear
and all frames are computed at once (`ops.dense_linear`). The products with the input
are made for all frames before.

Source of all: repository ekg/elman, 2026. Differences of all: gates and states are
float32, where the source stored them in bfloat16; and power iterations for a spectral
norm start from a fixed direction (`layers.spectral`), where the source carried it along
as it trained.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.ladder import Ladder, xavier, xavier_square
from jaxbench.layers.spectral import first_direction, spectral_normalize
from jaxbench.ops.dense_cell import block_product, dense_cell
from jaxbench.ops.dense_linear import dense_linear

# Channels of a head of E1H where no number of heads is asked for.
_HEAD = 64
# Power iterations a call. The source made 3, from where its last call ended.
_ITERATIONS = 8


class E1(Ladder):
    """The Elman network with a bounded recurrent matrix, and a gate on its output.

    Equations:
      [x~, z] = W_in u;  x = SiLU(x~);  |W~_h|_2 = 0.99
      h_t = tanh(W_x x + W~_h h_{t-1} + b)
      output  W_out (h * SiLU(z))

    Source: ekg/elman, E1, after Elman 1990. W_h starts Xavier-uniform times 1/10 and is
    scaled to its norm at every call, upwards too.

    Attributes:
      expansion: width E of the state over model width.
      spectral_norm: largest singular value of the recurrent matrix, positive.
    """

    spectral_norm: float = 0.99
    gated = True

    def recur(self, x_bte, h_be, reset_bt):
        inner = self.inner()
        into = self.dense(inner, "input", bias=True, init=xavier_square)
        kernels = (_bounded(self, (inner, inner)),)
        return dense_cell(into(x_bte), kernels, None, h_be, reset_bt)


class E1H(Ladder):
    """E1 with heads: blocks on the diagonal instead of one recurrent matrix.

    Equations:
      [x~, z] = W_in u;  x = SiLU(x~);  |W~_h|_2 = 0.99 for each head
      h_t = tanh(W_x x + W~_h h_{t-1} + b) inside each head
      output  W_out (h * SiLU(z))

    Source: ekg/elman, E1H.

    Attributes:
      expansion: width E of the state over model width.
      heads: H, divides E; 0 is as many as leave 64 channels or more to a head.
      spectral_norm: largest singular value of each block, positive.
    """

    heads: int = 0
    spectral_norm: float = 0.99
    gated = True

    def recur(self, x_bte, h_be, reset_bt):
        inner, heads = self.inner(), self._heads()
        shape = (heads, inner // heads, inner // heads)
        input_hnn = self.param("input", _blocks(xavier_square), shape)
        bias_e = self.vector("bias", 0.0)
        pre_bte = block_product(x_bte, input_hnn.astype(self.dtype))
        kernels = (_bounded(self, shape),)
        return dense_cell(pre_bte + bias_e[None, None], kernels, None, h_be, reset_bt)

    @nn.nowrap
    def _heads(self) -> int:
        inner = self.inner()
        if self.heads == 0:
            most = max(inner // _HEAD, 1)
            return max(h for h in range(1, most + 1) if inner % h == 0)
        if self.heads < 0 or inner % self.heads:
            raise InputError(
                f"heads={self.heads} must divide {inner}, the expansion times the width"
            )
        return self.heads


class E42(Ladder):
    """A linear Elman network whose one matrix takes the input and the old state.

    Equations:
      x = SiLU(W_in u);  |W~|_2 = 0.999
      h_t = W~ (x + h_{t-1}) + b
      output  W_out (h * SiLU(h))

    Linear and the same at every frame, so all frames can be computed at once, by
    doubling: twice the products of a scan, but large ones.

    Source: ekg/elman, E42. W starts Xavier-uniform times 1/10 and is scaled to its norm
    at every call, upwards too.

    Attributes:
      expansion: width E of the state over model width.
      spectral_norm: largest singular value of the matrix, positive; stable below 1.
    """

    spectral_norm: float = 0.999

    def recur(self, x_bte, h_be, reset_bt):
        w_ee = _bounded(self, (self.inner(), self.inner()))
        bias_e = self.vector("bias", 0.0)
        input_bte = block_product(x_bte, w_ee) + bias_e[None, None]
        return dense_linear(input_bte, w_ee, h_be, reset_bt)


class E56(Ladder):
    """The Elman network with one matrix over input and old state together.

    Equations:
      [x~, z] = W_in u;  x = SiLU(x~)
      h_t = tanh(W [x; h_{t-1}] + b)
      output  W_out (h * SiLU(z))

    Source: ekg/elman, E56. W is Xavier-uniform as the [E, 2 E] matrix it is, and its
    norm is free.

    Attributes:
      expansion: width E of the state over model width.
    """

    gated = True

    def recur(self, x_bte, h_be, reset_bt):
        inner = self.inner()
        joint = self.param("recurrent", xavier(), (2 * inner, inner))
        into_ee, w_ee = jnp.split(joint.astype(self.dtype), 2)
        pre_bte = block_product(x_bte, into_ee) + self.vector("bias", 0.0)[None, None]
        return dense_cell(pre_bte, (w_ee,), None, h_be, reset_bt)


class E63(Ladder):
    """A gated average whose candidate sees the whole old state through a matrix.

    Equations:
      x = SiLU(W_in u);  α = sigmoid(W_a x + b_a);  v = tanh(W_h h_{t-1} + W_x x + b)
      h_t = α h_{t-1} + (1 - α) v
      output  W_out (h * SiLU(h))

    Source: ekg/elman, E63. W_h starts as half an orthogonal matrix, b_a at 2.

    Attributes:
      expansion: width E of the state over model width.
    """

    def recur(self, x_bte, h_be, reset_bt):
        inner = self.inner()
        half = nn.initializers.orthogonal(0.5)
        kernels = (self.param("recurrent", half, (inner, inner)),)
        return _gated(self, x_bte, kernels, h_be, reset_bt)


class E66(Ladder):
    """E63 with a recurrent matrix of low rank.

    Equations:
      x = SiLU(W_in u);  α = sigmoid(W_a x + b_a);  v = tanh(U (V h_{t-1}) + W_x x + b)
      h_t = α h_{t-1} + (1 - α) v
      output  W_out (h * SiLU(h))

    Source: ekg/elman, E66. U and V start as halves of matrices with orthonormal columns
    or rows, b_a at 2.

    Attributes:
      expansion: width E of the state over model width.
      rank: of U V; 0 is E / 4.
    """

    rank: int = 0

    def recur(self, x_bte, h_be, reset_bt):
        inner = self.inner()
        if not 0 <= self.rank <= inner:
            raise InputError(
                f"rank={self.rank} must be at least 0 and at most {inner}, the "
                f"expansion times the width"
            )
        rank = self.rank or max(inner // 4, 1)
        half = nn.initializers.orthogonal(0.5)
        kernels = (
            self.param("recurrent_v", half, (inner, rank)),
            self.param("recurrent_u", half, (rank, inner)),
        )
        return _gated(self, x_bte, kernels, h_be, reset_bt)


def _gated(mixer: Ladder, x_bte, kernels: tuple, h_be, reset_bt):
    """Gate and candidate of E63 and E66."""
    gate_bte, x_bte = mixer.gates(x_bte, 2.0)
    kernels = tuple(kernel.astype(mixer.dtype) for kernel in kernels)
    return dense_cell(x_bte, kernels, nn.sigmoid(gate_bte), h_be, reset_bt)


def _bounded(module: nn.Module, shape: tuple[int, ...]) -> jax.Array:
    """A recurrent matrix, or blocks, of the module's spectral norm."""
    if module.spectral_norm <= 0:
        raise InputError(f"spectral_norm={module.spectral_norm} must be positive")

    def small(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return 0.1 * _blocks(xavier_square)(key, shape, dtype)

    w = module.param("recurrent", small, shape)
    # A buffer: where the power iterations start.
    direction = module.variable(
        "constants", "direction", lambda: first_direction(module.make_rng("params"), w)
    )
    w = spectral_normalize(
        w, direction.value, target=module.spectral_norm, iterations=_ITERATIONS
    )
    return w.astype(module.dtype)


def _blocks(init: Any) -> Any:
    """The initialiser of a matrix, for blocks [H, N, N] each by itself."""

    def of_blocks(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
        if len(shape) == 2:
            return init(key, shape, dtype)
        keys = jax.random.split(key, shape[0])
        return jnp.stack([init(k, shape[1:], dtype) for k in keys])

    return of_blocks
