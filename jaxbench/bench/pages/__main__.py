"""`python -m jaxbench.bench.pages`: writes the generated documents, or checks them.

They are docs/backbones.md, the pages in docs/backbones, and Markdown and CSV of every
board in results. With --check nothing is written: stale files are named, and the exit
code is 1 where there are any.
"""

from __future__ import annotations

import argparse
import sys

from jaxbench.bench.pages.board import ROOT
from jaxbench.bench.pages.documents import backbone_texts, board_texts, stale


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxbench.bench.pages",
        description="Writes the documents made from rows and results.",
    )
    parser.add_argument("--check", action="store_true", help="write none, name stale")
    check = parser.parse_args(arguments).check
    wrong = []
    # Boards first: the pages tell what is on them.
    for made in (board_texts, backbone_texts):
        texts = made()
        wrong += (found := stale(texts))
        for name in found if not check else ():
            if name in texts:
                (ROOT / name).write_text(texts[name], encoding="utf-8", newline="\n")
            else:
                (ROOT / name).unlink()
    for name in wrong:
        print(f"{'stale' if check else 'written'}: {name}")
    if not wrong:
        print("every document is as it is written")
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
