"""The benchmark loop and its tables: what a verdict asks, exact sums, pairing, determinism."""

from __future__ import annotations

import gzip
import json
import re
from types import SimpleNamespace

import nbformat
import pytest
from finished import finish
from loopback import Loopback
from tiny_model import make_tiny_model

from finr1.__main__ import main
from finr1.evaluation import (
    PROTOCOLS,
    Sample,
    evaluate,
    paired_table,
    protocol_rows,
    regrade_samples,
    render_table,
    result_cells,
    results_table,
    score_guesses,
    shares_by,
    wilson_interval,
)
from finr1.evaluation.tables import PARTS
from finr1.generation import AnswerStore, SamplingParams, ScriptedBackend
from finr1.params import BenchmarkParams, ParameterError
from finr1.paths import repository_root
from finr1.records import Problem, read_jsonl, write_jsonl
from finr1.sources import load_source
from finr1.sources.golds import CONTRADICTORY


def make_sample(model="base", item="p0", *, correct=True, format=True, decoding="greedy", sample=0, **other) -> Sample:
    fields = {
        "source": "synthetic", "family": "growth", "capability": "calculation", "language": "en", "question": "?",
        "gold": "1", "prompt_sha256": "same", "text": "t", "tokens": 10, "finish_reason": "stop", "answer": "1",
        "lenient_answer": "1", "lenient_correct": bool(correct),
    } | other  # fmt: skip
    return Sample(
        model=model, problem_id=item, correct=correct, format=format, decoding=decoding, sample=sample, **fields
    )


def many(model: str, right: str, formatted: str, **other) -> list[Sample]:
    """One greedy sample an item; "1" marks the right ones and those in the format."""
    pairs = enumerate(zip(right, formatted, strict=True))
    return [make_sample(model, f"p{i:03d}", correct=r == "1", format=f == "1", **other) for i, (r, f) in pairs]


def run_cell(mark: str, **names) -> dict:
    """What notebook 06's cell that holds `mark` makes of `names`."""
    cells = nbformat.read(repository_root() / "notebooks" / "06_benchmark.ipynb", 4).cells
    (cell,) = [c.source for c in cells if c.cell_type == "code" and mark in c.source]
    imports = next(c.source for c in cells if c.id == "cell-01")
    exec(imports, made := {})
    exec(cell, made := made | names)
    return made


# ---- the loop -------------------------------------------------------------------------------------------------------


def problem(number: int, gold: str) -> Problem:
    return Problem(
        id=f"synthetic/{number}", source="synthetic", module="reasoning", language="en", capability="calculation",
        answer_kind="number", question=f"How much is {gold}?", gold=gold, split="test", group=str(number),
        family="echo",
    )  # fmt: skip


TEXTS = {  # what the scripted model writes -> correct, format, lenient_correct
    "<think>It is 42.</think><answer>\\boxed{42}</answer>": (True, True, True),
    "So \\boxed{42} it is": (True, False, True),  # an answer that is read, out of the format
    "The answer is 42": (False, False, True),  # only a lenient reader finds it
    "<think>It is 41.</think><answer>\\boxed{41}</answer>": (False, True, False),
    "": (False, False, False),
}


@pytest.mark.parametrize(("text", "verdicts"), TEXTS.items())
def test_each_verdict_asks_its_own_question(text, verdicts):
    backend = ScriptedBackend(lambda request, sampling, sample: text, name="one")
    [sample] = evaluate([problem(0, "42")], backend, SamplingParams(), "base")
    assert (sample.correct, sample.format, sample.lenient_correct) == verdicts
    assert (sample.text, sample.gold, sample.decoding) == (text, "42", "greedy")


def test_evaluate_goes_on_where_it_was_killed(tmp_path):
    asked = []

    def answer(request, sampling, sample):
        asked.append((request.id, sample))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return f"\\boxed{{{sample}}}"

    problems = [problem(i, str(i)) for i in range(3)]
    sampling = SamplingParams(temperature=1.0, num_samples=2)
    run = {"problems": problems, "sampling": sampling, "model": "sft"}
    backend = ScriptedBackend(answer, name="counting")
    with pytest.raises(KeyboardInterrupt):
        evaluate(backend=backend, store=AnswerStore(tmp_path / "a.jsonl"), **run)
    samples = evaluate(backend=backend, store=AnswerStore(tmp_path / "a.jsonl"), **run)
    assert len(asked) == 7  # 6 answers, and the one that was cut off is asked again
    assert [(s.problem_id[-1], s.sample) for s in samples] == [(i, k) for i in "012" for k in (0, 1)]
    assert {s.decoding for s in samples} == {"sampled"}
    assert [s.correct for s in samples] == [True, False, False, True, False, False]
    write_jsonl(tmp_path / "samples.jsonl", samples)
    assert list(read_jsonl(tmp_path / "samples.jsonl", Sample)) == samples


