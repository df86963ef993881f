"""The first report's five models: its parameter counts, and its functions.

Oracles are PyTorch modules with the same weights, and a float64 loop for DeltaNet.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from oracles import silu

from jaxbench.models.build import build_stack, sizes
from jaxbench.tasks.pentathlon.events import ORIGINALS

WIDTH, DEPTH, HEADS = 16, 3, 4
BATCH, LENGTH = 2, 11

# Published: token table, position table and layers, at width 256.
PARAMETERS = {
    ("mqar", "K32"): {
        "deltanet": 1_628_928,
        "lstm": 2_138_368,
        "gru": 1_612_032,
        "rope": 3_192_576,
        "vanilla": 3_225_344,
    },
    ("mqar", "K64"): {
        "deltanet": 1_661_696,
        "lstm": 2_171_136,
        "gru": 1_644_800,
        "rope": 3_225_344,
        "vanilla": 3_290_880,
    },
    ("flip_flop", "original"): {
        "deltanet": 1_598_976,
        "lstm": 2_108_416,
        "gru": 1_582_080,
        "rope": 3_162_624,
        "vanilla": 3_293_696,
    },
    ("knapsack", "original"): {
        "deltanet": 2_644_480,
        "lstm": 3_153_920,
        "gru": 2_627_584,
        "rope": 4_208_128,
        "vanilla": 4_339_200,
    },
}


@pytest.mark.parametrize("model", PARAMETERS["mqar", "K32"])
def test_parameters_are_those_of_the_report(model):
    of_stack, _ = sizes(f"{model}_report", 256)
    for (task, law), counts in PARAMETERS.items():
        event = ORIGINALS[task]()
        rows = event.laws[law].vocabulary
        if model == "vanilla":
            rows += event.laws[law].positions
        assert of_stack + 256 * rows == counts[model]


def built(name: str):
    """A stack with no parameter at its initial value, and frames."""
    stack = build_stack(name, width=WIDTH, depth=DEPTH)
    rng = np.random.default_rng(3)
    x_btd = rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    variables = draw(stack, x_btd)
    y_btd, _ = jax.jit(stack.apply)(variables, x_btd)
    return variables["params"], x_btd, np.asarray(y_btd)


@pytest.mark.parametrize("name", ["lstm_report", "gru_report"])
def test_cells_are_stacked_as_pytorch_stacks_them(name):
    torch = pytest.importorskip("torch")
    params, x_btd, y_btd = built(name)
    assert set(params) == {f"blocks_{i}" for i in range(DEPTH)}
    kind = torch.nn.LSTM if name == "lstm_report" else torch.nn.GRU
    twin = kind(WIDTH, WIDTH, DEPTH, batch_first=True)
    weights = {}
    for index in range(DEPTH):
        mixer = params[f"blocks_{index}"]["mixer"]
        second = mixer["recurrent_bias"]
        if name == "gru_report":
            second = np.append(second, mixer["bias_n"])
        weights |= {
            f"weight_ih_l{index}": mixer["project"]["kernel"].T,
            f"weight_hh_l{index}": mixer["recurrent"].T,
            f"bias_ih_l{index}": mixer["project"]["bias"],
            f"bias_hh_l{index}": second,
        }
    load(torch, twin, weights)
    with torch.no_grad():
        expected, _ = twin(torch.from_numpy(x_btd))
    np.testing.assert_allclose(y_btd, expected.numpy(), atol=5e-6)


def load(torch, module, weights):
    """Copies all weights of a module; none may be left over on either side."""
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    module.load_state_dict(state, strict=True)


def torch_block(torch, rotate: bool):
    """A pre-norm block with a causal mask, written from the report's description."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = torch.nn.LayerNorm(WIDTH, eps=1e-6)
            self.norm2 = torch.nn.LayerNorm(WIDTH, eps=1e-6)
            self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
            self.out = torch.nn.Linear(WIDTH, WIDTH)
            self.up = torch.nn.Linear(WIDTH, 4 * WIDTH)
            self.down = torch.nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            q, k, v = (
                part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
            )
            if rotate:
                q, k = rotated(torch, q), rotated(torch, k)
            o = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True
            )
            x = x + self.out(o.transpose(1, 2).flatten(-2))
            return x + self.down(torch.nn.GELU()(self.up(self.norm2(x))))

    return Block()


def rotated(torch, x_bhtk):
    """The pair (x_i, x_{i + K/2}) as a complex number, turned by t * 10000^(-2i/K)."""
    half = x_bhtk.shape[-1] // 2
    rate = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x_bhtk.shape[2])[:, None] * rate[None]
    turned = torch.polar(torch.ones_like(angle), angle)
    z = torch.complex(x_bhtk[..., :half].double(), x_bhtk[..., half:].double()) * turned
    return torch.cat([z.real, z.imag], dim=-1).float()


