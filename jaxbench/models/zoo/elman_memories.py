"""The Elman ladder: byte-level recurrences with a matrix for a state."""

from __future__ import annotations

from jaxbench.models.row import Published, Row
from jaxbench.models.zoo.elman import ladder_row

# What the cures are told with: the row as published is the one under `compat`.
_FAULTS = "As published under `compat`; here it is cured: {}."
_FLOAT32 = "Gates and states are float32, bfloat16 in the source."
_START = (
    "The output projection starts at the deviation of the other mixers here, smaller "
    "in deeper stacks; Xavier-uniform in the source."
)


def _sizes_of_e74() -> dict[str, Row]:
    parameters = {
        16: 98_237_952,
        32: 101_678_592,
        48: 105_119_232,
        64: 108_559_872,
    }
    return {
        f"e74_{size}": ladder_row(
            title=f"E74, n = {size}",
            mixer="nonlinear_delta:DeltaMemory",
            options={"state_size": size},
            aliases=("e74",) if size == 32 else (),
            note="one head: the output is as many numbers as the state has rows",
            about=f"""E74 keeps one matrix of {size} by {size} numbers that maps keys to
            values, corrected by the delta rule and squashed by a tanh at every frame.
            It remembers the latest value of every key, and older ones shrink under the
            tanh or are overwritten. Choose it as the single head that E75 and E88
            multiply, to see how little one head can carry.""",
            equation=(
                "x = W_in u;  k, v, q = W x, |k| = |q| = 1\n"
                "S_t = tanh(S_{t-1} + k (v - S_{t-1}^T k)^T);  o = S_t^T q\n"
                "output  W_out SG(o);  SG(o) = o SiLU(o)"
            ),
            differences=(
                _FAULTS.format(
                    "queries have length 1, kernels do not all start at the deviation "
                    "0.02, and norms do not take away the mean"
                ),
                (
                    "The embedding enters the stream once, not twice, and under "
                    "`compat` the last norm takes away the mean as the others do."
                ),
                _FLOAT32,
            ),
            primitives=("tanh_delta",),
            published=Published(
                width=1536,
                parameters=count,
                faults={"cured": False},
                norm="centered",
            ),
        )
        for size, count in parameters.items()
    }


