"""A small platform fighter: played by scripts or by a policy, recorded as replays.

`environment` holds reset, step and score; `fight` the state; `arena` and `moves` the
tables; `choose_action`, `motion` and `hits` are the parts of a step. `scripted`,
`styles` and `timed_inputs` are the players; `observation` shows a state as a replay
does, `record` writes games as `.slp` files.
"""
