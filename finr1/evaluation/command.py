"""`python -m finr1 regrade RUN [--protocol NAME]`: a finished benchmark under other rules, without any model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finr1.evaluation.protocols import PROTOCOLS, regrade
from finr1.evaluation.samples import Sample
from finr1.evaluation.tables import protocol_table
from finr1.paths import run_folder
from finr1.records import Problem, read_jsonl, write_jsonl


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `regrade` to the commands of `python -m finr1`."""
    parser = commands.add_parser("regrade", help="grade the answers of a finished benchmark by another protocol")
    parser.add_argument("run", metavar="RUN", help="folder of outputs/, or a path to one")
    parser.add_argument("--protocol", choices=[*PROTOCOLS, "all"], default="all")
    parser.add_argument("--output", type=Path, help="write the regraded samples there (one protocol only)")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Print a table, a column a protocol; returns 2 where the run has no benchmark."""
    folder = run_folder(options.run)
    files = [folder / "06_benchmark" / "samples.jsonl", folder / "01_data" / "problems.jsonl"]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or (options.output and options.protocol == "all"):
        print("; ".join(f"{file} is missing" for file in missing) or "--output needs one --protocol", file=sys.stderr)
        return 2
    samples, problems = list(read_jsonl(files[0], Sample)), list(read_jsonl(files[1], Problem))
    protocols = list(PROTOCOLS) if options.protocol == "all" else [options.protocol]
    graded = {protocol: regrade(samples, problems, protocol) for protocol in protocols}
    print(protocol_table(graded))
    if options.output:
        write_jsonl(options.output, graded[options.protocol])
    return 0
