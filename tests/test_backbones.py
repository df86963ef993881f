"""Whole stacks, row by row: the laws at full length, and what a row promises.

Every law is held by every bare mixer in `test_laws`, before every change; here whole
stacks hold them before a release. A new row is tested by being in the table. What a
backbone cannot do is written down in `WAIVERS`, with the reason, and must then fail.
"""

from __future__ import annotations

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import shapes_of
from laws import BACKWARD, BATCH, FORWARD, Case, close, shapes

from benchmarks import delayed_copy
from jaxbench.models.backbone import resolve
from jaxbench.models.block import field_names, mixer_class
from jaxbench.models.build import build_stack, state_bytes
from jaxbench.models.row import CHANNELS
from jaxbench.models.zoo import ROWS, elman, elman_diagonal

BACKBONES = tuple(ROWS)
# Stacks in which layers differ, hand things up or are cut into windows.
STACKS = frozenset("griffin xlstm rwkv hgrn fnet".split())
# Their state starts where training put it.
LEARNED_START = frozenset(("ttt", "ntm"))

# (backbone, property) -> why it does not hold. Properties are names of tests.
NO_PROJECTION = "no output projection: the state is the output"
WAIVERS: dict[tuple[str, str], str] = {
    ("lstm", "out_scale"): NO_PROJECTION,
    ("gru", "out_scale"): NO_PROJECTION,
    ("lstm_hybrid", "out_scale"): NO_PROJECTION,
    ("liquid", "out_scale"): NO_PROJECTION,
    ("ltc", "out_scale"): NO_PROJECTION,
    ("slstm", "out_scale"): NO_PROJECTION,
    ("xlstm", "out_scale"): NO_PROJECTION,
    ("llama_legacy", "out_scale"): "sizes at the start are part of what it shows",
    ("s5", "out_scale"): "gated, without an output projection",
    ("fnet", "out_scale"): "the mixer has no parameters",
    ("mlp", "out_scale"): "a norm follows the projection and undoes its scale",
    ("full_hybrid", "out_scale"): "RWKV-7's projections start at zero",
    ("rwkv6", "out_scale"): "the projection starts at zero",
    ("rwkv", "out_scale"): "the projection starts at zero",
    ("rwkv_attention", "out_scale"): "the projection starts at zero",
    ("e1", "copies"): "the state fades: a delay of 4 is learned, one of 10 is not",
    ("e1h", "copies"): "200 steps are too few for a delay of 10",
    ("liquid", "copies"): "200 steps are too few for a delay of 10",
    ("ltc", "copies"): "200 steps are too few for a delay of 10",
    ("e88", "copies"): "200 steps are too few for a delay of 10",
    ("e74_d_tiedkvq_t", "copies"): "values are the keys: it holds little else",
    ("e74_s_tiedkvq_t", "copies"): "values are the keys: it holds little else",
    ("vanilla_report", "order"): "one layer of it: positions are the encoder's",
    ("bayesian", "gradient"): "widths of weights learn from noise, which is off here",
}

D = WIDTH = 16


def cache_bytes(window: int, numbers: int) -> int:
    """Keys and values, one flag a frame, one counter."""
    return (window - 1) * (4 * numbers + 1) + 4


def mamba_bytes(d: int) -> int:
    return 4 * (2 * d * 16 + 3 * 2 * d)


