"""Selective state spaces: diagonal recurrences whose gates read the input."""

from __future__ import annotations

from jaxbench.models.row import GEGLU, Published, Row

ROWS: dict[str, Row] = {
    "mamba": Row(
        title="Mamba",
        paper="Gu & Dao 2023, arXiv:2312.00752",
        mixer="mamba:Mamba",
        channel="none",
        norm="rms",
        about=(
            "Mamba is a state space that decides at every frame how much to write, how "
            "fast to forget and what to read. Each channel keeps 16 numbers that decay "
            "at rates set by the input, after a convolution over the last four frames. "
            "Choose it when most frames are unimportant and a few must be kept, with a "
            "fixed cost for each frame."
        ),
        equation=(
            "u, z = W x;  u = SiLU(conv(u));  [δ, B, C] = W_x u\n"
            "dt = softplus(W_dt δ + b_dt);  A = -exp(A_log)\n"
            "h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t;  y_t = C_t · h_t + D u_t\n"
            "output  W_out (y * SiLU(z))"
        ),
        differences=(
            (
                "B is discretised by Euler's rule, as in the authors' code, not by "
                "zero-order hold."
            ),
        ),
        primitives=(
            "short_convolution",
            "selective_scan",
        ),
    ),
    "mamba2": Row(
        title="Mamba-2",
        paper="Dao & Gu 2024, arXiv:2405.21060",
        mixer="mamba2:Mamba2",
        channel="none",
        norm="rms",
        aliases=("mamba_ssd",),
        about=(
            "Mamba-2 gives every head a single decay in place of Mamba's decay for "
            "every number, so that training becomes matrix products. Each head keeps a "
            "matrix of 64 states for each of its channels, which fades at a rate set "
            "by the input and is added to at every frame. Choose it instead of Mamba "
            "when a larger state and large matrix products suit your hardware."
        ),
        equation=(
            "z, (u, B, C), dt = W x;  u, B, C = SiLU(conv(u, B, C));  dt = softplus(dt "
            "+ bias)\n"
            "S_t = exp(-exp(A_log) dt_t) S_{t-1} + B_t (dt_t u_t)^T\n"
            "y_t = S_t^T C_t + D u_t\n"
            "output  W_out RMSNorm(y * SiLU(z))"
        ),
        primitives=(
            "short_convolution",
            "gated_linear_attention:head",
        ),
        published=Published(
            width=896,
            parameters=101_936_528,
            shape={"state_size": 128},
            norm="layer",
        ),
    ),
    "mamba3": Row(
        title="Mamba-3",
        paper="Lahoti et al. 2026, arXiv:2603.15569",
        mixer="mamba3:Mamba3",
        channel="glu",
        norm="rms",
        note="single input; A does not depend on the input",
        about=(
            "Mamba-3 adds two things to Mamba-2: it writes each input over two "
            "neighbouring frames, and it rotates its state by angles that the input "
            "chooses. The rotation lets it remember phases, such as whether something "
            "happened an even or an odd number of times, which a purely shrinking "
            "state cannot. Choose it when Mamba-2 is nearly right but the task has "
            "counting, parity or cycles in it."
        ),
        equation=(
            "a = exp(-exp(A_log) dt), dt = softplus(W x + bias), l = sigmoid(W x)\n"
            "k, q = RMSNorm(B) + b, RMSNorm(C) + b', rotated by the running sum of dt "
            "θ(x)\n"
            "S_t = a_t (S_{t-1} + (1 - l_t) dt_t k_{t-1} v_{t-1}^T) + l_t dt_t k_t "
            "v_t^T\n"
            "y_t = S_t^T q_t + D v_t;  output  W_out (y * SiLU(z))"
        ),
        differences=(
            "The form with a single input is implemented.",
            "A does not depend on the input, as in Mamba-2.",
        ),
        primitives=(
            "diagonal",
            "gated_linear_attention:head",
        ),
    ),
    "gated_ssm": Row(
        title="Gated SSM",
        paper="Edifice's design; cf. Mehta et al. 2022, arXiv:2206.13947",
        mixer="gated_ssm:GatedSSM",
        channel="none",
        norm="layer",
        note="a recurrence with learned decays; the original weighed positions",
        about=(
            "The gated SSM has Mamba's outline but a much simpler inside: a moving "
            "average of each channel with one learned decay. Two gates, one number "
            "each for a whole frame, decide how much of the frame enters and how much "
            "of the average is read. Choose it as the cheap baseline that shows what "
            "Mamba's selection adds."
        ),
        equation=(
            "x, z = W x;  x = SiLU(conv(x));  [δ, B, C] = W_x x\n"
            "g_t = sigmoid(mean softplus(W_g δ_t + b_g));  s_t = sigmoid(B_t · C_t)\n"
            "u_t = g_t s_t x_t;  h_t = a h_{t-1} + (1 - a) u_t;  y_t = u_t + (1 - g_t) "
            "h_t\n"
            "output  W_out (y * SiLU(z))"
        ),
        differences=(
            (
                "There is no paper: this is the layer of that name in Edifice, the "
                "library of the original benchmark."
            ),
            (
                "That one weighs each frame by its place in the window, so nothing "
                "moves along time but a mean over four frames; here h is the moving "
                "average its text promises."
            ),
            (
                "The decay is learned for each channel, where the library has 0.9 for "
                "all."
            ),
            (
                "The convolution is a real depthwise one, and the projections have no "
                "biases."
            ),
        ),
        primitives=(
            "short_convolution",
            "diagonal",
        ),
    ),
    "hawk": Row(
        title="Hawk",
        paper="De et al. 2024, arXiv:2402.19427",
        mixer="hawk:Hawk",
        channel="glu",
        norm="rms",
        options={**GEGLU, "channel.expansion": 3.0},
        note="initial decays as the authors' code",
        about=(
            "Hawk is a recurrence of one number for each channel, with a gate that "
            "sets its decay and a gate that sets its input at every frame. When a "
            "channel forgets less it also takes in less, by a square root that keeps "
            "the state at the size of the input. Choose it when you want a selective "
            "memory with a very small state, as the recurrent half of Griffin."
        ),
        equation=(
            "z, u = W x;  u = conv(u)\n"
            "r = sigmoid(W_r u + b_r);  i = sigmoid(W_i u + b_i);  log a_t = -8 "
            "softplus(L) r_t\n"
            "h_t = a_t h_{t-1} + sqrt(1 - a_t²) (i_t u_t)\n"
            "output  W_out (GELU(z) * h)"
        ),
        differences=(
            (
                "The recurrent width is by default that of the model, as in the "
                "released models; the text has 4/3 of it."
            ),
            "W_r and W_i have 4 blocks by default, fewer than the text's 16.",
            (
                "The initial decays are those of the authors' code: near s⁴ where the "
                "text has s."
            ),
            (
                "The first frame of an episode enters without the square root, since "
                "there is nothing to make room for."
            ),
        ),
        primitives=(
            "short_convolution",
            "diagonal",
        ),
    ),
}
