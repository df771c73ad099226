"""From bytes to rows: JSON, JSONL, CSV, TSV, Parquet, and .gz or zip of them, from a folder, a download or the hub.

A broken record becomes `BROKEN`, an unreadable file one `Broken` with the reason. Python's own parser reads CSV: pandas
makes an index of the first cell of a torn row, and a cell of `"a"b`.
"""

import ast
import codecs
import csv
import gzip
import hashlib
import io
import json
import os
import re
import unicodedata
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from finr1 import reported
from finr1.paths import MessageAlone, remedy, replacing
from finr1.records import Problem

_TEXT = (".json", ".jsonl", ".jsonlines", ".ndjson", ".csv", ".tsv")
SUFFIXES = (*_TEXT, *(f"{suffix}.gz" for suffix in _TEXT), ".parquet", ".zip")
# Counted where they lie, not read.
OTHER_DATA = (*".arrow .feather .orc .avro .xlsx .xls .xlsm .xlsb .ods .pkl .pickle .db .sqlite".split(),
              *".gz .bz2 .xz .zst .7z .rar .tar .tar.gz .tgz".split())  # fmt: skip
DOWNLOAD_TIMEOUT = 60.0  # seconds without a byte
_NESTED = ("messages prompt completion conversation conversations financial_report qa qa_0 qa_1 table pre_text "
           "post_text annotation answers extra_info").split()  # fmt: skip
# The rows of the paper's table by the names that the sources have here.
PAPER = {row["source"].lower().replace("-", "_"): row for row in reported.SOURCES}

Files = dict[str, list]  # file name relative to the source's folder -> its raw records, in the file's order
Results = Iterator[tuple[str, int, Problem | str]]  # file, number of the record, and a problem or the reason why not

csv.field_size_limit(1 << 30)  # a long cell may spoil its record, but not the whole file


class SourceError(MessageAlone, RuntimeError):
    """A source cannot be read: missing folder, damaged file, unreachable home. The message says what to do."""


class Broken(str):
    """Stands for a record that could not be read; the text is the reason under which it is counted."""


BROKEN = Broken("broken record")


class NoProblem(Exception):
    """A record is no problem; the text is the reason under which it is counted."""


def read_folder(folder: Path, chinese: bool = False) -> Files:
    """The records of each data file below `folder`, by name; `chinese` ones may be GB18030. `SourceError`: no file."""
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}")
    files: Files = {}
    for path in sorted(path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES + OTHER_DATA)):
        if not (path.is_dir() and any(path.glob("*"))):  # some tools write a folder `train.csv` with parts in it
            name = os.fsencode(path.relative_to(folder)).decode("utf8", "replace")  # a name may be no text
            files |= read_file(path, name, chinese)
    if not files:
        raise SourceError(f"{folder} holds no file that ends in one of {', '.join(SUFFIXES)}")
    return _some(files)


def _some(files: Files) -> Files:
    """`files`; raises `SourceError` if none of them can be read."""
    first = {name: records[0] for name, records in files.items() if records}
    reasons = {name: why for name, why in first.items() if isinstance(why, Broken) and why != BROKEN}
    if reasons and len(reasons) == len(files):
        raise SourceError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    return files


def read_file(path: Path, name: str, chinese: bool = False) -> Files:
    """The records of one file under `name`, or a `Broken` with the reason. An archive gives one entry per member."""

    def read() -> bytes:
        if path.exists() and not path.is_file():
            raise ValueError("a folder, a pipe or a device, not a file")  # a pipe would be waited for
        return path.read_bytes()

    return _read(name, read, chinese, name.lower().endswith(".zip"))


def _read(name: str, read: Callable[[], bytes], chinese: bool, archive: bool = False) -> Files:
    try:
        data = read()
        if not archive:
            return {name: [unpacked(record) for record in parse(name, data, chinese)]}
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            names = [m for m in members.namelist() if m.lower().endswith(SUFFIXES + OTHER_DATA) and "__MACOSX" not in m]
            if not names:
                raise ValueError("no file of data is in it")
            files = [_read(f"{name}/{member}", partial(members.read, member), chinese) for member in names]
            return dict(entry for file in files for entry in file.items())
    except Exception as error:  # gzip, zip, codecs and parsers raise many kinds, and one file never stops a source
        return {name: [Broken(f"unreadable file, damaged, cut short or not what its name says: {error}")]}


def parse(name: str, data: bytes, chinese: bool = False) -> list:
    """The records in the bytes of a file called `name`."""
    name = name.lower()
    if name.endswith(".gz"):
        name, data = name.removesuffix(".gz"), gzip.decompress(data)
    if name.endswith(".parquet"):
        from pyarrow import parquet

        return parquet.read_table(io.BytesIO(data)).to_pylist()
    if name.endswith((*OTHER_DATA, ".zip")):  # an archive in an archive
        raise ValueError(f"convert it to one of {', '.join(SUFFIXES)}")
    text = decode(data, chinese).lstrip("\ufeff\r\n")
    if not text.strip():
        raise EOFError("the file is empty")
    if name.endswith((".csv", ".tsv")):
        # Excel writes tabs or semicolons into a `.csv`, too: the header tells, or a line `sep=;` above it.
        marks, stated = "\t,;" if name.endswith(".tsv") else ",\t;", re.match('"?sep=([^\r\n])"?\r?\n', text)
        text = text[stated.end() :] if stated else text
        comma = stated[1] if stated else next((mark for mark in marks if mark in text.partition("\n")[0]), ",")
        # strict: an unclosed quote would swallow the rows behind it
        rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True, delimiter=comma)
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        if len(named := [name for name in rows.fieldnames if name]) > len(set(named)):
            raise ValueError("two of its columns have one name")
        # cells behind the last column stand under None: such a row was torn, by a stray quote or comma
        if not (rows := [BROKEN if any(row.pop(None, ())) else row for row in rows]):
            raise EOFError("there is no row below its first line")
        return rows
    if name.endswith(".json") or re.match(r"\s*\[\s*\{", text):
        try:
            content = json.loads(text)
            return content if isinstance(content, list) else [content]
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # else it holds lines, as the hub's files do
                raise
    return [_parse_line(line) for line in text.split("\n") if line.strip()]


