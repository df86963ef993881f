"""Softmax attention over a cache of past frames."""

from __future__ import annotations

from jaxbench.models.row import Published, Row

CACHE = (
    "Attention reaches back 256 frames at most, so that a stream has a bounded cache."
)

ROWS: dict[str, Row] = {
    "swa": Row(
        title="Sliding-window attention",
        paper="Beltagy et al. 2020, arXiv:2004.05150",
        mixer="attention:SlidingWindowAttention",
        channel="mlp",
        norm="layer",
        streams="unbounded",
        aliases=("attention", "sliding_window"),
        note="rotary positions; causal attention where the window covers the sequence",
        about="""Sliding-window attention lets every frame look directly at the last 30
        frames and weigh them by how well they answer its question. It remembers those
        frames exactly, as keys and values in a cache, and what is older only as far as
        upper layers have carried it on. Choose it when the recent past has everything
        that matters and exact recall within it does too.""",
        differences=(
            "Positions are rotary instead of absolute, and there are no biases.",
        ),
        primitives=("banded_attention",),
    ),
    "transformer": Row(
        title="Transformer++",
        paper="Touvron et al. 2023, arXiv:2302.13971",
        mixer="attention:SlidingWindowAttention",
        channel="glu",
        norm="rms",
        options={"window": 256},
        streams="unbounded",
        note="full attention up to 256 frames, so that a stream's cache is bounded",
        about="""This is the Transformer that recent language models use: full causal
        attention with rotary positions, RMSNorm and a gated MLP. It remembers every
        frame of the last 256 exactly, as keys and values, and compares each new frame
        with all of them. Choose it when exact recall over the whole window counts for
        more than a small state.""",
        differences=(CACHE,),
        primitives=("banded_attention",),
    ),
    "llama": Row(
        title="Llama",
        paper="Touvron et al. 2023, arXiv:2302.13971",
        mixer="attention:SlidingWindowAttention",
        channel="glu",
        norm="rms",
        options={"heads": 0, "window": 512, "channel.multiple": 256},
        streams="unbounded",
        note="heads of 64; full attention up to 512 frames",
        about="""Llama is the Transformer of the transformer row with the sizes that the
        Llama models have: heads of 64 channels and a gated MLP whose width is a
        multiple of 256. It remembers every frame of the last 512 exactly, as keys and
        values, and compares each new frame with all of them. Choose it as the attention
        baseline for text, where the windows of training are 512 bytes.""",
        differences=(
            (
                "Attention reaches back 512 frames at most, so that a stream has a "
                "bounded cache."
            ),
            "Rotated pairs are the halves of a head instead of neighbours.",
        ),
        primitives=("banded_attention",),
        published=Published(width=640, parameters=101_770_880),
    ),
    "llama_legacy": Row(
        title="Llama, as published in the ladder",
        paper="ekg/elman (repository, 2026)",
        mixer="llama_legacy:LlamaLegacy",
        channel="none",
        norm="rms",
        streams="unbounded",
        note="a defect kept for comparison: every layer adds its input once more",
        about="""This is the Llama baseline of the Elman ladder with the defect it was
        run with: a whole block, its residuals included, is added to the stream. It
        remembers the last 512 frames as keys and values, but each layer adds the
        normalised stream to itself again, so an untrained model predicts the current
        byte once more. Choose it only to see what that defect costs; the llama row is
        the model that was meant.""",
        differences=(
            "The defect is the same under both protocols: it is what the row is for.",
        ),
        primitives=("banded_attention",),
        published=Published(width=640, parameters=101_783_680),
    ),
    "gated_attention": Row(
        title="Gated attention",
        paper="Qiu et al. 2025, arXiv:2505.06708",
        mixer="attention:GatedAttention",
        channel="glu",
        norm="rms",
        streams="unbounded",
        about="""Gated attention is the Transformer's attention with a gate on its
        output that the asking frame sets. It remembers the last 256 frames exactly, and
        a head that finds nothing useful can return nothing, for which plain attention
        must dump its weight on some frame. Choose it in place of the transformer row
        when attention wastes weight on frames that do not matter.""",
        primitives=("banded_attention",),
    ),
    "forgetting_transformer": Row(
        title="Forgetting Transformer",
        paper="Lin et al. 2025, arXiv:2503.02130",
        mixer="attention:ForgettingAttention",
        channel="glu",
        norm="rms",
        streams="unbounded",
        aliases=("fox",),
        about="""The Forgetting Transformer is attention in which every frame can let
        all that came before it fade. It remembers the last 256 frames exactly, but each
        weight is multiplied by the forget gates of all frames in between, which also
        tells their order. Choose it when old frames should lose their influence at a
        learned pace without being cut off.""",
        primitives=("banded_attention",),
    ),
    "decision_transformer": Row(
        title="Decision Transformer",
        paper="Chen et al. 2021, arXiv:2106.01345",
        mixer="decision_transformer:DecisionTransformer",
        channel="none",
        norm="none",
        join="replace",
        depth=1,
        streams="unbounded",
        aliases=("dt",),
        note="return, action and state token of a frame; option blocks is its depth",
        about="""The Decision Transformer splits every frame into a return, an action
        and a state token and runs a small GPT over all of them. It remembers the tokens
        of the last 30 frames exactly in each of its blocks and answers at the state
        token. Choose it for imitation in which the player's own previous actions should
        be told apart from the state of the game.""",
        primitives=("banded_attention",),
    ),
}
