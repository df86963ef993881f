"""Performer: its features against the kernel they estimate, its sums in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw

from jaxbench.errors import InputError
from jaxbench.mixers.performer import (
    Performer,
    orthogonal_features,
    positive_features,
)

WIDTH, HEADS, BATCH, LENGTH = 16, 4, 2, 9


def frames(seed):
    rng = np.random.default_rng([1, seed])
    return rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)


def turned(x_hk, position):
    """Rotary positions: the halves of a head are real and imaginary parts."""
    half = x_hk.shape[-1] // 2
    rate = 10_000.0 ** (-np.arange(half) / half)
    z = (x_hk[:, :half] + 1j * x_hk[:, half:]) * np.exp(1j * position * rate)
    return np.concatenate([z.real, z.imag], -1)


def features(x_hk, omega_mk):
    """Not stabilised; the largest feature of a head adds 1e-6 of itself to each."""
    x = x_hk / x_hk.shape[-1] ** 0.25
    phi = np.exp(x @ omega_mk.T - (x**2).sum(-1, keepdims=True) / 2)
    largest = phi.max(-1, keepdims=True)
    return phi / np.sqrt(len(omega_mk)) + 1e-6 * largest, largest[:, 0]


def performer_frames(variables, x_td, reset_t, state):
    p, omega_mk = variables["params"], variables["constants"]["omega"]
    s_hmv, n_hm, m_h, position = state
    unit_h = np.exp(m_h)
    s_hmv, n_hm = s_hmv * unit_h[:, None, None], n_hm * unit_h[:, None]
    for x, reset in zip(x_td, reset_t, strict=True):
        if reset:
            s_hmv, n_hm, unit_h = (np.zeros(a.shape) for a in (s_hmv, n_hm, unit_h))
            position = 0
        q, k, v = (x @ p["qkv"]["kernel"]).reshape(3, HEADS, -1)
        phi_q, _ = features(turned(q, position), omega_mk)
        phi_k, largest = features(turned(k, position), omega_mk)
        position += 1
        unit_h = np.maximum(unit_h, largest)
        s_hmv = s_hmv + np.einsum("hm,hv->hmv", phi_k, v)
        n_hm = n_hm + phi_k
        read = np.einsum("hm,hmv->hv", phi_q, s_hmv)
        total = np.einsum("hm,hm->h", phi_q, n_hm)
        # The query's scale does not cancel in this last term; it is 1e-6 all the same.
        small = 1e-6 * unit_h * (features(turned(q, position - 1), omega_mk)[1])
        yield (read / (total + small)[:, None]).reshape(-1) @ p["out"]["kernel"]


def test_equations():
    mixer = Performer(WIDTH, heads=HEADS)
    variables, apply = draw(mixer, frames(0)), jax.jit(mixer.apply)
    exact = jax.tree.map(lambda x: x.astype(np.float64), variables)
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, 4] = reset[1, 0] = reset[1, 7] = True
    _, state = apply(variables, frames(1), None, reset)
    np.testing.assert_array_equal(state.position_b, [5, 2])
    y_btd, last = apply(variables, frames(2), state, reset)
    np.testing.assert_array_equal(last.position_b, [5, 2])
    for b, (x_td, y_td) in enumerate(zip(frames(2), y_btd, strict=True)):
        start = [np.asarray(leaf, np.float64)[b] for leaf in state]
        want = list(performer_frames(exact, x_td.astype(float), reset[b], start))
        np.testing.assert_allclose(y_td, np.stack(want), rtol=1e-5, atol=1e-5)


@pytest.mark.integration
def test_more_features_estimate_the_kernel_better():
    """phi(q) . phi(k) goes to exp(q . k / sqrt(K)), its error falling as 1 / sqrt(M).

    For independent directions the relative variance is (e^(|q' + k'|^2) - 1) / M.
    """
    q, k = 0.5 * np.random.default_rng(0).normal(size=(2, 40, 8))
    kernel = np.exp(q @ k.T / np.sqrt(8))
    squares = ((q[:, None] + k) ** 2).sum(-1) / np.sqrt(8)
    independent = np.sqrt(np.expm1(squares).mean())

    def phi(x, omega_mk):
        features, scale = positive_features(jnp.asarray(x)[None, :, None], omega_mk)
        return np.asarray(features * jnp.exp(scale[..., None]), np.float64)[0, :, 0]

    for count in (64, 4096):
        errors = []
        for seed in range(8):
            omega_mk = orthogonal_features(jax.random.key(seed), count, 8)
            errors.append(phi(q, omega_mk) @ phi(k, omega_mk).T / kernel - 1)
        ratio = np.sqrt(np.square(errors).mean()) / (independent / np.sqrt(count))
        assert 0.6 < ratio < 1.05


def test_with_many_features_it_is_softmax_attention():
    mixer = Performer(WIDTH, heads=HEADS, features=8192)
    variables, x_btd = draw(mixer, frames(0)), frames(1) / 2
    omega_mk = orthogonal_features(jax.random.key(0), 8192, WIDTH // HEADS)
    variables["constants"] = {"omega": omega_mk}
    y_btd, _ = jax.jit(mixer.apply)(variables, x_btd)
    p = jax.tree.map(lambda x: x.astype(np.float64), variables["params"])
    for x_td, y_td in zip(x_btd, y_btd, strict=True):
        qkv = (x_td @ p["qkv"]["kernel"]).reshape(LENGTH, 3, HEADS, -1)
        q, k = (
            np.stack([turned(x, t) for t, x in enumerate(qkv[:, i])]) for i in (0, 1)
        )
        score = np.einsum("thk,shk->hts", q, k) / np.sqrt(q.shape[-1])
        weight = np.exp(score) * np.tri(LENGTH)
        weight = weight / weight.sum(-1, keepdims=True)
        o_td = np.einsum("hts,shv->thv", weight, qkv[:, 2]).reshape(LENGTH, WIDTH)
        want = o_td @ p["out"]["kernel"]
        assert np.abs(y_td - want).max() < 0.02 * np.abs(want).max()


def test_directions_are_orthogonal_in_blocks_and_norms_those_of_a_normal_vector():
    omega_mk = np.asarray(orthogonal_features(jax.random.key(0), 21, 8))
    assert omega_mk.shape == (21, 8)
    norm_m = np.linalg.norm(omega_mk, axis=-1)
    cosine = omega_mk @ omega_mk.T / np.outer(norm_m, norm_m)
    for block in (slice(0, 8), slice(8, 16), slice(16, 21)):
        inside = cosine[block, block]
        np.testing.assert_allclose(inside, np.eye(len(inside)), atol=1e-5)
    assert np.abs(cosine[:8, 8:16]).max() > 0.1
    many = np.asarray(orthogonal_features(jax.random.key(1), 8000, 8))
    squares = (many**2).sum(-1)
    assert abs(squares.mean() - 8) < 0.2 and abs(squares.var() - 16) < 1.5
    assert np.abs(many.mean(0)).max() < 0.05


def test_features_are_positive_and_finite_for_any_size_of_input():
    omega_mk = orthogonal_features(jax.random.key(0), 64, 4)
    x_bthk = np.random.default_rng(0).normal(size=(1, 5, 1, 4)).astype(np.float32)
    for size in (0.0, 1.0, 1e4):
        phi, scale = positive_features(jnp.asarray(size * x_bthk), omega_mk)
        assert np.isfinite(scale).all()
        assert (phi > 0).all() and (phi <= 1 / 8 + 1e-5).all()
        np.testing.assert_allclose(phi.max(-1), 1 / 8, rtol=1e-4)


def test_random_directions_are_constants_of_each_layer():
    mixer = Performer(WIDTH)
    init = jax.jit(mixer.init)
    variables = init(jax.random.key(0), frames(0))
    assert set(variables) == {"params", "constants"}
    assert variables["constants"]["omega"].shape == (64, 4)
    other = init(jax.random.key(1), frames(0))["constants"]["omega"]
    assert np.abs(variables["constants"]["omega"] - other).max() > 0.1
    floats = sum(x.size for x in jax.tree.leaves(Performer(256).initial_state(1)))
    assert floats == 4 * 64 * 65 + 4 + 1


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (Performer(WIDTH, heads=3), "heads=3 does not divide width=16"),
        (Performer(WIDTH, heads=16), "gives heads of 1; rotary positions need an even"),
        (Performer(WIDTH, features=0), "features=0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit(mixer, message):
    with pytest.raises(InputError, match=message):
        mixer.initial_state(1)
    with pytest.raises(InputError, match=message):
        mixer.init(jax.random.key(0), frames(0))
