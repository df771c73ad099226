"""Bytes to rows: JSON lists, JSONL, CSV, their .gz and zip archives of them, from a folder, a download or the hub.

A file becomes a list of raw records, nothing is interpreted here. A file that cannot be read is named with what is
wrong with it; a single broken record becomes an `Unreadable`, which the loader counts. CSV is read by Python's own
parser: pandas reads a row with a stray comma as if its first cell were an index, and takes `"a"b` for a cell.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from finr1.records import Problem

SUFFIXES = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz", ".zip")
OTHER_DATA = (".parquet", ".arrow", ".tsv", ".xlsx", ".xls")  # named when they lie there, not read
DOWNLOAD_TIMEOUT = 60.0  # seconds without a byte
DAMAGED = "is damaged or cut short"
MALFORMED = "malformed record"  # the record lacks what its schema has

Files = dict[str, list]  # file name relative to the source's folder -> its raw records, in the file's order

csv.field_size_limit(1 << 30)  # a long cell is a matter of its record, not of the whole file


class SourceError(RuntimeError):
    """A source cannot be read: missing folder, damaged file, unreachable home. The message says what to do."""


class NoProblem(Exception):
    """A record is no problem; the text is the reason under which it is counted."""


class Unreadable(str):
    """A record that could not be read; the text says where it stands."""


def read_folder(folder: Path) -> tuple[Files, dict[str, str]]:
    """The records of every data file below `folder`, in the order of their names, and {damaged file: what is wrong}.

    Other files (README.md) are left alone. Raises `SourceError` if the folder is missing or holds no data file.
    """
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}")
    files, damaged = {}, {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = str(path.relative_to(folder))
        if path.name.lower().endswith(SUFFIXES):
            records, bad = read_file(path, name)
            files |= records
            damaged |= bad
        elif path.name.lower().endswith(OTHER_DATA):
            damaged[name] = f"{path} is not read: convert it to one of {', '.join(SUFFIXES)}"
    if not files and not damaged:
        raise SourceError(f"{folder} holds no file that ends in one of {', '.join(SUFFIXES)}")
    return files, damaged


def read_file(path: Path, name: str) -> tuple[Files, dict[str, str]]:
    """The records of one file under `name`, and {damaged file: what is wrong}; an archive gives one entry a member."""
    files, damaged = {}, {}
    try:
        for member, read in _contents(path, name):
            try:
                files[member] = _parse(member.lower(), read())
            # What gzip, zip (encrypted, unknown method), codecs and parsers raise; an int has a limit of digits.
            except (EOFError, OSError, zipfile.BadZipFile, zlib.error, ValueError, csv.Error, RuntimeError) as error:
                place = path if member == name else f"{path}, {member.removeprefix(f'{name}/')}"
                parsing = isinstance(error, ValueError | csv.Error | RecursionError)
                kind = member.lower().removesuffix(".gz").rsplit(".", 1)[-1]
                damaged[member] = f"{place} {f'cannot be read as {kind}' if parsing else DAMAGED}: {error}"
    except (OSError, zipfile.BadZipFile) as error:
        damaged[name] = f"{path} {DAMAGED}: {error}"
    return files, damaged


def _contents(path: Path, name: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(name, function that reads its bytes) of the file, or of each data file in an archive."""
    if not name.lower().endswith(".zip"):
        yield name, path.read_bytes
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.lower().endswith(SUFFIXES) and not member.startswith("__MACOSX"):
                yield f"{name}/{member}", partial(archive.read, member)


def _parse(name: str, data: bytes) -> list:
    if name.endswith(".gz"):
        name, data = name.removesuffix(".gz"), gzip.decompress(data)
    text = data.decode("utf-8-sig")  # some homes publish with a byte order mark
    if not text.strip():
        raise EOFError("the file is empty")
    if name.endswith(".csv"):
        # strict: an unclosed quote would swallow the rows behind it
        rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        # cells behind the last column stand under None: such a row was torn, by a stray quote or comma
        return [Unreadable(f"row {n}: too many cells") if None in row else row for n, row in enumerate(rows, 1)]
    if name.endswith(".json"):
        content = json.loads(text)
        return content if isinstance(content, list) else [content]
    return [_parse_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parse_line(number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"line {number}: {error}")


def load_hub(hub_id: str, cache: Path, **options: Any) -> Files:
    """The splits of a data set of the hub, kept in `cache`; `options` go to `datasets.load_dataset`.

    Raises `SourceError` if the hub cannot be reached.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(hub_id, cache_dir=str(cache), **options)
    except Exception as error:  # the hub's clients raise many kinds for "not there"
        raise SourceError(
            f"the hub's {hub_id} cannot be loaded ({error}); download its files into a folder named after the source "
            "and name the folder above it as data_dir"
        ) from error
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
            try:
                with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
                    content = response.read()
            except (urllib.error.URLError, OSError) as error:
                raise SourceError(f"{url} cannot be reached ({error}); download it by hand to {path}") from error
            temporary = path.with_name(path.name + ".part")
            temporary.write_bytes(content)
            os.replace(temporary, path)
        records, damaged = read_file(path, name)
        if damaged:
            raise SourceError(next(iter(damaged.values())))
        files |= {file: rows for file, rows in records.items() if part in file}
    return files


def attempt(convert: Callable, *arguments: Any) -> Any:
    """What `convert` makes of a record, or the reason why it is none: `MALFORMED` where its shape is another one."""
    try:
        return convert(*arguments)
    except NoProblem as reason:
        return str(reason)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        return MALFORMED  # pydantic's error is a ValueError


def read_each(read: Callable[[Any, str], Problem | str], files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number of the record, problem or reason) for records that need nothing from each other."""
    for file, records in files.items():
        for number, record in enumerate(records):
            yield file, number, attempt(read, record, file)


def require(parts: Mapping[str, object]) -> None:
    """Raise `NoProblem` with the first reason of {reason: part of the record} whose part is empty."""
    for reason, part in parts.items():
        if not part:
            raise NoProblem(reason)


def require_columns(record: dict, *names: str) -> None:
    """Raise `NoProblem` if `record` lacks one of the columns."""
    if missing := set(names) - record.keys():
        raise NoProblem(f"missing column {min(missing)}")


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
