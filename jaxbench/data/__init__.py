"""Replays, simulations and samplers: numpy only, no flax, it imports nothing of jaxbench but its errors."""
