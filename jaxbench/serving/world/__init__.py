"""Trained world models: rolled out, compared with the floors by horizon, planned with.

`ensemble.load` reads runs, `rollout` feeds a model its own predictions, `horizon` tells
how far off they come to be, `plan` looks for controllers by random shooting or CEM.
"""
