"""The Elman ladder: byte-level recurrences with a vector for a state."""

from __future__ import annotations

from typing import Any

from jaxbench.models.row import Published, Row

FLOAT32 = (
    "Gates, candidates and states are float32, where the source stored them in "
    "bfloat16."
)
DIRECTION = (
    "Power iterations for the spectral norm are 8 a call from the direction that was "
    "best for the initial matrix, where the source made 3 from where the last call "
    "ended."
)
WIDEN = "x = SiLU(W_in u)"
ALPHA = "α = sigmoid(W_a x + b_a)"
AVERAGE = "h_t = α h_{t-1} + (1 - α) v"
SELF_GATE = "output  W_out (h * SiLU(h))"


def ladder_row(differences: tuple[str, ...] = (FLOAT32,), **fields: Any) -> Row:
    """What all rows of the ladder have in common: no channel mixer, RMS norms."""
    common = {"paper": "ekg/elman (repository, 2026)", "channel": "none", "norm": "rms"}
    return Row(differences=differences, **(common | fields))


ROWS: dict[str, Row] = {
    "e1": ladder_row(
        title="E1, Elman network with a gate",
        mixer="elman_dense:E1",
        note="recurrent matrix of spectral norm 0.99",
        about="""E1 is the Elman network of 1990 with two additions: the norm of the
        recurrent matrix is held just below one, and a gate made from the input
        multiplies the output. It remembers a vector that is mixed by the same matrix
        and squashed by a tanh at every frame, so what is not used fades within some
        tens of frames. Choose it as the plain nonlinear recurrence against which the
        others of the ladder are measured.""",
        differences=(FLOAT32, DIRECTION),
        primitives=("dense_cell",),
        published=Published(width=640, parameters=114_890_880),
    ),
    "e1h": ladder_row(
        title="E1H, Elman network with heads",
        mixer="elman_dense:E1H",
        note="recurrent and input matrices in blocks of about 64",
        about="""E1H is E1 cut into heads, each with a small recurrent matrix of its own
        instead of one large one for all. It remembers a short vector for every head,
        and heads meet only in the projections round the recurrence. Choose it over E1
        when the large product at every frame is what takes the time.""",
        differences=(
            FLOAT32,
            DIRECTION,
            (
                "The recurrent matrix is normalised head by head as that of E1 is, "
                "which the description of the source leaves open."
            ),
        ),
        primitives=("dense_cell",),
    ),
    "e42": ladder_row(
        title="E42, linear Elman network",
        mixer="elman_dense:E42",
        note="one matrix of spectral norm 0.999 for input and state",
        about="""E42 is an Elman network without a nonlinearity in its recurrence and
        with one matrix that takes both the input and the old state. It remembers a
        vector that this matrix turns and shrinks a little at every frame, the same
        whatever the input says, and its output multiplies the state by itself. Choose
        it to see how far a recurrence without gates goes, since all its frames can be
        computed at once.""",
        differences=(FLOAT32, DIRECTION),
        primitives=("dense_linear",),
        published=Published(width=768, parameters=94_615_296),
    ),
    "e56": ladder_row(
        title="E56, Elman network with one joint matrix",
        mixer="elman_dense:E56",
        note="no bound on the recurrent matrix",
        about="""E56 is E1 with a single matrix over the input and the old state
        together, which nothing holds to a norm. It remembers a vector that is mixed and
        squashed by a tanh at every frame, and how long that lasts is up to what the
        matrix learns. Choose it to see what the bound of E1 is worth.""",
        primitives=("dense_cell",),
        published=Published(width=640, parameters=114_890_880),
    ),
    "e61": ladder_row(
        title="E61, linear gated average",
        mixer="elman:LinearAverage",
        options={"cell": "e61"},
        about="""E61 is a moving average whose gate sees the input only, and whose
        values are linear in it. It remembers one number for each channel, of which the
        gate keeps nearly nine tenths at every frame at the start of training. Choose it
        as the simplest of the ladder, since it trains in parallel over all frames and
        needs no tanh.""",
        equation=f"{WIDEN};  {ALPHA};  v = W_v x + b_v\n{AVERAGE}\n{SELF_GATE}",
        primitives=("diagonal",),
        published=Published(width=640, parameters=98_532_480),
    ),
    "e62": ladder_row(
        title="E62, selective write",
        mixer="elman:LinearAverage",
        options={"cell": "e62"},
        about="""E62 is a moving average seen from the other side: a gate says how much
        of a new, bounded value is written. It remembers one number for each channel
        between minus one and one, and changes a tenth of it at every frame at the start
        of training. Choose it over E61 when the state should stay bounded whatever the
        input is.""",
        equation=f"{WIDEN};  k = sigmoid(W_k x + b_k);  v = tanh(W_v x + b_v)\n"
        f"h_t = (1 - k) h_{{t-1}} + k v\n{SELF_GATE}",
        primitives=("diagonal",),
        published=Published(width=640, parameters=98_532_480),
    ),
    "e63": ladder_row(
        title="E63, gated average of an Elman network",
        mixer="elman_dense:E63",
        about="""E63 is an Elman network that a gate mixes with its own past. It
        remembers a vector that keeps most of its old value at every frame and takes the
        rest from a tanh that sees the input and the whole state through a matrix.
        Choose it when channels must act on each other through time, and accept that
        frames are computed one after the other.""",
        primitives=("dense_cell",),
        published=Published(width=512, parameters=84_068_864),
    ),
    "e64": ladder_row(
        title="E64, gated average with an additive tanh",
        mixer="elman:Average",
        options={"cell": "e64"},
        about="""E64 is E63 without the matrix: each channel adds its own old state
        inside the tanh. It remembers one number for each channel, and because a tanh
        leaves small numbers as they are, small states hardly fade. Choose it to see
        what the cheapest dependence on the old state brings.""",
        equation=f"{WIDEN};  {ALPHA};  v = tanh(h_{{t-1}} + W_x x + b)\n"
        f"{AVERAGE}\n{SELF_GATE}",
        primitives=("elementwise_cell",),
        published=Published(width=640, parameters=98_532_480),
    ),
    "e65": ladder_row(
        title="E65, gated average with a weighted tanh",
        mixer="elman:Average",
        options={"cell": "e65"},
        about="""E65 is E64 with a learned weight for each channel on the old state
        inside the tanh. It remembers one number for each channel, and since the weight
        starts at one half, the new value forgets the old one. Choose it over E64 when
        forgetting matters as much as keeping.""",
        equation=f"{WIDEN};  {ALPHA};  v = tanh(d_h h_{{t-1}} + W_x x + b)\n"
        f"{AVERAGE}\n{SELF_GATE}",
        primitives=("elementwise_cell",),
        published=Published(width=640, parameters=98_558_080),
    ),
    "e66": ladder_row(
        title="E66, gated average with a low-rank matrix",
        mixer="elman_dense:E66",
        note="recurrent matrix of rank E / 4",
        about="""E66 is E63 with its recurrent matrix made from two thin ones. It
        remembers a vector that keeps most of its old value at every frame, and what
        channels say to each other passes through a quarter as many numbers. Choose it
        when E63 has too many parameters, not when it is too slow, for every frame now
        needs two products.""",
        primitives=("dense_cell",),
        published=Published(width=640, parameters=114_916_480),
    ),
    "e67": ladder_row(
        title="E67, gate that sees its state",
        mixer="elman:Average",
        options={"cell": "e67"},
        about="""E67 is a moving average of bounded values whose gate sees the old state
        of its own channel besides the input. It remembers one number for each channel,
        and how firmly it holds on can depend on what it holds. Choose it over E62 when
        a value, once there, should decide about its own stay.""",
        equation=f"{WIDEN};  α = sigmoid(W_a x + d_a h_{{t-1}} + b_a);  "
        f"v = tanh(W_x x + b)\n{AVERAGE}\n{SELF_GATE}",
        primitives=("elementwise_cell",),
        published=Published(width=640, parameters=98_558_080),
    ),
    "e68": ladder_row(
        title="E68, values gated by the state",
        mixer="elman:Average",
        options={"cell": "e68"},
        about="""E68 is a moving average of bounded values that the old state of the
        same channel lets through or holds back. It remembers one number for each
        channel, and what is there decides how much of the next value gets in. Choose it
        when old and new should interact, but only inside a channel, which keeps the
        recurrence cheap.""",
        equation=f"{WIDEN};  {ALPHA}\n"
        "g = sigmoid(d_g h_{t-1} + b_g);  v = tanh(W_x x + b) g\n"
        f"{AVERAGE}\n{SELF_GATE}",
        primitives=("elementwise_cell",),
        published=Published(width=640, parameters=98_583_680),
    ),
}
