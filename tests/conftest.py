"""Settings every test runs under, and where the real data is."""

from __future__ import annotations

import os
import platform
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from jaxbench.xla import ONCE, as_flags


def compile_cache() -> Path:
    """Where compiled programs are kept between test runs, outside every checkout.

    A program compiled by one jax for one kind of processor is of no use to another.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    kind = [line for line in lines if line.startswith(("model name", "flags"))][:2]
    key = zlib.crc32("".join([platform.machine(), *kind]).encode())
    return root / "jaxbench" / f"tests-jax{version('jax')}-cpu{key:08x}"


# They bind when the backend starts, so they come before the first import of jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests compile much and compute little: an eighth of the compile time.
os.environ.setdefault("XLA_FLAGS", as_flags(ONCE))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compile_cache()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

if TYPE_CHECKING:
    from small_run import SharedRuns
    from toy import Parts

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Lets go of a file's compiled programs when its tests have ended.

    Each takes memory and mappings of the process for good: a worker that keeps those of
    all files holds 7 GB in the end, and XLA's compiler has crashed in one.
    """
    if nextitem is None or nextitem.path != item.path:
        jax.clear_caches()


@pytest.fixture(scope="session")
def melee_train() -> Path:
    """The folder of real replays; tests that need it skip where it is absent."""
    folder = SHARED / "melee" / "train"
    if not folder.is_dir():
        pytest.skip("no real replays: ../shared/data/melee/train is not there")
    return folder


@pytest.fixture(scope="session")
def melee_odd() -> Path:
    """The folder of broken and strange replays."""
    folder = SHARED / "melee" / "odd"
    if not folder.is_dir():
        pytest.skip("no odd replays: ../shared/data/melee/odd is not there")
    return folder


@pytest.fixture(scope="session")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> SharedRuns:
    """Finished runs by name, each made once for the tests of all workers."""
    from small_run import SharedRuns

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    return SharedRuns(base / "runs")


@pytest.fixture(scope="session")
def toy_parts() -> Parts:
    """The toy task's programs, compiled once; tests put their own data into them."""
    from toy import Parts

    return Parts(dropout=0.1, ema=0.9, k=8)
