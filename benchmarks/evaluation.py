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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {"harness, float32": "float32", "harness, bfloat16": "bfloat16", "ours": "bfloat16"}


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
    seconds = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - work}
    rows = [row for rows in outcome["samples"].values() for row in rows]
    right = sum(row.get("accuracy", 0) for row in rows)
    return {**seconds, "right": right, "texts": {row["doc"]["id"]: row["resps"][0][0] for row in rows}}


def run_ours(model: str, options: argparse.Namespace, dtype: str) -> dict:
    """The same from `evaluation.evaluate`."""
    from finr1.evaluation import evaluate
    from finr1.generation import SamplingParams, TransformersBackend

    backend = TransformersBackend(model, dtype=dtype, batch_size=options.batch_size, device="cpu")
    evaluate(items(1), backend, SamplingParams(max_tokens=1), "base")  # loads the model, as the other side has
    start, work = time.perf_counter(), time.process_time()
    samples = evaluate(items(options.items), backend, SamplingParams(max_tokens=options.max_tokens), "base")
    seconds = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - work}
    texts = {sample.problem_id: sample.text for sample in samples}
    return {**seconds, "right": sum(sample.correct is True for sample in samples), "texts": texts}


def child(folder: Path, options: argparse.Namespace) -> None:
    """One way in this process; its result as JSON, with the peak of resident memory in MiB."""
    import resource

    from finr1.models import EMBEDDED_MODEL, resolve_model
    from finr1.paths import cache_dir

    model = resolve_model(EMBEDDED_MODEL, cache_dir())
    dtype = WAYS[options.child]
    result = run_ours(model, options, dtype) if options.child == "ours" else run_harness(folder, model, options, dtype)
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
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
    ours = results["ours"]
    print(f"{options.items} items, at most {options.max_tokens} new tokens, batches of {options.batch_size}, CPU")
    print(f"{'':20}{'seconds':>9}{'ratio':>8}{'CPU s':>9}{'ratio':>8}{'MiB':>8}{'right':>7}{'same texts as ours':>20}")
    for way, result in results.items():
        same = sum(text == ours["texts"][item] for item, text in result["texts"].items())
        ratio, work = result["seconds"] / ours["seconds"], result["cpu"] / ours["cpu"]
        print(
            f"{way:20}{result['seconds']:9.1f}{ratio:7.2f}x{result['cpu']:9.1f}{work:7.2f}x{result['memory']:8.0f}{result['right']:7.0f}{same:20}"
        )


def measure_grading(count: int) -> None:
    """Regrading of `count` samples through the public function, and short answers a second for each kind."""
    from finr1.evaluation import PROTOCOLS, evaluate, regrade
    from finr1.evaluation.samples import grade_answer
    from finr1.generation import SamplingParams, ScriptedBackend

    problems = items(500)
    by_id = {problem.id: problem for problem in problems}
    answer = "<think>12 * 5 = 60, so the answer follows.</think><answer>\\boxed{{{}}}</answer>"
    backend = ScriptedBackend(lambda request, *_: answer.format(by_id[request.id].gold), "gold")
    samples = evaluate(problems, backend, SamplingParams(), "base")
    samples = [sample for _ in range(-(-count // len(samples))) for sample in samples][:count]
    for protocol in PROTOCOLS:
        start = time.perf_counter()
        graded = regrade_samples(samples, problems, protocol)
        print(f"regrade {len(graded)} samples, {protocol:10}{time.perf_counter() - start:7.1f} s")
    for kind in sorted({problem.answer_kind for problem in problems}):
        of_kind = [problem for problem in problems if problem.answer_kind == kind]
        pairs = [(p, q.gold) for p, q in zip(of_kind, of_kind[1:] + of_kind[:1], strict=True)] * (
            20_000 // len(of_kind)
        )
        start = time.process_time()
        for problem, other in pairs:
            grade_answer(problem, other)
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
