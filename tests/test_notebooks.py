"""The notebooks open, install and run from top to bottom as a reader meets them."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# On GitHub, where Colab opens notebooks from. The one place to change when the project
# is published under another name; the tests then say which lines of the notebooks.
REPOSITORY = "OWNER/jaxbench"
NAMES = ("quickstart", "leaderboard", "add_a_backbone")
COLAB = "https://colab.research.google.com"
INSTALL = 1  # index of the install cell, after the title


def cells(name: str, kind: str | None = None) -> list[dict]:
    content = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    return [c for c in content["cells"] if kind in (None, c["cell_type"])]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("name", NAMES)
def test_files_are_valid_and_hold_no_outputs(name):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    nbformat.validate(json.loads(text))
    assert set(json.loads(text)["metadata"]) == {"kernelspec", "language_info"}
    for cell in cells(name, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
        assert cell["metadata"] == {}, cell["id"]
    assert not re.search(r"/(?:home|root|Users|work|content)/\w+", text)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_named_not_numbered(name):
    """Random ids would change with every save."""
    ids = [cell["id"] for cell in cells(name)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", i) for i in ids), ids


def test_every_notebook_is_tested():
    found = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_badge_opens_this_notebook(name):
    title = source(cells(name)[0])
    page = f"{COLAB}/github/{REPOSITORY}/blob/main/notebooks/{name}.ipynb"
    assert title.startswith("# ")
    assert f"({COLAB}/assets/colab-badge.svg)]({page})" in title


@pytest.mark.parametrize("name", NAMES)
def test_installing_does_nothing_where_jaxbench_is(name, monkeypatch, capsys):
    def refuse(*arguments, **options):
        pytest.fail(f"ran {arguments}")

    monkeypatch.setattr(subprocess, "run", refuse)
    path = list(sys.path)
    exec(source(cells(name)[INSTALL]), {})
    assert sys.path == path
    assert capsys.readouterr().out.startswith("jaxbench 0.")


@pytest.mark.parametrize("name", NAMES)
def test_installing_clones_and_installs_where_it_is_not(name, tmp_path, monkeypatch):
    import jaxbench

    commands = []

    def run(command, check):
        assert check, "a failed step would go unnoticed"
        commands.append(command)
        if "pip" in command:
            monkeypatch.setitem(sys.modules, "jaxbench", jaxbench)
        else:
            Path(command[-1]).mkdir()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    clone = str(tmp_path / "jaxbench-clone")
    for attempt in range(2):
        # None makes the import fail, as where nothing is installed.
        monkeypatch.setitem(sys.modules, "jaxbench", None)
        exec(source(cells(name)[INSTALL]), {})
        assert sys.path[0] == clone
        git, pip = commands[0], commands[-1]
        assert git[:2] == ["git", "clone"]
        assert git[-2:] == [f"https://github.com/{REPOSITORY}", clone]
        assert pip[:4] == [sys.executable, "-m", "pip", "install"]
        assert pip[-2:] == ["--editable", clone]
        # What is cloned already is not cloned again.
        assert len(commands) == 2 + attempt


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_imports_of_jaxbench_exists(name):
    """A renamed function shows here, not after a minute of running."""
    found = 0
    for cell in cells(name, "code"):
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("jaxbench."):
                module = importlib.import_module(node.module)
                missing = [a.name for a in node.names if not hasattr(module, a.name)]
                assert not missing, f"{node.module} has no {missing}"
                found += 1
    assert found


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """One home for all: the simulated games are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_runs_from_top_to_bottom_in_any_folder(name, home, tmp_path):
    notebook = execute(name, home, tmp_path)
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        if "plt.show()" in cell.source:
            kinds = [kind for output in outputs for kind in output.get("data", {})]
            assert kinds.count("image/png") == 1, cell.id
        warned = [o.text for o in outputs if "Warning" in o.get("text", "")]
        assert not warned, f"{cell.id}: {warned}"
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.json")}
    assert made == {"runs"}, "everything lands in one folder, in the reader's own"


def execute(name: str, home: Path, folder: Path):
    """Runs a notebook in `folder`, by this interpreter, whatever kernels there are."""
    reason = "needs nbclient and ipykernel: pip install -e '.[test]'"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    kernel = home / "kernels" / "python3"
    kernel.mkdir(parents=True, exist_ok=True)
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": launch, "display_name": "this one", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    manager = AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernel.parent)]),
        connection_file=str(home / f"{name}-connection.json"),
    )
    # A backend set for the tests would keep the figures from the notebook.
    kept = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment = kept | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")}
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        km=manager,
        timeout=1800,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute(env=environment)
