"""Pieces of the page that several of its parts use. All text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from jaxbench.bench.leaderboard.read import Run


def plain(
    header: Sequence[str], lines: Sequence[Sequence[str]], numbers: Iterable[int] = ()
) -> str:
    """A table without sorting; `numbers` are the columns set to the right."""
    right = set(numbers) or set(range(2, len(header) - 1))

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=num' if i in right else ''}>{escape(value)}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return (
        f'<table class="plain"><thead><tr>{cells("th", header)}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def items(sentences: Iterable[str]) -> str:
    """Items of a list."""
    return "".join(f"<li>{escape(_capital(s))}</li>" for s in sentences)


def _capital(sentence: str) -> str:
    """With a capital, unless it begins with a name ("ttt: 1 of 3 runs failed")."""
    if sentence.split(" ", 1)[0].endswith(":"):
        return sentence
    return sentence[:1].upper() + sentence[1:]


def reason(run: Run) -> str:
    """Why a run is not ok, with the end of its log."""
    seed = "" if run.seed is None else f"seed {run.seed}: "
    tail = "\n".join(run.log_tail())
    log = f'<div class="log">{escape(tail)}</div>' if tail else ""
    why = escape(run.reason or "No reason was given.")
    return f"<p>{seed}{run.status}. {why}</p>{log}"
