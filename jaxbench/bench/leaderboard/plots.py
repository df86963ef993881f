"""The plots of a section. A plot without data is named, with what it lacks."""

from __future__ import annotations

from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.canvas import figure_settings
from jaxbench.bench.leaderboard.plot_parts import Plot
from jaxbench.bench.leaderboard.tasks import task_board


def plots(section: Section, salt: str) -> list[Plot]:
    """All plots in the order of the page; `salt` is unique on the page."""
    with figure_settings():
        return [
            plot
            for name, draw in task_board(section).plots.items()
            for plot in draw(section, f"{salt}-{name}")
        ]
