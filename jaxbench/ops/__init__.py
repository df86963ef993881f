"""Pure functions on arrays: the recurrence primitives. No flax, no configuration.

Axis letters, used as suffixes of names (`x_btd`, `q_bthk`, `s_bhkv`):
b batch, t time (s a second time axis), d model width, e inner width, h heads,
k key, v value, n state, c chunk, w convolution width, a action.

Every primitive comes as a readable `*_reference` (a `lax.scan` over time, or the full
score matrix), at least one parallel form and a single `*_step`. All take and return
float32 (or complex64) state and agree in values and gradients at every length, from
any state, with resets. `reset_bt[b, t]` true means that an episode starts at t: the
state before t is replaced by the initial one. `state=None` is the initial state and
`reset_bt=None` means no resets; both are known while tracing, so the fast path for
whole fresh windows costs nothing extra.
"""
