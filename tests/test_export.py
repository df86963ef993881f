"""`jaxbench export`: files that answer as the run does, or none."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil

import jax
import numpy as np
import pytest
from commands import jaxbench
from drawn import draw

from configs import pile

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxbench.bench import job
from jaxbench.bench.run_folder import read_json, write_json
from jaxbench.bench.trained import one_device, open_run, restore_variables
from jaxbench.errors import InputError
from jaxbench.serving.export import (
    describe,
    export_run,
    functions,
    parity,
)
from jaxbench.serving.export.bundle import (
    INITIAL,
    MANIFEST,
    load_exported,
    manifest_hash,
    read_manifest,
)
from jaxbench.serving.export.inputs import open_inputs
from jaxbench.serving.export.runtime import Port
from jaxbench.serving.export.table import export_table, quality_table
from jaxbench.serving.latency import stream_caller
from jaxbench.serving.weights import example_batch
from jaxbench.serving.writing import Writer
from jaxbench.tasks.zelda import controller, features, frames, imitation
from jaxbench.tasks.zelda.chunks import score
from jaxbench.tasks.zelda.stream import open_stream
from jaxbench.to_onnx.int8 import product_names

FRAMES = 200


@pytest.fixture(scope="module")
def run(shared_runs, tmp_path_factory):
    """A run with what is hard: a delay, and a head that reads what it chose."""
    return shutil.copytree(shared_runs("policy"), tmp_path_factory.mktemp("e") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Its export in every format, made once; tests that write take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        # Times are not looked at here.
        patch.setattr(export_run, "TIMED", {"step": 3, "window": 3})
        patch.setattr(export_run, "WARM_UP", 1)
        return export_run.export_run(
            run, formats=("onnx", "stablehlo"), int8=True, frames=FRAMES
        )


@pytest.fixture
def copied(run, exported, tmp_path):
    return shutil.copytree(run / "export", tmp_path / "export")


@pytest.fixture(scope="module")
def played(run):
    """Frames of a validation game, and the policy's answers to them in jax."""
    opened = open_run(run)
    variables, _ = restore_variables(opened, "best", one_device())
    arrays = jax.device_put(dict(opened.task.arrays))
    stream = open_stream(opened.task, arrays, "validation", 60)
    step = stream_caller(opened, variables, stream, 0)
    window = stream_caller(opened, variables, stream, 8)
    return {
        "stream": stream,
        "step": [step(n) for n in range(60)],
        "window": [window(n) for n in range(60)],
    }


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_an_exported_run_sends_the_controllers_of_the_run(run, exported, played, kind):
    """The reference is the step that policies take."""
    loaded, state = load_exported(run / "export", kind=kind), None
    for n in range(60):
        outputs, state = loaded.step(played["stream"].frame(n), state)
        np.testing.assert_array_equal(outputs["labels_ba"], played["step"][n])
        found = loaded.window(played["stream"].window(n, 8))
        np.testing.assert_array_equal(found["labels_ba"], played["window"][n])


@pytest.mark.integration
def test_labels_are_the_likeliest_of_the_logits(run, exported, played):
    loaded = load_exported(run / "export")
    outputs, _ = loaded.step(played["stream"].frame(0))
    labels = outputs["labels_ba"][0]
    assert [outputs[f"logits/{k}"].shape for k in controller.COMPONENTS] == [
        (1, controller.CLASSES[k]) for k in controller.COMPONENTS
    ]
    pressed = outputs["logits/buttons"][0] > 0
    assert labels[0] == controller.pack(pressed)
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        assert labels[i] == outputs[f"logits/{name}"][0].argmax()


@pytest.mark.integration
def test_a_step_leaves_the_state_it_was_given(run, exported, played):
    loaded = load_exported(run / "export")
    frame = played["stream"].frame(5)
    _, state = loaded.step(frame)
    before = {name: x.copy() for name, x in state.items()}
    first, second = (loaded.step(frame, state)[0] for _ in range(2))
    for name, x in state.items():
        np.testing.assert_array_equal(x, before[name])
    np.testing.assert_array_equal(first["logits/c_x"], second["logits/c_x"])


