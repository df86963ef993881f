"""Byte-level language modelling: every byte of a text predicted from those before it.

`language.build` turns a corpus into a `Task`. Two protocols: `clean` draws windows at
random, identical for every backbone, and scores a fixed slice of held-out text in which
every byte is a target exactly once; `compat` trains on the chunks of the Elman
benchmark, whose padding is predicted and counted, and is scored as `clean` is. `text`
continues prompts through the step form.
"""
