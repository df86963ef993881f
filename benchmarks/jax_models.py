"""Our side of `against_torch.py`: a stack of `build_stack` and its training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxbench.models.build import build_stack
from jaxbench.models.stack import Stack


class Classifier(nn.Module):
    """Dense, the stack, Dense on the last frame.

    Attributes:
      stack: from `build_stack`.
      classes: width of the logits.
    """

    stack: Stack
    classes: int

    @nn.compact
    def __call__(self, x_btf: jax.Array) -> jax.Array:
        """Maps [B, T, F] to logits [B, classes]."""
        x_btd = nn.Dense(self.stack.width, name="encoder")(x_btf)
        h_btd, _ = self.stack(x_btd, last_only=True)
        return nn.Dense(self.classes, name="head")(h_btd[:, 0])


class Trainer:
    """A model, its optimizer and one batch on the device.

    Args:
      backbone: a row of the zoo or a pattern.
      width, depth: of the stack.
      classes: width of the logits.
      x_btf, label_b: the batch, float32 and int.
      adamw: learning_rate, b1, b2, eps and weight_decay, for all parameters alike.
    """

    form = "jitted step, donated"

    def __init__(
        self,
        backbone: str,
        *,
        width: int,
        depth: int,
        classes: int,
        x_btf: np.ndarray,
        label_b: np.ndarray,
        adamw: Mapping[str, float],
    ):
        model = Classifier(build_stack(backbone, width=width, depth=depth), classes)
        optimizer = optax.adamw(**adamw)
        self._batch = (jnp.array(x_btf), jnp.array(label_b, jnp.int32))
        self._params = jax.jit(model.init)(jax.random.key(0), self._batch[0])["params"]
        self._optimizer_state = jax.jit(optimizer.init)(self._params)

        def loss_of(params: Any, x_btf: jax.Array, label_b: jax.Array) -> jax.Array:
            logits = model.apply({"params": params}, x_btf)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, label_b
            ).mean()

        def step(params: Any, state: Any, *batch: jax.Array) -> tuple[Any, ...]:
            loss, gradients = jax.value_and_grad(loss_of)(params, *batch)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        self._gradient = jax.jit(jax.value_and_grad(loss_of))
        # Compiled ahead of time, so nothing can compile again while it is timed.
        self._step = (
            jax.jit(step, donate_argnums=(0, 1))
            .lower(self._params, self._optimizer_state, *self._batch)
            .compile()
        )

    def temporaries(self) -> float:
        """Megabytes a step needs besides its arguments and results, as XLA has it."""
        return float(self._step.memory_analysis().temp_size_in_bytes / 1e6)

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies the parameters to the host, by path."""
        return _by_path(self._params)

    def loss_and_gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Computes the loss of the batch and its gradients, by path."""
        loss, gradients = self._gradient(self._params, *self._batch)
        return float(loss), _by_path(gradients)

    def run(self, steps: int) -> float:
        """Makes `steps` >= 1 updates and waits for them; returns the last one's loss.

        The loss is the one before that update.
        """
        for _ in range(steps):
            self._params, self._optimizer_state, loss = self._step(
                self._params, self._optimizer_state, *self._batch
            )
        jax.block_until_ready((self._params, self._optimizer_state))
        return float(loss)


def build(backbone: str, **arguments: Any) -> Trainer:
    """Builds a `Trainer`."""
    return Trainer(backbone, **arguments)


def device() -> tuple[str, str]:
    """Returns "cpu" or the kind of accelerator, and the name of the device."""
    first = jax.devices()[0]
    return first.platform, f"jax {jax.__version__} on {first.device_kind}"


def _by_path(tree: Any) -> dict[str, np.ndarray]:
    flat = flatten_dict(tree, sep="/")
    # A copy: donation may give the buffer that a view would show to someone else.
    return {name: np.array(leaf) for name, leaf in flat.items()}
