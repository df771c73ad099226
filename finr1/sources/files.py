"""Bytes to rows: JSON lists, JSONL, CSV, their .gz and zip archives of them, from a folder, a download or the hub.

A file becomes a list of raw records. A file that cannot be read is an error that names it; a single broken record
becomes `BROKEN`, which the loader counts. CSV is read by Python's own parser: pandas reads a row with a stray comma as
if its first cell were an index, and takes `"a"b` for a cell. Behind that stands what the readers of records share.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finr1 import reported
from finr1.records import Problem

SUFFIXES = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz", ".zip")
OTHER_DATA = (".parquet", ".arrow", ".tsv", ".xlsx", ".xls")  # named when they lie there, not read
DOWNLOAD_TIMEOUT = 60.0  # seconds without a byte
BROKEN = object()  # stands for a record that could not be read
# What gzip, zip (encrypted, unknown method), codecs and parsers raise; an int has a limit of digits.
DAMAGE = (EOFError, OSError, zipfile.BadZipFile, zlib.error, ValueError, csv.Error, RuntimeError)
# The rows of the paper's table by the names that the sources have here.
PAPER = {row["source"].lower().replace("-", "_"): row for row in reported.SOURCES}

Files = dict[str, list]  # file name relative to the source's folder -> its raw records, in the file's order
Results = Iterator[tuple[str, int, Problem | str]]  # file, number of the record, and a problem or the reason why not

csv.field_size_limit(1 << 30)  # a long cell is a matter of its record, not of the whole file


class SourceError(RuntimeError):
    """A source cannot be read: missing folder, damaged file, unreachable home. The message says what to do."""


class NoProblem(Exception):
    """A record is no problem; the text is the reason under which it is counted."""


def read_folder(folder: Path) -> Files:
    """The records of every data file below `folder`, in the order of their names; a README is left alone.

    Raises `SourceError` if the folder is missing, holds no data file, or holds one that cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}")
    for path in sorted(path for path in folder.rglob("*") if path.name.lower().endswith(OTHER_DATA)):
        raise SourceError(f"{path} is not read: convert it to one of {', '.join(SUFFIXES)}")
    files: Files = {}
    for path in sorted(path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES)):
        files |= read_file(path, str(path.relative_to(folder)))
    if not files:
        raise SourceError(f"{folder} holds no file that ends in one of {', '.join(SUFFIXES)}")
    return files


def read_file(path: Path, name: str) -> Files:
    """The records of one file under `name`; an archive gives one entry a member.

    Raises `SourceError` with the place of what cannot be read.
    """
    place = str(path)
    try:
        if not name.lower().endswith(".zip"):
            return {name: parse(name, path.read_bytes())}
        files = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.lower().endswith(SUFFIXES) and not member.startswith("__MACOSX"):
                    place = f"{path}, {member}"
                    files[f"{name}/{member}"] = parse(member, archive.read(member))
        return files
    except DAMAGE as error:
        raise SourceError(f"{place} is damaged, cut short or not what its name says: {error}") from error


def parse(name: str, data: bytes) -> list:
    """The records in the bytes of a file called `name`; encodings and formats are known here and nowhere else."""
    name = name.lower()
    if name.endswith(".gz"):
        name, data = name.removesuffix(".gz"), gzip.decompress(data)
    text = data.decode("utf-8-sig")  # some homes publish with a byte order mark
    if not text.strip():
        raise EOFError("the file is empty")
    if name.endswith(".csv"):
        # strict: an unclosed quote would swallow the rows behind it
        rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        # cells behind the last column stand under None: such a row was torn, by a stray quote or comma
        return [BROKEN if None in row else row for row in rows]
    if name.endswith(".json"):
        content = json.loads(text)
        return content if isinstance(content, list) else [content]
    return [_parse_line(line) for line in text.split("\n") if line.strip()]


def _parse_line(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return BROKEN


def load_hub(hub_id: str, cache: Path, **options: Any) -> Files:
    """The splits of a data set of the hub, kept in `cache`; `options` go to `datasets.load_dataset`.

    Raises `SourceError` if the hub cannot be reached.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(hub_id, cache_dir=str(cache), **options)
    except Exception as error:  # the hub's clients raise many kinds for "not there"
        raise SourceError(f"the hub's {hub_id} cannot be loaded ({error}); download its files by hand") from error
    return {name: list(rows) for name, rows in splits.items()}


def download(urls: dict[str, str], cache: Path, part: str = "") -> Files:
    """Fetch `urls` ({file name: URL}) into `cache` unless they lie there already; read what has `part` in its name.

    A file appears under its name only when it is complete. Raises `SourceError` if a home cannot be reached or a file
    cannot be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    files: Files = {}
    for name, url in urls.items():
        path = cache / name
        if not path.exists():
            temporary = cache / f"{name}.part"
            try:
                with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
                    temporary.write_bytes(response.read())
            except OSError as error:  # a URLError is one
                raise SourceError(f"{url} cannot be reached ({error}); download it by hand to {path}") from error
            os.replace(temporary, path)
        files |= {file: rows for file, rows in read_file(path, name).items() if part in file}
    return files


def attempt(convert: Callable, *arguments: Any) -> Any:
    """What `convert` makes of a record, or the reason why it is none."""
    try:
        return convert(*arguments)
    except NoProblem as reason:
        return str(reason)
    except KeyError as column:
        return f"missing column {column.args[0]}"
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        return "malformed record"  # it lacks what its schema has; pydantic's error is a ValueError


def read_each(read: Callable[[Any, str], Any], files: Files) -> Iterator[tuple[str, int, Any]]:
    """(file, number of the record, what `read` makes of it or the reason why nothing) for each record by itself."""
    for file, records in files.items():
        for number, record in enumerate(records):
            yield file, number, attempt(read, record, file)


def require(parts: dict[str, object]) -> None:
    """Raise `NoProblem` with the first reason of {reason: part of the record} whose part is empty."""
    for reason, part in parts.items():
        if not part:
            raise NoProblem(reason)


def problem_of(source: str, key: str, **fields: Any) -> Problem:
    """A problem of a source of the paper, by default in the paper's module and language, and a group of its own."""
    name, row = f"{source}/{key}", PAPER[source]
    defaults = {"module": row["module"], "language": row["language"], "group": name}
    return Problem(id=name, source=source, **defaults | fields)


def text_of(value: object) -> str:
    """`value` as text without white space around it; only None is empty, 0 is "0"."""
    return "" if value is None else str(value).strip()


def key_of(*texts: str) -> str:
    """An id by content, for records without an id that is unique over the files of their source."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def split_in_name(name: str) -> str | None:
    """The split that a file's name states: `train_turn.json` -> "train", `sent_valid.csv` -> "dev"; None if none."""
    stated = re.search(r"(?<![a-z])(train|dev|valid|validation|test)(?![a-z])", name.rsplit("/", 1)[-1].lower())
    return {"valid": "dev", "validation": "dev"}.get(stated[1], stated[1]) if stated else None
