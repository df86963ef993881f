"""Policies over chunks: vectors, processes, targets and scores against plain loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn import draw
from scipy import stats
from test_zelda_frames import make_game
from test_zelda_imitation import build, make_games

from jaxbench.errors import InputError
from jaxbench.tasks.rules import parse_options
from jaxbench.tasks.zelda import controller, frames, windows
from jaxbench.tasks.zelda.chunks import (
    act,
    action,
    diffusion,
    ensemble,
    flow_matching,
    heads,
    options,
    targets,
)

SMALL = {
    "diffusion": {"horizon": 3, "steps": 10, "hidden": 32, "layers": 1},
    "act": {"horizon": 3, "latent": 4, "hidden": 32, "layers": 1, "heads": 2},
    "flow_matching": {"horizon": 3, "steps": 10, "hidden": 32, "layers": 1},
}

STEPS = {"diffusion": {"steps": 20}, "flow_matching": {"steps": 20}}


def random_labels(rng, *shape):
    tops = (256, 17, 17, 17, 17, 5)
    return np.stack([rng.integers(0, top, shape) for top in tops], axis=-1)


def test_every_label_decodes_to_itself_and_vectors_are_what_is_pressed():
    labels = random_labels(np.random.default_rng(0), 3000)
    labels[:256, 0], labels[300:317, 1], labels[400:405, 5] = (
        range(256),
        range(17),
        range(5),
    )
    vectors = np.asarray(action.encode(jnp.asarray(labels)))
    assert vectors.shape == (3000, action.SIZE) and np.abs(vectors).max() == 1
    np.testing.assert_array_equal(action.decode(jnp.asarray(vectors)), labels)
    pressed = controller.decode(labels)
    np.testing.assert_array_equal(vectors[:, :8] == 1, pressed["buttons"])
    for i, name in enumerate((*controller.STICKS, "shoulder"), start=8):
        np.testing.assert_array_equal(vectors[:, i], pressed[name])


def test_a_vector_decodes_to_the_nearest_level_and_the_sign():
    rng = np.random.default_rng(1)
    vectors = rng.uniform(-1.5, 1.5, (500, action.SIZE)).astype(np.float32)
    found = np.asarray(action.decode(jnp.asarray(vectors)))
    np.testing.assert_array_equal(controller.unpack(found[:, 0]), vectors[:, :8] > 0)
    for i in range(5):
        levels = np.arange(17) / 8 - 1 if i < 4 else np.arange(5) / 4
        nearest = np.abs(vectors[:, 8 + i, None] - levels[None]).argmin(1)
        np.testing.assert_array_equal(found[:, 1 + i], nearest)


@pytest.mark.parametrize(
    ("schedule", "low", "high", "left"),
    [("published", 1e-4, 0.02, 0.3664), ("rescaled", 1e-3, 0.2, 2.1e-5)],
)
def test_the_noise_schedule_is_the_product_of_its_betas(schedule, low, high, left):
    product, expected = 1.0, []
    for t in range(100):
        product *= 1 - (low + (high - low) * t / 99)
        expected.append(product)
    found = diffusion.kept(schedule)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[-1] == pytest.approx(left, rel=0.05)


@pytest.mark.parametrize("steps", [1, 7, 20, 100])
@pytest.mark.parametrize("schedule", options.SCHEDULES)
def test_denoising_with_the_true_noise_gives_the_action(steps, schedule):
    rng = np.random.default_rng(2)
    clean = action.encode(jnp.asarray(random_labels(rng, 2, 1, 4)))
    kept = jnp.asarray(diffusion.kept(schedule), jnp.float32)
    asked = []

    def noise_of(x, step):
        jax.debug.callback(lambda s: asked.append(int(s)), step)
        return (x - jnp.sqrt(kept[step]) * clean) / jnp.sqrt(1 - kept[step])

    start = jnp.asarray(rng.standard_normal(clean.shape), jnp.float32)
    found = diffusion.denoise(noise_of, start, diffusion.kept(schedule), steps)
    np.testing.assert_allclose(found, clean, atol=2e-3)
    jax.effects_barrier()
    assert len(asked) == steps and max(asked) == 99
    assert steps == 1 or (min(asked) == 0 and len(set(asked)) == steps)


def test_one_step_of_denoising_is_the_stated_formula():
    kept = diffusion.kept("rescaled")
    x, noise = 0.3, -0.7

    def noise_of(x, step):
        return jnp.full_like(x, noise)

    value = x
    for now, then in ((99, 50), (50, 0), (0, None)):
        next_kept = 1.0 if then is None else kept[then]
        clean = (value - np.sqrt(1 - kept[now]) * noise) / np.sqrt(kept[now])
        clean = min(max(clean, -1.0), 1.0)
        value = np.sqrt(next_kept) * clean + np.sqrt(1 - next_kept) * noise
    found = diffusion.denoise(noise_of, jnp.full((1,), x), kept, 3)
    # 49.5 rounds to the even 50.
    assert float(found[0]) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)]
)
def test_solvers_have_their_order(solver, order):
    with jax.enable_x64(True):
        # dx/dt = x cos t: x(1) = x(0) exp(sin 1).
        start = jnp.array([0.5, -1.2], jnp.float64)
        exact = np.asarray(start) * np.exp(np.sin(1.0))

        def error(steps):
            end = flow_matching.integrate(
                lambda x, t: x * jnp.cos(t), start, steps, solver
            )
            return np.abs(np.asarray(end) - exact).max()

        found = np.log2(error(32) / error(64))
    assert found == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", options.SOLVERS)
def test_the_straight_field_leads_from_noise_to_the_action(solver):
    rng = np.random.default_rng(3)
    clean = action.encode(jnp.asarray(random_labels(rng, 2, 1, 4)))
    noise = jnp.asarray(rng.standard_normal(clean.shape), jnp.float32)

    def along(x, t):
        # Where this line is at t, that the field is asked nowhere else.
        off = jnp.abs(x - ((1 - t) * noise + t * clean)).max()
        return clean - noise + 100 * jnp.where(off > 1e-4, 1.0, 0.0)

    found = flow_matching.integrate(along, noise, 20, solver)
    np.testing.assert_allclose(found, clean, atol=1e-4)


def test_eulers_last_step_reaches_the_action_of_the_marginal_field():
    clean = jnp.asarray([0.5, -1.0, 1.0])
    found = flow_matching.integrate(
        lambda x, t: (clean - x) / (1 - t), jnp.zeros(3), 20, "euler"
    )
    np.testing.assert_allclose(found, clean, atol=1e-5)


def test_the_divergence_is_that_of_the_two_gaussians():
    rng = np.random.default_rng(4)
    mean, log_variance = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)) / 2
    grid = np.linspace(-12, 12, 40001)
    expected = np.zeros(2)
    for i, (row, other) in enumerate(zip(mean, log_variance, strict=True)):
        for m, v in zip(row, other, strict=True):
            q = stats.norm(m, np.exp(v / 2))
            integrand = q.pdf(grid) * (q.logpdf(grid) - stats.norm.logpdf(grid))
            expected[i] += np.trapezoid(integrand, grid)
    found = act.divergence(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert float(act.divergence(jnp.zeros(3), jnp.zeros(3))) == 0


def test_temporal_ensembling_is_the_weighted_mean_of_what_covers_a_frame():
    horizon, count = 4, 11
    rng = np.random.default_rng(5)
    chunks = rng.standard_normal((count, 2, horizon, action.SIZE)).astype(np.float32)
    starts = np.zeros((count, 2), bool)
    starts[0], starts[6, 1] = True, True  # the second game begins anew
    plan = ensemble.first_plan(2, horizon)
    plan["chunks"] = plan["chunks"] + np.inf  # what an older game left is not read
    follow, found = jax.jit(ensemble.follow), []
    for chunk, start in zip(chunks, starts, strict=True):
        now, plan = follow(plan, jnp.asarray(chunk), jnp.asarray(start))
        found.append(now)
    for game in range(2):
        for t in range(count):
            begin = max(s for s in range(t + 1) if starts[s, game])
            covering = range(max(begin, t - horizon + 1), t + 1)
            weights = [np.exp(-0.01 * i) for i in range(len(covering))]
            rows = [chunks[made, game, t - made] for made in covering]
            expected = np.average(rows, axis=0, weights=weights)
            np.testing.assert_allclose(found[t][game], expected, atol=1e-5)


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("readout", ["last", "all"])
def test_chunk_targets_are_the_coming_controllers_of_the_same_player(delay, readout):
    horizon, window = 5, 3
    games = [make_game(i, count=160) for i in range(2)]
    for game in games:
        game.players[0].leader.post["state"][140:143] = 5  # dead
    chosen = [(0, 0), (0, 1), (1, 0)]
    arrays, perspectives = frames.store(games, chosen, delay=delay, drop_idle=True)
    cut = {"window": window, "delay": delay, "readout": readout}
    gather = windows.clean_gather(window, delay, readout)
    lengths = [p.length for p in perspectives]
    examples = [[p, t] for p in range(3) for t in range(lengths[p])]
    more = targets.with_chunks(gather, horizon, **cut)
    batch = jax.device_get(jax.jit(more)(arrays, np.array(examples, np.int32)))
    before = jax.device_get(jax.jit(gather)(arrays, np.array(examples, np.int32)))
    assert set(batch) - set(before) == set(targets.KEYS)
    for name, value in before.items():
        np.testing.assert_array_equal(batch[name], value)
    np.testing.assert_array_equal(batch["chunk_valid_bth"][before["valid_bt"], 0], True)
    sent = []
    for g, p in chosen:
        leader = games[g].players[p].leader
        alive = ~np.isin(leader.post["state"], frames.IDLE)
        sent.append((controller.encode(leader.pre, "clean")[123:], alive[123:]))
    seen = 0
    for b, (p, t) in enumerate(examples):
        labels, alive = sent[p]
        for place in range(batch["chunk_btha"].shape[1]):
            now = max(0, t - (batch["chunk_btha"].shape[1] - 1 - place))
            going = True
            for k in range(horizon):
                label = now + k + 1 + delay
                going = going and label < lengths[p] and alive[now + k]
                expected = labels[label] if going else controller.NEUTRAL
                assert batch["chunk_valid_bth"][b, place, k] == going
                np.testing.assert_array_equal(
                    batch["chunk_btha"][b, place, k], expected
                )
                seen += not going
    assert seen > 3 * 10
    rows = batch["chunk_row_bt"][:, -1]
    assert len(np.unique(rows)) == len(examples)


@pytest.fixture(scope="module")
def task():
    return build(
        make_games(count=240),
        readout="all",
        window=4,
        head="diffusion",
        head_options=SMALL["diffusion"],
        validation_fraction=0.4,
    )


def evaluation_batch(task, count=10**6):
    batch = dict(jax.jit(task.gather)(task.arrays, task.splits["validation"][:count]))
    batch["weight_b"] = jnp.ones(len(batch["reset_bt"]))
    return batch


def test_floors_are_what_the_score_says_of_repeated_controllers(task):
    batch = evaluation_batch(task)
    previous = batch["previous_bta"]
    constant = {
        "action_bthc": jnp.repeat(action.encode(previous)[:, :, None], 3, axis=2),
        "objective_bt": jnp.zeros(previous.shape[:2]),
        "terms": {},
    }
    metrics = task.summarize(jax.device_get(task.loss(constant, batch)[1]))
    floor = task.floors["copy_previous"]
    assert set(metrics) - set(floor) == {"objective"}
    for name, value in floor.items():
        assert value == pytest.approx(metrics[name], rel=1e-4, abs=1e-6), name
    assert floor["change/any"] == 0 and floor["place/1"] > floor["place/3"]
    marginal = task.floors["marginal"]
    assert 0 < marginal["place/1"] < 1 and set(marginal) == set(floor)
    assert task.primary in floor and task.maximize
    assert not any(name.startswith("loss") for name in {*metrics, *floor})
    # Boards group by these: neither beside nats nor beside another policy type.
    cut = task.source["options"]
    assert (cut["head"], cut["horizon"]) == ("diffusion", 3)


def test_the_score_of_decoded_controllers_against_a_loop(task):
    batch = evaluation_batch(task, 30)
    rng = np.random.default_rng(6)
    truth = np.asarray(batch["chunk_btha"])
    said = np.where(
        rng.random(truth.shape) < 0.9, truth, random_labels(rng, *truth.shape[:3])
    )
    batch["weight_b"] = jnp.asarray(rng.integers(0, 2, len(truth)), jnp.float32)
    outputs = {
        "action_bthc": action.encode(jnp.asarray(said)),
        "objective_bt": jnp.asarray(rng.random(truth.shape[:2]), jnp.float32),
        "terms": {"l1": jnp.ones(truth.shape[:2])},
    }
    scalar, sums = task.loss(outputs, batch)
    metrics = task.summarize(jax.device_get(sums))
    valid, inside = np.asarray(batch["valid_bt"]), np.asarray(batch["chunk_valid_bth"])
    kept = [(b, t) for b, t in np.argwhere(valid) if float(batch["weight_b"][b])]
    objective = np.mean([outputs["objective_bt"][b, t] for b, t in kept])
    assert float(scalar) == pytest.approx(objective, rel=1e-5)
    assert metrics["objective"] == pytest.approx(objective, rel=1e-5)
    assert metrics["objective/l1"] == pytest.approx(1)
    whole = [np.array_equal(said[b, t, 0], truth[b, t, 0]) for b, t in kept]
    assert metrics["accuracy/all"] == pytest.approx(np.mean(whole))
    right = [said[b, t, 0, 1] == truth[b, t, 0, 1] for b, t in kept]
    assert metrics["accuracy/main_x"] == pytest.approx(np.mean(right))
    for k in range(3):
        found = []
        for b, t in kept:
            if inside[b, t, k]:
                bits = controller.unpack(said[b, t, k, :1].astype(np.uint8))
                true = controller.unpack(truth[b, t, k, :1].astype(np.uint8))
                groups = [np.mean(bits == true), *(said[b, t, k] == truth[b, t, k])[1:]]
                found.append(np.mean(groups))
        assert metrics[f"place/{k + 1}"] == pytest.approx(np.mean(found), rel=1e-5)


@pytest.mark.parametrize("name", list(heads.POLICIES))
def test_a_validation_does_not_depend_on_how_frames_are_batched(task, name):
    head = heads.make(name, SMALL[name])
    batch = evaluation_batch(task, 8)
    h_btd = jax.random.normal(jax.random.key(1), (8, 4, 16))
    variables = draw(head, h_btd, {})
    call = jax.jit(lambda h, batch: head.apply(variables, h, batch))
    whole = call(h_btd, batch)
    backwards = call(h_btd[::-1], {k: x[::-1] for k, x in batch.items()})
    for key in ("objective_bt", "action_bthc"):
        np.testing.assert_allclose(whole[key], backwards[key][::-1], atol=1e-5)
    # In training the draws are others at every step, and nothing is acted.
    noisy = jax.jit(
        lambda key: head.apply(variables, h_btd, batch, rngs={"noise": key})
    )
    drawn = [noisy(jax.random.key(i)) for i in range(2)]
    assert set(drawn[0]) == {"objective_bt", "terms"}
    assert np.abs(drawn[0]["objective_bt"] - drawn[1]["objective_bt"]).max() > 1e-4


@pytest.mark.parametrize("name", list(heads.POLICIES))
def test_what_follows_the_end_of_a_chunk_changes_no_objective(task, name):
    head = heads.make(name, SMALL[name])
    batch = evaluation_batch(task, 8) | {
        "chunk_valid_bth": jnp.broadcast_to(jnp.array([True, True, False]), (8, 4, 3))
    }
    h_btd = jax.random.normal(jax.random.key(1), (8, 4, 16))
    variables = jax.jit(head.init)(jax.random.key(0), h_btd, {})
    other = batch | {"chunk_btha": batch["chunk_btha"].at[:, :, 2, 1].add(3)}
    call = jax.jit(lambda batch: head.apply(variables, h_btd, batch)["objective_bt"])
    one, two = call(batch), call(other)
    # The network of `act` cannot even see it; a denoiser starts as a constant.
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize("name", list(heads.POLICIES))
def test_a_policy_learns_chunks_that_follow_from_h(name):
    """Its objective falls below a constant's, and it presses the right buttons."""
    rng = np.random.default_rng(7)
    codes = random_labels(rng, 6, 3)
    kind = rng.integers(0, 6, (64, 1))
    batch = {
        "chunk_btha": jnp.asarray(codes[kind]),
        "chunk_valid_bth": jnp.ones((64, 1, 3), bool),
        "chunk_row_bt": jnp.arange(64, dtype=jnp.int32)[:, None],
    }
    h_btd = jax.nn.one_hot(jnp.asarray(kind), 6)
    head = heads.make(name, SMALL[name] | {"hidden": 64} | STEPS.get(name, {}))
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train():
        variables = head.init(jax.random.key(0), h_btd, {})

        def mean(variables, key):
            outputs = head.apply(variables, h_btd, batch, rngs={"noise": key})
            return outputs["objective_bt"].mean()

        def step(carry, key):
            variables, state = carry
            grads = jax.grad(mean)(variables, key)
            updates, state = optimizer.update(grads, state, variables)
            return (optax.apply_updates(variables, updates), state), None

        carry = (variables, optimizer.init(variables))
        keys = jax.random.split(jax.random.key(1), 400)
        (variables, _), _ = jax.lax.scan(step, carry, keys)
        return head.apply(variables, h_btd, batch)

    outputs = train()
    clean = np.asarray(action.encode(batch["chunk_btha"]))
    kept = diffusion.kept("rescaled")
    best_constant = {
        # The variance of what is asked for; the distance from the median.
        "diffusion": (
            kept.mean()
            + (1 - kept).mean() * np.square(clean).mean()
            - np.square(np.sqrt(1 - kept).mean() * clean.mean((0, 1))).mean()
        ),
        "flow_matching": 1.0 + clean.var(axis=(0, 1)).mean(),
        "act": np.abs(clean - np.median(clean, axis=(0, 1))).mean(),
    }[name]
    assert float(outputs["objective_bt"].mean()) < 0.7 * best_constant
    found = np.asarray(outputs["action_bthc"])
    error = np.sqrt(np.square(found - clean).mean())
    assert error < 0.4 * np.sqrt(clean.var(axis=(0, 1)).mean())
    assert ((found > 0) == (clean > 0))[..., : action.BUTTONS].mean() > 0.98


