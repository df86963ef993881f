"""The Bayesian MLP: mean and noise in float64, divergence, one tree of parameters."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import shapes_of
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.mixers.bayesian import BayesianDense, BayesianMLP

WIDTH = 16


def frames(seed=0, batch=2, length=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, length, WIDTH)).astype(np.float32)


@functools.cache
def built(**options):
    mixer = BayesianMLP(WIDTH, **options)
    params = shapes_of(mixer, frames())["params"]
    rng = np.random.default_rng(1)

    def moved(path, leaf):
        # Sigma from 0.1 to 0.7 shows in the outputs.
        low, high = (-2, 0) if path[-1].key.endswith("rho") else (-0.3, 0.3)
        return rng.uniform(low, high, leaf.shape).astype(leaf.dtype)

    return mixer, jax.tree_util.tree_map_with_path(moved, params)


@functools.cache
def applied(**options):
    mixer, params = built(**options)

    @jax.jit
    def apply(x, key):
        rngs = None if key is None else {"noise": key}
        return mixer.apply(
            {"params": params}, x, rngs=rngs, mutable=["losses", "metrics"]
        )

    return apply


def softplus(x):
    return np.log1p(np.exp(np.asarray(x, np.float64)))


def dense(params, x):
    """Mean and variance of one layer's outputs for one frame, in float64."""
    mean, variance = np.array(params["bias"], np.float64), softplus(params["bias_rho"])
    variance = variance**2
    rho = params["kernel_rho"].reshape(WIDTH, WIDTH)
    for i in range(WIDTH):
        mean = mean + x[i] * params["kernel"][i]
        variance = variance + x[i] ** 2 * softplus(rho[i]) ** 2
    return mean, variance


def test_without_noise_the_weights_are_their_means():
    _, params = built()
    x = frames(2)
    (y, state), _ = applied()(x, None)
    assert state == ()
    for where in np.ndindex(x.shape[:2]):
        hidden, _ = dense(params["in"], x[where].astype(np.float64))
        want, _ = dense(params["out"], np.maximum(hidden, 0))
        np.testing.assert_allclose(y[where], want, atol=1e-5)


def test_noise_has_the_mean_and_variance_that_the_weights_give():
    _, params = built()
    layer = BayesianDense(WIDTH, 0.1)
    x = np.tile(frames(3, 1, 1), (1, 20_000, 1))
    y, _ = jax.jit(layer.apply)(
        {"params": params["in"]}, x, rngs={"noise": jax.random.key(2)}
    )
    mean, variance = dense(params["in"], x[0, 0].astype(np.float64))
    y = np.asarray(y[0], np.float64)
    # Five standard errors of a mean and of a variance of 20000 draws.
    assert np.all(np.abs(y.mean(0) - mean) < 5 * np.sqrt(variance / len(y)))
    np.testing.assert_allclose(y.var(0), variance, rtol=5 * np.sqrt(2 / len(y)))
    correlation = np.corrcoef(y[:-1, 0], y[1:, 0])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(y)), "frames share their noise"


