"""Pure functions on arrays: the recurrence primitives. No flax, no configuration.

Axis letters, used as suffixes of names (`x_btd`, `q_bthk`, `s_bhkv`):
b batch, t time (s a second time axis), d model width, e inner width, h heads,
k key, v value, n state, c chunk, w convolution width, a action.

Every primitive is a dispatcher, `delta_rule(q, k, v, .., s_bhkv, reset_bt)`, and its
forms: a readable `*_reference` (its step scanned over time, or the full score matrix),
at least one parallel form and a single `*_step`. All forms have one signature,
`form(frames, state, reset_bt, *, weights..)`: `frames` is the bundle of what changes
from frame to frame (`DeltaFrames`), documented once, and `ops.frames.run` picks among
them. All take and return float32 (or complex64) state and agree in values and
gradients at every length, from any state, with resets. `reset_bt[b, t]` true means
that an episode starts at t: the state before t is replaced by the initial one.
`state=None` is the initial state and `reset_bt=None` means no resets; both are known
while tracing, so the fast path for whole fresh windows costs nothing extra.
"""
