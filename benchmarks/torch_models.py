"""The PyTorch side of `against_torch.py`: the same models from PyTorch's own parts.

Modules carry the names of ours, so that weights and gradients map by name: matrices are
transposed, everything else has our shape. One exception: `nn.GRU` has three recurrent
biases where ours has one. The first two, which do what the input's biases do already,
stay zero: their gradient is cut.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch_mixers
from torch import Tensor, nn
from torch.nn import functional

from jaxbench.models.backbone import Layer, resolve

# The forms to try, the best of which is timed.
MIXERS = {
    "recurrent:GRU": ("nn.GRU",),
    "s4:S4D": ("toeplitz", "fft"),
    **{name: forms for name, (_, forms) in torch_mixers.MIXERS.items()},
}
NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Classifier(nn.Module):
    """Linear, blocks, norm, Linear on the last frame.

    Args:
      layers: what to build, from `Backbone.layers`.
      width: model width D.
      features, classes: widths of the input and the logits.
      states: N/2 of S4D.
      hidden: of the channel mixer, 0 where there is none.
      form: one of the mixer's in `MIXERS`.

    Raises:
      ValueError: a layer this file does not build.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        *,
        width: int,
        features: int,
        classes: int,
        states: int,
        hidden: int,
        form: str,
    ):
        super().__init__()
        self.encoder = nn.Linear(features, width)
        self.stack = nn.ModuleDict(
            {
                f"blocks_{index}": Block(layer, index, width, states, hidden, form)
                for index, layer in enumerate(layers)
            }
        )
        self.stack["norm"] = NORMS[layers[-1].norm_after](width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x_btf: Tensor) -> Tensor:
        """Maps [B, T, F] to logits [B, classes]."""
        x_btd = self.encoder(x_btf)
        *blocks, norm = self.stack.values()
        lowest: dict[str, Tensor] = {}
        for block in blocks:
            x_btd = block(x_btd, lowest, last_only=block is blocks[-1])
        return self.head(norm(x_btd)[:, 0])


class Block(nn.Module):
    """x + mixer(norm(x)), then x + channel(norm(x)); see `jaxbench.models.block`."""

    def __init__(
        self,
        layer: Layer,
        index: int,
        width: int,
        states: int,
        hidden: int,
        form: str,
    ):
        super().__init__()
        if (
            layer.mixer not in MIXERS
            or layer.channel not in ("mlp", "glu", "rwkv7", "none")
            or layer.norm not in NORMS
            or (layer.join, layer.shared) != ("residual", False)
        ):
            raise ValueError(f"no PyTorch form of {layer}")
        norm = NORMS[layer.norm]
        self.mixer_norm = norm(width, eps=1e-6)
        if layer.mixer == "s4:S4D":
            self.mixer: nn.Module = S4D(width, states, CONVOLUTIONS[form])
        elif layer.mixer == "recurrent:GRU":
            self.mixer = GRU(width)
        else:
            options = dict(layer.options) | {"layer": index}
            self.mixer = torch_mixers.MIXERS[layer.mixer][0](width, options, form)
        self.has_channel = layer.channel != "none"
        if self.has_channel:
            self.channel_norm = norm(width, eps=1e-6)
        options = dict(layer.channel_options)
        if layer.channel == "mlp":
            self.channel: nn.Module = MLP(width)
        elif layer.channel == "glu":
            self.channel = torch_mixers.GLU(width, options, hidden)
        elif layer.channel == "rwkv7":
            self.channel = torch_mixers.RWKV7Channel(width, options, hidden)
        self.late = layer.channel == "rwkv7"
        self.takes_lowest = layer.mixer == "rwkv7:TimeMix"

    def forward(
        self, x_btd: Tensor, lowest: dict[str, Tensor], last_only: bool
    ) -> Tensor:
        """Runs the layer; like ours it narrows to one frame as soon as it can."""
        y_btd = self.mixer_norm(x_btd)
        y_btd = self.mixer(y_btd, lowest) if self.takes_lowest else self.mixer(y_btd)
        if last_only and not self.late:
            x_btd, y_btd = x_btd[:, -1:], y_btd[:, -1:]
        x_btd = x_btd + y_btd
        if self.has_channel:
            x_btd = x_btd + self.channel(self.channel_norm(x_btd))
        return x_btd[:, -1:] if last_only else x_btd


class MLP(nn.ModuleDict):
    """Linear to four times the width, GELU, Linear back."""

    def __init__(self, width: int):
        super().__init__(
            {"in": nn.Linear(width, 4 * width), "out": nn.Linear(4 * width, width)}
        )

    def forward(self, x_btd: Tensor) -> Tensor:
        """Maps each frame by itself."""
        return self["out"](functional.gelu(self["in"](x_btd), approximate="tanh"))


class GRU(nn.GRU):
    """The fused `nn.GRU` with as many free parameters as ours."""

    def __init__(self, width: int):
        super().__init__(width, width, batch_first=True)
        free = torch.zeros(3 * width)
        free[2 * width :] = 1
        self.bias_hh_l0.register_hook(lambda gradient: gradient * free.to(gradient))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        return super().forward(x_btd)[0]


