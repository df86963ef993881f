"""A task is one folder and one line: nothing outside its folder knows its name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from recipes import recipe

from jaxbench.bench.terms import terms
from jaxbench.errors import InputError
from jaxbench.tasks.table import TASKS, find

ROOT = Path(__file__).resolve().parents[1]
# `data` names players and generators.
NAMED = ("tasks", "data")


def named(node: ast.AST) -> list[str]:
    """Names of tasks that a constant is, or that a collection or a table holds."""
    inside = [node]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        inside = node.elts
    elif isinstance(node, ast.Dict):
        inside = node.keys
    values = [item.value for item in inside if isinstance(item, ast.Constant)]
    return [value for value in values if value in TASKS]


def decisions(source: str) -> list[int]:
    """Lines that compare with a task's name, or hold a table of several names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found += [node.lineno for side in sides if named(side)]
        elif len(named(node)) > 1:
            found.append(node.lineno)
    return found


def test_no_task_is_named_outside_of_its_folder():
    found = {}
    for path in sorted((ROOT / "jaxbench").rglob("*.py")):
        inside = path.relative_to(ROOT / "jaxbench").as_posix()
        if not inside.startswith(NAMED):
            found[inside] = decisions(path.read_text())
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ('x == "pile"', True),
        ('"zelda" != x', True),
        ('x in ("pile", "")', True),
        ('KNOWN = {"mqar": 1, "world": 2}', True),
        ('x["world"] == 3', False),
        ('keys = ("world", "table")', False),
    ],
)
def test_names_are_found_where_they_decide(source, caught):
    assert bool(decisions(source)) == caught


@pytest.mark.parametrize("name", TASKS)
def test_a_line_has_a_recipe_whose_values_pass(name):
    config = recipe(name, "gru")  # checks them
    assert config["task"] == name
    entry = find(name)
    assert entry.positions(config) > 0
    if entry.data_path:
        assert entry.data_path in config["data"]
    for key in entry.rules:
        section, leaf = key.split(".")
        # Tasks that share a description have keys of their own.
        assert leaf in config[section] or list(TASKS.values()).count(TASKS[name]) > 1


def test_descriptions_are_read_without_jax():
    code = (
        "import sys; from jaxbench.tasks.table import TASKS, find\n"
        "[find(name) for name in TASKS]\n"
        "print(sorted({'jax', 'flax', 'peppi_py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_task_from_outside_is_a_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "entry.py").write_text(
        "from jaxbench.tasks.entry import Entry\n"
        "def build(config, width, say):\n    raise AssertionError\n"
        "ENTRY = Entry(build=build)\n"
    )
    (tmp_path / "elsewhere" / "broken.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find("elsewhere.entry").emits == ""
    assert terms("elsewhere.gone").token == "token"  # of a result that came from there
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        find("elsewhere.broken")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pule", "task='pule' is unknown; nearest: pile"),
        ("elsewhere_not.entry", "finds no module elsewhere_not"),
    ],
)
def test_a_task_that_is_not_there_is_one_line(name, said):
    with pytest.raises(InputError, match=said) as error:
        find(name)
    assert "\n" not in str(error.value)


def test_a_model_without_positions_of_its_own_has_a_window():
    assert find("zelda").positions({"data": {"window": 7}}) == 7
    with pytest.raises(InputError, match="there is no level 'L9'"):
        recipe("knapsack", level="L9")
