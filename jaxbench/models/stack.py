"""Depth: the layers of a backbone one after the other."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.norms import norm
from jaxbench.models.backbone import Layer, is_temporal
from jaxbench.models.block import Block, BlockState, Handed
from jaxbench.ops.window import (
    WindowRing,
    initial_ring,
    last_window,
    sliding_windows,
)

# One entry for each layer, or the last frames where the backbone sees windows.
StackState = tuple[BlockState, ...] | WindowRing


class Stack(nn.Module):
    """Blocks in order, then the norm that the last layer asks for.

    Parameters live under `blocks_<i>`, i the layer's index. Equal layers marked as
    shared use the parameters of the first of them; each keeps its own state.

    With a `window`, frame t is the last frame of the window x_{t-window+1} .. x_t,
    which ends where its episode starts: the layers, some of which are not causal, see
    that window and nothing else. So whole, chunks and steps agree for these backbones
    too; every frame asked for costs a window.

    Attributes:
      layers: what to build, from `Backbone.layers`.
      width: model width D.
      dtype: compute type.
      dropout: rate on the residual branches.
      remat: recompute each block in the backward pass: memory of one block instead of
        all, for one more forward pass. Values and parameter paths do not change.
      window: frames a window holds; 0 where the layers stream by themselves.
    """

    layers: tuple[Layer, ...]
    width: int
    dtype: Any = jnp.float32
    dropout: float = 0.0
    remat: bool = False
    window: int = 0

    def setup(self) -> None:
        # last_only is static; index 0 is the module itself.
        block = nn.remat(Block, static_argnums=(4,)) if self.remat else Block
        branches = sum(1 + (layer.channel != "none") for layer in self.layers)
        names = [layer.name for layer in self.layers]
        self.blocks = {
            str(index): block(
                layer,
                self.width,
                self.dtype,
                self.dropout,
                branches,
                names[:index].count(layer.name),
                names.count(layer.name),
            )
            for index, layer in enumerate(self.layers)
            if self._weights_of(index) == index
        }
        last = self.layers[-1]
        self.norm = norm(last.norm_after, self.dtype, epsilon=last.norm_epsilon)

    def __call__(
        self,
        x_btd: jax.Array,
        state: StackState | None = None,
        reset_bt: jax.Array | None = None,
        last_only: bool = False,
    ) -> tuple[jax.Array, StackState]:
        """Runs the layers.

        Args:
          x_btd: embedded frames, [B, T, D]; its type is the type of the residual
            stream.
          state: from `initial_state` or the previous call; None is the initial one.
          reset_bt: bool [B, T], true where an episode starts; None for no resets.
          last_only: return the last frame only. All that comes after the last layer
            that moves information along time is then computed for that frame alone.

        Returns:
          Normalised features, [B, T, D] ([B, 1, D] with `last_only`), and the state
          after the last frame.

        Raises:
          InputError: the state is not one of this backbone at this batch size.
        """
        if state is not None:
            self._check(state, x_btd.shape[0])
        if self.window:
            ring = None if state is None else cast(WindowRing, state)
            return self._in_windows(x_btd, ring, reset_bt, last_only)
        states = None if state is None else cast(tuple[BlockState, ...], state)
        return self._run(x_btd, states, reset_bt, last_only)

    def initial_state(self, batch_size: int) -> StackState:
        """Returns the state an episode starts from, one entry for each layer."""
        if self.window:
            return initial_ring(batch_size, window=self.window, width=self.width)
        return tuple(
            self.blocks[str(self._weights_of(index))].initial_state(batch_size)
            for index in range(len(self.layers))
        )

    def _run(
        self,
        x_btd: jax.Array,
        state: tuple[BlockState, ...] | None,
        reset_bt: jax.Array | None,
        last_only: bool,
    ) -> tuple[jax.Array, tuple[BlockState, ...]]:
        temporal = [i for i, layer in enumerate(self.layers) if is_temporal(layer)]
        cut = temporal[-1] if temporal else -1
        if last_only and cut < 0:
            x_btd, reset_bt = x_btd[:, -1:], None
        handed = Handed(x_btd, None, {"embedding": x_btd})
        states = []
        for index in range(len(self.layers)):
            block = self.blocks[str(self._weights_of(index))]
            block_state = None if state is None else state[index]
            cut_here = last_only and index == cut
            handed, block_state = block(handed, block_state, reset_bt, cut_here)
            if cut_here:
                # What is left works frame by frame and reads nothing from below.
                reset_bt, handed = None, handed._replace(lower={})
            states.append(block_state)
        x_btd = handed.x_btd if self.norm is None else self.norm(handed.x_btd)
        return x_btd, tuple(states)

    def _in_windows(
        self,
        x_btd: jax.Array,
        ring: WindowRing | None,
        reset_bt: jax.Array | None,
        last_only: bool,
    ) -> tuple[jax.Array, WindowRing]:
        batch = x_btd.shape[0]
        cut = last_window if last_only else sliding_windows
        x, valid, ring = cut(x_btd, self.window, ring, reset_bt)
        x_bwd = x.reshape(-1, self.window, self.width)
        valid_bw = valid.reshape(-1, self.window)
        # The frames before the episode are an episode of their own, of zeros.
        start_bw = valid_bw & ~jnp.pad(valid_bw, ((0, 0), (1, 0)))[:, :-1]
        y_bxd, _ = self._run(x_bwd, None, start_bw, True)
        return y_bxd.reshape(batch, -1, self.width), ring

    def _check(self, state: StackState, batch_size: int) -> None:
        """Refuses a state of another backbone, width or batch size."""
        advice = f"make it with initial_state(batch_size={batch_size})"
        if self.window and not isinstance(state, WindowRing):
            raise InputError(
                f"a backbone that sees windows streams over its last {self.window} "
                f"frames, and this state does not hold them; {advice}"
            )
        expected = self.initial_state(batch_size)
        given, wanted_tree = jax.tree.structure(state), jax.tree.structure(expected)
        if str(given) != str(wanted_tree):
            raise InputError(
                f"the state belongs to another backbone than "
                f"{'+'.join(map(_named, self.layers))}; {advice}"
            )
        leaves = jax.tree_util.tree_leaves_with_path(expected)
        for (path, wanted), leaf in zip(leaves, jax.tree.leaves(state), strict=True):
            if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
                raise InputError(
                    f"state{jax.tree_util.keystr(path)} is {_type_of(leaf)}, not "
                    f"{_type_of(wanted)} as this input needs; {advice}"
                )

    @nn.nowrap
    def _weights_of(self, index: int) -> int:
        """Index of the layer whose parameters layer `index` uses."""
        layer = self.layers[index]
        return self.layers.index(layer) if layer.shared else index


def _named(layer: Layer) -> str:
    return f"{layer.name}/conv" if layer.conv else layer.name


def _type_of(leaf: jax.Array) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
