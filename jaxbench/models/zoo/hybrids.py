"""Patterns of other rows, and the parts made for them."""

from __future__ import annotations

from jaxbench.models.row import Row

LIKE = (
    "The pattern is ExPhil's; its Mamba layers are Mamba here, where the original has "
    "the gated SSM in their place."
)

NO_CAPACITY = (
    "There is no noise on the router and no capacity, so no frame is dropped and each "
    "frame's output depends on that frame alone."
)

# No backbones, but places of patterns: what they compute goes to the layer above only.
PARTS: dict[str, Row] = {
    "zamba_attention": Row(
        title="Zamba's shared block",
        paper="Glorioso et al. 2024, arXiv:2405.16712",
        mixer="zamba:SharedAttention",
        channel="none",
        norm="none",
        join="next",
        streams="unbounded",
        depth=1,
        note="no backbone: a part of patterns, which feeds the layer after it",
        about="""This is the attention block of Zamba, one set of weights that is called
        at several depths of a stack. It reads the current features beside the original
        embedding of the frame, remembers the keys and values of the last 30 frames at
        every place it is called, and hands its result to the layer above only. Choose
        it inside patterns, written with @, to give a recurrent stack exact recall for
        the parameters of a single block.""",
        primitives=("banded_attention",),
    ),
}

