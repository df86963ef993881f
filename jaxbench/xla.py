"""How hard XLA's CPU compiler works on a program, by how often the program runs.

Compiling takes longer than many a short training, so its cost is weighed against what
it saves. Two settings matter: the optimisation level, and the emitters of
fused loops through MLIR, which take half of the compile time and save next to nothing
(`benchmarks/compile_effort.py` measures both). Programs for other devices are compiled
as XLA does by itself. What XLA_FLAGS says of a setting stands.
"""

from __future__ import annotations

import os
from typing import Any

import jax

LEVEL, EMITTERS = "xla_backend_optimization_level", "xla_cpu_use_fusion_emitters"
# Programs that run for most of the time: train steps, evaluation.
OFTEN: dict[str, Any] = {LEVEL: 1, EMITTERS: False}
# Programs that run once or twice: initial values, floors.
ONCE: dict[str, Any] = {LEVEL: 0, EMITTERS: False}
# In JAX 0.10, XLA's CPU compiler drops the barriers around what remat recomputes early
# enough to find that it has it already, and remat saves nothing.
KEEP_REMAT: dict[str, Any] = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def compiler_options(effort: dict[str, Any], *, remat: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` or `.compile` on the device that JAX runs on.

    Args:
      effort: `OFTEN` or `ONCE`.
      remat: whether the program recomputes blocks in its backward pass.
    """
    if jax.default_backend() != "cpu":
        return {}
    flags = os.environ.get("XLA_FLAGS", "")
    kept = {name: value for name, value in effort.items() if name not in flags}
    return kept | (KEEP_REMAT if remat else {})
