"""Every group of primitives as ONNX: ONNX Runtime answers what jax answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxbench import to_onnx
from jaxbench.to_onnx import ConversionError, check, complexes, convert, converter
from jaxbench.to_onnx.graph import OPSET
from jaxbench.to_onnx.int8 import all_nodes
from jaxbench.to_onnx.rules import RULES
from jaxbench.to_onnx.runtime import open_model

README = Path(to_onnx.__file__).parent / "README.md"

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 6)).astype(np.float32)
Y = RNG.normal(size=(2, 5, 6)).astype(np.float32)
N = RNG.integers(-7, 8, (4, 3)).astype(np.int32)


@pytest.fixture(autouse=True)
def short_hand():
    """Functions here may add arrays of different rank; the models' may not."""
    with jax.numpy_rank_promotion("allow"):
        yield


def ok(call, *arrays, weights=None, tolerance=2e-6, **options):
    """Converts, compares with jax in ONNX Runtime, and returns the model."""
    function = call if weights else lambda _, *inputs: call(*inputs)
    model = convert(function, weights or {}, *arrays, **options)
    check(model, function, weights or {}, *arrays, tolerance=tolerance)
    return model


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: (x + y, x - y, x * y, x / (1 + y * y)),
        lambda x, y: (jnp.maximum(x, y), jnp.minimum(x, 0.5), -x, jnp.abs(x)),
        lambda x, y: (jnp.exp(x), jnp.log(1 + x * x), jnp.sin(x), jnp.cos(y)),
        lambda x, y: (
            jnp.tanh(x),
            jax.nn.sigmoid(y),
            jnp.sqrt(x * x),
            lax.rsqrt(y * y),
        ),
        lambda x, y: (lax.erf(x), lax.erfc(y), jax.nn.gelu(x, approximate=False)),
        lambda x, y: (x**2, x**3, (1 + x * x) ** -1, x**7, (x * x) ** y),
        lambda x, y: (jnp.floor(3 * x), jnp.ceil(3 * y), jnp.sign(x), jnp.round(3 * x)),
        lambda x, y: (lax.rem(3 * x, y), jnp.mod(3 * x, 0.7), jnp.clip(x, -0.5, y)),
        lambda x, y: (x > y, x <= y, x == y, (x != y) & (x > 0), ~(x > 0) | (y > 0)),
        lambda x, y: (jnp.where(x > y, x, y), jnp.where(x > 0, x > y, y > 1)),
        lambda x, y: (jnp.isfinite(x / (y > 0)), lax.stop_gradient(x)),
        lambda x, y: (x.astype(jnp.int32), (x > 0).astype(jnp.float32), 2 * x > y),
        lambda x, y: (jax.nn.softplus(x), jax.nn.silu(y), jax.nn.relu(x)),
        lambda x, y: (jax.nn.logsumexp(x, -1), jax.nn.softmax(y), jax.nn.softmax(x, 1)),
    ],
)
def test_elementwise(call):
    ok(call, X, Y)


def test_small_numbers_keep_their_digits():
    """Where 1 + x is rounded, log1p, expm1 and softplus must not be."""
    x = np.concatenate([10.0 ** -np.arange(1, 12), [0.4, 0.6, 3, 20, 80]])
    x = np.concatenate([-x[:12], x]).astype(np.float32)

    def call(_, x):
        return jnp.log1p(x), jnp.expm1(x), jax.nn.softplus(-20 * jnp.abs(x))

    found = open_model(convert(call, {}, x))({"x0": x})
    exact = x.astype(np.float64)
    softplus = np.log1p(np.exp(-20 * np.abs(exact)))
    np.testing.assert_allclose(found["y/0"], np.log1p(exact), rtol=2e-6)
    np.testing.assert_allclose(found["y/1"], np.expm1(exact), rtol=5e-6)
    np.testing.assert_allclose(found["y/2"], softplus, rtol=5e-6, atol=1e-38)


