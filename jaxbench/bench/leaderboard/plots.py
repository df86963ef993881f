"""The plots of a section. A plot without data is named, with what it lacks."""

from __future__ import annotations

from jaxbench.bench.leaderboard import plots_cost, plots_curves, plots_quality
from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.canvas import figure_settings
from jaxbench.bench.leaderboard.plot_parts import Plot


def plots(section: Section, salt: str) -> list[Plot]:
    """All plots in the order of the page; `salt` is unique on the page."""
    with figure_settings():
        return [
            plots_quality.quality(section, f"{salt}-quality"),
            plots_quality.heads_map(section, f"{salt}-heads"),
            *plots_cost.latency(section, f"{salt}-latency"),
            plots_curves.curves(section, f"{salt}-curves"),
            *plots_cost.speed(section, f"{salt}-speed"),
            *plots_cost.memory(section, f"{salt}-memory"),
        ]
