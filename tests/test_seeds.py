"""A seed counts with all its bits, or it is refused: everywhere the same."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from policies import make_model

from jaxbench.bench.suite.plan import parse_seeds
from jaxbench.errors import InputError
from jaxbench.serving.match import schedule
from jaxbench.serving.policy import Policy
from jaxbench.serving.speculative import Decoder
from jaxbench.serving.writing import Writer
from jaxbench.tasks.rules import LARGEST, seed

TAKERS = {
    "rule": lambda s: seed("seed", s),
    "suite": lambda s: parse_seeds(f"{s},"),
    "match": lambda s: schedule(games=2, seconds=1, seed=s),
    "policy": lambda s: Policy.of(*make_model("gru"), window=8, seed=s),
    "writer": lambda s: Writer(None, {}, seed=s),
    "decoder": lambda s: Decoder((), None, seed=s),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("bad", [-1, LARGEST + 1, 2**32, 2**32 + 7, 2**63, 2**70])
def test_more_bits_than_count_are_refused(taker, bad):
    with pytest.raises(InputError, match=rf"seed.*={bad} must be from 0 to {LARGEST}"):
        TAKERS[taker](bad)


def test_every_bit_of_a_seed_that_is_taken_counts():
    seeds = [0, *(2**n for n in range(31)), LARGEST]
    assert all(seed("seed", s) is None for s in seeds)
    keys = {tuple(np.asarray(jax.random.key_data(jax.random.key(s)))) for s in seeds}
    assert len(keys) == len(seeds)