def test_whole_numbers():
    def call(n):
        packed = (n[..., None] >> jnp.arange(5)) & 1
        exact = (n // 3, n % 3, lax.div(n, 3), lax.rem(n, 3), n ^ 5, n | 2, ~n)
        return (
            *exact,
            packed,
            packed @ (2 ** jnp.arange(5)),
            n << 2,
            n.sum(0),
            n.max(),
        )

    ok(call, N)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: (x.reshape(10, 6), x.transpose(2, 0, 1), x[:, 0], x[..., None]),
        lambda x: (x[:, 1:4], x[:, ::2], x[:, ::-1], jnp.flip(x, (0, 2))),
        lambda x: (jnp.concatenate([x, 2 * x], 1), jnp.stack([x, -x], 1)),
        lambda x: (*jnp.split(x, 3, -1), *jnp.split(x, [1, 3], 1)),
        lambda x: (
            jnp.pad(x, ((0, 0), (2, 1), (0, 0))),
            lax.pad(x, 1.5, ((0, 0, 0), (1, -2, 2), (-1, 0, 0))),
            jnp.pad(x > 0, ((0, 0), (2, 0), (0, 0))),
        ),
        lambda x: (jnp.broadcast_to(x[:, :1], x.shape), x[:, :1] + jnp.zeros_like(x)),
        lambda x: (jnp.tile(x, (1, 2, 1)), jnp.repeat(x, 3, 1), jnp.roll(x, 2, 1)),
        lambda x: lax.associative_scan(
            lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (jnp.tanh(x), x), axis=1
        ),
    ],
)
def test_moves(call):
    ok(call, X)


def test_a_broadcast_of_an_input_is_whole_where_it_must_be():
    """Axes are kept thin inside; sums, products and outputs need them whole."""

    def call(x):
        wide = jnp.broadcast_to(x[:, None, :], (2, 4, 6))
        twice = jnp.exp(wide) + 1
        return wide, twice.sum(1), wide @ wide.mT, jnp.cumsum(wide, 1), twice.max(1)

    ok(call, X[:, 0])


@pytest.mark.parametrize(
    "spec", ["bij,bjk->bik", "bij,bij->b", "bij,kj->bik", "i,j->ij", "bi,bj->bij"]
)
def test_products_of_inputs(spec):
    left, right = spec.split("->")[0].split(",")
    size = dict(zip("bijk", (2, 3, 4, 5), strict=True))
    arrays = [
        RNG.normal(size=[size[axis] for axis in axes]).astype(np.float32)
        for axes in (left, right)
    ]
    ok(lambda a, b: jnp.einsum(spec, a, b), *arrays)


@pytest.mark.parametrize("spec", ["btd,de->bte", "de,btd->bte", "btd,dhk->bthk"])
def test_a_product_with_a_weight_has_it_on_the_right(spec):
    """There quantisation finds it; and it is named by its path."""
    shape = (6, 2, 4) if "h" in spec else (6, 7)
    kernel = RNG.normal(size=shape).astype(np.float32)

    def call(weights, x):
        kernel = weights["params/out/kernel"]
        return jnp.einsum(spec, *((x, kernel) if spec[0] == "b" else (kernel, x)))

    model = ok(call, X, weights={"params/out/kernel": kernel})
    (product,) = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert product.input[1] == "params/out/kernel"
    assert product.name == "params/out/kernel/MatMul"
    assert [x.name for x in model.graph.initializer].count("params/out/kernel") == 1


def test_sums_so_far():
    ok(
        lambda x: (
            jnp.cumsum(x, 1),
            lax.cumsum(x, 1, reverse=True),
            lax.cummax(x, 1),
            lax.cummax(x, 1, reverse=True),
            lax.cummin(x, 2),
            jnp.cumprod(x, 1),
            lax.cummax((9 * x).astype(jnp.int32), 1),
        ),
        X,
    )


