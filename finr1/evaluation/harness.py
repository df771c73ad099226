"""The benchmarks as tasks of lm-evaluation-harness: others can score their models on the same items.

`python -m finr1 export-harness` writes them; `lm_eval run --include_path DIR --tasks finr1 --apply_chat_template` runs
them. Install finr1 there, because it grades. With one dtype and batch size both give the same texts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from finr1.evaluation.regrade import read_benchmark
from finr1.evaluation.samples import chat_sha256
from finr1.params import read_flat_yaml
from finr1.paths import data_beside, replacing
from finr1.records import Problem, messages, write_jsonl

TAG = "finr1"  # of all tasks


def export(problems: Sequence[Problem], folder: Path, max_tokens: int) -> None:
    """Write a task (YAML and JSONL) for each source among `problems`, named after it, all tagged `finr1`."""
    folder = Path(folder).resolve()  # the harness looks for a relative path from where it is started
    common = data_beside(__file__, "harness.yaml")
    common["generation_kwargs"]["max_gen_toks"] = max_tokens
    unasked = {"context", "reference", "reference_by_parts"}
    for source in dict.fromkeys(problem.source for problem in problems):
        name = f"{TAG}_{source}"
        # The problem as one string: a JSON dataset would give every row the options and labels of all other rows.
        own = [(p, p.model_dump_json(exclude=unasked)) for p in problems if p.source == source]
        rows = [{"id": p.id, "messages": messages(p), "gold": p.gold, "problem": text} for p, text in own]
        write_jsonl(folder / f"{name}.jsonl", rows)
        task = {"task": name, "tag": TAG} | common
        task["dataset_kwargs"] = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
        text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
        with replacing(folder / f"{name}.yaml") as file:
            file.write(f"class: !function finr1.evaluation.harness_task.ChatTask\n{text}".encode())


def run_export(options: argparse.Namespace) -> int:
    """Export the items of a run's benchmark and print how to use them."""
    stage, samples, problems = read_benchmark(options.run)
    asked = {sample.problem_id: sample.prompt_sha256 for sample in samples}
    items = [problem for problem in problems if problem.id in asked]  # without those that only fill suites
    if asked != {problem.id: chat_sha256(messages(problem)) for problem in items}:
        raise ValueError(f"{stage} was asked with other prompts or items than today's")
    export(items, options.output, read_flat_yaml(stage / "params.yaml").values["max_tokens"])
    print(f"{len(items)} items of {', '.join(sorted({item.source for item in items}))} in {options.output}")
    print(f"lm_eval run --model hf --model_args pretrained=MODEL --include_path {options.output} --tasks {TAG} "
          "--apply_chat_template")  # fmt: skip
    return 0
