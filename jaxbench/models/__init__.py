"""Blocks, depth, whole models, and the zoo: the table of all backbones."""
