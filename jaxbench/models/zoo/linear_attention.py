"""Linear attention: a matrix of keys and values that decays and is added to."""

from __future__ import annotations

from jaxbench.models.row import Row

ROWS: dict[str, Row] = {
    "gla": Row(
        title="GLA",
        paper="Yang et al. 2023, arXiv:2312.06635",
        mixer="gla:GLA",
        channel="glu",
        norm="rms",
        about="""Gated linear attention keeps a matrix for each head that is filled with
        products of keys and values and asked with queries. Before every write, each key
        channel of the matrix fades by a factor that the input chooses. Choose it when
        you want the key-and-value lookup of attention with a state that does not
        grow.""",
        primitives=("gated_linear_attention:key",),
    ),
    "retnet": Row(
        title="RetNet",
        paper="Sun et al. 2023, arXiv:2307.08621",
        mixer="retnet:Retention",
        channel="mlp",
        norm="layer",
        options={"channel.expansion": 2.0},
        aliases=("retention",),
        note="decays are fixed; 30 frames barely fade",
        about="""RetNet is linear attention whose matrices fade at fixed rates, one for
        each head, with rotated queries and keys. It remembers sums of key and value
        products, recent ones more strongly, and the rates are not trained. Choose it as
        the plainest member of this family, or where a forgetting that is known
        beforehand is wanted.""",
        primitives=("gated_linear_attention:head",),
    ),
    "hgrn": Row(
        title="HGRN-2",
        paper="Qin et al. 2024, arXiv:2404.07904",
        mixer="hgrn2:HGRN2",
        channel="glu",
        norm="rms",
        aliases=("hgrn2",),
        about="""HGRN-2 is a gated recurrence whose state is widened to a matrix by
        using one minus the forget gate as the key. Every layer has a learned lower
        bound on its forget gate that rises with depth, so lower layers follow the
        moment and upper layers remember long. Choose it when slow and fast changes in
        the data should be kept apart by layers.""",
        primitives=("gated_linear_attention:key",),
    ),
    "performer": Row(
        title="Performer",
        paper="Choromanski et al. 2020, arXiv:2009.14794",
        mixer="performer:Performer",
        channel="mlp",
        norm="layer",
        note="sums over an episode never fade",
        about="""Performer estimates ordinary softmax attention with random features,
        which turns it into running sums of a fixed size. It remembers the whole episode
        in those sums without any forgetting, so every frame keeps a weight above zero.
        Choose it when attention to everything that happened is wanted at a cost that
        does not grow with the past.""",
        primitives=("normalized_linear_attention",),
    ),
    "rwkv6": Row(
        title="RWKV-6",
        paper="Peng et al. 2024, arXiv:2404.05892",
        mixer="rwkv6:TimeMix",
        channel="rwkv6",
        norm="layer",
        about="""RWKV-6 is linear attention in which every key channel fades at a rate
        that the input chooses, with inputs mixed from this frame and the one before. It
        remembers a matrix for each head, and the current frame's own write counts with
        a learned bonus when it is read. Choose it for a well-tested recurrent design
        without softmax, or to compare with its successor, the row rwkv.""",
        norm_epsilon=1e-5,
        primitives=("gated_linear_attention:key",),
    ),
    "mlstm": Row(
        title="mLSTM",
        paper="Beck et al. 2024, arXiv:2405.04517",
        mixer="xlstm:MLSTM",
        channel="none",
        norm="layer",
        about="""The mLSTM is the matrix half of xLSTM: an LSTM whose cell is a matrix
        of keys and values, with an exponential input gate. It remembers products of
        keys and values with a learned forget gate for each head, and divides what it
        reads by the sum of the gated keys. Choose it when single frames may matter far
        more than others, since its input gate can outweigh everything written
        before.""",
        norm_epsilon=1e-5,
        primitives=(
            "short_convolution",
            "normalized_linear_attention",
        ),
    ),
}
