"""The mixers of the ten rows in eager PyTorch, each in the form that is fastest there.

Parameters have our names and, but for those of PyTorch's own modules, our shapes; see
`torch_models`. The mathematics is that of the docstrings in `jaxbench.mixers`; there
are no states and no resets here. Matrix states run as one chunk of all frames, decays
of keys split at the middle of the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class LSTM(nn.Module):
    """PyTorch's fused LSTM with one bias, as ours."""

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.zeros(4 * width, width))
        self.weight_hh_l0 = nn.Parameter(torch.zeros(4 * width, width))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(4 * width))
        self.register_buffer("no_bias", torch.zeros(4 * width))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        zero = x_btd.new_zeros(1, x_btd.shape[0], x_btd.shape[2])
        weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.no_bias)
        return torch.lstm(
            x_btd, (zero, zero), weights, True, 1, 0.0, self.training, False, True
        )[0]


class Attention(nn.Module):
    """Causal attention to all frames: the windows of `swa` and `transformer` hold them.

    `scaled_dot_product_attention`, rotary positions, heads of D / 4.
    """

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.heads = 4
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        batch, length, width = x_btd.shape
        qkv = self.qkv(x_btd).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        size = q.shape[-1]
        rate = 1e4 ** (-torch.arange(0, size, 2, device=q.device) / size)
        angle = torch.arange(length, device=q.device)[:, None] * rate
        cos, sin = torch.cos(angle), torch.sin(angle)

        def turn(x: Tensor) -> Tensor:
            first, second = x.chunk(2, -1)
            turned = (first * cos - second * sin, second * cos + first * sin)
            return torch.cat(turned, -1)

        o = functional.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        return self.out(o.transpose(1, 2).reshape(batch, length, width))


