"""What is said while programs compile, and remembered of it."""

from __future__ import annotations

import json
import threading
import time

from jaxbench.training import compiling


def test_a_long_compilation_is_told_with_what_it_took_last_time(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "QUIET_SECONDS", 0.01)
    told, said = [], threading.Event()

    def say(line):
        told.append(line)
        said.set()

    for _ in range(2):
        compilation = compiling.Compilation("zelda gru 64", say, every=0.01)
        with compilation.reported(), compilation.program("train"):
            said.clear()
            assert said.wait(30)
            # The line may come before the program is long enough to be remembered.
            time.sleep(2 * compiling.QUIET_SECONDS)
    assert told[0].startswith("compiling train for ") and "last time" not in told[0]
    assert told[-1].endswith(" s last time)")
    memory = json.loads((tmp_path / "compile_seconds.json").read_text())
    assert memory["zelda gru 64"]["train"] > 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["compile_seconds.json"]


def test_a_program_from_the_cache_is_neither_told_nor_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    compilation = compiling.Compilation("zelda gru 64", [].append)
    with compilation.reported(), compilation.program("train"):
        pass
    assert list(tmp_path.iterdir()) == []
