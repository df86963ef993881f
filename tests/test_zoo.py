"""The table of backbones, and the patterns users write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbench.cli.backbones import table_cells
from jaxbench.errors import InputError
from jaxbench.models import backbone, zoo
from jaxbench.models.backbone import parse, resolve
from jaxbench.models.block import GIVEN, field_names, mixer_class
from jaxbench.models.row import CHANNELS, DEFAULT_DEPTH, STREAMS, Row


def names(text: str) -> list[str]:
    return [element.name for element in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mamba", "mamba"),
        ("mamba*2+swa", "mamba mamba swa"),
        ("mamba + swa*2", "mamba swa swa"),
        ("(mamba*2+swa)*2", "mamba mamba swa mamba mamba swa"),
        ("((gru))*2*2", "gru gru gru gru"),
        ("s4+(gru+(lstm*2))*1+mlp", "s4 gru lstm lstm mlp"),
    ],
)
def test_patterns_are_written_out_in_order(text, expected):
    assert names(text) == expected.split()


def test_at_sign_marks_shared_weights():
    assert [e.shared for e in parse("(mamba+@swa)*2")] == [False, True, False, True]


@pytest.mark.parametrize(
    ("text", "character", "found"),
    [
        ("", 1, "the end"),
        ("mamba+", 7, "the end"),
        ("mamba**2", 7, "'*'"),
        ("mamba*swa", 7, "'swa'"),
        ("mamba*0", 7, "'0'"),
        ("mamba*99999999999999999999", 7, "'99999999999999999999'"),
        ("mamba swa", 7, "'swa'"),
        ("(mamba+swa", 11, "the end"),
        ("mamba)", 6, "')'"),
        ("()", 2, "')'"),
        ("mamba/2", 7, "'2'"),
        ("mamba/", 7, "the end"),
        ("mamba/mlp/mlp", 11, "'mlp'"),
        ("mamba*2/mlp", 8, "'/'"),
        ("(mamba)/mlp", 8, "'/'"),
        ("@", 2, "the end"),
        ("@(mamba)", 2, "'('"),
        ("2*mamba", 1, "'2'"),
    ],
)
def test_what_does_not_parse_is_shown_with_its_place(text, character, found):
    with pytest.raises(InputError) as error:
        resolve(text)
    message = str(error.value)
    assert f"at character {character}, found {found}" in message
    assert repr(text) in message and "\n" not in message


@pytest.mark.parametrize(
    "text", ["gru*512+gru", "(gru*512)*2", "((gru*500)*500)*500", "(gru*300)+(gru*300)"]
)
def test_too_many_layers_are_refused(text):
    with pytest.raises(InputError, match="more than 512 layers"):
        resolve(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="gru+*()@ 12\n", max_size=40))
def test_any_text_parses_or_is_an_input_error(text):
    try:
        assert 1 <= len(parse(text)) <= 512
    except InputError as error:
        assert "\n" not in str(error)


def test_deep_parentheses_do_not_exhaust_the_interpreter():
    assert names("(" * 5000 + "gru" + ")" * 5000) == ["gru"]


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError) as error:
        resolve("mamba*2+swaa")
    message = str(error.value)
    assert "'swaa'" in message and "swa" in message.split("nearest")[1]
    assert "jaxbench list" in message


def test_aliases_stand_for_their_row():
    assert resolve("attention") == resolve("swa") == resolve("sliding_window")
    assert resolve(" mamba*2 + attention").name == "mamba*2+swa"


def test_depth_cycles_the_pattern():
    hybrid = resolve("mamba*2+swa")
    assert [layer.name for layer in hybrid.layers()] == ["mamba", "mamba", "swa"]
    five = [layer.name for layer in hybrid.layers(5)]
    assert five == ["mamba", "mamba", "swa", "mamba", "mamba"]
    assert len(resolve("mamba").layers()) == DEFAULT_DEPTH
    assert len(resolve("last_frame_mlp").layers()) == 1
    assert len(resolve("mamba*1").layers()) == 1
    assert len(resolve("mamba").layers(7)) == 7


@pytest.mark.parametrize("depth", [0, -1, 513])
def test_impossible_depths_are_refused(depth):
    with pytest.raises(InputError, match=f"depth={depth} for backbone 'gru'"):
        resolve("gru").layers(depth)


def test_facts_of_a_pattern_are_the_weakest_of_its_layers():
    assert resolve("mamba+gru").streams == "exact"
    assert resolve("mamba+swa").streams == "unbounded"
    assert resolve("mlp+gru").temporal and not resolve("mlp*2").temporal


def test_pattern_rows_resolve_with_their_overrides(monkeypatch):
    row = Row(
        title="Test",
        pattern="mamba+(swa+gru)*2",
        channel="glu",
        norm="rms",
        options={"swa.window": 8},
    )
    monkeypatch.setitem(zoo.ROWS, "test_hybrid", row)
    layers = resolve("test_hybrid").layers()
    assert [layer.name for layer in layers] == ["mamba", "swa", "gru", "swa", "gru"]
    assert {layer.channel for layer in layers} == {"glu"}
    assert {layer.norm for layer in layers} == {"rms"}
    assert layers[1].options == (("window", 8),)
    assert layers[0].options == layers[2].options == ()
    outer = resolve("@test_hybrid+mlp")
    assert outer.default_depth == 6
    assert [layer.shared for layer in outer.elements] == [True] * 5 + [False]


@pytest.mark.parametrize("name", zoo.ROWS)
def test_rows_are_complete_and_fit_their_mixers(name):
    row = zoo.ROWS[name]
    assert bool(row.mixer) != bool(row.pattern)
    assert row.title and row.streams in STREAMS
    if row.mixer:
        assert row.channel is not None and row.norm is not None
    for layer in resolve(name).elements:
        assert layer.channel in {"none", *CHANNELS}
        fields = field_names(mixer_class(layer.mixer))
        assert fields[:2] == ["width", "dtype"]
        assert {key for key, _ in layer.options} <= set(fields) - GIVEN
        # A field called "init" would replace the method of that name.
        assert not (set(fields) - GIVEN) & set(dir(nn.Module))


def test_state_spaces_have_the_block_of_their_papers():
    """Norm, state space, gated output: no second half, unless it is asked for."""
    for name in ("s4", "s4d", "s5", "lru"):
        assert resolve(name).elements[0].channel == "none"
        (with_mlp,) = resolve(f"{name}/mlp").elements
        assert with_mlp.channel == "mlp" and with_mlp.name == name
        assert resolve(f"{name}/mlp").default_depth == resolve(name).default_depth


def test_a_part_of_patterns_is_no_backbone():
    assert not zoo.PARTS.keys() & zoo.ROWS.keys()
    for name in zoo.PARTS:
        assert resolve(f"gru+@{name}+gru").elements[1].join == "next"
        for text in (name, f"gru+{name}"):
            with pytest.raises(InputError, match="only feeds the layer after it"):
                resolve(text).layers()


def test_names_and_aliases_are_unique_words():
    every = [*zoo.ROWS, *zoo.PARTS]
    for row in zoo.ROWS.values():
        every += row.aliases
    assert len(every) == len(set(every))
    for word in every:
        assert names(word) == [word]


def test_table_is_plain_data():
    rows = backbone.table()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["name"] for row in rows] == list(zoo.ROWS)
    swa = next(row for row in rows if row["name"] == "swa")
    assert swa["aliases"] == ["attention", "sliding_window"]
    assert swa["streams"] == "unbounded" and swa["channel"] == "mlp"


def test_the_documented_table_is_this_one():
    """`jaxbench list --sizes --markdown > docs/backbones.md` writes it."""
    text = (Path(__file__).parents[1] / "docs" / "backbones.md").read_text()
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    header, *documented = lines
    assert len(documented) == len(zoo.ROWS)
    plain = [c for c in header if c not in ("parameters", "state bytes")]
    for line, row in zip(documented, backbone.table(), strict=True):
        cells = dict(zip(header, line, strict=True))
        shown = table_cells(row, [c.strip("| ") for c in plain])
        assert [cells[c].strip("| ") for c in plain] == shown


@pytest.mark.slow
def test_the_documented_sizes_are_these():
    text = (Path(__file__).parents[1] / "docs" / "backbones.md").read_text()
    command = [sys.executable, "-m", "jaxbench.cli", "list", "--sizes", "--markdown"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == text


def test_readme_names_every_backbone():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    named = set(re.findall(r"[a-z_0-9]+", text.split("## Backbones")[1]))
    assert set(zoo.ROWS) <= named


def test_the_table_is_read_without_jax():
    code = (
        "import sys; from jaxbench.models import backbone; backbone.table();"
        "heavy = {'jax', 'flax', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
