"""Selective state spaces: diagonal recurrences whose gates read the input."""

from __future__ import annotations

from jaxbench.models.row import GEGLU, Published, Row

ROWS: dict[str, Row] = {
    "mamba": Row(
        title="Mamba",
        paper="Gu & Dao 2023, arXiv:2312.00752",
        mixer="mamba:Mamba",
        channel="none",
        norm="rms",
        about="""Mamba is a state space that decides at every frame how much to write,
        how fast to forget and what to read. Each channel keeps 16 numbers that decay at
        rates set by the input, after a convolution over the last four frames. Choose it
        when most frames are unimportant and a few must be kept, with a fixed cost for
        each frame.""",
        norm_epsilon=1e-5,
        primitives=(
            "short_convolution",
            "selective_scan",
        ),
    ),
    "mamba2": Row(
        title="Mamba-2",
        paper="Dao & Gu 2024, arXiv:2405.21060",
        mixer="mamba2:Mamba2",
        channel="none",
        norm="rms",
        aliases=("mamba_ssd",),
        about="""Mamba-2 gives every head a single decay in place of Mamba's decay for
        every number, so that training becomes matrix products. Each head keeps a matrix
        of 64 states for each of its channels, which fades at a rate set by the input
        and is added to at every frame. Choose it instead of Mamba when a larger state
        and large matrix products suit your hardware.""",
        norm_epsilon=1e-5,
        primitives=(
            "short_convolution",
            "gated_linear_attention:head",
        ),
        published=Published(
            width=896,
            parameters=101_936_528,
            shape={"state_size": 128},
            norm="layer",
        ),
    ),
    "mamba3": Row(
        title="Mamba-3",
        paper="Lahoti et al. 2026, arXiv:2603.15569",
        mixer="mamba3:Mamba3",
        channel="glu",
        norm="rms",
        note="single input; A does not depend on the input",
        about="""Mamba-3 adds two things to Mamba-2: it writes each input over two
        neighbouring frames, and it rotates its state by angles that the input chooses.
        The rotation lets it remember phases, such as whether something happened an even
        or an odd number of times, which a purely shrinking state cannot. Choose it when
        Mamba-2 is nearly right but the task has counting, parity or cycles in it.""",
        norm_epsilon=1e-5,
        primitives=(
            "diagonal",
            "gated_linear_attention:head",
        ),
    ),
    "gated_ssm": Row(
        title="Gated SSM",
        paper="Edifice's design; cf. Mehta et al. 2022, arXiv:2206.13947",
        mixer="gated_ssm:GatedSSM",
        channel="none",
        norm="layer",
        note="a recurrence with learned decays; the original weighed positions",
        about="""The gated SSM has Mamba's outline but a much simpler inside: a moving
        average of each channel with one learned decay. Two gates, one number each for a
        whole frame, decide how much of the frame enters and how much of the average is
        read. Choose it as the cheap baseline that shows what Mamba's selection
        adds.""",
        primitives=(
            "short_convolution",
            "diagonal",
        ),
    ),
    "hawk": Row(
        title="Hawk",
        paper="De et al. 2024, arXiv:2402.19427",
        mixer="hawk:Hawk",
        channel="glu",
        norm="rms",
        options={**GEGLU, "channel.expansion": 3.0},
        note="initial decays as the authors' code",
        about="""Hawk is a recurrence of one number for each channel, with a gate that
        sets its decay and a gate that sets its input at every frame. When a channel
        forgets less it also takes in less, by a square root that keeps the state at the
        size of the input. Choose it when you want a selective memory with a very small
        state, as the recurrent half of Griffin.""",
        primitives=(
            "short_convolution",
            "diagonal",
        ),
    ),
}
