"""The models that are timed against PyTorch are the same models."""

from __future__ import annotations

import copy
import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import against_torch
import jax_models
from against_torch import ADAMW, UPDATES, Parity, make_batch, parity

pytest.importorskip("torch")

# Whole stacks, many of each: minutes together.
pytestmark = pytest.mark.integration
torch_models = importlib.import_module("torch_models")

WIDTH, DEPTH, CLASSES = 8, 2, 5
BATCH = make_batch(3, 7, 6, CLASSES)
FORMS = [
    ("gru", "nn.GRU"),
    ("s4d", "toeplitz"),
    ("s4d", "fft"),
    *(
        pytest.param(name, form, marks=pytest.mark.slow)
        for name, form in (
            ("lstm", "torch.lstm"),
            ("swa", "sdpa"),
            ("transformer", "sdpa"),
            ("hawk", "loop"),
            ("hawk", "doubling"),
            ("gla", "one chunk"),
            ("mamba2", "one chunk"),
            ("mamba", "loop"),
            ("mamba", "doubling"),
            ("deltanet", "one chunk, solve"),
            ("rwkv", "one chunk, solve"),
        )
    ),
]


class Ours:
    """What our trainer says, computed once for all tests of a backbone."""

    def __init__(self, backbone: str):
        trainer = jax_models.Trainer(
            backbone, width=WIDTH, depth=DEPTH, classes=CLASSES, adamw=ADAMW, **BATCH
        )
        self._parameters = trainer.parameters()
        self._gradients = trainer.loss_and_gradients()
        self.losses = [trainer.run(1) for _ in range(UPDATES)]

    def parameters(self):
        return dict(self._parameters)

    def loss_and_gradients(self):
        return self._gradients

    def run(self, steps):
        return self.losses[steps - 1]


ours = functools.cache(Ours)


def theirs(backbone: str, form: str, **changed):
    given = {"parameters": ours(backbone).parameters(), "adamw": ADAMW} | changed
    return torch_models.Trainer(backbone, depth=DEPTH, form=form, **BATCH, **given)


@pytest.mark.integration
@pytest.mark.parametrize(("backbone", "form"), FORMS)
def test_loss_gradients_and_updates_agree(backbone, form):
    found = parity(ours(backbone), theirs(backbone, form))
    assert not found.problem(), found
    # Updates must have moved something, or agreement after them says nothing.
    losses = ours(backbone).losses
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.integration
def test_a_planted_parameter_is_found():
    changed = theirs("s4d", "toeplitz")
    changed.model.stack["blocks_1"].mixer.ssm_log_dt.data[0] += 0.1
    assert "differ" in parity(ours("s4d"), changed).problem()


def test_a_planted_rate_is_found():
    faster = theirs("gru", "nn.GRU", adamw=ADAMW | {"learning_rate": 2e-3})
    assert "updates" in parity(ours("gru"), faster).problem()


def test_a_gradient_that_is_not_a_number_is_found():
    broken = copy.copy(ours("gru"))
    loss, gradients = broken.loss_and_gradients()
    nan = np.full_like(gradients["encoder/bias"], np.nan)
    broken._gradients = (loss, gradients | {"encoder/bias": nan})
    found = parity(broken, theirs("gru", "nn.GRU"))
    assert "encoder/bias" in found.problem()


def test_spare_biases_of_the_gru_stay_zero():
    trainer = theirs("gru", "nn.GRU")
    trainer.run(4)
    bias = trainer.model.stack["blocks_0"].mixer.bias_hh_l0.detach().numpy()
    assert np.all(bias[: 2 * WIDTH] == 0)
    assert np.all(bias[2 * WIDTH :] != 0)


def test_reset_goes_back_to_the_first_update():
    trainer = theirs("gru", "nn.GRU")
    first = trainer.run(1)
    assert trainer.run(3) != first
    trainer.reset()
    assert trainer.run(1) == first


def test_missing_and_misshapen_parameters_are_named():
    parameters = ours("gru").parameters()
    extra = parameters | {"stack/blocks_0/mixer/more": np.zeros(1)}
    with pytest.raises(ValueError, match="mixer/more"):
        theirs("gru", "nn.GRU", parameters=extra)
    wrong = parameters | {"stack/norm/scale": np.zeros(WIDTH + 1, np.float32)}
    with pytest.raises(ValueError, match="stack/norm/scale"):
        theirs("gru", "nn.GRU", parameters=wrong)


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (Parity(2e-4, 0.0, "head/bias", 0.0), "losses"),
        (Parity(0.0, 2e-3, "head/bias", 0.0), "head/bias"),
        (Parity(0.0, 0.0, "head/bias", 2e-3), "updates"),
        (Parity(float("nan"), 0.0, "head/bias", 0.0), "losses"),
    ],
)
def test_every_tolerance_is_held(found, word):
    assert word in found.problem()


def test_without_torch_it_says_so_in_a_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["against_torch.py"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^PyTorch is not installed[^\n]*$"):
        against_torch.main()


@pytest.mark.slow
def test_the_script_prints_a_ratio_for_every_row():
    rows = ("gru", "s4", "rwkv")
    command = [sys.executable, against_torch.__file__, "--eager"]
    command.append(f"--rows={','.join(rows)}")
    small = "--width=8 --batch=2 --length=5 --depth=1 --rounds=2 --steps=1"
    done = subprocess.run(
        [*command, *small.split()], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 rows that are the same: geometric mean \d", done.stdout)
    for row in rows:
        assert re.search(rf"^{row}: parity", done.stdout, re.M)
        ratio = re.search(rf"^{row} .*eager +([\d.]+) \(", done.stdout, re.M)
        assert ratio and float(ratio[1]) > 0