@pytest.mark.integration
def test_inputs_that_do_not_fit_are_named(run, exported, played):
    loaded, frame = load_exported(run / "export"), played["stream"].frame(0)
    with pytest.raises(InputError, match=r"reads numeric_btf, which is missing"):
        loaded.step({k: v for k, v in frame.items() if k != "numeric_btf"})
    with pytest.raises(InputError, match=r"reset_bt is \[1\], not \[1, 1\]"):
        loaded.step(frame | {"reset_bt": np.array([True])})
    with pytest.raises(InputError, match=r"numeric_btf is \[1, 1, \d+\], not \[1, 8,"):
        loaded.window(frame)


@pytest.mark.integration
def test_the_result_and_the_manifest_say_what_was_found(run, exported):
    found = read_json(run / "result.json")["export"]
    manifest = read_manifest(run / "export")
    assert found["out"] == "export" and found["frames"] == FRAMES
    for name in ("step.onnx", "window.onnx", "step.stablehlo", "window.stablehlo"):
        close = found["parity"][name]
        assert close["largest"] < 1e-4 and close["equal_labels"] == 1.0
        assert manifest["parity"][name] == close
    steps = found["parity"]["step.onnx"]
    assert steps["count"] == FRAMES and steps["drift"]["200"] >= steps["drift"]["1"]
    assert found["parity"]["window.onnx"]["count"] >= 32
    assert found["parity"]["step.int8.onnx"]["largest"] > 1e-4
    assert found["files"]["step.int8.onnx"]["products_int8"] > 10
    assert set(found["scores"]["step"]) == {"jax", "onnx", "int8", "stablehlo"}
    assert found["scores"]["step"]["jax"]["accuracy/main_x"] == pytest.approx(
        found["scores"]["step"]["onnx"]["accuracy/main_x"]
    )
    assert set(found["timing"]["window"]) == {"jax", "onnx", "int8"}
    assert manifest["window"] == 8 and manifest["delay"] == 1
    assert manifest["config_hash"] == read_json(run / "result.json")["config_hash"]
    assert manifest["versions"]["opset"] == 18


@pytest.mark.integration
def test_scores_are_those_of_the_labels_that_were_sent(run, exported, played):
    opened = open_run(run)
    inputs = open_inputs(opened, FRAMES)
    arrays = jax.device_put(dict(opened.task.arrays))
    truth = jax.jit(opened.task.gather)(arrays, played["stream"].examples)
    target = np.asarray(truth["target_bta"])[:, -1]
    valid = np.asarray(truth["valid_bt"])[:, -1]
    loaded, state, outputs = load_exported(run / "export"), None, []
    for n in range(60):
        found, state = loaded.step(played["stream"].frame(n), state)
        outputs.append(found)
    metrics = inputs.score(outputs, range(60))
    sent = np.concatenate([x["labels_ba"] for x in outputs])
    right = (sent == target)[valid].mean(0)
    assert metrics["accuracy/buttons_exact"] == pytest.approx(right[0], abs=1e-6)
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        assert metrics[f"accuracy/{name}"] == pytest.approx(right[i], abs=1e-6)


@pytest.mark.integration
def test_the_manifest_names_every_number_a_policy_reads(run, exported):
    manifest = read_manifest(run / "export")
    shapes = {p["name"]: p["shape"] for p in manifest["functions"]["step"]["inputs"]}
    numeric = manifest["inputs"]["numeric_btf"]
    assert shapes["numeric_btf"] == [1, 1, len(numeric["order"])]
    assert numeric["order"] == list(features.NUMERIC)
    assert set(numeric["scales"]) == set(features.NUMERIC)
    for name, entry in manifest["inputs"].items():
        if "order" in entry:
            assert shapes[name][-1] == len(entry["order"])
    assert manifest["inputs"]["stage_bt"]["values"]["5"] == "final_destination"
    state = {p["name"]: tuple(p["shape"]) for p in manifest["state"]}
    assert state == {
        k: v.shape for k, v in load_exported(run / "export").initial.items()
    }
    assert all(shapes[name] == list(shape) for name, shape in state.items())


