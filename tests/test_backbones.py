"""What every backbone must do: one list of properties, every row of the table.

A new row is tested by being in the table. What a backbone cannot do is written down in
`WAIVERS`, with the reason, and must then really fail.
"""

from __future__ import annotations

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import delayed_copy
from jaxbench.models.backbone import resolve
from jaxbench.models.block import field_names, mixer_class
from jaxbench.models.build import build_stack, state_bytes
from jaxbench.models.row import CHANNELS
from jaxbench.models.zoo import ROWS, elman, elman_diagonal

# A row that only feeds the layer above it is tested in the rows that use it.
BACKBONES = tuple(name for name, row in ROWS.items() if row.join != "next")

# Deep repetitions of rows that are tested themselves, minutes of compiling, and other
# settings of mixers that another row tests.
SLOW = frozenset(
    """mamba_moe attention_moe jamba_like zamba_like mamba_gla rwkv_attention
    full_hybrid ssm_stack e74_16 e74_48 e74_64 e74_d_tiedkvq_t e74_d_tiedkq_t
    e74_d_tiedkq_l e74_d_noz_t e74_d_noz_l e74_d_full_l e74_s_tiedkvq_t
    e74_s_tiedkvq_l e74_s_tiedkq_l e74_s_noz_t e74_s_full_t e74_s_full_l""".split()
)

# Compositions and other settings of rows whose own tests are fast: run before every
# change lands, not at once.
LATER = frozenset(
    """xlstm griffin jamba zamba lstm_hybrid deltanet_report lstm_report gru_report
    rope_report vanilla_report e75 e74_s_noz_l e74_s_tiedkq_t""".split()
)

# What every change must pass at once: the law of streaming. The other properties are
# slow tests.
FAST = frozenset("shape chunks state_bytes".split())
# Slow tests that are not run before every change: they compile whole stacks again. Of
# two of them a backbone for each family of primitives is.
RARE = frozenset("eager bf16 bf16_gradient copies long".split())
FAMILIES = "s4 mamba mamba2 gla deltanet rwkv mlstm gru swa e70".split()
CHOSEN = frozenset((name, prop) for name in FAMILIES for prop in ("bf16", "long"))

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
BATCH = 3


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
    # One head: its state, the last key, input twice, and 32 angles.
    "mamba3": 4 * (64 * 2 * D + 64 + 2 * 2 * D + 32),
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
    "zamba_attention": cache_bytes(30, 2 * 2 * D),
    "griffin": 2 * (4 * 4 * D + 1) + cache_bytes(30, 2 * D // 4),
    "jamba": 3 * mamba_bytes(D) + cache_bytes(30, 2 * D // 2),
}
NO_STATE = """ffn kan bayesian mlp last_frame_mlp hopfield_static""".split()

# Compiling is nearly all this file does, and code that runs once need not be fast.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Every backbone compiles calls of CHUNK frames and of one frame, and no others.
CHUNK = 6


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


class Case:
    """One backbone, its jitted forward pass and gradient, and the traces they took."""

    def __init__(self, name: str):
        self.name = name
        self.seed = zlib.crc32(name.encode())
        self.stack = build_stack(name, width=WIDTH, depth=depth_of(name))
        x_btd = self.frames(0)
        self.init = jit(self.stack.init)
        self.initial_variables = jax.device_get(self.init(jax.random.key(0), x_btd))
        self.variables = {
            **self.initial_variables,
            "params": jitter(self.initial_variables["params"]),
        }
        self.fresh = jax.device_get(
            self.stack.apply(self.variables, BATCH, method="initial_state")
        )
        self.traces = 0

        def apply(variables, x_btd, state, reset_bt):
            self.traces += 1
            return self.stack.apply(variables, x_btd, state, reset_bt)

        def loss(params, x_btd, weight_btd):
            variables = {**self.variables, "params": params}
            y_btd, state = self.stack.apply(variables, x_btd)
            return jnp.sum(y_btd * weight_btd), (y_btd, state)

        self._apply = jit(apply)
        self._gradient = jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def frames(self, seed: int, length: int = CHUNK) -> np.ndarray:
        rng = np.random.default_rng([self.seed, seed])
        return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)

    def resets(self, seed: int, length: int = CHUNK, rate: float = 0.2) -> np.ndarray:
        rng = np.random.default_rng([self.seed, seed])
        return rng.random((BATCH, length)) < rate

    def run(self, x_btd, state=None, reset_bt=None):
        state = self.fresh if state is None else state
        if reset_bt is None:
            reset_bt = np.zeros(x_btd.shape[:2], bool)
        return jax.device_get(self._apply(self.variables, x_btd, state, reset_bt))

    def run_in(self, lengths, x_btd, state, reset_bt):
        outputs, start = [], 0
        for length in lengths:
            part = slice(start, start + length)
            y_btd, state = self.run(x_btd[:, part], state, reset_bt[:, part])
            outputs.append(y_btd)
            start += length
        return np.concatenate(outputs, axis=1), state

    def used_state(self):
        """A state that is not the initial one."""
        return self.run(self.frames(99))[1]

    def gradient(self, x_btd):
        """Gradients of parameters and frames, and what a call without a state gives."""
        rng = np.random.default_rng(self.seed)
        weight = rng.normal(size=x_btd.shape).astype(np.float32)
        return jax.device_get(self._gradient(self.variables["params"], x_btd, weight))