class S4D(nn.Module):
    """A diagonal state space for each channel, then a GLU; see `jaxbench.mixers.s4`.

    The kernel is made in real arithmetic (a third of the time of complex exponentials
    in eager PyTorch): k_l = 2 Re sum_n C_n Bbar_n exp(l dt A_n).
    """

    def __init__(
        self, width: int, states: int, convolve: Callable[[Tensor, Tensor], Tensor]
    ):
        super().__init__()
        for name in ("c_re", "c_im", "ssm_log_decay", "ssm_frequency"):
            self.register_parameter(name, nn.Parameter(torch.zeros(width, states)))
        self.ssm_log_dt = nn.Parameter(torch.zeros(width))
        self.ssm_d = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.convolve = convolve

    def forward(self, u_btd: Tensor) -> Tensor:
        """Mixes [B, T, D] along time."""
        kernel_dl = self.kernel(u_btd.shape[1])
        y_btd = self.convolve(u_btd, kernel_dl) + self.ssm_d * u_btd
        y_btd = functional.gelu(y_btd)
        return self.out(y_btd) * torch.sigmoid(self.gate(y_btd))

    def kernel(self, length: int) -> Tensor:
        """The impulse response [D, L] without the skip D."""
        dt_d1 = self.ssm_log_dt.clamp(math.log(1e-4), 0.0).exp()[:, None]
        a_re, a_im = -self.ssm_log_decay.exp(), self.ssm_frequency
        z_re, z_im = dt_d1 * a_re, dt_d1 * a_im
        # exp(z) - 1 without cancellation, over A, times 2 C.
        grown, sine = torch.expm1(z_re), torch.sin(z_im / 2)
        hold_re = grown * torch.cos(z_im) - 2 * sine * sine
        hold_im = (grown + 1) * torch.sin(z_im)
        scale = 2 / (a_re * a_re + a_im * a_im)
        b_re = (hold_re * a_re + hold_im * a_im) * scale
        b_im = (hold_im * a_re - hold_re * a_im) * scale
        w_re = self.c_re * b_re - self.c_im * b_im
        w_im = self.c_re * b_im + self.c_im * b_re
        frame_l = torch.arange(length, dtype=z_re.dtype, device=z_re.device)
        size_dnl = torch.exp(z_re[..., None] * frame_l)
        angle_dnl = z_im[..., None] * frame_l
        real_d1l = w_re[:, None] @ (size_dnl * torch.cos(angle_dnl))
        imaginary_d1l = w_im[:, None] @ (size_dnl * torch.sin(angle_dnl))
        return (real_d1l - imaginary_d1l)[:, 0]


def convolve_toeplitz(u_btd: Tensor, kernel_dl: Tensor) -> Tensor:
    """Causal convolution as one [B, T] x [T, T] product for each channel."""
    width, length = kernel_dl.shape
    rows = functional.pad(kernel_dl, (0, length)).repeat(1, length)
    rows = rows[:, : length * (2 * length - 1)].reshape(width, length, 2 * length - 1)
    # Contiguous operands: `bmm` on views takes twice the time.
    matrix_dst = rows[:, :, :length].contiguous()
    return torch.bmm(u_btd.permute(2, 0, 1).contiguous(), matrix_dst).permute(1, 2, 0)


def convolve_fft(u_btd: Tensor, kernel_dl: Tensor) -> Tensor:
    """Causal convolution by FFT."""
    length = kernel_dl.shape[1]
    size = 1 << (2 * length - 1).bit_length()
    u_bdf = torch.fft.rfft(u_btd.transpose(1, 2), size)
    y_bdt = torch.fft.irfft(u_bdf * torch.fft.rfft(kernel_dl, size), size)
    return y_bdt[..., :length].transpose(1, 2)


CONVOLUTIONS = {"toeplitz": convolve_toeplitz, "fft": convolve_fft}


