"""Widths and depths from a number of parameters, and the command that lists them."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import jaxbench
from drawn import draw

from jaxbench.cli import main
from jaxbench.errors import InputError
from jaxbench.layers.norms import norm
from jaxbench.mixers.channel import GLU
from jaxbench.mixers.llama_legacy import LlamaLegacy
from jaxbench.models import sizes
from jaxbench.models.backbone import resolve
from jaxbench.models.block import Block, Handed
from jaxbench.models.build import build_stack, count_parameters, state_bytes
from jaxbench.models.row import SIZES
from jaxbench.models.sizes import Counter, Shape, solve
from jaxbench.models.zoo import ROWS

# Whole stacks, many of each: minutes together.
pytestmark = pytest.mark.integration

ALONE = list(ROWS)
PUBLISHED = [name for name, row in ROWS.items() if row.published is not None]

# One of each way in which a count is unlike the others: linear in the width, parameters
# that depend on the place in the stack, weights that are shared or hand things up,
# heads that make widths coarse, whole windows, a depth of its own.
SPREAD = [
    *("gru", "mamba2", "rwkv", "hgrn", "reservoir"),
    *("zamba", "griffin", "fnet", "decision_transformer"),
]
PATTERNS = ["mamba2*2+swa", "mamba*2+@swa", "mamba/moe+gla"]


def counted(name: str, shape: Shape, compat: bool = False) -> tuple[int, int]:
    """Parameters and state bytes of the stack that is built, all layers traced."""
    stack = build_stack(
        name,
        width=shape.width,
        depth=shape.depth,
        options=shape.options,
        compat=compat,
    )
    x_btd = jax.ShapeDtypeStruct((1, 2, shape.width), jnp.float32)
    variables = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
    state = jax.eval_shape(
        lambda variables: stack.apply(variables, 1, method="initial_state"), variables
    )
    embedding = 256 * shape.width
    return count_parameters(variables["params"]) + embedding, state_bytes(state)


def check(name: str, size: str) -> None:
    shape = solve(name, size)
    assert abs(shape.parameters / SIZES[size].parameters - 1) <= 0.01
    parameters, state = counted(name, shape)
    assert shape.parameters == parameters
    assert Counter(name, shape.options).state_bytes(shape.width, shape.depth) == state
    assert {layer.name for layer in resolve(name).layers(shape.depth)} == {
        layer.name for layer in resolve(name).elements
    }


@pytest.mark.parametrize("name", [*SPREAD, *PATTERNS])
def test_a_million_parameters(name):
    check(name, "1m")


def _others() -> list:
    """The other rows; where heads make widths coarse, before every change."""
    coarse = {"performer", "retnet", "swa", "rope_report", "kda"}
    return [
        pytest.param(
            name,
            marks=pytest.mark.integration if name in coarse else pytest.mark.slow,
        )
        for name in ALONE
        if name not in SPREAD
    ]


@pytest.mark.parametrize("name", _others())
def test_every_row_has_a_million_parameters(name):
    check(name, "1m")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["10m", "100m", "350m"])
@pytest.mark.parametrize("name", [*SPREAD, *PATTERNS])
def test_larger_sizes(name, size):
    check(name, size)


@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [("mamba2", 896, 20), ("llama", 640, 20), ("lru", None, 20)],
)
def test_a_hundred_million_parameters(name, width, depth):
    shape = solve(name, "100m")
    assert abs(shape.parameters - 100e6) <= 1e6
    assert shape.depth == depth
    assert width is None or abs(shape.width - width) <= 16


def test_the_size_s_depth_comes_first():
    assert {n: solve(n, "100m").depth for n in ("gru", "mamba", "s4")} == {
        "gru": 20,
        "mamba": 20,
        "s4": 20,
    }
    assert solve("gru", "1m").depth == 4
    # Whole repeats of a pattern; a model that is one layer stays one.
    assert solve("zamba", "1m").depth == len(resolve("zamba").elements)
    assert solve("last_frame_mlp", "100m").depth == 1


def test_the_roundest_width_that_fits_is_taken():
    shape = solve("gru", "100m")
    power = shape.width & -shape.width
    assert power < 64
    below = shape.width // (2 * power) * (2 * power)
    for width in (below - 2 * power, below, below + 2 * power):
        assert abs(Counter("gru", {}, table=256).exact(width, 20) - 100e6) > 1e6


def test_a_given_depth_and_options_are_kept():
    shape = solve("mamba2", "10m", depth=3, options={"state_size": 16})
    assert shape.depth == 3 and shape.options == {"state_size": 16}
    assert abs(shape.parameters - 10e6) <= 1e5
    assert counted("mamba2", shape)[0] == shape.parameters
    wider = solve("mamba2", "10m", depth=3)
    assert wider.width < shape.width


def test_the_same_question_has_the_same_answer():
    first = solve("griffin", "10m")
    sizes._trace.cache_clear()
    assert solve("griffin", "10m") == first
    assert solve(" sliding_window ", "10m") == solve("swa", "10m")


def test_widths_that_a_mixer_refuses_are_passed_over():
    shape = solve("swa", "10m", options={"heads": 7})
    assert shape.width % 14 == 0
    assert abs(shape.parameters - 10e6) <= 1e5


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    """The numbers of the source, exactly."""
    published = ROWS[name].published
    shape = solve(name, "published", compat=True)
    assert (shape.width, shape.depth) == (published.width, published.depth)
    assert shape.options == published.shape
    assert shape.parameters == published.parameters
    clean = solve(name, "published")
    assert (clean.width, clean.depth) == (shape.width, shape.depth)


@pytest.mark.parametrize("name", ["mamba2", "gated_deltanet", "llama_legacy"])
def test_published_counts_of_whole_stacks(name):
    shape = solve(name, "published", compat=True)
    assert counted(name, shape, compat=True)[0] == ROWS[name].published.parameters


def test_published_counts_from_the_formulas():
    """Counted on paper from the equations, D in all layers, L = 20."""

    def total(width, layer, last):
        return 20 * layer + 256 * width + last

    d, inner, state, heads = 896, 1792, 128, 28
    conv = inner + 2 * state
    mamba2 = d * (inner + conv + heads) + 5 * conv + 3 * heads + inner + inner * d
    assert ROWS["mamba2"].published.parameters == total(d, mamba2 + 2 * d, 2 * d)
    d, heads = 768, 6
    delta = 2 * d * d + 3 * 2 * d * d + 2 * heads * d + 4 * 4 * d + 2 * heads + 256
    assert ROWS["gated_deltanet"].published.parameters == total(d, delta + d, d)
    d, hidden = 640, 1792
    llama = 4 * d * d + 3 * d * hidden + 2 * d
    assert ROWS["llama"].published.parameters == total(d, llama, d)
    assert ROWS["llama_legacy"].published.parameters == total(d, llama + d, d)


def test_published_faults_are_of_compat_alone():
    compat, clean = (resolve("gated_deltanet", compat).elements for compat in (1, 0))
    assert (compat[0].channel, clean[0].channel) == ("none", "glu")
    assert resolve("gated_deltanet/mlp", True).elements[0].channel == "mlp"
    assert resolve("mamba2", True).elements[0].norm == "layer"
    assert resolve("mamba2").elements[0].norm == "rms"


@pytest.mark.parametrize(
    ("name", "size", "options", "said"),
    [
        ("gru", "2m", {}, "size='2m' is unknown; nearest: 1m"),
        ("gruu", "1m", {}, "no backbone is called 'gruu'; nearest: gru"),
        ("gru", "published", {}, "'gru' was not published"),
        ("mamba2*2+llama", "published", {}, "these were: mamba2"),
        ("gru", "1m", {"depth": 0}, "depth=0"),
        ("gru", "1m", {"depth": 600}, "between 1 and 512"),
        ("gru", "1m", {"options": {"haeds": 2}}, "no option 'haeds'"),
        ("swa", "1m", {"options": {"heads": -1}}, "heads=-1 does not divide"),
        ("mamba", "1m", {"options": {"state_size": "x"}}, "must be int"),
        ("swa", "1m", {"depth": 3}, "967,200 at width 160 and depth 3"),
        ("liquid", "350m", {"depth": 1}, "nearest: "),
        ("gru", "1m", {"depth": 512}, "no width of backbone 'gru' at depth 512"),
        ("zamba_attention", "1m", {"depth": 1}, "only feeds the layer after it"),
        ("zamba_attention", "1m", {}, "only feeds the layer after it"),
    ],
)
def test_bad_questions(name, size, options, said):
    with pytest.raises(InputError) as error:
        solve(name, size, **options)
    message = str(error.value)
    assert said in message and "\n" not in message


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="heads=4 does not divide width=30"):
        Counter("swa", {}).exact(30, None)
    with pytest.raises(InputError, match="width=0 must be at least 1"):
        Counter("swa", {}).exact(0, None)


def test_hidden_width_of_llama():
    def hidden(width, **options):
        x = jax.ShapeDtypeStruct((1, 1, width), jnp.float32)
        made = jax.eval_shape(GLU(width, **options).init, jax.random.key(0), x)
        return made["params"]["out"]["kernel"].shape[0]

    for width in (16, 96, 97, 512, 640, 1024, 4096):
        assert hidden(width, multiple=256) == 256 * math.ceil(8 * width / 3 / 256)
        assert hidden(width) == max(64, 64 * round(8 * width / 3 / 64))
    with pytest.raises(InputError, match="multiple=-1 must not be negative"):
        hidden(16, multiple=-1)


def test_a_legacy_block_returns_its_input_beside_what_it_adds():
    """With both branches silenced nothing but the input is left: the defect."""
    x_btd = jax.random.normal(jax.random.key(1), (2, 5, 32))
    block = LlamaLegacy(32)
    params = draw(block, x_btd)["params"]
    for name in ("attention_out", "out"):
        params[name] = jax.tree.map(jnp.zeros_like, params[name])
    y_btd, _ = jax.jit(block.apply)({"params": params}, x_btd)
    np.testing.assert_array_equal(y_btd, x_btd)


def test_a_legacy_block_is_llama_s_inside():
    """One layer of it is `llama` on the norm of the stream, added to the stream."""
    frames = jax.random.normal(jax.random.key(1), (2, 7, 128))
    legacy = build_stack("llama_legacy", width=128, depth=1)
    variables = jax.jit(legacy.init)(jax.random.key(0), frames)
    given = variables["params"]["blocks_0"]["mixer"]
    joined = [given[name]["kernel"] for name in ("query", "key", "value")]
    mixer = {
        "qkv": {"kernel": jnp.concatenate(joined, 1)},
        "out": given["attention_out"],
    }
    both = [given[name]["kernel"] for name in ("gate", "in")]
    channel = {"in": {"kernel": jnp.concatenate(both, 1)}, "out": given["out"]}
    block = {
        "mixer_norm": given["attention_norm"],
        "mixer": mixer,
        "channel_norm": given["channel_norm"],
        "channel": channel,
    }

    def rms(x):
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    params = {"blocks_0": block, "norm": {"scale": jnp.ones(128)}}
    llama = build_stack("llama", width=128, depth=1)

    @jax.jit
    def by_hand(params, frames):
        inside = llama.bind({"params": params}).blocks["0"]
        handed, _ = inside(Handed(rms(frames), None, {}))
        return rms(frames + handed.x_btd)

    expected = by_hand(params, frames)
    actual, _ = jax.jit(legacy.apply)(variables, frames)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def initial_loss(name: str) -> float:
    """Nats a byte on random bytes before training, at the published size."""
    shape = solve(name, "published")
    layers = build_stack(name, width=shape.width, depth=shape.depth).layers
    keys = jax.random.split(jax.random.key(0), 2 + shape.depth)
    embedding = 0.02 * jax.random.normal(keys[0], (256, shape.width))
    bytes_bt = jax.random.randint(keys[1], (2, 33), 0, 256)
    # All layers are alike: one is compiled instead of twenty.
    (layer,) = set(layers)
    branches = len(layers) * (1 + (layer.channel != "none"))
    block = Block(layer, shape.width, branches=branches)
    init, apply = jax.jit(block.init), jax.jit(block.apply)
    handed = Handed(embedding[bytes_bt[:, :-1]], None, {})
    for key in keys[2:]:
        handed, _ = apply(init(key, handed), handed)
    h_btd = norm(layer.norm, jnp.float32).apply(
        {"params": {"scale": jnp.ones(shape.width)}}, handed.x_btd
    )
    log_btv = jax.nn.log_softmax(h_btd @ embedding.T)
    return -float(jnp.take_along_axis(log_btv, bytes_bt[:, 1:, None], -1).mean())


@pytest.mark.slow
def test_llama_starts_by_guessing_and_its_legacy_by_repeating():
    assert initial_loss("llama") == pytest.approx(math.log(256), abs=0.2)
    assert initial_loss("llama_legacy") == pytest.approx(9.7, abs=0.8)


def test_the_command_lists_sizes(capsys):
    flags = ["--json", "--task=pile", "--size=1m", "mamba2*2+attention"]
    assert main(["list", *flags]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    shape = solve("mamba2*2+swa", "1m")
    assert row["name"] == "mamba2*2+swa" and row["reason"] == ""
    assert (row["width"], row["depth"]) == (shape.width, shape.depth)
    assert row["parameters"] == shape.parameters
    assert row["backbone"] == shape.parameters - 256 * shape.width
    state = Counter("mamba2*2+swa", {}).state_bytes(shape.width, shape.depth)
    assert row["state_bytes"] == state
    assert row["published"] is None and row["compat_parameters"] is None


@pytest.mark.slow
def test_the_command_lists_what_was_published(tmp_path):
    flags = ["list", "--task=pile", "--size=published"]
    done = jaxbench(*flags, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == PUBLISHED
    for row in rows:
        assert row["compat_parameters"] == row["published"]
        assert row["reason"] == ""
    shown = jaxbench(*flags, "--markdown", cwd=tmp_path).stdout
    lines = [line for line in shown.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(PUBLISHED)
    assert "| 101,770,880 | 101,770,880 |" in shown
    assert "101,770,880" in jaxbench(*flags, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size=1m"], "add --task=pile"),
        (["--task=pule"], "--task='pule' is unknown; nearest: pile"),
        (["--task=pile", "--size=10"], "--size='10' is unknown; nearest: 10m"),
        (["--task=pile", "--size=1m", "--sizes"], "not for --task"),
        (["--task=pile", "--size=published", "gru"], "'gru' was not published"),
        (["--task=pile", "grru"], "no backbone is called 'grru'"),
    ],
)
def test_the_command_refuses(flags, said, capsys):
    assert main(["list", *flags]) == 2
    out, err = capsys.readouterr()
    assert not out and said in err and err.count("\n") == 1
