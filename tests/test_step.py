"""Notebook 06 on made-up answers: what the step from SFT to GRPO is made of, ways, maps of answers, pass@k."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from recipes import cells
from test_chance import LABEL, several
from test_evaluation import make_sample

from finr1 import evaluation, plotting
from finr1.evaluation import Sample, chance_samples, headline_samples, paired_table, results_table

matplotlib.use("Agg")


def answers(right: dict[str, dict[str, str]], how: str = "greedy", **other) -> list[Sample]:
    """model -> family -> one answer an item: "1" right, "0" wrong, "x" right and out of the format."""
    return [
        make_sample(
            model, f"{family}{i}", correct=mark in "1x", format=mark != "x", decoding=how, family=family, **other
        )
        for model, families in right.items()
        for family, marks in families.items()
        for i, mark in enumerate(marks)
    ]


def parts(samples: list[Sample], capsys=None) -> dict:
    params = SimpleNamespace(seed=0)
    head = headline_samples(samples, "synthetic")
    names = cells("06_benchmark", "step-parts", "step-parts-said", params=params, main="synthetic", samples=samples,
                  head=head)  # fmt: skip
    return {(row["decoding"], row["over"]): row for row in names["step_parts"]}


def test_the_step_is_taken_apart_by_format_best_family_kind_and_family(capsys):
    samples = answers({"sft": {"fees": "0" * 20, "loss": "1" * 10 + "0" * 10},
                       "grpo": {"fees": "1" * 20, "loss": "0" * 10 + "0" * 10}})  # fmt: skip
    made = parts(samples)
    assert made["greedy", "headline"]["difference"] == pytest.approx(10 / 40)
    assert made["greedy", "without its best family, fees"]["difference"] == pytest.approx(-10 / 20)
    assert made["greedy", "family loss"]["high"] < 0 < made["greedy", "family fees"]["low"]
    assert made["greedy", "kind numbers"]["n"] == 40 and ("greedy", "kind decisions") not in made
    said = capsys.readouterr().out
    assert "of 2 families rose by more than their noise: fees +100.0" in said
    assert "of 2 families fell by more than their noise: loss -50.0" in said


def test_what_the_format_paid_is_no_step_among_answers_in_the_format():
    made = parts(answers({"sft": {"a": "0" * 10 + "1" * 10}, "grpo": {"a": "x" * 10 + "1" * 10}}))
    assert made["greedy", "headline"]["difference"] == 0.5
    assert (
        made["greedy", "answers in the format"] | {"n": 10, "difference": 0} == made["greedy", "answers in the format"]
    )


def test_one_way_families_and_other_sources_are_apart_and_do_not_dilute():
    twice = answers({"sft": {"a": "0" * 10}, "grpo": {"a": "1" * 10}}, way="by_parts")
    once = answers({name: {"b": "1" * 10} for name in ("sft", "grpo")}, answer_kind="label")
    real = answers({name: {"c": "0" * 10} for name in ("sft", "grpo")}, source="finqa")
    made = parts([*twice, *once, *real])
    assert made["greedy", "headline"] | {"n": 10, "difference": 1} == made["greedy", "headline"]
    assert (made["greedy", "source synthetic"]["n"], made["greedy", "source finqa"]["difference"]) == (20, 0)
    assert made["greedy", "kind decisions"]["difference"] == 0 and ("greedy", "family c") not in made


def ways(by_parts: dict[str, int], right: dict[tuple[str, str], int], capsys) -> str:
    """What 06 says of 40 items: of each model so many answers by parts; of each way so many of ten are right."""
    head = [make_sample(model, f"{i:02d}", way=way, correct=i % 10 < right.get((model, way), 5))
            for model, count in by_parts.items() for i in range(40)
            for way in ["by_parts" if i < count else "at_once"]]  # fmt: skip
    run = SimpleNamespace(figures="/nowhere")
    plotting.use_style()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plotting, "save_figure", lambda *_: None)
        made = cells(
            "06_benchmark", "ways", "ways-figure", "ways-said", head=head, params=SimpleNamespace(seed=0), run=run
        )
    shares = {(row["model"], row["way"]): row["share"] for row in made["by_way"]}
    assert all(shares.get((model, "by_parts"), 0) == count / 40 for model, count in by_parts.items())
    plt.close("all")
    return capsys.readouterr().out


def test_the_move_to_a_way_is_said_with_what_the_way_was_worth(capsys):
    better = {("sft", "by_parts"): 8, ("sft", "at_once"): 3}
    said = ways({"sft": 10, "grpo": 38}, better, capsys)
    assert "answers by parts change by +70.0" in said and "right more often after SFT, 80.0 % against 30.0 %" in said
    assert "not surely right more often after SFT" in ways({"sft": 30, "grpo": 10}, better, capsys)
    assert "inside the noise" in ways({"sft": 20, "grpo": 21}, better, capsys)


def test_without_two_ways_nothing_is_said_of_ways():
    made = cells("06_benchmark", "ways", "ways-figure", "ways-said", head=[make_sample("sft")], params=None, run=None)
    assert made["by_way"] == [] and "fig" not in made


# ---- one answer to all ----------------------------------------------------------------------------------------------

RISK = several("low medium high low medium high", "test", **LABEL)


def given_answers(samples: list[Sample]) -> pd.DataFrame:
    return cells("06_benchmark", "given-answers")["given_answers"](samples, RISK)


def said_by(model: str, texts: str) -> list[Sample]:
    return [make_sample(model, p.id, family="risk", answer_kind="label", gold=p.gold, answer=None if t == "-" else t)
            for p, t in zip(RISK, texts.split(), strict=True)]  # fmt: skip


def test_an_answer_to_a_decision_is_read_as_the_grader_reads_it():
    given = given_answers(said_by("sft", "Low MEDIUM high. nothing - low"))
    assert given["given"].tolist() == ["low", "medium", "high", "other", "other", "low"]
    assert given["gold"].tolist() == [p.gold for p in RISK]


def test_a_model_that_answers_one_thing_is_named_with_family_answer_and_share(capsys):
    samples = [*said_by("sft", "low medium high low low high"), *said_by("grpo", "high high high high high high")]
    fields = {"samples": samples, "problems": RISK, "run": SimpleNamespace(figures="/nowhere")}
    plotting.use_style()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plotting, "save_figure", lambda *_: None)
        made = cells("06_benchmark", "given-answers", "answers-map", "constant-answers", **fields)
    assert made["warnings"] == ["grpo answers 'high' to 100% of 6 questions of risk; 33% of the golds are that"]
    titles = [ax.get_title() for ax in made["fig"].axes]
    assert titles == ["risk, SFT: one answer 50%", "risk, SFT + GRPO: one answer 100%"]
    counts = [[text.get_text() for text in ax.texts] for ax in made["fig"].axes]
    assert counts[1] == ["2", "0", "0", "0"] * 3  # gold by row, in the columns high, low, medium, other
    plt.close("all")


def test_many_right_answers_of_one_kind_are_no_sentence(capsys):
    given = given_answers(said_by("sft", "low medium high low medium high"))
    assert cells("06_benchmark", "constant-answers", given=given)["warnings"] == []
    missing = given_answers(said_by("sft", "- - - - - -"))
    assert cells("06_benchmark", "constant-answers", given=missing)["warnings"] == []  # that it does not answer


# ---- pass@k ---------------------------------------------------------------------------------------------------------


def pass_at_k(right: dict[str, int], capsys, items: int = 40) -> str:
    """Eight answers an item; of each model so many are right, for half of the items."""
    head = [make_sample(model, f"{item}", decoding="sampled", sample=k, correct=item % 2 == 0 and k < count)
            for model, count in right.items() for item in range(items) for k in range(8)]  # fmt: skip
    fields = {
        "head": head,
        "params": SimpleNamespace(num_samples=8, seed=0),
        "run": SimpleNamespace(figures="/nowhere"),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plotting, "save_figure", lambda *_: None)
        made = cells("06_benchmark", "pass-at", "pass-figure", "pass-said", **fields)
    curve = pd.DataFrame(made["repeated"]).query("model == 'grpo'").set_index("k")
    assert curve.loc[1, "pass"] == pytest.approx(right["grpo"] / 16) and (curve["low"] < curve["pass"]).all()
    assert list(curve.index) == [1, 2, 4, 8]
    plt.close("all")
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("sft", "grpo", "told"),
    [(2, 8, "right choice among old answers: in 8 tries SFT finds as much"),
     (0, 8, "finds what SFT does not find in 8"),
     (4, 4, "not better by more than the noise"), (8, 2, "single answers are worse")],
)  # fmt: skip
def test_pass_at_k_tells_a_choice_from_a_new_ability(sft, grpo, told, capsys):
    assert told in pass_at_k({"sft": sft, "grpo": grpo}, capsys)


def test_one_answer_an_item_has_no_curve(capsys):
    fields = {"head": [make_sample("sft", decoding="sampled")], "params": SimpleNamespace(num_samples=1)}
    made = cells("06_benchmark", "pass-at", "pass-figure", "pass-said", **fields)
    assert made["repeated"] == [] and "num_samples above 1" in capsys.readouterr().out


# ---- the headline ---------------------------------------------------------------------------------------------------


def told(right: dict[str, str]) -> str:
    golds = "low medium high " * 20
    items, train = several(golds, "test", **LABEL), several("low low", "train", **LABEL)
    chance = chance_samples(items, train)
    asked = {s.problem_id: s.prompt_sha256 for s in chance}
    samples = [make_sample(model, p.id, correct=mark == "1", prompt_sha256=asked[p.id])
               for model, marks in right.items() for p, mark in zip(items, marks, strict=True)]  # fmt: skip
    above = evaluation.above_the_constant(samples, chance, seed=0)
    return evaluation.headline_sentence(results_table([*chance, *samples]), paired_table(samples, seed=0), above, 42)


def test_the_headline_has_step_interval_seed_and_what_a_constant_is_worth():
    gain = told({"sft": "0" * 30 + "1" * 30, "grpo": "1" * 60})
    assert gain.startswith("GRPO after SFT, seed 42: greedy +50.0 [+")
    assert "noise" not in gain and "is worth 33.3 %, a uniform guess 33.3 %: SFT + GRPO is above the constant" in gain
    flat = told({"sft": "01" * 30, "grpo": "010" * 20})
    assert "inside the noise" in flat and "not clearly apart from the constant" in flat
    worse = told({"sft": "1" * 60, "grpo": "0" * 60})
    assert "-100.0" in worse and "is below the constant" in worse
    assert told({"sft": "01" * 30}) == ""
