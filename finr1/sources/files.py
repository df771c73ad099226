"""Reading what a source publishes: JSON lists, JSONL, CSV, their .gz, and zip archives of them; and the download.

A file becomes a list of raw records, nothing is interpreted here. What cannot be read at all raises `SourceError`
with the file's name; a single broken line of a JSONL file becomes an `Unreadable`, which the loader counts.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz", ".zip")
OTHER_DATA = (".parquet", ".arrow", ".tsv", ".xlsx", ".xls")  # named when they lie there, not read
DOWNLOAD_TIMEOUT = 60.0  # seconds without a byte

csv.field_size_limit(1 << 30)  # a long cell is a matter of its record, not of the whole file


class Reason(str):
    """Why a record is no problem, from a `rows` function; any other string there is a record."""


MALFORMED = Reason("malformed record")  # the record lacks what its schema has

Files = dict[str, list]  # file name relative to the source's folder -> its raw records, in the file's order


class SourceError(RuntimeError):
    """A source cannot be read: missing folder, damaged file, unreachable home. The message says what to do."""


class Unreadable(str):
    """A record that is no JSON; the text says where it stands."""


def read_folder(folder: Path, damaged: dict[str, str] | None = None) -> Files:
    """Read every data file below `folder`, in the order of their names; other files (README.md) are left alone.

    Raises `SourceError` if the folder is missing or holds no data file. So does a damaged file, unless there is a dict
    `damaged`, which then gets {its name: what is wrong}.
    """
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}")
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_dir() and path.name.lower().endswith(SUFFIXES):
            files |= read_file(path, name, damaged)
        elif path.name.lower().endswith(OTHER_DATA):
            _report(f"{path} is not read: convert it to one of {', '.join(SUFFIXES)}", name, damaged)
    if not files and not damaged:
        raise SourceError(f"{folder} holds no file that ends in one of {', '.join(SUFFIXES)}")
    return files


def _report(message: str, name: str, damaged: dict[str, str] | None, cause: Exception | None = None) -> None:
    if damaged is None:
        raise SourceError(message) from cause
    damaged[name] = message


def read_file(path: Path, name: str | None = None, damaged: dict[str, str] | None = None) -> Files:
    """The records of one file under `name` (default: the file's own); an archive gives one entry a member.

    Raises `SourceError` for what cannot be read, or puts it into `damaged`, see `read_folder`.
    """
    name, files = name or path.name, {}
    try:
        with _opened(path, name) as members:
            for member, read in members:
                try:
                    files[member] = _parse(member.lower(), read())
                except _DAMAGES as error:
                    place = path if member == name else f"{path}, {member.removeprefix(f'{name}/')}"
                    _report(f"{place} {_what_is_wrong(member, error)}", member, damaged, error)
    except (OSError, zipfile.BadZipFile) as error:
        _report(f"{path} {_what_is_wrong(name, error)}", name, damaged, error)
    return files


# What gzip, zip (encrypted, unknown method), the codecs and the parsers raise; an int has a limit of digits.
_DAMAGES = (EOFError, OSError, zipfile.BadZipFile, zlib.error, ValueError, csv.Error, RuntimeError)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Iterator[tuple[str, Callable[[], bytes]]]]:
    """(name, function that reads its bytes) of the file, or of each data file in an archive."""
    if not name.lower().endswith(".zip"):
        yield iter([(name, path.read_bytes)])
        return
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.namelist() if m.lower().endswith(SUFFIXES) and not m.startswith("__MACOSX")]
        yield ((f"{name}/{member}", partial(archive.read, member)) for member in members)


def _what_is_wrong(name: str, error: Exception) -> str:
    parsing = isinstance(error, ValueError | csv.Error | RecursionError)
    kind = name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    return f"cannot be read as {kind}: {error}" if parsing else f"is damaged or cut short: {error}"


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


def attempt(convert: Callable, *arguments: Any) -> Any:
    """What `convert` makes of a record, or `MALFORMED` where the record has not the shape that it needs."""
    try:
        return convert(*arguments)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        return MALFORMED  # pydantic's error is a ValueError


def text_of(value: object) -> str:
    """`value` as text without white space around it; only None is empty, 0 is "0"."""
    return "" if value is None else str(value).strip()


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


def download(urls: dict[str, str], folder: Path) -> Files:
    """Fetch `urls` ({file name: URL}) into `folder` unless they lie there already, and read them.

    A file appears under its name only when it is complete. Raises `SourceError` if a home cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: Files = {}
    for name, url in urls.items():
        path = folder / name
        if not path.exists():
            try:
                with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
                    content = response.read()
            except (urllib.error.URLError, OSError) as error:
                raise SourceError(f"{url} cannot be reached ({error}); download it by hand to {path}") from error
            temporary = path.with_name(path.name + ".part")
            temporary.write_bytes(content)
            os.replace(temporary, path)
        files |= read_file(path)
    return files


def split_in_name(name: str) -> str | None:
    """The split that a file's name states: `train_turn.json` -> "train", `sent_valid.csv` -> "dev"; None if none."""
    found = re.search(r"(?<![a-z])(train|dev|valid|validation|test)(?![a-z])", name.rsplit("/", 1)[-1].lower())
    return {"valid": "dev", "validation": "dev"}.get(found[1], found[1]) if found else None
