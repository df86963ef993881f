"""The table of tasks: what the boards of each show."""

from __future__ import annotations

from jaxbench.bench.leaderboard import (
    costs,
    pentathlon,
    pile,
    plots_cost,
    plots_curves,
    plots_quality,
    zelda,
)
from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.column import Column
from jaxbench.bench.leaderboard.task_board import (
    MEMORY,
    QUALITY,
    SEED_FACTS,
    SPEED,
    TaskBoard,
    View,
    plain_metric,
)

PENTATHLON = ("mqar", "flip_flop", "knapsack", "word_problem", "edit_distance")
BOARDS = {
    "zelda": zelda.BOARD,
    "pile": pile.BOARD,
    **dict.fromkeys(PENTATHLON, pentathlon.BOARD),
}


def task_board(section: Section) -> TaskBoard:
    """What the board of a section shows; what any task has where it is not known."""
    return BOARDS.get(section.key.task, _OTHER)


def _columns(section: Section) -> list[Column]:
    return [*costs.size(section), *costs.speed(section), *costs.memory()]


_OTHER = TaskBoard(
    views=(QUALITY, View("heads", "Parts of the score", floors=True), SPEED, MEMORY),
    metric=plain_metric,
    columns=_columns,
    seed_facts=SEED_FACTS,
    plots={
        "quality": plots_quality.quality,
        "heads": plots_quality.heads_map,
        "curves": plots_curves.curves,
        "speed": plots_cost.speed,
        "memory": plots_cost.memory,
    },
    data_notes=lambda section: [],
)
