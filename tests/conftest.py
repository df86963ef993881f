"""Settings every test runs under, and where the real data is."""

from __future__ import annotations

import os
from pathlib import Path

# They bind when the backend starts, so they come before the first import of jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests compile much and compute little: a third of the compile time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).resolve().parents[1] / ".jax_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a file's tests on one worker, but for those that say otherwise.

    Workers share no compiled program and no fixture, so a file spread over two of them
    does its work twice (`pytest -n 2 --dist loadgroup`).
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


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