@pytest.mark.parametrize(
    ("head", "text", "message"),
    [
        ("diffusion", "horizon=0", "horizon=0 must be a whole number of at least 1"),
        ("act", "horizon=2.5", "horizon=2.5 must be a whole number"),
        ("flow_matching", "steps=0", "steps=0 must be a whole number"),
        ("diffusion", "steps=101", "steps=101 of inference are more than the 100"),
        ("flow_matching", "solver=eulr", "solver=eulr is none of .* nearest: euler"),
        ("diffusion", "schedule=cosine", "schedule=cosine is none of"),
        ("diffusion", "horizn=4", "no option 'horizn'; nearest: horizon"),
        ("diffusion", "solver=rk4", "head=diffusion has no option 'solver'"),
        ("act", "kl_weight=-1", "kl_weight=-1 must be a finite number >= 0"),
        ("act", "heads=3", "heads=3 must divide hidden=128"),
        ("independent", "horizon=4", "head=independent has no options.*diffusion"),
        ("autoregressive", "foo=1", "head=autoregressive has no options; leave out"),
    ],
)
def test_options_that_cannot_be_are_one_clear_line(head, text, message):
    given = parse_options(text, "model.head_options")
    with pytest.raises(
        InputError, match=f"model.head_options: .*{message}|{message}"
    ) as e:
        options.resolve(head, given)
    assert "\n" not in str(e.value) and "model.head_options" in str(e.value)