BENCHMARK = {
    "run": "r", "seed": 1, "data_stage": "d", "zero_stage": None, "sft_stage": "s", "grpo_stage": "g",
    "paper_like_stage": None,
    "model_name_or_path": "hub/base", "other_models": [], "inference_backend": "transformers", "num_items": 4,
    "sampling": "balanced", "suite_items": 0, "judge_backend": "rules",
    "judge_model": None, "judge_base_url": None, "judge_extra": None, "judge_max_tokens": 8, "judge_scope": "undecided",
    "num_samples": 1, "temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "batch_size": 4, "concurrency": 2,
}  # fmt: skip


def test_models_are_folders_adapters_hub_ids_and_endpoints(tmp_path, monkeypatch):
    from peft import LoraConfig, get_peft_model

    from finr1.models import load_model

    tiny = make_tiny_model(tmp_path / "g" / "model")
    adapter = get_peft_model(load_model(str(tiny)), LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.save_pretrained(tmp_path / "adapter")  # without a tokenizer, as peft leaves it
    monkeypatch.setenv("FINR1_API_KEY_DEEPSEEK_R1", "of this one")
    with Loopback(message=lambda question: {"content": "\\boxed{1}"}) as server:
        others = [f"own={tmp_path / 'adapter'}", "Fin-R1=SUFE-AIFLM-Lab/Fin-R1", f"DeepSeek-R1=r1@{server.base_url}"]
        params = BenchmarkParams(**BENCHMARK | {"other_models": others, "zero_stage": "z"})
        inputs = {f"{name}_stage": tmp_path / "g" for name in ("zero", "sft", "grpo")}
        run = SimpleNamespace(inputs=inputs)
        models = run_cell("models = {}", params=params, run=run, cache_dir=lambda: tmp_path)["models"]
        assert list(models) == ["base", "zero", "sft", "grpo", "own", "Fin-R1", "DeepSeek-R1"]
        assert "SUFE-AIFLM-Lab/Fin-R1" in models["Fin-R1"].fingerprint
        asked = [problem(n, "1") for n in range(3)]
        [sample, *_] = evaluate(asked, models["DeepSeek-R1"], SamplingParams(max_tokens=8), "DeepSeek-R1")
        assert (sample.model, sample.correct) == ("DeepSeek-R1", True)
        assert any(headers.get("authorization") == "Bearer of this one" for _, headers, _ in server.requests)
    own, grpo = (evaluate(asked, models[name], SamplingParams(max_tokens=8), name) for name in ("own", "grpo"))
    assert [s.text for s in own] == [s.text for s in grpo]  # a fresh adapter changes nothing
    assert own[0].prompt_sha256 == sample.prompt_sha256


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["Fin-R1"], "should be NAME="),
        (["=x"], "should be NAME="),
        (["sft=x"], "a NAME of its own"),
        (["a=x", "a=y"], "a NAME of its own"),
    ],
)
def test_other_models_have_names_of_their_own(others, message):
    with pytest.raises(ParameterError, match=message):
        BenchmarkParams(**BENCHMARK | {"other_models": others})


