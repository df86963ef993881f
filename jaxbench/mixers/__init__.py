"""How information moves along time, or from channel to channel: one file per family.

A mixer is a `jaxbench.layers.mixer.Mixer`, a linen module with two methods:

    mixer(x_btd, state, reset_bt) -> (y_btd, state)
    mixer.initial_state(batch_size) -> state

One call trains (T large), continues in chunks and plays (T = 1): whole, chunks and
single steps agree. `state=None` is the initial state, `reset_bt=None` means no resets;
`reset_bt[b, t]` true replaces the state before t by the initial one. The state is a
NamedTuple of arrays with a leading batch axis (`()` when there is none): recurrent
parts float32 or complex64, counters int32. The base makes zeros of the shapes that
`state_shapes` declares. A mixer that starts from something else defines `initial_state`
itself; it reads no parameters (mark it `@nn.nowrap`) unless the paper learns the
initial state. Without a state pass None on to `jaxbench.ops`, not zeros: it knows that
there is nothing to add, and may take a faster form.

Channel mixers (`models.row.CHANNELS`, the second half of a block) are mixers that move
nothing along time, or as little as RWKV's one frame; any of them can be a row too.

A mixer of whole windows (FNet, Perceiver) has the state `()` and maps every episode
segment of the window it is given by itself, as if it were a shorter window (the last
segment at least: it holds the frame that is asked for). Its row
says `streams="window"`; the stack then keeps the last frames and gives every frame its
own window.

Fields: those of the base, `width`, `dtype` (compute type) and `out_scale` (factor on
the initial kernel of the last projection, `dense_out`, which the block sets from the
depth), then `layer: int = 0` and `layers: int = 1` where the paper's initial values
depend on the depth (the block sets them to the place among the stack's layers of this
row, and their number), then the paper's hyperparameters with the paper's defaults,
nothing else. `check` refuses their values. The type of a default is the type of the
user's option, so none is None; and none is called like a method of `nn.Module`
("init"). Parameters are float32 and real; complex ones are two real leaves.

The docstring of a mixer is what the page of its rows shows: "Equations:", at most four
lines; "Differences:", a list of sentences that say where it departs from its source;
"Attributes:", what each option means.

What a paper takes from other layers goes through `lower`: a mixer whose `__call__` has
this keyword gets a dict of what the layers below hand up ("embedding" is the input of
the stack, for the same frames) and returns `(y_btd, state, lower)`, with what it adds.

Names of parameters carry their optimiser group: `ssm_*` (decays, time steps, input
matrices of a state-space model) is trained without weight decay at its own, capped
learning rate; everything else with the ordinary one. Of that, a parameter whose last
word is "bias", "scale", "slope", "bonus", "embedding", "latents", "place" or "types"
has no weight decay, however many axes it has, nor has one with a single axis; what has
two or more and another name is a kernel, and decays (`training.optimizer.UNDECAYED`;
`tests/decayed.txt` lists what does). Buffers that are never trained are variables of
the collection "constants".

Randomness (dropout, sampled weights) is on exactly when the caller passes the rng
stream ("dropout", "noise"); there is no train flag. Auxiliary losses, scalars added to
the training loss, are sown into "losses"; scalars worth logging into "metrics".

Residuals, norms, dropout, channel mixers and depth live in `jaxbench.models`, never
here. A mixer imports `ops` and `layers`, never another mixer.
"""
