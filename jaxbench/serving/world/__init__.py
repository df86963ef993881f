"""Trained world models: rolled out, compared with the floors by horizon, planned with.

`members.load` reads runs, `rollout` feeds a model its own predictions, `horizon` tells
how far off they come to be, `planning` looks for controllers by random shooting or CEM.
"""
