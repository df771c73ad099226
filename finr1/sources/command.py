"""`python -m finr1 sources --data DIR`: what each file holds, what is kept, and why the rest is not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from finr1.sources import SOURCES, SourceError, load_source


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `sources` to the commands of `python -m finr1`."""
    parser = commands.add_parser("sources", help="count the records of each file of a data folder")
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="folder with one folder a source")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, one line per file")
    parser.set_defaults(command=print_counts)


def print_counts(options: argparse.Namespace) -> int:
    """Print one row per file; returns 1 if a file is damaged or the folder holds no source, else 0.

    Names the folders that belong to no source: a misspelt one must not pass for an empty source.
    """
    folders = {name: source.folder_in(options.data) for name, source in SOURCES.items()}
    there = {name: folder for name, folder in folders.items() if folder.is_dir()}
    errors = [] if there else [f"{options.data}: no folder of a source; their names: {', '.join(SOURCES)}"]
    if not options.json:
        print(f"{'source':22}{'raw':>9}{'kept':>9}  file: dropped by reason")
    for name in there:
        try:
            for row in load_source(name, options.data).rows:
                errors += [f"{name}: {row['file']}: {why}" for why in row["dropped"] if why.startswith("unreadable f")]
                dropped = json.dumps(row["dropped"], ensure_ascii=False) if row["dropped"] else ""
                line = f"{name:22}{row['raw']:9}{row['kept']:9}  {row['file']} {dropped}"
                print(json.dumps(row, ensure_ascii=False) if options.json else line)
        except SourceError as error:
            errors.append(str(error))
    other = sorted({path for path in options.data.glob("*/")} - set(there.values()))
    remarks = [f"folders of no source, not read: {', '.join(path.name for path in other)}"] if other else []
    print(*errors, *remarks, sep="\n", file=sys.stderr)
    return int(bool(errors))
