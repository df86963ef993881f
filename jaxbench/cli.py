"""The `jaxbench` command: what surrounds single runs (`run.py` makes those)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxbench import __version__
from jaxbench.cli_examples import (
    LATENCY,
    LEADERBOARD,
    LIST,
    PREPARE,
    SAMPLE,
    SCORE,
    SUITE,
    THROUGHPUT,
)
from jaxbench.errors import InputError

DEFAULT_CACHE = "~/.cache/jaxbench"

EXIT_CODES = """exit codes: 0 all is well; 1 something that ran did not end ok;
2 unusable input, one line says what; 143 interrupted (the same command goes on)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 after one line about unusable input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    overrides = [a for a in rest if a.startswith("--config.")]
    if rest != (overrides if options.name == "suite" else []):
        unknown = [a for a in rest if options.name != "suite" or a not in overrides]
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.overrides, options.given = overrides, given
    try:
        return options.command(options)
    except InputError as error:
        print(f"jaxbench {options.name}: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxbench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_prepare(commands)
    _add_suite(commands)
    _add_measure(commands)
    _add_text(commands)
    _add_leaderboard(commands)
    return parser


def _command(commands: Any, name: str, what: str, examples: str, run: Any) -> Any:
    """A subcommand whose --help ends with examples."""
    command = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"examples:\n{examples.rstrip()}\n\n{EXIT_CODES}",
        allow_abbrev=False,
    )
    command.set_defaults(command=run)
    return command


def _add_list(commands: Any) -> None:
    rows = _command(commands, "list", "print the table of backbones", LIST, _list)
    rows.add_argument("--json", action="store_true", help="as JSON, for programs")
    rows.add_argument("--markdown", action="store_true", help="as a Markdown table")
    rows.add_argument(
        "--sizes", action="store_true", help="with parameters and bytes of state"
    )
    rows.add_argument("--width", type=int, default=256, help="default: %(default)s")
    rows.add_argument("backbone", nargs="?", help="one backbone: its whole page")
    rows.add_argument(
        "--pages",
        type=Path,
        metavar="FOLDER",
        help="write everyone's page there",
    )
    rows.add_argument("--task", help="pile: sizes of byte-level language models")
    rows.add_argument(
        "--size", help="of --task: 1m, 10m, 100m (default), 350m or published"
    )


def _add_prepare(commands: Any) -> None:
    prepare = _command(
        commands,
        "prepare",
        "read replays or a text corpus into the cache and say what is in them",
        PREPARE,
        _prepare,
    )
    prepare.add_argument(
        "data",
        type=Path,
        help="folder of .slp files; text: any file (.xz, .gz, .zst), or a file or "
        "folder of .jsonl.zst shards",
    )
    prepare.add_argument(
        "--cache", help=f"default: {DEFAULT_CACHE}/replays or {DEFAULT_CACHE}/corpora"
    )
    prepare.add_argument(
        "--max_files", type=int, help="replays: so many at most (0 for all)"
    )
    prepare.add_argument("--workers", type=int, help="replays: 0 for one per core")
    prepare.add_argument(
        "--splits",
        default="",
        help="text: train=0:90M,validation=90M:95M,test=95M:100M",
    )


def _add_suite(commands: Any) -> None:
    suite = _command(
        commands,
        "suite",
        "run many backbones, each in its own process, and make their leaderboard",
        SUITE,
        _suite,
    )
    suite.add_argument(
        "--config",
        required=True,
        action="append",
        metavar="FILE[:TEXT]",
        help="recipe, once or several times; any of its fields as --config.KEY=VALUE "
        "too",
    )
    suite.add_argument("--folder", type=Path, help="default: runs/suites/TASK-...")
    suite.add_argument(
        "--only",
        default="",
        help="names, patterns or groups, with commas; groups: original (the 34 of "
        "zelda's benchmark), elman (the byte-level models of pile's)",
    )
    suite.add_argument("--skip", default="", help="the same, to leave out")
    suite.add_argument(
        "--seeds", default="1", help="how many, or which: 5, or 0,3,7 (default: 1)"
    )
    suite.add_argument("--epochs", type=int, help="the same as --config.train.epochs")
    suite.add_argument(
        "--jobs", type=int, default=0, help="runs at once (0: one for each GPU, or 1)"
    )
    suite.add_argument(
        "--timeout", default="0", help="stop a run after 90s, 30m, 2h (0: never)"
    )
    suite.add_argument(
        "--hang",
        default="20m",
        help="stop a run that shows no sign of progress for so long (default: 20m)",
    )
    suite.add_argument(
        "--memory_limit",
        help="fit each run to 8GB, 800MB (default: what the device has)",
    )
    suite.add_argument(
        "--sweep",
        nargs="?",
        const="",
        metavar="RATES",
        help="first find each backbone's learning rate on one shared grid",
    )
    suite.add_argument(
        "--side_by_side",
        action="store_true",
        help="train the seeds and rates of a backbone as one program",
    )
    suite.add_argument(
        "--retry", action="store_true", help="run again what did not end ok"
    )
    suite.add_argument(
        "--dry_run", action="store_true", help="say what would run, and run nothing"
    )


