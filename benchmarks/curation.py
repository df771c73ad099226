"""Does curation stay linear in time and below 4 GiB for a million problems?

    python benchmarks/curation.py [--sizes 10000 100000 1000000] [--engines local ray]

Synthetic questions (numbers and words drawn at random, one in fifty a near or exact repetition, one in a thousand a
leak of the held-out set) go through the schema, `drop_duplicates`, `decontaminate` and the rules judge. Each size runs
in a process of its own; printed are seconds by step, what was dropped, wall time and the peak memory of that process.
`ray` runs both steps as notebook 01 does with `engine = "ray"`, on two workers of this machine (`pip install
"ray[data]"`); its `start s` and the memory of its workers come on top.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import resource
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat

from finr1 import curation
from finr1.launch import notebook_file
from finr1.records import Problem, Trace

WORDS = (
    "revenue cost margin loan bond share dividend equity asset rate growth quarter bank fund risk yield swap".split()
)
HELD_OUT = 2000


def problem(number: int, split: str = "train") -> Problem:
    source = number - 1 if number % 50 == 49 else number  # one in fifty repeats its predecessor
    if split == "train" and number % 1000 == 500:
        text_split, source_text = "test", number // 1000 % HELD_OUT
    else:
        text_split, source_text = split, source
    rng = random.Random(f"{text_split}{source_text}")
    words = " ".join(rng.choice(WORDS) for _ in range(18))
    question = f"In case {text_split} {rng.randrange(10**9)} what follows from {words}?"
    if source != number and number % 100 == 49:
        question += " Please."  # a near repetition
    return Problem(
        id=f"bench/{split}/{number}",
        source="bench",
        module="bench",
        language="en",
        split=split,
        capability="calculation",
        answer_kind="number",
        question=question,
        gold="4",
        group=f"{split}{number}",
    )


@functools.cache
def rules_judge() -> dict[str, object]:
    """What notebook 03 defines to judge by rules."""
    cells = {cell.id: cell.source for cell in nbformat.read(notebook_file("03_filtering"), 4).cells}
    names: dict[str, object] = {}
    for name in ("cell-01", "scores", "rules-words", "rules-conclusion", "rules-score"):
        exec(cells[name], names)
    return names


def full_marks(asked: Problem, number: int) -> bool:
    """Whether the rules judge gives a short, true reasoning seven points of seven."""
    reasoning = f"Revenue is {number}. {number} + 4 = {number + 4}. {number + 4} - {number} = 4. So it is 4."
    trace = Trace(id=f"{asked.id}#0", problem=asked, teacher="bench", reasoning=reasoning, answer="4",
                  completion=f"<think>{reasoning}</think><answer>\\boxed{{4}}</answer>")  # fmt: skip
    return rules_judge()["score_reasoning"](trace).total == 7


def engine_of(name: str) -> SimpleNamespace:
    """What notebook 01 makes of this value of its parameter `engine`."""
    cells = {cell.id: cell.source for cell in nbformat.read(notebook_file("01_data"), 4).cells}
    if name == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    names = {"params": SimpleNamespace(engine=name)}
    for cell in ("cell-01", "engine"):
        exec(cells[cell], names)
    return names["workers"]


def run(size: int, engine: str) -> dict[str, object]:
    started = time.monotonic()
    workers = engine_of(engine)
    marks = [time.monotonic()]
    problems = [problem(number) for number in range(size)]
    marks.append(time.monotonic())
    problems, dropped = curation.drop_duplicates(problems, workers)
    marks.append(time.monotonic())
    held_out = [problem(number, "test") for number in range(HELD_OUT)]
    problems, matches = curation.decontaminate(problems, held_out, engine=workers)
    marks.append(time.monotonic())
    full = sum(full_marks(asked, number) for number, asked in enumerate(problems))
    marks.append(time.monotonic())
    steps = ("schema", "duplicates", "decontaminate", "rules judge")
    seconds = {step: round(end - start, 1) for step, start, end in zip(steps, marks, marks[1:], strict=False)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    dropped = {**dropped, "leaks": len(matches), "7 of 7": full}
    return {
        "problems": size,
        "engine": engine,
        "start s": round(marks[0] - started, 1),
        **seconds,
        **dropped,
        "wall s": round(marks[-1] - marks[0], 1),
        "peak GiB": round(peak, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--engines", nargs="+", default=["local"], choices=["local", "ray"])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.engines[0])))
        return
    for size in options.sizes:
        for engine in options.engines:
            subprocess.run([sys.executable, __file__, "--one", str(size), "--engines", engine], check=True)


if __name__ == "__main__":
    main()
