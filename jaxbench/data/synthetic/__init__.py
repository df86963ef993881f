"""Synthetic tasks: what they ask, generators of examples, oracles and floors."""
