"""Stacks of as many parameters, or of as much work a token, and the keys that ask."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from configs import pentathlon, zelda
from jaxbench.bench import build
from jaxbench.bench.check import check_values
from jaxbench.errors import InputError
from jaxbench.models import sizes
from jaxbench.models.backbone import resolve
from jaxbench.models.build import build_stack, count_parameters
from jaxbench.models.flops import count_flops
from jaxbench.models.sizes import Counter, match, search_width
from jaxbench.ops.forms import choose, forms_of
from jaxbench.tasks.rules import parse_count

# Whole stacks, many of each: minutes together.
pytestmark = pytest.mark.integration

# Linear and square in the width, shared weights, layers that hand things up, heads that
# make widths coarse, whole windows, forms that another backend has not.
SPREAD = [
    *("gru", "mlp/conv", "mamba2*2+@swa", "zamba", "rwkv", "fnet", "deltanet/noconv"),
]


def traced(name: str, width: int, depth: int | None, length: int) -> tuple[int, float]:
    """Parameters, and FLOPs a token, of the stack that is built, traced in one."""
    stack = build_stack(name, width=width, depth=depth)
    x_btd = jax.ShapeDtypeStruct((1, length, width), jnp.float32)
    variables = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
    flops = count_flops(stack.apply, variables, x_btd)
    return count_parameters(variables["params"]), flops / length


@pytest.mark.parametrize("name", SPREAD)
def test_parameters_of_the_stack_within_five_percent(name):
    shape = match(name, 150_000)
    assert abs(shape.parameters - 150_000) <= 0.05 * 150_000
    assert shape.depth == resolve(name).default_depth
    parameters, flops = traced(name, shape.width, shape.depth, 8)
    assert shape.parameters == parameters
    counted = Counter(name, {}, length=8).exact(shape.width, shape.depth)
    assert counted == round(flops)


@pytest.mark.parametrize("name", ["gru", "mamba2*2+@swa", "zamba", "fnet", "swa/conv"])
def test_flops_a_token_within_five_percent(name):
    shape = match(name, 1_000_000, length=16)
    parameters, flops = traced(name, shape.width, shape.depth, 16)
    assert abs(flops - 1_000_000) <= 0.05 * 1_000_000
    assert shape.parameters == parameters


def test_flops_as_a_person_counts_them():
    """A GRU layer has two products of D by 3 D a token, taps have none."""
    for width, depth in ((32, 1), (48, 3)):
        expected = depth * 2 * 2 * 3 * width**2
        assert Counter("gru", {}, length=64).exact(width, depth) == expected
        assert Counter("gru/conv", {}, length=64).exact(width, depth) == expected
    # Scores and sums over the window cost more in longer sequences, up to the window.
    of = [Counter("transformer", {}, length=n).exact(32, None) for n in (1, 16, 64)]
    assert of[0] < of[1] < of[2]


def test_options_and_depth_are_kept():
    options = {"state_size": 16}
    shape = match("mamba2", 100_000, depth=1, options=options)
    assert shape.depth == 1 and shape.options == options
    assert match("mamba2", 100_000, depth=1).width < shape.width
    flops = match("swa", 2_000_000, depth=1, options={"heads": 7}, length=64)
    assert flops.width % 14 == 0


def test_a_convolution_is_part_of_what_is_matched():
    counts = [match(f"gru{s}", 100_000, depth=1) for s in ("", "/conv")]
    assert counts[0].width == counts[1].width
    assert counts[1].parameters - counts[0].parameters == 4 * counts[0].width


def test_the_same_question_has_the_same_answer_on_every_device(monkeypatch):
    """e42 multiplies matrices in its form for other backends than a CPU."""
    here = match("e42", 200_000, depth=1, length=64)
    sizes._trace.cache_clear()
    sizes._flops.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there = traced("e42", here.width, 1, 64)[1]
    assert there > 1.5 * Counter("e42", {}, length=64).exact(here.width, 1)
    assert match("e42", 200_000, depth=1, length=64) == here
    # What is traced after a count has the forms of the device again.
    assert traced("e42", here.width, 1, 64)[1] == there


def test_forms_of_a_backend_end_with_the_block():
    def form():
        return choose("diagonal", length=8, state_size=8)

    before = form()
    with pytest.raises(ZeroDivisionError), forms_of("gpu"):
        assert form() == "associative"
        assert choose("diagonal", length=8, state_size=8, backend="cpu") == "scan"
        raise ZeroDivisionError
    assert form() == before


class Steps:
    """Counts that jump: heads of 8, a table that costs much at once."""

    backbone, refused = "steps", "only multiples of 8"

    def __init__(self):
        self.seen: dict[tuple[int, int], int] = {}

    def at(self, width, depth):
        if width % 8:
            return None
        self.seen[width, depth] = depth * width**2
        return self.seen[width, depth]


def test_a_width_that_fits_is_found_if_there_is_one():
    for budget in range(400, 20_000, 171):
        found = search_width(Steps(), budget, 2, 0.05)
        near = [w for w in range(8, 256, 8) if abs(2 * w * w / budget - 1) <= 0.05]
        assert (found in near) if near else (found is None), budget
    assert search_width(Steps(), 2 * 512**2, 2, 0.0, widest=256) is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: match("swa", 200_000, depth=2),
            "no width of backbone 'swa' at depth 2 has within 5 % of 200,000 "
            "parameters; nearest: 187,616 at width 88 and depth 2 and 223,104 at "
            "width 96 and depth 2",
        ),
        (
            lambda: match("gru", 5, length=64),
            "within 5 % of 5 FLOPs a token; nearest: 24 at",
        ),
        (
            lambda: match("fnet/none", 90_000),
            "nearest: 24,576 at width 4096",
        ),
        (lambda: match("gru", 0), "0 parameters must be at least 1"),
        (lambda: match("gru", 9, depth=0), "depth=0 for backbone 'gru'"),
        (lambda: match("guu", 9), "no backbone is called 'guu'"),
        (
            lambda: match("gru", 9, options={"heads": 2}),
            "no option 'heads'",
        ),
        (
            lambda: match("swa", 9, options={"heads": -1}, length=64),
            "heads=-1 does not",
        ),
    ],
)
def test_what_cannot_be_matched_says_why(call, said):
    with pytest.raises(InputError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200k", 200_000),
        ("1.5m", 1_500_000),
        ("2000000", 2_000_000),
        (" 1.5M ", 1_500_000),
        ("0.3k", 300),
        ("2g", 2 * 10**9),
        ("1.1k", 1100),
    ],
)
def test_counts_are_read(text, count):
    assert parse_count("model.parameters", text) == count


@pytest.mark.parametrize(
    "text", ["", "k", "-1k", "1.5", "1e6", "2kk", "0", "0.0001k", "1,000", "2 k", "nan"]
)
def test_what_is_no_count_names_the_key(text):
    with pytest.raises(
        InputError, match=r"model.flops=.* must be a number such as 200k"
    ):
        parse_count("model.flops", text)


def recipe(text: str) -> dict:
    data = {"level": "L0", "vocabulary": 64, "filler": "zero", "pairs": 0, "tokens": 0}
    config = pentathlon.recipe("mqar", text, data=data, compat_data={})
    return config.to_dict()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "gru,width=0",
            "model.width=0 must be positive; set it or model.parameters or ",
        ),
        (
            "gru,width=64,parameters=20k",
            "model.width=64 and model.parameters='20k' both say how wide the model is; "
            "keep one of them: set model.width=0 or model.parameters=''",
        ),
        ("gru,width=0,parameters=20k,flops=1m", "'20k' and model.flops='1m' both say"),
        ("gru,width=8,parameters=20k,flops=1m", "all say how wide the model is; keep"),
        ("gru,width=0,parameters=many", "model.parameters='many' must be a number"),
        ("gru,width=0,flops=1.5", "model.flops='1.5' must be a number"),
        ("swa/noconv", "'swa' has no short convolution to take out"),
    ],
)
def test_the_keys_are_checked(text, said):
    with pytest.raises(InputError) as error:
        check_values(recipe(text))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        # Two products of D by 3 D: as many parameters, twice as many FLOPs.
        ("width=0,parameters=30k", (30_000 / 6) ** 0.5),
        ("width=0,flops=60k", (60_000 / 12) ** 0.5),
        ("width=40", 40),
    ],
)
def test_the_keys_decide_the_width(text, near):
    config = recipe(f"gru/conv,depth=1,{text}")
    check_values(config)
    width, depth, options = build.model_shape(config)
    assert depth == 1 and options == {}
    assert math.isclose(width, near, rel_tol=0.05)
    assert build.build_backbone(config).width == width


def test_the_length_of_a_sequence_is_part_of_its_cost():
    text = "transformer,width=0,flops=4m,depth=2"
    short, long = (recipe(f"{text},level={level}") for level in ("L1", "L3"))
    widths = [build.model_shape(config)[0] for config in (short, long)]
    assert widths[0] > widths[1]
    assert build.build_backbone(long).width == widths[1]
    # A curriculum costs what its last level does.
    both = recipe(f"{text},level=L1..L3")
    assert build.model_shape(both)[0] == widths[1]


def test_twelve_rows_of_one_size_imitate():
    """195k lies within 5 % of a width of each; coarse heads leave gaps elsewhere."""
    rows = "gru lstm mlp s4 s5 mamba mamba2 swa transformer deltanet rwkv hgrn".split()
    for name in rows:
        config = zelda.get_config(f"{name},parameters=195k").to_dict()
        check_values(config)
        width, depth, options = build.model_shape(config)
        count = Counter(name, options).exact(width, depth)
        assert abs(count - 195_000) <= 0.05 * 195_000, name
    # The last word about the width counts, that of a preset first.
    text = "gru,preset=quick,flops=40k"
    assert zelda.get_config(text).model.width == 0
    assert zelda.get_config("gru,width=8").model.parameters == ""
