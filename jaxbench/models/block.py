"""One layer: norms, residuals and dropout round a mixer and a channel mixer."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.gated_mlp import GLU, MLP
from jaxbench.layers.norms import norm
from jaxbench.models.backbone import Layer

CHANNELS = {"mlp": MLP, "glu": GLU}

# Fields of a mixer that the stack fills in; the others are the user's options.
GIVEN = frozenset({"width", "dtype", "out_scale", "parent", "name"})


class Block(nn.Module):
    """x + mixer(norm(x)), then x + channel(norm(x)); dropout on both branches.

    Pre-norm residual block (Xiong et al. 2020, arXiv:2002.04745). The last projection
    of each branch starts `1 / sqrt(branches)` times smaller than usual, so the
    variance of the residual stream does not grow with depth (Radford et al. 2019,
    section 2.3); a mixer takes part by declaring the field `out_scale`. A layer that
    is not residual is the same without the sums.

    Attributes:
      layer: what to build, from `models.backbone`.
      width: model width D.
      dtype: compute type; parameters, norms' statistics and states are float32.
      dropout: rate on the branches, on exactly when the rng stream "dropout" is given.
      branches: residual branches in the whole stack.
    """

    layer: Layer
    width: int
    dtype: Any = jnp.float32
    dropout: float = 0.0
    branches: int = 1

    def setup(self) -> None:
        layer = self.layer
        scale = self.branches**-0.5 if layer.residual else 1.0
        mixer = mixer_class(layer)
        given = {"out_scale": scale} if "out_scale" in field_names(mixer) else {}
        self.mixer_norm = norm(layer.norm, self.dtype)
        self.mixer = mixer(self.width, self.dtype, **given, **dict(layer.options))
        self.drop = nn.Dropout(self.dropout)
        if layer.channel != "none":
            self.channel_norm = norm(layer.norm, self.dtype)
            self.channel = CHANNELS[layer.channel](
                self.width, self.dtype, out_scale=scale
            )

    def __call__(
        self,
        x_btd: jax.Array,
        state: Any = None,
        reset_bt: jax.Array | None = None,
        last_only: bool = False,
    ) -> tuple[jax.Array, Any]:
        """Runs the layer; with `last_only` it returns the last frame, [B, 1, D].

        The mixer sees every frame either way; what follows it works frame by frame,
        so the last frame and the state are the same as without `last_only`.
        """
        y_btd = x_btd if self.mixer_norm is None else self.mixer_norm(x_btd)
        y_btd, state = self.mixer(y_btd, state, reset_bt)
        if last_only:
            x_btd, y_btd = x_btd[:, -1:], y_btd[:, -1:]
        x_btd = self._add(x_btd, y_btd)
        if self.layer.channel != "none":
            y_btd = x_btd if self.channel_norm is None else self.channel_norm(x_btd)
            x_btd = self._add(x_btd, self.channel(y_btd))
        return x_btd, state

    def initial_state(self, batch_size: int) -> Any:
        """Returns the state an episode starts from: the mixer's."""
        return self.mixer.initial_state(batch_size)

    def _add(self, x_btd: jax.Array, y_btd: jax.Array) -> jax.Array:
        y_btd = self.drop(y_btd, deterministic=not self.has_rng("dropout"))
        # The stream keeps the type the encoder gave it.
        y_btd = y_btd.astype(x_btd.dtype)
        return x_btd + y_btd if self.layer.residual else y_btd


def mixer_class(layer: Layer) -> type[nn.Module]:
    """Imports the mixer a layer names."""
    file, name = layer.mixer.split(":")
    return getattr(importlib.import_module(f"jaxbench.mixers.{file}"), name)


def field_names(module: type[nn.Module]) -> list[str]:
    """Lists the dataclass fields of a linen module class."""
    return [field.name for field in dataclasses.fields(module)]
