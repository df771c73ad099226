"""`python -m finr1 regrade RUN [--protocol NAME]`: a finished benchmark under other rules, without any model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finr1.evaluation.judged import Verdict, judge_line
from finr1.evaluation.protocols import JUDGE, PROTOCOLS, regrade
from finr1.evaluation.samples import Sample
from finr1.evaluation.tables import protocol_table
from finr1.paths import run_folder
from finr1.records import Problem, read_jsonl, write_jsonl

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
        help="ours: as the run was graded; strict: FinQA's own evaluator; lenient: the last number or option; judge: "
        "verdicts kept by notebook 06; all (default): side by side",
    )
    parser.add_argument("--output", type=Path, help="write the regraded samples there (one protocol only)")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Print a table, a column a protocol; returns 2 where the run has no benchmark, or no kept verdicts of a judge."""
    stage = stage_folder(run_folder(options.run))
    files = [stage / "samples.jsonl", problems_file(stage), stage / "verdicts.jsonl"]
    judged = files[2].is_file() and files[2].stat().st_size > 0
    missing = [str(file) for file in files[:2] if not file.is_file()]
    missing += [str(files[2])] * (options.protocol == JUDGE and not judged)
    if missing or (options.output and options.protocol == "all"):
        print("; ".join(f"{file} is missing" for file in missing) or "--output needs one --protocol", file=sys.stderr)
        return 2
    samples, problems = list(read_jsonl(files[0], Sample)), list(read_jsonl(files[1], Problem))
    verdicts = list(read_jsonl(files[2], Verdict)) if judged else []
    protocols = [*PROTOCOLS, *[JUDGE] * judged] if options.protocol == "all" else [options.protocol]
    graded = {protocol: regrade(samples, problems, protocol, verdicts) for protocol in protocols}
    print(protocol_table(graded))
    if JUDGE in protocols:
        print(judge_line(verdicts))
    if options.output:
        write_jsonl(options.output, graded[options.protocol])
    return 0


def stage_folder(folder: Path) -> Path:
    """The benchmark of a run's folder, which may be the benchmark's own."""
    return folder if (folder / "samples.jsonl").is_file() else folder / STAGE


def problems_file(stage: Path) -> Path:
    """The problems that were asked; of a run that did not keep them, all of its notebook 01."""
    items = stage / "items.jsonl"
    return items if items.is_file() else stage.parent / "01_data" / "problems.jsonl"