def test_scales_are_those_of_the_features():
    """A fighter with known numbers, through the functions that training uses."""
    by = dict(zip(frames.MEASURES, frames._SCALE, strict=True))
    top = dict(zip(frames.MEASURES, frames._HIGHEST, strict=True))
    for name in frames.MEASURES:
        _, divided, _, most = describe.SCALES[name]
        assert (divided, most) == (by[name], top[name]), name


@pytest.mark.integration
def test_int8_keeps_what_is_excluded(run, exported):
    model = importlib.import_module("onnx").load(run / "export" / "step.onnx")
    names = product_names(model.graph)
    heads = [name for name in names if "/head/" in name]
    assert 0 < len(heads) < len(names)
    _, done, left = export_run._quantized(model, ["*/head/*"])
    assert (done, left) == (len(names) - len(heads), len(heads))
    with pytest.raises(InputError, match=r"--exclude=nothing fits none of the"):
        export_run._quantized(model, ["nothing"])
    with pytest.raises(InputError, match="leaves none"):
        export_run._quantized(model, ["*"])


@pytest.mark.integration
def test_a_file_that_was_changed_is_refused(copied):
    content = bytearray((copied / "window.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "window.onnx").write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"window\.onnx is not what was exported"):
        load_exported(copied)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["step.onnx", INITIAL])
def test_a_file_that_is_gone_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_exported(copied)


@pytest.mark.integration
def test_a_manifest_that_was_changed_is_refused(copied):
    manifest = json.loads((copied / MANIFEST).read_text())
    write_json(copied / MANIFEST, manifest | {"delay": 0})
    with pytest.raises(InputError, match="changed after it was written"):
        load_exported(copied)
    (copied / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        load_exported(copied)
    (copied / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        load_exported(copied)


@pytest.mark.integration
def test_a_manifest_of_another_version_is_refused(copied):
    manifest = json.loads((copied / MANIFEST).read_text()) | {"version": 99}
    write_json(copied / MANIFEST, manifest | {"sha256": manifest_hash(manifest)})
    with pytest.raises(InputError, match="is of version 99 and this jaxbench reads 1"):
        load_exported(copied)


@pytest.mark.integration
def test_a_kind_that_is_not_there_is_refused(copied):
    with pytest.raises(InputError, match="none of onnx, int8, stablehlo"):
        load_exported(copied, kind="tflite")
    manifest = json.loads((copied / MANIFEST).read_text())
    kept = {k: v for k, v in manifest["files"].items() if v["kind"] != "int8"}
    manifest |= {"files": kept}
    write_json(copied / MANIFEST, manifest | {"sha256": manifest_hash(manifest)})
    with pytest.raises(InputError, match="holds no int8 files, only onnx, stablehlo"):
        load_exported(copied, kind="int8")


@pytest.mark.integration
@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(run, monkeypatch, package):
    real = importlib.import_module

    def absent(name, *rest):
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=rf"need the package {package}.*pip install"):
        export_run.export_run(run, frames=FRAMES)


@pytest.mark.integration
def test_a_file_that_answers_otherwise_is_not_kept(run, monkeypatch, tmp_path):
    """Each result is wrong by a hundredth: no folder, and the result as it was."""
    before = (run / "result.json").read_bytes()
    real = export_run._open

    def off(f, kind, content):
        call = real(f, kind, content)
        return lambda arrays: {
            k: v * 1.01 if k.startswith("logits") else v
            for k, v in call(arrays).items()
        }

    monkeypatch.setattr(export_run, "_open", off)
    with pytest.raises(InputError, match=r"differs from jax by 1\.0e-02.*nothing was"):
        export_run.export_run(run, out=tmp_path / "out", frames=FRAMES)
    assert not list(tmp_path.iterdir())
    assert (run / "result.json").read_bytes() == before


@pytest.mark.integration
def test_an_unfinished_run_is_refused(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    result = read_json(folder / "result.json")
    write_json(
        folder / "result.json",
        result | {"status": "timeout", "reason": "30 s are over"},
    )
    with pytest.raises(InputError, match=r"is not finished \(timeout: 30 s are over\)"):
        export_run.export_run(folder, frames=FRAMES)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ("tflite",)}, "--format='tflite' is none of onnx, stablehlo"),
        ({"formats": ()}, "--format names none of"),
        ({"formats": ("stablehlo",), "int8": True}, "add --format=onnx"),
        ({"frames": 10}, "--frames=10 must be at least 200"),
    ],
)
def test_options_that_cannot_be_met_are_refused(run, options, message):
    with pytest.raises(InputError, match=message):
        export_run.export_run(run, **options)


