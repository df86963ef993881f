"""Five synthetic tasks: recall, memory, optimisation, composition, alignment."""
