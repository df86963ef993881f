"""Policies that answer a frame with a chunk of controllers, those of H coming frames.

Three ways to learn p(chunk | h), h the backbone's output for the last frame:
`diffusion`, `flow_matching`, and `act`, a conditional variational autoencoder. A
controller is a vector of 13 numbers (`action`), `targets` cuts the chunks out of the
games, `score` measures what is decoded with the names that the other heads' scores
have. `options` is read before jax is loaded.
"""
