"""Bayesian network: a distribution over weights instead of weights."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import Initializer, lecun
from jaxbench.layers.mixer import Mixer

INITIAL_RHO = -5.0


class BayesianDense(nn.Module):
    """y = x W + b with every weight from its own N(mean, softplus(rho)^2).

    With the rng stream "noise" y is drawn from the distribution that the weights give
    it, N(x mean_W + mean_b, x^2 sigma_W^2 + sigma_b^2), independently for each frame
    (Kingma et al. 2015, arXiv:1506.02557, eq. 6); without, the weights are their means.

    Attributes:
      features: O.
      prior_sigma: of the prior N(0, prior_sigma^2) of every weight.
      dtype: type of the matmuls; sigma, noise and divergence are float32.
      kernel_init: of the kernel's mean.
    """

    features: int
    prior_sigma: float
    dtype: Any = jnp.float32
    kernel_init: Initializer = lecun()

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps [..., D] to float32 [..., O]; returns the divergence from the prior too.

        The divergence is KL(q || prior) in nats, summed over all weights.
        """
        inputs, outputs = x_btd.shape[-1], self.features
        rho_init = nn.initializers.constant(INITIAL_RHO)
        kernel = self.param("kernel", self.kernel_init, (inputs, outputs))
        bias = self.param("bias", nn.initializers.zeros, (outputs,))
        # One axis each: parameters without weight decay, which would widen sigma.
        kernel_rho = self.param("kernel_rho", rho_init, (inputs * outputs,))
        bias_rho = self.param("bias_rho", rho_init, (outputs,))
        kernel_rho = kernel_rho.reshape(inputs, outputs)
        divergence = self._divergence(kernel, kernel_rho)
        divergence += self._divergence(bias, bias_rho)
        bias = bias.reshape((1,) * (x_btd.ndim - 1) + (-1,))
        y_bto = self._product(x_btd, kernel) + bias
        if self.has_rng("noise"):
            variance = self._product(
                jnp.square(x_btd), jnp.square(jax.nn.softplus(kernel_rho))
            )
            bias_sigma = jax.nn.softplus(bias_rho).reshape(bias.shape)
            # The root has no slope at 0.
            sigma = jnp.sqrt(variance + jnp.square(bias_sigma) + 1e-8)
            y_bto += sigma * jax.random.normal(self.make_rng("noise"), y_bto.shape)
        return y_bto, divergence

    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.matmul(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            preferred_element_type=jnp.float32,
        )

    def _divergence(self, mean: jax.Array, rho: jax.Array) -> jax.Array:
        """Sum of log(s / sigma) + (sigma^2 + mean^2) / (2 s^2) - 1/2, s the prior's."""
        square = jnp.square(jax.nn.softplus(rho)) + jnp.square(mean)
        return jnp.sum(
            math.log(self.prior_sigma)
            - _log_softplus(rho)
            + square / (2 * self.prior_sigma**2)
            - 0.5
        )


class BayesianMLP(Mixer):
    """Two layers with a distribution over weights, each frame by itself.

    Equations:
      every weight ~ N(mean, softplus(ρ)²);  output  W_2 ReLU(W_1 x + b_1) + b_2
      loss += kl_weight * KL(weights || N(0, prior_sigma²))

    The rng stream "noise" switches sampling on, as in training; without it the weights
    are their means. To predict with S samples, apply the model S times with
    `rngs={"noise": key_s}`, S different keys, and average the probabilities of the
    heads: their entropy is the total uncertainty, and its excess over the mean entropy
    of the samples is the weights' part. Frames of one call have independent weights,
    which is right for the loss and for every frame by itself, not for joint samples.

    `kl_weight * KL(q || prior)` is sown into "losses", once for shared layers, and the
    divergence in nats into "metrics" as `divergence`. The paper's weight, for a loss
    that is a mean over examples, is 1 / (number of training examples); the default 1e-6
    stands for a million.

    Source: Blundell et al. 2015, arXiv:1505.05424 (Bayes by backprop), with the local
    reparameterisation of Kingma et al. 2015, arXiv:1506.02557.

    Differences:
      - The prior is one Gaussian, so that its divergence has a closed form, instead of
        a sampled mixture of two.
      - Sums are drawn instead of weights, by the local reparameterisation (Kingma and
        others 2015, arXiv:1506.02557).

    Attributes:
      prior_sigma: standard deviation of the prior; 0.1 to 1 is usual.
      kl_weight: factor on the divergence in the loss.
    """

    prior_sigma: float = 0.1
    kl_weight: float = 1e-6

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; there is no state and nothing to reset.

        Sampling makes twice the matmuls of the mean.
        """
        hidden = BayesianDense(self.width, self.prior_sigma, self.dtype, name="in")
        init = lecun(self.out_scale)
        out = BayesianDense(self.width, self.prior_sigma, self.dtype, init, name="out")
        h_btd, hidden_divergence = hidden(x_btd)
        y_btd, out_divergence = out(nn.relu(h_btd))
        if not self.is_initializing():
            divergence = hidden_divergence + out_divergence
            self._sow("losses", "divergence", self.kl_weight * divergence)
            self._sow("metrics", "divergence", divergence)
        return y_btd.astype(self.dtype), ()

    def _sow(self, collection: str, name: str, value: jax.Array) -> None:
        """Sows so that weights used twice, by shared layers, count once."""
        self.sow(
            collection,
            name,
            value,
            init_fn=lambda: jnp.float32(0),
            reduce_fn=lambda _, new: new,
        )

    def check(self):
        if not self.prior_sigma > 0:
            raise InputError(
                f"prior_sigma={self.prior_sigma} of bayesian must be above 0; 0.1 to 1 "
                f"is usual"
            )
        if not self.kl_weight >= 0:
            raise InputError(
                f"kl_weight={self.kl_weight} of bayesian must not be below 0; the "
                f"usual value is 1 / (number of training examples)"
            )


def _log_softplus(rho: jax.Array) -> jax.Array:
    """log softplus(rho), also where softplus(rho) = exp(rho) is too small to hold."""
    small = rho < -15
    return jnp.where(
        small, rho, jnp.log(jax.nn.softplus(jnp.where(small, jnp.float32(0), rho)))
    )
