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
        about=(
            "DeltaNet keeps a matrix that maps keys to values and corrects it at every "
            "frame instead of only adding to it. It first looks up what the current "
            "key holds and then replaces a learned share of that by the new value, so "
            "old facts are overwritten and not piled up. Choose it when the same "
            "things are seen again with new values and the latest value is what counts."
        ),
        equation=(
            "q, k, v = SiLU(conv(W x)), |q| = 1 / sqrt(K), |k| = 1;  β = sigmoid(W x) "
            "for each head\n"
            "S_t = (I - β_t k_t k_t^T) S_{t-1} + β_t k_t v_t^T;  o_t = S_t^T q_t\n"
            "output  W_out RMSNorm_head(o)"
        ),
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
        about=(
            "DeltaProduct is DeltaNet with several corrections of its matrix at every "
            "frame, two by default, each with a key and a value of its own. With rates "
            "up to two a correction may be a reflection, and two reflections turn the "
            "memory like a rotation, so it can follow things that are permuted or "
            "counted in a circle. Choose it over DeltaNet when the state of the world "
            "changes by moves that build on each other; it costs one DeltaNet for each "
            "correction."
        ),
        equation=(
            "q, k_j, v_j, β_j as in DeltaNet, but β_j = 2 sigmoid(W x);  j = 1 .. n\n"
            "S <- (I - β_j k_j k_j^T) S + β_j k_j v_j^T for each j;  o_t = S^T q_t\n"
            "output  W_out RMSNorm_head(o)"
        ),
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
        about=(
            "Gated DeltaNet is DeltaNet with a forget gate for each head that can "
            "clear the whole matrix at once. It remembers keys and their latest "
            "values, corrects single entries by the delta rule and fades all of them "
            "at a rate the input chooses. Choose it over DeltaNet when the scene "
            "changes and what was stored before should go."
        ),
        equation=(
            "q, k, v, β as in DeltaNet;  g = -exp(A_log) softplus(W_a x + dt_bias) for "
            "each head\n"
            "S_t = e^{g_t} (I - β_t k_t k_t^T) S_{t-1} + β_t k_t v_t^T;  o_t = S_t^T "
            "q_t\n"
            "output  W_out (RMSNorm_head(o) * SiLU(W_gate x))"
        ),
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
        about=(
            "Kimi Delta Attention is Gated DeltaNet with a forget gate for every key "
            "channel instead of one for each head. It remembers keys and their latest "
            "values, and can let some kinds of keys fade quickly while others stay. "
            "Choose it when one forgetting rate for a whole head is too coarse and the "
            "extra work is affordable."
        ),
        equation=(
            "g = -exp(A_log) softplus(W_2 W_1 x + dt_bias) a key channel;  q, k, v, β: "
            "DeltaNet\n"
            "S_t = (I - β_t k_t k_t^T) Diag(e^{g_t}) S_{t-1} + β_t k_t v_t^T;  o_t = "
            "S_t^T q_t\n"
            "output  W_out (RMSNorm_head(o) * sigmoid(W_2' W_1' x + b))"
        ),
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
        about=(
            "RWKV-7 is a delta rule in which the key that is erased, the key that is "
            "written, the rate and the decay are all learned separately for every "
            "channel. It remembers a matrix for each head that fades at rates the "
            "input chooses and whose entries are replaced, and it mixes each frame "
            "with the one before. Choose it when you want an expressive recurrent "
            "memory with a state of fixed size and can pay for its many small "
            "projections."
        ),
        equation=(
            "w = exp(-e^{-1/2} sigmoid(w_0 + tanh(x_w W_1) W_2));  η = sigmoid(a_0 + "
            "x_a A_1 A_2)\n"
            "κ = ξ * k / |ξ * k| for each head;  k~ = k (1 + (η - 1) ψ)\n"
            "S_t = (Diag(w_t) - κ_t (κ_t * η_t)^T)^T S_{t-1} + k~_t v_t^T\n"
            "output  W_out ((GroupNorm(S_t^T r_t) + (r · (k~ * ρ)) v_t) * g)"
        ),
        differences=("There is no extra norm on the embedding.",),
        primitives=("delta_rule:key",),
    ),
    "ttt": Row(
        title="TTT-Linear",
        paper="Sun et al. 2024, arXiv:2407.04620",
        mixer="ttt:TTT",
        channel="glu",
        norm="rms",
        about=(
            "TTT-Linear has a small linear model as its state, which keeps learning by "
            "gradient descent while the sequence runs. It remembers whatever helps "
            "that model to predict values from keys: gradients are taken in groups of "
            "ten frames, and the model is read at every frame. Choose it when the game "
            "itself should teach the memory, and a state that adapts is worth gradient "
            "steps at play time."
        ),
        equation=(
            "q, k, v = W x, q and k rotated;  η = sigmoid(w · x + b) / K;  τ_i = max(1 "
            "/ i + θ_i, 0)\n"
            "grad_j of |k_j + LN(k_j W + c) - v_j|² / 2 at the W and c the mini-batch "
            "started with\n"
            "W_t = W - τ_i Σ_j η_j grad_j, j up to t in its mini-batch, i its place "
            "there; c likewise\n"
            "y_t = q_t + LN(q_t W_t + c_t);  output  W_o LayerNorm(y)"
        ),
        differences=(
            "Mini-batches have 10 frames, not 16, for windows of 30.",
            (
                "There are no convolutions: it is the layer of the paper's Transformer "
                "backbone."
            ),
        ),
        primitives=("ttt_linear",),
    ),
}
