"""The sixteen diagonal rows of E74: update, projections, nonlinearity."""

from __future__ import annotations

import dataclasses

from jaxbench.models.row import Published, Row
from jaxbench.models.zoo.elman import ladder_row


@dataclasses.dataclass(frozen=True)
class Projections:
    """One of the four sets of projections.

    Attributes:
      told: which of k, v, q, z have a matrix of their own, in words.
      equation: the same, as a line of the equation begins.
      width: D of the published model.
      parameters: of the published model, the same for all updates and nonlinearities.
      counted: whether the source gives no such model and the count is ours.
    """

    told: str
    equation: str
    width: int
    parameters: int
    counted: bool = False


PROJECTIONS = {
    "tiedkvq": Projections(
        "one matrix for keys, values and queries",
        "k = v = q = W x, then k of length 1",
        1536,
        103_644_672,
    ),
    "tiedkq": Projections(
        "one matrix for keys and queries and one for values",
        "k = q = W x, then k of length 1;  v = W_v x",
        1408,
        93_205_376,
        counted=True,
    ),
    "noz": Projections(
        "a matrix each for keys, values and queries",
        "k, v, q = W x, |k| = 1",
        1408,
        98_612_096,
    ),
    "full": Projections(
        "a matrix each for keys, values, queries and a gate",
        "k, v, q = W x, |k| = 1;  z = sigmoid(W_z x)",
        1408,
        104_018_816,
    ),
}


def _row(update: str, projections: str, nonlinearity: str) -> Row:
    delta, tanh = update == "d", nonlinearity == "t"
    own = PROJECTIONS[projections]
    name = "TanhDiagonal" if tanh else "LinearDiagonal"
    return ladder_row(
        title=f"E74 diagonal, {update}-{projections}-{nonlinearity}",
        mixer=f"elman_diagonal:{name}",
        options={"delta": delta, "projections": projections},
        note=_note(own, tanh),
        about=_about(delta, projections, tanh),
        equation=_equation(delta, projections, tanh),
        differences=_differences(delta, projections, tanh),
        primitives=("tanh_diagonal" if tanh else "diagonal",),
        published=Published(
            width=own.width,
            parameters=own.parameters,
            faults={"cured": False},
            norm="centered",
        ),
    )


def _note(own: Projections, tanh: bool) -> str:
    told = "tanh" if tanh else "linear in the state"
    if own.counted:
        told += "; width and size of the published model are not known"
    return told


def _about(delta: bool, projections: str, tanh: bool) -> str:
    kind = "squashed by a tanh at every frame" if tanh else "linear in its past"
    if delta and projections == "tiedkvq":
        remembers = (
            "It remembers little: values are the keys, so the update draws every "
            "number towards the same value, the length of recent keys"
        )
    elif delta:
        remembers = (
            "It remembers values under keys, and a key that comes again makes room "
            "for what it brings: its square says how much of the old number goes"
        )
    else:
        remembers = (
            "It remembers values under keys for about ten frames, as every frame "
            "takes away a tenth of what is held"
        )
    when = (
        "the scan over frames costs little and the state must stay between -1 and 1"
        if tanh
        else "all frames should be computed at once"
    )
    told = PROJECTIONS[projections].told
    return (
        f"This is E74 cut down to the diagonal of its matrix: 96 numbers, {kind}, "
        f"with {told}. {remembers}. Choose it to see what the matrix of E74 is worth, "
        f"and of the sixteen this one where {when}."
    )


def _equation(delta: bool, projections: str, tanh: bool) -> str:
    z = projections == "full"
    if delta:
        factor = "1 - z * k^2" if z else "1 - k^2"
        sum_ = f"({factor}) * s_{{t-1}} + v * k"
    else:
        sum_ = "0.9 s_{t-1} + v * k"
    read = "s_t * q * z" if z and not delta else "s_t * q"
    state = f"tanh({sum_})" if tanh else sum_
    return (
        f"x = W_in u;  {PROJECTIONS[projections].equation}\n"
        f"s_t = {state};  o = {read}\n"
        "output  W_out SG(o);  SG(o) = o SiLU(o)"
    )


def _differences(delta: bool, projections: str, tanh: bool) -> tuple[str, ...]:
    unused = "queries are not used"
    if projections == "full":
        unused = "queries and z are projected and not used"
    elif projections == "noz":
        unused = "queries are projected and not used"
    grows = delta and not tanh
    told = [
        (
            "As the source's kernel ran under `compat`: keys are not normalised, "
            f"{unused}, the output is SG(s){', and the state overflows' * grows}; but "
            "gradients are real, where that kernel gave none to the cell."
        ),
        (
            "Here it is cured: keys have length 1 over the 96 channels, the output is "
            "SG(s * q), and kernels do not all start at the deviation 0.02."
        ),
    ]
    if projections == "full":
        place = "what an update takes away" if delta else "what is read"
        told.append(f"The source says of z only that it modulates; here {place}.")
    told.append(
        "The embedding enters the stream once, not twice; under `compat` norms take "
        "away the mean."
    )
    return tuple(told)


ROWS: dict[str, Row] = {
    f"e74_{update}_{projections}_{nonlinearity}": _row(
        update, projections, nonlinearity
    )
    for update in ("d", "s")
    for projections in PROJECTIONS
    for nonlinearity in ("t", "l")
}
