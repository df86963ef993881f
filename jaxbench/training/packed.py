"""Parameters as a few flat vectors, one for each parameter group.

An update is the same few operations on each parameter. On a tree of 42 leaves they are
42 small operations each, which take longer to compile, and on a GPU to launch, than the
backbone itself. So a train state holds vectors; the tree is what models are applied to
and what checkpoints hold, under the names that modules gave their parameters.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

# Elements of a leaf that stays a vector of its own: it costs few operations for its
# size, and in a vector with others it would be copied out of it at every update.
LARGE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which leaves of a tree lie in which flat vector, and in what order.

    Attributes:
      structure: of the tree.
      shapes: of its leaves, in flattening order.
      vectors: the name of the vector that holds each leaf; leaves of one vector follow
        one another in flattening order.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    vectors: tuple[str, ...]

    def members(self, vector: str) -> list[int]:
        """Indices of the leaves of a vector, in their order."""
        return [i for i, name in enumerate(self.vectors) if name == vector]

    def ends(self, vector: str) -> np.ndarray:
        """Where each of its leaves ends in a vector, int64."""
        sizes = [math.prod(self.shapes[i]) for i in self.members(vector)]
        return np.cumsum(sizes)


class Packed(struct.PyTreeNode):
    """A tree whose leaves lie in flat vectors, all of one type.

    Attributes:
      vectors: by name: the parameter group, and for a large leaf also its index.
      layout: where the leaves of the tree lie in them.
    """

    vectors: dict[str, jax.Array]
    layout: Layout = struct.field(pytree_node=False)


def is_packed(node: Any) -> bool:
    """Whether a part of a tree is packed; as `is_leaf`, it stops there."""
    return isinstance(node, Packed)


def group_of(vector: str) -> str:
    """The parameter group whose leaves a vector holds."""
    return vector.partition("/")[0]


def layout_of(tree: Any, groups: Any) -> Layout:
    """Lays out a tree by `groups`, a tree of the same structure of names."""
    leaves, structure = jax.tree.flatten(tree)
    names = [
        f"{group}/{i}" if leaf.size >= LARGE else group
        for i, (leaf, group) in enumerate(
            zip(leaves, jax.tree.leaves(groups), strict=True)
        )
    ]
    return Layout(structure, tuple(leaf.shape for leaf in leaves), tuple(names))


def pack(tree: Any, layout: Layout) -> Packed:
    """Joins the leaves of a tree that `layout` describes; of numpy's, in numpy."""
    leaves = jax.tree.leaves(tree)
    xp = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    vectors = {
        name: xp.concatenate([xp.ravel(leaves[i]) for i in layout.members(name)])
        for name in sorted(set(layout.vectors))
    }
    return Packed(vectors, layout)


def unpack(tree: Any) -> Any:
    """Turns every `Packed` part of `tree` back into the tree it was.

    Axes in front of a vector's own, as of several runs side by side, are kept.
    """

    def whole(node: Any) -> Any:
        if not is_packed(node):
            return node
        layout = node.layout
        leaves: list[Any] = [None] * len(layout.shapes)
        for name, vector in node.vectors.items():
            # One operation for all leaves, and its gradient is one, too.
            xp = np if isinstance(vector, np.ndarray) else jnp
            parts = xp.split(vector, layout.ends(name)[:-1], axis=-1)
            for i, part in zip(layout.members(name), parts, strict=True):
                leaves[i] = part.reshape((*vector.shape[:-1], *layout.shapes[i]))
        return jax.tree.unflatten(layout.structure, leaves)

    return jax.tree.map(whole, tree, is_leaf=is_packed)


def first_broken_leaf(packed: Packed) -> jax.Array:
    """Index of the first leaf, as the tree is flattened, with a non-finite number.

    -1 where every number is finite.
    """
    none = len(packed.layout.shapes)
    first = jnp.int32(none)
    for name, vector in packed.vectors.items():
        # A minimum over positions, not an argmax: XLA vectorises it.
        place = jnp.where(jnp.isfinite(vector), vector.size, jnp.arange(vector.size))
        passed = jnp.sum(jnp.min(place) >= packed.layout.ends(name))
        leaf = jnp.asarray([*packed.layout.members(name), none], jnp.int32)[passed]
        first = jnp.minimum(first, leaf)
    return jnp.where(first == none, -1, first)


def on_host(tree: Any) -> Any:
    """`unpack`, of arrays on devices, without a program: `Packed` parts as numpy's."""

    def fetch(node: Any) -> Any:
        return jax.device_get(node) if is_packed(node) else node

    return unpack(jax.tree.map(fetch, tree, is_leaf=is_packed))


def unpacked_shapes(tree: Any) -> Any:
    """`unpack` of `jax.ShapeDtypeStruct`s; each leaf lies where its vector does."""

    def whole(node: Any) -> Any:
        if not is_packed(node):
            return node
        (first, *_) = node.vectors.values()
        leaves = [
            jax.ShapeDtypeStruct(shape, first.dtype, sharding=first.sharding)
            for shape in node.layout.shapes
        ]
        return jax.tree.unflatten(node.layout.structure, leaves)

    return jax.tree.map(whole, tree, is_leaf=is_packed)


def pack_like(abstract: Any, tree: Any) -> Any:
    """Packs what is packed in `abstract`, and puts it where that lies."""

    def like(shape: Any, node: Any) -> Any:
        if not is_packed(shape):
            return node
        packed = pack(jax.tree.map(np.asarray, node), shape.layout)
        return jax.tree.map(lambda s, x: jax.device_put(x, s.sharding), shape, packed)

    return jax.tree.map(like, abstract, tree, is_leaf=is_packed)
