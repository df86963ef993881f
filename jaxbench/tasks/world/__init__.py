"""A world model of Melee: a frame and both controllers in, the next frame out.

`next_frame.build` turns parsed games into a `Task`. `states` says what a frame is,
which reward a player gets and when an episode is over; `frame` is how a model reads
one and answers the next; `floors` what it must beat. `serving.world` rolls trained
models out.
"""
