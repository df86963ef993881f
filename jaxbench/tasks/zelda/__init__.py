"""Imitate a Melee player: 30 frames of the game in, the next controller out.

`imitation.build` turns parsed games into a `Task`. Two protocols: `clean` predicts the
controller of the next frame from what was visible before it; `compat` reproduces the
benchmark of February 2026, its defects included, so that its published losses can be
compared. `floors` says what a model must beat, `controller` how a controller is written
as six labels and back.
"""