class Convolution(nn.Module):
    """Depthwise over the last four frames, as a sum of shifted products."""

    def __init__(self, width: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(4, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_bte: Tensor) -> Tensor:
        """Filters [B, T, E]."""
        taps, length = len(self.kernel), x_bte.shape[1]
        x = functional.pad(x_bte, (0, 0, taps - 1, 0))
        y = self.bias
        for tap in range(taps):
            y = y + x[:, tap : tap + length] * self.kernel[tap]
        return y


def diagonal_loop(a: Tensor, b: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t along axis 1, one frame after the other."""
    h, states = torch.zeros_like(b[:, 0]), []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = torch.addcmul(b_t, a_t, h)
        states.append(h)
    return torch.stack(states, 1)


def diagonal_doubling(a: Tensor, b: Tensor) -> Tensor:
    """As `diagonal_loop`, by log2 T sums over ever longer spans."""
    step = 1
    while step < b.shape[1]:
        b = torch.cat([b[:, :step], b[:, step:] + a[:, step:] * b[:, :-step]], 1)
        a = torch.cat([a[:, :step], a[:, step:] * a[:, :-step]], 1)
        step *= 2
    return b


DIAGONAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loop": diagonal_loop,
    "doubling": diagonal_doubling,
}


class Root(torch.autograd.Function):
    """sqrt(x) for x >= 0 with a derivative of at most 1000."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        """The root."""
        root = torch.sqrt(x)
        context.save_for_backward(root)
        return root

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        """Its bounded slope."""
        (root,) = context.saved_tensors
        return gradient / torch.clamp(2 * root, min=1e-3)


class Hawk(nn.Module):
    """The RG-LRU behind a short convolution; four blocks of gates."""

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.heads, self.scan = 4, DIAGONAL[form]
        block = width // self.heads
        self.project = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.conv = Convolution(width)
        for name in "ri":
            shape = (self.heads, block, block)
            self.register_parameter(f"{name}_kernel", nn.Parameter(torch.zeros(shape)))
            self.register_parameter(
                f"ssm_{name}_bias", nn.Parameter(torch.zeros(width))
            )
        self.ssm_lambda = nn.Parameter(torch.zeros(width))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        z, u = self.project(x_btd).chunk(2, -1)
        u = self.conv(u)
        r = torch.sigmoid(self._blocks(u, self.r_kernel) + self.ssm_r_bias)
        i = torch.sigmoid(self._blocks(u, self.i_kernel) + self.ssm_i_bias)
        log_a = -8 * functional.softplus(self.ssm_lambda) * r
        room = Root.apply(-torch.expm1(2 * log_a[:, 1:]))
        room = functional.pad(room, (0, 0, 1, 0), value=1.0)
        h = self.scan(torch.exp(log_a), room * i * u)
        return self.out(functional.gelu(z, approximate="tanh") * h)

    def _blocks(self, u: Tensor, kernel: Tensor) -> Tensor:
        heads = u.unflatten(-1, (self.heads, -1)).flatten(0, 1).transpose(0, 1)
        return torch.bmm(heads, kernel).transpose(0, 1).reshape(u.shape)


class Mamba(nn.Module):
    """The selective state space of Mamba-1: width 2 D, 16 states, rank D / 16."""

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        inner, self.rank, self.states = 2 * width, -(-width // 16), 16
        self.scan = DIAGONAL[form]
        self.project = nn.Linear(width, 2 * inner, bias=False)
        self.select = nn.Linear(inner, self.rank + 2 * self.states, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.conv = Convolution(inner)
        self.ssm_a_log = nn.Parameter(torch.zeros(inner, self.states))
        self.ssm_d = nn.Parameter(torch.zeros(inner))
        self.ssm_dt_kernel = nn.Parameter(torch.zeros(self.rank, inner))
        self.ssm_dt_bias = nn.Parameter(torch.zeros(inner))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        u, z = self.project(x_btd).chunk(2, -1)
        u = functional.silu(self.conv(u))
        sizes = [self.rank, self.states, self.states]
        delta, b, c = self.select(u).split(sizes, -1)
        dt = functional.softplus(delta @ self.ssm_dt_kernel + self.ssm_dt_bias)
        decay = torch.exp(dt[..., None] * -torch.exp(self.ssm_a_log))
        h = self.scan(decay, (dt * u)[..., None] * b[:, :, None])
        y = (h @ c[..., None])[..., 0] + self.ssm_d * u
        return self.out(y * functional.silu(z))


class Mamba2(nn.Module):
    """One decay for a head of 64 channels, 64 states, inner width 2 D."""

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.inner, self.states = 2 * width, 64
        self.heads = max(self.inner // 64, 1)
        mixed = self.inner + 2 * self.states
        self.project = nn.Linear(width, self.inner + mixed + self.heads, bias=False)
        self.out = nn.Linear(self.inner, width, bias=False)
        self.output_norm = nn.RMSNorm(self.inner, eps=1e-6)
        self.conv = Convolution(mixed)
        for name in ("ssm_dt_bias", "ssm_a_log", "ssm_d"):
            self.register_parameter(name, nn.Parameter(torch.zeros(self.heads)))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        sizes = [self.inner, self.inner + 2 * self.states, self.heads]
        z, u, dt = self.project(x_btd).split(sizes, -1)
        u = functional.silu(self.conv(u))
        u, b, c = u.split([self.inner, self.states, self.states], -1)
        dt = functional.softplus(dt + self.ssm_dt_bias)
        total = (-torch.exp(self.ssm_a_log) * dt).cumsum(1).transpose(1, 2)
        later = torch.ones(u.shape[1], u.shape[1], dtype=torch.bool, device=u.device)
        apart = total[..., :, None] - total[..., None, :]
        decay = torch.exp(apart.masked_fill(later.triu(1), -math.inf))
        heads = u.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        # Queries and keys are the same for all heads.
        scores = (c @ b.transpose(1, 2))[:, None] * decay
        o = scores @ (heads * dt.transpose(1, 2)[..., None])
        y = (o + self.ssm_d[:, None, None] * heads).transpose(1, 2).reshape(u.shape)
        return self.out(self.output_norm(y * functional.silu(z)))


def head_major(x_bte: Tensor, heads: int) -> Tensor:
    """[B, T, H K] as [B, H, T, K]."""
    return x_bte.unflatten(-1, (heads, -1)).transpose(1, 2)


def merged(x_bhtv: Tensor) -> Tensor:
    """[B, H, T, V] as [B, T, H V]."""
    return x_bhtv.transpose(1, 2).flatten(2)


class GLA(nn.Module):
    """Gated linear attention: four heads, keys half as wide as the model."""

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.heads = 4
        keys = width // 2
        self.query = nn.Linear(width, keys, bias=False)
        self.key = nn.Linear(width, keys, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.decay_down = nn.Linear(width, 16, bias=False)
        self.decay_up = nn.Linear(16, keys)
        self.head_norm = nn.RMSNorm(width // self.heads, eps=1e-6)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        q, k, v = (
            head_major(project(x_btd), self.heads)
            for project in (self.query, self.key, self.value)
        )
        logit = head_major(self.decay_up(self.decay_down(x_btd)), self.heads)
        total = (functional.logsigmoid(logit) / 16).cumsum(2)
        total = total - (total[:, :, -1:] / 2).detach()
        rows = q * torch.exp(total) * q.shape[-1] ** -0.5
        o = (rows @ (k * torch.exp(-total)).transpose(2, 3)).tril() @ v
        o = merged(self.head_norm(o))
        return self.out(o * functional.silu(self.gate(x_btd)))


def unit(x: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(sum x^2 + epsilon) over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + epsilon)


def solved(m: Tensor, r: Tensor) -> Tensor:
    """(I - M)^-1 R for strictly lower M."""
    return torch.linalg.solve_triangular(-m, r, upper=False, unitriangular=True)


class DeltaNet(nn.Module):
    """The delta rule on convolved keys of length 1, four heads."""

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.heads = 4
        self._Inputs_0 = nn.ModuleDict()
        for name in ("query", "key", "value"):
            self._Inputs_0[name] = nn.Linear(width, width, bias=False)
            self._Inputs_0[f"{name}_conv"] = Convolution(width)
        self.beta = nn.Linear(width, self.heads, bias=False)
        self.head_norm = nn.RMSNorm(width // self.heads, eps=1e-6)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        parts = self._Inputs_0
        q, k, v = (
            head_major(
                functional.silu(parts[f"{name}_conv"](parts[name](x_btd))), self.heads
            )
            for name in ("query", "key", "value")
        )
        q, k = unit(q, 1e-6) * q.shape[-1] ** -0.5, unit(k, 1e-6)
        beta = torch.sigmoid(self.beta(x_btd)).transpose(1, 2)[..., None]
        # u_t = beta_t (v_t - k_t^T S_{t-1}): what each frame adds along its key.
        m = -(beta * (k @ k.transpose(2, 3))).tril(-1)
        u = solved(m, beta * v)
        o = (q @ k.transpose(2, 3)).tril() @ u
        return self.out(merged(self.head_norm(o)))


class RWKV7(nn.Module):
    """The time mixing of RWKV-7; see `jaxbench.mixers.rwkv7`."""

    SHIFTS = ("receptance", "decay", "key", "value", "rate", "gate")

    def __init__(self, width: int, options: dict, form: str):
        super().__init__()
        self.heads = max(width // 64, 1)
        self.first = options["layer"] == 0
        for name in self.SHIFTS:
            self._add(f"shift_{name}", width)
        for name in ("receptance", "key", "value", "out"):
            self.add_module(name, nn.Linear(width, width, bias=False))
        ranks = {"decay": 32, "rate": 32, "gate": 64}
        if not self.first:
            ranks["share"] = 32
            self._add("share_bias", width)
        for name, rank in ranks.items():
            self._add(f"{name}_down", width, rank)
            self._add(f"{name}_up", rank, width)
        for name in ("ssm_decay", "rate_bias", "key_removed", "key_rate"):
            self._add(name, width)
        self._add("bonus", self.heads, width // self.heads)
        self.head_norm = nn.ModuleDict(
            {"norm": nn.GroupNorm(self.heads, width, eps=1e-5 * (width // self.heads))}
        )

    def _add(self, name: str, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def _low(self, name: str, x: Tensor, activation: Callable | None = None) -> Tensor:
        low = x @ getattr(self, f"{name}_down")
        low = low if activation is None else activation(low)
        return low @ getattr(self, f"{name}_up")

    def forward(self, x_btd: Tensor, lowest: dict[str, Tensor]) -> Tensor:
        """Mixes [B, T, D] along time; the lowest layer puts its values in `lowest`."""
        step = functional.pad(x_btd, (0, 0, 1, 0))[:, :-1] - x_btd
        mixed = {
            name: torch.addcmul(x_btd, step, getattr(self, f"shift_{name}"))
            for name in self.SHIFTS
        }
        r, k = self.receptance(mixed["receptance"]), self.key(mixed["key"])
        v = self.value(mixed["value"])
        logit = self._low("decay", mixed["decay"], torch.tanh) + self.ssm_decay
        g = -math.exp(-0.5) * torch.sigmoid(logit)
        eta = torch.sigmoid(self._low("rate", mixed["rate"]) + self.rate_bias)
        gate = self._low("gate", mixed["gate"], torch.sigmoid)
        if self.first:
            lowest["v"] = v
        else:
            share = torch.sigmoid(self._low("share", mixed["value"]) + self.share_bias)
            v = v + (lowest["v"] - v) * share
        kappa = unit(head_major(k * self.key_removed, self.heads), 1e-12)
        k = k * (1 + (eta - 1) * self.key_rate)
        r, k, v, eta, g = (head_major(x, self.heads) for x in (r, k, v, eta, g))
        total = g.cumsum(2)
        middle = (total[:, :, -1:] / 2).detach()
        shrunk, grown = torch.exp(total - middle), torch.exp(middle - total)
        length = r.shape[2]
        rows = torch.cat([-kappa * torch.exp(total - g - middle), r * shrunk], 2)
        cols = torch.cat([k * grown, kappa * eta * grown], 2)
        scores = rows @ cols.transpose(2, 3)
        before, after = scores[:, :, :length], scores[:, :, length:]
        u = solved(before[..., length:].tril(-1), before[..., :length].tril(-1) @ v)
        o = after[..., :length].tril() @ v + after[..., length:].tril() @ u
        own = (r * k * self.bonus[:, None]).sum(-1, keepdim=True)
        flat = self.head_norm["norm"](merged(o).flatten(0, 1)).view(x_btd.shape)
        return self.out((flat + merged(own * v)) * gate)


MIXERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "recurrent:LSTM": (LSTM, ("torch.lstm",)),
    "attention:SlidingWindowAttention": (Attention, ("sdpa",)),
    "hawk:Hawk": (Hawk, ("loop", "doubling")),
    "mamba:Mamba": (Mamba, ("doubling", "loop")),
    "mamba2:Mamba2": (Mamba2, ("one chunk",)),
    "gla:GLA": (GLA, ("one chunk",)),
    "deltanet:DeltaNet": (DeltaNet, ("one chunk, solve",)),
    "rwkv7:TimeMix": (RWKV7, ("one chunk, solve",)),
}


class GLU(nn.Module):
    """W_out (act(W_gate x) * W_in x), SiLU or GELU."""

    def __init__(self, width: int, options: dict, hidden: int):
        super().__init__()
        self.gelu = options.get("activation") == "gelu"
        self.add_module("in", nn.Linear(width, 2 * hidden, bias=False))
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Maps each frame by itself."""
        gate, value = getattr(self, "in")(x_btd).chunk(2, -1)
        if self.gelu:
            return self.out(functional.gelu(gate, approximate="tanh") * value)
        return self.out(functional.silu(gate) * value)


class RWKV7Channel(nn.Module):
    """W_out ReLU(W_k (x + (x_{t-1} - x) * mu))^2."""

    def __init__(self, width: int, options: dict, hidden: int):
        super().__init__()
        self.shift_key = nn.Parameter(torch.zeros(width))
        self.key = nn.Linear(width, hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Maps each frame and the one before it."""
        step = functional.pad(x_btd, (0, 0, 1, 0))[:, :-1] - x_btd
        mixed = torch.addcmul(x_btd, step, self.shift_key)
        return self.out(functional.relu(self.key(mixed)).square())
