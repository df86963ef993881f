"""What boards of world models show: the error of the next frame."""

from __future__ import annotations

from jaxbench.tasks.columns import Column, Need, TaskBoard

BOARD = TaskBoard(
    about="foretell the next frame of a Melee game",
    scores=("state_error",),
    labels={
        "state_error": ("state error", "", 4, "over the variance of a state's change")
    },
    columns=(
        Column(
            "distance",
            "best.metrics.distance",
            "distance",
            "units",
            "low",
            3,
            "score",
            "how far off a player's position is",
            "mean",
        ),
        Column(
            "action_state_accuracy",
            "best.metrics.action_state_accuracy",
            "action states",
            "%",
            "high",
            1,
            "score",
            "whose next value was right",
            "mean",
        ),
        Column(
            "*",
            "best.metrics.*",
            "*",
            digits=4,
            group="parts",
            over_seeds="mean",
        ),
    ),
    headlines=(
        "distance",
        "action_state_accuracy",
        "params_total",
        "state_bytes",
        "steps_per_s",
    ),
    needs=(
        Need("foretell the next frame", "score"),
        Need("carry the least from frame to frame", "state_bytes", exact=True),
        Need("train in the least time", "train_seconds", timed=True),
    ),
)
