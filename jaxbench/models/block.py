"""One layer: norms, residuals and dropout round a mixer and a channel mixer."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.norms import norm
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.models.backbone import Layer
from jaxbench.models.row import CHANNELS

# Fields of a mixer that the stack fills in; the others are the user's options.
GIVEN = frozenset({"width", "dtype", "out_scale", "layer", "layers", "parent", "name"})


class BlockState(NamedTuple):
    """What a layer carries.

    Attributes:
      mixer: state of the mixer.
      channel: state of the channel mixer, `()` for most.
      conv: last inputs of the short convolution before the mixer, float32 [B, 3, D],
        or `()` where there is none.
    """

    mixer: Any
    channel: Any
    conv: Any = ()


class Handed(NamedTuple):
    """What a layer hands to the one above it.

    Attributes:
      x_btd: the residual stream.
      side_bte: output of a layer with `join="next"`, for the layer above; else None.
      lower: what mixers hand up the stack by name, for the same frames.
    """

    x_btd: jax.Array
    side_bte: jax.Array | None
    lower: dict[str, jax.Array]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + channel(norm(x)); dropout on both branches.

    Pre-norm residual block (Xiong et al. 2020, arXiv:2002.04745). The last projection
    of each branch starts `1 / sqrt(branches)` times smaller than usual, so the
    variance of the residual stream does not grow with depth (Radford et al. 2019,
    section 2.3); a mixer takes part by declaring the field `out_scale`. A layer that
    replaces x is the same without the sums; one that joins the next leaves x as it is.

    A layer with `conv` gives its mixer y + SiLU(conv(y)) for y = norm(x), 4 taps for
    each channel, causal, no bias: any mixer then knows the frames just before, as Mamba
    and the delta rules do from the short convolution inside them.

    Attributes:
      layer: what to build, from `models.backbone`.
      width: model width D.
      dtype: compute type; parameters, norms' statistics and states are float32.
      dropout: rate on the branches, on exactly when the rng stream "dropout" is given.
      branches: residual branches in the whole stack.
      index: place among the layers of the same row, from 0.
      count: layers of the same row.
    """

    layer: Layer
    width: int
    dtype: Any = jnp.float32
    dropout: float = 0.0
    branches: int = 1
    index: int = 0
    count: int = 1

    def setup(self) -> None:
        layer = self.layer
        self.mixer_norm = norm(layer.norm, self.dtype, epsilon=layer.norm_epsilon)
        if layer.conv:
            self.conv = ShortConvolution(self.width, self.dtype, bias=False)
        self.mixer = self._build(mixer_class(layer.mixer), layer.options)
        self.drop = nn.Dropout(self.dropout)
        # Has parameters only where a layer below joins this one.
        self.side = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
        if layer.channel != "none":
            self.channel_norm = norm(layer.norm, self.dtype, epsilon=layer.norm_epsilon)
            channel = mixer_class(CHANNELS[layer.channel].mixer)
            self.channel = self._build(channel, layer.channel_options)

    def __call__(
        self,
        handed: Handed,
        state: BlockState | None = None,
        reset_bt: jax.Array | None = None,
        last_only: bool = False,
    ) -> tuple[Handed, BlockState]:
        """Runs the layer; with `last_only` it hands on the last frame, [B, 1, D].

        What moves information along time sees every frame either way; what follows it
        works frame by frame, so the last frame and the state are the same as without
        `last_only`.
        """
        x_btd, side_bte, lower = handed
        mixer_state, channel_state, conv_state = state or (None, None, None)
        y_btd = x_btd if side_bte is None else x_btd + self.side(side_bte)
        y_btd = y_btd if self.mixer_norm is None else self.mixer_norm(y_btd)
        y_btd, conv_state = self._convolve(y_btd, conv_state, reset_bt)
        if takes_lower(type(self.mixer)):
            y_btd, mixer_state, lower = self.mixer(
                y_btd, mixer_state, reset_bt, lower=lower
            )
        else:
            y_btd, mixer_state = self.mixer(y_btd, mixer_state, reset_bt)
        late = self.layer.channel != "none" and CHANNELS[self.layer.channel].temporal
        if last_only and not late:
            x_btd, y_btd, reset_bt = x_btd[:, -1:], y_btd[:, -1:], None
        if self.layer.join == "next":
            return Handed(x_btd, y_btd, lower), BlockState(mixer_state, (), conv_state)
        x_btd = self._add(x_btd, y_btd)
        if self.layer.channel == "none":
            return Handed(x_btd, None, lower), BlockState(mixer_state, (), conv_state)
        y_btd = x_btd if self.channel_norm is None else self.channel_norm(x_btd)
        y_btd, channel_state = self.channel(y_btd, channel_state, reset_bt)
        x_btd = self._add(x_btd, y_btd)
        if last_only and late:
            x_btd = x_btd[:, -1:]
        state = BlockState(mixer_state, channel_state, conv_state)
        return Handed(x_btd, None, lower), state

    def initial_state(self, batch_size: int) -> BlockState:
        """Returns the state an episode starts from."""
        has_channel = self.layer.channel != "none"
        return BlockState(
            self.mixer.initial_state(batch_size),
            self.channel.initial_state(batch_size) if has_channel else (),
            self.conv.initial_state(batch_size) if self.layer.conv else (),
        )

    @nn.nowrap
    def _build(self, mixer: type[nn.Module], options: tuple) -> nn.Module:
        names = field_names(mixer)
        known = {
            "out_scale": self.branches**-0.5 if self.layer.join == "residual" else 1.0,
            "layer": self.index,
            "layers": self.count,
        }
        given = {name: value for name, value in known.items() if name in names}
        return mixer(self.width, self.dtype, **given, **dict(options))

    def _convolve(
        self, y_btd: jax.Array, state: Any, reset_bt: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        if not self.layer.conv:
            return y_btd, ()
        filtered_btd, state = self.conv(y_btd, state, reset_bt)
        return y_btd + nn.silu(filtered_btd).astype(y_btd.dtype), state

    def _add(self, x_btd: jax.Array, y_btd: jax.Array) -> jax.Array:
        y_btd = self.drop(y_btd, deterministic=not self.has_rng("dropout"))
        # The stream keeps the type the encoder gave it.
        y_btd = y_btd.astype(x_btd.dtype)
        return x_btd + y_btd if self.layer.join == "residual" else y_btd


def mixer_class(mixer: str) -> type[nn.Module]:
    """Imports the mixer "file:Class" names."""
    file, name = mixer.split(":")
    return getattr(importlib.import_module(f"jaxbench.mixers.{file}"), name)


def field_names(module: type[nn.Module]) -> list[str]:
    """Lists the dataclass fields of a linen module class."""
    return [field.name for field in dataclasses.fields(module)]


def takes_lower(mixer: type[nn.Module]) -> bool:
    """Whether a mixer reads or adds to what layers hand up the stack."""
    return "lower" in inspect.signature(mixer.__call__).parameters