def _add_measure(commands: Any) -> None:
    latency = _command(
        commands,
        "latency",
        "time trained policies frame by frame: do they make 60 frames a second",
        LATENCY,
        _measure,
    )
    throughput = _command(
        commands,
        "throughput",
        "time training steps, and say how much of the device they use",
        THROUGHPUT,
        _measure,
    )
    for command in (latency, throughput):
        command.add_argument(
            "folders", nargs="+", type=Path, help="run folders, or folders of them"
        )
        command.add_argument(
            "--again", action="store_true", help="measure anew what is measured"
        )
    latency.add_argument(
        "--frames", type=int, default=2000, help="calls timed (default: %(default)s)"
    )
    throughput.add_argument(
        "--repeats", type=int, default=5, help="groups timed (default: %(default)s)"
    )


def _add_text(commands: Any) -> None:
    sample = _command(
        commands, "sample", "continue a prompt with a language run", SAMPLE, _sample
    )
    sample.add_argument("folder", type=Path, help="of a finished run of pile")
    sample.add_argument("--prompt", default="", help="text, or bytes with --hex")
    sample.add_argument("--prompt_file", type=Path, help="read the prompt from it")
    sample.add_argument("--hex", action="store_true", help="prompt is hexadecimal")
    sample.add_argument("--bytes", type=int, default=500, help="default: %(default)s")
    sample.add_argument("--temperature", type=float, default=0.8, help="0: likeliest")
    sample.add_argument("--seed", type=int, default=0, help="of the draws")
    score = _command(
        commands, "score", "score language runs on held-out text", SCORE, _score
    )
    score.add_argument("folders", nargs="+", type=Path, help="of finished runs of pile")
    score.add_argument("--split", default="test", help="default: %(default)s")
    score.add_argument(
        "--carry", action="store_true", help="carry the state from window to window"
    )
    for command in (sample, score):
        command.add_argument("--which", default="best", help="best or last weights")


def _add_leaderboard(commands: Any) -> None:
    board = _command(
        commands,
        "leaderboard",
        "rank finished runs: Markdown, CSV and one HTML page",
        LEADERBOARD,
        _leaderboard,
    )
    board.add_argument(
        "folders", nargs="+", type=Path, help="run folders, or folders of them"
    )
    board.add_argument(
        "--out", type=Path, help="where to write (default: the first folder)"
    )


def _list(options: argparse.Namespace) -> int:
    from jaxbench.models.backbone import table

    if options.width < 1:
        raise InputError(f"--width={options.width} must be at least 1")
    if options.task is not None or options.size is not None:
        from jaxbench.bench.sizes_table import sizes_command

        return sizes_command(options)
    if options.backbone is not None:
        return _page(options)
    if options.pages is not None:
        from jaxbench.bench.pages import write_pages

        written = write_pages(options.pages, width=options.width)
        print(f"{len(written)} pages in {options.pages}")
        return 0
    rows = table()
    if options.sizes:
        _add_sizes(rows, options.width)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = ["name", "what", "pattern", "channel", "layers", "causal", "streams"]
    columns += ["parameters", "state bytes"] if options.sizes else []
    columns.append("paper")
    lines = [table_cells(row, columns) for row in rows]
    if options.markdown:
        print(f"# {len(rows)} backbones\n")
        if options.sizes:
            print(f"Width {options.width}, own depth, state of one sequence.\n")
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    shown = Table(title=f"{len(rows)} backbones", title_justify="left")
    for column in columns:
        shown.add_column(column)
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    console.print(
        "Patterns are backbones too: mamba*2+swa, mamba/moe with another channel "
        "mixer, (mamba*2+@swa)*3 with @ for shared weights.",
        highlight=False,
        markup=False,
    )
    return 0