def decode(data: bytes, chinese: bool = False) -> str:
    """The text of a file: UTF-16 by its mark, else UTF-8, else GB18030 if it is known to be `chinese`.

    Big5 read as GB18030 shows itself by characters of private use, UTF-16 without its mark by NULs: `ValueError`.
    """
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    for encoding in ["utf-16" if marked else "utf-8-sig", *["gb18030"] * chinese]:
        with suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            kinds = {unicodedata.category(character) for character in set(text)} if encoding == "gb18030" else set()
            parts = (data, data.decode("utf8", "ignore").encode()) if kinds else ()  # alike: UTF-8 that has lost a byte
            whole, kept = [len(part.translate(None, bytes(range(128)))) for part in parts] or (0, 0)
            if "\0" not in text and not kinds & {"Co", "Cn"} and 2 * kept <= whole:
                return text
    raise ValueError("it is neither UTF-8 nor, in a Chinese source, GB18030; save it as UTF-8")


def _parse_line(line: str) -> object:
    try:
        return json.loads(line.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return BROKEN


def load_hub(hub_id: str, cache: Path, **options: Any) -> Files:
    """The splits of a data set of the hub, kept in `cache`; `SourceError` if it cannot be reached."""
    from datasets import load_dataset

    try:
        splits = load_dataset(hub_id, cache_dir=str(cache), **options)
    except Exception as error:  # the hub's clients raise many kinds for "not there"
        if isinstance(error, OSError) and remedy(error):
            raise  # there is no room for it here
        raise SourceError(f"the hub's {hub_id} cannot be loaded ({error}); download its files by hand") from error
    return {name: list(rows) for name, rows in splits.items()}


def download(urls: dict[str, str], cache: Path, part: str = "") -> Files:
    """Fetch `urls` ({file name: URL}) into `cache` unless they lie there already; read what has `part` in its name."""
    files: Files = {}
    for name, url in urls.items():
        path = cache / name
        if not path.exists():
            try:
                with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
                    data = response.read()
            except OSError as error:  # a URLError is one
                raise SourceError(f"{url} cannot be reached ({error}); download it by hand to {path}") from error
            with replacing(path) as file:
                file.write(data)
        files |= {file: rows for file, rows in read_file(path, name).items() if part in file}
    return _some(files)


def attempt(convert: Callable, *arguments: Any) -> Any:
    """The result of `convert`, or the reason why the record is no problem."""
    try:
        return convert(*arguments)
    except NoProblem as reason:
        return str(reason)
    except KeyError as column:
        return f"missing column {column.args[0]}"
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        return "malformed record"  # it lacks what its schema has; pydantic's error is a ValueError


def read_each(read: Callable[[Any, str], Any], files: Files) -> Iterator[tuple[str, int, Any]]:
    """(file, number of the record, problem or the reason why there is none) for each record, read by itself."""
    for file, records in files.items():
        for number, record in enumerate(records):
            yield file, number, record if isinstance(record, Broken) else attempt(read, record, file)


def require(parts: dict[str, object]) -> None:
    """Raise `NoProblem` with the first reason of {reason: part of the record} whose part is empty."""
    for reason, part in parts.items():
        if not part:
            raise NoProblem(reason)


def problem_of(source: str, key: str, **fields: Any) -> Problem:
    """A problem of one of the paper's sources; by default with the source's module and language and its own group."""
    name, row = f"{source}/{key}", PAPER[source]
    defaults = {"module": row["module"], "language": row["language"], "group": name}
    return Problem(id=name, source=source, **defaults | fields)


def text_of(value: object) -> str:
    """`value` as text without white space around it; only None and NaN are empty, 0 is "0"."""
    if isinstance(value, list | dict | bytes):
        raise NoProblem("a cell that is no text")
    return "" if value is None or value != value else str(value).strip()


def key_of(*texts: str) -> str:
    """An id made from the content, for records whose own id is missing or not unique in their source."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def code_of(value: object) -> str:
    """A label or another code as text; 1.0, as pandas writes a column with a gap, is "1"."""
    return re.sub(r"(?<=\d)\.0+$", "", text_of(value))


def unpacked(record: Any) -> Any:
    """`record` with its cells of JSON read as lists and objects; a cell that can't be read so stays as it is."""
    for name in _NESTED if isinstance(record, dict) else ():
        if isinstance(cell := record.get(name), str) and cell.lstrip()[:1] in ("[", "{"):
            for read in (json.loads, ast.literal_eval):  # the second as pandas writes a list into CSV
                with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                    record = record | {name: read(cell)}
                    break
    return record


def split_in_name(name: str) -> str | None:
    """The split that a file's name, else its nearest folder with one, or a column states: `valid/0.csv` -> "dev"."""
    words = "train|training|dev|development|val|valid|validation|test|testing"
    found = (re.search(rf"(?<![a-z])({words})(?![a-z])", part) for part in reversed(name.lower().split("/")))
    stated = next(filter(None, found), None)
    return {"tr": "train", "de": "dev", "va": "dev", "te": "test"}[stated[1][:2]] if stated else None
