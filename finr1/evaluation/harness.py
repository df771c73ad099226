"""The benchmarks as tasks of lm-evaluation-harness, so that others can score their models on the same items.

    python -m finr1 export-harness --run demo --output tasks
    lm_eval run --model hf --model_args pretrained=MODEL --include_path tasks --tasks finr1 --apply_chat_template

Each benchmark becomes `finr1_<source>.yaml` and a JSONL file of its items: the chat as our backends see it and the
problem as JSON. Answers are graded by `finr1.grading`, called from the YAML, so finr1 has to be installed where the
harness runs. Decoding is greedy, as in the headline; with the same dtype and batch size both give the same texts and
grades (tests/test_harness.py), in other company a text may differ where rounding decides. One thing differs: a prompt
that leaves no room for the answer is an error here and is cut from the left there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from finr1 import grading
from finr1.evaluation.command import problems_file, read_whole, stage_folder
from finr1.evaluation.prompts import asks
from finr1.evaluation.samples import Sample, chat_sha256, grade_answer
from finr1.params import read_flat_yaml
from finr1.paths import run_folder
from finr1.records import Problem, messages, write_jsonl

METRICS = ("accuracy", "format", "lenient", "decided")
GROUP = "finr1"


class _Function(str):
    """A dotted name that the harness imports."""


def export(
    problems: Sequence[Problem],
    folder: Path,
    max_tokens: int,
    ask: Callable[[Problem], list[dict]] = messages,
) -> list[str]:
    """Write a task for each source among `problems`, in their order, and the group `finr1`; returns the task names.

    `max_tokens`: new tokens at most. `ask` makes the chat (see `evaluation.prompts`), earlier turns with gold answers.
    The YAML names its items by absolute path, since the harness looks for a relative one from the folder in which it is
    started. Raises `ValueError` without problems.
    """
    if not problems:
        raise ValueError("no problems to export")
    folder = Path(folder).resolve()
    sources = list(dict.fromkeys(problem.source for problem in problems))
    for source in sources:
        rows = [_row(problem, ask) for problem in problems if problem.source == source]
        items = folder / f"{GROUP}_{source}.jsonl"
        write_jsonl(items, rows)
        _write_yaml(items.with_suffix(".yaml"), _task(source, items, max_tokens))
    tasks = [f"{GROUP}_{source}" for source in sources]
    # Each benchmark counts once, as in the paper's average: the harness knows no sizes without the undecided items.
    mean = [{"metric": name, "aggregation": "mean", "weight_by_size": False} for name in METRICS]
    _write_yaml(folder / f"{GROUP}.yaml", {"group": GROUP, "task": tasks, "aggregate_metric_list": mean})
    return tasks


def _row(problem: Problem, ask: Callable[[Problem], list[dict]]) -> dict:
    # The problem as one string: a JSON dataset would give every row the options and labels of all other rows.
    return {
        "id": problem.id,
        "messages": ask(problem),
        "problem": problem.model_dump_json(exclude={"context", "reference"}),
    }


def _task(source: str, items: Path, max_tokens: int) -> dict:
    return {
        "task": f"{GROUP}_{source}",
        "class": _Function("finr1.evaluation.harness_task.ChatTask"),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(items)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": _Function("finr1.evaluation.harness.question"),
        "doc_to_target": _Function("finr1.evaluation.harness.gold"),
        "process_results": _Function("finr1.evaluation.harness.process_results"),
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
        # `until` empty: the end token alone. A folder's own repetition penalty (Qwen2.5: 1.05) would not be greedy.
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "temperature": 0.0,
            "repetition_penalty": 1.0,
            "max_gen_toks": max_tokens,
        },
        "num_fewshot": 0,
        "repeats": 1,
        "metadata": {"version": 1.0},
    }


def _write_yaml(path: Path, content: dict) -> None:
    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
    path.write_text(yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True), encoding="utf8")


def question(doc: dict) -> str:
    """The last user turn of an exported row: what the harness shows where no chat template is applied."""
    return doc["messages"][-1]["content"]


def gold(doc: dict) -> str:
    """The gold answer of an exported row."""
    return Problem.model_validate_json(doc["problem"]).gold


def process_results(doc: dict, results: Sequence[str]) -> dict[str, float]:
    """Metrics of one exported row and its answer, called by the harness for each item.

    `accuracy` is left out where rules cannot decide, as in our own tables; `decided` says how often they can.
    """
    problem, text = Problem.model_validate_json(doc["problem"]), results[0]
    correct = grade_answer(problem, grading.extract_answer(text))
    lenient = grading.lenient_answer(text, answer_kind=problem.answer_kind, labels=problem.labels)
    scores = {
        "format": float(grading.has_format(text)),
        "lenient": float(grade_answer(problem, lenient) is True),
        "decided": float(correct is not None),
    }
    return scores if correct is None else {"accuracy": float(correct), **scores}


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `export-harness` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "export-harness",
        help="a benchmark's items as tasks of lm-evaluation-harness",
        description="Write the items of a finished benchmark as tasks of lm-evaluation-harness, graded as here, and "
        "print the command that runs them.",
    )
    parser.add_argument(
        "--run", required=True, metavar="RUN", help="folder of outputs/ with a finished benchmark, or a path"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for YAML and JSONL files")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Export the items of a run's benchmark and print how to use them; returns 2 where that cannot be done."""
    stage = stage_folder(run_folder(options.run))
    files = [stage / "samples.jsonl", problems_file(stage), stage / "params.yaml"]
    if missing := [str(file) for file in files if not file.is_file()]:
        print("; ".join(f"{file} is missing" for file in missing), file=sys.stderr)
        return 2
    try:
        settings = read_flat_yaml(files[2]).values
        ask = asks(settings.get("prompts", "training"))
        problems = _asked_problems(read_whole(files[0], Sample), read_whole(files[1], Problem), ask)
        if "max_tokens" not in settings:
            raise ValueError(f"{files[2]} states no max_tokens")
        tasks = export(problems, options.output, settings["max_tokens"], ask)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(problems)} items in {options.output}: {', '.join(tasks)}")
    print(
        f"lm_eval run --model hf --model_args pretrained=MODEL --include_path {options.output} --tasks {GROUP}", end=" "
    )
    print("--apply_chat_template")
    return 0


def _asked_problems(samples: Sequence[Sample], problems: Sequence[Problem], ask: Callable) -> list[Problem]:
    """The problems that were asked, in that order. Raises `ValueError` unless `ask` makes today the prompts of then."""
    asked = {sample.problem_id: sample.prompt_sha256 for sample in samples}
    by_id = {problem.id: problem for problem in problems}
    if absent := [identifier for identifier in asked if identifier not in by_id]:
        raise ValueError(f"{len(absent)} items were asked and are not among the problems, such as {absent[0]}")
    other = [identifier for identifier in asked if chat_sha256(ask(by_id[identifier])) != asked[identifier]]
    if other:  # another system prompt, or the model's own answers in earlier turns, which no fixed task can hold
        raise ValueError(f"{len(other)} items were asked with another prompt than today's, such as {other[0]}")
    return [by_id[identifier] for identifier in asked]