@pytest.mark.parametrize("name", ["rope_report", "vanilla_report"])
def test_transformers_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    params, x_btd, y_btd = built(name)
    x = torch.from_numpy(x_btd)
    with torch.no_grad():
        for index in range(DEPTH):
            block = params[f"blocks_{index}"]
            twin = torch_block(torch, rotate=name == "rope_report")
            weights = {}
            for theirs, ours in {
                "qkv": block["mixer"]["qkv"],
                "out": block["mixer"]["out"],
                "up": block["channel"]["in"],
                "down": block["channel"]["out"],
            }.items():
                weights[f"{theirs}.weight"] = ours["kernel"].T
                weights[f"{theirs}.bias"] = ours["bias"]
            for theirs, ours in {
                "norm1": block["mixer_norm"],
                "norm2": block["channel_norm"],
            }.items():
                weights[f"{theirs}.weight"] = ours["scale"]
                weights[f"{theirs}.bias"] = ours["bias"]
            load(torch, twin, weights)
            x = twin(x)
        last = torch.nn.LayerNorm(WIDTH, eps=1e-6)
        load(
            torch,
            last,
            {"weight": params["norm"]["scale"], "bias": params["norm"]["bias"]},
        )
        expected = last(x).numpy()
    np.testing.assert_allclose(y_btd, expected, atol=2e-5)


def convolved(x_td: np.ndarray, kernel_wd: np.ndarray) -> np.ndarray:
    taps = len(kernel_wd)
    return np.array(
        [
            sum(
                kernel_wd[taps - 1 - age] * x_td[t - age]
                for age in range(min(taps, t + 1))
            )
            for t in range(len(x_td))
        ]
    )


def delta_layer(params, x_td: np.ndarray) -> np.ndarray:
    """x + W_out RMSNorm(o), in float64, one token and one head after the other."""
    norm, mixer = params["mixer_norm"], params["mixer"]
    mixer = {**mixer, **mixer["_Inputs_0"]}
    mean, deviation = x_td.mean(1, keepdims=True), x_td.std(1, keepdims=True)
    # 1e-6 is added to the variance.
    u_td = (x_td - mean) / np.sqrt(deviation**2 + 1e-6) * norm["scale"] + norm["bias"]
    q_td, k_td, v_te = (
        silu(convolved(u_td @ mixer[part]["kernel"], mixer[f"{part}_conv"]["kernel"]))
        for part in ("query", "key", "value")
    )
    beta_th = 1 / (1 + np.exp(-(u_td @ mixer["beta"]["kernel"])))
    o_te = np.zeros((len(x_td), 2 * WIDTH))
    keys, values = WIDTH // HEADS, 2 * WIDTH // HEADS
    for h in range(HEADS):
        of_keys, of_values = (
            slice(keys * h, keys * (h + 1)),
            slice(values * h, values * (h + 1)),
        )
        state_vk = np.zeros((values, keys))
        for t in range(len(x_td)):
            q, k, v = q_td[t, of_keys], k_td[t, of_keys], v_te[t, of_values]
            q, k = (z / np.sqrt((z**2).sum() + 1e-6) for z in (q, k))
            state_vk = state_vk @ (np.eye(keys) - beta_th[t, h] * np.outer(k, k))
            state_vk += beta_th[t, h] * np.outer(v, k)
            o = state_vk @ q / np.sqrt(keys)
            o /= np.sqrt((o**2).mean() + 1e-5)
            o_te[t, of_values] = o * mixer["head_norm"]["scale"]
    return x_td + o_te @ mixer["out"]["kernel"]


def test_deltanet_is_a_loop_over_tokens_with_no_norm_at_the_end():
    params, x_btd, y_btd = built("deltanet_report")
    assert set(params) == {f"blocks_{i}" for i in range(DEPTH)}
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    for x_td, y_td in zip(x_btd.astype(np.float64), y_btd, strict=True):
        for index in range(DEPTH):
            x_td = delta_layer(params[f"blocks_{index}"], x_td)
        np.testing.assert_allclose(y_td, x_td, rtol=2e-4, atol=2e-5)


def test_options_of_the_report_are_off_elsewhere():
    """A stack of another row has the parameters it had without them."""
    x_btd = jnp.zeros((1, 2, WIDTH))
    kept = {
        "deltanet": {"_Inputs_0", "beta", "head_norm", "out"},
        "lstm": {"project", "recurrent"},
        "gru": {"bias_n", "project", "recurrent"},
        "swa": {"out", "qkv"},
    }
    for name, wanted in kept.items():
        stack = build_stack(name, width=WIDTH, depth=1)
        params = jax.eval_shape(stack.init, jax.random.key(0), x_btd)["params"]
        assert set(params) == {"blocks_0", "norm"}
        mixer = params["blocks_0"]["mixer"]
        assert set(mixer) == wanted
        if name == "swa":
            assert all("bias" not in dense for dense in mixer.values())
        if name == "deltanet":
            inputs = mixer["_Inputs_0"]
            assert inputs["value"]["kernel"].shape == (WIDTH, WIDTH)
            assert "bias" in inputs["value_conv"]


def test_a_hybrid_ends_in_the_norm_of_its_last_layer():
    x_btd = jnp.zeros((1, 2, WIDTH))
    for text, ends in {
        "swa+deltanet_report": False,
        "deltanet_report+swa": True,
        "lstm_report": False,
    }.items():
        stack = build_stack(text, width=WIDTH)
        params = jax.eval_shape(stack.init, jax.random.key(0), x_btd)["params"]
        assert ("norm" in params) == ends, text
