"""`python -m finr1 compare RUN_A RUN_B [--html FILE]`: what differs between two runs, going in and coming out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finr1.compare.metrics import compare_metrics
from finr1.compare.page import html_page, text_page
from finr1.compare.runs import NotComparable, read_run
from finr1.paths import shown


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `compare` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "compare",
        help="what differs between two runs: parameters, seeds, code, and metrics with intervals",
        description="Settings that differ between two finished runs, and the difference of each benchmark metric: "
        "paired where both were asked the same prompts, unpaired (and said so) otherwise; p-values corrected by Holm.",
    )
    parser.add_argument("run_a", metavar="RUN_A", help="folder of outputs/, or a path to one anywhere")
    parser.add_argument("run_b", metavar="RUN_B", help="the run that is compared with it: differences are B minus A")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the comparison there, too: one file by itself")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and permutations (default: 0)")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Print the comparison; returns 2 with the reason where the two cannot be compared."""
    try:
        a, b = read_run(options.run_a), read_run(options.run_b)
        rows = compare_metrics(a, b, options.seed)
    except NotComparable as error:
        print(error, file=sys.stderr)
        return 2
    print(text_page(a, b, rows))
    if options.html:
        print(f"\n{shown(html_page(a, b, rows, options.html.expanduser().absolute()))}")
    return 0
