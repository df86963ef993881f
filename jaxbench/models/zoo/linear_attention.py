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
        about=(
            "Gated linear attention keeps a matrix for each head that is filled with "
            "products of keys and values and asked with queries. Before every write, "
            "each key channel of the matrix fades by a factor that the input chooses. "
            "Choose it when you want the key-and-value lookup of attention with a "
            "state that does not grow."
        ),
        equation=(
            "q, k, v = W x;  α = sigmoid(W_2 W_1 x + b)^(1/16) for every key channel\n"
            "S_t = Diag(α_t) S_{t-1} + k_t v_t^T;  o_t = S_t^T q_t / sqrt(K)\n"
            "output  W_out (RMSNorm_head(o) * SiLU(W_gate x))"
        ),
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
        about=(
            "RetNet is linear attention whose matrices fade at fixed rates, one for "
            "each head, with rotated queries and keys. It remembers sums of key and "
            "value products, recent ones more strongly, and the rates are not trained. "
            "Choose it as the plainest member of this family, or where a forgetting "
            "that is known beforehand is wanted."
        ),
        equation=(
            "γ_h = 1 - 2^(-5-h), not trained;  q, k rotated by their position\n"
            "S_t = γ_h S_{t-1} + k_t v_t^T / sqrt(K);  o_t = S_t^T q_t\n"
            "output  W_out (GroupNorm(o) * SiLU(W_gate x))"
        ),
        differences=(
            (
                "Positions are rotary without xPos's length factors, which the decay "
                "makes redundant."
            ),
            (
                "The three normalisations of scores are left out: the group norm "
                "cancels them but for its epsilon."
            ),
        ),
        primitives=("gated_linear_attention:head",),
    ),
    "hgrn": Row(
        title="HGRN-2",
        paper="Qin et al. 2024, arXiv:2404.07904",
        mixer="hgrn2:HGRN2",
        channel="glu",
        norm="rms",
        aliases=("hgrn2",),
        about=(
            "HGRN-2 is a gated recurrence whose state is widened to a matrix by using "
            "one minus the forget gate as the key. Every layer has a learned lower "
            "bound on its forget gate that rises with depth, so lower layers follow "
            "the moment and upper layers remember long. Choose it when slow and fast "
            "changes in the data should be kept apart by layers."
        ),
        equation=(
            "f = lb_l + (1 - lb_l) sigmoid(W_f x),  lb_l = Σ_{1 <= j <= l} "
            "softmax(Γ)_j\n"
            "S_t = Diag(f_t) S_{t-1} + (1 - f_t) v_t^T;  o_t = S_t^T SiLU(W_q x_t)\n"
            "output  W_out RMSNorm(o)"
        ),
        primitives=("gated_linear_attention:key",),
    ),
    "performer": Row(
        title="Performer",
        paper="Choromanski et al. 2020, arXiv:2009.14794",
        mixer="performer:Performer",
        channel="mlp",
        norm="layer",
        note="sums over an episode never fade",
        about=(
            "Performer estimates ordinary softmax attention with random features, "
            "which turns it into running sums of a fixed size. It remembers the whole "
            "episode in those sums without any forgetting, so every frame keeps a "
            "weight above zero. Choose it when attention to everything that happened "
            "is wanted at a cost that does not grow with the past."
        ),
        equation=(
            "x' = x / K^(1/4) for rotated q and k;  φ(x) = exp(Ω x' - |x'|² / 2) / "
            "sqrt(M)\n"
            "o_t = Σ_s φ(q_t) · φ(k_s) v_s / Σ_s φ(q_t) · φ(k_s),  s <= t in the "
            "episode\n"
            "output  W_o concat(o)"
        ),
        differences=(
            "Positions are rotary instead of absolute, and there are no biases.",
            "Ω, the random directions, is not drawn anew during training.",
            (
                "Keys are scaled by their own largest feature, which the recurrence "
                "takes as an input gate, not by the largest of the whole sequence."
            ),
        ),
        primitives=("normalized_linear_attention",),
    ),
    "rwkv6": Row(
        title="RWKV-6",
        paper="Peng et al. 2024, arXiv:2404.05892",
        mixer="rwkv6:TimeMix",
        channel="rwkv6",
        norm="layer",
        about=(
            "RWKV-6 is linear attention in which every key channel fades at a rate "
            "that the input chooses, with inputs mixed from this frame and the one "
            "before. It remembers a matrix for each head, and the current frame's own "
            "write counts with a learned bonus when it is read. Choose it for a "
            "well-tested recurrent design without softmax, or to compare with its "
            "successor, the row rwkv."
        ),
        equation=(
            "w = exp(-exp(w_0 + tanh(x_w W_1) W_2)) for every key channel\n"
            "o_t = (S_{t-1} + Diag(u) k_t v_t^T)^T r_t;  S_t = Diag(w_t) S_{t-1} + k_t "
            "v_t^T\n"
            "output  W_out (GroupNorm(o) * SiLU(g))"
        ),
        primitives=("gated_linear_attention:key",),
    ),
    "mlstm": Row(
        title="mLSTM",
        paper="Beck et al. 2024, arXiv:2405.04517",
        mixer="xlstm:MLSTM",
        channel="none",
        norm="layer",
        about=(
            "The mLSTM is the matrix half of xLSTM: an LSTM whose cell is a matrix of "
            "keys and values, with an exponential input gate. It remembers products of "
            "keys and values with a learned forget gate for each head, and divides "
            "what it reads by the sum of the gated keys. Choose it when single frames "
            "may matter far more than others, since its input gate can outweigh "
            "everything written before."
        ),
        equation=(
            "u, z = W x;  c = SiLU(conv(u));  q = W_q c, k = W_k c, v = W_v u "
            "(block-diagonal)\n"
            "log i = w_i [q, k, v] + b_i;  f = sigmoid(w_f [q, k, v] + b_f), one for "
            "each head\n"
            "S_t = f S_{t-1} + i k v^T / sqrt(K);  n_t = f n_{t-1} + i k / sqrt(K)\n"
            "h = q^T S / max(|q · n|, 1);  output  W_out ((LayerNorm_heads(h) + a c) * "
            "SiLU(z))"
        ),
        differences=(
            "There is no 1e-6 in the denominator, which the authors' code has.",
            (
                "The block-diagonal kernels start with variance 1 / block_size, not 2 "
                "/ (5 D) as in that code."
            ),
        ),
        primitives=(
            "short_convolution",
            "normalized_linear_attention",
        ),
    ),
}
