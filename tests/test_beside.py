"""Which runs of a suite train as one program when nobody says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import mqar, pile, zelda
from jaxbench.bench.beside import pays, saved_step
from jaxbench.bench.suite.plan import Request
from jaxbench.bench.suite.schedule import together
from jaxbench.training import manifest

SMALL = "gru,pairs=4,tokens=16,vocabulary=32,level=custom,width=32,batch_size=32"


def resolved(recipe, text: str) -> dict:
    return json.loads(recipe.get_config(text).to_json())


@pytest.mark.parametrize(
    ("recipe", "text", "expected"),
    [
        (mqar, SMALL, True),
        (zelda, "gru,width=16,batch_size=16,window=8", True),
        (zelda, "gru,width=256", False),
        # Which width that is, no one knows before the model is built.
        (mqar, f"{SMALL},width=0,parameters=1k".replace("width=32,", ""), False),
        # These cannot be one program at all.
        (zelda, "gru,width=16,batch_size=16,window=8,splits=3", False),
        (mqar, "protocol=compat,width=8", False),
        (pile, "gru,width=8,window=8,batch_size=8,budget=10min", False),
        (pile, "gru,width=8,window=8,batch_size=8,budget=20steps", True),
    ],
)
def test_small_updates_are_one_program(recipe, text, expected):
    assert pays(resolved(recipe, text)) == expected


def request(side_by_side: str, text: str = SMALL, backbones=("gru",)) -> Request:
    base = resolved(mqar, text)
    return Request(base, backbones, (0, 1, 2, 3), side_by_side=side_by_side)


def test_on_and_off_are_what_they_say(tmp_path):
    for mode, count in (("on", 4), ("off", 1), ("auto", 4)):
        asked = request(mode, backbones=("gru", "mlp"))
        cells = together(asked, asked.cells({}), 1, tmp_path)
        assert len(cells) == count and {c.backbone for c in cells} == {"gru"}
    large = request("auto", SMALL.replace("width=32", "width=1024"))
    assert len(together(large, large.cells({}), 1, tmp_path)) == 1


def test_every_free_place_has_something_to_do(tmp_path):
    asked = request("auto")
    cells = asked.cells({})
    for free, count in ((1, 4), (2, 2), (3, 2), (4, 1), (9, 1)):
        assert len(together(asked, cells, free, tmp_path)) == count
    two = request("auto", backbones=("gru", "mlp"))
    assert len(together(two, two.cells({}), 2, tmp_path)) == 4


def test_a_run_that_has_come_further_does_not_go_back(tmp_path):
    asked = request("auto")
    cells = asked.cells({})
    for cell, step in zip(cells, (40, 0, 40, 0), strict=True):
        saved(cell.folder(tmp_path), step)
    assert saved_step(cells[0].folder(tmp_path)) == 40
    assert [c.seed for c in together(asked, cells, 1, tmp_path)] == [0, 2]
    assert [c.seed for c in together(asked, cells[1:], 1, tmp_path)] == [1, 3]


def saved(folder: Path, step: int) -> None:
    """What checkpoints at 20 and at `step`, and one not saved to the end, leave."""
    for name in ("20", str(step), "tmp", "99") if step else ():
        state = folder / "checkpoints" / "last" / name
        state.mkdir(parents=True, exist_ok=True)
        if name != "99":
            manifest.write(state)
