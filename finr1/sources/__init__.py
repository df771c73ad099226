"""The sources: where each lives, and how a raw record becomes a `Problem` or a counted reason why not.

    loaded = load_source("finqa", Path("data"))     # records from data/finqa
    loaded.problems, loaded.rows()                  # the problems; a row a file: raw, kept, dropped by reason

A further source is one function `read(record, file) -> Problem | str` and one entry in `SOURCES`. Where records have
to be joined or unrolled first, a `rows` function yields what `read` gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finr1 import grading
from finr1.records import Problem
from finr1.sources import convfinqa, exams, fincuge, finqa, instructions, tfns
from finr1.sources.files import MALFORMED, Files, Reason, SourceError, Unreadable, attempt, read_folder
from finr1.sources.pages import retrieved_context, shorten

__all__ = [
    "DAMAGE",
    "SOURCES",
    "FileCount",
    "Loaded",
    "Source",
    "SourceError",
    "load_source",
    "retrieved_context",
    "shorten",
]

MAX_CHARS = 1_000_000  # of a problem as a model would read it; a longer one is a damaged file, not a question


def each_record(files: Files) -> Iterator[tuple[str, int, Any]]:
    """(file, number, record) as they stand: the `rows` of a source whose records need nothing from each other."""
    for name, records in files.items():
        for number, record in enumerate(records):
            yield name, number, record


@dataclass(frozen=True)
class Source:
    """What the suite knows about one source of the paper."""

    name: str
    module: str  # the paper's grouping
    language: str
    licence: str
    home: str  # where a person finds it
    paper_raw: int  # records before curation as the paper states them (arXiv 2503.16252), rounded there
    paper_kept: int  # ... and after it
    read: Callable[[Any, str], Problem | str]  # (record, file name) -> problem, or why it is none
    fetch: Callable[[Path], Files]  # downloads from the public home into a cache folder
    rows: Callable[[Files], Iterator[tuple[str, int, Any]]] = each_record  # (file, number of the record, row or reason)
    folder: str = ""  # its folder inside a data folder, where that is not its name

    def folder_in(self, data_dir: Path) -> Path:
        """Where its files lie below `data_dir`: in `folder` if that is there, else in a folder of its name."""
        other = Path(data_dir) / self.folder
        return other if self.folder and other.is_dir() else Path(data_dir) / self.name


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="fincorpus",
            module="non-reasoning business knowledge",
            language="zh",
            licence="stated on the data set's card, not checked here",
            home="https://huggingface.co/datasets/Duxiaoman-DI/FinCorpus",
            paper_raw=235_210,
            paper_kept=29_288,
            read=exams.read_fincorpus,
            fetch=exams.fetch_fincorpus,
        ),
        Source(
            name="finance_instruct_500k",
            module="professional knowledge",
            language="en",
            licence="Apache-2.0, as stated on the data set's card",
            home="https://huggingface.co/datasets/Josephgflowers/Finance-Instruct-500k",
            paper_raw=518_190,
            paper_kept=11_300,
            read=instructions.read_finance_instruct,
            fetch=instructions.fetch_finance_instruct,
            rows=instructions.finance_instruct_rows,
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
            name="financeiq",
            module="professional knowledge",
            language="zh",
            licence="CC BY-NC-SA 4.0, as stated in its repository",
            home="https://github.com/Duxiaoman-DI/XuanYuan",
            paper_raw=7_170,
            paper_kept=2_596,
            read=exams.read_financeiq,
            fetch=exams.fetch_financeiq,
        ),
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
            name="fincuge",
            module="reasoning business knowledge",
            language="zh",
            licence="no licence file in its repository",
            home="https://github.com/ssymmetry/BBT-FinCUGE-Applications",
            paper_raw=66_670,
            paper_kept=2_000,
            read=fincuge.read,
            fetch=fincuge.fetch,
            rows=fincuge.rows,
        ),
        Source(
            name="ant_finance",
            module="non-reasoning business knowledge",
            language="zh",
            licence="CC BY 4.0",
            home="https://github.com/alipay/financial_evaluation_dataset",
            paper_raw=8_450,
            paper_kept=1_548,
            read=exams.read_ant,
            fetch=exams.fetch_ant,
            folder="fin_eva",
        ),
        Source(
            name="finpee",
            module="professional knowledge",
            language="zh",
            licence="closed",
            home="the authors' university; put questions of your own in its place",
            paper_raw=350,
            paper_kept=179,
            read=exams.read_finpee,
            fetch=exams.fetch_finpee,
        ),
        Source(
            name="financeqt",
            module="code",
            language="en",
            licence="stated on the data set's card, not checked here",
            home="https://huggingface.co/datasets/lumalik/Quant-Trading-Instruct",
            paper_raw=390,
            paper_kept=152,
            read=instructions.read_financeqt,
            fetch=instructions.fetch_financeqt,
        ),
    )
}


DAMAGE = {"broken record", MALFORMED, "too long", "NUL bytes", "duplicate id", "unreadable gold"}  # fatal if `strict`


@dataclass
class FileCount:
    """The account of one file in its own records: `raw` = `kept` + all of `dropped`.

    A record may hold several questions (a dialogue) and is kept if one of them is; `problems` counts the questions
    kept, `questions_dropped` those lost from records that were kept.
    """

    file: str
    raw: int
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> records
    problems: int = 0
    questions_dropped: Counter[str] = field(default_factory=Counter)
    without_reference: int = 0  # problems for which nothing supports worked reasoning

    def add(self, results: list[Problem | str]) -> None:
        """Count one record by what its questions became; without any question it is dropped as such."""
        problems = [result for result in results if isinstance(result, Problem)]
        reasons = [result for result in results if isinstance(result, str)]
        self.problems += len(problems)
        self.without_reference += sum(not problem.reference for problem in problems)
        if problems:
            self.kept += 1
            self.questions_dropped.update(reasons)
        else:
            self.dropped[reasons[0] if reasons else "no question"] += 1


@dataclass
class Loaded:
    """The problems of one source and the account of its files."""

    source: Source
    problems: list[Problem]
    counts: list[FileCount]
    damaged: dict[str, str] = field(default_factory=dict)  # file that could not be read at all -> why

    def rows(self) -> list[dict[str, Any]]:
        """The account as plain rows, one a file."""
        return [
            {"source": self.source.name, **vars(count)}
            | {name: dict(getattr(count, name).most_common()) for name in ("dropped", "questions_dropped")}
            for count in self.counts
        ]


def load_source(
    name: str,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    strict: bool = False,
    skip_damaged: bool = False,
) -> Loaded:
    """Read the source `name` from its folder below `data_dir`, or from its public home if no `data_dir` is given.

    Downloads are kept in `cache_dir` (default `~/.cache/finr1`). Every record is kept or counted under a reason, and
    an id is kept once. Raises `KeyError` for an unknown name, and `SourceError` if a file is damaged, the folder
    missing or the home unreachable; the message says what to put where. With `strict`, damaged records (`DAMAGE`) raise
    as well; with `skip_damaged`, damaged files of a folder are listed in `Loaded.damaged` and the others are read.
    """
    source = SOURCES[name]
    damaged: dict[str, str] | None = {} if skip_damaged else None
    files = _files(source, data_dir, cache_dir or Path.home() / ".cache" / "finr1", damaged)
    readable = {file: [r for r in records if not isinstance(r, Unreadable)] for file, records in files.items()}
    problems: dict[str, Problem] = {}
    origin: dict[str, str] = {}  # id -> file
    outcomes: dict[tuple[str, int], list[Problem | str]] = {}
    for file, number, row in source.rows(readable):
        if not isinstance(row, Reason | Problem):
            row = attempt(source.read, row, file)
        result = _checked(row)
        if isinstance(result, Problem) and (first := problems.setdefault(result.id, result)) is not result:
            result = "duplicate id" if origin[result.id] == file and first == result else "other copy of a record"
        elif isinstance(result, Problem):
            origin[result.id] = file
        outcomes.setdefault((file, number), []).append(result)
    counts = []
    for file, records in files.items():
        count = FileCount(file, len(records))
        if broken := [record for record in records if isinstance(record, Unreadable)]:
            count.dropped["broken record"] = len(broken)
        for number in range(len(readable[file])):
            count.add(outcomes.get((file, number), []))
        lost = count.dropped + count.questions_dropped
        if strict and (found := sorted(r for r in lost if r in DAMAGE or r.startswith("missing column"))):
            raise SourceError(f"{name}: {file}: {', '.join(f'{lost[r]} x {r}' for r in found)} {broken[:1] or ''}")
        counts.append(count)
    return Loaded(source, list(problems.values()), counts, damaged or {})


def _checked(result: Problem | str) -> Problem | str:
    """`result`, or the reason why no model could be asked it or no grader could grade it."""
    if isinstance(result, str):
        return result
    text = result.model_dump_json()
    if len(text) > MAX_CHARS or "\\u0000" in text:
        return "too long" if len(text) > MAX_CHARS else "NUL bytes"
    try:
        grading.grade("", result.gold, result.answer_kind, choices=result.choices, labels=result.labels)
    except ValueError:
        return "unreadable gold"
    return result


def _files(source: Source, data_dir: Path | None, cache_dir: Path, damaged: dict[str, str] | None) -> Files:
    if data_dir is None:
        return source.fetch(cache_dir / source.name)
    folder = source.folder_in(data_dir)
    try:
        return read_folder(folder, damaged)
    except SourceError as error:
        advice = f"its files come from {source.home} and belong into {folder}"
        raise SourceError(f"{source.name}: {error}; {advice}") from error
