"""Corpora that cannot be used: one clear line each, and nothing half-written."""

from __future__ import annotations

import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT
from test_corpus import PACKERS, left, opened, text_of

from jaxbench.data.corpus import splits as splits_module
from jaxbench.errors import InputError

# Opens a corpus slowly: argv is path, cache, seconds between two progress calls.
SLOWLY = """
import sys, time
from pathlib import Path
from jaxbench.data.corpus import open_corpus
def progress(done, total):
    print("at", done, total, flush=True)
    time.sleep(float(sys.argv[3]))
corpus = open_corpus(sys.argv[1], cache=Path(sys.argv[2]), progress=progress,
                     say=lambda line: print("say", line, flush=True))
print("sha256", corpus.source["sha256"], flush=True)
"""


def slowly(path: Path, cache: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOWLY, str(path), str(cache), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def noise() -> tuple[bytes, bytes]:
    """A text of several reads, hard to compress, and itself as an archive."""
    data = os.urandom(1_500_000)
    return data, lzma.compress(data, preset=0)


@pytest.fixture
def packed(noise, tmp_path) -> tuple[Path, bytes]:
    """The archive in a file, and its text."""
    path = tmp_path / "noise.xz"
    path.write_bytes(noise[1])
    return path, noise[0]


# ---- what cannot be a corpus --------------------------------------------------------


def test_paths_that_are_no_corpus(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "empty.gz").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("no shard")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nothing.xz").write_bytes(lzma.compress(b""))
    (tmp_path / "tiny").write_bytes(b"abc")
    for name, text in {
        "absent": "absent: no such file or folder; give a text file",
        "empty": "empty: is empty",
        "empty.gz": "empty.gz: is empty",
        "folder": "folder: holds no shards",
        "pipe": "pipe: is neither a file nor a folder",
        "loop": "loop: cannot be read",
        "nothing.xz": "nothing.xz: holds no bytes",
        "tiny": "3 bytes are too few to be split",
    }.items():
        with pytest.raises(InputError, match=text) as caught:
            opened(tmp_path / name, tmp_path / "cache")
        assert "\n" not in str(caught.value)
    assert left(tmp_path / "cache") <= {".json"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(text_of())
    path.chmod(0)
    with pytest.raises(InputError, match="secret: cannot be read"):
        opened(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_archives(suffix, tmp_path):
    cache, data = tmp_path / "cache", text_of(2000)
    path = tmp_path / f"corpus{suffix}"
    whole = PACKERS[suffix](data)
    # Archives of .zst may come without check sums: a changed byte is changed text.
    changed = b"" if suffix == ".zst" else whole[:-9] + b"?" + whole[-8:]
    for content, text in {
        whole[: len(whole) // 2]: "is cut off",
        whole[:-1]: "is cut off",
        data: f"is not a {suffix} file or is damaged",
        whole + b"more of something else": f"is not a {suffix} file or is damaged",
        whole + b"\x1f": "is .*cut off|is .*damaged",
        # A second part is read as strictly as the first.
        whole + whole[: len(whole) // 2]: "is cut off",
        whole + b"?" + whole[1:]: "is .*damaged",
        whole + (changed or b"?"): "is .*cut off|is .*damaged",
    }.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"corpus{suffix}: {text}"):
            opened(path, cache)
        with pytest.raises(InputError, match=text):
            opened(path)
    assert left(cache) == set()
    path.write_bytes(whole)
    assert opened(path, cache).bytes_n.tobytes() == data
    path.write_bytes(whole + whole)
    assert opened(path).bytes_n.tobytes() == 2 * data


def test_between_streams_of_xz_lie_zeros_in_fours(tmp_path):
    data, path = text_of(2000), tmp_path / "corpus.xz"
    whole = lzma.compress(data)
    for zeros in (4, 1 << 17):
        path.write_bytes(whole + bytes(zeros) + whole + bytes(zeros))
        assert opened(path).bytes_n.tobytes() == 2 * data
    for content in (whole + bytes(3), whole + bytes(5) + whole, bytes(4) + whole):
        path.write_bytes(content)
        with pytest.raises(InputError, match="or is damaged"):
            opened(path)


@pytest.mark.parametrize("suffix", [*PACKERS, ".zip", ".bz2"])
def test_compressed_bytes_under_a_plain_name_are_not_taken_for_text(suffix, tmp_path):
    import bz2
    import io
    import zipfile

    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("enwik8", text_of())
    packers = {
        **PACKERS,
        ".bz2": bz2.compress,
        ".zip": lambda data: stored.getvalue(),
    }
    path = tmp_path / "enwik8"
    path.write_bytes(packers[suffix](text_of()))
    with pytest.raises(InputError, match=f"holds {suffix} data under another name"):
        opened(path)


def test_a_file_that_changes_while_it_is_read(packed, tmp_path):
    path, _ = packed
    cache = tmp_path / "cache"

    def change(done: int, total: int | None) -> None:
        os.utime(path, (5, 5))

    with pytest.raises(InputError, match="changed while it was read"):
        opened(path, cache, progress=change)
    assert left(cache) == set()


# ---- splits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("train=0:50,validation=50:60,test=60:101", "ends outside .* has 100 bytes"),
        ("train=0:50,validation=40:60,test=60:70", "train and validation overlap"),
        ("train=0:50,validation=60:55,test=60:70", "60:55 is empty or reversed"),
        ("train=0:50,validation=50:50,test=60:70", "50:50 is empty or reversed"),
        ("train=0:50,valid=50:60,test=60:70", "no split 'valid'; nearest: validation"),
        ("train=0:50,train=50:60,test=60:70", "train is given twice"),
        ("train=0:50,test=60:70", "validation missing"),
        ("train=0:50,validation=50,test=60:70", "lacks the colon"),
        ("train=0:5x,validation=50:60,test=60:70", "'5x' in .* is no byte offset"),
        ("train=-1:5,validation=50:60,test=60:70", "'-1' in .* is no byte offset"),
        ("train=0:,validation=50:60,test=60:70", "'' in .* is no byte offset"),
        ("train", "lacks the colon"),
        (",", "no split ''"),
    ],
)
def test_unusable_splits(text, message, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"0123456789" * 10)
    with pytest.raises(InputError, match=message):
        opened(path, splits=text)


def test_splits_as_they_are_written(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"0123456789" * 1000)
    text = "test=9k:10_000, validation=8000:8500,train=0:7K"
    corpus = opened(path, splits=text)
    expected = {"train": (0, 7000), "validation": (8000, 8500), "test": (9000, 10000)}
    assert corpus.splits == expected and list(corpus.splits) == list(expected)


def test_default_splits_begin_where_documents_begin(tmp_path, monkeypatch):
    path = tmp_path / "text"
    data = bytearray(b"word " * 2000)
    data[9020] = data[9060] = 0x1E
    data[9010] = data[9540] = ord("\n")
    path.write_bytes(data)
    assert list(opened(path).splits.values()) == [
        (0, 9021),
        (9021, 9541),
        (9541, 10000),
    ]
    path.write_bytes(b"word " * 2000)
    assert list(opened(path).splits.values()) == [
        (0, 9000),
        (9000, 9500),
        (9500, 10000),
    ]
    path.write_bytes(data)
    monkeypatch.setattr(splits_module, "ENWIK8_BYTES", 10_000)
    assert list(opened(path).splits.values()) == [
        (0, 9000),
        (9000, 9500),
        (9500, 10000),
    ]


def test_splits_beside_the_file(tmp_path):
    path, beside = tmp_path / "book.xz", tmp_path / "book.split.json"
    path.write_bytes(lzma.compress(b"x" * 1000))
    beside.write_text(
        '{"train": [["a", 0, 300], ["b", 300, 400]], "val": [["c", 0, 100]],'
        ' "test": [["d", 0, 150], ["e", 150, 50]]}'
    )
    expected = {"train": (0, 700), "validation": (700, 800), "test": (800, 1000)}
    assert opened(path).splits == expected
    beside.write_text(
        '{"train": [0, 600], "validation": [600, 700], "test": [900, 950]}'
    )
    assert opened(path).splits["test"] == (900, 950)
    beside.write_text(
        '{"train": [0, 600], "validation": [600, 700], "test": [900, 1950]}'
    )
    with pytest.raises(InputError, match=r"book.split.json: .* ends outside book.xz"):
        opened(path)
    for text in ("{", "[]", '{"train": 5}', '{"train": [], "val": [], "test": []}'):
        beside.write_text(text)
        with pytest.raises(InputError, match="does not say where train, val and test"):
            opened(path)
    given = "train=0:10,validation=10:20,test=20:30"
    assert opened(path, splits=given).splits["test"] == (20, 30)


# ---- the disk, and other processes --------------------------------------------------


@pytest.mark.integration
def test_a_full_disk(packed, tmp_path):
    """A limit on the size of files is what a full disk looks like to a process."""
    path, _ = packed
    cache = tmp_path / "cache"
    code = (
        "import resource, sys; from pathlib import Path;"
        "from jaxbench.data.corpus import open_corpus;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000));"
        "open_corpus(sys.argv[1], cache=Path(sys.argv[2]), say=print)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(cache)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jaxbench.errors.InputError: no space left on the disk of")
    assert left(cache) == set()


def test_a_cache_that_cannot_be_written(packed, tmp_path):
    path, data = packed
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"the cache .*file/cache cannot be written"):
        opened(path, tmp_path / "file" / "cache")
    raw = tmp_path / "raw"
    raw.write_bytes(text_of())
    corpus = opened(raw, tmp_path / "file" / "cache")
    assert corpus.bytes_n.tobytes() == text_of()
    assert opened(path).bytes_n.tobytes() == data


@pytest.mark.integration
def test_killed_while_unpacking_and_started_again(packed, tmp_path):
    path, data = packed
    cache = tmp_path / "cache"
    process = slowly(path, cache, 0.05)
    size = path.stat().st_size
    for line in process.stdout:
        if line.startswith("at ") and int(line.split()[1]) > size // 2:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    assert left(cache) == {".partial"}
    corpus = opened(path, cache)
    assert corpus.bytes_n.tobytes() == data
    assert left(cache) == {".bytes", ".json"}


@pytest.mark.integration
def test_two_processes_unpack_it_once(packed, tmp_path):
    path, data = packed
    cache = tmp_path / "cache"
    first = slowly(path, cache, 0.05)
    line = first.stdout.readline()
    assert line.startswith("say unpacking noise.xz")
    second = slowly(path, cache, 0.0)
    start = time.time()
    outputs = [process.communicate(timeout=60)[0] for process in (second, first)]
    assert time.time() - start > 0.5
    assert "another process unpacks this corpus" in outputs[0]
    assert "unpacking noise.xz" not in outputs[0] and "at " not in outputs[0]
    digests = {output.splitlines()[-1] for output in outputs}
    assert len(digests) == 1 and digests.pop().startswith("sha256 ")
    assert left(cache) == {".bytes", ".json"}
    assert opened(path, cache).bytes_n.tobytes() == data
