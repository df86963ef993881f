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
        about="""The LSTM is the classic recurrent network: a cell that gates guard, as
        wide as the model. It remembers one number for each channel, keeps it while the
        forget gate is open and rewrites it when the input gate opens, and both gates
        see the previous output. Choose it as the baseline everybody knows, or where a
        small state and reliable training count for more than speed on long
        sequences.""",
        primitives=("lstm_scan",),
    ),
    "gru": Row(
        title="GRU",
        paper="Cho et al. 2014, arXiv:1406.1078",
        mixer="recurrent:GRU",
        channel="none",
        norm="layer",
        note="reset gate after the recurrent product",
        about="""The GRU is a lighter LSTM: one state, two gates and no separate cell.
        It remembers one number for each channel, and at every frame blends the old
        value with a new one in a proportion that depends on the input and the previous
        state. Choose it when an LSTM would do and fewer parameters or a smaller state
        are welcome.""",
        primitives=("gru_scan",),
    ),
    "min_lstm": Row(
        title="minLSTM",
        paper="Feng et al. 2024, arXiv:2410.01201",
        mixer="minimal:MinLSTM",
        channel="mlp",
        norm="layer",
        about="""The minLSTM is an LSTM cut down until its gates see only the input, so
        that all frames can be computed at once. It remembers a weighted average of its
        past candidates, where a forget and an input gate, scaled to sum to one, set the
        weights. Choose it when you want something like an LSTM that trains in parallel
        over long sequences.""",
        primitives=("diagonal",),
    ),
    "min_gru": Row(
        title="minGRU",
        paper="Feng et al. 2024, arXiv:2410.01201",
        mixer="minimal:MinGRU",
        channel="mlp",
        norm="layer",
        about="""The minGRU is a GRU without a reset gate whose one gate sees only the
        input, so that all frames can be computed at once. It remembers a moving average
        of its candidates, with a share of new and old that the input chooses for each
        channel. Choose it as the smallest gated recurrence that still trains in
        parallel.""",
        primitives=("diagonal",),
    ),
    "slstm": Row(
        title="sLSTM",
        paper="Beck et al. 2024, arXiv:2405.04517",
        mixer="xlstm:SLSTM",
        channel="glu",
        norm="layer",
        options={**GEGLU, "channel.expansion": 4 / 3},
        about="""The sLSTM is the scalar half of xLSTM: an LSTM with an exponential
        input gate and a running sum that normalises its cell. It remembers one number
        for each channel, and because the gates see the previous output it can follow
        states step by step in ways that a memory updated in parallel finds hard. Choose
        it for tasks where the next state depends on the last one in a nonlinear way,
        and accept that frames are computed one after the other.""",
        norm_epsilon=1e-5,
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
        about="""The closed-form continuous-time network (CfC) imitates neurons that
        follow a differential equation, by a formula that needs no solver. It remembers
        one number for each channel, which a gate moves between two targets, all three
        computed from the frame and the previous state. Choose it when the spirit of
        liquid networks is wanted at about the cost of a GRU.""",
        primitives=("cell_scan",),
    ),
    "ltc": Row(
        title="Liquid time-constant network",
        paper="Hasani et al. 2020, arXiv:2006.04439",
        mixer="liquid:LTC",
        channel="none",
        norm="layer",
        about="""The liquid time-constant network is a layer of neurons that obey a
        differential equation whose speed depends on the input and the state. It
        remembers one number for each channel, which leaks at its own rate and is pulled
        to a target the harder the more the input drives it. Choose it to study neurons
        with changing time constants, and expect several solver steps for every
        frame.""",
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
        about="""The echo state network is a random recurrent network that is never
        trained; only a linear layer that reads it is. It remembers a fading echo of its
        inputs in random nonlinear mixtures, and how fast the echo fades is set
        beforehand by the scale of the random matrix. Choose it as a baseline that shows
        how much of a result comes from learning the recurrence at all.""",
        primitives=("cell_scan",),
    ),
    "snn": Row(
        title="Spiking network",
        paper="Neftci et al. 2019, arXiv:1901.09948",
        mixer="spiking:SNN",
        channel="none",
        norm="layer",
        note="leaky integrate-and-fire neurons, surrogate gradients",
        about="""The spiking network consists of neurons that gather input, fire a spike
        when a threshold is passed and then start again. It remembers the charge of each
        neuron and a leaky trace of its spikes, both fading within a few to some twenty
        frames at the start of training. Choose it for research on spiking models, since
        passing on nothing but zeros and ones makes learning harder.""",
        primitives=("cell_scan",),
    ),
    "ntm": Row(
        title="Neural Turing machine",
        paper="Graves et al. 2014, arXiv:1410.5401",
        mixer="ntm:NTM",
        channel="none",
        norm="layer",
        about="""The neural Turing machine is an LSTM that reads from and writes to a
        separate memory of numbered slots. It remembers vectors in those slots, finds
        them by likeness to a key or by moving on from the last place, and erases and
        adds at every frame. Choose it for tasks that look like storing and recalling
        lists, and give it time to train.""",
        primitives=("cell_scan",),
    ),
}
