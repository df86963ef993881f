"""The five models of the pentathlon's first report, as that report built them.

Kept for comparison: each has the parameters that were published, biases, norms and
their absence included. With V tokens tied to the output, M learned positions where the
model has them, width 256 and 4 layers, a model counts V * 256 (+ M * 256) more than its
stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.models.row import Row

DEPTH = 4
PAPER = "ebaenamar/yoon-kim-hack (repository, 2025)"

STARTS = (
    "Weights start as elsewhere in this benchmark, not by the rules of PyTorch; tables "
    "of tokens and positions belong to the task."
)
FULL = (
    "Attention reaches back 2048 frames at most, so that a stream has a bounded cache; "
    "no sequence of the report is longer."
)
FEWER_DROPS = (
    "Dropout acts on both branches of a block; the report also drops attention weights "
    "and hidden units of the MLP."
)
EPSILON = "Norms add 1e-6 to the variance, not 1e-5."
LAST_DROP = (
    "Dropout also acts after the last layer, where PyTorch has it between layers only."
)

# One block of the report's two transformers, but for its positions.
BLOCK: Mapping[str, Any] = {"window": 2048, "bias": True, "channel.exact": True}

ROWS: dict[str, Row] = {
    "deltanet_report": Row(
        title="DeltaNet, as in the pentathlon's report",
        paper=f"{PAPER}; Yang et al. 2024, arXiv:2406.06484",
        mixer="deltanet:DeltaNet",
        channel="none",
        norm="layer",
        final_norm="none",
        depth=DEPTH,
        options={"value_expansion": 2, "conv_bias": False},
        note="no channel mixer, and no norm after the stack",
        about="""This is the DeltaNet that the pentathlon's first report trained: four
        delta-rule layers with nothing between them and no norm at the end. It remembers
        a matrix of keys by values for each head, with values twice as wide as keys, and
        sees its neighbours through convolutions over four tokens. Choose it to repeat
        that report; the deltanet row is the model to build on.""",
        differences=(
            "The report casts this model, and no other, to bfloat16.",
            STARTS,
            EPSILON,
        ),
        primitives=("short_convolution", "delta_rule:head"),
    ),
    "lstm_report": Row(
        title="LSTM, as in the pentathlon's report",
        paper=f"{PAPER}; Hochreiter & Schmidhuber 1997",
        mixer="recurrent:LSTM",
        channel="none",
        norm="none",
        join="replace",
        depth=DEPTH,
        options={"double_bias": True},
        note="no residual sums and no norms",
        about="""This is the LSTM that the pentathlon's first report trained: four cells
        stacked as PyTorch stacks them, each fed by the one below alone. It remembers
        one number for each channel and layer, behind gates that see the previous
        output. Choose it to repeat that report; the lstm row has the residual sums and
        norms that make a stack train well.""",
        differences=(STARTS, LAST_DROP),
        primitives=("lstm_scan",),
    ),
    "gru_report": Row(
        title="GRU, as in the pentathlon's report",
        paper=f"{PAPER}; Cho et al. 2014, arXiv:1406.1078",
        mixer="recurrent:GRU",
        channel="none",
        norm="none",
        join="replace",
        depth=DEPTH,
        options={"double_bias": True},
        note="no residual sums and no norms",
        about="""This is the GRU that the pentathlon's first report trained: four cells
        stacked as PyTorch stacks them, each fed by the one below alone. It remembers
        one number for each channel and layer, and blends old and new at every token.
        Choose it to repeat that report; the gru row has the residual sums and norms
        that make a stack train well.""",
        differences=(STARTS, LAST_DROP),
        primitives=("gru_scan",),
    ),
    "rope_report": Row(
        title="Transformer with rotary positions, as in the pentathlon's report",
        paper=f"{PAPER}; Su et al. 2021, arXiv:2104.09864",
        mixer="attention:SlidingWindowAttention",
        channel="mlp",
        norm="layer",
        depth=DEPTH,
        options=BLOCK,
        streams="unbounded",
        note="full causal attention up to 2048 frames",
        about="""This is the transformer with rotary positions that the pentathlon's
        first report trained: four pre-norm blocks with biases everywhere. It remembers
        every token of the sequence exactly, as keys and values, and knows how far back
        each is. Choose it to repeat that report; with a short convolution before the
        mixer it learns recall far sooner.""",
        differences=(FULL, FEWER_DROPS, STARTS, EPSILON),
        primitives=("banded_attention",),
    ),
    "vanilla_report": Row(
        title="Transformer with learned positions, as in the pentathlon's report",
        paper=f"{PAPER}; Vaswani et al. 2017, arXiv:1706.03762",
        mixer="attention:SlidingWindowAttention",
        channel="mlp",
        norm="layer",
        depth=DEPTH,
        options={**BLOCK, "rotary": 0.0},
        learned_positions=True,
        streams="unbounded",
        note="knows positions only where the task adds learned ones",
        about="""This is the plain transformer that the pentathlon's first report
        trained: the blocks of the rope_report row without rotary positions. It
        remembers every token of the sequence exactly, as keys and values, and tells
        their places by a learned vector for each, which the task adds to the tokens.
        Choose it to repeat that report, and never for sequences longer than those it
        was trained on.""",
        differences=(FULL, FEWER_DROPS, STARTS, EPSILON),
        primitives=("banded_attention",),
    ),
}
