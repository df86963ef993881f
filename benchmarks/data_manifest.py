"""Writes which files a released board learned from: hashes and public origins.

    python benchmarks/data_manifest.py FOLDER --origins README.md --out results/NAME

`--origins` is a Markdown table whose columns "name", "source repository" and "licence"
say where each file is public. The manifest, `data.json`, holds no player's name and
nothing that a file says: a hash, a size and an origin for each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def origins(text: str) -> dict[str, tuple[str, str]]:
    """File -> (repository, licence), from the tables of a Markdown file."""
    found: dict[str, tuple[str, str]] = {}
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif "source repository" in cells:
            header = cells
        elif header and len(cells) == len(header):
            row = dict(zip(header, cells, strict=True))
            found[row["name"]] = row["source repository"], row["licence"]
    return found


def manifest(folder: Path, known: Mapping[str, tuple[str, str]]) -> dict[str, object]:
    """The content of `data.json`."""
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        repository, licence = known.get(path.name, ("", ""))
        files.append(
            {
                "name": path.name,
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "repository": repository,
                "licence": licence,
            }
        )
    return {"files": files}


def main() -> None:
    """Writes one manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--origins", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content = manifest(options.folder, origins(options.origins.read_text()))
    text = json.dumps(content, indent=1)
    (options.out / "data.json").write_text(text + "\n")
    print(f"{len(content['files'])} files, {options.out / 'data.json'}")


if __name__ == "__main__":
    main()
