"""The sources: where each lives, and how a raw record becomes a `Problem` or a counted reason why not.

    loaded = load_source("finqa", Path("data"))     # records from data/finqa
    loaded.problems, loaded.rows()                  # the problems; a row a file: records, raw, kept, dropped by reason

A further source is one function `read(record, file) -> Problem | str` and one entry in `SOURCES`. Where records have
to be joined or unrolled first, a `rows` function yields what `read` gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finr1.records import Problem
from finr1.sources import convfinqa, finqa, tfns
from finr1.sources.files import Files, SourceError, Unreadable, read_folder
from finr1.sources.pages import retrieved_context, shorten

__all__ = ["SOURCES", "FileCount", "Loaded", "Source", "SourceError", "load_source", "retrieved_context", "shorten"]


def each_record(files: Files) -> Iterator[tuple[str, Any]]:
    """(file, record) as they stand: the `rows` of a source whose records need nothing from each other."""
    for name, records in files.items():
        for record in records:
            yield name, record


@dataclass(frozen=True)
class Source:
    """What the suite knows about one source of the paper."""

    name: str  # also the sub-folder of the data folder that holds its files
    module: str  # the paper's grouping
    language: str
    licence: str
    home: str  # where a person finds it
    paper_raw: int  # records before curation as the paper states them (arXiv 2503.16252), rounded there
    paper_kept: int  # ... and after it
    read: Callable[[Any, str], Problem | str]  # (record, file name) -> problem, or why it is none
    fetch: Callable[[Path], Files]  # downloads from the public home into a cache folder
    rows: Callable[[Files], Iterator[tuple[str, Any]]] = each_record  # (file, record or reason)


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="tfns",
            module="reasoning business knowledge",
            language="en",
            licence="MIT, as stated on the data set's card",
            home="https://huggingface.co/datasets/zeroshot/twitter-financial-news-sentiment",
            paper_raw=11_930,
            paper_kept=2_451,
            read=tfns.read,
            fetch=tfns.fetch,
            rows=tfns.rows,
        ),
        Source(
            name="finqa",
            module="reasoning business knowledge",
            language="en",
            licence="MIT",
            home="https://github.com/czyssrs/FinQA",
            paper_raw=8_280,
            paper_kept=2_948,
            read=finqa.read,
            fetch=finqa.fetch,
            rows=finqa.rows,
        ),
        Source(
            name="convfinqa",
            module="reasoning business knowledge",
            language="en",
            licence="MIT",
            home="https://github.com/czyssrs/ConvFinQA",
            paper_raw=14_120,
            paper_kept=7_629,
            read=convfinqa.read,
            fetch=convfinqa.fetch,
            rows=convfinqa.rows,
        ),
    )
}


@dataclass
class FileCount:
    """The account of one file: `raw` = `kept` + all of `dropped`, in questions; a dialogue record holds several."""

    file: str
    records: int  # as they lie in the file
    raw: int = 0
    kept: int = 0
    without_reference: int = 0  # kept, but nothing supports worked reasoning
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> questions


@dataclass
class Loaded:
    """The problems of one source and the account of its files."""

    source: Source
    problems: list[Problem]
    counts: list[FileCount]

    def rows(self) -> list[dict[str, Any]]:
        """The account as plain rows, one a file."""
        return [
            {"source": self.source.name, **vars(count), "dropped": dict(count.dropped.most_common())}
            for count in self.counts
        ]


def load_source(name: str, data_dir: Path | None = None, cache_dir: Path | None = None) -> Loaded:
    """Read the source `name` from the folder `data_dir/<name>`, or from its public home if no `data_dir` is given.

    Downloads are kept in `cache_dir` (default `~/.cache/finr1`). Every question is kept or counted under a reason,
    and an id is kept once. Raises `KeyError` for an unknown name, and `SourceError` if a file is damaged, the folder
    missing or the home unreachable; the message says what to put where.
    """
    source = SOURCES[name]
    files = _files(source, data_dir, cache_dir or Path.home() / ".cache" / "finr1")
    counts = {file: FileCount(file, len(records)) for file, records in files.items()}
    readable: Files = {}
    for file, records in files.items():
        readable[file] = [record for record in records if not isinstance(record, Unreadable)]
        if broken := len(records) - len(readable[file]):
            counts[file].raw += broken
            counts[file].dropped["broken record"] += broken
    problems: dict[str, Problem] = {}
    for file, row in source.rows(readable):
        result = row if isinstance(row, str) else source.read(row, file)
        if isinstance(result, Problem) and result.id in problems:
            result = "duplicate id"
        counts[file].raw += 1
        if isinstance(result, str):
            counts[file].dropped[result] += 1
        else:
            counts[file].kept += 1
            counts[file].without_reference += not result.reference
            problems[result.id] = result
    return Loaded(source, list(problems.values()), list(counts.values()))


def _files(source: Source, data_dir: Path | None, cache_dir: Path) -> Files:
    if data_dir is None:
        return source.fetch(cache_dir / source.name)
    folder = Path(data_dir) / source.name
    try:
        return read_folder(folder)
    except SourceError as error:
        advice = f"its files come from {source.home} and belong into {folder}"
        raise SourceError(f"{source.name}: {error}; {advice}") from error
