"""`jaxbench leaderboard`: from folders of results to the files of a board."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxbench.board.board import make_board
from jaxbench.board.page import page_text
from jaxbench.board.plots import png
from jaxbench.board.write import Board, csv_text, markdown_text
from jaxbench.errors import InputError

NAME = "leaderboard"


def leaderboard_command(options: argparse.Namespace) -> int:
    """Writes the board and prints its answers; with `--json` prints the dict alone."""
    if options.json:
        print(json.dumps(make_board(options.folders), indent=1, allow_nan=False))
        return 0
    board = write_leaderboard(options.folders, options.out or options.folders[0])
    print(answers(board))
    print(f"leaderboard: {(options.out or options.folders[0]) / NAME}.html")
    return 0


def answers(board: Board) -> str:
    """What the board answers, in lines: the question, each need, what is not known."""
    said = [f"{need['need']}: {need['answer']}" for need in board["needs"]]
    return "\n".join([board["question"], *said, *board["unknown"]])


def write_leaderboard(folders: Sequence[Path], out: Path) -> Board:
    """Makes the board of the results under `folders` and writes `out`/leaderboard.*

    They are Markdown, CSV, one HTML page, and the first picture as PNG where a row has
    a score. All are written or none.

    Returns:
      The board, as `jaxbench.board.board.make_board` makes it.

    Raises:
      InputError: no result can be read, or the files cannot be written.
    """
    board = make_board(folders)
    picture = png(board)
    name = f"{NAME}.png"
    contents = {
        f"{NAME}.md": markdown_text(board, name if picture else "").encode(),
        f"{NAME}.csv": csv_text(board).encode(),
        f"{NAME}.html": page_text(board).encode(),
        name: picture,
    }
    _write({Path(out) / name: content for name, content in contents.items()})
    return board


def _write(contents: Mapping[Path, bytes | None]) -> None:
    """Writes all files or none; a file without content is removed."""
    partials = {path: path.with_name(f"{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                partials[path].write_bytes(content)
        for path, content in contents.items():
            if content is not None:
                os.replace(partials[path], path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        for partial in partials.values():
            if partial.is_file():
                partial.unlink()
        raise InputError(
            f"cannot write the leaderboard to {next(iter(contents)).parent}: "
            f"{error.strerror}; name another --out"
        ) from error
