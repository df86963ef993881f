"""Named settings of the zelda recipe: the table, its strictness, a run of one."""

from __future__ import annotations

import json

import pytest
from commands import jaxbench, run_py
from processes import config

from configs import zelda
from jaxbench.bench.check import check_values
from jaxbench.data.characters import EXTERNAL_ID, character_key
from jaxbench.errors import InputError
from jaxbench.models.build import build_stack
from jaxbench.tasks.rules import parse_options
from jaxbench.tasks.zelda.presets import COLUMNS, PRESETS, find, table_row
from jaxbench.training.records import flatten


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_recipe_that_runs_could_use(name):
    recipe = json.loads(zelda.get_config(f"preset={name}").to_json())
    check_values(recipe)
    settings = find(name)
    flat = flatten(recipe)
    for key, text in settings.items():
        assert flat[key] == type(flat[key])(text), key
    assert character_key(recipe["data"]["character"]) in EXTERNAL_ID
    build_stack(
        settings["model.backbone"],
        width=recipe["model"]["width"],
        depth=recipe["model"]["depth"],
        options=parse_options(recipe["model"]["options"]),
    )
    row = dict(zip(COLUMNS, table_row(name), strict=True))
    assert row["batch"] == settings["train.batch_size"]
    assert row["backbone"].split()[0] == settings["model.backbone"]


def test_what_stands_beside_a_preset_wins():
    recipe = zelda.get_config("gru,preset=gpu_standard,width=32,train.epochs=2")
    assert recipe.model.backbone == "gru" and recipe.model.width == 32
    assert recipe.train.epochs == 2 and recipe.train.ema_decay == 0.999
    # Options of its own backbone are not another's.
    assert zelda.get_config("gru,preset=production").model.options == ""
    assert zelda.get_config("preset=production").model.options == "state_size=32"
    # A pattern keeps its layers.
    assert zelda.get_config("jamba,preset=quick").model.depth is None
    assert zelda.get_config("gru,preset=gpu_quick").model.depth == 1


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="preset='quik' is unknown; nearest: quick"):
        zelda.get_config("gru,preset=quik")


def test_the_table_is_printed():
    done = jaxbench("list", "presets", "--markdown", cwd=".")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" | ")[0].lstrip("| ") for line in lines[2:]] == list(PRESETS)
    as_json = json.loads(jaxbench("list", "presets", "--json", cwd=".").stdout)
    assert as_json["mewtwo"]["data.window"] == "90"


@pytest.mark.integration
def test_a_run_with_everything_on_stops_early_and_keeps_its_best(shared_runs, tmp_path):
    """Mirrors, errors, delays, smoothing, focal loss, averages, patience."""
    flags = (
        f"--config.data.cache={shared_runs.folder / 'cache'}",
        "--config.data.simulated_games=3",
        "--config.data.window=8",
        "--config.data.stride=4",
        "--config.data.max_delay=2",
        "--config.model.width=16",
        "--config.train.batch_size=16",
        "--config.train.steps_per_dispatch=4",
        "--config.train.focal_gamma=2",
        "--config.train.evaluate_every=4",
        "--config.train.max_steps=200",
        # Only a gain of so much counts, so that there is none after the first.
        "--config.train.min_delta=1000",
        "--config.train.patience=2",
        "--config.train.keep_best=3",
    )
    recipe = config("zelda.py:gru,depth=1,preset=standard")
    done = run_py(recipe, "--workdir=run", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "ok" and result["steps"] == 12
    assert result["budget"]["stopped_early"] == 12
    assert result["solved"] is None
    kept = sorted(int(p.name) for p in (tmp_path / "run/checkpoints/best").iterdir())
    assert 1 <= len(kept) <= 3 and kept[-1] == result["best"]["step"]
