"""Settings every test runs under, and where the real data is."""

from __future__ import annotations

import os
import zlib
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


# Files of the longest groups, the longest first: begun last, one of them would keep a
# worker busy while the other has nothing left.
LONGEST = ("test_suite.py", "test_commands.py", "test_notebooks.py")
# Files whose tests train runs, start processes, stream whole games or compile whole
# stacks again: not fast, but run before every change lands.
WHOLE_RUNS = frozenset(
    f"test_{name}.py"
    for name in (
        *("acceptance", "augment", "chunk_policies", "chunks", "commands", "copies"),
        *("export", "job", "latency", "leaderboard_page", "libmelee", "memory"),
        *("models", "notebooks", "pentathlon", "pentathlon_commands", "pile"),
        *("pile_commands", "planner", "play", "policy", "policy_folder"),
        *("report_models", "sizes", "speculate_command", "speculative", "suite"),
        *("suite_pile", "switches", "throughput", "training", "world_rollout"),
    )
)
# Their tests have up to 60 cases, each of which compiles. Every mixer is in the fast
# tests of the whole zoo, `test_backbones`; a primitive's reference twin is not.
MIXERS, PRIMITIVES = "test_mixers_", "test_ops_"


# Before pytest chooses by mark.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, and says which tests are fast.

    Fast are the first case of each test of a primitive, and what is neither a mixer's
    nor in one of `WHOLE_RUNS`. The rest is chosen; of the other cases of primitives
    about a third.
    """
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    seen = set()
    for item in items:
        file, test = item.path.name, item.nodeid.partition("[")[0]
        first = test not in seen
        seen.add(test)
        if item.get_closest_marker("slow"):
            continue
        primitive = file.startswith(PRIMITIVES)
        if primitive and first:
            continue
        if primitive or file.startswith(MIXERS) or file in WHOLE_RUNS:
            item.add_marker(pytest.mark.slow)
            if not primitive or zlib.crc32(item.nodeid.encode()) % 3 == 0:
                item.add_marker(pytest.mark.chosen)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps a file's tests on one worker, and all tests of one backbone.

    Workers share no compiled program and no fixture, so a file spread over two of them
    does its work twice. (`--dist loadgroup` groups nothing under pytest 9.2 with xdist
    3.8, see pytest-xdist issue 1386.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if file.endswith("test_backbones.py") and "[" in test:
                return file + test[test.index("[") :]
            return file

    # In the order of the items, not the file with the most tests first.
    config.option.loadscopereorder = False
    return ByFile(config, log)


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