def test_an_endpoint_without_a_key_is_an_error_before_any_work(monkeypatch):
    for name in ("FINR1_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    embedded = {"model_name_or_path": "SmolLM2-135M-Instruct"}
    (line,) = BenchmarkParams(**BENCHMARK | embedded | {"other_models": ["GPT-5=gpt-5@https://h/v1"]}).requirements()
    assert "FINR1_API_KEY is not set" in line and "FINR1_API_KEY_GPT_5" in line


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_a_row_counts_items_answers_and_what_was_undecided():
    samples = [
        make_sample(item="p0", decoding="sampled", correct=True, sample=0),
        make_sample(item="p0", decoding="sampled", correct=False, sample=1, format=False, finish_reason="length"),
        make_sample(item="p1", decoding="sampled", correct=False, sample=0, tokens=30),
        make_sample(item="p1", decoding="sampled", correct=None, sample=1, lenient_correct=None),
    ]
    [row] = results_table(samples)
    assert (row["n"], row["samples"], row["undecided"]) == (2, 4, 1)
    assert row["accuracy"] == pytest.approx(0.25)  # items of 1/2 and 0/1
    assert row["format"] == pytest.approx(0.75)
    assert (row["accuracy_given_format"], row["in_format"]) == (0.5, 2)
    assert (row["truncated"], row["mean_tokens"]) == (0.25, 15)
    assert row["low"] < 0.25 < row["high"]


def test_a_model_without_any_verdict_has_dashes_and_no_crash():
    rows = results_table([make_sample(correct=None, format=False, tokens=None, lenient_correct=None)])
    assert (rows[0]["accuracy"], rows[0]["accuracy_given_format"], rows[0]["mean_tokens"]) == (None, None, None)
    assert "1 answers could not be graded" in render_table(rows)


def test_an_accuracy_over_a_part_of_the_answers_says_so():
    opened = [make_sample("sft", f"p{n}", correct=None if n < 3 else n > 4, lenient_correct=None) for n in range(6)]
    text = render_table(results_table([*many("base", "1" * 6, "1" * 6), *opened]))
    assert "undecided" in text.splitlines()[0] and "The accuracies leave them out" in text
    assert [line.split()[2:5] for line in text.splitlines()[2:4]] == [["6", "6", "0"], ["3", "6", "3"]]
    assert "undecided" not in render_table(results_table(many("base", "10", "11")))


def test_every_share_in_a_table_has_its_interval_and_every_row_its_n():
    rows, steps = results_table(three_models()), paired_table(three_models(), seed=0)
    lines = result_cells(rows)
    assert len(lines) == 3 and all((line["items"], line["answers"]) == (80, 80) for line in lines)
    columns = [f"{name} [95 %]" for name in ("accuracy", "format", "right in format", "lenient")]
    assert all(re.match(r"\d+\.\d \[\d", line[column]) for line in lines for column in columns)
    assert lines[0]["right in format [95 %]"] == "50.0 [28, 72] of 16"  # 8 of 16 in the format
    results, paired = render_table(rows, steps).split("\n\n")
    assert max(map(len, results.splitlines())) <= 150
    assert "80" in paired.splitlines()[2].split() and "intervals of the parts are in the figure" in paired
    assert all(f"{part}_{end}" in steps[0] for part in (*PARTS, "lenient") for end in ("low", "high"))
    assert shares_by(rows, "model", ["decoding"]).loc["greedy", "base"] == "10.0 [5.2, 18.5] n=80"


def test_answers_in_the_format_are_counted_one_by_one_but_their_interval_knows_the_items():
    pattern = {"p0": "1111", "p1": "0000", "p2": "1", "p3": "0"}  # answers in the format, right or wrong
    samples = [
        make_sample(item=item, decoding="sampled", sample=k, correct=r == "1")
        for item, row in pattern.items()
        for k, r in enumerate(row)
    ]
    [row] = results_table(samples)
    assert (row["accuracy_given_format"], row["in_format"]) == (0.5, 10)
    low, high = row["given_format_low"], row["given_format_high"]
    assert (low, high) == pytest.approx(wilson_interval(2, 4))  # not of 10: items answer alike


def test_protocols_stand_side_by_side_each_with_its_n():
    kept = [s for s in three_models() if s.model == "sft"]
    few = kept[:1] + [s.model_copy(update={"correct": None}) for s in kept[1:]]
    none = [s.model_copy(update={"correct": None}) for s in kept]
    table = shares_by(protocol_rows({"ours": kept, "strict": few, "lenient": none}), "protocol")
    assert list(table) == ["ours", "strict", "lenient"]
    ours, strict, lenient = table.loc["sft", "greedy"]
    assert ours.startswith("40.0 [") and ours.endswith(" n=80")
    assert strict.endswith(" n=1") and lenient == "- n=0"


@pytest.mark.parametrize(("decided", "steps"), [(0, 0), (1, 0), (2, 1)])
def test_a_pair_without_two_decided_items_has_no_row(decided, steps):
    """Open questions under rules: a figure, a table and a sentence less, and no crash."""
    ids = [f"p{n}" for n in range(5)]
    samples = [
        make_sample(model, item, correct=n > 0 if n < decided else None, lenient_correct=None)
        for model in ("base", "sft")
        for n, item in enumerate(ids)
    ]
    found = paired_table(samples, seed=0)
    assert len(found) == steps
    text = render_table(results_table(samples), found)
    if found:
        assert found[0]["lenient_difference"] is None and found[0]["asked"] == 5
        assert "2 of 5" in text


def test_rows_come_in_the_order_of_the_recipe_and_by_group():
    samples = [make_sample(m, decoding=d) for m in ("grpo", "sft", "base") for d in ("sampled", "greedy")]
    order = [(row["model"], row["decoding"]) for row in results_table(samples)]
    assert order == [(m, d) for m in ("base", "sft", "grpo") for d in ("greedy", "sampled")]
    by_family = results_table([make_sample(family="b"), make_sample(family="a", item="p1")], by="family")
    assert [row["family"] for row in by_family] == ["a", "b"]
    assert "family" in render_table(by_family)


def three_models() -> list[Sample]:
    return [
        *many("base", "1000000000" * 8, "1100000000" * 8),
        *many("sft", "1111000000" * 8, "1111111000" * 8),
        *many("grpo", "1111000000" * 4 + "1111000001" * 4, "1111111111" * 8),
    ]


def test_steps_pair_the_items_and_split_the_gain():
    steps = paired_table(three_models(), seed=0)
    assert [(s["before"], s["after"]) for s in steps] == [("base", "sft"), ("sft", "grpo"), ("base", "grpo")]
    first, second, _ = steps
    assert (first["difference"], first["n"], first["gained"], first["lost"]) == (pytest.approx(0.3), 80, 24, 0)
    assert not first["inside_noise"]
    for step in steps:
        parts = step["format_part"] + step["given_format_part"] + step["without_format_part"]
        assert parts == pytest.approx(step["difference"])
    assert second["p"] == pytest.approx(2 / 2**4)
    assert steps == paired_table(three_models()[::-1], seed=0)  # whatever the order of the rows


def test_the_table_names_noise():
    samples = [*many("base", "10" * 20, "11" * 20), *many("sft", "01" + "10" * 19, "11" * 20)]
    text = render_table(results_table(samples), paired_table(samples, seed=0))
    assert "base -> sft" in text
    assert "inside the noise" in text
    assert "50.0 [35.2, 64.8]" in text


def test_sampled_steps_flip_signs_in_place_of_mcnemar():
    samples = [
        make_sample(m, f"p{i}", decoding="sampled", sample=k, correct=(i + k) % 3 == 0)
        for m in ("base", "sft")
        for i in range(6)
        for k in range(2)
    ]
    [step] = paired_table(samples, seed=0)
    assert (step["gained"], step["test"], step["n"]) == (None, "sign flips", 6)
    assert step["p"] == step["p_holm"] == 1.0  # both models have the same item means


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_id": "other"}, "same items and prompts; 'other' differs"),
        ({"prompt_sha256": "other"}, "same items and prompts; 'p000' differs"),
    ],
)
def test_models_that_saw_other_questions_are_not_paired(change, message):
    base, sft = many("base", "1010", "1111"), many("sft", "1110", "1111")
    sft[0] = sft[0].model_copy(update=change)
    with pytest.raises(ValueError, match=message):
        paired_table([*base, *sft], seed=0)


