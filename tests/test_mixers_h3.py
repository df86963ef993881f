"""H3 against a float64 loop over frames, with complex states written out."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from drawn import draw

from jaxbench.errors import InputError
from jaxbench.mixers.h3 import H3, H3State

WIDTH, BATCH, LENGTH = 16, 2, 12


def frames(seed, length=LENGTH):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)


def variables_of(mixer):
    return draw(mixer, frames(0))


def loop(variables, x_btd, state, reset_bt):
    """Frame by frame; a list of keys for the shift, all N states as conjugate pairs."""
    p = jax.tree.map(np.float64, variables["params"])
    eigen = -np.exp(p["ssm_log_decay"]) + 1j * p["ssm_frequency"]
    eigen = np.concatenate([eigen, eigen.conj()], 1)
    read = p["c_re"] + 1j * p["c_im"]
    read = np.concatenate([read, read.conj()], 1)
    decay = np.exp(np.exp(p["ssm_log_dt"])[:, None] * eigen)
    write = (decay - 1) / eigen
    taps, half = p["shift"].shape[0], eigen.shape[1] // 2
    outputs = np.zeros(x_btd.shape)
    hidden_after, keys_after = np.array(state.x_bdn), np.array(state.shift_bwd)
    for b in range(BATCH):
        keys = list(np.float64(state.shift_bwd[b]))
        hidden = np.concatenate([state.x_bdn[b], state.x_bdn[b].conj()], 1)
        for t, x in enumerate(np.float64(x_btd[b])):
            q, k, v = np.split(x @ p["qkv"]["kernel"], 3)
            if reset_bt[b, t]:
                keys, hidden = [np.zeros(WIDTH)] * (taps - 1), 0 * hidden
            keys.append(k)
            shifted = sum(p["shift"][-1 - lag] * keys[-1 - lag] for lag in range(taps))
            hidden = decay * hidden + write * (shifted * v)[:, None]
            z = (read * hidden).sum(1).real + p["ssm_d"] * shifted * v
            o = q * z
            o = o / np.sqrt((o**2).mean() + 1e-6) * p["norm"]["scale"]
            outputs[b, t] = o @ p["out"]["kernel"]
        hidden_after[b] = hidden[:, :half]
        keys_after[b] = keys[len(keys) - taps + 1 :]
    return outputs, H3State(hidden_after, keys_after)


@pytest.mark.parametrize("options", [{}, {"state_size": 4, "taps": 3}])
def test_equals_a_float64_loop(options):
    mixer = H3(WIDTH, **options)
    variables = variables_of(mixer)
    apply = jax.jit(mixer.apply)
    reset = np.zeros((BATCH, LENGTH), bool)
    _, state = apply(variables, frames(1), None, reset)
    reset[0, [2, 7]] = reset[1, 11] = True
    got = apply(variables, frames(2), state, reset)
    want = loop(variables, frames(2), jax.device_get(state), reset)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, 1e-5, 1e-5)


def test_the_size_of_a_frame_is_normalised_away():
    """A cubic layer without its norm would grow a thousandfold."""
    mixer = H3(WIDTH)
    variables = variables_of(mixer)
    apply = jax.jit(mixer.apply)
    (small, _), (large, _) = (apply(variables, s * frames(3)) for s in (1, 10))
    ratio = np.square(large).mean() / np.square(small).mean()
    assert ratio == pytest.approx(1, abs=0.1)


@pytest.mark.integration
@pytest.mark.parametrize("taps", [2, 8])
def test_the_shift_alone_reaches_its_taps_and_no_further(taps):
    """With the state space off (C = 0) a key meets a later value only by the shift."""
    mixer = H3(WIDTH, taps=taps)
    variables = variables_of(mixer)
    off = {name: 0 * variables["params"][name] for name in ("c_re", "c_im")}
    variables = {"params": {**variables["params"], **off}}
    apply, x_btd = jax.jit(mixer.apply), frames(4)
    moved = np.array(x_btd)
    moved[:, 1] *= -2
    change = np.abs(apply(variables, moved)[0] - apply(variables, x_btd)[0])
    seen = change.max((0, 2)) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(seen), np.arange(1, 1 + taps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 5}, "state_size=5 must be even"),
        ({"state_size": 0}, "state_size=0"),
        ({"taps": 0}, "taps=0 must be at least 1"),
        ({"dt_min": 0.1, "dt_max": 0.01}, "dt_min=0.1 and dt_max=0.01"),
        ({"dt_min": 0.0}, "dt_min=0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        H3(WIDTH, **options).initial_state(BATCH)