@pytest.mark.integration
def test_a_folder_with_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no export"):
        export_run.export_run(run, out=tmp_path, frames=FRAMES)
    with pytest.raises(InputError, match="is a file"):
        export_run.export_run(run, out=tmp_path / "notes.txt", frames=FRAMES)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_parity_tells_the_largest_error_and_when_it_came():
    rows = [{"logits_v": np.array([1.0, 4.0, 2.0])} for _ in range(12)]
    wrong = [{"logits_v": row["logits_v"].copy()} for row in rows]
    wrong[5]["logits_v"][2] = 6.0
    state = Port("state/h", (1,), "float32")
    rows[-1]["next/h"], wrong[-1]["next/h"] = np.array([2.0]), np.array([1.5])
    found = parity.compare(rows, wrong, [state])
    assert found.largest == 1.0 and found.equal_labels == pytest.approx(11 / 12)
    assert found.drift == {"1": 0.0, "3": 0.0, "10": 1.0}
    assert found.state == 0.25
    wrong[0]["logits_v"][0] = np.nan
    assert parity.compare(rows, wrong, [state]).largest == np.inf


def test_a_state_is_handed_on_and_only_the_last_is_kept():
    def add(arrays):
        total = arrays["state/n"] + arrays["x"]
        return {"logits_v": total[None], "next/n": total}

    calls = [{"x": np.float32(n)} for n in range(4)]
    found = parity.collect(add, calls, {"state/n": np.float32(10)})
    assert [float(x["logits_v"][0]) for x in found] == [10, 11, 13, 16]
    assert ["next/n" in x for x in found] == [False, False, False, True]


@pytest.mark.integration
def test_the_table_has_a_line_for_each_run_and_says_why_one_failed(exported):
    from rich.console import Console

    console = Console(width=240, record=True, file=open("/dev/null", "w"))
    rows = [("gru", exported), ("odd", "it has no counterpart")]
    console.print(export_table(rows))
    text = console.export_text()
    assert "1 of 2 exported" in text and "odd: it has no counterpart" in text
    assert text.count("failed") == 1
    same = exported["parity"]["step.int8.onnx"]["equal_labels"]
    assert "same controller" in text and f" {same:.1%} " in text
    console.print(quality_table(rows))
    lines = [line for line in console.export_text().splitlines() if "│ gru" in line]
    assert [line.split("│")[2].strip() for line in lines] == ["carried"] * 3 + [
        "window"
    ] * 3
    told = exported["scores"]["window"]["int8"]["accuracy/main_x"]
    assert f"{told:.1%}" in lines[-1].split("│")[6]


CHUNKED = {
    "diffusion": {"horizon": 4, "steps": 3, "hidden": 16, "layers": 1},
    "act": {"horizon": 4, "latent": 4, "hidden": 16, "layers": 1, "heads": 2},
    "flow_matching": {"horizon": 4, "steps": 3, "hidden": 16, "solver": "rk4"},
}