# Bytes of state for one sequence and one layer, written from the papers.
STATE_BYTES = {
    "s4": D * 32 * 8,
    "s4d": D * 32 * 8,
    # Half of the conjugate pairs.
    "s5": 256 // 2 * 8,
    "h3": D * 32 * 8 + 7 * D * 4,
    "lru": 256 * 8,
    # The last inputs of the filter of 64 and of the short one of 3 on three streams.
    "hyena": 4 * (63 * D + 2 * 3 * D),
    "mamba": mamba_bytes(D),
    "mamba2": 4 * (64 * 2 * D + 3 * (2 * D + 2 * 64)),
    # One head: its state, the last key, input twice, 16 angles for half of the state.
    "mamba3": 4 * (64 * 2 * D + 64 + 2 * 2 * D + 16),
    "gated_ssm": 4 * (2 * D + 3 * 2 * D),
    "hawk": 4 * (D + 3 * D) + 1,
    "gla": 4 * 4 * (D // 8) * (D // 4),
    "retnet": 4 * 4 * (D // 4) * (2 * D // 4) + 4,
    "hgrn": 4 * D * D,
    # Sums of 64 features with values and alone, their scale, and a counter.
    "performer": 4 * 4 * (64 * (D // 4) + 64 + 1) + 4,
    "deltanet": 4 * (4 * (D // 4) ** 2 + 3 * 3 * D),
    # Keys and values of two updates a frame in their convolutions.
    "deltaproduct": 4 * (4 * (D // 4) ** 2 + 3 * 5 * D),
    "gated_deltanet": 4 * (4 * (D // 4) * (D // 2) + 3 * 4 * D),
    "kda": 4 * (4 * (D // 4) ** 2 + 3 * 3 * D),
    # The matrix, and the frame before for each of the two token shifts.
    "rwkv6": 4 * (D * D + 2 * D),
    "rwkv": 4 * (D * D + 2 * D),
    "mlstm": 4 * (4 * ((D // 2) ** 2 + D // 2 + 1) + 3 * 2 * D),
    "slstm": 4 * (4 * D + 3 * D),
    # Weights and bias of each head, their gradients, a counter.
    "ttt": 4 * 2 * 4 * ((D // 4) ** 2 + D // 4) + 4,
    "lstm": 4 * 2 * D,
    "gru": 4 * D,
    "min_lstm": 4 * 2 * D,
    "min_gru": 4 * 2 * D,
    "liquid": 4 * D,
    "ltc": 4 * D,
    "reservoir": 4 * 512,
    "snn": 4 * 2 * D,
    # Memory, controller, what was read, two weightings of the slots.
    "ntm": 4 * (32 * 32 + 2 * D + 32 + 2 * 32),
    **dict.fromkeys(elman.ROWS, 4 * 2 * D),
    # 32 slots as wide as the inner layer; heads of keys by values.
    "e63m": 4 * 32 * 2 * D,
    "e70": 4 * 4 * 24 * 24,
    **dict.fromkeys(("e71", "e72"), 4 * 96 * 96),
    "e73": 4 * 8 * 32 * 32,
    **{f"e74_{n}": 4 * n * n for n in (16, 32, 48, 64)},
    **dict.fromkeys(elman_diagonal.ROWS, 4 * 96),
    "e75": 4 * 4 * 32 * 32,
    "e88": 4 * (D // 16) * 16 * 16,
    "m2rnn": 4 * (D // 16) * 64 * 16,
    # Values twice as wide as keys, also in their convolution.
    "deltanet_report": 4 * (4 * (D // 4) * (D // 2) + 3 * 4 * D),
    "lstm_report": 4 * 2 * D,
    "gru_report": 4 * D,
    "rope_report": cache_bytes(2048, 2 * D),
    "vanilla_report": cache_bytes(2048, 2 * D),
    "swa": cache_bytes(30, 2 * D),
    "transformer": cache_bytes(256, 2 * D),
    "llama": cache_bytes(512, 2 * D),
    "llama_legacy": cache_bytes(512, 2 * D),
    "gated_attention": cache_bytes(256, 2 * D),
    # And how much each head has forgotten of each frame.
    "forgetting_transformer": cache_bytes(256, 2 * D + 4),
    # Keys and values of three tokens a frame, in both blocks.
    "decision_transformer": 2 * cache_bytes(3 * 30, 2 * D),
    "zamba_attention": cache_bytes(30, 2 * 2 * D),  # a part of patterns
    "griffin": 2 * (4 * 4 * D + 1) + cache_bytes(30, 2 * D // 4),
    "jamba": 3 * mamba_bytes(D) + cache_bytes(30, 2 * D // 2),
}
NO_STATE = """ffn kan bayesian mlp last_frame_mlp hopfield_static""".split()


def depth_of(name: str) -> int:
    """One layer where it does not matter how many there are: half the compiling.

    Rows of several kinds of layers keep them all, and so do mixers that ask for their
    place; layers on top of each other are theirs and `test_models`'s to test.
    """
    row = ROWS[name]
    if row.mixer:
        parts = [row.mixer]
        if row.channel not in (None, "none"):
            parts.append(CHANNELS[row.channel].mixer)
        if not any("layers" in field_names(mixer_class(part)) for part in parts):
            return 1
    return resolve(name).default_depth


def stack_of(name: str, **options):
    return build_stack(name, width=WIDTH, depth=depth_of(name), **options)


# Laws of one row follow each other, and its programs go with it.
@functools.lru_cache(maxsize=1)
def case_of(name: str) -> Case:
    seed = zlib.crc32(name.encode())
    return Case(stack_of(name), seed=seed, temporal=resolve(name).temporal)


def initialised(name: str, seed: int = 0):
    x_btd = np.zeros((BATCH, 2, WIDTH), np.float32)
    return jax.device_get(jax.jit(stack_of(name).init)(jax.random.key(seed), x_btd))


def marks_of(name: str, prop: str) -> list:
    """Slow, but for the forward laws of a few; waived properties must fail."""
    early = name in STACKS and prop in FORWARD
    reason = WAIVERS.get((name, prop))
    marks = [pytest.mark.integration if early else pytest.mark.slow]
    return marks + [pytest.mark.xfail(strict=True, reason=reason)] * bool(reason)


def backbones(prop: str, where=lambda resolved: True):
    names = [name for name in BACKBONES if where(resolve(name))]
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=marks_of(n, prop), id=n) for n in names]
    )


LAWS = FORWARD | BACKWARD


@pytest.mark.parametrize(
    ("name", "law"),
    [
        pytest.param(name, law, marks=marks_of(name, law), id=f"{name}-{law}")
        for name in BACKBONES
        for law in LAWS
    ],
)
def test_law(name, law):
    LAWS[law](case_of(name))


@pytest.mark.parametrize("name", BACKBONES)
def test_state_is_as_large_as_the_paper_says(name):
    backbone, stack = resolve(name), stack_of(name)
    x_btd = jax.ShapeDtypeStruct((1, 1, WIDTH), jnp.float32)
    variables = shapes_of(stack, x_btd) if name in LEARNED_START else {}

    def start(variables):
        return stack.apply(variables, BATCH, method="initial_state")

    if backbone.streams == "window":
        # The frames of the window, and which of them there are.
        expected = 29 * (4 * D + 1)
    elif name in STATE_BYTES:
        layers = depth_of(name) if ROWS[name].mixer else 1
        expected = layers * STATE_BYTES[name]
    else:
        bytes_of = STATE_BYTES | dict.fromkeys(NO_STATE, 0)
        unknown = {layer.name for layer in backbone.layers()} - set(bytes_of)
        assert not unknown, f"no line in STATE_BYTES: {unknown}"
        expected = sum(bytes_of[layer.name] for layer in backbone.layers())
    assert state_bytes(jax.eval_shape(start, variables)) == BATCH * expected


def test_waivers_name_backbones_and_properties_that_exist():
    known = {*LAWS, "out_scale", "copies"}
    for name, prop in WAIVERS:
        assert name in BACKBONES and prop in known


@backbones("eager")
def test_eager_equals_jitted(name):
    case = case_of(name)
    x_btd, reset_bt = case.frames(2, 1), np.zeros((BATCH, 1), bool)
    eager = case.module.apply(case.variables, x_btd, case.used, reset_bt)
    close(eager, case.run(x_btd, case.used, reset_bt), 1e-5)


def is_one_mixer(resolved) -> bool:
    """A hybrid adds nothing to what its layers do in bfloat16, and compiles long."""
    return bool(ROWS[resolved.name].mixer)


@backbones("bf16", is_one_mixer)
def test_bfloat16_is_near_float32_and_has_finite_float32_gradients(name):
    case, stack = case_of(name), stack_of(name, dtype=jnp.bfloat16)
    x_btd = case.frames(10).astype(jnp.bfloat16.dtype)

    def loss(variables):
        y_btd, state = stack.apply(variables, x_btd)
        return y_btd.astype(jnp.float32).sum(), (y_btd, state)

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    gradients, (y_btd, state) = jax.device_get(gradient(case.variables))
    for leaf in jax.tree.leaves(gradients):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
    assert y_btd.dtype == jnp.bfloat16 and shapes(state) == shapes(case.fresh)
    exact, _ = case.run(x_btd.astype(np.float32))
    error = np.abs(y_btd.astype(np.float32) - exact)
    assert error.max() < 0.1 * np.abs(exact).max()


@backbones("init")
def test_one_key_gives_one_initialisation(name):
    first, again, other = (
        jax.tree.leaves(initialised(name, seed)) for seed in (0, 0, 1)
    )
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert any((x != y).any() for x, y in zip(first, other, strict=True))


@backbones("out_scale", lambda resolved: resolved.elements[0].join == "residual")
def test_residual_branches_start_smaller_in_deeper_stacks(name):
    params, layers = initialised(name)["params"], stack_of(name).layers
    branches = sum(1 + (layer.channel != "none") for layer in layers)
    for index, layer in enumerate(layers):
        if layer.join == "next":
            continue
        kernel = params[f"blocks_{index}"]["mixer"]["out"]["kernel"]
        expected = (kernel.shape[0] * branches) ** -0.5
        assert np.std(kernel) == pytest.approx(expected, rel=0.2)


@backbones("copies")
def test_learns_in_200_steps_what_the_last_frame_does_not_show(name):
    """Say the bit of 10 frames ago. All bits are new, so a frame alone scores 1."""
    error = delayed_copy.train(name)[-20:].mean()
    if resolve(name).temporal:
        assert error < delayed_copy.BEATS
    else:
        assert error > delayed_copy.BEATS


@backbones("long")
def test_ten_thousand_frames_whole_in_chunks_and_in_steps_agree(name):
    case, length = case_of(name), 10_000
    x_btd = case.frames(20, length)[:1]
    reset_bt = case.resets(20, length, rate=0.005)[:1]
    fresh = jax.tree.map(lambda leaf: leaf[:1], case.fresh)

    @functools.partial(jax.jit, static_argnums=3)
    def in_parts(x_btd, reset_bt, state, part):
        def body(state, xs):
            y_btd, state = case.module.apply(case.variables, xs[0], state, xs[1])
            return state, y_btd

        count = length // part
        xs = (
            x_btd.reshape(1, count, part, WIDTH).swapaxes(0, 1),
            reset_bt.reshape(1, count, part).swapaxes(0, 1),
        )
        state, y_cbtd = jax.lax.scan(body, state, xs)
        return y_cbtd.swapaxes(0, 1).reshape(1, length, WIDTH), state

    steps, _ = in_parts(x_btd, reset_bt, fresh, 1)
    for part in (250, length):
        parts, _ = in_parts(x_btd, reset_bt, fresh, part)
        difference = np.asarray(parts) - np.asarray(steps)
        for frames in (slice(None), slice(-1000, None)):
            error = np.linalg.norm(difference[:, frames])
            assert error <= 1e-5 * np.linalg.norm(steps[:, frames]), (part, frames)
        # A norm of a vector near zero magnifies rounding in a few frames.
        assert np.abs(difference).max() <= 1e-4 * np.abs(steps).max(), part
