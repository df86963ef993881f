"""Where parameters start, and epsilons: the numbers of the authors' published code."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from drawn import shapes_of
from flax import linen as nn
from test_laws import KINDS

from jaxbench.mixers import deltanet, hyena, mamba, rwkv6, rwkv7, spiking, ttt, xlstm
from jaxbench.models.block import mixer_class, takes_lower
from jaxbench.models.build import build_stack
from jaxbench.models.zoo import ROWS

# Epsilon of a mixer's norms at one head of 64, and the file that has it. Norms of those
# that are not here are of this house, or of sources that have its 1e-6.
EPSILONS = {
    "deltanet:DeltaNet": (1e-5, "flash-linear-attention, fla/layers/delta_net.py"),
    "deltanet:DeltaProduct": (1e-5, "fla/layers/gated_deltaproduct.py"),
    "deltanet:GatedDeltaNet": (1e-5, "fla/layers/gated_deltanet.py"),
    "deltanet:KimiDeltaAttention": (1e-5, "fla/layers/kda.py"),
    "gla:GLA": (1e-5, "fla/layers/gla.py"),
    "hgrn2:HGRN2": (1e-5, "fla/layers/hgrn2.py"),
    "mamba2:Mamba2": (1e-5, "state-spaces/mamba, mamba_ssm/modules/mamba2.py"),
    "mamba3:Mamba3": (1e-5, "state-spaces/mamba, mamba_ssm/modules/mamba3.py"),
    "xlstm:MLSTM": (1e-5, "NX-AI/xlstm, xlstm/components/ln.py"),
    "xlstm:SLSTM": (1e-5, "NX-AI/xlstm, xlstm/components/ln.py"),
    "rwkv6:TimeMix": (64e-5, "BlinkDL/RWKV-LM, RWKV-v5/src/model.py"),
    "rwkv7:TimeMix": (64e-5, "BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py"),
    "ttt:TTT": (1e-6, "test-time-training/ttt-lm-pytorch, ttt.py"),
}

# Rows whose norms before the branches have 1e-5, as this file of their code has; the
# others keep the 1e-6 of the house.
BLOCKS = {
    **dict.fromkeys(
        ("mamba", "mamba2", "mamba3"),
        "state-spaces/mamba, mamba_ssm/models/mixer_seq_simple.py, norm_epsilon",
    ),
    "rwkv6": "BlinkDL/RWKV-LM, RWKV-v5/src/model.py, default of nn.LayerNorm",
    "rwkv": "BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py, default of nn.LayerNorm",
    **dict.fromkeys(("mlstm", "slstm"), "NX-AI/xlstm, xlstm/components/ln.py"),
    **dict.fromkeys(("s4", "s4d"), "state-spaces/s4, src/models/nn/normalization.py"),
    **dict.fromkeys(("h3", "hyena"), "HazyResearch/safari, sequence/simple_lm.py"),
}


def epsilons_of(label: str) -> list[float]:
    """Of every norm that a mixer calls."""
    mixer, options, *_ = KINDS[label]
    made = mixer_class(mixer)

    def init(key, x_btd):
        given = {"lower": {"embedding": x_btd}} if takes_lower(made) else {}
        return made(64, **{**dict(options), **one_head(made)}).init(key, x_btd, **given)

    return noted(init)


def noted(init) -> list[float]:
    """Of every norm that is called at width 64."""
    x_btd = jax.ShapeDtypeStruct((1, 2, 64), np.float32)
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)):
            found.append(context.module.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(init, jax.random.key(0), x_btd)
    return found


def one_head(made) -> dict[str, int]:
    return {"heads": 1} if "rwkv" in made.__module__ and hasattr(made, "heads") else {}


def test_norms_of_mixers_have_the_epsilon_of_their_source():
    wrong, listed = {}, set()
    for label in KINDS:
        mixer, found = label.split(",")[0], epsilons_of(label)
        epsilon, source = EPSILONS.get(mixer, (1e-6, "the house"))
        if found != pytest.approx([epsilon] * len(found)):
            wrong[label] = (found, epsilon, source)
        listed |= {mixer} if found else set()
    assert not wrong and EPSILONS.keys() <= listed


def test_norms_of_blocks_have_the_epsilon_of_the_rows_source():
    small = {name for name, row in ROWS.items() if row.norm_epsilon != 1e-6}
    assert small == BLOCKS.keys()
    assert all(ROWS[name].norm_epsilon == 1e-5 for name in small)
    # Two before the mixers, two in them, one after the stack.
    assert noted(build_stack("mamba2", width=64).init) == pytest.approx([1e-5] * 5)


def initial(module, **given):
    x_btd = np.zeros((1, 2, module.width), np.float32)
    init = jax.jit(lambda key: module.init(key, x_btd, **given))
    return jax.device_get(init(jax.random.key(0)))["params"]


def gain(kernel) -> float:
    """g where K^T K = g² I."""
    square = np.float64(kernel).T @ kernel
    np.testing.assert_allclose(square, square[0, 0] * np.eye(len(square)), atol=1e-5)
    return math.sqrt(square[0, 0])


def test_rwkv6_starts_as_the_training_code_does():
    """Layer 1 of 4: ((1 + l) / L)^0.7 = 0.6156, (1 - l / L)^3 = 0.4219."""
    p = initial(rwkv6.TimeMix(64, layer=1, layers=4))
    np.testing.assert_allclose(p["head_norm"]["norm"]["scale"], 0.61557, rtol=1e-4)
    gains = {"receptance": 1, "key": 0.1, "value": 1, "gate": 0.1, "out": 0}
    for name, wanted in gains.items():
        assert gain(p[name]["kernel"]) == pytest.approx(wanted, abs=1e-4), name
    # Channel 16 of 64: 1 - 0.25^0.75 - 0.3 / 3.
    assert p["shift_value"][16] == pytest.approx(0.54645, abs=1e-4)
    p = initial(rwkv6.ChannelMix(64, layer=1, layers=4))
    # Wider than the input: its rows are orthogonal.
    assert gain(p["key"]["kernel"].T) == pytest.approx(1, abs=1e-4)
    assert not p["receptance"]["kernel"].any() and not p["out"]["kernel"].any()
    # Channel 16 of 64: 1 - 0.25^0.421875.
    for name in ("shift_key", "shift_receptance"):
        assert p[name][16] == pytest.approx(0.44281, abs=1e-4)


def test_rwkv7_starts_as_the_training_code_does():
    p = initial(rwkv7.TimeMix(64, layer=0, layers=4), lower={})
    np.testing.assert_allclose(p["head_norm"]["norm"]["scale"], 0.37893, rtol=1e-4)
    for name, wanted in {"receptance": 1, "key": 0.1, "value": 1, "out": 0}.items():
        assert gain(p[name]["kernel"]) == pytest.approx(wanted, abs=1e-4), name
    # 2.5 sqrt(768) = 69.3, 1.7 sqrt(768) = 47.1, 5 sqrt(768) = 138.6, in steps of 32.
    x_btd = jax.ShapeDtypeStruct((1, 2, 768), np.float32)
    lower = {rwkv7.VALUES: np.zeros((1, 2, 768), np.float32)}
    shapes = shapes_of(rwkv7.TimeMix(768, layer=1, layers=4), x_btd, lower=lower)
    ranks = {"decay": 64, "rate": 64, "share": 32, "gate": 128}
    for name, rank in ranks.items():
        assert shapes["params"][f"{name}_down"].shape == (768, rank), name


@pytest.mark.integration
def test_kernels_have_the_deviation_of_their_source():
    """Small init sqrt(2 / 5 D), PyTorch's uniform 1 / sqrt(3 D), TTT's 0.02; D 256."""
    matrix, scalar = initial(xlstm.MLSTM(256)), initial(xlstm.SLSTM(256))
    selective, spikes = initial(mamba.Mamba(256)), initial(spiking.SNN(256))
    kernels = {
        0.0395: [
            *(matrix["project"]["kernel"], matrix["query"], matrix["value"]),
            *(scalar["input_forget"], scalar["cell_output"]),
        ],
        0.0361: [selective["project"]["kernel"], spikes["recurrent"]],
        # The fan-in of these is 2 D.
        0.0255: [selective["select"]["kernel"], selective["out"]["kernel"]],
        0.02: [initial(ttt.TTT(256))["qkv"]["kernel"]],
    }
    for wanted, group in kernels.items():
        found = [float(np.std(kernel)) for kernel in group]
        assert found == pytest.approx([wanted] * len(group), rel=0.05)


def test_decay_rates_of_the_gated_delta_rule_start_anywhere_below_16():
    rates = np.exp(initial(deltanet.GatedDeltaNet(512, heads=256))["ssm_a_log"])
    # One in 16 is below 1.
    assert 4 < (rates < 1).sum() < 32 and rates.max() < 16
    assert rates.mean() == pytest.approx(8, abs=1)


def test_hyena_frequencies_start_above_zero():
    """f from 1e-4 to 15 in 16 steps: half way, at l = 32 of 64, the angle is pi f."""
    features = hyena._position_features(64, 16)
    assert features.shape == (64, 33)
    sines = features[32, 17:]
    np.testing.assert_allclose(sines[0], -math.pi * 1e-4, rtol=1e-4)
    frequencies = 1e-4 + (15 - 1e-4) / 15 * np.arange(16)
    np.testing.assert_allclose(sines, -np.sin(math.pi * frequencies), atol=2e-6)
