"""Delta rules and fast weights: a memory that is corrected, not only added to."""

from __future__ import annotations

from jaxbench.models.row import Published, Row

ROWS: dict[str, Row] = {
    "deltanet": Row(
        title="DeltaNet",
        paper="Yang et al. 2024, arXiv:2406.06484",
        mixer="deltanet:DeltaNet",
        channel="glu",
        norm="rms",
        about="""DeltaNet keeps a matrix that maps keys to values and corrects it at
        every frame instead of only adding to it. It first looks up what the current key
        holds and then replaces a learned share of that by the new value, so old facts
        are overwritten and not piled up. Choose it when the same things are seen again
        with new values and the latest value is what counts.""",
        primitives=(
            "short_convolution",
            "delta_rule:head",
        ),
    ),
    "deltaproduct": Row(
        title="DeltaProduct",
        paper="Siems et al. 2025, arXiv:2502.10297",
        mixer="deltanet:DeltaProduct",
        channel="glu",
        norm="rms",
        about="""DeltaProduct is DeltaNet with several corrections of its matrix at
        every frame, two by default, each with a key and a value of its own. With rates
        up to two a correction may be a reflection, and two reflections turn the memory
        like a rotation, so it can follow things that are permuted or counted in a
        circle. Choose it over DeltaNet when the state of the world changes by moves
        that build on each other; it costs one DeltaNet for each correction.""",
        primitives=(
            "short_convolution",
            "delta_rule:head",
        ),
    ),
    "gated_deltanet": Row(
        title="Gated DeltaNet",
        paper="Yang et al. 2024, arXiv:2412.06464",
        mixer="deltanet:GatedDeltaNet",
        channel="glu",
        norm="rms",
        about="""Gated DeltaNet is DeltaNet with a forget gate for each head that can
        clear the whole matrix at once. It remembers keys and their latest values,
        corrects single entries by the delta rule and fades all of them at a rate the
        input chooses. Choose it over DeltaNet when the scene changes and what was
        stored before should go.""",
        primitives=(
            "short_convolution",
            "delta_rule:head",
        ),
        published=Published(
            width=768,
            parameters=95_020_016,
            shape={"heads": 6, "conv_bias": False},
            channel="none",
        ),
    ),
    "kda": Row(
        title="Kimi Delta Attention",
        paper="Kimi Team 2025, arXiv:2510.26692",
        mixer="deltanet:KimiDeltaAttention",
        channel="glu",
        norm="rms",
        about="""Kimi Delta Attention is Gated DeltaNet with a forget gate for every key
        channel instead of one for each head. It remembers keys and their latest values,
        and can let some kinds of keys fade quickly while others stay. Choose it when
        one forgetting rate for a whole head is too coarse and the extra work is
        affordable.""",
        primitives=(
            "short_convolution",
            "delta_rule:key",
        ),
    ),
    "rwkv": Row(
        title="RWKV-7",
        paper="Peng et al. 2025, arXiv:2503.14456",
        mixer="rwkv7:TimeMix",
        channel="rwkv7",
        norm="layer",
        aliases=("rwkv7",),
        about="""RWKV-7 is a delta rule in which the key that is erased, the key that is
        written, the rate and the decay are all learned separately for every channel. It
        remembers a matrix for each head that fades at rates the input chooses and whose
        entries are replaced, and it mixes each frame with the one before. Choose it
        when you want an expressive recurrent memory with a state of fixed size and can
        pay for its many small projections.""",
        norm_epsilon=1e-5,
        primitives=("delta_rule:key",),
    ),
    "ttt": Row(
        title="TTT-Linear",
        paper="Sun et al. 2024, arXiv:2407.04620",
        mixer="ttt:TTT",
        channel="glu",
        norm="rms",
        about="""TTT-Linear has a small linear model as its state, which keeps learning
        by gradient descent while the sequence runs. It remembers whatever helps that
        model to predict values from keys: gradients are taken in groups of ten frames,
        and the model is read at every frame. Choose it when the game itself should
        teach the memory, and a state that adapts is worth gradient steps at play
        time.""",
        primitives=("ttt_linear",),
    ),
}
