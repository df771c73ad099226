"""The sources: where each lives, and how a raw record becomes a `Problem` or a counted reason why not.

A further source is one function `read(record, file)`, which gives a `Problem` or the reason why there is none, and one
entry in `SOURCES`; its name is then a value of `source_names`. Where records have to be joined or compared with each
other, a function `read_files(files)` takes the place of `read`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finr1 import grading, reported
from finr1.records import Problem
from finr1.sources import convfinqa, fincuge, finqa, questions, tfns
from finr1.sources.files import BROKEN, Files, SourceError, download, load_hub, read_each, read_folder
from finr1.sources.pages import retrieved_context, shorten

__all__ = ["SOURCES", "Loaded", "Source", "SourceError", "load_source", "retrieved_context", "shorten"]

MAX_CHARS = 1_000_000  # of a problem as a model would read it; a longer one is a damaged file, not a question


@dataclass(frozen=True)
class Source:
    """What the suite knows about one source; `read` or `read_files` turns its records into problems."""

    name: str
    module: str  # the paper's grouping
    language: str
    licence: str
    home: str  # where a person finds it
    paper_raw: int  # records before curation as the paper states them (`finr1.reported`), rounded there
    paper_kept: int  # ... and after it
    read: Callable[[Any, str], Problem | str] | None = None  # (record, file name) -> problem, or why it is none
    fetch: Callable[[Path], Files] | None = None  # downloads from the public home into a cache folder
    read_files: Callable[[Files], Iterator[tuple[str, int, Problem | str]]] | None = None  # file, record's number, ...
    folder: str = ""  # its folder inside a data folder, where that is not its name

    def folder_in(self, data_dir: Path) -> Path:
        """Where its files lie below `data_dir`: in `folder` if that is there, else in a folder of its name."""
        other = Path(data_dir) / self.folder
        return other if self.folder and other.is_dir() else Path(data_dir) / self.name


def _of_the_paper(name: str, paper_name: str, licence: str, home: str, **reading: Any) -> Source:
    """A source of the paper, with what its table states (`finr1.reported.SOURCES`)."""
    row = next(row for row in reported.SOURCES if row["source"] == paper_name)
    return Source(name, row["module"], row["language"], licence, home, row["raw"], row["kept"], **reading)


_HUB, _GITHUB, _ZIP = "https://huggingface.co/datasets/", "https://github.com/", "/archive/refs/heads/main.zip"
_ANT, _FINANCEIQ = f"{_GITHUB}alipay/financial_evaluation_dataset", f"{_GITHUB}Duxiaoman-DI/XuanYuan"
_FINCUGE, _FINCORPUS = f"{_GITHUB}ssymmetry/BBT-FinCUGE-Applications", "Duxiaoman-DI/FinCorpus"
_INSTRUCT, _FINANCEQT = "Josephgflowers/Finance-Instruct-500k", "lumalik/Quant-Trading-Instruct"
_TFNS = "zeroshot/twitter-financial-news-sentiment"
_CARD = "as stated on the data set's card"

SOURCES = {
    source.name: source
    for source in (
        _of_the_paper("fincorpus", "FinCorpus", f"{_CARD}, not checked here", _HUB + _FINCORPUS,
                      fetch=partial(load_hub, _FINCORPUS, data_files="data/fin_exam.jsonl.gz"),
                      read=questions.read_fincorpus),
        _of_the_paper("finance_instruct_500k", "Finance-Instruct-500k", f"Apache-2.0, {_CARD}", _HUB + _INSTRUCT,
                      fetch=partial(load_hub, _INSTRUCT), read_files=questions.finance_instruct_files),
        _of_the_paper("convfinqa", "ConvFinQA", "MIT", f"{_GITHUB}czyssrs/ConvFinQA",
                      fetch=partial(download, convfinqa.URLS), read_files=convfinqa.read_files),
        _of_the_paper("finqa", "FinQA", "MIT", f"{_GITHUB}czyssrs/FinQA",
                      fetch=partial(download, finqa.URLS), read_files=finqa.read_files),
        _of_the_paper("financeiq", "FinanceIQ", "CC BY-NC-SA 4.0, as stated in its repository", _FINANCEIQ,
                      fetch=partial(download, {"xuanyuan.zip": _FINANCEIQ + _ZIP}, part="FinanceIQ"),
                      read=questions.read_financeiq),
        _of_the_paper("tfns", "TFNS", f"MIT, {_CARD}", _HUB + _TFNS,
                      fetch=partial(load_hub, _TFNS), read_files=tfns.read_files),
        _of_the_paper("fincuge", "FinCUGE", "no licence file in its repository", _FINCUGE,
                      fetch=partial(download, {"fincuge.zip": _FINCUGE + _ZIP}), read_files=fincuge.read_files),
        _of_the_paper("ant_finance", "Ant_Finance", "CC BY 4.0", _ANT, folder="fin_eva",
                      fetch=partial(download, {"ant.zip": _ANT + _ZIP}), read=questions.read_ant),
        _of_the_paper("finpee", "FinPEE", "closed", "the authors' university; put questions of your own in its place",
                      read=questions.read_finpee),
        _of_the_paper("financeqt", "FinanceQT", f"{_CARD}, not checked here", _HUB + _FINANCEQT,
                      fetch=partial(load_hub, _FINANCEQT), read=questions.read_financeqt),
    )
}  # fmt: skip


@dataclass
class Loaded:
    """The problems of one source, and what became of each record."""

    source: Source
    problems: list[Problem]
    outcomes: dict[str, list[list[Problem | str]]]  # by file and record: a problem or a reason for each question in it

    def rows(self) -> list[dict[str, Any]]:
        """The account of each file in its own records: `raw` = `kept` + all of `dropped`.

        A record may hold several questions (a dialogue) and is kept if one of them is; `problems` counts the questions.
        """
        rows = []
        for file, records in self.outcomes.items():
            problems = [sum(isinstance(result, Problem) for result in results) for results in records]
            lost = [results for results, count in zip(records, problems, strict=True) if not count]
            dropped = Counter(results[0] if results else "no question" for results in lost)
            row = {"source": self.source.name, "file": file, "raw": len(records), "kept": len(records) - len(lost)}
            rows.append(row | {"dropped": dict(dropped.most_common()), "problems": sum(problems)})
        return rows


def load_source(name: str, data_dir: Path | None = None, cache_dir: Path | None = None) -> Loaded:
    """Read the source `name` from its folder below `data_dir`, or from its public home if no `data_dir` is given.

    Downloads are kept in `cache_dir` (default `~/.cache/finr1`). Every record is kept or counted under a reason, and
    an id is kept once. Raises `KeyError` for an unknown name, and `SourceError` for a file that cannot be read, a
    missing folder or an unreachable home; the message says what to put where.
    """
    source = SOURCES[name]
    folder = source.folder_in(data_dir) if data_dir else None
    try:
        if not folder and not source.fetch:
            raise SourceError("it cannot be downloaded")
        content = read_folder(folder) if folder else source.fetch((cache_dir or Path.home() / ".cache/finr1") / name)
    except SourceError as error:
        place = folder or "a folder below data_dir"
        raise SourceError(f"{name}: {error}; its files belong into {place} and come from {source.home}") from error
    files = {file: [record for record in records if record is not BROKEN] for file, records in content.items()}
    outcomes = {file: [[] for _ in records] for file, records in files.items()}
    kept: dict[str, tuple[str, Problem]] = {}  # id -> (file, problem)
    for file, number, result in source.read_files(files) if source.read_files else read_each(source.read, files):
        if isinstance(result, Problem):
            result = _unusable(result) or result
        if isinstance(result, Problem) and kept.setdefault(result.id, (file, result))[1] is not result:
            result = "duplicate id" if kept[result.id] == (file, result) else "other copy of a record"
        outcomes[file][number].append(result)
    for file, results in outcomes.items():
        results += [["broken record"]] * (len(content[file]) - len(results))
    return Loaded(source, [problem for _, problem in kept.values()], outcomes)


def _unusable(problem: Problem) -> str:
    """Why no model can be asked `problem` or no grader can grade it; "" if they can."""
    text = problem.model_dump_json()
    if len(text) > MAX_CHARS or "\\u0000" in text:
        return "too long" if len(text) > MAX_CHARS else "NUL bytes"
    try:
        grading.grade("", problem.gold, problem.answer_kind, choices=problem.choices, labels=problem.labels)
    except ValueError:
        return "unreadable gold"
    return ""
