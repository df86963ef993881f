"""The Elman ladder's vector mixers against float64 loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from oracles import sigmoid, silu

from jaxbench.errors import InputError
from jaxbench.layers.spectral import first_direction, spectral_normalize
from jaxbench.mixers import elman, elman_dense
from jaxbench.models.backbone import resolve
from jaxbench.models.build import build_stack
from jaxbench.models.zoo.elman import ROWS

WIDTH, BATCH, LENGTH = 32, 2, 9
INNER = 2 * WIDTH

MIXERS = {
    **{
        name: functools.partial(elman.LinearAverage, cell=name)
        for name in ("e61", "e62")
    },
    **{
        name: functools.partial(elman.Average, cell=name)
        for name in ("e64", "e65", "e67", "e68")
    },
    **{name: getattr(elman_dense, name.upper()) for name in ("e1", "e42", "e56")},
    **{name: getattr(elman_dense, name.upper()) for name in ("e63", "e66")},
    "e1h": functools.partial(elman_dense.E1H, heads=4),
}

# Parameters without the byte embedding and the last norm, d = 2 D, each row's sum.
COUNTS = {
    **dict.fromkeys(("e61", "e62", "e64"), "2*d*D + 2*d*d + 2*d"),
    **dict.fromkeys(("e65", "e67"), "2*d*D + 2*d*d + 3*d"),
    "e68": "2*d*D + 2*d*d + 4*d",
    "e63": "2*d*D + 3*d*d + 2*d",
    "e66": "2*d*D + 2*d*d + 2*d + 2*(d//4)*d",
    **dict.fromkeys(("e1", "e56"), "3*d*D + 2*d*d + d"),
    "e42": "2*d*D + d*d + d",
}


def self_gate(h):
    return h**2 * sigmoid(h)


def normed(w, target):
    """The matrix scaled to its largest singular value, from the decomposition."""
    return w * target / np.linalg.svd(w, compute_uv=False)[0]


def average(alpha, h, v):
    return alpha * h + (1 - alpha) * v


# One frame each: parameters, widened x, state -> state. Kernels are [in, out].
def e61(p, x, h):
    a, v = np.split(x @ p["gates"]["kernel"], 2)
    return average(sigmoid(a + p["ssm_gate_bias"]), h, v + p["bias_v"])


def e62(p, x, h):
    k, v = np.split(x @ p["gates"]["kernel"], 2)
    k, v = sigmoid(k + p["ssm_gate_bias"]), np.tanh(v + p["bias_v"])
    return (1 - k) * h + k * v


def e64(p, x, h, weight=1.0):
    a, v = np.split(x @ p["gates"]["kernel"], 2)
    v = np.tanh(weight * h + v + p["bias_v"])
    return average(sigmoid(a + p["ssm_gate_bias"]), h, v)


def e65(p, x, h):
    return e64(p, x, h, p["recurrent_v"])


def e67(p, x, h):
    a, v = np.split(x @ p["gates"]["kernel"], 2)
    alpha = sigmoid(a + p["recurrent_alpha"] * h + p["ssm_gate_bias"])
    return average(alpha, h, np.tanh(v + p["bias_v"]))


def e68(p, x, h):
    a, v = np.split(x @ p["gates"]["kernel"], 2)
    g = sigmoid(p["recurrent_g"] * h + p["bias_g"])
    alpha = sigmoid(a + p["ssm_gate_bias"])
    return average(alpha, h, np.tanh(v + p["bias_v"]) * g)


def e63(p, x, h):
    a, v = np.split(x @ p["gates"]["kernel"], 2)
    v = np.tanh(h @ p["recurrent"] + v + p["bias_v"])
    return average(sigmoid(a + p["ssm_gate_bias"]), h, v)


def e66(p, x, h):
    return e63({**p, "recurrent": p["recurrent_v"] @ p["recurrent_u"]}, x, h)


def e1(p, x, h):
    pre = x @ p["input"]["kernel"] + p["input"]["bias"]
    return np.tanh(pre + h @ normed(p["recurrent"], 0.99))


def e1h(p, x, h):
    """Heads as one matrix with blocks on its diagonal."""
    n = p["input"].shape[-1]
    into, recurrent = np.zeros((2, INNER, INNER))
    for i, (a, b) in enumerate(zip(p["input"], p["recurrent"], strict=True)):
        place = slice(i * n, (i + 1) * n)
        into[place, place], recurrent[place, place] = a, normed(b, 0.99)
    return np.tanh(x @ into + h @ recurrent + p["bias"])


def e56(p, x, h):
    return np.tanh(np.concatenate([x, h]) @ p["recurrent"] + p["bias"])


def e42(p, x, h):
    return (x + h) @ normed(p["recurrent"], 0.999) + p["bias"]


WITH_GATE = ("e1", "e1h", "e56")


def loop(name, p, u_btd, h_be, reset_bt):
    y_btd, last = np.zeros(u_btd.shape), np.array(h_be, np.float64)
    for b in range(u_btd.shape[0]):
        h = last[b]
        for t in range(u_btd.shape[1]):
            h = np.zeros_like(h) if reset_bt[b, t] else h
            wide = u_btd[b, t] @ p["project"]["kernel"]
            x, z = np.split(wide, 2) if name in WITH_GATE else (wide, None)
            h = globals()[name](p, silu(x), h)
            o = self_gate(h) if z is None else h * silu(z)
            y_btd[b, t] = o @ p["out"]["kernel"]
        last[b] = h
    return y_btd, last


def frames(seed, length=LENGTH):
    rng = np.random.default_rng(seed)
    u_btd = rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)
    return u_btd, rng.random((BATCH, length)) < 0.2


@functools.cache
def variables(name):
    """Drawn parameters, and directions that fit them."""
    made = draw(MIXERS[name](WIDTH), frames(0)[0])
    params = made["params"]
    if "constants" not in made:
        return made
    # Exact norms, which the loop has, need a direction that is one.
    directions = np.linalg.svd(params["recurrent"])[2][..., 0, :]
    return {"params": params, "constants": {"direction": directions}}


@pytest.mark.parametrize("name", MIXERS)
def test_values(name):
    mixer, given = MIXERS[name](WIDTH), variables(name)
    (u_btd, reset_bt), rng = frames(1), np.random.default_rng(2)
    h_be = rng.normal(size=(BATCH, INNER)).astype(np.float32)
    state = jax.tree.map(lambda _: h_be, mixer.initial_state(BATCH))
    apply = jax.jit(mixer.apply)
    y_btd, after = apply(given, u_btd, state, reset_bt)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), given["params"])
    want, last = loop(name, p, u_btd, h_be, reset_bt)
    np.testing.assert_allclose(y_btd, want, 2e-5, 2e-5)
    np.testing.assert_allclose(after.h_be, last, 2e-5, 2e-5)


def count(name, width, depth, compat=True):
    stack = build_stack(name, width=width, depth=depth, compat=compat)
    x_btd = jax.ShapeDtypeStruct((1, 2, width), jnp.float32)
    made = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name):
    """Twenty layers, the last norm, and a byte embedding tied with the output."""
    published = ROWS[name].published
    width = published.width
    layers = count(name, width, 2) - width
    each = eval(COUNTS[name], {"D": width, "d": 2 * width}) + width
    assert layers == 2 * each
    assert 20 * each + width + 256 * width == published.parameters
    assert resolve(name, compat=True) == resolve(name)


def test_rows_are_the_ladder_and_only_heads_were_not_published():
    assert ROWS.keys() == MIXERS.keys()
    assert [n for n, row in ROWS.items() if row.published is None] == ["e1h"]


@pytest.mark.integration
@pytest.mark.parametrize("name", MIXERS)
def test_initial_values(name):
    """Xavier-uniform matrices, constants as the definitions have them."""
    x_btd = np.zeros((1, 1, WIDTH), np.float32)
    p = jax.jit(MIXERS[name](WIDTH).init)(jax.random.key(1), x_btd)["params"]
    starts = {"recurrent_alpha": 0.1, "recurrent_g": 0.5, "bias_g": 0, "bias_v": 0}
    starts |= {"bias": 0, "ssm_gate_bias": -2 if name == "e62" else 2}
    if name == "e65":
        starts["recurrent_v"] = 0.5
    for key in starts.keys() & p.keys():
        np.testing.assert_array_equal(p[key], np.float32(starts[key]))
    if name == "e66":
        assert p["recurrent_v"].shape == (INNER, INNER // 4)
    block = INNER // 4 if name == "e1h" else INNER
    gain = {"e1": 0.1, "e42": 0.1, "e1h": 0.1, "e56": (2 / 3) ** 0.5}
    limits = {
        ("project", "kernel"): (6 / (WIDTH + p["project"]["kernel"].shape[1])) ** 0.5,
        ("out", "kernel"): (6 / (WIDTH + INNER)) ** 0.5,
        ("gates", "kernel"): (3 / INNER) ** 0.5,
        ("recurrent",): gain.get(name, 0) * (3 / block) ** 0.5,
    }
    for path, limit in limits.items():
        kernel = functools.reduce(lambda tree, key: tree.get(key, {}), path, p)
        if (path == ("recurrent",) and name not in gain) or isinstance(kernel, dict):
            continue
        assert 0.95 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6), path
        assert np.std(kernel) == pytest.approx(limit / 3**0.5, rel=0.1), path
    for key in {"recurrent", "recurrent_u", "recurrent_v"} & p.keys():
        if name in ("e63", "e66"):
            singular = np.linalg.svd(p[key], compute_uv=False)
            np.testing.assert_allclose(singular, 0.5, 1e-5)


def test_spectral_norm_is_the_target_at_the_start_and_follows_the_matrix():
    """Singular values crowd at the edge of a random matrix; the norm is 1 % off."""
    rng, size = np.random.default_rng(5), 96
    w = rng.uniform(-1, 1, (size, size)).astype(np.float32)
    start = first_direction(jax.random.key(0), jnp.asarray(w))

    def norm(w):
        run = functools.partial(spectral_normalize, target=0.99, iterations=8)
        return np.linalg.norm(np.asarray(jax.jit(run)(w, start)), 2)

    assert norm(w) == pytest.approx(0.99, rel=5e-3)
    assert norm(1e-3 * w) == pytest.approx(0.99, rel=5e-3)
    drifted = w + 0.1 * rng.normal(size=w.shape).astype(np.float32)
    assert norm(drifted) == pytest.approx(0.99, rel=2e-2)
    grown = w + 30 * np.outer(*rng.normal(size=(2, size)) / size).astype(np.float32)
    assert norm(grown) == pytest.approx(0.99, rel=1e-2)


def test_gradient_passes_through_the_spectral_norm():
    """W and 2 W give the same, so no gradient points along W; the rest is exact."""
    rng, size = np.random.default_rng(6), 6
    w, weight = rng.normal(size=(2, size, size)).astype(np.float32)
    start = np.linalg.svd(w)[2][0]

    def loss(w):
        normal = spectral_normalize(w, start, target=0.9, iterations=20)
        return jnp.sum(normal * weight)

    grad = np.asarray(jax.jit(jax.grad(loss))(w))
    assert abs(np.sum(grad * w)) < 1e-5
    direction, w = rng.normal(size=w.shape), w.astype(np.float64)
    ends = [np.sum(normed(w + s * 1e-6 * direction, 0.9) * weight) for s in (1, -1)]
    assert np.sum(grad * direction) == pytest.approx((ends[0] - ends[1]) / 2e-6, 1e-3)


def test_norms_of_blocks_and_zero_matrices():
    rng = np.random.default_rng(7)
    w = rng.normal(size=(3, 5, 5)).astype(np.float32)
    start = first_direction(jax.random.key(0), jnp.asarray(w))
    blocks = spectral_normalize(w, start, target=0.99, iterations=50)
    for block in np.asarray(blocks):
        assert np.linalg.norm(block, 2) == pytest.approx(0.99, rel=1e-4)
    grad = jax.grad(
        lambda w: spectral_normalize(w, start, target=1.0, iterations=3).sum()
    )(np.zeros_like(w))
    assert np.isfinite(grad).all()


def test_the_linear_one_stays_bounded_for_ever():
    """The norm times the old state: 5000 frames of the same input settle."""
    mixer, given = elman_dense.E42(WIDTH), variables("e42")
    u_btd = np.ones((1, 5000, WIDTH), np.float32)
    _, state = jax.jit(mixer.apply)(given, u_btd)
    _, later = jax.jit(mixer.apply)(given, u_btd[:, :1000], state)
    np.testing.assert_allclose(later.h_be, state.h_be, 1e-2)


def test_default_heads_are_about_64_wide():
    for width, heads in ((16, 1), (64, 2), (100, 2), (512, 16), (640, 20)):
        mixer = elman_dense.E1H(width)
        made = jax.eval_shape(mixer.init, jax.random.key(0), jnp.zeros((1, 1, width)))
        assert made["params"]["recurrent"].shape[0] == heads


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (elman.Average(WIDTH, expansion=0), "expansion=0 must be at least 1"),
        (elman.Average(WIDTH, cell="e61"), "cell='e61' must be one of e64, e65, e67"),
        (elman_dense.E1(WIDTH, expansion=-1), "expansion=-1 must be at least 1"),
        (elman_dense.E1H(WIDTH, heads=3), "heads=3 must divide 64"),
        (elman_dense.E1H(WIDTH, heads=-2), "heads=-2 must divide 64"),
        (elman_dense.E66(WIDTH, rank=65), "rank=65 must be at least 0 and at most 64"),
        (elman_dense.E66(WIDTH, rank=-1), "rank=-1 must be at least 0"),
        (elman_dense.E42(WIDTH, spectral_norm=0.0), "spectral_norm=0.0 must be"),
    ],
)
def test_bad_options_are_one_clear_line(mixer, message):
    with pytest.raises(InputError, match=message) as error:
        jax.eval_shape(mixer.init, jax.random.key(0), jnp.zeros((1, 1, WIDTH)))
    assert "\n" not in str(error.value)