# ---- protocols ------------------------------------------------------------------------------------------------------

TABLE = "a page\n\n| | 2015 | 2014 |\n| --- | --- | --- |\n| net revenue | 5829 | 5735 |"


@pytest.mark.parametrize(
    ("text", "verdicts", "why"),
    [
        ("\\boxed{0.01639}", {"ours": True, "strict": True, "lenient": True}, "the executed answer itself"),
        ("\\boxed{1.639%}", {"ours": True, "strict": True, "lenient": True}, "a percentage is a fraction"),
        ("\\boxed{1.64%}", {"ours": True, "strict": False, "lenient": True}, "rounded: wrong at five decimals"),
        ("\\boxed{1.64}", {"ours": True, "strict": False, "lenient": True}, "percent without its sign"),
        (
            "\\boxed{subtract(5829, 5735), divide(#0, 5735)}",
            {"ours": False, "strict": True, "lenient": False},
            "program",
        ),
        ("So it grew by 1.64%", {"ours": False, "strict": False, "lenient": True}, "no box"),
        ("\\boxed{divide(1, 0)}", {"ours": False, "strict": False, "lenient": False}, "a program without a value"),
        ("", {"ours": False, "strict": False, "lenient": False}, "nothing"),
    ],
)
def test_one_answer_under_each_protocol(text, verdicts, why):
    asked = problem(0, "1.64%").model_copy(
        update={"answer_kind": "percent", "alternatives": ["0.01639"], "context": TABLE}
    )
    [sample] = evaluate([asked], ScriptedBackend(lambda *_: text, name="one"), SamplingParams(), "base")
    assert {name: own.correct for name, [own] in regrade_samples([sample], [asked]).items()} == verdicts, why


