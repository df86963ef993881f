"""`name/conv` and `name/noconv`: a short convolution before a mixer, or none in it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw

from jaxbench.bench.run_folder import folder_name
from jaxbench.errors import InputError
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.models.backbone import is_temporal, parse, resolve
from jaxbench.models.block import field_names, mixer_class
from jaxbench.models.build import build_stack, count_parameters, state_bytes
from jaxbench.models.sizes import Counter
from jaxbench.models.zoo import FAMILIES, ROWS

# Whole stacks, many of each: minutes together.
pytestmark = pytest.mark.integration

WIDTH, BATCH, CHUNK = 16, 2, 6
LENGTH = 2 * CHUNK
# Calls that start inside, at and after resets, and go on from one another.
CHUNKS = ([CHUNK] * 2, [1] * LENGTH, [1, 1, CHUNK, 1, 1, 1, 1])

CONVOLVED = [n for n, row in ROWS.items() if "short_convolution" in row.primitives]
# One of each family, and of each way to join, to be normed and to see time.
SPREAD = dict.fromkeys(
    [
        *(next((n for n, r in f.items() if r.mixer), "gru") for f in FAMILIES.values()),
        *("gru", "fnet", "ffn", "last_frame_mlp", "lstm_report", "llama_legacy"),
    ]
)
FAST = {"gru", "swa", "fnet", "ffn", "mamba", "deltanet"}


def rows(names):
    """The names as parameters, those that compile long marked as slow."""
    slow = [pytest.mark.integration]
    return [pytest.param(n, marks=[] if n in FAST else slow) for n in names]


def frames(seed: int, length: int = LENGTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)


def resets(length: int = LENGTH) -> np.ndarray:
    reset_bt = np.zeros((BATCH, LENGTH), bool)
    reset_bt[0, [0, 5, 7]] = reset_bt[1, [2, 3, 9]] = True
    return reset_bt[:, :length]


def stack_of(text: str, **kwargs):
    return build_stack(text, width=WIDTH, **kwargs)


@functools.cache
def initialized(text: str, depth: int | None = None, window: int = 0):
    """A stack, drawn parameters, and its jitted call."""
    stack = stack_of(text, depth=depth, options={"window": window} if window else {})
    variables = draw(stack, frames(0, 1))
    run = jax.jit(stack.apply, static_argnames="last_only")
    return stack, variables, run


def in_chunks(case, lengths, state):
    _, variables, run = case
    x_btd, reset_bt, outputs, start = frames(1), resets(), [], 0
    for length in lengths:
        part = slice(start, start + length)
        y_btd, state = run(variables, x_btd[:, part], state, reset_bt[:, part])
        outputs.append(y_btd)
        start += length
    return np.concatenate(outputs, 1), jax.device_get(state)


def agree(case) -> None:
    stack, variables, run = case
    fresh = stack.apply(variables, BATCH, method="initial_state")
    never = np.zeros((BATCH, CHUNK), bool)
    _, used = run(variables, frames(2, CHUNK), fresh, never)
    for state in (fresh, used):
        whole, *others = (in_chunks(case, lengths, state) for lengths in CHUNKS)
        for other in others:
            close(other, whole)


def close(actual, expected, tolerance: float = 2e-4) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance),
        actual,
        expected,
    )


def depth_of(name: str) -> int | None:
    return 1 if ROWS[name].mixer else None


@pytest.mark.parametrize(
    ("text", "channel", "conv", "name"),
    [
        ("swa/conv", None, True, "swa/conv"),
        ("deltanet/noconv", None, False, "deltanet/noconv"),
        ("swa/glu/conv", "glu", True, "swa/glu/conv"),
        ("attention / conv / glu", "glu", True, "swa/glu/conv"),
        ("deltanet/noconv/none", "none", False, "deltanet/none/noconv"),
        ("swa/none", "none", None, "swa/none"),
    ],
)
def test_suffixes_in_any_order(text, channel, conv, name):
    (element,) = parse(text)
    assert (element.channel, element.conv) == (channel, conv)
    assert resolve(text).name == name and resolve(name) == resolve(text)
    (layer,) = resolve(f"@{text}*1").elements
    assert layer.shared and layer.conv is conv


def test_suffixes_in_patterns():
    backbone = resolve("(mamba/noconv)*2 + @attention/conv/moe")
    assert backbone.name == "(mamba/noconv)*2+@swa/moe/conv"
    assert [layer.conv for layer in backbone.elements] == [False, False, True]
    assert [dict(x.options).get("taps") for x in backbone.elements] == [1, 1, None]


@pytest.mark.parametrize(
    ("text", "wanted", "character", "found"),
    [
        ("swa/glu/glu", "'conv' or 'noconv'", 9, "'glu'"),
        ("swa/glu/gul", "'conv' or 'noconv'", 9, "'gul'"),
        ("swa/conv/conv", "a channel mixer", 10, "'conv'"),
        ("gru+mamba/noconv/conv", "a channel mixer", 18, "'conv'"),
        ("mamba/conv/glu/noconv", "'+', '*' or the end", 15, "'/'"),
        ("swa/conv/", "a channel mixer", 10, "the end"),
        ("swa/", "a channel mixer, 'conv' or 'noconv'", 5, "the end"),
        ("(swa)/conv", "'+', '*' or the end", 6, "'/'"),
        ("swa*2/conv", "'+', '*' or the end", 6, "'/'"),
        ("conv+/conv", "a name or '('", 6, "'/'"),
    ],
)
def test_what_does_not_parse_is_shown_with_its_place(text, wanted, character, found):
    with pytest.raises(InputError) as error:
        resolve(text)
    message = str(error.value)
    assert f"expected {wanted} at character {character}, found {found}" in message
    assert repr(text) in message and "\n" not in message


def test_an_unknown_suffix_gets_the_nearest_of_both_kinds():
    with pytest.raises(InputError, match=r"called 'cnov'.*nearest: conv, noconv"):
        resolve("swa/cnov")
    with pytest.raises(InputError, match=r"called 'mooe'.*nearest: moe"):
        resolve("swa/mooe")


@pytest.mark.parametrize("name", ["swa", "last_frame_mlp", "griffin", "lstm_report"])
def test_a_switch_leaves_a_row_as_deep_as_it_is(name):
    assert resolve(f"{name}/conv").default_depth == resolve(name).default_depth
    assert resolve(f"{name} / conv").default_depth == resolve(name).default_depth
    two = resolve(f"{name}/conv+{name}").default_depth
    assert two == 2 * len(resolve(name).elements)


def test_a_pattern_row_hands_a_switch_to_its_layers():
    convolved = resolve("griffin/conv").elements
    assert [layer.conv for layer in convolved] == [True] * len(convolved)
    bare = resolve("griffin/noconv").elements
    assert [(x.name, x.conv) for x in bare] == [
        ("hawk", False),
        ("hawk", False),
        ("swa", None),
    ]


@pytest.mark.parametrize("text", ["swa/noconv", "gru+gru/noconv", "lstm_hybrid/noconv"])
def test_a_row_without_a_short_convolution_has_none_to_take_out(text):
    with pytest.raises(InputError, match="has no short convolution to take out") as e:
        resolve(text)
    assert "hyena, mamba, mamba2" in str(e.value) and "\n" not in str(e.value)


def test_taps_are_no_option_of_a_layer_without_them():
    with pytest.raises(InputError, match="'mamba/noconv' has no option 'taps'"):
        stack_of("mamba/noconv", options={"taps": 3})
    layers = stack_of("mamba/noconv+mamba", options={"taps": 3}).layers
    assert [dict(layer.options)["taps"] for layer in layers] == [1, 3]


def test_folders_are_apart():
    texts = ["swa", "swa/conv", "swa/glu/conv", "swa/glu", "mamba", "mamba/noconv"]
    texts += ["gru/mlp/conv", "gru+mlp/conv", "gru/mlp+mlp", "gru+mlp+mlp"]
    folders = {folder_name(text) for text in texts}
    assert len(folders) == len(texts)
    assert not any(set("/*+ ") & set(folder) for folder in folders)


@pytest.mark.parametrize("name", rows(SPREAD))
def test_chunks_and_steps_agree_behind_a_convolution(name):
    window = 4 if ROWS[name].window else 0
    case = initialized(f"{name}/conv", 1, window)
    agree(case)
    stack, variables, _ = case
    assert all(is_temporal(layer) for layer in stack.layers)
    assert variables["params"]["blocks_0"]["conv"]["kernel"].shape == (4, WIDTH)
    bare = Counter(name, {}).exact(WIDTH, 1)
    assert count_parameters(variables["params"]) == bare + 4 * WIDTH
    if window:
        return
    state = stack.apply(variables, BATCH, method="initial_state")
    plain = stack_of(name, depth=1)
    without = plain.apply(variables, BATCH, method="initial_state")
    assert state[0].conv.shape == (BATCH, 3, WIDTH) and without[0].conv == ()
    assert state_bytes(state) == state_bytes(without) + 4 * BATCH * 3 * WIDTH


@pytest.mark.parametrize("text", ["gru+mlp/conv", "swa/conv*1"])
def test_the_last_frame_alone_is_the_last_of_all(text):
    stack, variables, run = initialized(text)
    fresh = stack.apply(variables, BATCH, method="initial_state")
    given = variables, frames(3, CHUNK), fresh, resets(CHUNK)
    every, state = run(*given)
    last, state_of_last = run(*given, last_only=True)
    assert last.shape == (BATCH, 1, WIDTH)
    close((last, state_of_last), (every[:, -1:], state))


def test_a_convolution_in_float64():
    """Norm none, nothing along time but the taps, three dense layers behind them."""
    case = initialized("last_frame_mlp/conv")
    stack, variables, _ = case
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    kernel_wd = params["blocks_0"]["conv"]["kernel"]
    assert set(params["blocks_0"]["conv"]) == {"kernel"}
    x_btd, reset_bt = frames(1).astype(np.float64), resets()
    expected = np.zeros_like(x_btd)
    for b in range(BATCH):
        before = np.zeros((3, WIDTH))
        for t in range(LENGTH):
            if reset_bt[b, t]:
                before[:] = 0
            taps = np.concatenate([before, x_btd[b, t : t + 1]])
            c = sum(kernel_wd[j] * taps[j] for j in range(4))
            y = x_btd[b, t] + c / (1 + np.exp(-c))
            for index in range(3):
                dense = params["blocks_0"]["mixer"][f"Dense_{index}"]
                y = y @ dense["kernel"] + dense["bias"]
                y = np.maximum(y, 0) if index < 2 else y
            expected[b, t], before = y, taps[1:]
    fresh = stack.apply(variables, BATCH, method="initial_state")
    actual, state = in_chunks(case, CHUNKS[0], fresh)
    close(actual, expected, 1e-5)
    assert len(stack.layers) == 1 and state[0].conv.dtype == np.float32
    np.testing.assert_allclose(state[0].conv[0], x_btd[0, -3:], 1e-6)


@pytest.mark.parametrize("name", ["swa", "lstm_report"])
def test_silent_taps_change_nothing(name):
    convolved, plain = (initialized(text, 1) for text in (f"{name}/conv", name))
    params = convolved[1]["params"]
    block = params["blocks_0"]
    silent = {**block, "conv": jax.tree.map(np.zeros_like, block["conv"])}
    bare = {key: value for key, value in block.items() if key != "conv"}
    outputs = []
    for (stack, _, run), mine in ((convolved, silent), (plain, bare)):
        variables = {"params": {**params, "blocks_0": mine}}
        fresh = stack.apply(variables, BATCH, method="initial_state")
        outputs.append(run(variables, frames(1, CHUNK), fresh, resets(CHUNK))[0])
    close(*outputs, 1e-6)


def test_shared_layers_share_taps_and_keep_their_own_inputs():
    case = initialized("(mlp+@mlp/conv)*2+mlp/conv")
    stack, variables, run = case
    fresh = stack.apply(variables, BATCH, method="initial_state")
    _, state = run(variables, frames(1, CHUNK), fresh, resets(CHUNK))
    named = [n for n, block in variables["params"].items() if "conv" in block]
    assert named == ["blocks_1", "blocks_4"]
    assert state[0].conv == state[2].conv == ()
    assert (state[1].conv != state[3].conv).any()
    agree(case)


def test_a_layer_that_joins_the_next_convolves_what_it_reads():
    agree(initialized("@zamba_attention/conv+mlp"))


def test_remat_changes_neither_values_nor_gradients():
    stack, variables, _ = initialized("@mlp/conv*2")
    x_btd, reset_bt = frames(1, CHUNK), resets(CHUNK)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(module, params):
        def loss(params):
            y_btd, _ = module.apply({"params": params}, x_btd, None, reset_bt)
            return jnp.sum(y_btd**2 * frames(4, CHUNK))

        return jax.value_and_grad(loss)(params)

    plain = gradient(stack, variables["params"])
    again = gradient(stack.clone(remat=True), variables["params"])
    close(again, plain, 1e-4)
    taps = [b["conv"]["kernel"] for b in plain[1].values() if "conv" in b]
    assert len(taps) == 1 and np.abs(taps[0]).max() > 1e-4


def test_a_window_holds_all_that_its_convolution_sees():
    stack, variables, run = initialized("fnet/conv", 1, 4)
    fresh = stack.apply(variables, BATCH, method="initial_state")
    x_btd, never = frames(1, CHUNK), np.zeros((BATCH, CHUNK), bool)
    before, _ = run(variables, x_btd, fresh, never)
    changed = x_btd.copy()
    changed[:, 1] *= -2
    after, _ = run(variables, changed, fresh, never)
    moved = np.abs(after - before).max((0, 2)) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(moved), [1, 2, 3, 4])


def test_bfloat16_keeps_inputs_in_float32():
    stack = stack_of("swa/conv", depth=1, dtype=jnp.bfloat16)
    x_btd = jnp.asarray(frames(1), jnp.bfloat16)
    (y_btd, state), _ = jax.eval_shape(stack.init_with_output, jax.random.key(0), x_btd)
    assert y_btd.dtype == jnp.bfloat16 and state[0].conv.dtype == jnp.float32


def test_a_state_without_inputs_does_not_fit():
    stack, variables, _ = initialized("gru/conv", depth=1)
    state = stack_of("gru", depth=1).apply({}, BATCH, method="initial_state")
    with pytest.raises(InputError, match="another backbone than gru/conv; make it"):
        stack.apply(variables, frames(1), state)


@pytest.mark.parametrize("name", rows(CONVOLVED))
def test_without_taps_chunks_and_steps_agree(name):
    case = initialized(f"{name}/noconv", 1)
    agree(case)
    leaves = jax.tree_util.tree_leaves_with_path(case[1]["params"])
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    taps = [x for k, x in named.items() if k.endswith(("conv']['kernel']", "shift']"))]
    assert taps and {len(kernel) for kernel in taps} == {1}


def test_rows_with_a_short_convolution_can_be_without():
    assert len(CONVOLVED) > 10
    for name in CONVOLVED:
        assert "taps" in field_names(mixer_class(ROWS[name].mixer))


def test_one_tap_sees_one_frame():
    module, x_btd = ShortConvolution(WIDTH, taps=1), frames(1)
    params = draw(module, x_btd)["params"]
    y_btd, state = module.apply({"params": params}, x_btd, None, resets())
    expected = x_btd * np.asarray(params["kernel"])[None] + np.asarray(params["bias"])
    np.testing.assert_allclose(y_btd, expected, 1e-6, 1e-6)
    assert state.shape == module.initial_state(BATCH).shape == (BATCH, 0, WIDTH)
    with pytest.raises(InputError, match="taps=0 must be at least 1"):
        ShortConvolution(WIDTH, taps=0).init(jax.random.key(0), x_btd)
