"""The house keeps its order: who imports whom, how long a file may be."""

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
TOP = ("bench", "serving")
FREE = {"errors", "__version__"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of every module a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed_rooms(room: str) -> set[str]:
    if room in ORDER:
        allowed = set(ORDER[: ORDER.index(room) + 1])
        return allowed | ({"data"} if room == "tasks" else set())
    if room == "data":
        return {"data"}
    if room in TOP:
        return {*ORDER, "data", *TOP[: TOP.index(room) + 1]}
    return {*ORDER, *TOP, "data", "cli"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room = parts[0]
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "jaxbench" and rest and rest.split(".")[0] not in FREE:
            other = rest.split(".")[0]
            assert other in allowed_rooms(room), f"{room} imports {name}"
            if room == other == "mixers":
                pytest.fail(f"a mixer imports a mixer: {name}")
        if package in ("flax", "optax") or name.startswith("jax.experimental"):
            assert room not in ("ops", "data"), f"{room} imports {name}"
        if package in ("jax", "jaxlib"):
            assert room != "data", f"data imports {name}"
        if package in ("ml_collections", "absl") and parts != ("bench", "recipe"):
            pytest.fail(f"{name} is imported: below a recipe, plain keyword arguments")


def test_files_are_short_and_rooms_hold_more_than_one():
    for path in FILES:
        lines = len(path.read_text().splitlines())
        assert lines <= 500, f"{path} has {lines} lines"
        assert "utils" not in path.name and path.name != "base.py"
    for folder in {path.parent for path in FILES}:
        inside = [p for p in folder.iterdir() if not p.name.startswith("__")]
        assert len(inside) > 1, f"{folder} holds one file"


def test_listing_backbones_and_reading_configs_need_no_jax():
    """They run before XLA's settings are exported, so they must not start it."""
    code = (
        "import sys; from jaxbench.models.backbone import table; table();"
        "from configs import zelda; zelda.get_config('s4,epochs=1');"
        "import jaxbench.bench.environment; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_no_paths_of_a_machine():
    pattern = re.compile(r"/(?:home|root|Users|work)/\w+")
    tracked = [*FILES, *(ROOT / "tests").glob("*.py"), *(ROOT / "configs").glob("*.py")]
    for path in tracked:
        if path.name != Path(__file__).name:
            found = pattern.search(path.read_text())
            assert not found, f"{path}: {found}"