ROWS: dict[str, Row] = {
    "e63m": ladder_row(
        title="E63m",
        mixer="elman_memories:E63m",
        note="the state is 2 D numbers for each of 32 slots",
        about="""E63m keeps 32 slots, each as wide as the inner layer, that are asked
        with a key and rewritten with a mixture of their own answers. It remembers in a
        slot the sum of keys it was given, each weighted by the answer of that moment,
        and an input gate sets how fast a slot forgets. Choose it to study memories
        whose writes depend on what they hold, not for speed: its state is the largest
        of the ladder and frames are computed one by one.""",
        differences=(
            _FAULTS.format(
                "keys have length 1, queries are divided by sqrt(d), and there are 32 "
                "slots, not 8, a default that leaked in where 64 were planned"
            ),
            _START,
            _FLOAT32,
        ),
        primitives=("slot_memory",),
        published=Published(
            width=640, parameters=82_610_880, faults={"cured": False, "slots": 8}
        ),
    ),
    "e70": ladder_row(
        title="E70",
        mixer="elman_memories:E70",
        about="""E70 is retention: linear attention whose memory fades at a fixed rate.
        It remembers sums of values times keys in four matrices, which fade at learned
        rates between an eighth and a five-hundredth a frame. Choose it from the ladder
        when all frames must be computed at once, for it is the only matrix memory of
        the ladder that is linear in its state.""",
        differences=(
            _FAULTS.format(
                "frames are computed in chunks of matrix products, each of 4 heads of "
                "24 learns its decay (one of 96 and 0.9, meant to be learned and "
                "never trained, in the source), keys and queries are scaled, what is "
                "read is normalised before the gate, and no kernel is held to the "
                "spectral norm 1/2"
            ),
            (
                "Under `compat` spectral norms come from 8 power iterations from a "
                "fixed vector; the source keeps its vector from step to step."
            ),
            _START,
            _FLOAT32,
        ),
        primitives=("gated_linear_attention:head",),
        published=Published(
            width=1408,
            parameters=98_612_116,
            faults={"cured": False, "heads": 1, "state_size": 96},
        ),
    ),
    "e71": ladder_row(
        title="E71",
        mixer="elman_memories:E71",
        about="""E71 keeps a matrix that is a running mean of values times keys, and
        looks up what a key holds before it decides how much of it to keep. It remembers
        values under their keys, and each value channel has a gate that sees both the
        input and the old value. Choose it to study gates that depend on the memory; E75
        and E88 do more with the same work.""",
        differences=(
            _FAULTS.format(
                "keys and queries have length 1, values are bounded by a tanh, d_a "
                "starts at 0, not at 0.1, and what is read is normalised before the "
                "gate"
            ),
            _START,
            _FLOAT32,
        ),
        primitives=("gated_memory",),
        published=Published(
            width=1408, parameters=104_022_656, faults={"cured": False}
        ),
    ),
    "e72": ladder_row(
        title="E72",
        mixer="elman_memories:E72",
        about="""E72 keeps a matrix that is a running mean of values times keys, and
        looks up what a key holds before it decides how much of the new value to let in.
        It remembers values under their keys; the rate of forgetting depends on the
        input alone, the share that is written on the memory too. Choose it beside E71
        to see whether a memory should steer its keeping or its writing.""",
        differences=(
            _FAULTS.format(
                "keys and queries have length 1, values are bounded by a tanh, d_g "
                "starts at 0, not at 0.5, and what is read is normalised before the "
                "gate"
            ),
            _START,
            _FLOAT32,
        ),
        primitives=("gated_memory",),
        published=Published(
            width=1408, parameters=104_024_576, faults={"cured": False}
        ),
    ),
    "e73": ladder_row(
        title="E73",
        mixer="elman_memories:E73",
        about="""E73 keeps matrices to which values times keys are added, each key
        channel scaled by a gate of its own, and passes everything through a tanh at
        every frame. It remembers recent values under their keys for as long as gates
        near one and the tanh let it. Choose it as the simplest matrix memory that is
        nonlinear in its state, the step before E74's delta rule.""",
        differences=(
            _FAULTS.format(
                "keys have length 1, queries are divided by sqrt(n), there are 8 heads "
                "of 32, not one of 96, and a gate of its own takes the place of "
                "o SiLU(o)"
            ),
            "Of the source's three variants this is the one with a gate for each key.",
            _START,
            _FLOAT32,
        ),
        primitives=("tanh_memory",),
        published=Published(
            width=1408,
            parameters=104_020_736,
            faults={"cured": False, "heads": 1, "state_size": 96},
        ),
    ),
    **_sizes_of_e74(),
    "e75": ladder_row(
        title="E75, multi-head",
        mixer="nonlinear_delta:DeltaMemory",
        options={"heads": 4, "forget": True},
        aliases=("e75_mh",),
        note="E74 with a forget gate and several heads",
        about="""E75 gives E74 several independent heads and a forget gate for each
        value channel. It remembers in each head the latest value of every key, squashed
        by a tanh, and can fade what it holds when the input says so. Choose it over E74
        always: at the same size, heads are what made this memory competitive.""",
        equation=(
            "x = W_in u;  k, v, q = W x, |k| = |q| = 1;  β = sigmoid(W_β x + b_β)\n"
            "S_t = tanh(S_{t-1} Diag(β) + k (v - S_{t-1}^T k)^T);  o = S_t^T q\n"
            "output  W_out SG(o), 4 heads;  SG(o) = o SiLU(o)"
        ),
        differences=(
            (
                "Queries have length 1 as keys do; the option `cured=false` takes them "
                "as they are, and starts two kernels at the deviation 0.02."
            ),
            _FLOAT32,
        ),
        primitives=("tanh_delta",),
    ),
    "e88": ladder_row(
        title="E88",
        mixer="nonlinear_delta:E88",
        note="one head for each 16 channels",
        about="""E88 is a delta rule with a tanh on the state, a decay for each head,
        and very many very small heads. It remembers in each head the latest values of a
        few keys, and because the state passes a tanh it can follow machines with
        states, parity among them, to any length. Choose it where the next state depends
        on the last one in a nonlinear way; for looking up many facts the linear Gated
        DeltaNet is better.""",
        differences=(
            "exp(A_log) starts uniform on (0.001, 16), so that no head is at 0.",
            _FLOAT32,
        ),
        primitives=("tanh_delta",),
    ),
    "m2rnn": ladder_row(
        title="M2RNN",
        paper="Mishra et al. 2026, arXiv:2603.14360",
        mixer="nonlinear_delta:M2RNN",
        note="queries and keys of 64 shared by all heads",
        about="""M2RNN is a recurrent network whose state is a matrix: each head
        multiplies its matrix by a learned one, adds a value times a key and takes the
        tanh. It remembers 64 rows of 16 numbers in each head, blended with the new ones
        by a forget gate that the input sets. Choose it where states must be tracked
        exactly and a larger state than an LSTM's is wanted, and accept that frames are
        computed one after the other.""",
        differences=(
            "Queries are divided by sqrt(K).",
            "It is written after a summary of the paper: no convolution, no norm of y.",
            "States are float32.",
        ),
        primitives=("matrix_rnn",),
    ),
}