def _page(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markdown import Markdown

    from jaxbench.bench.pages import page

    text = page(options.backbone, width=options.width)
    console = Console()
    if options.markdown or not console.is_terminal:
        print(text)
    else:
        console.print(Markdown(text))
    return 0


def _add_sizes(rows: list[dict[str, Any]], width: int) -> None:
    """Adds parameters and state bytes; a row that only feeds another has none alone."""
    from rich.console import Console
    from rich.progress import track

    from jaxbench.models.build import sizes
    from jaxbench.models.zoo import ROWS

    console = Console(stderr=True)
    for row in track(rows, "sizes", console=console, disable=not console.is_terminal):
        if ROWS[row["name"]].join == "next":
            row["parameters"] = row["state bytes"] = None
        else:
            row["parameters"], row["state bytes"] = sizes(row["name"], width)


def table_cells(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Returns the texts of one row of the table `jaxbench list` prints."""
    streams = row["streams"] if row["temporal"] else "each frame alone"
    if row["window"]:
        streams = f"window of {row['window']}"
    cells = {
        **row,
        "name": ", ".join([row["name"], *row["aliases"]]),
        "what": row["title"] + (f" ({row['note']})" if row["note"] else ""),
        "layers": row["depth"],
        "causal": "yes" if row["causal"] else "in its window no",
        "streams": streams,
    }
    numbers = ("parameters", "state bytes")
    return [
        "-" if cells[c] is None else f"{cells[c]:,}" if c in numbers else str(cells[c])
        for c in columns
    ]


def _sample(options: argparse.Namespace) -> int:
    _as_the_run_was(options.folder)
    from jaxbench.bench.decode import sample_command

    return sample_command(options)


def _score(options: argparse.Namespace) -> int:
    _as_the_run_was(options.folders[0])
    from jaxbench.bench.score import score_command

    return score_command(options)


def _as_the_run_was(folder: Path) -> None:
    """Sets what XLA reads from the environment as the run's config says."""
    from jaxbench.bench.environment import apply_environment, xla_environment
    from jaxbench.bench.run_folder import read_json

    config = read_json(folder / "config.json")
    if config is not None:
        apply_environment(xla_environment(config["xla"]))


def _measure(options: argparse.Namespace) -> int:
    from jaxbench.bench.measure_command import measure_command

    return measure_command(options)


def _leaderboard(options: argparse.Namespace) -> int:
    from jaxbench.bench.leaderboard import write_leaderboard

    out = options.out or options.folders[0]
    write_leaderboard(options.folders, out)
    print(f"leaderboard: {out / 'leaderboard.html'}")
    return 0


def _suite(options: argparse.Namespace) -> int:
    from jaxbench.bench.suite.command import suite_command

    return suite_command(options)


def _prepare(options: argparse.Namespace) -> int:
    from jaxbench.bench.corpus_command import holds_text, prepare_corpus

    if (options.max_files or 0) < 0 or (options.workers or 0) < 0:
        raise InputError("--max_files and --workers must not be negative")
    data = options.data.expanduser()
    text = holds_text(data)
    cache = options.cache
    if cache is None:
        cache = f"{DEFAULT_CACHE}/{'corpora' if text else 'replays'}"
    cache_dir = Path(cache).expanduser() if cache else None
    if not text:
        return _prepare_replays(options, data, cache_dir)
    if options.max_files is not None or options.workers is not None:
        raise InputError(f"{data} is text: --max_files and --workers are for replays")
    return prepare_corpus(str(data), splits=options.splits, cache=cache_dir)


def _prepare_replays(
    options: argparse.Namespace, folder: Path, cache: Path | None
) -> int:
    from jaxbench.data.replays import describe, load_replays

    if options.splits:
        raise InputError("--splits is for a text corpus: a file or a folder of shards")
    games, _ = load_replays(
        folder,
        max_files=options.max_files or 0,
        workers=options.workers or 0,
        cache_dir=cache,
    )
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(games)} games", title_justify="left")
    table.add_column("character")
    for column in ("games", "perspectives", "frames"):
        table.add_column(column, justify="right")
    for row in describe(games):
        counts = (row.games, row.perspectives, row.frames)
        table.add_row(row.name, *(f"{count:,}" for count in counts))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
