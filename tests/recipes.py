"""Resolved recipes, checked as `run.py` checks them."""

from __future__ import annotations

import importlib
import json
from typing import Any

from jaxbench.bench.check import check_values


def recipe(task: str, backbone: str = "", **changes: Any) -> dict[str, Any]:
    """The recipe of a task with keys changed, by their last parts or dotted paths.

    Options, which a recipe has as a text, may be given as a dict.
    """

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return " ".join(f"{name}={given}" for name, given in value.items())
        return str(value)

    items = [backbone, *(f"{key}={text(value)}" for key, value in changes.items())]
    module = importlib.import_module(f"configs.{task}")
    config = json.loads(module.get_config(",".join(items)).to_json())
    check_values(config)
    return config
