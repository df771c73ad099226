"""Two runs side by side: hand-made runs of a few items, whose differences and intervals are known."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy.stats import binomtest, ttest_ind
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from finr1 import manifest
from finr1.__main__ import main
from finr1.compare import NotComparable, compare_metrics, read_run, same_outputs, setting_rows, stage_numbers
from finr1.compare.metrics import HIGHER, NOISE, UNSURE, paired_difference, unpaired_difference
from finr1.compare.page import text_page
from finr1.paths import run_folder
from finr1.records import write_jsonl

ATTACK = "<script>alert(1)</script>"


def answers(
    right: list[int | None], model: str = "base", decoding: str = "greedy", prompt: str = "p", **more
) -> list[dict]:
    """One answer an item: right (1), wrong (0) or undecided (None)."""
    row = {
        "model": model,
        "decoding": decoding,
        "source": "finqa",
        "format": True,
        "finish_reason": "stop",
        "tokens": 9,
    }
    return [
        row | {"prompt_sha256": f"{prompt}{i}", "correct": value, "lenient_correct": value} | more
        for i, value in enumerate(right)
    ]


def write_stage(
    folder: Path, parameters: dict, outputs: dict[str, list[dict]], inputs: dict[str, Path] | None = None, **more
):
    """A complete stage with a manifest as `Run.finish` writes it; `more` replaces entries."""
    for name, rows in outputs.items():
        write_jsonl(folder / name, rows)
    described = manifest.describe_outputs(folder, list(outputs))
    hashes = {name: manifest.read_manifest(path)["outputs_sha256"] for name, path in (inputs or {}).items()}
    record = {
        "stage": folder.name, "run": folder.parent.name,
        "parameters": {"run": folder.parent.name, "seed": 1, **parameters},
        "seed": 1, "outputs": described, "outputs_sha256": manifest.outputs_sha256(described), "metrics": {},
        "inputs": {name: {"path": str(path), "sha256": hashes[name]} for name, path in (inputs or {}).items()},
        "code": {"commit": "0123456789abcdef", "dirty": False, "package_sha256": "a" * 64, "notebook_sha256": "b" * 64},
        "versions": {"torch": "2.13.0"}, "hardware": {"cpu": "a cpu", "gpus": []}, "phases_s": {"train": 3.5},
        "peak_memory_gib": {"notebook": 1.0}, "finished": "2026-01-01T10:00:00+00:00", **more,
    }  # fmt: skip
    manifest.write_json(folder / "manifest.json", record)


def make_run(folder: Path, samples: list[dict], learning_rate: float = 1e-5, **more) -> Path:
    """A run of two stages: a training and its benchmark."""
    write_stage(
        folder / "04_sft",
        {"learning_rate": learning_rate, "note": ATTACK},
        {"model.jsonl": [{"w": learning_rate}]},
        **more,
    )
    own = {"sft_stage": f"outputs/{folder.name}/04_sft"}
    write_stage(folder / "06_benchmark", own, {"samples.jsonl": samples}, {"sft_stage": folder / "04_sft"}, **more)
    return folder


def difference(tmp_path: Path, first: list[dict], second: list[dict]) -> list[dict]:
    return compare_metrics(
        read_run(str(make_run(tmp_path / "a", first))), read_run(str(make_run(tmp_path / "b", second)))
    )


def accuracy(rows: list[dict]) -> dict:
    return next(row for row in rows if row["metric"] == "accuracy")


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_the_same_prompts_are_compared_item_by_item(tmp_path):
    before, after = [1] * 10 + [0] * 30, [1] * 8 + [0] * 2 + [1] * 16 + [0] * 14  # 16 gained, 2 lost
    row = accuracy(difference(tmp_path, answers(before), answers(after)))
    assert row["paired"] and (row["n_a"], row["n_b"], row["shared"]) == (40, 40, 40)
    assert (row["a"], row["b"], row["difference"]) == pytest.approx((0.25, 0.6, 0.35))
    assert row["p"] == pytest.approx(binomtest(16, 18).pvalue)
    assert 0 < row["low"] < 0.35 < row["high"] and row["verdict"] == HIGHER


def test_other_items_are_compared_unpaired_with_newcombes_interval(tmp_path):
    row = accuracy(difference(tmp_path, answers([1] * 56 + [0] * 14), answers([1] * 48 + [0] * 32, prompt="q")))
    assert not row["paired"] and (row["n_a"], row["n_b"], row["shared"]) == (70, 80, 0)
    # Newcombe 1998, table II (a), method 10: 56/70 - 48/80 is 0.2 with 0.0524 to 0.3339
    assert (-row["high"], -row["low"]) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    expected = confint_proportions_2indep(48, 80, 56, 70, compare="diff", method="newcomb")
    assert (row["low"], row["high"]) == pytest.approx(expected)


def test_part_of_the_items_is_paired_on_that_part_and_an_overlap_is_not(tmp_path):
    long, short = answers([1, 0] * 20), answers([1, 1] * 10)
    row = accuracy(difference(tmp_path / "part", long, short))
    assert row["paired"] and (row["n_a"], row["n_b"]) == (20, 20) and row["a"] == 0.5
    overlap = answers([1, 1] * 10)[10:] + answers([0] * 10, prompt="q")
    row = accuracy(difference(tmp_path / "overlap", long, overlap))
    assert not row["paired"] and (row["n_a"], row["n_b"], row["shared"]) == (40, 20, 10)


def test_an_answer_that_one_run_could_not_grade_leaves_its_item_out_of_both(tmp_path):
    row = accuracy(difference(tmp_path, answers([1, 0, None, 1, 0]), answers([1, 1, 1, None, 0])))
    assert row["paired"] and row["n_a"] == row["n_b"] == 3 and row["difference"] == pytest.approx(1 / 3)


def test_several_answers_an_item_are_one_item(tmp_path):
    first = answers([0, 0, 1, 1] * 5, decoding="sampled") + answers([0, 1, 0, 1] * 5, decoding="sampled")
    row = accuracy(difference(tmp_path, first, answers([1] * 20, decoding="sampled") * 2))
    assert row["n_a"] == 20 and row["a"] == 0.5 and row["p"] < 0.01


def test_tokens_have_welchs_interval_and_the_sign_flip_test():
    a, b = [[10.0], [12.0], [14.0], [9.0]], [[15.0], [17.0], [13.0]]
    found = unpaired_difference(a, b, is_share=False, seed=0)
    expected = ttest_ind([15, 17, 13], [10, 12, 14, 9], equal_var=False).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    # exact: of the 35 splits, how many are as far apart; of the 2^3 signs, two are as extreme
    assert found["p"] == pytest.approx(4 / 35)
    assert paired_difference(a[:3], b, is_share=False, seed=0)["p"] == pytest.approx(4 / 8)


def test_constant_values_make_no_nonsense():
    found = unpaired_difference([[9.0]] * 4, [[9.0]] * 5, is_share=False, seed=0)
    assert (found["low"], found["high"], found["p"]) == (0, 0, 1)


def test_p_values_are_corrected_together_and_the_verdict_follows_the_correction(tmp_path):
    before, after = [0] * 40, [1] * 6 + [0] * 34  # 6 of 40 gained, p = 0.031: alone beyond the noise
    first = answers(before) + answers(before, model="sft")
    second = answers(after) + answers(before, model="sft")
    rows = difference(tmp_path, first, second)
    assert [row["p_holm"] for row in rows] == pytest.approx(multipletests([row["p"] for row in rows], method="holm")[1])
    row = accuracy(rows)
    assert row["low"] > 0 and row["p"] < 0.05 < row["p_holm"] and row["verdict"] == UNSURE


def test_a_difference_inside_the_noise_is_called_so(tmp_path):
    rows = difference(tmp_path, answers([1, 0] * 20), answers([1, 0] * 19 + [1, 1]))
    assert accuracy(rows)["verdict"] == NOISE


def test_other_items_of_several_sources_are_only_compared_source_by_source(tmp_path):
    first = answers([1] * 8) + answers([0] * 8, prompt="t", source="tfns")
    second = answers([1] * 8, prompt="q") + answers([0] * 30, prompt="u", source="tfns")  # another mix, nothing else
    rows = difference(tmp_path / "other", first, second)
    assert {row["source"] for row in rows} == {"finqa", "tfns"} and not any(row["difference"] for row in rows)
    assert {row["source"] for row in difference(tmp_path / "same", first, first)} == {"all", "finqa", "tfns"}


JUDGE = {"judge_backend": "endpoint", "judge_model": "J", "judge_scope": "undecided"}


@pytest.mark.parametrize(
    ("judges", "graded", "compared", "note"),
    [
        ((None, "J"), ("rules", "judge"), False, "accuracy is left out where a judge graded"),
        (("J", "K"), ("judge", "judge"), False, "A: rules and the judge J (scope undecided); B: rules and the judge K"),
        (("J", "J"), ("judge", "judge"), True, "accuracies are as judged"),
        (("J", "J"), ("rules", "judge"), True, "accuracies are as judged"),  # nothing was open in the one run
        ((None, "J"), ("rules", "rules"), True, ""),  # the judge had nothing to grade
        ((None, None), (None, "rules"), True, ""),  # samples of an older run do not say
    ],
)
def test_rules_and_a_judge_are_not_compared(tmp_path, judges, graded, compared, note):
    runs = []
    for name, judge, who, right in zip("ab", judges, graded, ([1, 0, 0, 0], [1, 1, 1, 0]), strict=True):
        own = JUDGE | {"judge_model": judge} if judge else {"judge_backend": "rules"}
        more = {"graded_by": who} if who else {}
        write_stage(tmp_path / name / "06_benchmark", own, {"samples.jsonl": answers(right, **more)})
        runs.append(read_run(str(tmp_path / name)))
    rows = compare_metrics(*runs)
    assert ("accuracy" in {row["metric"] for row in rows}) is compared
    assert {"lenient", "format"} <= {row["metric"] for row in rows}
    text = text_page(*runs, rows)
    assert note in text and ("judge" in text.partition("What came out")[2]) is bool(note)


# ---- what went in ----------------------------------------------------------------------------------------------------


def test_settings_that_differ_are_listed_once_with_their_stages(tmp_path):
    a = read_run(str(make_run(tmp_path / "a", answers([1, 0]))))
    code = {"commit": "fedcba9876543210", "dirty": True, "package_sha256": "a" * 64, "notebook_sha256": "b" * 64}
    b = read_run(
        str(make_run(tmp_path / "b", answers([1, 0]), 2e-5, code=code, versions={"torch": "2.14.0", "trl": "1"}))
    )
    rows = {(row["kind"], row["name"]): (row["a"], row["b"], row["stages"]) for row in setting_rows(a, b)}
    both = ["04_sft", "06_benchmark"]
    assert rows.pop(("parameter", "learning_rate")) == ("1e-05", "2e-05", ["04_sft"])
    assert rows.pop(("code", "commit")) == ("0123456789", "fedcba9876 + changes", both)
    assert rows.pop(("version", "torch")) == ("2.13.0", "2.14.0", both)
    assert rows.pop(("version", "trl")) == ("(not there)", "1", both)
    assert rows.pop(("input", "sft_stage"))[2] == ["06_benchmark"]
    assert not rows  # the run's own name in `sft_stage` is no difference
    assert same_outputs(a, b) == ["06_benchmark"] and not stage_numbers(a, b)
    assert not setting_rows(a, a)


def test_a_stage_of_another_run_and_a_second_one_of_the_same_name_are_found(tmp_path):
    shared = make_run(tmp_path / "shared", answers([1, 0]))
    other = tmp_path / "other"
    write_stage(
        other / "04_sft", {"learning_rate": 3e-5}, {"model.jsonl": [{"w": 3}]}, metrics={"loss": 0.5, "deep": {"n": 2}}
    )
    inputs = {"sft_stage": other / "04_sft", "zero_stage": shared / "04_sft"}
    write_stage(other / "06_benchmark", {}, {"samples.jsonl": answers([1, 0])}, inputs)
    run = read_run(str(other))
    assert list(run.stages) == ["04_sft", "04_sft (zero_stage)", "06_benchmark"]
    rows = setting_rows(read_run(str(shared)), run)
    assert {"kind": "parameter", "name": "the stage itself", "a": "(not there)", "b": "there",
            "stages": ["04_sft (zero_stage)"]} in rows  # fmt: skip


def test_numbers_of_the_stages_that_differ_are_listed(tmp_path):
    a = read_run(
        str(make_run(tmp_path / "a", answers([1, 0]), metrics={"loss": 0.5, "deep": {"n": 2}, "rows": [{"x": 1}]}))
    )
    b = read_run(
        str(
            make_run(tmp_path / "b", answers([1, 0]), metrics={"loss": 0.25, "deep": {"n": 2}}, phases_s={"train": 7.0})
        )
    )
    rows = [row for row in stage_numbers(a, b) if row["stage"] == "04_sft"]
    assert [(row["name"], row["a"], row["b"]) for row in rows] == [("loss", 0.5, 0.25), ("train, seconds", 3.5, 7.0)]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_run_is_named_by_folder_or_by_path(outputs, tmp_path, monkeypatch):
    inside, outside = make_run(outputs / "a", answers([1, 0])), make_run(tmp_path / "elsewhere" / "a2", answers([1, 0]))
    monkeypatch.chdir(tmp_path)
    assert run_folder("a") == run_folder("outputs/a") == run_folder(str(inside)) == inside
    assert read_run("a/06_benchmark").folder == read_run("a").folder == inside
    assert run_folder("elsewhere/a2") == run_folder("./elsewhere/a2/") == run_folder(str(outside)) == outside


def test_a_run_that_was_moved_keeps_its_own_stages(outputs, tmp_path):
    made = make_run(outputs / "a", answers([1, 0]))
    moved = tmp_path / "archive" / "old"
    shutil.copytree(made, moved)
    shutil.rmtree(made)
    assert list(read_run(str(moved)).stages) == ["04_sft", "06_benchmark"]


def test_the_command_prints_the_comparison_and_writes_a_page_that_needs_nothing_else(outputs, tmp_path, capsys):
    make_run(outputs / "a", answers([1] * 10 + [0] * 30))
    make_run(outputs / "b", answers([1] * 9 + [0] * 31), learning_rate=2e-5)
    page = tmp_path / "new" / "page.html"
    assert main(["compare", "a", "b", "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    for text in (
        "learning_rate",
        "1e-05",
        "2e-05",
        "paired",
        "-2.5 [",
        "inside the noise",
        "Holm",
        "another seed",
        str(page),
    ):
        assert text in printed, text
    html = page.read_text("utf8")
    assert "learning_rate" in html and "inside the noise" in html and "-2.5 [" in html
    assert ATTACK not in html
    assert not [tag for tag, attributes in _tags(html) if tag in ("script", "link", "iframe") or "src" in attributes]


def _tags(html: str) -> list[tuple[str, dict]]:
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(html)
    return found


def _incomplete(folder: Path):
    (folder / "06_benchmark" / "manifest.json").unlink()


def _edited(folder: Path):
    file = folder / "06_benchmark" / "samples.jsonl"
    file.write_text(file.read_text().replace('"correct": 0', '"correct": 1'))


def _older(folder: Path):
    rows = [{k: v for k, v in row.items() if k != "prompt_sha256"} for row in answers([1, 0])]
    write_stage(folder / "06_benchmark", {}, {"samples.jsonl": rows})


def _other_benchmark(folder: Path):
    write_stage(folder / "06_benchmark", {}, {"samples.jsonl": answers([1, 0], source="tfns")})


def _other_models(folder: Path):
    write_stage(folder / "06_benchmark", {}, {"samples.jsonl": answers([1, 0], model="grpo")})


WRONG = [
    (shutil.rmtree, "good_bb: no such run; did you mean good_b?"),
    (_incomplete, "06_benchmark is not complete (no manifest.json)"),
    (_edited, "is not the file that the benchmark made"),
    (_older, "samples without prompt_sha256"),
    (_other_benchmark, "different benchmarks, with no source in common"),
    (_other_models, "no model was asked with the same decoding in both runs"),
]


@pytest.mark.parametrize(("damage", "message"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_what_cannot_be_compared_is_refused_in_words(outputs, capsys, damage, message):
    make_run(outputs / "good_a", answers([1, 0]))
    make_run(outputs / "good_b", answers([1, 0]))
    damage(make_run(outputs / "good_bb", answers([1, 0])))
    assert main(["compare", "good_a", "good_bb"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out
    with pytest.raises(NotComparable):
        compare_metrics(read_run("good_a"), read_run("good_bb"))


def test_every_number_of_the_page_is_a_number(outputs, capsys):
    """Two equal runs: no difference anywhere, no NaN."""
    make_run(outputs / "a", answers([1, 0] * 4))
    assert main(["compare", "a", "a"]) == 0
    printed = capsys.readouterr().out
    assert "nothing" in printed and "no difference" in printed and "nan" not in printed.lower()
    assert json.dumps(compare_metrics(read_run("a"), read_run("a")), allow_nan=False)
