"""Byte-level language modelling: what is counted, what is scored, what is trained."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from recipes import recipe

from configs import pile
from jaxbench.bench import build
from jaxbench.bench.check import check_values
from jaxbench.data.corpus import Corpus
from jaxbench.errors import InputError
from jaxbench.models.build import build_stack, count_parameters
from jaxbench.models.model import Model
from jaxbench.serving.writing import SEPARATOR, Writer, check_prompt
from jaxbench.tasks.pile import entry, language
from jaxbench.tasks.pile.loss import byte_loss, summarize
from jaxbench.training.budget import read_budget
from jaxbench.training.loop import score
from jaxbench.training.programs import Placement, evaluation_batches
from jaxbench.training.step import make_evaluate_program

WINDOW = 16


def corpus(size: int = 4000, held_out: int = 1003) -> Corpus:
    generator = np.random.default_rng(0)
    text = generator.choice(
        np.frombuffer(b"abcde \x1e", np.uint8),
        size,
        p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.1, 0.05],
    )
    first = size - 2 * held_out
    splits = {
        "train": (0, first),
        "validation": (first, first + held_out),
        "test": (first + held_out, size),
    }
    return Corpus(text, splits, {"source": "corpus", "fingerprint": "0" * 64})


def task(**overrides):
    given = recipe("pile", **(dict(window=WINDOW) | overrides))
    return language.build(corpus(), given, 16, validation_bytes=0)


def drawn_model(made):
    """A model of the task and its variables."""
    stack = build_stack("gru", width=16, depth=1)
    model = Model(encoder=made.encoder, stack=stack, head=made.head, readout="all")
    batch = made.gather({}, jnp.asarray(made.splits["validation"][:2]))
    return model, jax.device_put(draw(model, batch))


# --- how much is scored ---------------------------------------------------------


@pytest.mark.parametrize(
    "text, limit, validations",
    [
        ("budget=10min", 2_000_000, None),
        ("budget=60s", 200_000, None),
        ("budget=1s", 100_000, None),
        ("budget=1h,validation_bytes=0", 12_000_000, None),
        ("budget=60s,evaluation_share=0", 2_000_000, None),
        ("budget=60s,validation_bytes=500", 500, None),
        # Passes of a third of an update, all together at most a fifth of the training.
        ("budget=50MB", 2_000_000, 10),
        ("budget=5MB", 300_000, 10),
        ("budget=5MB,evaluations=3", 1_000_000, 3),
        ("budget=1MB", 100_000, 6),
        ("budget=40kB", 100_000, 1),
        ("budget=40kB,evaluation_share=0", 2_000_000, 10),
    ],
)
def test_validations_are_in_proportion_to_the_budget(text, limit, validations):
    config = json.loads(pile.get_config(text).to_json())
    check_values(config)
    assert entry.validation_limit(config) == limit
    if validations is None:
        return
    budget = read_budget(
        config["train"]["budget"], batch_size=32, tokens_per_example=512
    )
    stage = SimpleNamespace(split="validation")
    task = SimpleNamespace(
        splits={"validation": range(-(-limit // 512))}, stages=[stage]
    )
    every = build.evaluate_every(config, budget, task)
    assert -(-budget.total // every) == min(validations, budget.total)


# --- every byte once -----------------------------------------------------------


@pytest.mark.parametrize("window", [1, 7, 16, 1002])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_held_out_byte_is_a_target_once(window, split):
    text = corpus()
    rows = task(window=window).splits[split]
    start, stop = text.splits[split]
    targets = rows[:, 1:]
    np.testing.assert_array_equal(targets[targets >= 0], text.bytes_n[start:stop])
    inputs = rows[:, :-1][targets >= 0]
    before = np.concatenate([[0x1E], text.bytes_n[start : stop - 1]])
    np.testing.assert_array_equal(inputs, before)


def test_the_score_counts_every_byte_of_the_file_and_is_its_likelihood():
    """Through the real evaluation program, padding and all, against a plain sum."""
    made = task()
    model, variables = drawn_model(made)
    programs = SimpleNamespace(
        update=SimpleNamespace(task=made),
        placement=Placement.over_all_devices(8),
        evaluate=jax.jit(make_evaluate_program(model, made)),
        evaluation_batch_size=8,
        batches_per_evaluation=3,
    )
    validation = evaluation_batches(made.splits["validation"], programs)
    state = SimpleNamespace(evaluation_variables=lambda: jax.device_put(variables))
    (metrics,) = score(state, {}, programs, validation)
    assert metrics["bytes"] == 1003

    total, apply = 0.0, jax.jit(model.apply)
    for row in made.splits["validation"]:
        length = int((row[1:] >= 0).sum())
        given = jnp.asarray(row[None, :length], jnp.int32)
        logits, _ = apply(variables, {"bytes_bt": given})
        p_tv = np.asarray(jax.nn.softmax(logits[0]), np.float64)
        np.testing.assert_allclose(p_tv.sum(-1), 1, rtol=1e-5)
        total -= np.log(p_tv[np.arange(length), row[1 : length + 1]]).sum()
    assert metrics["nats_per_byte"] == pytest.approx(total / 1003, rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(total / 1003 / math.log(2))


def test_probabilities_of_all_bytes_sum_to_one():
    made = task()
    model, variables = drawn_model(made)
    batch = made.gather({}, jnp.asarray(made.splits["validation"][:2]))
    logits, _ = jax.jit(model.apply)(variables, batch)
    assert logits.shape == (2, WINDOW, 256) and logits.dtype == jnp.float32
    sums = np.exp(np.asarray(logits, np.float64)).sum(-1)
    loss, _ = byte_loss(logits, batch | {"weight_b": jnp.ones(2)})
    chosen = np.take_along_axis(
        np.asarray(logits), np.asarray(batch["target_bt"])[..., None], -1
    )[..., 0]
    assert float(loss) == pytest.approx(float((np.log(sums) - chosen).mean()), rel=1e-5)


# --- oracle, constant, floors ----------------------------------------------------


def test_an_oracle_reaches_zero_and_the_floors_are_what_a_constant_scores():
    made = task()
    rows = jnp.asarray(made.splits["validation"])
    batch = made.gather({}, rows) | {"weight_b": jnp.ones(len(rows))}
    target = jnp.maximum(batch["target_bt"], 0)
    _, sums = byte_loss(1e4 * jax.nn.one_hot(target, 256), batch)
    oracle = summarize(jax.device_get(sums))
    assert oracle["nats_per_byte"] == 0 and oracle["accuracy"] == 1

    shape = (*target.shape, 256)
    _, sums = byte_loss(jnp.zeros(shape), batch)
    uniform = summarize(jax.device_get(sums))["nats_per_byte"]
    assert uniform == pytest.approx(made.floors["uniform"]["nats_per_byte"], rel=1e-5)
    counts = np.bincount(corpus().bytes_n[:1994], minlength=256) + 1.0
    logits = jnp.broadcast_to(jnp.log(counts / counts.sum()), shape)
    _, sums = byte_loss(logits, batch)
    unigram = summarize(jax.device_get(sums))
    floor = made.floors["unigram"]
    assert unigram["nats_per_byte"] == pytest.approx(floor["nats_per_byte"], rel=1e-5)
    assert unigram["accuracy"] == pytest.approx(floor["accuracy"])
    best = made.floors["entropy of one byte"]["nats_per_byte"]
    assert best <= floor["nats_per_byte"]


def test_quarters_of_the_window_add_up():
    made = task()
    rows = jnp.asarray(made.splits["validation"][:-1])
    batch = made.gather({}, rows) | {"weight_b": jnp.ones(len(rows))}
    logits = jax.random.normal(jax.random.key(0), (*batch["target_bt"].shape, 256))
    _, sums = byte_loss(logits, batch)
    metrics = summarize(jax.device_get(sums))
    quarters = [metrics[f"nats_per_byte/quarter_{i}"] for i in (1, 2, 3, 4)]
    assert np.mean(quarters) == pytest.approx(metrics["nats_per_byte"], rel=1e-5)


def test_padding_counts_nothing():
    made = task()
    row = jnp.asarray(made.splits["validation"][-1:])
    assert (row < 0).any()
    batch = made.gather({}, row) | {"weight_b": jnp.ones(1)}
    logits = jax.random.normal(jax.random.key(0), (1, WINDOW, 256))
    changed = jnp.where((batch["target_bt"] < 0)[..., None], 7.0, logits)
    assert byte_loss(logits, batch)[0] == byte_loss(changed, batch)[0]


# --- the model -------------------------------------------------------------------


def test_input_and_output_share_one_table():
    params = drawn_model(task())[1]["params"]
    stack = count_parameters(params["stack"])
    assert count_parameters(params) == stack + 256 * 16
    assert "head" not in params


def test_the_step_form_writes_what_the_whole_window_says():
    made = task()
    model, variables = drawn_model(made)
    batch = made.gather({}, jnp.asarray(made.splits["validation"][1:2]))
    apply = jax.jit(model.apply)
    logits, _ = apply(variables, batch)
    writer = Writer(model, variables, temperature=0)
    for byte, expected in zip(np.asarray(batch["bytes_bt"][0]), logits[0], strict=True):
        drawn = writer(int(byte))
        np.testing.assert_allclose(writer.logits_v, expected, atol=2e-5)
        assert drawn == int(jnp.argmax(expected))
    again = bytes(writer.go_on(b"abc", 9))
    writer.restart()
    fresh = bytes(writer.go_on(b"abc", 9))
    assert len(again) == len(fresh) == 9
    whole = apply(
        variables,
        {"bytes_bt": jnp.asarray(list(SEPARATOR + b"abc" + fresh[:8]))[None]},
    )[0][0]
    assert fresh == bytes(np.asarray(jnp.argmax(whole, -1))[3:].tolist())


def test_draws_repeat_with_their_seed_and_prompts_are_bytes():
    model, variables = drawn_model(task())

    def write(seed):
        return bytes(Writer(model, variables, seed=seed).go_on(b"", 20))

    assert write(1) == write(1) != write(2)
    with pytest.raises(InputError, match="must be bytes, not str"):
        check_prompt("text")
    with pytest.raises(InputError, match="temperature=-1 must be 0 or more"):
        Writer(model, variables, temperature=-1)


# --- the recipe ------------------------------------------------------------------


def resolved(text: str = "gru") -> dict:
    return json.loads(pile.get_config(text).to_json())


def test_batches_are_the_same_for_every_backbone():
    one, other = task(width=16), task(width=64)
    for step in (0, 5):
        np.testing.assert_array_equal(
            one.order(batch_size=4, seed=3).steps(step, 2, 2),
            other.order(batch_size=4, seed=3).steps(step, 2, 2),
        )


def test_a_width_takes_the_place_of_the_size():
    config = resolved("gru,width=32")
    assert config["model"]["size"] == "" and config["model"]["width"] == 32
    check_values(config)
    assert build.build_backbone(config).width == 32


def test_compat_takes_over_the_originals_training():
    train = resolved("e61,protocol=compat")["train"]
    assert train["schedule"] == "oscillating" and train["learning_rate"] == 3e-4
    assert train["parameter_dtype"] == "bfloat16" and train["weight_decay"] == 0.01


@pytest.mark.parametrize(
    "text, message",
    [
        ("gru,budget=0min", r"budget='0min' must be more than nothing"),
        ("gru,budget=600", r"budget='600' needs a unit"),
        ("gru,size=2m", r"size='2m' is unknown; nearest: .*1m"),
        ("gru,size=1m,width=64", "both say how wide"),
        ("gru,size=", "width=0 must be positive; set it or model.size"),
        ("gru,sampler=shuffled", "sampler='shuffled' is unknown"),
        ("gru,warmup_fraction=1", r"warmup_fraction=1.0 must lie in \[0, 1\)"),
        ("gru,max_skips=-1", "max_skips=-1 must not be negative"),
    ],
)
def test_values_no_run_could_use_are_one_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        check_values(resolved(text))
    assert "\n" not in str(caught.value)
