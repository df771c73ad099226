"""The benchmarks as tasks of lm-evaluation-harness, so that others can score their models on the same items.

    python -m finr1 export-harness --run demo --output tasks
    lm_eval run --model hf --model_args pretrained=MODEL --include_path tasks --tasks finr1 --apply_chat_template

Each benchmark becomes `finr1_<source>.yaml` and a JSONL file of its items: the chat as our backends see it and the
problem as JSON. Answers are graded by `finr1.grading`, called from the YAML, so finr1 has to be installed where the
harness runs. Decoding is greedy, as in the headline; with the same dtype and batch size both give the same texts and
grades (tests/test_harness.py). One thing differs: a prompt that leaves no room for the answer is an error here and is
cut from the left there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from finr1.evaluation.items import asks
from finr1.evaluation.regrade import read_benchmark
from finr1.evaluation.samples import chat_sha256, grade_text
from finr1.params import read_flat_yaml
from finr1.records import Problem, messages, write_jsonl

METRICS = ("accuracy", "format", "lenient", "decided")
GROUP = "finr1"


class _Function(str):
    """A dotted name that the harness imports."""


class _Dumper(yaml.SafeDumper):
    """Writes a `_Function` as the harness reads it."""


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def export(
    problems: Sequence[Problem], folder: Path, max_tokens: int, ask: Callable[[Problem], list[dict]] = messages
) -> list[str]:
    """Write a task for each source among `problems`, in their order, and the group `finr1`; returns the task names.

    `max_tokens`: new tokens at most. `ask` makes the chat (see `evaluation.asks`). The YAML names its items by absolute
    path, since the harness looks for a relative one from the folder in which it is started.
    """
    folder, contents = Path(folder).resolve(), {}
    for source in dict.fromkeys(problem.source for problem in problems):
        items = folder / f"{GROUP}_{source}.jsonl"
        # The problem as one string: a JSON dataset would give every row the options and labels of all other rows.
        rows = [
            {"id": p.id, "messages": ask(p), "problem": p.model_dump_json(exclude={"context", "reference"})}
            for p in problems
            if p.source == source
        ]
        write_jsonl(items, rows)
        contents[items.stem] = {
            "task": items.stem,
            "class": _Function("finr1.evaluation.harness_task.ChatTask"),
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(items)}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": _Function("finr1.evaluation.harness.question"),
            "doc_to_target": _Function("finr1.evaluation.harness.gold"),
            "process_results": _Function("finr1.evaluation.harness.process_results"),
            "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
            # `until` empty: only the end token. A folder's own repetition penalty (Qwen2.5: 1.05) would not be greedy.
            "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0.0, "repetition_penalty": 1.0,
                                  "max_gen_toks": max_tokens},
            "num_fewshot": 0,
            "repeats": 1,
            "metadata": {"version": 1.0},
        }  # fmt: skip
    tasks = list(contents)
    # Each benchmark counts once, as in the paper's average: the harness knows no sizes without the undecided items.
    mean = [{"metric": name, "aggregation": "mean", "weight_by_size": False} for name in METRICS]
    contents[GROUP] = {"group": GROUP, "task": tasks, "aggregate_metric_list": mean}
    for name, content in contents.items():
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf8")
    return tasks


def question(doc: dict) -> str:
    """The last user turn of an exported row, which the harness shows where no chat template is applied."""
    return doc["messages"][-1]["content"]


def gold(doc: dict) -> str:
    """The gold answer of an exported row. (In a column of its own a date would come back as a timestamp.)"""
    return Problem.model_validate_json(doc["problem"]).gold


def process_results(doc: dict, results: Sequence[str]) -> dict[str, float]:
    """Metrics of one exported row and its answer, called by the harness for each item.

    `accuracy` is left out where rules cannot decide, as in our own tables; `decided` says how often they can.
    """
    graded = grade_text(Problem.model_validate_json(doc["problem"]), results[0])
    scores = {
        "format": float(graded["format"]),
        "lenient": float(graded["lenient_correct"] is True),
        "decided": float(graded["correct"] is not None),
    }
    return scores if graded["correct"] is None else {"accuracy": float(graded["correct"]), **scores}


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `export-harness` to the commands of `python -m finr1`."""
    about = "the items of a finished benchmark as tasks of lm-evaluation-harness, graded as here"
    parser = commands.add_parser("export-harness", help=about, description=f"Writes {about}; prints how to run them.")
    parser.add_argument("--run", required=True, help="folder of outputs/ with a finished benchmark, or a path")
    parser.add_argument("--output", required=True, type=Path, help="folder for YAML and JSONL files")
    parser.set_defaults(command=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Export the items of a run's benchmark and print how to use them; returns 2 where that cannot be done."""
    try:
        stage, samples, problems = read_benchmark(options.run)
        settings = read_flat_yaml(stage / "params.yaml").values
        ask = asks(settings.get("prompts", "training"))
        asked = {sample.problem_id: sample.prompt_sha256 for sample in samples}
        by_id = {problem.id: problem for problem in problems}
        if absent := [identifier for identifier in asked if identifier not in by_id]:
            raise ValueError(f"{len(absent)} items were asked and are not among the problems, such as {absent[0]}")
        if other := [identifier for identifier, sha in asked.items() if chat_sha256(ask(by_id[identifier])) != sha]:
            raise ValueError(f"{len(other)} items were asked with another prompt than today's, such as {other[0]}")
        tasks = export([by_id[identifier] for identifier in asked], options.output, settings["max_tokens"], ask)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(asked)} items in {options.output}: {', '.join(tasks)}")
    print(f"lm_eval run --model hf --model_args pretrained=MODEL --include_path {options.output} --tasks {GROUP} "
          "--apply_chat_template")  # fmt: skip
    return 0
