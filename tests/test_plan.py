"""Which runs a suite consists of, and what its options may say."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path
from unittest import mock

import pytest

from configs import zelda
from jaxbench.bench import defaults
from jaxbench.bench.recipe import read_recipe
from jaxbench.bench.result import blank_result, group_hash, log_tail, thin
from jaxbench.bench.suite import plan
from jaxbench.bench.suite.devices import core_share, slots
from jaxbench.bench.suite.plan import Cell, Request
from jaxbench.bench.suite.schedule import check_suite_owner, finished_results
from jaxbench.errors import InputError

ROOT = Path(__file__).parents[1]


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
    request = Request(base(), ("gru", "mlp"), (0, 1, 2), (1e-5, 1e-4, 1e-3))
    sweep = request.cells({})
    assert {c.purpose for c in sweep} == {"sweep"} and len(sweep) == 6
    # Those who choose are not those who are reported.
    assert not {c.seed for c in sweep} & set(request.seeds)
    losses = {("gru", 1e-4): 1.0, ("gru", 1e-3): 2.0, ("mlp", 1e-4): 3.0}
    losses |= {("gru", 1e-5): 2.0, ("mlp", 1e-5): 4.0}
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
    rates = {c.backbone: c.learning_rate for c in request.cells(done)[6:]}
    assert rates == {"gru": 1e-4, "mlp": 1e-4}


def test_a_best_rate_at_the_edge_extends_the_grid_until_it_is_inside():
    request = Request(base(), ("gru",), (0,), plan.SHORT_RATES)

    def settled(loss) -> list[Cell]:
        done: dict[Cell, dict] = {}
        for _ in range(20):
            new = [c for c in request.cells(done) if c not in done]
            done |= {c: result(c, loss(c.learning_rate)) for c in new}
        return list(done)

    def rates(cells) -> tuple[list[float], list[float]]:
        by = {p: [c.learning_rate for c in cells if c.purpose == p] for p in purposes}
        return sorted(by["sweep"]), by["score"]

    purposes = ("sweep", "score")
    inside = rates(settled(lambda rate: abs(rate - 3e-3)))
    assert inside == ([1e-3, 3e-3, 1e-2], [3e-3])
    assert rates(settled(lambda rate: abs(rate - 3e-2))) == (
        [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
        [3e-2],
    )
    # At most two steps each way; the board marks a best rate that is still at the edge.
    assert rates(settled(lambda rate: rate)) == ([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [1e-4])
    assert plan.neighbour(2e-3, up=True) == 6e-3


def test_the_number_of_runs_does_not_grow_while_a_suite_runs():
    request = Request(base(), ("gru", "mlp"), (0, 1), plan.SHORT_RATES)
    done: dict[Cell, dict] = {}
    told = []
    while new := [c for c in request.cells(done) if c not in done]:
        told.append(request.planned(done))
        done[new[0]] = result(new[0], abs(new[0].learning_rate - 3e-3))
    assert {total for total, _ in told} == {2 * 3 + 2 * 2} == {len(done)}
    assert told[0][1] and not told[-1][1]
    assert dataclasses.replace(request, learning_rates=()).planned({}) == (4, False)


def test_short_runs_search_higher_rates():
    assert plan.rates_for({"train": {"epochs": 3, "max_steps": 0}}) == plan.SHORT_RATES
    assert plan.rates_for({"train": {"max_steps": 648}}) == plan.SHORT_RATES
    assert plan.rates_for({"train": {"max_steps": 20_000}}) == plan.LONG_RATES
    assert plan.rates_for({"train": {"budget": "78steps"}}) == plan.SHORT_RATES
    assert plan.rates_for({"train": {"budget": "10min"}}) == plan.LONG_RATES


def test_a_released_folder_is_topped_up(tmp_path):
    """Its result.json files alone: what is there counts, what is missing is run."""
    released = ROOT / "results" / "zelda_clean" / "runs"
    shutil.copytree(released, tmp_path / "runs")
    argument = "width=64,character=falco,stride=8,test_fraction=0.0"
    config = json.loads(zelda.get_config(argument).to_json())
    request = Request(config, ("gru", "mlp", "s4"), tuple(range(6)))
    check_suite_owner(tmp_path, request)
    done = finished_results(request, tmp_path, retry=False)
    missing = [c for c in request.cells(done) if c not in done]
    assert len(done) == 5 + 6 + 1
    assert [(c.backbone, c.seed) for c in missing] == [
        *(("s4", seed) for seed in (1, 2, 3, 4)),
        *(("gru", 5), ("s4", 5)),
    ]
    for change, message in (
        ({"character": "fox"}, r"data.character is 'falco' there and 'fox'"),
        ({"test_fraction": 0.1}, r"data.test_fraction is 0.0 there and 0.1"),
    ):
        other = config | {"data": config["data"] | change}
        with pytest.raises(InputError, match=message):
            check_suite_owner(tmp_path, Request(other, ("gru",), (0,)))
    # Results that hold their settings are compared in all of them.
    shutil.rmtree(tmp_path / "runs")
    (cell, *_) = request.cells({})
    folder = cell.folder(tmp_path)
    folder.mkdir(parents=True)
    content = blank_result(cell.config(config), "ok", "")
    (folder / "result.json").write_text(json.dumps(content))
    check_suite_owner(tmp_path, request)
    assert list(finished_results(request, tmp_path, retry=False)) == [cell]
    config["model"]["dropout"] = 0.5
    with pytest.raises(InputError, match=r"model.dropout is 0.1 there and 0.5 here"):
        check_suite_owner(tmp_path, request)


def test_digests_are_over_what_differs_and_survive_new_fields():
    config, known = base(), defaults.frozen()["zelda"]
    own = defaults.differs(config)
    assert own == {"model.width": 16, "data.test_fraction": 0.1}
    before = defaults.digest(config)
    # A field that recipes gain: released configs lack it, new ones hold its default.
    with mock.patch.object(
        defaults, "frozen", lambda: {"zelda": known | {"train.novel": 0}}
    ):
        assert defaults.digest(config) == before
        config["train"]["novel"] = 0
        assert defaults.digest(config) == before
        config["train"]["novel"] = 1
        assert defaults.digest(config) != before
    # The same data in another folder, a cache elsewhere: the same run.
    config = base()
    for replays, cache in (("/data/train", "/tmp/a"), ("~/games/train", "/tmp/b")):
        config["data"] |= {"replays": replays, "cache": cache}
        assert defaults.differs(config) == own | {"data.replays": "train"}
    assert "/data" not in json.dumps(blank_result(config, "ok", ""))


def test_every_field_of_a_recipe_has_a_frozen_default():
    missing = {
        task: set(settings) - set(defaults.frozen().get(task, {}))
        for task, settings in defaults.recipes().items()
    }
    # `python -m jaxbench.bench.defaults` adds them.
    assert {task: keys for task, keys in missing.items() if keys} == {}


def test_a_result_holds_the_command_that_makes_it():
    config = json.loads(zelda.get_config("gru,width=16,epochs=1").to_json())
    command = blank_result(config, "ok", "")["command"]
    words = shlex.split(command)
    assert words[:3] == ["python", "run.py", "--config=configs/zelda.py"]
    assert read_recipe(words[2:]) == config


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
    assert len(every) > 50
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
    assert plan.parse_seeds("0,") == (0,) and plan.parse_seeds("1") == (0,)
    assert plan.parse_rates(None, (1.0,)) == () and plan.parse_rates("", (1.0,)) == (
        1.0,
    )
    assert plan.parse_rates("1e-2,1e-4", ()) == (1e-4, 1e-2)
    assert plan.parse_duration("--timeout", "1.5h") == 5400
    assert plan.parse_duration("--timeout", "20") == 20
    assert plan.parse_gigabytes("800MB") == 0.8 and plan.parse_gigabytes("8") == 8
    assert plan.parse_jobs(0, ("0", "1")) == 2 and plan.parse_jobs(0, ()) == 1


@pytest.mark.parametrize(
    "parse, text",
    [
        (plan.parse_seeds, "0"),
        (plan.parse_seeds, "1,1"),
        (plan.parse_seeds, f"{2**32},"),
        (plan.parse_seeds, str(10**9)),
        (plan.parse_seeds, "many"),
        (lambda text: plan.parse_rates(text, ()), "0,1"),
        (lambda text: plan.parse_rates(text, ()), "fast"),
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
