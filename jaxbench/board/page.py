"""A board as one HTML page that makes no request: data, style, script inside.

The script draws tables and pictures from the board's dict in the browser, so that type
keeps its size on a phone and labels are placed by their true width.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from typing import Any

from jaxbench.board.plots import limits
from jaxbench.board.write import (
    Board,
    axis,
    capital,
    columns_of,
    folds,
    label,
    markdown_text,
    show,
    texts,
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{css}
</style>
</head>
<body>
<noscript><p>Tables and pictures of this page need JavaScript; without it, the same as
Markdown:</p><pre>{markdown}</pre></noscript>
<script type="application/json" id="board">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def page_text(board: Board) -> str:
    """The whole page. Only its own script may run; text of results is never markup."""
    script = "".join(_file(name) for name in ("draw.js", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = json.dumps(
        _shown(board), allow_nan=False, ensure_ascii=False, separators=(",", ":")
    )
    return PAGE.format(
        title=escape(board["title"]),
        policy="default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
        css=_file("page.css"),
        markdown=escape(markdown_text(board)),
        # "</script>" and "<!--" would end or hide the element that holds the data.
        data=data.replace("<", "\\u003c"),
        script=script,
    )


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _shown(board: Board) -> dict[str, Any]:
    """The dict with what people read beside its numbers, and limits for pictures."""
    columns = [c | {"title": label(c), "axis": axis(c)} for c in board["columns"]]
    drawn = {
        figure[axis] for figure in board["figures"] for axis in "xy" if figure.get(axis)
    }
    drawn |= {need["column"] for need in board["needs"] if need["column"]}
    drawn |= {board["score"]} if board["columns"] else set()
    by_key = columns_of(board)
    return {
        **board,
        "needs": [n | {"need": capital(n["need"])} for n in board["needs"]],
        "columns": columns,
        "rows": [{**row, "texts": texts(board, row)} for row in board["rows"]],
        "floors": [_floor(board, floor) for floor in board["floors"]],
        "limits": {key: limits(board, key) for key in sorted(drawn) if key in by_key},
        "folds": folds(board),
        "parts": [_shown(part) for part in board.get("parts") or ()],
    }


def _floor(board: Board, floor: dict[str, Any]) -> dict[str, Any]:
    cells = {board["score"]: floor["value"]} | (floor.get("cells") or {})
    by_key = columns_of(board)
    said = {
        key: show(by_key[key], value) for key, value in cells.items() if key in by_key
    }
    return {**floor, "cells": cells, "texts": said}
