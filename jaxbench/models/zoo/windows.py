"""Mixers of a whole window, which a stream recomputes at every frame."""

from __future__ import annotations

from jaxbench.models.row import Row

ROWS: dict[str, Row] = {
    "perceiver": Row(
        title="Perceiver IO",
        paper="Jaegle et al. 2021, arXiv:2107.14795",
        mixer="perceiver:Perceiver",
        channel="none",
        norm="none",
        join="replace",
        depth=1,
        causal=False,
        streams="window",
        window=30,
        note="option blocks is its depth",
        about="""The Perceiver reads a window of frames into a few latent vectors, lets
        those think among themselves and then lets every frame ask them. It remembers
        nothing from call to call: the last 30 frames are kept as they are and read anew
        for every frame. Choose it when the input is wide or long and a small number of
        latents should do the expensive work.""",
        primitives=("attention",),
    ),
    "hopfield": Row(
        title="Modern Hopfield network",
        paper="Ramsauer et al. 2020, arXiv:2008.02217",
        mixer="hopfield:Hopfield",
        channel="mlp",
        norm="layer",
        streams="window",
        window=30,
        note="the frames of the episode are the stored patterns",
        about="""The modern Hopfield network treats the frames seen so far as stored
        patterns and retrieves the one that the current frame calls to mind. It
        remembers the frames of the window exactly and refines its question by one or
        more retrieval steps before it reads an answer. Choose it to test associative
        recall that sharpens its query, of which attention is the case without
        refinement.""",
        primitives=("attention",),
    ),
    "fnet": Row(
        title="FNet",
        paper="Lee-Thorp et al. 2021, arXiv:2105.03824",
        mixer="fnet:FNet",
        channel="mlp",
        norm="layer",
        causal=False,
        streams="window",
        window=30,
        about="""FNet replaces attention by a Fourier transform over frames and
        channels, which mixes everything with everything and has nothing to learn. It
        remembers nothing from call to call: the last 30 frames are kept as they are and
        transformed anew for every frame. Choose it to see how much a network gains from
        mixing frames at all, since its MLPs do all the learning.""",
    ),
}
