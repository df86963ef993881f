"""The Elman ladder's vector mixers against float64 loops and PyTorch."""

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
from jaxbench.ops import dense_cell, dense_linear, elementwise_cell

WIDTH, BATCH, LENGTH = 32, 2, 9
INNER = 2 * WIDTH

MIXERS = {
    "e1": elman_dense.E1,
    "e1h": functools.partial(elman_dense.E1H, heads=4),
    "e42": elman_dense.E42,
    "e56": elman_dense.E56,
    "e61": elman.E61,
    "e62": elman.E62,
    "e63": elman_dense.E63,
    "e64": elman.E64,
    "e65": elman.E65,
    "e66": elman_dense.E66,
    "e67": elman.E67,
    "e68": elman.E68,
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
PUBLISHED = {
    **dict.fromkeys(("e61", "e62", "e64"), (640, 98_532_480)),
    **dict.fromkeys(("e65", "e67"), (640, 98_558_080)),
    "e68": (640, 98_583_680),
    "e63": (512, 84_068_864),
    "e66": (640, 114_916_480),
    **dict.fromkeys(("e1", "e56"), (640, 114_890_880)),
    "e42": (768, 94_615_296),
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


STEPS = dict(
    e1=e1, e1h=e1h, e42=e42, e56=e56, e61=e61, e62=e62, e63=e63, e64=e64, e65=e65,
    e66=e66, e67=e67, e68=e68,
)  # fmt: skip
WITH_GATE = ("e1", "e1h", "e56")


def loop(name, p, u_btd, h_be, reset_bt):
    y_btd, last = np.zeros(u_btd.shape), np.array(h_be, np.float64)
    for b in range(u_btd.shape[0]):
        h = last[b]
        for t in range(u_btd.shape[1]):
            h = np.zeros_like(h) if reset_bt[b, t] else h
            wide = u_btd[b, t] @ p["project"]["kernel"]
            x, z = np.split(wide, 2) if name in WITH_GATE else (wide, None)
            h = STEPS[name](p, silu(x), h)
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


OTHER_FORMS = {
    **dict.fromkeys(("e64", "e65", "e67", "e68"), (elementwise_cell, "newton")),
    **dict.fromkeys(("e1", "e1h", "e63", "e66"), (dense_cell, "scan")),
    "e42": (dense_linear, "doubling:4"),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", OTHER_FORMS)
def test_values_in_the_form_another_device_would_choose(name, monkeypatch):
    module, form = OTHER_FORMS[name]
    asked = []

    def choose(primitive, **shape):
        asked.append(primitive)
        return form

    monkeypatch.setattr(module, "choose", choose)
    test_values(name)
    assert asked


def torch_step(torch, name, p, x, h):
    """One frame of three of them in PyTorch, from the table; `p` are leaves."""
    if name == "e1":
        w = p["recurrent"]
        with torch.no_grad():
            u, _, v = torch.linalg.svd(w)
        sigma = u[:, 0] @ w @ v[0]
        pre = torch.nn.functional.linear(x, p["input/kernel"].T, p["input/bias"])
        return torch.tanh(pre + h @ (w * 0.99 / sigma))
    if name == "e42":
        w = p["recurrent"]
        return (x + h) @ (w * 0.999 / torch.linalg.matrix_norm(w, 2)) + p["bias"]
    a, v = (x @ p["gates/kernel"]).chunk(2, -1)
    alpha = torch.sigmoid(a + p["ssm_gate_bias"])
    if name == "e66":
        recurrent = h @ p["recurrent_v"] @ p["recurrent_u"]
        v = torch.tanh(recurrent + v + p["bias_v"])
    else:
        gate = torch.sigmoid(p["recurrent_g"] * h + p["bias_g"])
        v = torch.tanh(v + p["bias_v"]) * gate
    return alpha * h + (1 - alpha) * v


@pytest.mark.integration
@pytest.mark.parametrize("name", ["e1", "e42", "e66", "e68"])
def test_torch_agrees_in_values_and_gradients(name):
    torch = pytest.importorskip("torch")
    mixer, given, (u_btd, _) = MIXERS[name](WIDTH), variables(name), frames(3, 33)
    weight = np.random.default_rng(4).normal(size=u_btd.shape)

    def loss(params, u_btd):
        y_btd, _ = mixer.apply({**given, "params": params}, u_btd)
        return jnp.sum(y_btd * weight), y_btd

    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (of_params, of_u), y_btd = run(given["params"], u_btd)
    p = {
        "/".join(key.key for key in path): torch.tensor(
            np.asarray(leaf, np.float64), requires_grad=True
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(given["params"])
    }
    u = torch.tensor(u_btd.astype(np.float64), requires_grad=True)
    wide = u @ p["project/kernel"]
    x, z = wide.chunk(2, -1) if name in WITH_GATE else (wide, None)
    x, h, outputs = torch.nn.functional.silu(x), torch.zeros(BATCH, INNER).double(), []
    for t in range(u.shape[1]):
        h = torch_step(torch, name, p, x[:, t], h)
        gate = h if z is None else z[:, t]
        outputs.append((h * torch.nn.functional.silu(gate)) @ p["out/kernel"])
    want = torch.stack(outputs, 1)
    (want * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(y_btd, want.detach(), 1e-5, 1e-5)
    theirs = [
        p["/".join(k.key for k in path)].grad
        for path, _ in jax.tree_util.tree_leaves_with_path(of_params)
    ]
    for ours, other in zip(
        [*jax.tree.leaves(of_params), of_u], [*theirs, u.grad], strict=True
    ):
        scale = np.abs(other.numpy()).max()
        np.testing.assert_allclose(ours, other, 1e-4, 2e-5 * scale)


def count(name, width, depth, compat=True):
    stack = build_stack(name, width=width, depth=depth, compat=compat)
    x_btd = jax.ShapeDtypeStruct((1, 2, width), jnp.float32)
    made = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    """Twenty layers, the last norm, and a byte embedding tied with the output."""
    width, parameters = PUBLISHED[name]
    published = ROWS[name].published
    assert (published.width, published.parameters) == (width, parameters)
    layers = count(name, width, 2) - width
    each = eval(COUNTS[name], {"D": width, "d": 2 * width}) + width
    assert layers == 2 * each
    assert 20 * each + width + 256 * width == parameters
    assert resolve(name, compat=True) == resolve(name)


def test_rows_are_the_ladder_and_only_heads_were_not_published():
    assert ROWS.keys() == MIXERS.keys()
    assert [n for n, row in ROWS.items() if row.published is None] == ["e1h"]


@pytest.mark.integration
@pytest.mark.parametrize("name", MIXERS)
def test_initial_values(name):
    x_btd = np.zeros((1, 1, WIDTH), np.float32)
    p = jax.jit(MIXERS[name](WIDTH).init)(jax.random.key(1), x_btd)["params"]
    width, wide = WIDTH, INNER

    def is_xavier(kernel, fan_in, fan_out, gain=1.0):
        limit = gain * (6 / (fan_in + fan_out)) ** 0.5
        assert 0.95 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
        assert np.std(kernel) == pytest.approx(limit / 3**0.5, rel=0.1)

    is_xavier(p["project"]["kernel"], *p["project"]["kernel"].shape)
    is_xavier(p["out"]["kernel"], wide, width)
    if "gates" in p:
        is_xavier(p["gates"]["kernel"], wide, wide)
        start = -2 if name == "e62" else 2
        np.testing.assert_array_equal(p["ssm_gate_bias"], start)
    starts = {"recurrent_alpha": 0.1, "recurrent_g": 0.5, "bias_g": 0, "bias_v": 0}
    starts["bias"] = 0
    if name == "e65":
        starts["recurrent_v"] = 0.5
    for key in starts.keys() & p.keys():
        np.testing.assert_array_equal(p[key], np.float32(starts[key]))
    if name in ("e1", "e42"):
        is_xavier(p["recurrent"], wide, wide, 0.1)
    if name == "e1h":
        assert p["recurrent"].shape == p["input"].shape == (4, wide // 4, wide // 4)
        is_xavier(p["recurrent"], wide // 4, wide // 4, 0.1)
        is_xavier(p["input"], wide // 4, wide // 4)
    if name == "e56":
        is_xavier(p["recurrent"], 2 * wide, wide)
    for key in {"recurrent", "recurrent_u", "recurrent_v"} & p.keys():
        if name in ("e63", "e66"):
            singular = np.linalg.svd(p[key], compute_uv=False)
            np.testing.assert_allclose(singular, 0.5, 1e-5)
    if name == "e66":
        assert p["recurrent_v"].shape == (wide, wide // 4)


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
        (elman.E61(WIDTH, expansion=0), "expansion=0 must be at least 1"),
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
