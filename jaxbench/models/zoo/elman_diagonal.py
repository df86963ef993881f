"""The sixteen diagonal rows of E74: update, projections, nonlinearity."""

from __future__ import annotations

from typing import NamedTuple

from jaxbench.models.row import Published, Row
from jaxbench.models.zoo.elman import ladder_row


class Projections(NamedTuple):
    """One of the four sets of projections.

    Attributes:
      told: which of k, v, q, z have a matrix of their own, in words.
      equation: the same, as a line of the equation begins.
      unused: what the source's kernel did not read, though most of it is projected.
      width: D of the published model.
      parameters: of the published model, the same for all updates and nonlinearities.
      note: that the source gives no such model, so the count is ours, or "".
    """

    told: str
    equation: str
    unused: str
    width: int
    parameters: int
    note: str = ""


PROJECTIONS = {
    "tiedkvq": Projections(
        "one matrix for keys, values and queries",
        "k = v = q = W x, then k of length 1",
        "queries are not used",
        1536,
        103_644_672,
    ),
    "tiedkq": Projections(
        "one matrix for keys and queries and one for values",
        "k = q = W x, then k of length 1;  v = W_v x",
        "queries are not used",
        1408,
        93_205_376,
        "; width and size of the published model are not known",
    ),
    "noz": Projections(
        "a matrix each for keys, values and queries",
        "k, v, q = W x, |k| = 1",
        "queries are projected and not used",
        1408,
        98_612_096,
    ),
    "full": Projections(
        "a matrix each for keys, values, queries and a gate",
        "k, v, q = W x, |k| = 1;  z = sigmoid(W_z x)",
        "queries and z are projected and not used",
        1408,
        104_018_816,
    ),
}
REMEMBERS = {
    "little": """It remembers little: values are the keys, so the update draws every
        number towards the same value, the length of recent keys""",
    "d": """It remembers values under keys, and a key that comes again makes room for
        what it brings: its square says how much of the old number goes""",
    "s": """It remembers values under keys for about ten frames, as every frame takes
        away a tenth of what is held""",
}


def _row(update: str, projections: str, nonlinearity: str) -> Row:
    delta, tanh, z = update == "d", nonlinearity == "t", projections == "full"
    own = PROJECTIONS[projections]
    remembers = "little" if delta and projections == "tiedkvq" else update
    kind = "squashed by a tanh at every frame" if tanh else "linear in its past"
    when = (
        "the scan over frames costs little and the state must stay between -1 and 1"
        if tanh
        else "all frames should be computed at once"
    )
    state = f"(1 - {'z * ' * z}k^2) * s_{{t-1}} + v * k"
    state = state if delta else "0.9 s_{t-1} + v * k"
    state = f"tanh({state})" if tanh else state
    place = "what an update takes away" if delta else "what is read"
    grows = ", and the state overflows" * (delta and not tanh)
    return ladder_row(
        title=f"E74 diagonal, {update}-{projections}-{nonlinearity}",
        mixer=f"elman_diagonal:{'Tanh' if tanh else 'Linear'}Diagonal",
        options={"delta": delta, "projections": projections},
        note=("tanh" if tanh else "linear in the state") + own.note,
        about=f"""This is E74 cut down to the diagonal of its matrix: 96 numbers,
        {kind}, with {own.told}. {REMEMBERS[remembers]}. Choose it to see what the
        matrix of E74 is worth, and of the sixteen this one where {when}.""",
        equation=(
            f"x = W_in u;  {own.equation}\n"
            f"s_t = {state};  o = s_t * q{' * z' * (z and not delta)}\n"
            "output  W_out SG(o);  SG(o) = o SiLU(o)"
        ),
        differences=(
            (
                "As the source's kernel ran under `compat`: keys are not normalised, "
                f"{own.unused}, the output is SG(s){grows}; but gradients are real, "
                "where that kernel gave none to the cell."
            ),
            (
                "Here it is cured: keys have length 1 over the 96 channels, the output "
                "is SG(s * q), and kernels do not all start at the deviation 0.02."
            ),
            *(f"The source says of z only that it modulates; here {place}.",) * z,
            (
                "The embedding enters the stream once, not twice; under `compat` norms "
                "take away the mean."
            ),
        ),
        primitives=("tanh_diagonal" if tanh else "diagonal",),
        published=Published(
            width=own.width,
            parameters=own.parameters,
            faults={"cured": False},
            norm="centered",
        ),
    )


ROWS: dict[str, Row] = {
    f"e74_{update}_{projections}_{nonlinearity}": _row(
        update, projections, nonlinearity
    )
    for update in ("d", "s")
    for projections in PROJECTIONS
    for nonlinearity in ("t", "l")
}
