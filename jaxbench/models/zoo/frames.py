"""Backbones that see each frame alone: the floors."""

from __future__ import annotations

from jaxbench.models.row import Row

ROWS: dict[str, Row] = {
    "mlp": Row(
        title="MLP",
        mixer="feedforward:FrameMLP",
        channel="none",
        norm="layer",
        temporal=False,
        note="each frame by itself: the honest floor",
        about="""This is a plain network with one hidden layer in each block that looks
        at one frame and nothing else. It remembers nothing: what it knows of the past
        is what the frame itself contains, such as the previous controller or a
        velocity. Choose it as the honest floor, because a backbone with memory that
        does not beat it has not used its memory.""",
    ),
    "ffn": Row(
        title="Feed-forward layer",
        paper="Vaswani et al. 2017, arXiv:1706.03762",
        mixer="channel:MLP",
        channel="none",
        norm="layer",
        temporal=False,
        note="for patterns",
        about="""This is the feed-forward half of a Transformer as a layer by itself:
        wider by four, a GELU, and back. It remembers nothing and treats every frame
        alone. Choose it inside patterns where a layer of plain computation should stand
        between layers that move information along time.""",
    ),
    "kan": Row(
        title="KAN",
        paper="Liu et al. 2024, arXiv:2404.19756",
        mixer="kan:KAN",
        channel="none",
        norm="layer",
        temporal=False,
        about="""The Kolmogorov-Arnold network learns a curve on every connection in
        place of a weight, as a sum of splines. It remembers nothing and treats every
        frame alone. Choose it to test whether learned one-dimensional functions
        describe a frame better than an ordinary MLP does.""",
        primitives=("cubic_spline_basis",),
    ),
    "bayesian": Row(
        title="Bayes by backprop",
        paper="Blundell et al. 2015, arXiv:1505.05424",
        mixer="bayesian:BayesianMLP",
        channel="none",
        norm="layer",
        temporal=False,
        about="""This network has a distribution for every weight instead of a number,
        and draws from it during training. It remembers nothing of earlier frames; what
        it adds is a measure of how sure it is, found by running it several times with
        different draws. Choose it when knowing the uncertainty of an answer is worth
        the extra runs.""",
    ),
    "hopfield_static": Row(
        title="Hopfield layer, learned patterns",
        paper="Ramsauer et al. 2020, arXiv:2008.02217",
        mixer="hopfield:StaticHopfield",
        channel="mlp",
        norm="layer",
        temporal=False,
        about="""This Hopfield layer retrieves from a set of learned patterns, asked by
        each frame alone. It remembers nothing of earlier frames: its memory is a table
        of 64 patterns that training writes once for all. Choose it as a lookup layer
        where frames fall into a limited number of situations.""",
        primitives=("attention",),
    ),
    "last_frame_mlp": Row(
        title="Last-frame MLP",
        mixer="feedforward:LastFrameMLP",
        channel="none",
        norm="none",
        join="replace",
        temporal=False,
        depth=1,
        note="what the original benchmark ran as SNN, NTM and Bayesian",
        about="""This is the three-layer network on a single frame that the original
        benchmark ran under the names SNN, NTM and Bayesian. It remembers nothing, has
        neither norm nor residual, and stands alone as a whole backbone. Choose it only
        to reproduce what those three published rows measured.""",
    ),
}
