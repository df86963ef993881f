"""Runs as experiments: one job, its environment, its result."""
