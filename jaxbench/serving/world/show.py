"""Tables and figure of rollouts and plans."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from jaxbench.serving.world.horizon import behind

LINES = {
    "model": ("#1f6f8b", "-", "model"),
    "copy_last": ("#888888", "--", "copy the last frame"),
    "constant_velocity": ("#c7783b", ":", "constant velocity"),
}
PANELS = (
    *("position", "velocity", "percent", "shield", "hitlag", "hitstun"),
    *("airborne", "facing", "jumps", "state_age", "action_state", "reward"),
)


def error_table(found: Mapping[str, Any]) -> Table:
    """Errors by horizon: a line for the model and for each floor that differs."""
    errors, steps = found["errors"], found["steps"]
    lost = [name for name in errors if any(behind(errors, name))]
    caption = [
        f"Mean errors on {found['windows']} stretches of {found['games']} held-out "
        f"games, {found['warm_up']} frames read before, true controllers ahead.",
        f"Behind a floor somewhere: {', '.join(lost) or 'nowhere'} (marked *).",
    ]
    if found["spread"]:
        ranks = ", ".join(f"{r:.2f}" for r in found["spread"]["rank_correlation"])
        caption.append(
            "Spread: how far members are apart in position; its rank correlation with "
            f"the error: {ranks}."
        )
    table = Table(
        title=escape(f"rollouts of {', '.join(found['runs'])}"),
        caption=escape("\n".join(caption)),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("error")
    table.add_column("of")
    for step in steps:
        table.add_column(f"{step}", justify="right")
    for group, of in errors.items():
        marks = behind(errors, group)
        names = ["model", "copy_last"]
        if of["constant_velocity"] != of["copy_last"]:
            names.append("constant_velocity")
        for name in names:
            cells = [_number(value) for value in of[name]]
            if name == "model":
                cells = [
                    f"{cell}{'*' if mark else ''}"
                    for cell, mark in zip(cells, marks, strict=True)
                ]
            what = f"{group.replace('_', ' ')}, {of['unit']}" if name == "model" else ""
            table.add_row(escape(what), name.replace("_", " "), *cells)
        table.add_section()
    if found["spread"]:
        cells = [_number(value) for value in found["spread"]["spread"]]
        table.add_row("position, units", "spread", *cells)
    return table


def plan_table(found: Mapping[str, Any]) -> Table:
    """Predicted costs of plans and of other controllers, situation by situation."""
    given = found["plan"]
    columns = ("plan", "recorded", "neutral", "random")
    won = sum(
        row["plan"] <= min(row["recorded"], row["neutral"])
        for row in given["situations"]
    )
    table = Table(
        title=escape(
            f"{given['method']}: {given['samples']} sequences of {given['frames']} "
            f"frames, goal {given['goal']}"
        ),
        caption=escape(
            "Costs by the world's own word, less is better; the opponent holds its "
            "last controller. Random: the mean of sequences as they were played. "
            f"Plans cost no more than what was recorded and than neutral in {won} of "
            f"{len(given['situations'])}. A plan may do well only where the model errs."
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("situation", justify="right")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("first controller")
    for index, row in enumerate(given["situations"]):
        cells = [f"{row[name]:.3f}" for name in columns]
        table.add_row(str(index), *cells, escape(row["first"]))
    return table


def draw_errors(path: Path, found: Mapping[str, Any]) -> None:
    """Writes the figure: one panel a group, error over horizon. PNG, whole or not."""
    errors, steps = found["errors"], found["steps"]
    partial = path.with_name(path.name + ".partial")
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, group in zip(figure.subplots(3, 4).flat, PANELS, strict=True):
            of = errors[group]
            for name, (color, style, label) in LINES.items():
                axes.plot(steps, of[name], style, color=color, label=label, marker=".")
            axes.set_title(f"{group.replace('_', ' ')}, {of['unit']}", fontsize=9)
            axes.set_xscale("log")
            axes.set_xticks(steps, [str(step) for step in steps])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(LINES))
        figure.suptitle("error by frames ahead")
        figure.savefig(partial, format="png", dpi=110)
    os.replace(partial, path)


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def names_of(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Runs by name, as results keep them: no folders."""
    return [f"{r['backbone']} seed{r['seed']} {r['config_hash']}" for r in runs]
