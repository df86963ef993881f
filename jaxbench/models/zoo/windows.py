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
        about=(
            "The Perceiver reads a window of frames into a few latent vectors, lets "
            "those think among themselves and then lets every frame ask them. It "
            "remembers nothing from call to call: the last 30 frames are kept as they "
            "are and read anew for every frame. Choose it when the input is wide or "
            "long and a small number of latents should do the expensive work."
        ),
        equation=(
            "f_t = W [x_t, sinusoids of t's distance to the window's last frame]\n"
            "attend(q, m):  q += W_o attention(LN(q), LN(m)), then q += MLP(LN(q))\n"
            "z = attend(latents, f);  `blocks` times z = attend(z, z);  y_t = "
            "attend(f_t, z)\n"
            "output  W_out LN(y)"
        ),
        differences=(
            "The latents read the frames once.",
            (
                "Positions are sinusoids of the distance to the last frame instead of "
                "Fourier features of a place in a fixed window, so that the current "
                "frame always looks the same."
            ),
            "Queries, keys and values have no biases.",
        ),
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
        about=(
            "The modern Hopfield network treats the frames seen so far as stored "
            "patterns and retrieves the one that the current frame calls to mind. It "
            "remembers the frames of the window exactly and refines its question by "
            "one or more retrieval steps before it reads an answer. Choose it to test "
            "associative recall that sharpens its query, of which attention is the "
            "case without refinement."
        ),
        equation=(
            "p_t = LN(x_t) + sinusoids of t;  ξ = W_q p_t;  K = W_k p_s, V = W_v p_s, "
            "s <= t\n"
            "`steps` times  ξ <- softmax(β ξ K^T) K;  then o_t = softmax(β ξ K^T) V "
            "for each head\n"
            "output  W_out concat(o)"
        ),
        differences=(
            (
                "A fixed number of steps is made instead of stopping when ξ hardly "
                "changes."
            ),
            (
                "Values come from the patterns instead of from the keys, as in the "
                "authors' layer."
            ),
            (
                "Positions are added to the patterns, and there is no dropout on the "
                "weights."
            ),
        ),
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
        about=(
            "FNet replaces attention by a Fourier transform over frames and channels, "
            "which mixes everything with everything and has nothing to learn. It "
            "remembers nothing from call to call: the last 30 frames are kept as they "
            "are and transformed anew for every frame. Choose it to see how much a "
            "network gains from mixing frames at all, since its MLPs do all the "
            "learning."
        ),
        equation=(
            "y = Re(F_n F_D x) / sqrt(n D) = (C_n x C_D - S_n x S_D) / sqrt(n D)\n"
            "n frames of the episode, D channels, F = C - i S the discrete Fourier "
            "transform"
        ),
        differences=(
            (
                "The result is divided by sqrt(n D), so that it is as large as the "
                "input; the paper relies on the norm after the sum."
            ),
            (
                "It stands in a pre-norm block; the paper's blocks have their norms "
                "after the sums."
            ),
        ),
    ),
}
