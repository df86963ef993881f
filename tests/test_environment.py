"""XLA's settings reach the backend, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxbench.bench.environment import apply_environment, xla_environment
from jaxbench.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "platform": "cpu",
    "allocator": "platform",
    "preallocate": False,
    "memory_fraction": 0.5,
    "compilation_cache": "",
    "flags": "",
}


def test_every_setting_becomes_a_variable(tmp_path):
    cache = str(tmp_path / "cache")
    variables = xla_environment(SETTINGS | {"compilation_cache": cache})
    assert variables["XLA_PYTHON_CLIENT_ALLOCATOR"] == "platform"
    assert variables["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert variables["XLA_CLIENT_MEM_FRACTION"] == "0.5"
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert variables["JAX_COMPILATION_CACHE_DIR"] == cache
    assert variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


def test_defaults_leave_xla_alone():
    plain = {"platform": "", "allocator": "default", "memory_fraction": 0.0}
    variables = xla_environment(SETTINGS | plain)
    absent = {"XLA_CLIENT_MEM_FRACTION", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"}
    assert not absent & set(variables)


def test_unknown_allocator_and_fraction_are_refused():
    with pytest.raises(InputError, match="nearest: platform"):
        xla_environment(SETTINGS | {"allocator": "platfrom"})
    with pytest.raises(InputError, match=r"memory_fraction=2 must lie in \[0, 1\]"):
        xla_environment(SETTINGS | {"memory_fraction": 2})


CHILD = """
import json, os, sys
from jaxbench.bench.environment import apply_environment, xla_environment
apply_environment(xla_environment(json.loads(sys.argv[1])))
import jax, jax.numpy as jnp
jax.jit(lambda x: x * 2 + 1)(jnp.ones(3)).block_until_ready()
from jaxlib import xla_client
print(json.dumps({
    "devices": jax.device_count(),
    "platform": jax.devices()[0].platform,
    "allocator": xla_client.generate_pjrt_gpu_plugin_options(),
    "cached": len(os.listdir(jax.config.jax_compilation_cache_dir)),
}, default=str))
"""


def test_settings_reach_the_backend_of_a_child(tmp_path):
    settings = SETTINGS | {
        "compilation_cache": str(tmp_path),
        "flags": "--xla_force_host_platform_device_count=3",
    }
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(settings)],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = json.loads(done.stdout)
    assert seen["devices"] == 3 and seen["platform"] == "cpu"
    # What jaxlib would hand to a GPU client, read back from jaxlib itself.
    assert seen["allocator"]["allocator"] == "platform"
    assert seen["allocator"]["memory_fraction"] == 0.5
    assert seen["allocator"]["preallocate"] is False
    assert seen["cached"] > 0, "a program compiled in milliseconds was not cached"


def test_too_late_is_an_error():
    with pytest.raises(RuntimeError, match="before jax is imported"):
        apply_environment({})
