"""Recurrent cells, from the LSTM to spikes and an external memory."""

from __future__ import annotations

from jaxbench.models.row import GEGLU, Row

ROWS: dict[str, Row] = {
    "lstm": Row(
        title="LSTM",
        paper="Hochreiter & Schmidhuber 1997",
        mixer="recurrent:LSTM",
        channel="none",
        norm="layer",
        about=(
            "The LSTM is the classic recurrent network: a cell that gates guard, as "
            "wide as the model. It remembers one number for each channel, keeps it "
            "while the forget gate is open and rewrites it when the input gate opens, "
            "and both gates see the previous output. Choose it as the baseline "
            "everybody knows, or where a small state and reliable training count for "
            "more than speed on long sequences."
        ),
        equation=(
            "i, f, o = sigmoid(W x + R h + b);  g = tanh(W x + R h + b)\n"
            "c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)\n"
            "output  h"
        ),
        differences=(
            (
                "There is a forget gate, which came after the paper (Gers and others "
                "2000), whose bias starts at 1."
            ),
            (
                "There are no peepholes and no output projection; recurrent matrices "
                "start orthogonal, one for each gate."
            ),
        ),
        primitives=("lstm_scan",),
    ),
    "gru": Row(
        title="GRU",
        paper="Cho et al. 2014, arXiv:1406.1078",
        mixer="recurrent:GRU",
        channel="none",
        norm="layer",
        note="reset gate after the recurrent product",
        about=(
            "The GRU is a lighter LSTM: one state, two gates and no separate cell. It "
            "remembers one number for each channel, and at every frame blends the old "
            "value with a new one in a proportion that depends on the input and the "
            "previous state. Choose it when an LSTM would do and fewer parameters or a "
            "smaller state are welcome."
        ),
        equation=(
            "r, z = sigmoid(W x + R h + b);  n = tanh(W x + b + r (R h + b'))\n"
            "h_t = (1 - z) n + z h_{t-1}\n"
            "output  h"
        ),
        differences=(
            "The reset gate acts after the recurrent product, as in cuDNN.",
            (
                "There is no output projection; recurrent matrices start orthogonal, "
                "one for each gate."
            ),
        ),
        primitives=("gru_scan",),
    ),
    "min_lstm": Row(
        title="minLSTM",
        paper="Feng et al. 2024, arXiv:2410.01201",
        mixer="minimal:MinLSTM",
        channel="mlp",
        norm="layer",
        about=(
            "The minLSTM is an LSTM cut down until its gates see only the input, so "
            "that all frames can be computed at once. It remembers a weighted average "
            "of its past candidates, where a forget and an input gate, scaled to sum "
            "to one, set the weights. Choose it when you want something like an LSTM "
            "that trains in parallel over long sequences."
        ),
        equation=(
            "f, i = sigmoid(W x + b);  h~ = g(W_h x + b_h)\n"
            "g(v) = v + 1/2 where v >= 0, else sigmoid(v)\n"
            "h_t = f / (f + i) h_{t-1} + i / (f + i) h~\n"
            "output  W_out h"
        ),
        differences=(
            (
                "The recurrence runs on h itself, not on its logarithm: both shares "
                "are formed as sigmoids of log f - log i."
            ),
            "An episode starts from h = 0.",
        ),
        primitives=("diagonal",),
    ),
    "min_gru": Row(
        title="minGRU",
        paper="Feng et al. 2024, arXiv:2410.01201",
        mixer="minimal:MinGRU",
        channel="mlp",
        norm="layer",
        about=(
            "The minGRU is a GRU without a reset gate whose one gate sees only the "
            "input, so that all frames can be computed at once. It remembers a moving "
            "average of its candidates, with a share of new and old that the input "
            "chooses for each channel. Choose it as the smallest gated recurrence that "
            "still trains in parallel."
        ),
        equation=(
            "z = sigmoid(W_z x + b_z);  h~ = g(W_h x + b_h)\n"
            "g(v) = v + 1/2 where v >= 0, else sigmoid(v)\n"
            "h_t = (1 - z) h_{t-1} + z h~\n"
            "output  W_out h"
        ),
        differences=(
            (
                "The recurrence runs on h itself, not on its logarithm: 1 - z is "
                "formed as a sigmoid."
            ),
            "An episode starts from h = 0.",
        ),
        primitives=("diagonal",),
    ),
    "slstm": Row(
        title="sLSTM",
        paper="Beck et al. 2024, arXiv:2405.04517",
        mixer="xlstm:SLSTM",
        channel="glu",
        norm="layer",
        options={**GEGLU, "channel.expansion": 4 / 3},
        about=(
            "The sLSTM is the scalar half of xLSTM: an LSTM with an exponential input "
            "gate and a running sum that normalises its cell. It remembers one number "
            "for each channel, and because the gates see the previous output it can "
            "follow states step by step in ways that a memory updated in parallel "
            "finds hard. Choose it for tasks where the next state depends on the last "
            "one in a nonlinear way, and accept that frames are computed one after the "
            "other."
        ),
        equation=(
            "u = SiLU(conv(x));  log i = W_i u + R_i h_{t-1} + b_i\n"
            "f = sigmoid(W_f u + R_f h_{t-1} + b_f);  o = sigmoid(W_o x + R_o h_{t-1} "
            "+ b_o)\n"
            "z = tanh(W_z x + R_z h_{t-1} + b_z);  c_t = f c_{t-1} + i z;  n_t = f "
            "n_{t-1} + i\n"
            "h_t = o c_t / n_t;  output  LayerNorm_heads(h);  W, R block-diagonal, one "
            "block a head"
        ),
        differences=(
            (
                "m, the logarithm of the cell's unit, starts at -inf, not at 0 as in "
                "the authors' code."
            ),
            "W starts with variance 1 / K, not 2 / (5 D) as in that code.",
        ),
        primitives=(
            "short_convolution",
            "cell_scan",
        ),
    ),
    "liquid": Row(
        title="Closed-form continuous-time network",
        paper="Hasani et al. 2021, arXiv:2106.13898",
        mixer="liquid:CfC",
        channel="none",
        norm="layer",
        aliases=("cfc",),
        about=(
            "The closed-form continuous-time network (CfC) imitates neurons that "
            "follow a differential equation, by a formula that needs no solver. It "
            "remembers one number for each channel, which a gate moves between two "
            "targets, all three computed from the frame and the previous state. Choose "
            "it when the spirit of liquid networks is wanted at about the cost of a "
            "GRU."
        ),
        equation=(
            "z_t = tanh(W x_t + R h_{t-1} + b)\n"
            "g, k = tanh(W' z_t + b');  s = sigmoid(W' z_t + b')\n"
            "h_t = (1 - s) g + s k\n"
            "output  h"
        ),
        differences=(
            (
                "Frames are evenly spaced, so the time in the gate is 1 and part of "
                "its weights."
            ),
            "The shared backbone has one layer, and there is no output projection.",
        ),
        primitives=("cell_scan",),
    ),
    "ltc": Row(
        title="Liquid time-constant network",
        paper="Hasani et al. 2020, arXiv:2006.04439",
        mixer="liquid:LTC",
        channel="none",
        norm="layer",
        about=(
            "The liquid time-constant network is a layer of neurons that obey a "
            "differential equation whose speed depends on the input and the state. It "
            "remembers one number for each channel, which leaks at its own rate and is "
            "pulled to a target the harder the more the input drives it. Choose it to "
            "study neurons with changing time constants, and expect several solver "
            "steps for every frame."
        ),
        equation=(
            "dh/dt = -(1/τ + f) h + f A,  f = sigmoid(W x + R h + μ)\n"
            "K steps a frame:  h = (h + f A / K) / (1 + (1/τ + f) / K)\n"
            "output  h"
        ),
        differences=(
            "f is a sigmoid, as in the authors' code, which keeps it positive.",
            "Time is counted in frames, and τ starts between 1 and 30 of them.",
            "There is no output projection.",
        ),
        primitives=("cell_scan",),
    ),
    "reservoir": Row(
        title="Echo state network",
        paper="Jaeger 2001",
        mixer="reservoir:Reservoir",
        channel="none",
        norm="layer",
        aliases=("esn",),
        note="the recurrence is not trained",
        about=(
            "The echo state network is a random recurrent network that is never "
            "trained; only a linear layer that reads it is. It remembers a fading echo "
            "of its inputs in random nonlinear mixtures, and how fast the echo fades "
            "is set beforehand by the scale of the random matrix. Choose it as a "
            "baseline that shows how much of a result comes from learning the "
            "recurrence at all."
        ),
        equation=(
            "h_t = (1 - leak) h_{t-1} + leak tanh(W_in x_t + W h_{t-1} + b)    (W_in, "
            "W, b frozen)\n"
            "output  W_out [h_t, x_t] + b_out"
        ),
        differences=(
            (
                "The read-out is trained with the rest of the model by gradient "
                "descent, not solved for."
            ),
            "The units are leaky (Jaeger and others 2007).",
        ),
        primitives=("cell_scan",),
    ),
    "snn": Row(
        title="Spiking network",
        paper="Neftci et al. 2019, arXiv:1901.09948",
        mixer="spiking:SNN",
        channel="none",
        norm="layer",
        note="leaky integrate-and-fire neurons, surrogate gradients",
        about=(
            "The spiking network consists of neurons that gather input, fire a spike "
            "when a threshold is passed and then start again. It remembers the charge "
            "of each neuron and a leaky trace of its spikes, both fading within a few "
            "to some twenty frames at the start of training. Choose it for research on "
            "spiking models, since passing on nothing but zeros and ones makes "
            "learning harder."
        ),
        equation=(
            "u_t = β u_{t-1} - s_{t-1} + W x_t + b + V s_{t-1};  s_t = 1 where u_t > "
            "1, else 0\n"
            "m_t = λ m_{t-1} + s_t\n"
            "output  W_out m_t + b_out;  backward, ds/du is taken to be 1 / (1 + slope "
            "|u - 1|)²"
        ),
        differences=(
            "There is no synaptic current: x is a frame, not a train of spikes.",
            "The decays β and λ are learned.",
            (
                "The gradient does not pass through the reset term (Zenke & Vogels "
                "2021)."
            ),
        ),
        primitives=("cell_scan",),
    ),
    "ntm": Row(
        title="Neural Turing machine",
        paper="Graves et al. 2014, arXiv:1410.5401",
        mixer="ntm:NTM",
        channel="none",
        norm="layer",
        about=(
            "The neural Turing machine is an LSTM that reads from and writes to a "
            "separate memory of numbered slots. It remembers vectors in those slots, "
            "finds them by likeness to a key or by moving on from the last place, and "
            "erases and adds at every frame. Choose it for tasks that look like "
            "storing and recalling lists, and give it time to train."
        ),
        equation=(
            "h_t = LSTM([x_t, r_{t-1}]);  from h_t each head makes k, β, g, s, γ\n"
            "w, in turn: softmax(β cos(k, M_i)); g w + (1 - g) w_{t-1}; Σ_j s_j "
            "w_{i-j}; w^γ / Σ w^γ\n"
            "M_t = M_{t-1} (1 - w_write e^T) + w_write a^T;  r_t = w_read M_t\n"
            "output  W [h_t, r_t] + b"
        ),
        differences=(
            (
                "The memory starts constant (Collier & Beel 2018, arXiv:1807.08518), "
                "and the weights before the first frame are learned, since equal rows "
                "under equal weights would stay equal for ever."
            ),
            (
                "e and a come from sigmoid and tanh, and the read head sees the memory "
                "after the write, neither of which the paper fixes."
            ),
        ),
        primitives=("cell_scan",),
    ),
}
