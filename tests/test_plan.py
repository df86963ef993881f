"""Which runs a suite consists of, and what its options may say."""

from __future__ import annotations

import json

import pytest

from configs import zelda
from jaxbench.bench.result import blank_result, group_hash, log_tail, thin
from jaxbench.bench.suite import plan
from jaxbench.bench.suite.devices import core_share, slots
from jaxbench.bench.suite.plan import Cell, Request
from jaxbench.errors import InputError


def base() -> dict:
    return json.loads(zelda.get_config("width=16").to_json())


def result(cell: Cell, loss: float, status: str = "ok") -> dict:
    blank = blank_result(cell.config(base()), status, "")
    blank["primary"] = {"metric": "loss", "maximize": False}
    blank["best"] = {"step": 1, "metrics": {"loss": loss}}
    return blank


def test_every_backbone_with_every_seed_one_seed_of_all_first():
    request = Request(base(), ("gru", "mlp"), (0, 1))
    cells = [(c.backbone, c.seed, c.learning_rate) for c in request.cells({})]
    rate = base()["train"]["learning_rate"]
    assert cells == [(b, s, rate) for s in (0, 1) for b in ("gru", "mlp")]


def test_a_sweep_gives_every_backbone_the_same_grid_then_its_best_rate():
    request = Request(base(), ("gru", "mlp"), (0, 1, 2), (1e-4, 1e-3))
    sweep = request.cells({})
    assert {c.purpose for c in sweep} == {"sweep"} and len(sweep) == 4
    # Those who choose are not those who are reported.
    assert not {c.seed for c in sweep} & set(request.seeds)
    losses = {("gru", 1e-4): 1.0, ("gru", 1e-3): 2.0, ("mlp", 1e-4): 3.0}
    done = {
        c: result(c, losses[c.backbone, c.learning_rate])
        for c in sweep
        if (c.backbone, c.learning_rate) in losses
    }
    # mlp's curve is not whole yet.
    scored = [c for c in request.cells(done) if c.purpose == "score"]
    assert [(c.backbone, c.seed, c.learning_rate) for c in scored] == [
        ("gru", s, 1e-4) for s in (0, 1, 2)
    ]
    last = sweep[-1]
    done[last] = result(last, 0.5, status="diverged")
    rates = {c.backbone: c.learning_rate for c in request.cells(done)[4:]}
    assert rates == {"gru": 1e-4, "mlp": 1e-4}


def test_a_backbone_that_fails_at_every_rate_still_gets_its_row():
    request = Request(base(), ("gru",), (0,), (1e-4, 1e-3))
    done = {c: result(c, 1.0, "crashed") for c in request.cells({})}
    assert request.cells(done)[-1] == Cell("gru", 0, 1e-4)


def test_groups_join_seeds_and_nothing_else():
    cell = Cell("gru", 0, 1e-3)
    same = group_hash(cell.config(base()))
    assert group_hash(Cell("gru", 7, 1e-3).config(base())) == same
    for other in (Cell("mlp", 0, 1e-3), Cell("gru", 0, 1e-4)):
        assert group_hash(other.config(base())) != same


def test_choosing_backbones():
    every = plan.choose_backbones("", "")
    assert len(every) > 50 and "zamba_attention" not in every
    assert len(plan.choose_backbones("original", "")) == 34
    assert len(plan.choose_backbones("original", "gru,attention")) == 32
    assert plan.choose_backbones("swa,attention,mamba*2+swa", "") == (
        "swa",
        "mamba*2+swa",
    )
    with pytest.raises(InputError, match="no backbone is called 'gruu'"):
        plan.choose_backbones("gruu", "")
    with pytest.raises(InputError, match="leave no backbone"):
        plan.choose_backbones("gru", "gru")


def test_numbers_of_options():
    assert plan.parse_seeds("3") == (0, 1, 2)
    assert plan.parse_seeds("4,2") == (4, 2)
    assert plan.parse_rates(None) == () and plan.parse_rates("") == plan.LEARNING_RATES
    assert plan.parse_rates("1e-2,1e-4") == (1e-4, 1e-2)
    assert plan.parse_duration("--timeout", "1.5h") == 5400
    assert plan.parse_duration("--timeout", "20") == 20
    assert plan.parse_gigabytes("800MB") == 0.8 and plan.parse_gigabytes("8") == 8
    assert plan.parse_jobs(0, ("0", "1")) == 2 and plan.parse_jobs(0, ()) == 1


@pytest.mark.parametrize(
    "parse, text",
    [
        (plan.parse_seeds, "0"),
        (plan.parse_seeds, "1,1"),
        (plan.parse_seeds, "many"),
        (plan.parse_rates, "0,1"),
        (plan.parse_rates, "fast"),
        (plan.parse_gigabytes, "8TB"),
        (plan.parse_gigabytes, "0"),
        (lambda text: plan.parse_duration("--timeout", text), "5 days"),
        (lambda text: plan.parse_duration("--timeout", text), "-5s"),
        (lambda text: plan.parse_jobs(int(text), ()), "-1"),
    ],
)
def test_what_an_option_cannot_say(parse, text):
    with pytest.raises(InputError, match="must"):
        parse(text)


def test_places_share_gpus_and_cores():
    assert slots(3, ("4", "7")) == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("4", "7", "4")
    ]
    assert slots(2, ()) == [{}, {}]
    shares = [core_share(i, 2, range(5)) for i in range(2)]
    assert shares == [{0, 2, 4}, {1, 3}]
    assert [core_share(i, 3, [0, 1]) for i in range(3)] == [{0}, {1}, {0}]


def test_curves_keep_their_ends():
    assert thin(range(5), 10) == [0, 1, 2, 3, 4]
    thinned = thin(range(1000), 200)
    assert len(thinned) == 200 and thinned[0] == 0 and thinned[-1] == 999


def test_the_log_tail_is_text(tmp_path):
    log = tmp_path / "log.txt"
    assert log_tail(log) == []
    log.write_bytes(b"one\n\n\x1b[31mred\xff\n" + b"x" * 30_000 + b"\nlast\n")
    tail = log_tail(log)
    assert tail[-1] == "last" and all(len(line) <= 400 for line in tail)
