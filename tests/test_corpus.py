"""Corpora: the right bytes from files, archives, shards and Python's own sources."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import zstandard
from conftest import SHARED

from jaxbench.cli import main as jaxbench
from jaxbench.data.corpus import byte_counts, open_corpus, unigram_nats
from jaxbench.errors import InputError

CLASSICS = SHARED / "text" / "classics100.xz"
PACKERS = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
END = "\x1e"


def text_of(count: int = 300, seed: int = 0) -> bytes:
    """Documents of a few lines, 0x1e after each."""
    draw = np.random.default_rng(seed)
    words = ["sea", "ships", "été", "naïve", "日本", "long", "road", "\n"]
    documents = [
        " ".join(draw.choice(words, draw.integers(1, 60))) for _ in range(count)
    ]
    return (END.join(documents) + END).encode()


def shard(texts: list[str]) -> bytes:
    lines = [json.dumps({"text": text, "meta": {"set": "x"}}) for text in texts]
    return ("\n".join(lines) + "\n").encode()


class Said(list):
    """Collects what a corpus says."""

    def __call__(self, line: str) -> None:
        self.append(line)


def opened(path, cache: Path | None = None, **options):
    return open_corpus(str(path), cache=cache, say=Said(), **options)


def left(cache: Path) -> set[str]:
    """Kinds of files in the cache, locks apart."""
    return {path.suffix for path in cache.glob("*")} - {".lock"}


# ---- files --------------------------------------------------------------------------


@pytest.mark.parametrize("with_cache", [True, False])
def test_a_raw_file_is_mapped_where_it_lies(with_cache, tmp_path):
    data = text_of()
    path = tmp_path / "some.text"
    path.write_bytes(data)
    cache = tmp_path / "cache" if with_cache else None
    seen: list[tuple[int, int | None]] = []
    corpus = opened(path, cache, progress=lambda *at: seen.append(at))
    assert isinstance(corpus.bytes_n, np.memmap) and not corpus.bytes_n.flags.writeable
    assert Path(corpus.bytes_n.filename) == path and corpus.bytes_n.tobytes() == data
    source = corpus.source
    assert source["sha256"] == hashlib.sha256(data).hexdigest()
    assert source["bytes"] == len(data) and source["documents"] == 300
    assert source["source"] == "corpus" and source["name"] == "some.text"
    assert source["skipped"] == {} and str(tmp_path) not in json.dumps(source)
    assert seen[-1] == (len(data), len(data))
    if with_cache:
        # The second time no byte is hashed.
        seen.clear()
        again = opened(path, cache, progress=lambda *at: seen.append(at))
        assert again.source == source and seen == []
        assert left(cache) == {".json"}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("with_cache", [True, False])
def test_a_compressed_file_is_unpacked_once(suffix, with_cache, tmp_path):
    data = text_of()
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(PACKERS[suffix](data))
    cache = tmp_path / "deep" / "cache" if with_cache else None
    seen: list[tuple[int, int | None]] = []
    corpus = opened(path, cache, progress=lambda *at: seen.append(at))
    assert corpus.bytes_n.tobytes() == data and not corpus.bytes_n.flags.writeable
    assert corpus.source["sha256"] == hashlib.sha256(data).hexdigest()
    packed = path.read_bytes()
    assert corpus.source["file_sha256"] == hashlib.sha256(packed).hexdigest()
    assert seen[-1] == (len(packed), len(packed))
    if cache is not None:
        said = Said()
        again = open_corpus(str(path), cache=cache, say=said)
        assert said == [] and isinstance(again.bytes_n, np.memmap)
        assert again.source == corpus.source
        assert left(cache) == {".bytes", ".json"}


def test_several_frames_and_members_are_one_text(tmp_path):
    data = [text_of(20, seed) for seed in range(4)]
    for suffix, pack in PACKERS.items():
        path = tmp_path / f"parts{suffix}"
        path.write_bytes(b"".join(pack(part) for part in data))
        assert opened(path).bytes_n.tobytes() == b"".join(data)


def test_a_touched_cache_is_checked_and_a_damaged_one_made_anew(tmp_path):
    data, cache = text_of(), tmp_path / "cache"
    path = tmp_path / "corpus.xz"
    path.write_bytes(lzma.compress(data))
    before = opened(path, cache).source
    (kept,) = cache.glob("*.bytes")
    os.utime(kept, (1, 1))
    said = Said()
    assert open_corpus(str(path), cache=cache, say=said).source == before
    assert said == []
    kept.write_bytes(b"x" + data[1:])
    corpus = open_corpus(str(path), cache=cache, say=said)
    assert "is damaged, unpacking again" in said[0] and len(said) == 2
    assert corpus.bytes_n.tobytes() == data
    for damage in (lambda: kept.write_bytes(data[:-1]), kept.unlink):
        damage()
        assert opened(path, cache).bytes_n.tobytes() == data
    (description,) = cache.glob("*.json")
    description.write_text("{")
    assert opened(path, cache).source == before


def test_another_file_of_the_same_name_is_another_corpus(tmp_path):
    cache = tmp_path / "cache"
    for number, data in enumerate((b"a" * 500, b"b" * 500)):
        path = tmp_path / str(number) / "same.txt"
        path.parent.mkdir()
        path.write_bytes(data)
        os.utime(path, (1000, 1000))
        assert opened(path, cache).source["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_changed_file_is_told_by_its_fingerprint(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text_of(seed=1))
    seen = opened(path).source["fingerprint"]
    assert opened(path, expect=seen).source["fingerprint"] == seen
    path.write_bytes(text_of(seed=2))
    now = opened(path).source["fingerprint"]
    with pytest.raises(InputError, match=f"{now[:12]}, expected {seen[:12]}"):
        opened(path, expect=seen)
    path.write_bytes(text_of(seed=1))
    assert opened(path).source["fingerprint"] == seen
    other = opened(path, splits="train=0:100,validation=100:200,test=200:300")
    assert other.source["fingerprint"] != seen
    assert other.source["sha256"] == opened(path).source["sha256"]


# ---- shards -------------------------------------------------------------------------


def test_shards_become_documents_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "pile"
    (folder / "b").mkdir(parents=True)
    texts = {
        "00": ["one", "", "zwei\x1eLinien"],  # 0x1e ends documents, and this is one
        "01": ["trois é"],
        "b/02": ["x", "\ud800"],
    }
    contents = {name: shard(rows) for name, rows in texts.items()}
    (folder / "00.jsonl.zst").write_bytes(PACKERS[".zst"](contents["00"]))
    (folder / "01.jsonl").write_bytes(b"\n" + contents["01"].rstrip())
    (folder / "b" / "02.jsonl.gz").write_bytes(gzip.compress(contents["b/02"]))
    (folder / "README.md").write_text("not a shard")
    (folder / "._00.jsonl.zst").write_text("left by another system")
    corpus = opened(folder, splits="train=0:10,validation=10:12,test=12:14")
    expected = "one\x1e\x1ezwei\nLinien\x1etrois é\x1ex\x1e?\x1e".encode()
    assert corpus.bytes_n.tobytes() == expected
    assert corpus.source["documents"] == 6 and corpus.source["name"] == "pile"
    assert "file_sha256" not in corpus.source
    one = opened(folder / "01.jsonl", splits="train=0:1,validation=1:2,test=2:3")
    assert one.bytes_n.tobytes() == "trois é\x1e".encode()


def broken(kind: str, content: bytes) -> tuple[str, bytes]:
    """A broken shard: the end of its name, its bytes."""
    if kind == "cut":
        packed = zstandard.ZstdCompressor().compress(content)
        return ".jsonl.zst", packed[: len(packed) // 2]
    if kind == "cut gz":
        return ".jsonl.gz", gzip.compress(content)[:-9]
    if kind == "cut xz":
        return ".jsonl.xz", lzma.compress(content)[:-40]
    if kind == "not zstandard":
        return ".jsonl.zst", content
    if kind == "empty":
        return ".jsonl.zst", b""
    line = {
        "bad line": b'{"text": "half of a li',
        "no text": b'{"txt": "a"}\n',
        "no object": b'["text"]\n',
        "a number": b'{"text": 5}\n',
        "no UTF-8": b'{"text": "\xff"}\n',
        "too deep": b"[" * 10**5,
    }[kind]
    return ".jsonl", content + line


REASONS = {
    "cut": "is cut off",
    "cut gz": "is cut off",
    "cut xz": "is cut off",
    "not zstandard": "is not a .zst file or is damaged",
    "empty": "holds no documents",
    "bad line": "line 401 is not JSON",
    "no text": 'line 401 has no field "text"',
    "no object": 'line 401 has no field "text"',
    "a number": 'line 401 has no field "text"',
    "no UTF-8": "line 401 is not JSON",
    "too deep": "line 401 is not JSON",
}


@pytest.mark.parametrize("with_cache", [True, False])
@pytest.mark.parametrize("kind", REASONS)
def test_nothing_of_a_broken_shard_stays(kind, with_cache, tmp_path):
    folder = tmp_path / "pile"
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows = [f"bad {number}" for number in draw.integers(0, 10**9, 400)]
    end, content = broken(kind, shard(rows))
    (folder / f"1{end}").write_bytes(content)
    cache = tmp_path / "cache" if with_cache else None
    with pytest.raises(InputError, match=r"none of its 1 shards can be used; 1\.jsonl"):
        opened(folder, cache)
    if cache is not None:
        assert left(cache) == set()
    good = [f"good {number}" for number in range(100)]
    (folder / "0.jsonl").write_bytes(shard(good))
    (folder / "2.jsonl.zst").write_bytes(PACKERS[".zst"](shard(good)))
    said = Said()
    corpus = open_corpus(str(folder), cache=cache, say=said)
    data = "".join(f"{text}{END}" for text in good * 2).encode()
    assert corpus.bytes_n.tobytes() == data
    assert corpus.source["sha256"] == hashlib.sha256(data).hexdigest()
    assert corpus.source["documents"] == 200
    assert list(corpus.source["skipped"]) == [f"1{end}"]
    assert REASONS[kind] in corpus.source["skipped"][f"1{end}"]
    assert any(line.startswith(f"skipped 1{end}: ") for line in said)
    if cache is not None:
        assert opened(folder, cache).source == corpus.source


# ---- Python's own sources -----------------------------------------------------------


def test_without_a_corpus_it_is_the_standard_library(tmp_path):
    corpus = opened("", tmp_path)
    root = Path(sysconfig.get_paths()["stdlib"])
    documents = {}
    for name, (start, stop) in corpus.splits.items():
        pieces = corpus.bytes_n[start:stop].tobytes().split(b"\x1e")
        assert pieces.pop() == b""
        documents[name] = pieces
    everything = [piece for pieces in documents.values() for piece in pieces]
    assert len(everything) == corpus.source["documents"] > 300
    held = {hashlib.sha256(piece).digest() for piece in everything}
    for known in ("json/decoder.py", "argparse.py", "asyncio/events.py"):
        assert hashlib.sha256((root / known).read_bytes()).digest() in held
    for left_out in ("test/test_json", "site-packages"):
        for path in list((root / left_out).glob("*.py"))[:5]:
            assert hashlib.sha256(path.read_bytes()).digest() not in held or (
                path.stat().st_size < 500
            )
    edges = [edge for name in corpus.splits for edge in corpus.splits[name]]
    assert edges[0] == 0 and edges[-1] == len(corpus.bytes_n)
    assert edges[1] == edges[2] and edges[3] == edges[4]
    share = np.diff(edges)[::2] / len(corpus.bytes_n)
    assert abs(share - [0.9, 0.05, 0.05]).max() < 0.02
    assert corpus.source["source"] == "python" and "Python 3" in corpus.source["name"]
    assert opened("").source == corpus.source == opened("", tmp_path).source


# ---- the real corpus ----------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.skipif(not CLASSICS.exists(), reason="no ../shared/data/text")
def test_classics100_is_what_its_readme_says(tmp_path):
    corpus = opened(CLASSICS, tmp_path)
    source = corpus.source
    assert source["bytes"] == 100_000_000
    assert source["sha256"].startswith("bfcc5186af3efe0ddd1cffdb768adbb3")
    assert source["file_sha256"].startswith("23fcf567934547bb16be0bb8d16fa1e4")
    assert source["splits"] == {
        "train": [0, 90_000_000],
        "validation": [90_000_000, 95_000_000],
        "test": [95_000_000, 100_000_000],
    }
    digests = {
        name: hashlib.sha256(corpus.bytes_n[start:stop]).hexdigest()[:16]
        for name, (start, stop) in corpus.splits.items()
    }
    assert digests == {
        "train": "ef6375910684c467",
        "validation": "6065e08ba6263906",
        "test": "2eae9944610e4c9f",
    }
    counts = byte_counts(corpus.bytes_n, (0, 100_000_000))
    assert (counts > 0).sum() == 171
    assert unigram_nats(counts) == pytest.approx(3.085, abs=5e-4)


# ---- the command --------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working folder of a command; its home too, where the caches are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_prepare_tells_what_is_in_a_corpus(here, capsys):
    Path("some.xz").write_bytes(lzma.compress(text_of()))
    assert jaxbench(["prepare", "some.xz"]) == 0
    out = capsys.readouterr().out
    corpus = opened(here / "some.xz")
    assert corpus.source["fingerprint"] in out and "300 docu" in out
    counts = byte_counts(corpus.bytes_n, corpus.splits["validation"])
    assert f"{unigram_nats(counts):.4f}" in out
    assert left(here / "home/.cache/jaxbench/corpora") == {".bytes", ".json"}

    folder = here / "pile"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(shard(["good text\n"] * 50))
    (folder / "b.jsonl.zst").write_bytes(b"not zstandard")
    assert jaxbench(["prepare", "pile", "--cache="]) == 0
    out = capsys.readouterr().out
    assert "1 shards skipped" in out and "b.jsonl.zst: is not" in out


def test_prepare_refuses_in_one_line(here, capsys):
    for name in ("both", "neither"):
        Path(name).mkdir()
    Path("both/a.slp").touch()
    Path("both/a.jsonl").touch()
    Path("text").write_bytes(text_of())
    Path("cut.xz").write_bytes(lzma.compress(text_of())[:-50])
    for arguments, text in (
        ("nowhere", "nowhere: no such file or folder"),
        ("both", "both: holds both .slp replays and .jsonl.zst shards"),
        ("neither", "neither: holds neither .slp replays nor .jsonl.zst shards"),
        ("text --workers=2", "--max_files and --workers are for replays"),
        ("text --splits=train=0:5", "validation and test missing"),
        ("cut.xz", "cut.xz: is cut off"),
    ):
        assert jaxbench(["prepare", "--cache=cache", *arguments.split()]) == 2
        assert text in capsys.readouterr().err.splitlines()[-1]
        assert left(here / "cache") <= {".json"}
