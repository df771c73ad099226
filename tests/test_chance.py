"""What is right without reading: a guess among the options, one constant for each family, and how both are shown."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402
from recipes import cells  # noqa: E402
from test_evaluation import make_sample, problem  # noqa: E402

from finr1 import evaluation, plotting  # noqa: E402
from finr1.evaluation import chance_samples, evaluate, headline_samples, render_table, result_cells, results_table  # noqa: E402
from finr1.generation import SamplingParams, ScriptedBackend  # noqa: E402
from finr1.params import ParameterError  # noqa: E402
from finr1.records import Problem, render_completion  # noqa: E402

RISKS = {name: name for name in ("low", "medium", "high")}
YES_NO, LABEL = (
    {"answer_kind": "boolean", "family": "rule"},
    {"answer_kind": "label", "family": "risk", "labels": RISKS},
)
CHOICE = {"answer_kind": "choice", "family": "exam", "choices": dict(zip("ABCD", "wxyz", strict=True))}


def of_kind(number: int, gold: str, split: str = "test", **kind) -> Problem:
    return problem(number, gold).model_copy(update={"id": f"synthetic/{split}{number}", "split": split} | kind)


def several(golds: str, split: str, **kind) -> list[Problem]:
    return [of_kind(number, gold, split, **kind) for number, gold in enumerate(golds.split())]


def worth(items: list[Problem], known: list[Problem], by: str | None = None) -> dict:
    rows = results_table(chance_samples(items, known), by=by)
    return {(row["model"], row.get(by)): row["accuracy"] for row in rows}


@pytest.mark.parametrize(
    ("golds", "kind", "share"),
    [("yes no no", YES_NO, 1 / 2), ("low low high", LABEL, 1 / 3), ("A D B", CHOICE, 1 / 4), ("10 20 30", {}, 0)],
)
def test_a_uniform_guess_is_worth_one_over_the_number_of_options(golds, kind, share):
    assert worth(several(golds, "test", **kind), [])["guess", None] == pytest.approx(share)


def test_the_constant_is_the_commonest_training_gold_and_never_the_test_items():
    items, train = several("high high high low", "test", **LABEL), several("low low high", "train", **LABEL)
    assert worth(items, train)["constant", None] == 1 / 4  # "low", though "high" would be worth 3 / 4
    assert worth(items, [*train, *items])["constant", None] == 1 / 4
    assert worth(items, train[::-1]) == worth(items, train)
    tie = several("medium high", "train", **LABEL)  # the first by alphabet, whatever the order
    assert worth(items, tie)["constant", None] == worth(items, tie[::-1])["constant", None] == 3 / 4


def test_each_family_and_source_has_its_own_constant_graded_as_any_answer():
    items = [*several("yes no", "test", **YES_NO), *several("20 30 20.0", "test")]
    train = [*several("Yes Yes No", "train", **YES_NO), *several("20 20 30", "train")]
    by_kind = worth(items, train, "kind")
    assert by_kind["constant", "decisions"] == 1 / 2 and by_kind["constant", "numbers"] == pytest.approx(2 / 3)
    assert by_kind["guess", "decisions"] == 1 / 2 and by_kind["guess", "numbers"] == 0
    other = [of_kind(9, "yes", source="finqa", **YES_NO), of_kind(8, "x = 1", family="f", answer_kind="code")]
    made = chance_samples(other, [*train, *(p.model_copy(update={"split": "train"}) for p in other[1:])])
    assert {s.model for s in made} == {"guess"}  # nothing to learn a constant from, or none that could be right


def test_chance_stands_in_the_table_as_a_plain_number_and_in_no_step():
    items, train = several("yes no no no", "test", **YES_NO), several("no no yes", "train", **YES_NO)
    backend = ScriptedBackend(lambda *_: render_completion("Thought.", "no"), "scripted")
    answers = evaluate(items, backend, SamplingParams(temperature=0, max_tokens=9), "grpo")
    chance = chance_samples(items, train)
    rows = results_table([*answers, *chance])
    assert [row["model"] for row in rows] == ["guess", "constant", "grpo"]
    assert rows[1]["low"] is None and result_cells(rows)[1] == {
        "model": "constant", "decoding": "none", "items": 4, "answers": 4, "accuracy [95 %]": "75.0"}  # fmt: skip
    assert "constant" in render_table(rows) and "nan" not in render_table(rows).lower()
    assert evaluation.paired_table([*answers, *chance], seed=0) == []
    above = evaluation.paired_row([s for s in chance if s.model == "constant"], answers, seed=0)
    assert (above["difference"], above["n"]) == (0, 4)  # a policy that answers the constant is worth the constant


def test_chance_is_a_grey_tick_over_the_line_in_every_decoding():
    plotting.use_style()
    items = several("yes no no no", "test", **YES_NO)
    chance = chance_samples(items, several("no", "train", **YES_NO))
    answers = [make_sample("sft", p.id, decoding=how, family="rule") for p in items for how in ("greedy", "sampled")]
    rows = results_table([*chance, *answers])
    ticks = [row for row in plotting.estimates(rows, "decoding") if row["look"].marker == "|"]
    assert [(row["label"], row["value"]) for row in ticks] == [
        ("greedy, n = 4", 0.5), ("greedy, n = 4", 0.75), ("sampled, n = 4", 0.5), ("sampled, n = 4", 0.75)]  # fmt: skip
    assert not any(row["look"].marker == "|" for row in plotting.estimates(rows, "decoding", "format"))
    fig = cells("06_benchmark", "accuracy-by")["accuracy_by"](
        results_table([*chance, *answers], by="family"), "family", "sampled"
    )
    segments = [lines.get_segments()[0][:, 0].tolist() for lines in fig.axes[0].collections]
    assert segments == [[50, 50], [75, 75]]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["uniform guess", "best constant", "SFT"]
    plt.close(fig)


def test_no_other_model_may_be_called_as_chance_is():
    from test_evaluation import BENCHMARK

    from finr1.params import BenchmarkParams

    with pytest.raises(ParameterError, match="none of .*guess, constant"):
        BenchmarkParams(**BENCHMARK | {"other_models": ["constant=hub/model"]})


# ---- ways and false steps -------------------------------------------------------------------------------------------

AT_ONCE, BY_PARTS = "24 * 5 = 120.", "20 * 5 = 100. 4 * 5 = 20. 100 + 20 = 120."


def two_ways(number: int) -> Problem:
    update = {
        "reference": AT_ONCE,
        "reference_by_parts": BY_PARTS,
        "question": f"No {number}: what are 24 shares at $5?",
    }
    return problem(number, "120").model_copy(update=update)


def test_an_answer_to_a_problem_with_two_ways_has_one_of_them():
    texts = {0: AT_ONCE, 1: BY_PARTS, 2: BY_PARTS.replace("100 + 20 = 120", "100 + 20 = 130")}
    items = [*map(two_ways, texts), two_ways(3).model_copy(update={"reference_by_parts": ""})]
    said = {p.question: texts.get(n, BY_PARTS) for n, p in enumerate(items)}
    backend = ScriptedBackend(lambda request, *_: render_completion(said[request.messages[-1]["content"]], "120"), "s")
    made = evaluate(items, backend, SamplingParams(temperature=0, max_tokens=9), "sft")
    assert [s.way for s in made] == ["at_once", "by_parts", "by_parts", None]
    assert [s.false_steps for s in made] == [0, 0, 1, 0]
    (row,) = results_table(made)
    assert (row["right"], row["false_step"]) == (4, 1 / 4)  # right by a step that is false
    assert result_cells([row])[0]["false step"] == "25.0 of 4"
    by_way = {row["way"]: row["samples"] for row in results_table([s for s in made if s.way], by="way")}
    assert by_way == {"at_once": 1, "by_parts": 2}


def test_a_right_answer_is_needed_for_a_share_of_right_ones():
    (row,) = results_table([make_sample(correct=False, false_steps=2)])
    assert row["false_step"] is None and result_cells([row])[0]["false step"] == "-"


def test_the_headline_is_of_the_main_source_and_of_problems_with_two_ways():
    one_way, twice = make_sample(item="a"), make_sample(item="b", family="sums", way="by_parts")
    real = make_sample(item="c", source="finqa")
    assert headline_samples([one_way, twice, real], "synthetic") == [twice]
    assert headline_samples([one_way, real], "synthetic") == [one_way]
    assert headline_samples([one_way, twice, real], "finqa") == [real]
    assert headline_samples([real], "synthetic") == [real]
    some = make_sample(item="d", source="tfns", way="at_once"), make_sample(item="e", source="tfns")
    assert headline_samples(some, "tfns") == [*some], "a family of which some items have two ways stays whole"
