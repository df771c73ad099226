"""Does curation stay linear in time and below 4 GiB for a million problems?

    python benchmarks/curation.py [--sizes 10000 100000 1000000] [--workers 2]

Synthetic questions (numbers and words drawn at random, one in fifty a near or exact repetition, one in a thousand a
leak of the held-out set) go through the schema, `drop_duplicates`, `decontaminate` and the rules judge. Each size runs
in a process of its own; printed are seconds by step, peak memory of that process and its workers, what was found, wall
time and how many cores were busy on average.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context

import psutil

from finr1 import curation, judge
from finr1.records import Problem, Trace

WORDS = (
    "revenue cost margin loan bond share dividend equity asset rate growth quarter bank fund risk yield swap".split()
)
HELD_OUT = 2000


def problem(number: int, split: str = "train") -> Problem:
    rng = random.Random(f"{split}{number}")
    source = number - 1 if number % 50 == 49 else number  # one in fifty repeats its predecessor
    if split == "train" and number % 1000 == 500:
        rng, split_of_text = random.Random(f"test{number // 1000 % HELD_OUT}"), "test"
    else:
        rng, split_of_text = random.Random(f"{split}{source}"), split
    words = " ".join(rng.choice(WORDS) for _ in range(18))
    question = f"In case {split_of_text} {rng.randrange(10**9)} what follows from {words}?"
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


def scores(batch: list[int]) -> int:
    """How many traces of a batch get seven points."""
    total = 0
    for number in batch:
        asked = problem(number)
        reasoning = f"Revenue is {number}. {number} + 4 = {number + 4}. {number + 4} - {number} = 4. So it is 4."
        trace = Trace(id=f"{asked.id}#0", problem=asked, teacher="bench", reasoning=reasoning, answer="4",
                      completion=f"<think>{reasoning}</think><answer>\\boxed{{4}}</answer>")  # fmt: skip
        total += judge.score_reasoning(trace).total == 7
    return total


def run(size: int, workers: int) -> dict[str, object]:
    seconds: dict[str, float] = {}

    def timed(name: str, start: float) -> None:
        seconds[name] = round(time.monotonic() - start, 1)

    start = time.monotonic()
    problems = [problem(number) for number in range(size)]
    timed("schema", start)
    start = time.monotonic()
    problems, dropped = curation.drop_duplicates(problems, workers=workers)
    timed("duplicates", start)
    start = time.monotonic()
    held_out = [problem(number, "test") for number in range(HELD_OUT)]
    problems, matches = curation.decontaminate(problems, held_out)
    timed("decontaminate", start)
    del problems
    start = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        full = sum(pool.map(scores, batches(size)))
    timed("rules judge", start)
    return {"problems": size, **seconds, **dropped, "leaks": len(matches), "7 of 7": full}


def batches(size: int) -> Iterator[list[int]]:
    for start in range(0, size, 5000):
        yield list(range(start, min(start + 5000, size)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.workers)))
        return
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--workers", str(options.workers)]
        print(json.dumps(measured(command)), flush=True)


def measured(command: list[str]) -> dict[str, object]:
    """The row that `command` prints, with its wall time, the cores it kept busy, and the peak of its whole tree.

    Resident memory, summed over the processes ten times a second. (The kernel's own `ru_maxrss` would count a spawned
    worker as large as the process that forked it.)
    """
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                peak = max(peak, sum(one.memory_info().rss for one in [root, *root.children(recursive=True)]))
            time.sleep(0.1)
        row = json.loads(process.stdout.read())
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    busy = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    return row | {"wall s": round(wall, 1), "cores used": round(busy / wall, 2), "peak GiB": round(peak / 2**30, 2)}


if __name__ == "__main__":
    main()