@pytest.mark.integration
@pytest.mark.parametrize("head", CHUNKED)
def test_policies_over_chunks_send_the_controllers_of_the_run(run, head):
    """Of `act` those are averages over chunks, which the file carries in its state."""
    opened = open_run(run)
    _, output = imitation.modules(
        "clean", width=16, head=head, head_options=CHUNKED[head]
    )
    opened = dataclasses.replace(
        opened,
        model=opened.model.clone(head=output),
        task=dataclasses.replace(opened.task, summarize=score.summarize),
    )
    variables = draw(opened.model, example_batch(2))
    made, inputs = functions.of_run(opened, variables), open_inputs(opened, FRAMES)
    found = export_run._make(made, inputs, ("onnx",), True, (), lambda line: None)
    for name in ("step.onnx", "window.onnx"):
        assert found["parity"][name]["largest"] < 1e-4
        assert found["parity"][name]["equal_labels"] == 1.0
    scores = found["scores"]["step"]["onnx"]
    assert {"accuracy/all", "accuracy/main_x", "change/any"} <= set(scores)

    arrays = jax.device_put(dict(opened.task.arrays))
    stream = open_stream(opened.task, arrays, "validation", 60)
    player = stream_caller(opened, variables, stream, 0)
    state, said = made.state.initial, []
    ends = {name: "next/" + name.removeprefix("state/") for name in state}
    for n in range(60):
        outputs = found["calls"]["step"]["onnx"]({**stream.frame(n), **state})
        state = {name: outputs[end] for name, end in ends.items()}
        np.testing.assert_array_equal(outputs["labels_ba"], player(n))
        said.append(outputs["chunk_bhc"])
    assert said[0].shape == (1, 4, 13)
    # Frames differ, and so do the places of a chunk.
    assert np.ptp(np.concatenate(said), axis=0).max() > 0.01
    assert np.ptp(said[0], axis=1).max() > 0.01


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A language run computed in bfloat16, on a text of four words."""
    folder = tmp_path_factory.mktemp("pile")
    words = np.array(["to be ", "or not ", "that is ", "the question.\n"])
    drawn = np.random.default_rng(0).choice(words, 4000)
    (folder / "words.txt").write_bytes("".join(drawn).encode())
    text = (
        "gru,width=16,depth=1,window=16,batch_size=4,steps_per_dispatch=4,budget=8steps,"
        "validation_bytes=300,evaluations=1,dtype=bfloat16,compilation_cache=,"
        f"corpus={folder / 'words.txt'},cache={folder / 'cache'}"
    )
    config = json.loads(pile.get_config(text).to_json())
    result = job.run_job(config, folder / "run")
    assert result["status"] == "ok", result["reason"]
    return folder / "run"


@pytest.mark.integration
def test_a_language_run_is_exported_in_float32(writer, monkeypatch):
    monkeypatch.setattr(export_run, "TIMED", {"step": 3, "window": 3})
    monkeypatch.setattr(export_run, "WARM_UP", 1)
    found = export_run.export_run(writer, int8=True, frames=250)
    assert set(found["files"]) == {"step.onnx", "step.int8.onnx", INITIAL}
    scores = found["scores"]["step"]
    assert scores["onnx"]["bits_per_byte"] == pytest.approx(
        scores["jax"]["bits_per_byte"], rel=1e-5
    )
    opened = open_run(writer)
    variables, _ = restore_variables(opened, "best", one_device())
    reader = Writer(opened.model, variables, temperature=0)
    loaded, state = load_exported(writer / "export"), None
    assert loaded.manifest["trained_dtype"] == "bfloat16"
    for byte in b"to be or not to be":
        reader(byte)
        outputs, state = loaded.step({"byte_b": [byte]}, state)
    # The run itself computes its products in bfloat16.
    np.testing.assert_allclose(outputs["logits_v"], reader.logits_v, atol=0.02)
    with pytest.raises(InputError, match="has no window"):
        loaded.window({})


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_command_exports_what_it_can(run, tmp_path):
    """One good run, and one whose weights are gone: exit code 1, the good one kept."""
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / "good", ignore=shutil.ignore_patterns("export"))
    broken = shutil.copytree(runs / "good", runs / "broken")
    shutil.rmtree(broken / "checkpoints")
    done = jaxbench("export", "runs", "--int8", "--frames=200", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 of 2 exported" in done.stdout and "has no checkpoint" in done.stdout
    assert (
        load_exported(runs / "good" / "export", kind="int8").manifest["task"] == "zelda"
    )
    assert read_json(runs / "good" / "result.json")["export"]["frames"] == 200
    assert not (broken / "export").exists()


def test_the_command_refuses_bad_input_in_one_line(tmp_path):
    done = jaxbench("export", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "jaxbench export: error: nowhere is no folder; name a run's or a suite's"
    ]
