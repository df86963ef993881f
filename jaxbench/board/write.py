"""A board as Markdown and CSV: what both write, from the board's dict alone.

A board is the dict that `jaxbench leaderboard --json` prints (`jaxbench.board.board`).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Board = Mapping[str, Any]
# Columns that every board has.
TITLES = {
    "interval": "95 % interval",
    "rank": "places",
    "seeds": "seeds",
    "status": "status",
}
_BINARY = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_DECIMAL = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def show(column: Mapping[str, Any], value: Any) -> str:
    """A cell as people read it, without its unit where the column's label has it.

    Args:
      column: `unit` "B" and "FLOP" are scaled, "%" is a share from 0 to 1; `digits` are
        decimals, None for three significant digits.
      value: number or text; nothing is shown for None.
    """
    if value is None:
        return ""
    if isinstance(value, (str, bool)):
        return {True: "yes", False: "no"}.get(value, str(value))
    unit, digits = column.get("unit"), column.get("digits")
    for units, known in ((_BINARY, "B"), (_DECIMAL, "FLOP")):
        if unit == known:
            prefix, size = next((u for u in units if abs(value) >= u[1]), ("", 1))
            end = prefix if unit == "B" and prefix else prefix + known
            return f"{_three(value / size)} {end}"
    if unit == "%":
        return f"{100 * value:.{1 if digits is None else digits}f} %"
    return _three(value) if digits is None else f"{value:,.{digits}f}"


def _three(value: float) -> str:
    """Three significant digits, never as 1e+03."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2g}"
    text = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def label(column: Mapping[str, Any]) -> str:
    """A column's name with its unit."""
    unit = column.get("unit")
    return (
        f"{column['label']}, {unit}"
        if unit and unit not in "B%FLOP"
        else column["label"]
    )


def columns_of(board: Board) -> dict[str, Mapping[str, Any]]:
    """The board's columns by key."""
    return {column["key"]: column for column in board["columns"]}


def score_column(board: Board) -> Mapping[str, Any]:
    """The column that sorts."""
    return columns_of(board)[board["score"]]


def mean_of(row: Mapping[str, Any]) -> float | None:
    """A row's score; None without one, or where failed seeds make it infinite."""
    return row["score"] and row["score"]["mean"]


def ordered(board: Board) -> list[Mapping[str, Any]]:
    """Rows, the best score first; those without a score last, by name."""
    sign = -1 if score_column(board)["better"] == "high" else 1

    def place(row: Mapping[str, Any]) -> tuple[bool, float, str]:
        mean = mean_of(row)
        return mean is None, sign * (mean or 0.0), row["name"]

    return sorted(board["rows"], key=place)


def texts(board: Board, row: Mapping[str, Any]) -> dict[str, str]:
    """What people read in the cells of a row, by key of their column."""
    found = {
        key: show(c, row["cells"].get(key)) for key, c in columns_of(board).items()
    }
    score, column = row["score"], score_column(board)
    if score:
        found[board["score"]] = show(column, score["mean"])
    ends = [score[end] for end in ("low", "high")] if score else [None]
    first, last = row["rank"] or (None, None)
    return found | {
        "interval": "" if None in ends else " to ".join(show(column, e) for e in ends),
        "rank": " to ".join(str(place) for place in dict.fromkeys((first, last)) if place),
        "seeds": str(row["seeds"]),
        "status": row["status"],
    }  # fmt: skip


def boards(
    board: Board, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Board]]:
    """The board and all boards inside it, each with the titles above it."""
    yield path, board
    for part in board.get("parts") or ():
        yield from boards(part, (*path, part["title"]))


