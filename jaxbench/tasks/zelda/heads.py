"""From the backbone's output to a controller: 81 logits in six groups.

Every group is Dense(64) - ReLU - Dense(classes), the shoulder's hidden layer is 32
wide. Both heads give the same dictionary of float32 logits: buttons [..., 8], main_x,
main_y, c_x, c_y [..., 17], shoulder [..., 5].
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda import controller, encoder

HIDDEN = dict.fromkeys(controller.COMPONENTS, 64) | {"shoulder": 32}
Logits = dict[str, jax.Array]


class IndependentHead(nn.Module):
    """All groups in parallel from h, as in the benchmark.

    Attributes:
      dtype: compute type of the products; logits are float32.
    """

    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.hidden, self.out = _layers(self.dtype)

    def __call__(self, h_btd: jax.Array, batch: Batch | None = None) -> Logits:
        """Logits of every group; the batch is not read."""
        del batch
        return {
            name: _group(self.hidden[name], self.out[name], h_btd)
            for name in controller.COMPONENTS
        }

    def sample(
        self, h_btd: jax.Array, key: jax.Array, temperature: float = 1.0
    ) -> jax.Array:
        """Draws controllers, int32 [B, T, 6]; temperature 0 takes the likeliest."""
        logits = self(h_btd)
        keys = jax.random.split(key, len(controller.COMPONENTS))
        drawn = [
            choose(name, logits[name], keys[i], temperature)
            for i, name in enumerate(controller.COMPONENTS)
        ]
        return jnp.stack(drawn, axis=-1)


class AutoregressiveHead(nn.Module):
    """Each group sees h and the groups before it: p(a | h) = prod_i p(a_i | a_<i, h).

    The order is buttons, main_x, main_y, c_x, c_y, shoulder. Buttons enter as bits,
    the others as one-hot vectors, concatenated to h. Training reads the true groups
    from `batch["target_bta"]` (teacher forcing), `sample` its own.

    Attributes:
      dtype: compute type of the products; logits are float32.
    """

    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.hidden, self.out = _layers(self.dtype)

    def __call__(self, h_btd: jax.Array, batch: Batch) -> Logits:
        """Logits of every group given the true groups before it."""
        labels = batch["target_bta"]
        return {
            name: self._conditional(i, h_btd, labels)
            for i, name in enumerate(controller.COMPONENTS)
        }

    def sample(
        self, h_btd: jax.Array, key: jax.Array, temperature: float = 1.0
    ) -> jax.Array:
        """Draws controllers group by group, int32 [B, T, 6]; 0 takes the likeliest.

        With temperature 0 it is the greedy choice per group, which need not be the
        likeliest whole controller.
        """
        keys = jax.random.split(key, len(controller.COMPONENTS))
        labels = jnp.zeros((*h_btd.shape[:-1], len(controller.COMPONENTS)), jnp.int32)
        for i, name in enumerate(controller.COMPONENTS):
            logits = self._conditional(i, h_btd, labels)
            labels = labels.at[..., i].set(choose(name, logits, keys[i], temperature))
        return labels

    def _conditional(self, i: int, h_btd: jax.Array, labels: jax.Array) -> jax.Array:
        name = controller.COMPONENTS[i]
        if i > 0:
            before = encoder.spread(labels, i).astype(h_btd.dtype)
            h_btd = jnp.concatenate([h_btd, before], axis=-1)
        return _group(self.hidden[name], self.out[name], h_btd)


HEADS = {"independent": IndependentHead, "autoregressive": AutoregressiveHead}


def choose(
    name: str, logits: jax.Array, key: jax.Array, temperature: float
) -> jax.Array:
    """Draws one group's labels from its logits, int32 of the logits' leading shape."""
    if temperature < 0:
        raise ValueError(f"temperature {temperature} is below 0")
    if name == "buttons":
        threshold = jnp.zeros(logits.shape)
        if temperature > 0:
            threshold = jax.random.logistic(key, logits.shape) * temperature
        weights = 2 ** jnp.arange(len(controller.BUTTONS))
        pressed = (logits > threshold).astype(jnp.int32)
        return (pressed @ weights).astype(jnp.int32)
    if temperature > 0:
        return jax.random.categorical(key, logits / temperature).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _layers(dtype: jnp.dtype) -> tuple[dict[str, nn.Dense], dict[str, nn.Dense]]:
    hidden = {name: nn.Dense(width, dtype=dtype) for name, width in HIDDEN.items()}
    out = {
        name: nn.Dense(classes, dtype=dtype)
        for name, classes in controller.CLASSES.items()
    }
    return hidden, out


def _group(hidden: nn.Dense, out: nn.Dense, x: jax.Array) -> jax.Array:
    return out(nn.relu(hidden(x))).astype(jnp.float32)
