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
TITLES = {"interval": "95 % interval", "rank": "places"}
HOW = {
    "command": "Command",
    "data": "Data",
    "splits": "Splits",
    "devices": "Devices",
    "versions": "Versions",
    "statistics": "Statistics",
    "left_out": "Left out",
    "does_not_say": "What it does not say",
}
FACTS = (
    *("name", "backbone", "family", "status", "reason", "verdict"),
    *("takes_part", "why_not", "seeds", "swept", "tier"),
)
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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
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
    unit = "" if column["unit"] in ("B", "FLOP", "%") else column["unit"]
    return ", ".join(filter(None, [column["label"], unit]))


def axis(column: Mapping[str, Any]) -> str:
    """What an axis of a column's numbers says: name, unit, which way is better."""
    words = {"B": "bytes", "FLOP": "FLOP", "%": "share from 0 to 1"}
    unit = words.get(column["unit"], column["unit"])
    name = ", ".join(filter(None, [column["label"], unit]))
    better = {"low": " (lower is better)", "high": " (higher is better)"}
    return name + better.get(column["better"], "")


def columns_of(board: Board) -> dict[str, Mapping[str, Any]]:
    """The board's columns by key."""
    return {column["key"]: column for column in board["columns"]}


def score_column(board: Board) -> Mapping[str, Any]:
    """The column that sorts."""
    return columns_of(board)[board["score"]]


def mean_of(row: Mapping[str, Any]) -> float | None:
    """A row's score; None without one, or where failed seeds make it infinite."""
    return row["score"] and row["score"]["mean"]


def texts(board: Board, row: Mapping[str, Any]) -> dict[str, str]:
    """What people read in the cells of a row, by key of their column."""
    cells, found = row["cells"], {}
    for key, column in columns_of(board).items():
        hole = "–" if column["group"] == "task" else ""
        found[key] = hole if cells.get(key) is None else show(column, cells[key])
    score, column = row["score"], score_column(board)
    if score:
        found[board["score"]] = show(column, score["mean"])
    ends = [score[end] for end in ("low", "high")] if score else [None]
    first, last = row["rank"] or (None, None)
    return found | {
        "interval": "" if None in ends else " to ".join(show(column, e) for e in ends),
        "rank": f"{first} to {last}" if first != last else str(first or ""),
        "seeds": str(row["seeds"]),
        "status": row["status"] + remark(row),
    }


def remark(row: Mapping[str, Any]) -> str:
    """What stands behind a row's status: the easiest floor that it does not beat."""
    return f", does not beat {row['unbeaten']}" if row.get("unbeaten") else ""


def boards(
    board: Board, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Board]]:
    """The board and all boards inside it, each with the titles above it."""
    yield path, board
    for part in board.get("parts") or ():
        yield from boards(part, (*path, part["title"]))


def pictured(board: Board) -> Board | None:
    """The board of the first picture: the first of all that has a score."""
    for _, part in boards(board):
        if any(mean_of(row) is not None for row in part["rows"]):
            return part
    return None


