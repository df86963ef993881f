"""The house keeps its order: one test for each rule, which names all who break it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxbench"
# Each room may import the rooms before it, never one after it.
ORDER = ("ops", "layers", "mixers", "models", "tasks", "training")
TOP = ("board", "bench", "serving")
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module")
def imported() -> list[tuple[tuple[str, ...], str]]:
    """Where and what: parts of a file's name, dotted name of what it imports."""
    found = []
    for path in FILES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [(parts, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found += [(parts, f"{node.module}.{a.name}") for a in node.names]
    assert len(found) > 1000
    return found


def allowed_rooms(room: str) -> set[str]:
    if room in ORDER:
        allowed = set(ORDER[: ORDER.index(room) + 1])
        return allowed | ({"data"} if room == "tasks" else set())
    if room in ("data", "to_onnx"):
        return {room}
    if room in TOP:
        return {*ORDER, "data", "to_onnx", *TOP[: TOP.index(room) + 1]}
    return {*ORDER, *TOP, "data", "to_onnx", "cli"}


def test_imports_run_one_way(imported):
    def upwards(parts: tuple[str, ...], name: str) -> bool:
        package, room, *_ = *name.split("."), ""
        if package != "jaxbench" or room in ("", "errors", "xla", "__version__"):
            return False
        return room not in allowed_rooms(parts[0]) or room == parts[0] == "mixers"

    assert [found for found in imported if upwards(*found)] == []


def test_primitives_are_of_jax_and_data_of_numpy(imported):
    """No flax in `ops`, no jax at all in `data`."""

    def heavy(parts: tuple[str, ...], name: str) -> bool:
        package = name.partition(".")[0]
        above = package in ("flax", "optax") or name.startswith("jax.experimental")
        if parts[0] == "data":
            return above or package in ("jax", "jaxlib")
        return parts[0] == "ops" and above

    assert [found for found in imported if heavy(*found)] == []


def test_the_converter_stands_alone():
    """Whoever lifts `to_onnx` out of the house needs nothing else of it."""
    outside = []
    for path in (PACKAGE / "to_onnx").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                outside += [(path.name, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                outside.append((path.name, "." * node.level + (node.module or "")))
    assert len(outside) > 50
    assert [x for x in outside if x[1].startswith(("jaxbench", ".."))] == []


def test_below_a_recipe_are_plain_keyword_arguments(imported):
    config = ("ml_collections", "absl")
    users = {parts for parts, name in imported if name.partition(".")[0] in config}
    assert users == {("bench", "recipe")}


def test_files_are_short_and_rooms_hold_more_than_one():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {path: lines for path, lines in lengths.items() if lines > 500} == {}
    assert [p for p in FILES if "utils" in p.name or p.name == "base.py"] == []
    inside = {
        folder: [p for p in folder.iterdir() if not p.name.startswith("__")]
        for folder in {path.parent for path in FILES}
    }
    assert [folder for folder, held in inside.items() if len(held) < 2] == []


def test_no_paths_of_a_machine():
    pattern = re.compile(r"/(?:home|root|Users|work)/\w+")
    tracked = [*FILES, *(ROOT / "tests").glob("*.py"), *(ROOT / "configs").glob("*.py")]
    assert [path for path in tracked if pattern.search(path.read_text())] == []


# What starts without jax: lists, recipes and settings that XLA reads when it starts;
# boards; replays, whose parser is loaded by the processes that use it.
LIGHT = """
import sys
from jaxbench.models.backbone import table
table()
assert not {"jax", "flax", "numpy"} & set(sys.modules)
import jaxbench.bench.environment
from configs import zelda
zelda.get_config("s4,epochs=1")
import jaxbench.board.command
import jaxbench.data.replays, jaxbench.data.slippi
print(sorted({"jax", "flax", "optax", "peppi_py"} & set(sys.modules)))
"""


def test_lists_configs_boards_and_replays_need_no_jax():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "[]", done.stderr