def test_options_are_the_defaults_and_what_is_given_over_them():
    assert options.resolve("independent", {}) == {}
    found = options.resolve("flow_matching", parse_options("steps=5 solver=rk4"))
    assert found == options.DEFAULTS["flow_matching"] | {"steps": 5, "solver": "rk4"}
    assert heads.make("act", {"kl_weight": 3}).policy.kl_weight == 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "compat"}, "head=act needs protocol=clean"),
        ({"button_weight": 2.0}, "train.button_weight=2.0: head=act has no classes"),
        ({"head": "actt"}, "nearest: act"),
        ({"head_options": {"steps": 3}}, "head=act has no option 'steps'"),
    ],
)
def test_mistakes_of_the_task_are_one_clear_line(settings, message):
    with pytest.raises(InputError, match=message) as error:
        build(make_games(2), **{"head": "act"} | settings)
    assert "\n" not in str(error.value)


def test_other_heads_have_the_examples_they_had(task):
    plain = build(
        make_games(count=240), readout="all", window=4, validation_fraction=0.4
    )
    assert plain.source["fingerprint"] == task.source["fingerprint"]
    assert "head" not in plain.source["options"] and plain.primary == "loss"
    batch = jax.eval_shape(plain.gather, plain.arrays, plain.splits["train"][:2])
    assert not set(batch) & set(targets.KEYS)
    copied = plain.floors["copy_previous"]
    for name in set(copied) & set(task.floors["copy_previous"]):
        assert copied[name] == pytest.approx(task.floors["copy_previous"][name])
