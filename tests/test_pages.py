"""A page for each backbone: what rows say of themselves, and what is made of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxbench.bench.pages import forms, page, read_boards
from jaxbench.bench.pages.__main__ import main as documents_command
from jaxbench.bench.pages.board import costs, folders, places
from jaxbench.bench.pages.documents import backbone_texts, board_texts, stale
from jaxbench.bench.pages.options import (
    differences,
    meanings,
    option_table,
    section,
)
from jaxbench.bench.pages.page import primitives, size_of
from jaxbench.errors import InputError
from jaxbench.models import zoo
from jaxbench.models.backbone import resolve
from jaxbench.models.block import GIVEN, field_names, mixer_class
from jaxbench.models.build import build_stack
from jaxbench.models.row import CHANNELS, Row
from jaxbench.models.zoo import FAMILIES, ORIGINAL, ROWS, merge
from jaxbench.ops import forms as table_of_forms

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "backbones"
MIXERS = [name for name, row in ROWS.items() if row.mixer]
FUNCTIONS = {name.partition(":")[0] for name in forms.PRIMITIVES}

# What mixers import from `jaxbench.ops` that is no primitive.
PARTS = {
    "AttentionCache", "DEGREE", "FastWeights", "InnerModel", "NormalizedState",
    "Routing", "block_product", "expert_share", "hash_bits", "hash_routing",
    "hippo_legs_nplr",
    "initial_cache", "initial_fast_weights", "initial_state", "load_balance",
    "lstm_step", "mini_batch_places", "mix_all_experts", "positions",
    "switch_routing", "top_k_routing", "toeplitz",
}  # fmt: skip


def used_of_ops(mixer: str) -> set[str]:
    """Names from `jaxbench.ops` that a mixer class reaches inside its file."""
    file, name = mixer.split(":")
    tree = ast.parse((ROOT / "jaxbench" / "mixers" / f"{file}.py").read_text())
    imported = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.startswith("jaxbench.ops."):
                    imported[alias.name] = alias.name
                elif alias.name == "ShortConvolution":
                    imported[alias.name] = "short_convolution"
    local = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    seen, todo = set(), [name]
    while todo:
        node = local[todo.pop()]
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        todo += [n for n in names - seen if n in local]
        seen |= names
    return {imported[n] for n in seen if n in imported}


def documented_sizes() -> dict[str, tuple[int, int] | None]:
    """Parameters and state bytes from docs/backbones.md."""
    lines = (ROOT / "docs" / "backbones.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    header, *rows = cells
    at = [header.index("parameters"), header.index("state bytes")]
    found: dict[str, tuple[int, int] | None] = {}
    for row in rows:
        numbers = [row[i].replace(",", "") for i in at]
        name = row[0].split(",")[0]
        found[name] = None if "-" in numbers else (int(numbers[0]), int(numbers[1]))
    return found


def test_rows_explain_themselves():
    """Three sentences, the first of which is in the index, and an equation."""
    for name, row in (ROWS | zoo.PARTS).items():
        assert len(re.findall(r"[.!?](?:\s|$)", row.about)) == 3, name
        if row.pattern:
            assert not row.equation and not row.primitives, name
        else:
            mixer = mixer_class(row.mixer)
            lines = (row.equation or section(mixer, "Equations")).splitlines()
            assert 1 <= len(lines) <= 4 and max(map(len, lines)) <= 88, name
            assert not set(row.differences) & set(differences(mixer)), name


def test_primitives_are_those_the_mixers_call():
    for name, row in (ROWS | zoo.PARTS).items():
        if row.mixer:
            used = used_of_ops(row.mixer)
            assert used <= FUNCTIONS | PARTS, name
            named = [text.partition(":")[0] for text in row.primitives]
            assert set(named) == used & FUNCTIONS, name
            assert len(named) == len(set(named)), name
            assert set(row.primitives) <= set(forms.PRIMITIVES), name
    for name, channel in CHANNELS.items():
        used = used_of_ops(channel.mixer) & FUNCTIONS
        assert set(forms.OF_CHANNELS.get(name, ())) == used, name


@pytest.mark.integration
def test_pages_name_the_lines_of_the_table_of_forms_that_run(monkeypatch):
    """Two frames through each row: what `choose` is asked is what the page shows."""
    asked: set[str] = set()
    choose = table_of_forms._choose

    def recorded(primitive: str, *shape) -> str:
        asked.add(primitive)
        return choose(primitive, *shape)

    monkeypatch.setattr(table_of_forms, "_choose", recorded)
    x_btd = jax.ShapeDtypeStruct((1, 2, 16), jnp.float32)
    for name in MIXERS:
        if not ROWS[name].temporal:
            continue
        asked.clear()
        stack = build_stack(name, width=16, depth=1)
        jax.eval_shape(stack.init, jax.random.key(0), x_btd)
        shown = [forms.PRIMITIVES[p] for p in primitives(resolve(name))]
        keys = {p.key for p in shown if p.key}.union(*(p.inside for p in shown))
        assert asked == keys, name


def test_every_form_of_the_table_has_words_and_a_primitive():
    keys = {p.key for p in forms.PRIMITIVES.values()} - {""}
    assert keys == {row["primitive"] for row in table_of_forms.rows()}
    for row in table_of_forms.rows():
        words = forms.in_words(row["form"])
        assert "{" not in words and row["form"].partition(":")[2] in words
    for primitive in forms.PRIMITIVES.values():
        assert primitive.key or primitive.rule


def test_ranges_of_lengths_are_joined_where_nothing_changes(monkeypatch):
    def line(top: int | None, form: str, backend: str = "cpu", source: str = "timed"):
        return table_of_forms.Row(
            primitive="gru",
            backend=backend,
            max_length=top,
            max_state=None,
            form=form,
            source=source,
        )

    lines = (
        line(16, "scan"),
        line(64, "scan"),
        line(256, "deferred"),
        line(None, "chunks:8"),
        line(None, "scan", "gpu", "unmeasured"),
    )
    monkeypatch.setattr(forms, "rows", lambda: lines)
    shown = [row[1:] for row in forms.form_table(["gru_scan"])]
    assert [row[:2] for row in shown] == [
        ["CPU", "up to 64"],
        ["CPU", "65 to 256"],
        ["CPU", "above 256"],
        ["GPU", "any"],
    ]
    assert shown[2][2] == "matrix products over chunks of 8 frames"
    assert [row[3] for row in shown] == ["timed"] * 3 + ["a guess, unmeasured"]


def test_every_option_is_told_with_the_value_the_row_gives_it():
    layers = {layer for name in ROWS for layer in resolve(name).elements}
    for layer in layers:
        table = option_table(layer)
        assert all(told.strip() for *_, told in table)
        shown = {cell.strip("`"): value.strip("`") for cell, value, _ in table}
        own = set(field_names(mixer_class(layer.mixer))) - GIVEN
        assert {key for key in shown if not key.startswith("channel.")} == own
        for key, value in layer.options:
            number = f"{value:.4g}" if isinstance(value, float) else ""
            assert shown[key] in (str(value), number)


def test_meanings_are_read_from_the_docstring():
    told = meanings(mixer_class("attention:SlidingWindowAttention"))
    assert told["heads"].startswith("H query heads of K = D / H channels; 0 is one")
    assert told["qk_norm"].startswith("RMS-normalise each head's")
    assert told["qk_norm"].endswith("whatever the weights.")
    mixer = mixer_class("retnet:Retention")
    assert section(mixer, "Equations").startswith("γ_h = 1 - 2^(-5-h), not trained;")
    first, second = differences(mixer)
    assert first.endswith("length factors, which the decay makes redundant.")
    assert second.startswith("The three normalisations") and section(mixer, "No") == ""


def test_documents_are_those_of_the_rows_and_results():
    """`python -m jaxbench.bench.pages` writes them; sizes are taken as they stand."""
    assert stale(board_texts() | backbone_texts(known=documented_sizes())) == []


@pytest.mark.integration
def test_documents_with_sizes_computed_anew(capsys):
    assert documents_command(["--check"]) == 0, capsys.readouterr().out


def test_stale_documents_are_named(tmp_path):
    (tmp_path / "docs" / "backbones").mkdir(parents=True)
    texts = {"docs/backbones.md": "a", "docs/backbones/gone.md": "b"}
    texts |= {"docs/backbones/old.md": "new", "docs/backbones/same.md": "c"}
    for name, text in {"old": "old", "same": "c", "no_row": "d"}.items():
        (tmp_path / "docs" / "backbones" / f"{name}.md").write_text(text)
    found = [path.partition("backbones")[2] for path in stale(texts, tmp_path)]
    assert found == [".md", "/gone.md", "/no_row.md", "/old.md"]


def test_links_and_tables_of_pages_are_whole():
    for path in PAGES.iterdir():
        text = path.read_text()
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("https://arxiv.org/abs/"):
                assert re.fullmatch(r"\d{4}\.\d{4,5}", target.rsplit("/", 1)[1])
            else:
                assert (PAGES / target).resolve().exists(), (path, target)
        for block in text.split("\n\n"):
            if block.startswith("| "):
                bars = {len(re.findall(r"(?<!\\)\|", x)) for x in block.splitlines()}
                assert len(bars) == 1, (path, block)


def test_an_alias_has_the_page_of_its_row():
    text = page("sliding_window", width=16, boards=())
    assert text == page("swa", width=16, boards=())
    parameters, state = size_of("swa", 16)
    assert f"| parameters | {parameters:,} |" in text
    assert f"| state of one sequence | {state:,} bytes |" in text
    assert "On no board of `results` yet." in text
    assert "No run is in the repository" in text
    with pytest.raises(InputError, match="no backbone is called 'swaa'"):
        page("swaa")


HEADER = (
    "board,kind,name,backbone,status,seeds,score,score_mean,rank_low,rank_high,"
    "steps_per_s,predicted_bytes,peak_bytes,latency_step_p99\n"
)


def test_boards_give_a_page_its_costs_and_places(tmp_path):
    tables = {
        "one": "a,row,s4,s4,ok,3,loss,1.25,1,2,4.0,3145728,,\n"
        "a,floor,marginal,,,,loss,4.5,,,,,,\n"
        "a,row,ttt,ttt,oom,0,loss,,,,,,,\n",
        "two": "b,row,swa,sliding_window,ok,1,accuracy,0.5,,,2.0,,,0.5\n"
        "across,row,s4,s4,ok,3,iqm,0.5,,,,,,\n",
    }
    for name, lines in tables.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "leaderboard.csv").write_text(HEADER + lines)
    boards = read_boards(tmp_path)
    assert places("s4", boards) == [["`one`: a", "`s4`", "loss 1.2500", "3", "1 to 2"]]
    assert costs("s4", boards) == [["`one`: a", "`s4`", "4", "3 MiB", "-", "-", "-"]]
    assert places("swa", boards)[0][2:] == ["accuracy 0.5000", "1", "not compared"]
    assert costs("swa", boards)[0][-1] == "0.50 ms"
    assert places("ttt", boards)[0][2:] == ["oom", "0", "not compared"]
    assert places("gru", boards) == costs("ttt", boards) == []
    assert folders("s4", boards) == "one"
    text = page("s4", width=16, boards=boards)
    assert "| `one`: a | `s4` | loss 1.2500 | 3 | 1 to 2 |" in text


def test_a_table_that_cannot_be_read_is_a_line(tmp_path):
    assert read_boards(tmp_path / "nothing") == ()
    path = tmp_path / "board" / "leaderboard.csv"
    path.parent.mkdir()
    path.write_bytes(b"kind\n\xff\n")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_boards(tmp_path)


def test_families_hold_every_row_once_and_the_originals_stand_for_rows():
    assert [name for rows in FAMILIES.values() for name in rows] == list(ROWS)
    row = Row(title="Twice", mixer="recurrent:GRU")
    with pytest.raises(ValueError, match="'gru' is in two families: 'one' and 'two'"):
        merge({"one": {"gru": row}, "two": {"lstm": row, "gru": row}})
    assert len(ORIGINAL) == 34
    assert {old: resolve(old).name for old in ORIGINAL} == ORIGINAL
