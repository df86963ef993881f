"""Packed parameters: the same tree, the same updates, the same names on disk."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbench.training import packed
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.optimizer import adamw, parameter_groups, schedule, spend
from jaxbench.training.state import TrainState, leaf_names

SHAPES = {
    "cell": {"ssm_decay": (3,), "kernel": (4, 3), "bias": (3,)},
    "head": {"token_embedding": (5, 2), "kernel": (2, 6), "scale": ()},
}


def tree(seed: int, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: np.asarray(rng.normal(size=shape), dtype),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


@pytest.fixture(params=[packed.LARGE, 10], ids=["small leaves", "some are large"])
def large(request, monkeypatch):
    monkeypatch.setattr(packed, "LARGE", request.param)
    return request.param


def pack(whole):
    return packed.pack(whole, packed.layout_of(whole, parameter_groups(whole)))


def chain(clip_norm=0.5, **settings):
    rates = {"learning_rate": 0.1, "ssm_learning_rate": 0.01, "weight_decay": 0.3}
    return adamw(
        shape=schedule("cosine", warmup=0.1, final_fraction=0.1),
        **(rates | {"decay_vectors": False, "b1": 0.9, "b2": 0.95, "eps": 1e-8}),
        **(settings | {"clip_norm": clip_norm}),
    )


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_unpack_gives_the_tree_back(large):
    whole = tree(0)
    given = pack(whole)
    assert len(given.vectors) == (3 if large > 10 else 5)
    equal(packed.unpack(given), whole)
    equal(jax.jit(packed.unpack)(given), whole)
    beside = jax.tree.map(lambda a, b: jnp.stack([a, b]), given, pack(tree(1)))
    equal(jax.tree.map(lambda leaf: leaf[1], packed.unpack(beside)), tree(1))


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_a_chain_updates_packed_parameters_as_it_does_a_tree(large, clip_norm):
    optimizer, whole = chain(clip_norm), tree(0)
    flat = pack(whole)
    states = [optimizer.init(whole), optimizer.init(flat)]
    for step in range(3):
        grads = tree(step + 1)
        now = [spend(state, jnp.float32(0.2 + 0.1 * step)) for state in states]
        changed, states[0] = optimizer.update(grads, now[0], whole)
        beside, states[1] = optimizer.update(pack(grads), now[1], flat)
        whole = optax.apply_updates(whole, changed)
        flat = optax.apply_updates(flat, beside)
    for a, b in zip(
        jax.tree.leaves(whole), jax.tree.leaves(packed.unpack(flat)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-6)
    rate = states[1][-1]
    assert (rate.step, rate.learning_rate, rate.ssm_learning_rate) == (
        3,
        np.float32(0.1),
        np.float32(0.01),
    )


def test_the_first_broken_leaf_is_that_of_the_tree(large):
    names = leaf_names(pack(tree(0)))
    assert names[0] == "cell/bias" and len(names) == 6
    assert packed.first_broken_leaf(pack(tree(0))) == -1
    for later in range(6):
        for first in range(later + 1):
            leaves, structure = jax.tree.flatten(tree(0))
            leaves = [np.array(leaf) for leaf in leaves]
            leaves[later][...] = np.nan
            leaves[first].flat[-1] = np.inf
            broken = pack(jax.tree.unflatten(structure, leaves))
            assert packed.first_broken_leaf(broken) == first


def test_a_checkpoint_holds_the_tree_under_its_names(large, tmp_path):
    variables = {"params": jax.tree.map(jnp.asarray, tree(0))}
    key = jax.random.key(1)
    state = TrainState.create(variables, chain(), key, ema=True)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("last", state, {})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state
    )
    restored, _ = checkpoints.restore(abstract)
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    equal(restored.params.vectors, state.params.vectors)
    saved = (tmp_path / "last" / "0" / "state" / "_METADATA").read_text()
    for name in ("params", "ema_params", "mu", "nu"):
        assert f"'{name}', 'head', 'token_embedding'" in saved
