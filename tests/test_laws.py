"""The laws, held by every mixer the table has, bare and narrow.

The list is read from the table: a new row, or a new kind of options of an old mixer, is
tested by being in it. What a mixer cannot do is in `WAIVERS`, with the reason, and must
then really fail. Whole stacks, row by row, are `test_backbones`'s, before a release.
"""

from __future__ import annotations

import functools
import zlib

import pytest
from laws import BACKWARD, FORWARD, Case

from jaxbench.models.backbone import resolve
from jaxbench.models.block import mixer_class, takes_lower
from jaxbench.models.build import build_stack
from jaxbench.models.row import CHANNELS
from jaxbench.models.zoo import ROWS

WIDTH = 16
# (mixer, law) -> why it does not hold.
WAIVERS: dict[tuple[str, str], str] = {
    ("bayesian:BayesianMLP", "gradient"): "widths learn from noise, which is off here",
    ("zamba:SharedAttention", "typed"): "2 D wide, for the layer above",
    ("zamba:SharedAttention", "order"): "without positions: a set of frames",
    **{
        (f"attention:SlidingWindowAttention,{kind}rotary=0.0", "order"): (
            "without positions one layer sees a set of frames"
        )
        for kind in ("", "qk_norm=True,", "bias=True,")
    },
}


def kinds() -> dict[str, tuple]:
    """One entry for each mixer and kind of options; numbers above 0 are one kind."""
    found: dict[str, tuple] = {}
    for name, row in ROWS.items():
        window = name if row.streams == "window" else ""
        for layer in resolve(name).elements:
            parts = [(layer.mixer, layer.options, layer.temporal)]
            if layer.channel != "none":
                channel = CHANNELS[layer.channel]
                parts.append((channel.mixer, layer.channel_options, channel.temporal))
            for mixer, options, temporal in parts:
                kind = [o for o in options if isinstance(o[1], (bool, str)) or not o[1]]
                label = ",".join([mixer, *(f"{k}={v}" for k, v in kind)])
                found.setdefault(label, (mixer, options, temporal, window))
    return found


KINDS = kinds()


# Laws of one mixer follow each other, and its programs go with it.
@functools.lru_cache(maxsize=1)
def case_of(label: str) -> Case:
    mixer, options, temporal, window = KINDS[label]
    seed = zlib.crc32(label.encode())
    if window:
        # Windows are cut by the stack, not by the mixer.
        stack = build_stack(f"{window}*1", width=WIDTH)
        return Case(stack, seed=seed, temporal=temporal)
    made = mixer_class(mixer)
    module = made(WIDTH, **dict(options))
    return Case(module, seed=seed, temporal=temporal, lower=takes_lower(made))


def pairs():
    for label in KINDS:
        first = next(k for k in KINDS if KINDS[k][0] == KINDS[label][0]) == label
        for law in FORWARD | BACKWARD:
            reason = WAIVERS.get((label, law))
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            # Other options of a mixer, and all gradients, before a change lands.
            if law in BACKWARD or not first:
                marks.append(pytest.mark.integration)
            yield pytest.param(label, law, marks=marks, id=f"{label}-{law}")


@pytest.mark.parametrize(("label", "law"), list(pairs()))
def test_law(label, law):
    (FORWARD | BACKWARD)[law](case_of(label))


def test_waivers_name_mixers_and_laws_that_exist():
    for label, law in WAIVERS:
        assert label in KINDS and law in FORWARD | BACKWARD
