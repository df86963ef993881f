"""Time-invariant state spaces: linear recurrences that are the same at every frame."""

from __future__ import annotations

from jaxbench.models.row import Row

ROWS: dict[str, Row] = {
    "s4": Row(
        title="S4",
        paper="Gu et al. 2021, arXiv:2111.00396",
        mixer="s4:S4",
        channel="none",
        norm="layer",
        note="s4/mlp has an MLP in each layer too",
        about="""S4 passes every channel through a small linear system, the same at
        every frame, whose initial matrix (HiPPO) is built so that its state summarises
        the whole past as a curve. It remembers through fixed, slowly fading
        oscillations, so how long it remembers something never depends on what it is.
        Choose it for smooth signals with long-range structure, or as the strong classic
        that newer state spaces are compared with.""",
        norm_epsilon=1e-5,
        primitives=("dplr_ssm",),
    ),
    "s4d": Row(
        title="S4D",
        paper="Gu et al. 2022, arXiv:2206.11893",
        mixer="s4:S4D",
        channel="none",
        norm="layer",
        note="S4D-Lin; option spectrum=inv or legs; s4d/mlp has an MLP too",
        about="""S4D is S4 with the matrix of its linear system reduced to a diagonal:
        every state is one decaying oscillation. It remembers the past of each channel
        as a sum of such oscillations, with decays and frequencies that are learned but
        do not react to the input. Choose it instead of S4 when you want nearly the same
        behaviour from simpler code.""",
        norm_epsilon=1e-5,
        primitives=("diagonal_ssm",),
    ),
    "s5": Row(
        title="S5",
        paper="Smith et al. 2022, arXiv:2208.04933",
        mixer="s5:S5",
        channel="none",
        norm="layer",
        about="""S5 is one linear state space that reads all channels together, where S4
        has a separate one for each. It remembers 128 decaying oscillations of mixtures
        of the channels, each with a time step of its own, and none of them depends on
        what is seen. Choose it when you want a state space with a very small state, or
        data whose channels belong together.""",
        primitives=("diagonal",),
    ),
    "h3": Row(
        title="H3",
        paper="Fu et al. 2022, arXiv:2212.14052",
        mixer="h3:H3",
        channel="mlp",
        norm="layer",
        about="""H3 joins two state spaces by two products, in the places where
        attention has keys, values and queries. A short shift remembers the last few
        keys, their product with the value goes into a long diagonal memory, and the
        query multiplies what is read from it. Choose it to see how far a memory that
        does not react to the input gets when it is asked in the manner of
        attention.""",
        norm_epsilon=1e-5,
        primitives=(
            "short_convolution",
            "diagonal_ssm",
        ),
    ),
    "lru": Row(
        title="LRU",
        paper="Orvieto et al. 2023, arXiv:2303.06349",
        mixer="lru:LRU",
        channel="none",
        norm="layer",
        about="""The linear recurrent unit is a plain recurrence without a nonlinearity
        inside, made trainable by how it is started and scaled. It remembers complex
        numbers that turn and shrink a little at every frame, with initial sizes between
        0.9 and 0.999, whatever the input is. Choose it when you want the simplest
        linear memory that can still hold things for hundreds of frames.""",
        primitives=("diagonal",),
    ),
    "hyena": Row(
        title="Hyena",
        paper="Poli et al. 2023, arXiv:2302.10866",
        mixer="hyena:Hyena",
        channel="mlp",
        norm="layer",
        note="order 2; implicit filters of a fixed length, so a stream is exact",
        about="""Hyena filters the sequence with one long convolution whose taps are
        written by a small network, between two gates. It remembers the last 64 frames
        or so, each weighed by the learned filter, and nothing older. Choose it when
        what matters lies within a known number of frames and a smooth filter over them
        is a good guess.""",
        norm_epsilon=1e-5,
        primitives=(
            "short_convolution",
            "causal_convolution",
        ),
    ),
}
