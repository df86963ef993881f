"""Uses of trained runs: policies, latency, matches, text, world models, export."""