ROWS: dict[str, Row] = {
    "xlstm": Row(
        title="xLSTM",
        paper="Beck et al. 2024, arXiv:2405.04517",
        pattern="slstm+mlstm",
        note="[1:1]",
        about="""The xLSTM stacks the two new kinds of LSTM, here one scalar layer below
        one matrix layer. The scalar layer follows states step by step, and the matrix
        layer stores keys and values, both behind exponential input gates. Choose it
        when you want recurrent state tracking and a large associative memory in one
        backbone.""",
        differences=(
            "One sLSTM below one mLSTM, [1:1], at the default depth of two layers.",
        ),
    ),
    "griffin": Row(
        title="Griffin",
        paper="De et al. 2024, arXiv:2402.19427",
        pattern="hawk*2+swa/glu",
        norm="rms",
        options={
            "swa.kv_heads": 1,
            "swa.rotary": 0.5,
            "swa.channel.activation": "gelu",
            "swa.channel.expansion": 3.0,
        },
        about="""Griffin alternates two layers of Hawk's gated recurrence with one layer
        of local attention. The recurrence carries a summary of the whole episode in a
        very small state, and attention recalls the last 30 frames exactly. Choose it
        when a small state is wanted but pure recurrence loses details of the recent
        past.""",
        differences=(
            (
                "The attention window has 30 frames, where the paper's models have "
                "1024 tokens."
            ),
        ),
    ),
    "jamba": Row(
        title="Jamba",
        paper="Lieber et al. 2024, arXiv:2403.19887",
        pattern="mamba*2+swa+mamba",
        channel="glu",
        norm="rms",
        options={"mamba.inner_norm": True, "swa.kv_heads": 2, "swa.rotary": 0.0},
        note="attention at the third of four layers; mamba/moe has experts",
        about="""Jamba is a stack of Mamba layers in which one layer in a few is
        attention, each followed by a gated MLP. Mamba carries what matters through the
        whole episode, and the attention layer recalls the last 30 frames exactly
        without any positions. Choose it when Mamba alone misses exact recall and only
        little attention is affordable.""",
        differences=(
            (
                "Attention is one layer of four, the third, where the paper has one of "
                "eight."
            ),
            "Attention is to a window of 30 frames.",
            "There are no experts by default; the pattern `mamba/moe` has them.",
        ),
    ),
    "zamba": Row(
        title="Zamba",
        paper="Glorioso et al. 2024, arXiv:2405.16712",
        pattern="(mamba+@zamba_attention+mamba)*2",
        norm="rms",
        note="one attention block, used twice",
        about="""Zamba is a stack of Mamba layers that calls one shared attention block
        at two depths. Mamba carries the episode in its states, and the shared block
        recalls the last 30 frames with a cache for each place it is called from. Choose
        it when exact recall should cost the parameters of one attention block, however
        often it is used.""",
        differences=(
            (
                "The shared block is called before every second Mamba layer of four, a "
                "much shorter stack than the paper's."
            ),
            "Attention is to a window of 30 frames.",
        ),
    ),
    "lstm_hybrid": Row(
        title="LSTM and attention",
        paper="ExPhil's design",
        pattern="lstm+swa/none",
        options={"swa.rotary": 0.0, "swa.qk_norm": True},
        note="the LSTM supplies the order",
        about="""This hybrid is one LSTM layer below one layer of attention. The LSTM
        carries the order and the distant past, and attention, which has no positions of
        its own, recalls the last 30 frames that the LSTM has passed on. Choose it as
        the simplest mix of a classic recurrence with attention.""",
        differences=(
            (
                "There is no paper: it is a design of ExPhil, the project of the "
                "original benchmark."
            ),
            (
                "Each half is a pre-norm residual layer of this project, and queries "
                "and keys are normalised."
            ),
        ),
    ),
    "mamba_moe": Row(
        title="Mamba with experts",
        paper="Shazeer et al. 2017, arXiv:1701.06538",
        pattern="(mamba/mlp+mamba/moe)*3",
        note="experts in every second layer",
        about="""This is a stack of six Mamba layers in which every second MLP is
        replaced by eight experts, of which each frame uses two. Memory is Mamba's; the
        experts add parameters for each frame to choose from, at the work of two of
        them. Choose it when you have enough data to fill many parameters but must keep
        the work for a frame low.""",
        differences=(
            NO_CAPACITY,
            "Experts have no biases.",
        ),
    ),
    "attention_moe": Row(
        title="Attention with experts",
        paper="Shazeer et al. 2017, arXiv:1701.06538",
        pattern="(swa/mlp+swa/moe)*3",
        note="experts in every second layer",
        about="""This is a stack of six attention layers in which every second MLP is
        replaced by eight experts, of which each frame uses two. Memory is that of
        sliding-window attention; the experts add parameters for each frame to choose
        from, at the work of two of them. Choose it to study experts in a Transformer of
        the usual shape.""",
        differences=(
            NO_CAPACITY,
            "Experts have no biases.",
        ),
    ),
    "jamba_like": Row(
        title="Jamba-like pattern",
        paper="ExPhil's HybridBuilder",
        pattern="(mamba+swa)*3",
        options={"swa.qk_norm": True},
        about="""This is six layers of Mamba and attention in turn, a pattern of
        ExPhil's builder of hybrids. Mamba carries the episode in its states, and every
        second layer recalls the last 30 frames exactly. Choose it when much attention
        is wanted in a recurrent stack, and Jamba when little is.""",
        differences=(LIKE,),
    ),
    "zamba_like": Row(
        title="Zamba-like pattern",
        paper="ExPhil's HybridBuilder",
        pattern="(mamba*2+@zamba_attention+mamba)*2",
        note="with the shared block the original leaves out",
        about="""This is six layers of Mamba with one attention block shared by two
        depths, a pattern of ExPhil's builder of hybrids. Mamba carries the episode in
        its states, and the shared block recalls the last 30 frames before every third
        of its layers. Choose it as a deeper relative of Zamba.""",
        differences=(
            LIKE,
            ("The shared block is there, which the original announces and leaves out."),
        ),
    ),
    "mamba_gla": Row(
        title="Mamba and GLA pattern",
        paper="ExPhil's HybridBuilder",
        pattern="(mamba*2+gla)*2",
        about="""This is two layers of Mamba and one of gated linear attention, twice
        over, a pattern of ExPhil's builder of hybrids. It remembers in Mamba's small
        states and in the key-and-value matrices of linear attention, and no part of it
        attends to a cache of frames. Choose it for a hybrid that is recurrent
        throughout and streams exactly.""",
        differences=(LIKE,),
    ),
    "rwkv_attention": Row(
        title="RWKV and attention pattern",
        paper="ExPhil's HybridBuilder",
        pattern="rwkv*3+swa+rwkv*2",
        options={"swa.qk_norm": True},
        about="""This is RWKV with one layer of attention among six, a pattern of
        ExPhil's builder of hybrids. RWKV's matrices carry the episode, and the fourth
        layer recalls the last 30 frames exactly. Choose it to see what a single layer
        of attention adds to a strong recurrent stack.""",
        differences=("The pattern is ExPhil's; its RWKV layers are RWKV-7 here.",),
    ),
    "full_hybrid": Row(
        title="Hybrid of all kinds",
        paper="ExPhil's HybridBuilder",
        pattern="mamba+swa+gla+rwkv+mamba+ffn",
        options={"swa.qk_norm": True},
        about="""This is six layers of five kinds, Mamba twice, a pattern of ExPhil's
        builder of hybrids. It remembers in four ways at once: Mamba's states, a cache
        of 30 frames, a linear attention matrix and RWKV's delta rule. Choose it as a
        stress test of the parts working together more than as a design.""",
        differences=(LIKE,),
    ),
    "ssm_stack": Row(
        title="Stack of Mamba",
        paper="ExPhil's HybridBuilder",
        pattern="mamba*6",
        about="""This is Mamba six layers deep, a pattern of ExPhil's builder of
        hybrids. Each layer keeps Mamba's selective state, so memory is the same as in
        the row mamba and only the depth is larger. Choose it as the baseline of the
        same depth for the other six-layer hybrids.""",
        differences=(LIKE,),
    ),
}
