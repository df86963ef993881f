"""How hard XLA's CPU compiler works on a program, by how often the program runs.

Compiling takes longer than many a short training, so its cost is weighed against what
it saves. Two settings matter: the optimisation level, and the emitters of fused loops
through MLIR, which take half of the compile time and save next to nothing. Programs
for other devices are compiled as XLA does by itself. What XLA_FLAGS says of a setting
stands.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

_LEVEL, _EMITTERS = "xla_backend_optimization_level", "xla_cpu_use_fusion_emitters"
_JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
# Later ones have no other emitters, and end at a flag that they do not know.
_FASTER: dict[str, Any] = {_EMITTERS: False} if _JAXLIB < (0, 11) else {}
# Programs that run for most of the time: train steps, evaluation.
OFTEN = {_LEVEL: 1} | _FASTER
# Programs that run once or twice: initial values, floors.
ONCE = {_LEVEL: 0} | _FASTER
# In JAX 0.10, XLA's CPU compiler drops the barriers around what remat recomputes early
# enough to find that it has it already, and remat saves nothing.
_KEEP_REMAT = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def compiler_options(effort: dict[str, Any], *, remat: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` or `.compile` on the device that JAX runs on.

    Args:
      effort: `OFTEN` or `ONCE`.
      remat: whether the program recomputes blocks in its backward pass.
    """
    import jax  # XLA_FLAGS bind when it loads, and may be made by `as_flags`

    if jax.default_backend() != "cpu":
        return {}
    flags = os.environ.get("XLA_FLAGS", "")
    kept = {name: value for name, value in effort.items() if name not in flags}
    return kept | (_KEEP_REMAT if remat else {})


def as_flags(effort: dict[str, Any]) -> str:
    """The same settings for all programs of a process, as text for XLA_FLAGS."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in effort.items())