def test_layers_keys_and_calls_draw_different_noise():
    run, x = applied(), frames(4)
    first, again, other = (run(x, jax.random.key(k))[0][0] for k in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(np.asarray(first) - other).min() > 0


@pytest.mark.parametrize("prior_sigma", [0.1, 1.0])
def test_divergence_is_that_of_gaussians_and_enters_the_loss_weighted(prior_sigma):
    _, params = built(prior_sigma=prior_sigma, kl_weight=1e-3)
    _, sown = applied(prior_sigma=prior_sigma, kl_weight=1e-3)(frames(), None)
    want = 0.0
    for layer in params.values():
        for name in ("kernel", "bias"):
            mean = layer[name].astype(np.float64).ravel()
            sigma = softplus(layer[f"{name}_rho"])
            want += np.sum(
                np.log(prior_sigma / sigma)
                + (sigma**2 + mean**2) / (2 * prior_sigma**2)
                - 0.5
            )
    assert sown["metrics"]["divergence"] == pytest.approx(want, rel=1e-5)
    assert sown["losses"]["divergence"] == pytest.approx(1e-3 * want, rel=1e-5)


def test_divergence_is_zero_at_the_prior_and_finite_far_from_it():
    layer = BayesianDense(WIDTH, 0.5)
    at_prior = float(np.log(np.expm1(0.5)))

    def divergence(rho):
        params = {
            "kernel": jnp.zeros((WIDTH, WIDTH)),
            "bias": jnp.zeros(WIDTH),
            "kernel_rho": jnp.full(WIDTH * WIDTH, rho),
            "bias_rho": jnp.full(WIDTH, rho),
        }
        return layer.apply({"params": params}, jnp.zeros((1, WIDTH)))[1]

    count = WIDTH * WIDTH + WIDTH
    value = jax.jit(jax.value_and_grad(divergence))
    total, slope = value(at_prior)
    assert abs(total) < 1e-3 and abs(slope) < 1e-2
    total, slope = value(-200.0)
    assert total == pytest.approx(count * (np.log(0.5) + 200 - 0.5), rel=1e-5)
    assert slope == pytest.approx(-count)


def test_noise_changes_neither_the_parameters_nor_their_initial_values():
    mixer, key = BayesianMLP(WIDTH), jax.random.key(0)
    keys = {"params": key, "noise": jax.random.key(1)}
    quiet, noisy = (jax.jit(mixer.init)(k, frames()) for k in (key, keys))
    assert quiet.keys() == {"params"}
    jax.tree.map(np.testing.assert_array_equal, quiet, noisy)
    out = quiet["params"]["out"]
    assert np.all(out["kernel_rho"] == -5) and np.all(out["bias_rho"] == -5)


@pytest.mark.integration
@pytest.mark.parametrize("noise", [False, True])
def test_every_parameter_learns_also_through_remat(noise):
    mixer, params = built(kl_weight=1e-2)
    weight = frames(6)

    def loss(module, params):
        rngs = {"noise": jax.random.key(5)} if noise else None
        (y, _), sown = module.apply(
            {"params": params}, frames(7), rngs=rngs, mutable=["losses"]
        )
        return jnp.sum(y * weight) + sum(jax.tree.leaves(sown["losses"]))

    again = nn.remat(BayesianMLP)(WIDTH, kl_weight=1e-2)
    got, want = (
        jax.jit(jax.grad(functools.partial(loss, module)))(params)
        for module in (again, mixer)
    )
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
        assert np.abs(w).max() > 0


def test_the_divergence_of_shared_weights_counts_once():
    mixer, params = built()

    class Twice(nn.Module):
        def setup(self):
            self.mixer = mixer.clone()

        def __call__(self, x):
            return self.mixer(self.mixer(x)[0])[0]

    _, sown = Twice().apply({"params": {"mixer": params}}, frames(), mutable=["losses"])
    _, once = applied()(frames(), None)
    total = sum(jax.tree.leaves(sown["losses"]))
    assert float(total) == pytest.approx(float(once["losses"]["divergence"]))


@pytest.mark.integration
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("factor", [0.0, 1e3])
def test_gradients_are_finite_for_any_size_of_input(dtype, factor):
    mixer = BayesianMLP(WIDTH, dtype=dtype)
    _, params = built()

    def loss(params, x):
        (y, _), sown = mixer.apply(
            {"params": params},
            x,
            rngs={"noise": jax.random.key(0)},
            mutable=["losses"],
        )
        assert y.dtype == dtype
        (extra,) = jax.tree.leaves(sown["losses"])
        assert extra.dtype == jnp.float32
        return jnp.sum(jnp.square(y.astype(jnp.float32))) + extra

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, factor * frames(8))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    "options", [{"prior_sigma": 0.0}, {"prior_sigma": -1.0}, {"kl_weight": -1e-6}]
)
def test_wrong_options_are_one_line(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"^{name}={value} of bayesian") as caught:
        BayesianMLP(WIDTH, **options).init(jax.random.key(0), frames())
    assert "\n" not in caught.value.args[0]
