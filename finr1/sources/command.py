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
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Print a row a file; returns 1 if a file is damaged or the folder holds no source, else 0."""
    rows, failed = [], False
    folders = {name: source.folder_in(options.data) for name, source in SOURCES.items()}
    for name, folder in folders.items():
        if not folder.is_dir():
            continue
        try:
            loaded = load_source(name, options.data, strict=options.strict, skip_damaged=not options.strict)
        except SourceError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        rows += [row | {"file": f"{folder.name}/{row['file']}"} for row in loaded.rows()]
        for message in loaded.damaged.values():
            print(f"{name}: {message}", file=sys.stderr)
            failed = True
    _tell_what_was_left(options.data, folders)
    if not rows and not failed:
        print(f"{options.data}: no folder of a source; their names: {', '.join(SOURCES)}", file=sys.stderr)
        return 1
    keys = ("source", "file", "raw", "kept", "dropped", "problems", "questions_dropped")
    records = [{key: row[key] for key in keys} for row in rows]
    print(json.dumps(records, ensure_ascii=False) if options.json else _table(records))
    return int(failed)


def _table(rows: list[dict]) -> str:
    lines = [f"{'source':22}{'raw':>9}{'kept':>9}  file: dropped by reason"]
    for row in rows:
        dropped = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items())
        place = row["file"] + (f": {dropped}" if dropped else "")
        lines.append(f"{row['source']:22}{row['raw']:9}{row['kept']:9}  {place}")
    raw, kept = (sum(row[key] for row in rows) for key in ("raw", "kept"))
    return "\n".join([*lines, f"{'all':22}{raw:9}{kept:9}  {len(rows)} files"])


def _tell_what_was_left(data: Path, folders: dict[str, Path]) -> None:
    """Name what is missing and what belongs to no source: a misspelt folder must not pass for an empty source."""
    if missing := [name for name, folder in folders.items() if not folder.is_dir()]:
        print(f"no folder here for: {', '.join(missing)}", file=sys.stderr)
    found = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    if other := [name for name in found if data / name not in folders.values()]:
        print(f"folders of no source, not read: {', '.join(other)}", file=sys.stderr)
