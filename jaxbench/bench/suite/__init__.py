"""Many runs, each in its own process; what ended is kept, what failed is a row.

`plan` says which runs belong to a suite, `schedule` runs them, `process` starts and
watches one, `child` is that process, `view` shows it all, `command` is `jaxbench
suite`. Nothing here imports jax but the child.
"""
