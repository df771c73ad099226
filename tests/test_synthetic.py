"""Synthetic problems: exact answers, true steps, and no overlap between the splits."""

import json
import re
from collections import Counter

import pytest
from recipes import cells, score_reasoning

from finr1 import curation, grading, judge, rewards, synthetic, teacher
from finr1.generation import SamplingParams, generate
from finr1.records import messages, render_completion
from finr1.teacher import way_of

SPLITS = {"train": 600, "dev": 200, "test": 400}


@pytest.fixture(scope="module")
def problems():
    return {split: synthetic.generate_problems(count, split, seed=7) for split, count in SPLITS.items()}


def test_every_capability_and_both_languages_are_there(problems):
    train = problems["train"]
    assert len({p.family for p in train}) >= 12
    assert {p.capability for p in train} == {
        "calculation", "code", "compliance", "risk", "esg", "sentiment", "multi_turn"
    }  # fmt: skip
    assert {p.language for p in train} == {"en", "zh"}
    two_ways = Counter(p.family for p in train if p.reference_by_parts).values()
    one_way = Counter(p.family for p in train if not p.reference_by_parts).values()
    assert max(two_ways) - min(two_ways) <= 1 and max(one_way) - min(one_way) <= 1
    assert 1.5 < min(two_ways) / max(one_way) < 2.5, "families with one way have every second turn in training"


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    again = [synthetic.generate_problems(60, "train", seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_splits_share_no_instance_no_wording_and_no_name(problems):
    instances = {s: {(p.family, synthetic.instance_of(p)) for p in ps} for s, ps in problems.items()}
    questions = {s: {p.question for p in ps} for s, ps in problems.items()}
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not instances[first] & instances[second]
        assert not questions[first] & questions[second]
        for kind in ("companies", "months", "variables", "clauses", "clauses_zh"):
            for name in synthetic.WORDS[kind][second]:
                whole = name if kind == "clauses_zh" else rf"\b{name}\b"
                texts = (f"{p.context} {p.history} {p.question}" for p in problems[first] if said_by(kind, p))
                assert not any(re.search(whole, text) for text in texts), (kind, name)


def said_by(kind, problem):
    """Whether names of `kind` may stand in `problem`; "rate" is a variable of one family and a word of another."""
    return {"variables": "code_total", "clauses": "gift_rule", "clauses_zh": "disclosure_zh"}.get(
        kind, problem.family
    ) == problem.family


def test_splits_share_no_wording_and_a_family_with_two_ways_has_several(problems):
    for name, family in synthetic.FAMILIES.items():
        told = [*family.questions.values(), *([text] for text in (family.earlier or {}).values())]
        texts = [text for texts in told for text in texts]
        assert len(texts) == len(set(texts)), name
        assert all(len(family.questions[split]) >= 2 for split in SPLITS), name
        words = {
            split: {"".join(c for c in p.question if not c.isdigit() and c != ".") for p in ps if p.family == name}
            for split, ps in problems.items()
        }
        assert not words["train"] & words["test"] and not words["train"] & words["dev"], name


def test_words_around_a_number_do_not_hide_that_two_instances_are_one():
    """CO2 stands in some wordings only; its 2 is no number of the problem."""
    [one] = synthetic.generate_problems(1, "train", 1, families=["emissions"])
    told = [
        one.model_copy(update={"question": f"{gas} at 35 per million. Sales of $4 million?"}) for gas in ("CO2", "Gas")
    ]
    assert synthetic.instance_of(told[0]) == synthetic.instance_of(told[1]) == ("35", "4")


def test_no_problem_stands_twice(problems):
    everything = [p for ps in problems.values() for p in ps]
    assert len({str(messages(p)) for p in everything}) == len(everything)
    assert len({p.id for p in everything}) == len(everything)


def test_each_worked_solution_is_true_ends_at_the_gold_and_passes_the_filter(problems):
    everything = [p for ps in problems.values() for p in ps]
    for p in everything:
        for solution in filter(None, (p.reference, p.reference_by_parts)):
            assert all(judge.checked_steps(solution).values()), solution
            assert len(judge.split_steps(solution)) >= 3, solution
            last = judge.split_steps(solution)[-1]
            assert (re.findall(r"\d+", last) == [p.gold]) if p.gold.isdigit() else last.rstrip(".").endswith(p.gold), (
                last
            )
    for share in (0.0, 1.0):  # each way through both rounds of notebook 03
        for trace in teacher.derived_traces(everything, by_parts_share=share):
            assert judge.check_answer(trace) is True, trace.completion
            assert score_reasoning(trace).total == 7, (trace.reasoning, score_reasoning(trace).reasons)


TWO_WAYS = {"currency", "percent_of", "interest_zh", "default_loss", "emissions", "code_total", "table_sales",
            "gift_rule", "disclosure_zh"}  # fmt: skip


def test_the_two_ways_are_told_apart_and_the_longer_one_is_longer(problems):
    everything = [p for ps in problems.values() for p in ps]
    assert {p.family for p in everything if p.reference_by_parts} == TWO_WAYS
    for p in everything:
        ways = [way_of(p, render_completion(text, p.gold)) for text in (p.reference, p.reference_by_parts or "")]
        assert ways == (["at_once", "by_parts"] if p.family in TWO_WAYS else [None, None]), p.family


def test_the_way_by_parts_reaches_the_product_by_tens_and_units_and_checks_each_clause(problems):
    for p in (p for ps in problems.values() for p in ps if p.family in TWO_WAYS):
        at_once, by_parts = judge.split_steps(p.reference), judge.split_steps(p.reference_by_parts)
        if p.answer_kind == "boolean":
            assert len(by_parts) == 6
            assert all(re.search(r"(yes, kept|no, broken|^已.*，满足|^未.*，不满足)", step) for step in by_parts[1:5])
            broken = sum("broken" in step or "不满足" in step for step in by_parts[1:5])
            assert (broken == 0) == (p.gold in ("compliant", "合规")), p.reference_by_parts
            assert not set(at_once) - set(by_parts) - {at_once[1]}, "a verdict at once checks nothing"
        else:
            [product] = [step for step in at_once if "*" in step]
            assert product not in by_parts and sum("*" in step for step in by_parts) == 2
            assert any(step.rstrip(".").endswith(product.rstrip(".").split("= ")[1]) for step in by_parts)


def test_a_constant_is_worth_one_in_the_number_of_options(problems):
    """Verdicts and labels are drawn in turn, so every beginning of a family has each of them equally often."""
    for split, ps in problems.items():
        for name in ("gift_rule", "disclosure_zh", "position_rule", "risk_ratio", "esg_topic", "sentiment"):
            golds = [p.gold for p in ps if p.family == name]
            options = 3 if synthetic.FAMILIES[name].labels else 2
            for end in (6, 12, len(golds)):
                counts = Counter(golds[:end])
                assert len(counts) == options and max(counts.values()) - min(counts.values()) <= 1, (
                    split,
                    name,
                    counts,
                )
        for name in TWO_WAYS - {"gift_rule", "disclosure_zh"}:
            golds = [p.gold for p in ps if p.family == name]
            assert Counter(golds).most_common(1)[0][1] <= max(3, 0.15 * len(golds)), (split, name)


def test_too_many_problems_name_the_family_that_ran_out():
    with pytest.raises(ValueError, match="no further instance"):
        synthetic.generate_problems(20_000, "test", seed=0)


def test_what_there_is_of_a_family_may_be_taken():
    families = ("percent_of", "code_total")
    some = synthetic.generate_problems(400, "test", 0, families=families, partial=True)
    counts = Counter(p.family for p in some)
    assert 10 < counts["percent_of"] < 200 and counts["code_total"] == 400 - counts["percent_of"]
    assert len({(p.family, synthetic.instance_of(p)) for p in some}) == 400
    assert some[:15] == synthetic.generate_problems(15, "test", 0, families=families)
    short = synthetic.generate_problems(400, "test", 0, families=["percent_of"], partial=True)
    assert len(short) == counts["percent_of"]


def test_an_echo_of_the_question_or_of_its_options_is_never_right(problems):
    """What a policy finds first when the grader can be fooled: to repeat the options in place of choosing one."""
    for p in (p for ps in problems.values() for p in ps if p.answer_kind in ("boolean", "label")):
        tail = re.split(r"[,，:：.。]|Is this |Is it |of it: ", p.question.rstrip("?？"))[-1].strip()
        options = re.findall(r"[\w-]+ or [\w-]+|\w+还是\w+", p.question)
        for echo in (p.question, tail, *options):
            text = render_completion("so", echo)
            right = grading.is_correct(text, gold=p.gold, answer_kind=p.answer_kind, labels=p.labels)
            assert right is False, (p.family, echo, p.gold)


CODE_COUNTS = {"train": 160, "dev": 80, "test": 80}


@pytest.fixture(scope="module")
def code_problems():
    return {split: synthetic.generate_problems(count, split, seed=7, code=True) for split, count in CODE_COUNTS.items()}


def test_code_problems_stand_apart_from_the_mix_and_from_each_other(code_problems, problems):
    assert not set(synthetic.CODE_FAMILIES) & {p.family for ps in problems.values() for p in ps}
    everything = [p for ps in code_problems.values() for p in ps]
    assert {(p.capability, p.answer_kind) for p in everything} == {("code", "code")}
    assert {p.language for p in everything} == {"en", "zh"}
    assert len({p.id for p in everything}) == len({p.question for p in everything}) == len(everything)
    instances = {s: {(p.family, synthetic.instance_of(p)) for p in ps} for s, ps in code_problems.items()}
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not instances[first] & instances[second]
    assert code_problems["test"] == synthetic.generate_problems(CODE_COUNTS["test"], "test", seed=7, code=True)


def test_a_code_problem_is_passed_by_its_own_solution_and_by_no_other_instance_of_its_family(code_problems):
    chosen, families = code_problems["test"][:16], len(synthetic.CODE_FAMILIES)
    for p, other in zip(chosen, chosen[families:] + chosen[:families], strict=True):
        assert p.family == other.family
        for solution, right in ((p.reference, True), (other.reference, False)):
            answer = f"<think>so</think><answer>\n```python\n{solution}\n```\n</answer>"
            assert grading.is_correct(answer, gold=p.gold, answer_kind="code") is right, (p.question, solution)


def test_no_argument_of_a_test_stands_in_the_prompt(code_problems):
    for p in code_problems["test"]:
        for test in json.loads(p.gold)["tests"]:
            assert json.dumps(test["returns"]) not in p.question or len(json.dumps(test["returns"])) < 4


# Worked out by hand or taken from a table of annuities: family, the constants it draws, a call, what it returns.
KNOWN = [
    ("write_compound", {"times": 2, "fee": 100}, "compound(1100, 0.10, 1)", 1102.5),
    ("write_npv", {"cost": 1000}, "npv(0.1, [550, 605])", 0.0),
    ("write_loan_payment", {"fee": 200}, "loan_payment(99800, 0.06, 360)", 599.550525),
    ("write_loan_payment", {"fee": 200}, "loan_payment(1000, 0, 12)", 100.0),
    ("write_sharpe", {"riskless": 0, "periods": 4}, "sharpe([0.01, 0.03])", 2**1.5),
    ("write_drawdown", {"start": 100}, "drawdown([0.5, -0.2, -0.5, 1.0])", 90.0),
    ("write_bond_price", {"face": 1000, "times": 2}, "bond_price(0.08, 0.08, 10)", 1000.0),
    ("write_compound_zh", {"times": 1, "tax": 20}, "fuli(1000, 0.1, 2)", 1168.0),
    ("write_moving_average_zh", {"window": 2, "limit": 5}, "xinhao([100, 100, 112, 112, 130])", [2, 4]),
]


@pytest.mark.parametrize("family, constants, call, expected", KNOWN, ids=[row[2] for row in KNOWN])
def test_the_solutions_agree_with_values_worked_out_by_hand(family, constants, call, expected):
    family, space = synthetic.CODE_FAMILIES[family], {}
    exec(family.at_once[0].format(**constants), space)
    assert eval(call, space) == pytest.approx(expected, abs=1e-5)


RIGHT_FORM = "<think>so</think><answer>\n```python\n{}\n```\n</answer>"
HOSTILE = {
    "ends the process with success": "import os\n\ndef {name}(*args):\n    os._exit(0)",
    "is equal to everything": (
        "class Any(float):\n    __eq__ = lambda self, other: True\n    __sub__ = __rsub__ = lambda self, other: 0.0\n\n"
        "def {name}(*args):\n    return Any()"
    ),
    "looks for the tests": (
        "import gc, sys\n\ndef {name}(*args):\n    frame = sys._getframe()\n    while frame:\n"
        "        for it in frame.f_locals.values():\n            if isinstance(it, dict) and 'returns' in it:\n"
        "                return it['returns']\n        frame = frame.f_back\n"
        "    return next(o['returns'] for o in gc.get_objects() if isinstance(o, dict) and 'returns' in o)"
    ),
}


@pytest.mark.parametrize("backend", ["scripted", "derived"])
def test_functions_to_write_get_no_trace_reach_rl_and_are_paid_by_their_tests(backend):
    """From what notebook 01 adds, by what 02 and 03 do with it, to the reward of a right and of a hostile answer."""
    mix = synthetic.generate_problems(16, "train", 1)
    train = mix + synthetic.generate_problems(8, "train", 1, code=True)
    asked = [problem for problem in train if problem.answer_kind != "code"]
    if backend == "derived":
        traces = teacher.derived_traces(asked)
    else:
        names = ("requests", "cell-07", "write-answer", "scripted-teacher", "traces-of")
        made = cells("02_distillation", *names)
        answers = generate(made["requests"](asked), SamplingParams(), made["scripted_teacher"](asked, 1.0, seed=42))
        traces = made["traces_of"](asked, answers, backend, {})
    assert sorted(trace.problem.id for trace in traces) == sorted(problem.id for problem in mix)

    objective = [*filter(cells("03_filtering", "objective")["is_objective"], train)]
    rows = curation.rl_rows(curation.spread(objective, 24, lambda problem: problem.family, seed=1))
    rows = [row for row in rows if row["answer_kind"] == "code"]
    assert {row["family"] for row in rows} == set(synthetic.CODE_FAMILIES)
    (row,) = (row for row in rows if row["family"] == "write_npv")
    answers = [next(problem.reference for problem in train if problem.id == row["id"])]
    answers += [program.replace("{name}", "npv") for program in HOSTILE.values()]
    columns = {name: [row[name]] * len(answers) for name in row}
    chats = [[{"role": "assistant", "content": RIGHT_FORM.format(answer)}] for answer in answers]
    paid = rewards.grade_completions(chats, **columns)
    assert paid == [1.0] + [0.0] * len(HOSTILE)


# ---- in English -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_text_of_a_chinese_family_has_its_translation(split):
    families = [name for name, family in synthetic.FAMILIES.items() if family.language == "zh"]
    problems = synthetic.generate_problems(80, split, 3, families)
    for problem in problems:
        for text in (problem.question, problem.gold, problem.reference, problem.reference_by_parts):
            english = synthetic.in_english(text)
            assert english.isascii() and re.findall(r"\d+", english.replace(" x 10,000", "").replace("1% of", "")) == (
                re.findall(r"\d+", text.replace("的1%", ""))
            ), f"{text} -> {english}"


def test_what_no_template_has_stays_chinese_and_english_stays_itself():
    assert synthetic.in_english("12 * 5 = 60. So it is 60.") == "12 * 5 = 60. So it is 60."
    assert synthetic.in_english("1200的1%是12。随便") == "1% of 1200 is 12. 随便"
    assert synthetic.in_english("不合规") == "non-compliant" and synthetic.in_english("合规") == "compliant"
