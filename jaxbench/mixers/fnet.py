"""FNet: a Fourier transform over frames and channels, nothing to learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.mixer import Mixer
from jaxbench.ops.attention import positions


class FNet(Mixer):
    """Fourier transforms of the frames of each episode and of the channels.

    Equations:
      y = Re(F_n F_D x) / sqrt(n D) = (C_n x C_D - S_n x S_D) / sqrt(n D)
      n frames of the episode, D channels, F = C - i S the discrete Fourier transform

    Four real matmuls, which are faster than an FFT at these sizes. Every frame of an
    episode sees all of them, later ones too. There are no parameters.

    Source: Lee-Thorp et al. 2021, arXiv:2105.03824, eq. 3.

    Differences:
      - The result is divided by sqrt(n D), so that it is as large as the input; the
        paper relies on the norm after the sum.
      - It stands in a pre-norm block; the paper's blocks have their norms after the
        sums.
    """

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] over all frames of an episode; O(T D (D + T)) work."""
        cos_btt, sin_btt = _time_matrices(reset_bt, x_btd.shape[1])
        cos_dd, sin_dd = _channel_matrices(self.width)
        with jax.default_matmul_precision("highest"):
            x_btd = x_btd.astype(jnp.float32)
            y_btd = jnp.matmul(cos_btt, x_btd @ cos_dd)
            y_btd = y_btd - jnp.matmul(sin_btt, x_btd @ sin_dd)
        return y_btd.astype(self.dtype), ()


def _channel_matrices(width: int) -> tuple[np.ndarray, np.ndarray]:
    """C_D and S_D over sqrt(D), [D, D] each."""
    index = np.arange(width)
    # The phase modulo the period before the sine: it keeps all digits.
    angle = 2 * np.pi / width * (index[:, None] * index[None] % width)
    size = width**-0.5
    return (size * np.cos(angle)).astype("f4"), (size * np.sin(angle)).astype("f4")


def _time_matrices(
    reset_bt: jax.Array | None, length: int
) -> tuple[jax.Array, jax.Array]:
    """C_n and S_n over sqrt(n), block by block along the diagonal, [B, T, T] each.

    Every episode has its own n; without resets the first axis is 1.
    """
    if reset_bt is None:
        reset_bt = jnp.zeros((1, length), bool)
    start_b = jnp.zeros((reset_bt.shape[0],), jnp.int32)
    position_bt, _ = positions(start_b, reset_bt, length)
    episode_bt = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
    same_btt = episode_bt[:, :, None] == episode_bt[:, None]
    count_bt1 = jnp.sum(same_btt, axis=2, keepdims=True)
    phase_btt = position_bt[:, :, None] * position_bt[:, None] % count_bt1
    size_bt1 = count_bt1.astype(jnp.float32)
    angle_btt = 2 * jnp.pi / size_bt1 * phase_btt.astype(jnp.float32)
    keep_btt = jnp.where(same_btt, jax.lax.rsqrt(size_bt1), 0)
    return keep_btt * jnp.cos(angle_btt), keep_btt * jnp.sin(angle_btt)
