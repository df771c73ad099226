"""`python -m finr1 regrade RUN [--protocol NAME]`: a finished benchmark under other rules, without any model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from finr1.evaluation.protocols import JUDGE, PROTOCOLS, regrade
from finr1.evaluation.rendering import protocol_table
from finr1.evaluation.samples import Sample
from finr1.judge import Verdict, judge_line
from finr1.paths import run_folder
from finr1.records import Problem, R, read_jsonl, write_jsonl

STAGE = "06_benchmark"


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `regrade` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "regrade",
        help="grade the answers of a finished benchmark by another protocol",
        description="The kept answers under other rules, without any model: accuracies side by side.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of outputs/, or a path to one, or to its 06_benchmark")
    parser.add_argument(
        "--protocol",
        choices=[*PROTOCOLS, JUDGE, "all"],
        default="all",
        help="ours: the rules of this version, whatever graded the run; strict: FinQA's own evaluator; lenient: the "
        "last number or option; judge: verdicts kept by notebook 06; all (default): side by side",
    )
    parser.add_argument("--output", type=Path, help="write the regraded samples there (one protocol only)")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Print a table, a column a protocol; returns 2 where the run has no benchmark, no kept verdicts of a judge, or
    files that cannot be read or do not belong together.
    """
    stage = stage_folder(run_folder(options.run))
    files = [stage / "samples.jsonl", problems_file(stage), stage / "verdicts.jsonl"]
    judged = files[2].is_file() and files[2].stat().st_size > 0
    missing = [str(file) for file in files[:2] if not file.is_file()]
    missing += [str(files[2])] * (options.protocol == JUDGE and not judged)
    if missing or (options.output and options.protocol == "all"):
        print("; ".join(f"{file} is missing" for file in missing) or "--output needs one --protocol", file=sys.stderr)
        return 2
    protocols = [*PROTOCOLS, *[JUDGE] * judged] if options.protocol == "all" else [options.protocol]
    try:
        samples, problems = read_whole(files[0], Sample), read_whole(files[1], Problem)
        verdicts = read_whole(files[2], Verdict) if judged else []
        graded = {protocol: regrade(samples, problems, protocol, verdicts) for protocol in protocols}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(protocol_table(graded))
    if changed := _regraded(samples, graded.get("ours", [])):
        print(f"ours: today's rules grade {changed} of {len(samples)} answers otherwise than the run did")
    if JUDGE in protocols:
        print(judge_line(verdicts))
    if options.output:
        write_jsonl(options.output, graded[options.protocol])
    return 0


def read_whole(file: Path, record: type[R]) -> list[R]:
    """All rows of a JSONL file. Raises `ValueError`, in one line, for a row that cannot be read, or without any."""
    rows: list[R] = []
    try:
        for row in read_jsonl(file, record):
            rows.append(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"{file}, line {len(rows) + 1}: {where}{first['msg']}") from error
    except ValueError as error:  # bytes that are no UTF-8
        raise ValueError(f"{file}: {error}") from error
    if not rows:
        raise ValueError(f"{file} is empty")
    return rows


def _regraded(samples: Sequence[Sample], now: Sequence[Sample]) -> int:
    """How many answers that rules graded in the run have another verdict `now`."""
    pairs = zip(samples, now, strict=False)
    return sum(was.graded_by == "rules" and was.correct is not is_.correct for was, is_ in pairs)


def stage_folder(folder: Path) -> Path:
    """The benchmark of a run's folder, which may be the benchmark's own."""
    return folder if (folder / "samples.jsonl").is_file() else folder / STAGE


def problems_file(stage: Path) -> Path:
    """The problems that were asked; of a run that did not keep them, all of its notebook 01."""
    items = stage / "items.jsonl"
    return items if items.is_file() else stage.parent / "01_data" / "problems.jsonl"
