"""The sources: where each is published, and how a raw record becomes a `Problem` or a counted reason why not.

To add a source, write one function `read(record, file)`, which returns a `Problem` or the reason why there is none, and
one entry in `SOURCES`. If records have to be joined or compared, write `read_files(files)` instead. It also gets the
broken records among the others; `read_each` passes them on.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from finr1 import grading
from finr1.paths import data_beside
from finr1.records import Problem
from finr1.sources import convfinqa, fincuge, finqa, questions, tfns
from finr1.sources.files import PAPER, Files, Results, SourceError, download, load_hub, read_each, read_folder

MAX_CHARS = 1_000_000  # of a problem as a model would read it; a longer text is a damaged file, not a question
_READ = {"fincorpus": questions.read_fincorpus, "financeiq": questions.read_financeiq, "finpee": questions.read_finpee,
         "ant_finance": questions.read_ant, "financeqt": questions.read_financeqt}  # fmt: skip
_READ_FILES = {"finance_instruct_500k": questions.finance_instruct_files, "convfinqa": convfinqa.read_files,
               "finqa": finqa.read_files, "tfns": tfns.read_files, "fincuge": fincuge.read_files}  # fmt: skip
_HOMES = data_beside(__file__, "homes.yaml")


class Source(NamedTuple):
    """One source. `read` or `read_files` turns its raw records into problems."""

    name: str
    module: str  # the paper's grouping
    language: str
    paper_raw: int  # records before curation as the paper states them (`finr1.reported`), rounded there
    paper_kept: int  # ... and after it
    licence: str
    home: str  # where a person finds it
    read: Callable[[Any, str], Problem | str] | None = None  # (record, file name) -> problem, or why it is none
    fetch: Callable[[Path], Files] | None = None  # downloads from the public home into a cache folder
    read_files: Callable[[Files], Results] | None = None
    folder: str = ""  # its folder inside a data folder, where that is not its name

    def folder_in(self, data_dir: Path) -> Path:
        """The folder of its files below `data_dir`: `folder` if that exists, else the one with its name."""
        other = Path(data_dir) / self.folder
        return other if self.folder and other.is_dir() else Path(data_dir) / self.name

    def files(self, folder: Path | None, cache: Path) -> Files:
        """Its raw records, from `folder` or else its home. The `SourceError` that it raises says what to put where."""
        try:
            if folder:
                return read_folder(folder, self.language == "zh")
            if not self.fetch:
                raise SourceError("it cannot be downloaded")
            return self.fetch(cache)
        except SourceError as error:
            where = f"its files belong into {folder or 'a folder below data_dir'} and come from {self.home}"
            raise SourceError(f"{self.name}: {error}; {where}") from error


def _source(name: str, row: dict[str, Any]) -> Source:
    """A source of the paper, from its row in the paper's table."""
    home, fetch = _HOMES[name], None
    if "hub" in home:
        fetch = partial(load_hub, home["hub"], **home.get("options", {}))
    elif "urls" in home:
        fetch = partial(download, home["urls"], part=home.get("part", ""))
    stated = (row["module"], row["language"], row["raw"], row["kept"], home["licence"], home["home"])
    return Source(name, *stated, _READ.get(name), fetch, _READ_FILES.get(name), home.get("folder", ""))


SOURCES = {name: _source(name, row) for name, row in PAPER.items()}


class Loaded(NamedTuple):
    """The problems of one source, and one row per file that accounts for its records: `raw` = `kept` + all `dropped`.

    A record may hold several questions (a conversation). It counts as kept if one of them is.
    """

    problems: list[Problem]
    rows: list[dict[str, Any]]


def load_source(name: str, data_dir: Path | None = None, cache_dir: Path | None = None) -> Loaded:
    """Read the source `name` from its folder below `data_dir`, or from its public home if `data_dir` is None.

    Downloads stay in `cache_dir` (default `~/.cache/finr1`). Every record is kept, or counted under a reason. Of
    several records with one id, one is kept. Raises `KeyError` for an unknown name, `SourceError` without any file.
    """
    source, cache = SOURCES[name], (cache_dir or Path.home() / ".cache/finr1") / name
    files = source.files(source.folder_in(data_dir) if data_dir else None, cache)
    outcomes = {file: [[] for _ in records] for file, records in files.items()}  # of each question of each record
    kept: dict[str, tuple[str, Problem]] = {}  # id -> (file, problem)
    for file, number, result in source.read_files(files) if source.read_files else read_each(source.read, files):
        if isinstance(result, Problem):
            result = _unusable(result) or result
        if isinstance(result, Problem) and kept.setdefault(result.id, (file, result))[1] is not result:
            result = "duplicate id" if kept[result.id] == (file, result) else "other copy of a record"
        outcomes[file][number].append(result)
    rows = []
    for file, records in outcomes.items():
        lost = [results for results in records if not any(isinstance(result, Problem) for result in results)]
        dropped = Counter(str(results[0]) if results else "no question" for results in lost)
        row = {"source": name, "file": file, "raw": len(records), "kept": len(records) - len(lost)}
        rows.append(row | {"dropped": dict(dropped.most_common())})
    return Loaded([problem for _, problem in kept.values()], rows)


def _unusable(problem: Problem) -> str:
    """Why `problem` can't be put to a model, or can't be graded; "" if it can."""
    text = problem.model_dump_json()
    if len(text) > MAX_CHARS or "\\u0000" in text:
        return "too long" if len(text) > MAX_CHARS else "NUL bytes"
    try:
        grading.grade("", **problem.graded_against)
    except ValueError:
        return "unreadable gold"
    return ""


def print_counts(options: argparse.Namespace) -> int:
    """Print one row per file. Returns 1 if a file is damaged or the folder holds no source, else 0."""
    there = {name: at for name, source in SOURCES.items() if (at := source.folder_in(options.data)).is_dir()}
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
    other = sorted({*options.data.glob("*/")} - set(there.values()))  # perhaps a misspelt source
    remarks = [f"folders of no source, not read: {', '.join(path.name for path in other)}"] if other else []
    print(*errors, *remarks, sep="\n", file=sys.stderr)
    return int(bool(errors))