def test_reductions():
    ok(
        lambda x: (
            x.sum((0, 2)),
            x.mean(-1),
            x.min(1),
            x.prod(1),
            (x > 0).any(1),
            (x > -2).all((1, 2)),
            x.argmax(-1),
            x.argmin(1),
            x.var(-1),
        ),
        X,
    )


def test_reads_by_index():
    table = RNG.normal(size=(9, 4)).astype(np.float32)
    index = np.array([[0, 8, 3], [5, 5, 1]], np.int32)
    wild = np.array([[-20, 8, 9], [-1, 40, 1]], np.int32)
    along = np.argsort(X, axis=1).astype(np.int32)

    def call(index, wild, along, x, table):
        rows = jnp.arange(2)[:, None]
        return (
            table[index],
            jnp.take(table, wild, axis=0, mode="clip"),
            jnp.take(table, wild, axis=0, mode="fill", fill_value=7.0),
            table.at[wild].get(mode="fill", fill_value=-1.0),
            jnp.take_along_axis(x, along, axis=1),
            x[:, index % 5],
            jnp.take(table, index.astype(jnp.uint8), axis=0),
            x[rows, index % 5, 1],
            x[..., jnp.array([4, 0])],
            lax.dynamic_slice(x, (0, index[0, 2], wild[1, 1]), (2, 3, 2)),
            lax.dynamic_index_in_dim(x, index[1, 0], 2, keepdims=False),
        )

    ok(call, index, wild, along, X, table)


def test_writes_by_index():
    place = np.array([3, 0], np.int32)
    outside = np.array([1, 9, -1], np.int32)

    def call(place, outside, x):
        flags = x > 0
        return (
            lax.dynamic_update_slice(x, x[:, :2] * 2, (0, place[0], 0)),
            lax.dynamic_update_slice(x, x[:1, :2, :2], (place[1], 9, place[0])),
            lax.dynamic_update_slice(flags, ~flags[:, :1], (0, place[0], 0)),
            x.at[:, place].set(1.0),
            x.at[:, place].add(x[:, :2]),
            x.at[0, jnp.array([1, 1, 2])].add(1.0),
            x.at[:, outside].set(5.0, mode="drop"),
            x.at[..., 2].set(x[..., 0]),
        )

    ok(call, place, outside, X)


def test_order():
    ties = np.array([[2, 1, 2, 0, 1, 2]], np.float32)
    ok(
        lambda x, t: (
            jnp.sort(x, 1),
            jnp.argsort(x, 2),
            *lax.top_k(x, 3),
            lax.top_k(t, 4)[1],
            jnp.argsort(t, -1),
        ),
        X,
        ties,
    )


def test_complex_numbers_become_pairs():
    def call(x, y):
        z = lax.complex(x, y)
        w = jnp.exp(1j * z.real) * z.conj() / (z + 2) - z**2
        w = jnp.where(x > 0, w, jnp.concatenate([z[:, :1], w[:, 1:]], 1))
        p = jnp.einsum("btd,bsd->bts", w, z * (0.5 + 0.25j))
        return w.real, w.imag, p.real, p.imag, jnp.abs(w), jnp.cumsum(z, 1).imag

    ok(call, X, Y, tolerance=1e-5)


@pytest.mark.parametrize("n", [8, 9])
def test_transforms(n):
    def call(x, y):
        spectrum = jnp.fft.rfft(x, n=n)
        z = jnp.fft.fft(lax.complex(x, y))
        back = jnp.fft.ifft(z)
        filtered = jnp.fft.irfft(spectrum * jnp.fft.rfft(y, n=n), n=n)
        return spectrum.real, spectrum.imag, z.real, z.imag, back.real, filtered

    ok(call, X, Y, tolerance=2e-5)