def csv_text(board: Board) -> str:
    """All rows and floors as CSV, numbers in full; one line of columns for all parts.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    lines: list[dict[str, Any]] = []
    for path, part in boards(board):
        about = {key: part[key] for key in ("task", "protocol", "score")}
        about |= {"board": ": ".join(path) or part["title"]}
        for row in part["rows"]:
            score, rank = row["score"] or {}, row["rank"] or (None, None)
            facts = {key: row[key] for key in FACTS}
            facts |= {f"score_{key}": score.get(key) for key in ("mean", "low", "high")}
            facts |= {"score_values": " ".join(map(repr, score.get("values", ())))}
            facts |= {"rank_low": rank[0], "rank_high": rank[1]}
            lines.append({**about, "kind": "row", **facts, **row["cells"]})
        for floor in part["floors"]:
            facts = {"kind": "floor", "name": floor["name"]}
            facts |= dict.fromkeys(("score_mean", part["score"]), floor["value"])
            lines.append({**about, **facts, **floor.get("cells", {})})
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
        if picture and part is pictured(board):
            lines.append(f"![{plain(part['title'])}]({picture})")
        lines += _tables(part, level + "#") if part["rows"] else []
        for fold in folds(part):
            lines += [f"{level}# {fold['title']}", *_fold(fold)]
    return "\n\n".join(line for line in lines if line) + "\n"


def plain(text: Any) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no end of a cell."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", flat).replace("&", "&amp;")


def capital(words: str) -> str:
    """With its first letter in upper case."""
    return words[:1].upper() + words[1:]


def _answers(part: Board) -> str:
    needs = ((capital(need["need"]), need["answer"]) for need in part["needs"])
    said = [f"- **{plain(need)}.** {plain(answer)}" for need, answer in needs]
    said += [f"- {plain(sentence)}" for sentence in part["unknown"]]
    return "\n".join([plain(part["question"]), *[""][: len(said)], *said])


def _tables(part: Board, level: str) -> list[str]:
    """One table a view; the first begins with score, interval and places."""
    own, columns = [part["score"], "interval", "rank", "seeds"], columns_of(part)
    shown = [(row, texts(part, row)) for row in part["rows"]]
    found: list[str] = []
    for view in part["views"] or [{"name": "score", "columns": []}]:
        keys = [k for k in view["columns"] if k not in own and k in columns]
        keys = keys if found else [*own, *keys, "status"]
        keys = [k for k in keys if any(cells.get(k) for _, cells in shown)]
        body = [_line(row["name"], cells, keys) for row, cells in shown]
        if not found:
            body = _with_floors(part, body, keys)
        names = [label(columns[k]) if k in columns else TITLES.get(k, k) for k in keys]
        title = f"{level} {plain(capital(view['name']))}"
        found += [title, table(["row", *map(plain, names)], body)] if keys else []
    return found


def _line(name: str, cells: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    return [plain(name), *(plain(cells.get(key, "")) for key in keys)]


def _with_floors(
    part: Board, body: Sequence[list[str]], keys: Sequence[str]
) -> list[list[str]]:
    """The lines of rows, with those of floors where their values put them."""
    sign = -1 if score_column(part)["better"] == "high" else 1
    # A row with a failed seed is behind every floor, as it is behind every row.
    means = [None if row.get("failed") else mean_of(row) for row in part["rows"]]
    lines = list(zip(means, body, strict=True))
    for floor in part["floors"]:
        value = floor["value"]
        behind = (sign * m > sign * value if m is not None else True for m, _ in lines)
        place = next((i for i, is_behind in enumerate(behind) if is_behind), len(lines))
        cells = {part["score"]: show(score_column(part), value)}
        lines.insert(place, (value, _line(f"floor: {floor['name']}", cells, keys)))
    return [line for _, line in lines]


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown; the first column to the left."""
    rules = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *lines))


def folds(part: Board) -> list[dict[str, Any]]:
    """What comes after the tables, in Markdown and on the page.

    Returns:
      For each: title, a table's header and rows (empty for none), and facts, pairs of a
      name and sentences.
    """
    reasons: dict[str, list[str]] = {}
    for row in part["rows"]:
        reasons.setdefault(row["why_not"], []).append(row["name"])
    out = [(why, [", ".join(names)]) for why, names in reasons.items() if why]
    failed = [
        (f["name"] if f["seed"] is None else f"{f['name']}, seed {f['seed']}",
         [f"{f['status']}. {f['reason']}"])
        for f in part.get("failures") or ()
    ]  # fmt: skip
    said = ((name, part["how"][key]) for key, name in HOW.items())
    made = [(name, [s] if isinstance(s, str) else s) for name, s in said if s]
    across = [("Mean", part["across"]["notes"])] if part["across"] else []
    theirs = part.get("published")
    published = (theirs["header"], theirs["rows"]) if theirs else ()
    remarks = [("To compare them", theirs["remarks"])] if theirs else []
    found = [
        _folded("Takes no part in any claim", out),
        _folded(f"Not ok ({len(failed)})", failed),
        _folded("Search for the learning rate", [], *_sweep(part)),
        _folded("Published numbers beside these", remarks, *published),
        _folded("How tasks are put together", across),
        _folded("How this was made", made),
    ]
    return [fold for fold in found if fold["facts"] or fold["rows"]]


def _folded(
    title: str,
    facts: Sequence[Any],
    header: Sequence[str] = (),
    rows: Sequence[Any] = (),
) -> dict[str, Any]:
    return {"title": title, "facts": facts, "header": header, "rows": rows}


def _sweep(part: Board) -> tuple[list[str], list[list[str]]]:
    """The best score of each rate that was tried, and which was chosen."""
    lines, rows = part.get("sweep") or [], []
    rates = sorted({rate for line in lines for rate, _ in line["points"]})
    for line in lines:
        points = {
            rate: show(score_column(part), score) for rate, score in line["points"]
        }
        best = "" if line["best"] is None else f"{line['best']:g}"
        chosen = best + ", at the edge of what was tried" * bool(line["edge"])
        rows.append([line["backbone"], *(points.get(r, "") for r in rates), chosen])
    return ["row", *(f"{rate:g}" for rate in rates), "chosen"], rows


def _fold(fold: Mapping[str, Any]) -> list[str]:
    cells = [[plain(cell) for cell in line] for line in fold["rows"]]
    found = [table([plain(name) for name in fold["header"]], cells)] if cells else []
    facts = []
    for name, said in fold["facts"]:
        between = " " if said[0].endswith(".") else "; "
        facts.append(f"- {plain(name)}: {plain(between.join(said))}")
    return [*found, "\n".join(facts)]