YES = {"answer_kind": "boolean", "gold": "yes"}


@pytest.mark.parametrize(
    ("text", "change", "right", "why"),
    [
        ("table_max(net revenue, none)", {"gold": "5829"}, True, "operations on a row of the page's table"),
        ("table_average(net revenue, none)", {"gold": "5782"}, True, "its mean"),
        ("table_max(gross revenue, none)", {"gold": "5829"}, False, "no such row"),
        ("greater(5829, 5735)", YES, True, "a comparison gives yes or no"),
        ("greater(5735, 5829)", YES, False, "and this one no"),
        ("Yes", YES, True, "the word itself"),
        ("yes, it grew", YES, False, "nothing but the word"),
        ("divide(5735, const_100)", {"gold": "57.35"}, True, "a constant"),
        ("multiply(5735, const_m1)", {"gold": "-5735"}, True, "the constant minus one"),
        ("const_100", {"gold": "100"}, True, "a constant alone, as str_to_num reads it"),
        ("$ 5,829", {"gold": "5829"}, True, "commas out"),
        ("5829.000004", {"gold": "5829"}, True, "equal at five decimals"),
        ("5829.00001", {"gold": "5829"}, False, "not equal at five decimals"),
        ("nan", {"gold": "1"}, False, "no number"),
        (
            "3.8",
            {"gold": "3.8", "alternatives": ["380"], "flaw": CONTRADICTORY},
            True,
            "the executed gold stands first",
        ),
        (
            "380",
            {"gold": "3.8", "alternatives": ["380"], "flaw": CONTRADICTORY},
            False,
            "the annotator's text does not count",
        ),
        ("0.15987", {"gold": "16%", "alternatives": ["0.15987"]}, True, "the executed gold behind a text answer"),
        ("94", {"gold": "94", "alternatives": ["it rose by 94 million"]}, True, "a sentence is no executed gold"),
        ("16\\%", {"gold": "0.16"}, True, "LaTeX writes its percent sign so"),
        ("\\$5,829", {"gold": "5829"}, True, "and its dollar sign"),
        ("divide(16\\%, 2)", {"gold": "0.08"}, True, "in a program, too"),
        ("5\\% off", {"gold": "5% off", "answer_kind": "text"}, False, "a text is what it says"),
        ("94 (or perhaps 95)", {"gold": "94"}, False, "two answers are none"),
        ("94 (2015)", {"gold": "94"}, False, "and no program"),
    ],
)
def test_strict_is_finqas_own_evaluator(text, change, right, why):
    asked = problem(0, "1").model_copy(update={"context": TABLE} | change)
    assert PROTOCOLS["strict"](asked, f"\\boxed{{{text}}}") is right, why


@pytest.mark.slow
def test_strict_executes_every_gold_program_of_the_official_records(real_data):
    """1,140 official FinQA records: each program, and each executed answer, is right under the strict protocol."""
    programs = {}
    for file in (real_data / "finqa").glob("original*.jsonl.gz"):
        for line in gzip.open(file, "rt"):
            record = json.loads(line)
            programs[f"finqa/{record['id']}"] = record["qa"]["program"], record["qa"]["exe_ans"]
    found = [p for p in load_source("finqa", real_data).problems if p.id in programs]
    assert len(found) > 1000
    wrong = [(p.id, text) for p in found for text in programs[p.id] if not PROTOCOLS["strict"](p, f"\\boxed{{{text}}}")]
    assert not wrong