@pytest.mark.parametrize("unroll", [0, 10**6])
@pytest.mark.parametrize("reverse", [False, True])
def test_loops(unroll, reverse):
    """Written out and as a Scan: carries, series, none of them, complex ones."""
    kernel = RNG.normal(size=(6, 6)).astype(np.float32)

    def call(weights, x):
        scale = jnp.exp(x[0, 0])

        def body(carry, xs):
            h, z, n = carry
            row, t = xs
            h = jnp.tanh(h @ weights["kernel"] + row * scale)
            z = z * (0.5 + 0.5j) + lax.complex(row, h)
            return (h, z, n + t), (h * 2, z)

        start = (x[:, 0], jnp.zeros((2, 6), jnp.complex64), jnp.int32(0))
        series = (jnp.moveaxis(x, 1, 0), jnp.arange(5))
        (h, z, n), (ys, zs) = lax.scan(body, start, series, reverse=reverse)
        halved, _ = lax.scan(lambda c, _: (c * 0.5 + scale, None), h, None, length=3)
        return h, z.real, z.imag, n, ys, zs.real, halved

    model = ok(call, X, weights={"kernel": kernel}, unroll=unroll, tolerance=1e-5)
    loops = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(loops) == (0 if unroll else 2)


def test_a_loop_inside_a_loop():
    def call(x):
        def outer(c, row):
            inner, _ = lax.scan(lambda d, v: (jnp.sin(d + v + c.sum()), None), c, row)
            return inner, inner.sum()

        return lax.scan(outer, jnp.zeros(6), x)

    ok(call, X, unroll=0)


def test_calls_are_inlined_and_what_is_known_is_computed():
    def call(weights, x):
        decay = -jnp.exp(weights["params/a"])
        wrapped = jax.checkpoint(jax.jit(lambda x: jnp.sin(x) * decay))
        return jax.nn.relu(wrapped(x)) + jnp.arange(6.0) ** 2

    model = ok(call, X, weights={"params/a": RNG.normal(size=6).astype(np.float32)})
    operations = [node.op_type for node in model.graph.node]
    assert sorted(operations) == ["Add", "Max", "Mul", "Sin"]
    assert "params/a/folded" in {x.name for x in model.graph.initializer}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]


def test_what_no_output_needs_is_left_out_even_where_it_has_no_counterpart():
    def call(x):
        jax.random.normal(jax.random.key(0), x.shape) + lax.lgamma(x)
        return x + 1

    model = ok(call, X)
    assert [node.op_type for node in all_nodes(model.graph)] == ["Add"]


def test_an_operation_without_a_counterpart_is_named_with_its_caller():
    def gamma_of(x):
        return lax.lgamma(x) * 2

    with pytest.raises(ConversionError, match="lgamma has no counterpart") as error:
        ok(gamma_of, X)
    assert "(gamma_of)" in str(error.value)
    assert "test_to_onnx.py" in str(error.value)
    assert "\n" not in str(error.value)


def test_draws_are_refused():
    with pytest.raises(ConversionError, match="draws random numbers"):
        ok(lambda x: x + jax.random.normal(jax.random.key(0), x.shape), X)


def test_a_type_without_kernels_is_refused():
    with pytest.raises(ConversionError, match="bfloat16"):
        ok(lambda x: jnp.sin(x.astype(jnp.bfloat16)).astype(jnp.float32), X)


def norms(weights, x):
    """flax's LayerNorm with its exact variance, and with its fast one."""
    mean = x.mean(-1, keepdims=True)
    centred, exact = x - mean, ((x - mean) ** 2).mean(-1, keepdims=True)
    fast = jnp.maximum(0.0, (x * x).mean(-1, keepdims=True) - mean**2)
    scale, bias = weights["scale"], weights["bias"]
    return (
        centred * (lax.rsqrt(exact + 1e-6) * scale) + bias,
        centred * (lax.rsqrt(fast + 1e-6) * -scale) + bias,
    )


