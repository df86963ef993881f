"""What a signal does to a command before there is anything to save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from processes import ROOT, environment

from jaxbench.bench.suite.process import fate
from jaxbench.training import interrupt
from jaxbench.training.interrupt import INTERRUPTED, interruptible
from jaxbench.training.stop import StopSignals


def handlers():
    return [signal.getsignal(n) for n in interrupt.NUMBERS], sys.unraisablehook


@pytest.mark.parametrize("number", interrupt.NUMBERS)
def test_a_signal_ends_a_command_and_cleans_up(number, capsys):
    before, cleaned = handlers(), []

    def command():
        try:
            os.kill(os.getpid(), number)
            time.sleep(30)
        finally:
            cleaned.append(True)

    assert interruptible("prepare", command, leaves=False) == INTERRUPTED == 143
    line = f"prepare: interrupted by {number.name}; run the same command again\n"
    assert capsys.readouterr().err == line and cleaned == [True]
    assert handlers() == before
    assert interruptible("prepare", lambda: 7, leaves=True) == 7


class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the interpreter looks at signals between two of these
            pass


def test_a_signal_that_a_callback_loses_ends_the_process_all_the_same(
    monkeypatch, capsys
):
    codes = []
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(interrupt.os, "_exit", codes.append)

    def command():
        Callback()
        deadline = time.monotonic() + 20
        while not codes and time.monotonic() < deadline:
            time.sleep(0.01)
        return 0

    assert interruptible("run.py", command, leaves=False) == 0
    assert codes == [INTERRUPTED]
    said = capsys.readouterr().err
    assert said == "run.py: interrupted by SIGINT; run the same command again\n"


def test_while_a_run_trains_its_own_handler_decides(monkeypatch):
    codes = []
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(interrupt.os, "_exit", codes.append)

    def command():
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
            return int("SIGTERM" in (signals.reason() or ""))

    assert interruptible("run.py", command, leaves=False) == 1 and codes == []


def test_a_run_of_a_suite_that_a_signal_ended_early_is_tried_again():
    process = SimpleNamespace(returncode=INTERRUPTED)
    status, reason = fate(SimpleNamespace(process=process, stopped=None), None)
    assert status == "interrupted" and "before it trained" in reason


def test_ctrl_c_while_a_recipe_is_read_is_one_line(tmp_path):
    """As a process, from the first line of main on."""
    recipe = "import sys, time\nprint('reading', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "slow.py").write_text(recipe)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "--config=slow.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said == "run.py: interrupted by SIGINT; run the same command again\n"
