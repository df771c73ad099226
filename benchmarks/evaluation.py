"""How fast do we evaluate and grade? lm-evaluation-harness beside our own loop, and the grader by itself.

    python benchmarks/evaluation.py [--items 500] [--max-tokens 72] [--batch-size 64] [--samples 100000]

The embedded model answers the same items with the same greedy settings, each way in a process of its own: the harness'
hf backend with the model's own dtype and with bfloat16, and our `TransformersBackend` as the notebooks use it. Printed:
wall time and processor time of generation and grading (models loaded, imports done), peak memory of the process, and
how many texts are the same. Before that: 100,000 samples graded again (`regrade`), short answers graded a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

WAYS = {"harness, float32": "float32", "harness, bfloat16": "bfloat16", "ours": None}  # way -> dtype of the harness


def items(count: int) -> list:
    """The first test problems of the synthetic default."""
    from finr1.synthetic import generate_problems

    return generate_problems(count, "test", seed=0)


def run_harness(folder: Path, model: str, options: argparse.Namespace, dtype: str) -> dict:
    """Times, right answers and texts by item id, from lm_eval on the exported tasks."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    lm = HFLM(pretrained=model, dtype=dtype, device="cpu", batch_size=options.batch_size)
    start, work = time.perf_counter(), time.process_time()
    outcome = lm_eval.simple_evaluate(
        lm, tasks=["finr1"], task_manager=tasks, apply_chat_template=True, bootstrap_iters=0
    )
    result = {"seconds": time.perf_counter() - start, "CPU s": time.process_time() - work}
    rows = [row for rows in outcome["samples"].values() for row in rows]
    texts = {row["doc"]["id"]: row["resps"][0][0] for row in rows}
    return result | {"right": int(sum(row.get("accuracy", 0) for row in rows)), "texts": texts}


def run_ours(model: str, options: argparse.Namespace) -> dict:
    """The same from `evaluation.evaluate`."""
    from finr1.evaluation import evaluate
    from finr1.generation import SamplingParams, TransformersBackend

    backend = TransformersBackend(model, batch_size=options.batch_size, device="cpu")
    evaluate(items(1), backend, SamplingParams(max_tokens=1), "base")  # loads the model, as the other side has
    start, work = time.perf_counter(), time.process_time()
    samples = evaluate(items(options.items), backend, SamplingParams(max_tokens=options.max_tokens), "base")
    result = {"seconds": time.perf_counter() - start, "CPU s": time.process_time() - work}
    texts = {sample.problem_id: sample.text for sample in samples}
    return result | {"right": sum(sample.correct is True for sample in samples), "texts": texts}


def child(folder: Path, options: argparse.Namespace) -> None:
    """One way in this process; its result as JSON, with the peak of resident memory in MiB."""
    from finr1.models import EMBEDDED_MODEL, resolve_model
    from finr1.paths import cache_dir

    model, dtype = resolve_model(EMBEDDED_MODEL, cache_dir()), WAYS[options.child]
    result = run_harness(folder, model, options, dtype) if dtype else run_ours(model, options)
    result["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (folder / "result.json").write_text(json.dumps(result))


def compare(options: argparse.Namespace) -> None:
    """Every way in turn; prints the table."""
    from finr1.evaluation import harness

    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        harness.export(items(options.items), folder / "tasks", options.max_tokens)
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", way, "--folder", name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            results[way] = json.loads((folder / "result.json").read_text())
    table = pd.DataFrame(results).T
    ours = table.loc["ours", "texts"]
    table["same texts as ours"] = [sum(ours[item] == text for item, text in texts.items()) for texts in table["texts"]]
    for column in ("seconds", "CPU s"):
        table[f"{column} / ours"] = (table[column] / table.loc["ours", column]).astype(float).round(2)
        table[column] = table[column].astype(float).round(1)
    table["MiB"] = table["MiB"].astype(int)
    print(f"{options.items} items, at most {options.max_tokens} new tokens, batches of {options.batch_size}, CPU")
    print(table.drop(columns="texts").to_string())


def measure_grading(count: int) -> None:
    """Regrading of `count` samples through the public function, and short answers a second for each kind."""
    from finr1.evaluation import evaluate, regrade_samples
    from finr1.generation import SamplingParams, ScriptedBackend
    from finr1.grading import grade

    problems = items(500)
    golds = {problem.id: problem.gold for problem in problems}
    answer = "<think>12 * 5 = 60, so the answer follows.</think><answer>\\boxed{{{}}}</answer>"
    backend = ScriptedBackend(lambda request, *_: answer.format(golds[request.id]), "gold")
    samples = (evaluate(problems, backend, SamplingParams(), "base") * -(-count // len(problems)))[:count]
    start = time.perf_counter()
    graded = regrade_samples(samples, problems)
    print(f"regrade {len(samples)} samples under {', '.join(graded)}: {time.perf_counter() - start:.1f} s")
    for kind in sorted({problem.answer_kind for problem in problems}):
        members = [problem for problem in problems if problem.answer_kind == kind]
        pairs = list(zip(members, members[1:] + members[:1], strict=True)) * (20_000 // len(members))
        start = time.process_time()
        for problem, other in pairs:
            grade(other.gold, **problem.graded_against)
        print(f"{kind:10}{len(pairs) / (time.process_time() - start):9.0f} answers/s on one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=72)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=100_000, help="samples to regrade")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.folder, options)
    else:
        measure_grading(options.samples)
        compare(options)


if __name__ == "__main__":
    main()
