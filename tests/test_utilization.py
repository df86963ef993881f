"""FLOPs are counted as a person would count them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxbench.bench.utilization import matmul_peak
from jaxbench.models.flops import count_flops


def test_products_and_their_gradients():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert count_flops(lambda a, b: a @ b, a, b) == 2 * 3 * 4 * 5

    def loss(a, b):
        return (a @ b).sum()

    assert count_flops(jax.grad(loss, (0, 1)), a, b) == 3 * 2 * 3 * 4 * 5


def test_a_scan_counts_every_step_and_jit_nothing_twice():
    a = jnp.ones((6, 6))

    @jax.jit
    def ten(x):
        return jax.lax.scan(lambda h, _: (h @ a, None), x, length=10)[0]

    assert count_flops(ten, a) == 10 * 2 * 6**3


def test_a_conditional_counts_its_costliest_branch():
    a = jnp.ones((6, 6))

    def either(flag, x):
        return jax.lax.cond(flag, lambda x: x @ a @ a, lambda x: x @ a, x)

    assert count_flops(either, True, a) == 2 * 2 * 6**3


def test_depthwise_convolution():
    x, k = jnp.ones((1, 8, 3)), jnp.ones((4, 1, 3))

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=3,
        )  # fmt: skip

    assert count_flops(convolve, x, k) == 2 * 8 * 3 * 4


def test_the_peak_is_a_rate():
    assert matmul_peak(jnp.float32, 64) > 1e6