def csv_text(board: Board) -> str:
    """All rows and floors as CSV, numbers in full; one line of columns for all parts.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    lines: list[dict[str, Any]] = []
    for path, part in boards(board):
        about = {"board": ": ".join(path) or part["title"], "task": part["task"],
                 "protocol": part["protocol"]}  # fmt: skip
        for row in ordered(part) if part["rows"] else ():
            score, rank = row["score"] or {}, row["rank"] or (None, None)
            lines.append(
                about
                | {"kind": "row"}
                | {key: row[key] for key in ("name", "backbone", "family", "status")}
                | {key: row[key] for key in ("seeds", "swept", "takes_part", "tier")}
                | {"score": part["score"]}
                | {f"score_{key}": score.get(key) for key in ("mean", "low", "high")}
                | {"score_values": " ".join(map(repr, score.get("values", ())))}
                | {"rank_low": rank[0], "rank_high": rank[1]}
                | {key: row["cells"].get(key) for key in columns_of(part)}
                | {"reason": row["reason"], "why_not": row["why_not"]}
            )
        for floor in part["floors"] if part["columns"] else ():
            cells = floor.get("cells") or {part["score"]: floor["value"]}
            value = {"score": part["score"], "score_mean": floor["value"]}
            lines.append(
                about | {"kind": "floor", "name": floor["name"]} | value | cells
            )
    file = io.StringIO()
    names = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(_inert, names))
    writer.writerows([_inert(line.get(name)) for name in names] for line in lines)
    return file.getvalue()


def _inert(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.lstrip()[:1] in tuple("=+-@|%"):
        return "'" + value
    return value


def markdown_text(board: Board, picture: str = "") -> str:
    """The board as Markdown: answers, picture, tables, failures, how it was made.

    Args:
      board: the dict of `jaxbench.board.board`.
      picture: file name of the PNG beside it; empty for none.
    """
    lines: list[str] = []
    for path, part in boards(board):
        level = "#" * (1 + len(path))
        lines += [f"{level} {plain(part['title'])}", _answers(part)]
        if picture and not path:
            lines.append(f"![{plain(part['question'])}]({picture})")
        lines += _tables(part, level + "#") if part["rows"] else []
        lines += _notes(part, level + "#")
    return "\n\n".join(line for line in lines if line) + "\n"


def plain(text: Any) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no end of a cell."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", flat).replace("&", "&amp;")


def capital(words: str) -> str:
    """With its first letter in upper case."""
    return words[:1].upper() + words[1:]


def _answers(part: Board) -> str:
    said = [f"**{plain(capital(need['need']))}.** {plain(need['answer'])}"
            for need in part["needs"]]  # fmt: skip
    said += [plain(sentence) for sentence in part["unknown"]]
    items = "\n".join(f"- {line}" for line in said)
    return f"{plain(part['question'])}\n\n{items}" if items else plain(part["question"])


def _tables(part: Board, level: str) -> list[str]:
    """One table a view; the first begins with score, interval and places."""
    own = [part["score"], "interval", "rank", "seeds"]
    columns = columns_of(part)
    shown = [(row["name"], texts(part, row), row) for row in ordered(part)]
    found = []
    for number, view in enumerate(part["views"] or [{"name": "score", "columns": []}]):
        keys = [k for k in view["columns"] if k not in own and k in columns]
        keys = [*own, *keys, "status"] if number == 0 else keys
        keys = [k for k in keys if any(cells.get(k) for _, cells, _ in shown)]
        if not keys:
            continue
        titles = TITLES | {key: label(column) for key, column in columns.items()}
        body = [
            [plain(name), *(plain(cells.get(k, "")) for k in keys)]
            for name, cells, _ in shown
        ]
        if number == 0:
            body = _with_floors(part, shown, body, keys)
        found += [f"{level} {plain(capital(view['name']))}"]
        found += [table(["row", *(plain(titles[k]) for k in keys)], body)]
    return found


def _with_floors(
    part: Board, shown: Sequence[Any], body: list[list[str]], keys: Sequence[str]
) -> list[list[str]]:
    """The lines of rows, with those of floors where their values put them."""
    high = score_column(part)["better"] == "high"
    lines = [(mean_of(row), line) for (*_, row), line in zip(shown, body, strict=True)]
    for floor in sorted(part["floors"], key=lambda f: f["value"], reverse=high):
        value = floor["value"]
        behind = (
            i
            for i, (other, _) in enumerate(lines)
            if other is None or (other < value if high else other > value)
        )
        place = next(behind, len(lines))
        cells = {part["score"]: show(score_column(part), value)}
        name = f"*floor: {plain(floor['name'])}*"
        lines.insert(place, (value, [name, *(cells.get(key, "") for key in keys)]))
    return [line for _, line in lines]


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown; the first column to the left."""
    rules = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *lines))


def _notes(part: Board, level: str) -> list[str]:
    """What takes no part, failures, the search for rates, published numbers, how."""
    found = []
    reasons: dict[str, list[str]] = {}
    for row in part["rows"]:
        if row["why_not"]:
            reasons.setdefault(row["why_not"], []).append(row["name"])
    items = [
        f"- {plain(why)}: {plain(', '.join(names))}" for why, names in reasons.items()
    ]
    if items:
        found += [f"{level} Takes no part in any claim", "\n".join(items)]
    failures = [
        f"- **{plain(f['name'])}**{_seed(f)}: {plain(f['status'])}. {plain(f['reason'])}"
        for f in failures_of(part)
    ]
    if failures:
        found += [f"{level} Not ok ({len(failures)})", "\n".join(failures)]
    sweep = part.get("sweep") or []
    if sweep:
        score = score_column(part)
        rates = sorted({rate for line in sweep for rate, _ in line["points"]})
        body = []
        for line in sweep:
            points = dict(map(tuple, line["points"]))
            cells = [show(score, points.get(rate)) for rate in rates]
            best = "" if line["best"] is None else f"{line['best']:g}"
            body.append(
                [plain(line["backbone"]), *cells, best + ", at the edge" * line["edge"]]
            )
        header = ["row", *(f"{rate:g}" for rate in rates), "chosen"]
        found += [f"{level} Search for the learning rate", table(header, body)]
    published = part.get("published")
    if published:
        cells = [[plain(cell) for cell in line] for line in published["rows"]]
        found += [f"{level} Published numbers beside these"]
        found += [table([plain(name) for name in published["header"]], cells)]
        found += ["\n".join(f"- {plain(line)}" for line in published["remarks"])]
    facts = [f"- {name}: {plain('; '.join(said))}" for name, said in how(part)]
    return [
        *found,
        *([f"{level} How this was made", "\n".join(facts)] if facts else []),
    ]


def failures_of(part: Board) -> list[Mapping[str, Any]]:
    """Runs that are not ok; where the board has no list of them, rows that are not."""
    rows = [row for row in part["rows"] if row["status"] != "ok"]
    return part["failures"] if "failures" in part else rows


def _seed(failure: Mapping[str, Any]) -> str:
    return "" if failure.get("seed") is None else f", seed {failure['seed']}"


def how(part: Board) -> list[tuple[str, list[str]]]:
    """Headings and sentences on how a board was made; what is not known is left out."""
    facts, names = part["how"], {
        "command": "Command", "data": "Data", "splits": "Splits", "devices": "Devices",
        "versions": "Versions", "statistics": "Statistics", "left_out": "Left out",
        "does_not_say": "What it does not say",
    }  # fmt: skip
    said = [(name, facts.get(key) or []) for key, name in names.items()]
    return [(name, [s] if isinstance(s, str) else list(s)) for name, s in said if s]
