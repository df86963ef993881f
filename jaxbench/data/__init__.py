"""Replays, simulation and samplers: numpy only, no flax.

Nothing here imports anything of jaxbench but its errors.
"""
