"""The text after the colon, and overrides: typed, strict, and all visible."""

from __future__ import annotations

import pytest

from configs import common, zelda
from jaxbench.errors import InputError

# Everything later relies on these names.
STABLE = (
    "protocol",
    "seed",
    "data.replays",
    "data.character",
    "data.max_files",
    "model.width",
    "model.depth",
    "train.epochs",
    "train.max_steps",
    "train.batch_size",
    "train.learning_rate",
    "train.dtype",
)


def test_names_are_stable():
    config = zelda.get_config("s4")
    for path in STABLE:
        section = config
        for part in path.split("."):
            assert part in section, path
            section = section[part]


def test_first_item_is_the_backbone_and_the_rest_are_typed():
    config = zelda.get_config("mamba*2+swa,width=32,dropout=0.2,depth=3,remat=yes")
    assert config.model.backbone == "mamba*2+swa"
    assert config.model.width == 32 and config.model.dropout == 0.2
    assert config.model.depth == 3 and config.model.remat is True
    assert zelda.get_config("train.epochs=7").train.epochs == 7
    assert zelda.get_config("").model.backbone == "s4"


def test_compat_takes_over_the_originals_optimizer():
    config = zelda.get_config("s4,protocol=compat")
    assert config.protocol == "compat" and config.train.warmup_steps == 1000
    assert config.train.learning_rate == 1e-4 and config.model.dropout == 0.0
    assert zelda.get_config("s4,protocol=compat,learning_rate=1e-3").train[
        "learning_rate"
    ] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("train", "lacks"),
    [
        (
            {"max_steps": 9, "evaluate_every": 1, "warmup_steps": 1},
            "lacks train.epochs;",
        ),
        (
            {"budget": "9steps", "warmup_steps": 1},
            "train.evaluate_every or train.evaluations",
        ),
        (
            {"budget": "9steps", "evaluations": 1},
            "train.warmup_steps or train.warmup_fraction",
        ),
    ],
)
def test_a_recipe_that_leaves_out_what_has_no_default_is_told(train, lacks):
    with pytest.raises(InputError, match=lacks):
        common.recipe("pile", data={}, model={"backbone": "gru"}, train=train)


def test_mistakes_are_one_clear_line():
    for text, message in (
        ("s4,widht=3", r"unknown key 'widht'.*nearest: .*width"),
        ("s4,width=wide", r"model.width='wide' is not of type int"),
        ("s4,remat=maybe", r"model.remat='maybe' is not of type bool"),
        ("s4,lstm", r"'lstm' .* must be key=value"),
        ("s4,seed=1,seed=2", r"'seed' is given twice"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            zelda.get_config(text)
        assert "\n" not in str(caught.value)


def test_ambiguous_keys_are_refused():
    config = zelda.get_config("s4")
    config.model.epochs = 1
    with pytest.raises(InputError, match=r"ambiguous: .*model.epochs"):
        common.apply_settings(config, {"epochs": "3"})