@functools.cache
def case_of(name: str) -> Case:
    return Case(name)


def jitter(params):
    """Moves every parameter off its initial value, zeros above all."""
    rng = np.random.default_rng(7)
    return jax.tree.map(
        lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype(leaf.dtype),
        params,
    )


def changed(array, where, value):
    """A copy of `array` with `value` at `where`."""
    copy = np.array(array)
    copy[where] = value
    return copy


def shapes(tree):
    """Shapes and types of a tree, comparable."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def close(actual, expected, tolerance: float = 1e-4) -> None:
    def check(path, x, y):
        np.testing.assert_allclose(
            x, y, tolerance, tolerance, err_msg=jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(check, actual, expected)


def backbones(prop: str, where=lambda resolved: True):
    """The backbones a property is tested on; waived ones must fail."""

    def mark(name: str):
        reason = WAIVERS.get((name, prop))
        marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
        if name in SLOW | LATER or prop not in FAST:
            marks.append(pytest.mark.slow)
        often = name not in SLOW or name == "full_hybrid"
        if (often and prop not in RARE) or (name, prop) in CHOSEN:
            marks.append(pytest.mark.integration)
        return pytest.param(name, marks=marks, id=name)

    names = [name for name in BACKBONES if where(resolve(name))]
    return pytest.mark.parametrize("name", [mark(name) for name in names])


@backbones("shape")
def test_shape_type_and_finiteness(name):
    case = case_of(name)
    y_btd, state = case.run(case.frames(1))
    assert y_btd.shape == (BATCH, CHUNK, WIDTH) and y_btd.dtype == np.float32
    for leaf in jax.tree.leaves((y_btd, state, case.variables)):
        assert np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(case.variables["params"]):
        assert leaf.dtype == jnp.float32
    assert shapes(state) == shapes(case.fresh)
    assert all(leaf.shape[0] == BATCH for leaf in jax.tree.leaves(state))


@backbones("eager")
def test_eager_equals_jitted(name):
    case = case_of(name)
    x_btd, state = case.frames(2, 1), case.used_state()
    reset_bt = np.zeros((BATCH, 1), bool)
    eager = case.stack.apply(case.variables, x_btd, state, reset_bt)
    close(eager, case.run(x_btd, state, reset_bt), 1e-5)


@backbones("fresh")
def test_a_call_without_state_and_resets_starts_fresh(name):
    case = case_of(name)
    x_btd = case.frames(2)
    _, fresh = case.gradient(x_btd)
    close(fresh, case.run(x_btd), 1e-5)


@backbones("causal")
def test_causal(name):
    case = case_of(name)
    state, reset_bt = case.used_state(), case.resets(3)
    x_btd = case.frames(3)
    before, _ = case.run(x_btd, state, reset_bt)
    for t in (1, 4, CHUNK - 1):
        x_changed = changed(x_btd, np.s_[:, t], -2 * x_btd[:, t])
        after, _ = case.run(x_changed, state, reset_bt)
        close(after[:, :t], before[:, :t], 1e-6)
        assert np.abs(after[:, t] - before[:, t]).max() > 1e-3


@backbones("chunks")
def test_chunks_and_steps_agree(name):
    """Two chunks, twelve steps, and a chunk that begins between two steps."""
    case = case_of(name)
    x_btd, reset_bt = case.frames(4, 2 * CHUNK), case.resets(4, 2 * CHUNK)
    assert reset_bt[:, 1:].any() and not reset_bt.all()
    for state in (case.fresh, case.used_state()):
        steps = case.run_in([1] * 2 * CHUNK, x_btd, state, reset_bt)
        close(case.run_in([CHUNK, CHUNK], x_btd, state, reset_bt), steps)
        parts = [1, 1, CHUNK, 1, 1, 1, 1]
        close(case.run_in(parts, x_btd, state, reset_bt), steps)


@backbones("reset")
def test_reset_equals_a_separate_sequence(name):
    case = case_of(name)
    start = CHUNK // 2
    reset_bt = changed(np.zeros((BATCH, CHUNK), bool), np.s_[:, start], True)
    x_btd, none = case.frames(5), np.zeros((BATCH, CHUNK - start), bool)
    alone = case.run_in([1] * (CHUNK - start), x_btd[:, start:], case.fresh, none)
    # A left-padded window: its first real frame repeated, and a reset where it starts.
    padding = np.repeat(x_btd[:, start : start + 1], start, axis=1)
    for past in (x_btd[:, :start], 1e3 * x_btd[:, :start], padding):
        x_joined = np.concatenate([past, x_btd[:, start:]], axis=1)
        y_btd, state = case.run(x_joined, case.used_state(), reset_bt)
        close((y_btd[:, start:], state), alone)


@backbones("rows")
def test_rows_of_a_batch_do_not_meet(name):
    case = case_of(name)
    state, reset_bt = case.used_state(), case.resets(6)
    x_btd = case.frames(6)
    before = case.run(x_btd, state, reset_bt)
    other = case.run(
        changed(x_btd, 1, -5 * x_btd[1]),
        jax.tree.map(lambda leaf: changed(leaf, 1, 0), state),
        changed(reset_bt, 1, ~reset_bt[1]),
    )
    close(*jax.tree.map(lambda leaf: leaf[[0, 2]], (other, before)), 1e-6)
    assert np.abs(other[0][1] - before[0][1]).max() > 1e-3


@backbones("order")
def test_temporal_backbones_know_the_order_and_the_others_do_not(name):
    case = case_of(name)
    x_btd = case.frames(7)
    shuffled = np.concatenate([x_btd[:, -2::-1], x_btd[:, -1:]], axis=1)
    difference = np.abs(case.run(shuffled)[0][:, -1] - case.run(x_btd)[0][:, -1])
    if resolve(name).temporal:
        assert (difference.max(axis=-1) > 1e-4).all()
    else:
        assert difference.max() == 0


@backbones("gradient")
def test_every_parameter_gets_a_gradient(name):
    case = case_of(name)
    (of_params, of_x), _ = case.gradient(case.frames(8))
    for path, leaf in jax.tree_util.tree_flatten_with_path(of_params)[0]:
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.abs(leaf).max() > 1e-7, jax.tree_util.keystr(path)
    assert (np.abs(of_x).max(axis=(1, 2)) > 1e-7).all()


@backbones("extremes")
def test_gradients_are_finite_on_zeros_and_on_huge_inputs(name):
    case = case_of(name)
    for x_btd in (np.zeros((BATCH, CHUNK, WIDTH), np.float32), 1e3 * case.frames(9)):
        for leaf in jax.tree.leaves(case.gradient(x_btd)):
            assert np.isfinite(leaf).all()


def is_one_mixer(resolved) -> bool:
    """A hybrid adds nothing to what its layers do in bfloat16, and compiles long."""
    return bool(ROWS[resolved.name].mixer)


def bfloat16_stack(name: str):
    return build_stack(name, width=WIDTH, depth=depth_of(name), dtype=jnp.bfloat16)


@backbones("bf16", is_one_mixer)
def test_bfloat16_computes_with_float32_parameters_and_states(name):
    case, stack = case_of(name), bfloat16_stack(name)
    x_btd = case.frames(10).astype(jnp.bfloat16.dtype)
    variables = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
    assert shapes(variables) == shapes(case.initial_variables)
    y_btd, state = jax.device_get(jit(stack.apply)(case.variables, x_btd))
    assert y_btd.dtype == jnp.bfloat16
    assert shapes(state) == shapes(case.fresh)
    exact, _ = case.run(x_btd.astype(np.float32))
    error = np.abs(y_btd.astype(np.float32) - exact)
    assert error.max() < 0.1 * np.abs(exact).max()


@backbones("bf16_gradient", is_one_mixer)
def test_gradients_are_finite_in_bfloat16(name):
    case, stack = case_of(name), bfloat16_stack(name)
    x_btd = case.frames(10).astype(jnp.bfloat16.dtype)

    def loss(variables):
        return stack.apply(variables, x_btd)[0].astype(jnp.float32).sum()

    for leaf in jax.tree.leaves(jit(jax.grad(loss))(case.variables)):
        assert leaf.dtype == jnp.float32 and jnp.isfinite(leaf).all()


@backbones("traces")
def test_values_never_retrace(name):
    case = case_of(name)
    case.run(case.frames(11))
    traces = case.traces
    case.run(case.frames(12), case.used_state(), case.resets(12))
    assert case.traces == traces


@backbones("init")
def test_one_key_gives_one_initialisation(name):
    case = case_of(name)
    first, again, other = (
        jax.tree.leaves(
            jax.device_get(case.init(jax.random.key(seed), case.frames(13 + seed)))
        )
        for seed in (0, 0, 1)
    )
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert any((x != y).any() for x, y in zip(first, other, strict=True))


@backbones("out_scale", lambda resolved: resolved.elements[0].join == "residual")
def test_residual_branches_start_smaller_in_deeper_stacks(name):
    params = case_of(name).initial_variables["params"]
    layers = case_of(name).stack.layers
    branches = sum(1 + (layer.channel != "none") for layer in layers)
    for index, layer in enumerate(layers):
        if layer.join == "next":
            continue
        assert "out_scale" in field_names(mixer_class(layer.mixer))
        kernel = params[f"blocks_{index}"]["mixer"]["out"]["kernel"]
        expected = (kernel.shape[0] * branches) ** -0.5
        assert np.std(kernel) == pytest.approx(expected, rel=0.2)


@backbones("state_bytes")
def test_state_is_as_large_as_the_paper_says(name):
    backbone = resolve(name)
    if backbone.streams == "window":
        # The frames of the window, and which of them there are.
        expected = 29 * (4 * D + 1)
    elif name in STATE_BYTES:
        layers = depth_of(name) if ROWS[name].mixer else 1
        expected = layers * STATE_BYTES[name]
    else:
        bytes_of = STATE_BYTES | dict.fromkeys(NO_STATE, 0)
        expected = sum(bytes_of[layer.name] for layer in backbone.layers())
    assert state_bytes(case_of(name).fresh) == BATCH * expected


def test_waivers_name_backbones_and_properties_that_exist():
    marked = {
        (param.id, test.__name__)
        for test in globals().values()
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize"
        for param in mark.args[1]
        if any(mark.name == "xfail" for mark in param.marks)
    }
    assert len(marked) == len(WAIVERS)


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

    @functools.partial(jit, static_argnums=3)
    def in_parts(x_btd, reset_bt, state, part):
        def body(state, xs):
            y_btd, state = case.stack.apply(case.variables, xs[0], state, xs[1])
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
