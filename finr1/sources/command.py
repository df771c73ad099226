"""`python -m finr1 sources --data DIR [--json]`: what each file holds, what is kept, and why the rest is not."""

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
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--strict", action="store_true", help="fail on damaged records, too")
    parser.set_defaults(command=print_counts)


def print_counts(options: argparse.Namespace) -> int:
    """Print a row a file; returns 1 if a file is damaged or the folder holds no source, else 0.

    Names what is missing and what belongs to no source: a misspelt folder must not pass for an empty source.
    """
    folders = {name: source.folder_in(options.data) for name, source in SOURCES.items()}
    rows, errors = [], []
    for name, folder in folders.items():
        if folder.is_dir():
            try:
                loaded = load_source(name, options.data, tolerate="nothing" if options.strict else "files")
                rows += [row | {"file": f"{folder.name}/{row['file']}"} for row in loaded.rows()]
                errors += [f"{name}: {message}" for message in loaded.damaged.values()]
            except SourceError as error:
                errors.append(str(error))
    missing = [name for name, folder in folders.items() if not folder.is_dir()]
    there = sorted(path for path in options.data.iterdir() if path.is_dir()) if options.data.is_dir() else []
    other = [path.name for path in there if path not in folders.values()]
    remarks = [f"no folder here for: {', '.join(missing)}"] if missing else []
    remarks += [f"folders of no source, not read: {', '.join(other)}"] if other else []
    print(*errors, *remarks, sep="\n", file=sys.stderr)
    if not rows and not errors:
        print(f"{options.data}: no folder of a source; their names: {', '.join(SOURCES)}", file=sys.stderr)
        return 1
    keys = ("source", "file", "raw", "kept", "dropped", "problems", "questions_dropped")
    rows = [{key: row[key] for key in keys} for row in rows]
    print(json.dumps(rows, ensure_ascii=False) if options.json else as_text(rows))
    return int(bool(errors))


def as_text(rows: list[dict]) -> str:
    """A line a file: source, raw, kept, and what was dropped by reason."""
    lines = [f"{'source':22}{'raw':>9}{'kept':>9}  file: dropped by reason"]
    for row in rows:
        dropped = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items())
        place = row["file"] + (f": {dropped}" if dropped else "")
        lines.append(f"{row['source']:22}{row['raw']:9}{row['kept']:9}  {place}")
    raw, kept = (sum(row[key] for row in rows) for key in ("raw", "kept"))
    return "\n".join([*lines, f"{'all':22}{raw:9}{kept:9}  {len(rows)} files"])