class Trainer:
    """A model, its optimizer and one batch on the device.

    Args:
      backbone: a row of the zoo whose mixer is in `MIXERS`.
      depth: of the stack.
      x_btf, label_b: the batch, float32 and int.
      adamw: learning_rate, b1, b2, eps and weight_decay, for all parameters alike.
      parameters: ours, by path; they also say how wide everything is.
      form: one of the mixer's in `MIXERS`.
      compiled: whether forward and backward pass go through `torch.compile`.

    Raises:
      ValueError: the parameters are not those of this model.
    """

    def __init__(
        self,
        backbone: str,
        *,
        depth: int,
        x_btf: np.ndarray,
        label_b: np.ndarray,
        adamw: Mapping[str, float],
        parameters: Mapping[str, np.ndarray],
        form: str,
        compiled: bool = False,
    ):
        self.form = f"{form}, {'torch.compile' if compiled else 'eager'}"
        target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        features, width = parameters["encoder/kernel"].shape
        states = parameters.get("stack/blocks_0/mixer/c_re", np.zeros((1, 1)))
        hidden = parameters.get("stack/blocks_0/channel/out/kernel", np.zeros((0, 1)))
        self.model = Classifier(
            resolve(backbone).layers(depth),
            width=width,
            features=features,
            classes=parameters["head/bias"].size,
            states=states.shape[1],
            hidden=hidden.shape[0],
            form=form,
        ).to(target)
        self._forward = torch.compile(self.model) if compiled else self.model
        self._batch = (
            torch.tensor(x_btf, device=target),
            torch.tensor(label_b, dtype=torch.int64, device=target),
        )
        self._adamw = adamw
        self._initial = dict(parameters)
        self.reset()

    def reset(self) -> None:
        """Goes back to the parameters it was built with and a new optimizer."""
        named = {
            _path(name): (name, tensor)
            for name, tensor in self.model.named_parameters()
        }
        if named.keys() != self._initial.keys():
            odd = sorted(named.keys() ^ self._initial.keys())
            raise ValueError(f"parameters of one side only: {', '.join(odd)}")
        with torch.no_grad():
            for path, (name, tensor) in named.items():
                value = _to_torch(name, self._initial[path])
                if value.shape != tensor.shape:
                    raise ValueError(
                        f"{path}: {value.shape}, not {tuple(tensor.shape)}"
                    )
                tensor.copy_(torch.tensor(value))
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self._adamw["learning_rate"],
            betas=(self._adamw["b1"], self._adamw["b2"]),
            eps=self._adamw["eps"],
            weight_decay=self._adamw["weight_decay"],
            fused=True,
        )

    def loss_and_gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Computes the loss of the batch and its gradients, by our paths."""
        loss = self._backward()
        gradients = {
            _path(name): _to_ours(name, tensor.grad.cpu().numpy())
            for name, tensor in self.model.named_parameters()
        }
        return float(loss.detach()), gradients

    def run(self, steps: int) -> float:
        """Makes `steps` >= 1 updates and waits for them; returns the last one's loss.

        The loss is the one before that update.
        """
        for _ in range(steps):
            loss = self._backward()
            self._optimizer.step()
        if loss.is_cuda:
            torch.cuda.synchronize()
        return float(loss.detach())

    def _backward(self) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        x_btf, label_b = self._batch
        loss = functional.cross_entropy(self._forward(x_btf), label_b)
        loss.backward()
        return loss


def build(backbone: str, *, compiled: bool, depth: int, **arguments: Any) -> Trainer:
    """Builds the fastest `Trainer`: the best eager form or, if asked, it compiled.

    Where `torch.compile` fails the eager form stays, and its name says why.
    """
    make = functools.partial(Trainer, backbone, depth=depth, **arguments)
    mixer = resolve(backbone).layers(depth)[0].mixer
    candidates = [make(form=form) for form in MIXERS[mixer]]
    best = min(candidates, key=_seconds_of_a_step)
    if compiled:
        candidate = make(form=best.form.split(",")[0], compiled=True)
        try:
            best = min((best, candidate), key=_seconds_of_a_step)
        except Exception as error:  # It needs a C++ compiler, and fails in many ways.
            best.form += f" (torch.compile: {type(error).__name__})"
    best.reset()
    return best


def device() -> tuple[str, str]:
    """Returns "cpu" or the kind of accelerator, and the name of the device."""
    if torch.cuda.is_available():
        return "gpu", f"torch {torch.__version__} on {torch.cuda.get_device_name()}"
    return "cpu", f"torch {torch.__version__} on cpu"


def use_threads(count: int) -> None:
    """Sets the threads of one operator; operators run one after the other."""
    torch.set_num_threads(count)
    torch.set_num_interop_threads(1)


def _seconds_of_a_step(trainer: Trainer) -> float:
    """The least of five steps after two, on the clock the device is judged by."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    trainer.run(2)
    seconds = []
    for _ in range(5):
        start = clock()
        trainer.run(1)
        seconds.append(clock() - start)
    return min(seconds)


# PyTorch's names of a parameter, where they are not ours.
_NAMES = {
    "weight_ih_l0": "project.kernel",
    "bias_ih_l0": "project.bias",
    "weight_hh_l0": "recurrent",
    "bias_hh_l0": "bias_n",
}


def _path(name: str) -> str:
    """Our path of the parameter PyTorch calls `name`."""
    module, _, leaf = name.rpartition(".")
    if leaf == "weight":
        leaf = "scale" if module.endswith("norm") else "kernel"
    return f"{module}.{_NAMES.get(leaf, leaf)}".replace(".", "/")


def _to_ours(name: str, value: np.ndarray) -> np.ndarray:
    leaf = name.rpartition(".")[2]
    if leaf == "bias_hh_l0":
        return value[-(value.size // 3) :]
    return value.T if leaf.startswith("weight") else value


def _to_torch(name: str, value: np.ndarray) -> np.ndarray:
    leaf = name.rpartition(".")[2]
    if leaf == "bias_hh_l0":
        return np.pad(value, (2 * value.size, 0))
    return value.T if leaf.startswith("weight") else value