# Rule -> what it is about, and the operators it leaves: all others are gone.
SMALLER = {
    "views": (lambda _, x: jnp.exp(x[:, None])[:, 0] + x, "Add Exp"),
    "neutral": (
        lambda _, x: (x + 0.0) * 1.0 + jnp.exp(x / 1 - jnp.zeros(6)),
        "Add Exp",
    ),
    "mean": (lambda _, x: x.mean(1), "ReduceMean Reshape"),
    "squares": (lambda _, x: (x * x).sum(1), "ReduceSumSquare Reshape"),
    "quotient": (lambda _, x: x * lax.rsqrt(x * x + 1), "Add Div Mul Sqrt"),
    "layer_norm": (norms, "LayerNormalization"),
    "bias": (norms, "LayerNormalization"),
    "turned": (
        lambda _, x: 2 * x.transpose(2, 0, 1).transpose(2, 1, 0),
        "Mul Transpose",
    ),
    "swapped": (lambda _, x: jnp.where(x != 1, x, 2), "Equal Where"),
    "bounded": (lambda w, x: w["scale"][x.argmax(2)], "ArgMax Cast Gather Reshape"),
}


@pytest.mark.parametrize("rule", SMALLER)
def test_a_rule_makes_fewer_nodes_and_the_same_numbers(rule):
    """Within 1e-6 of the graph without rules, in ONNX Runtime."""
    call, left = SMALLER[rule]
    weights = {"scale": Y[0, 0], "bias": Y[0, 1]}
    small, large = (convert(call, weights, X, rules=r) for r in (RULES, ()))
    found, plain = (open_model(model)({"x0": X}) for model in (small, large))
    for name, x in plain.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-6, atol=1e-6)
    assert {node.op_type for node in small.graph.node} == set(left.split())
    without = convert(call, weights, X, rules=[name for name in RULES if name != rule])
    assert len(without.graph.node) > len(small.graph.node)


def test_every_rule_is_tested_and_told():
    assert set(SMALLER) == set(RULES)
    table = README.read_text().split("## Smaller graphs")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.M) == list(RULES)


def test_the_readme_tells_every_primitive():
    text = README.read_text().split("## Supported primitives")[1]
    real, pairs = text.split("Complex numbers", 1)
    told = set(re.findall(r"`([\w-]+)`", real))
    assert told == {*converter.HANDLERS, *converter.CALLS, "scan"}
    told = set(re.findall(r"`([\w-]+)`", pairs.split("Not supported")[0]))
    assert told == set(complexes.HANDLERS)


def test_a_copy_of_the_folder_is_the_whole_converter(tmp_path):
    """The README's example runs with the room under another name, alone."""
    shutil.copytree(README.parent, tmp_path / "lifted")
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    example = example.replace("jaxbench.to_onnx", "lifted")
    example += "\nimport sys\nassert 'jaxbench' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 1\n")


def test_check_names_the_output_that_differs():
    model = convert(lambda w, x: (x, x * w), np.float32(2), X)
    with pytest.raises(ConversionError, match=r"y/1 differs from jax's by"):
        check(model, lambda w, x: (x, x * w + 1e-3), np.float32(2), X)
    with pytest.raises(ConversionError, match=r"y/0 is float32.* and jax's int32"):
        check(model, lambda w, x: (x.astype(int), x), np.float32(2), X)


def test_trees_and_names():
    def call(params, batch, h):
        return {"h": h + batch["x"] @ params["out"]["kernel"], "twice": 2 * h}

    params = {"out": {"kernel": np.eye(6, dtype=np.float32)}}
    model = convert(call, params, {"x": X}, Y)
    assert [x.name for x in model.graph.input] == ["x0/x", "x1"]
    assert [x.name for x in model.graph.output] == ["y/h", "y/twice"]
    assert [x.name for x in model.graph.initializer][:1] == ["out/kernel"]
    check(model, call, params, {"x": X}, Y)


def test_a_complex_output_is_refused():
    with pytest.raises(ConversionError, match="output y is complex"):
        convert(lambda _, x: lax.complex(x, x), {}, X)