def test_the_regrade_command_prints_a_column_a_protocol_and_needs_no_model(outputs, capsys, monkeypatch):
    asked = [problem(n, str(n)) for n in range(4)]
    backend = ScriptedBackend(lambda request, *_: "\\boxed{1}", name="one")
    samples = evaluate(asked, backend, SamplingParams(), "base")
    assert main(["regrade", "r"]) == 2 and "not a complete stage (no manifest.json)" in capsys.readouterr().err
    for name, kept in {"samples": samples, "items": asked, "verdicts": []}.items():
        write_jsonl(outputs / "r" / "06_benchmark" / f"{name}.jsonl", kept)
    finish(outputs / "r" / "06_benchmark")
    assert main(["regrade", "r"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["protocol", *PROTOCOLS]
    assert lines[3].count("25.0 [") == 3
    (outputs / "r").rename(outputs.parent / "elsewhere")  # a run is a folder, wherever it stands
    monkeypatch.chdir(outputs.parent)
    for run in ("elsewhere", str(outputs.parent / "elsewhere")):
        assert main(["regrade", run]) == 0
        assert capsys.readouterr().out.splitlines() == lines


def test_regrade_refuses_problems_that_were_not_asked():
    asked = [problem(n, str(n)) for n in range(3)]
    samples = evaluate(asked, ScriptedBackend(lambda *_: "\\boxed{1}", name="one"), SamplingParams(), "base")
    other_seed = [*asked[:2], problem(2, "7")]  # the same ids for other questions
    for problems, message in (
        (other_seed, "synthetic/2 is not among the problems"),
        (asked[:2], "not among the problems"),
    ):
        with pytest.raises(ValueError, match=message):
            regrade_samples(samples, problems)


def finished_benchmark(outputs) -> list[Sample]:
    asked = [problem(n, str(n)) for n in range(3)]
    samples = evaluate(asked, ScriptedBackend(lambda *_: "\\boxed{1}", name="one"), SamplingParams(), "base")
    write_jsonl(outputs / "r" / "06_benchmark" / "samples.jsonl", samples)
    write_jsonl(outputs / "r" / "06_benchmark" / "items.jsonl", asked)
    write_jsonl(outputs / "r" / "06_benchmark" / "verdicts.jsonl", [])
    (outputs / "r" / "06_benchmark" / "params.yaml").write_text("{max_tokens: 17}")
    finish(outputs / "r" / "06_benchmark")
    return samples


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("samples.jsonl", cut, "samples.jsonl, line 3: Invalid JSON"),
        ("samples.jsonl", lambda path: path.write_bytes(b"\xff\xfe"), "samples.jsonl, line 1: Invalid JSON"),
        ("items.jsonl", cut, "items.jsonl, line 3: Invalid JSON"),
        ("items.jsonl", lambda path: write_jsonl(path, [problem(9, "9")]), ""),
    ],
)
@pytest.mark.parametrize("command", [["regrade", "r"], ["export-harness", "--run", "r", "--output", "tasks"]])
def test_files_that_cannot_be_graded_are_an_error_and_a_code(
    outputs, tmp_path, monkeypatch, capsys, name, damage, message, command
):
    monkeypatch.chdir(tmp_path)
    finished_benchmark(outputs)
    assert main(command) == 0
    capsys.readouterr()
    damage(outputs / "r" / "06_benchmark" / name)
    assert main(command) == 2 and f"{name} was removed or changed" in capsys.readouterr().err
    finish(outputs / "r" / "06_benchmark")
    assert main(command) == 2
    said = capsys.readouterr()
    assert said.err and message in said.err and not said.out


def test_regrade_says_where_todays_rules_differ_from_the_runs(outputs, capsys):
    samples = finished_benchmark(outputs)
    older = [samples[0].model_copy(update={"correct": True}), *samples[1:]]
    judged = samples[2].model_copy(update={"correct": True, "graded_by": "judge"})
    for kept, says in ((samples, False), ([*samples[:2], judged], False), (older, True)):
        write_jsonl(outputs / "r" / "06_benchmark" / "samples.jsonl", kept)
        finish(outputs / "r" / "06_benchmark")
        assert main(["regrade", "r"]) == 0
        assert ("today's rules grade 1 of 3 answers differently from the run's" in capsys.readouterr().out) is says


GUESSES = {"right (%)": 50, "change (points)": 0, "length (tokens)": 60}


def test_a_guess_is_held_against_the_interval_in_its_unit():
    told = score_guesses(GUESSES, [0.4, 0.3, 0.45], (-0.1, -0.2, 0.05), [70, 65, 75]).splitlines()
    assert told == [
        "right (%): guessed 50, measured 40.0 [30.0, 45.0]: too high",
        "change (points): guessed 0, measured -10.0 [-20.0, 5.0]: inside the interval",
        "length (tokens): guessed 60, measured 70.0 [65.0, 75.0]: too low",
    ]
    assert "length (tokens): guessed 60, not measured" in score_guesses(GUESSES, *[[None] * 3] * 3)
