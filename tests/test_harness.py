"""lm-evaluation-harness and our own loop on the same model and items: same prompts, same texts, same grades."""

from __future__ import annotations

import json

import pytest
import yaml
from finished import finish
from tiny_model import make_tiny_model

from finr1.__main__ import main
from finr1.evaluation import evaluate, harness
from finr1.generation import SamplingParams, ScriptedBackend, TransformersBackend
from finr1.models import EMBEDDED_MODEL
from finr1.records import Problem, Turn, messages, write_jsonl
from finr1.synthetic import generate_problems

MAX_TOKENS = 24


def problem(identifier: str, **changes) -> Problem:
    fields = {"source": "finqa", "module": "reasoning", "language": "en", "capability": "calculation"}
    fields |= {"answer_kind": "number", "question": "What is 2 + 3?", "gold": "5", "split": "test", "group": identifier}
    return Problem(id=identifier, **(fields | changes))


def mixed_problems() -> list[Problem]:
    """Every kind of row: several sources, kinds and turns; a date as a gold; texts that rules cannot grade."""
    return [
        *generate_problems(9, "test", seed=3),
        problem("finqa/1", context="| year | sales |\n|---|---|\n| 2015 | 94 |", alternatives=["5.0"]),
        problem("finqa/2", answer_kind="text", gold="2018-05-01"),
        problem("convfinqa/1", source="convfinqa", history=[Turn(question="And 1 + 1?", answer="2")], context="Page."),
        problem("fin_eva/1", source="fin_eva", answer_kind="choice", gold="B", choices={"A": "是", "B": "否"}),
        problem("tfns/1", source="tfns", answer_kind="label", gold="1", labels={"0": "bearish", "1": "bullish"}),
    ]


def harness_samples(model: str, folder, batch_size: int) -> tuple[dict, dict[str, dict]]:
    """What lm_eval says of the tasks in `folder`: its results, and its samples by our ids."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra dev)")
    from lm_eval.tasks import TaskManager

    outcome = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": model, "dtype": "float32", "attn_implementation": "eager", "device": "cpu"},
        tasks=[harness.TAG],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=batch_size,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    return outcome, {sample["doc"]["id"]: sample for rows in outcome["samples"].values() for sample in rows}


def assert_agreement(problems: list[Problem], model: str, folder, batch_size: int, max_tokens: int) -> None:
    harness.export(problems, folder, max_tokens)
    outcome, theirs = harness_samples(model, folder, batch_size)
    backend = TransformersBackend(model, dtype="float32", batch_size=batch_size, device="cpu")
    ours = evaluate(problems, backend, SamplingParams(max_tokens=max_tokens), "base")
    assert len(theirs) == len(ours)
    for item, sample in zip(problems, ours, strict=True):
        other = theirs[item.id]
        assert other["doc"]["messages"] == messages(item)
        assert other["resps"] == [[sample.text]], item.id
        assert other["target"] == item.gold
        assert (other.get("accuracy"), other["decided"]) == (sample.correct, sample.correct is not None)
        assert (other["format"], other["lenient"]) == (sample.format, sample.lenient_correct is True)
    synthetic = [sample.correct for sample in ours if sample.source == "synthetic"]
    assert outcome["results"]["finr1_synthetic"]["accuracy,none"] == pytest.approx(sum(synthetic) / len(synthetic))


def test_the_harness_and_we_agree_sample_by_sample(tmp_path):
    model = str(make_tiny_model(tmp_path / "model"))
    assert_agreement(mixed_problems(), model, tmp_path / "tasks", batch_size=4, max_tokens=MAX_TOKENS)


@pytest.mark.slow
def test_the_harness_and_we_agree_on_the_embedded_model(embedded, tmp_path):
    model = str(embedded / EMBEDDED_MODEL)
    assert_agreement(mixed_problems()[6:12], model, tmp_path / "tasks", batch_size=4, max_tokens=16)


@pytest.mark.parametrize(
    ("answer", "changes", "metrics"),
    [
        ("<think>a</think><answer>\\boxed{5}</answer>", {}, {"accuracy": 1, "format": 1, "lenient": 1, "decided": 1}),
        ("\\boxed{6}", {}, {"accuracy": 0, "format": 0, "lenient": 0, "decided": 1}),
        ("It is 5.", {}, {"accuracy": 0, "format": 0, "lenient": 1, "decided": 1}),
        ("\\boxed{x}", {"answer_kind": "text", "gold": "a reason"}, {"format": 0, "lenient": 0, "decided": 0}),
    ],
)
def test_an_answer_is_graded_by_the_one_grader_and_an_undecided_one_is_in_no_accuracy(answer, changes, metrics):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra dev)")
    from finr1.evaluation.harness_task import ChatTask

    row = {"messages": [], "problem": problem("finqa/1", **changes).model_dump_json()}
    assert ChatTask.process_results(None, row, [answer]) == metrics


def benchmark(outputs, ask) -> list[Problem]:
    """A finished benchmark in outputs/r, every item asked as `ask` says; returns its items."""
    problems = generate_problems(6, "test", seed=1)
    write_jsonl(outputs / "r" / "06_benchmark" / "items.jsonl", [*problems, *generate_problems(3, "train", seed=1)])
    write_jsonl(outputs / "r" / "06_benchmark" / "verdicts.jsonl", [])
    backend = ScriptedBackend(lambda request, sampling, sample: "\\boxed{1}", "one")
    samples = evaluate(problems, backend, SamplingParams(), "base", ask=ask)
    write_jsonl(outputs / "r" / "06_benchmark" / "samples.jsonl", samples)
    (outputs / "r" / "06_benchmark" / "params.yaml").write_text("{max_tokens: 17}")
    finish(outputs / "r" / "06_benchmark")
    return problems


def test_the_command_exports_what_a_run_was_asked(outputs, tmp_path, capsys):
    problems = benchmark(outputs, messages)
    assert main(["export-harness", "--run", "r", "--output", str(tmp_path / "tasks")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "tasks" / "finr1_synthetic.jsonl").read_text("utf8").splitlines()]
    assert [row["id"] for row in rows] == [problem.id for problem in problems]
    text = (tmp_path / "tasks" / "finr1_synthetic.yaml").read_text("utf8")
    assert "class: !function finr1.evaluation.harness_task.ChatTask" in text
    task = yaml.safe_load(text.replace("!function", ""))
    assert task["generation_kwargs"]["max_gen_toks"] == 17 and task["generation_kwargs"]["do_sample"] is False
    assert "6 items of synthetic" in capsys.readouterr().out


def test_a_run_without_a_benchmark_or_with_another_prompt_is_refused(outputs, tmp_path, capsys):
    assert main(["export-harness", "--run", "r", "--output", str(tmp_path)]) == 2
    assert "not a complete stage (no manifest.json)" in capsys.readouterr().err
    benchmark(outputs, lambda problem: messages(problem, "Another system prompt."))
    assert main(["export-harness", "--run", "r", "--output", str(tmp_path)]) == 2
    assert "was asked with other prompts" in capsys.readouterr().err
