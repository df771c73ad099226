"""Curation on handmade problems, then on the real sources where they are at hand."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import ROOT, demo_values
from recipes import cells

from finr1 import pipeline
from finr1.curation import (
    decontaminate,
    drop_duplicates,
    rl_rows,
    sft_rows,
    tokens,
)
from finr1.grading import has_format
from finr1.params import DataParams
from finr1.records import Problem, Trace, Turn, hash_share, render_completion
from finr1.sources import SOURCES, load_source
from finr1.synthetic import generate_problems

PAGE = "net revenue was 5829 in 2015 and 5735 in 2014 , while costs were 4100 and 4000 , as the company stated ."
LONG = "what was the percentage change in net revenue of the company from the year 2014 to the year 2015 in total"


def problem(identifier: str = "a", **changes) -> Problem:
    fields = dict(
        id=f"finqa/{identifier}", source="finqa", module="m", language="en", capability="calculation",
        answer_kind="number", context=PAGE, question=LONG, gold="1", split="train", group=f"group {identifier}",
    )  # fmt: skip
    return Problem(**fields | changes)


def trace(completion: str, answer: str | None = "1", **changes) -> Trace:
    fields = dict(id="t#0", problem=problem(), teacher="x", completion=completion, reasoning="1 + 0 = 1", answer=answer)
    return Trace(**fields | changes)


# ---------------------------------------------------------------------------
# Tokens and duplicates


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        ("Net  REVENUE, 2015!", ["net", "revenue", "2015"], "case and punctuation"),
        ("up 4.5% to $1,200", ["up", "4.5", "to", "1,200"], "a number is one token"),
        ("１２％", ["12"], "full-width digits"),
        ("净利润 12 万", ["净", "利", "润", "12", "万"], "each Chinese character"),
        ("see https://t.co/abc", ["see"], "links are no text"),
        ("http://t.cn/xyz茅台", ["茅", "台"], "but Chinese text right behind one is"),
        ("7-2 and 7 * 2", ["7", "-", "2", "and", "7", "*", "2"], "an operator tells two problems apart"),
        ("a fall to $-5", ["a", "fall", "to", "-", "5"], "so does a sign"),
        ("a well-known firm", ["a", "well", "known", "firm"], "a hyphen between words does not"),
        ("", [], "nothing"),
    ],
)
def test_tokens(text, expected, why):
    assert tokens(text) == expected, why


@pytest.mark.parametrize(
    ("changes", "reason", "why"),
    [
        ({}, "exact duplicate", "the same under another id"),
        ({"question": LONG.upper() + " ?"}, "exact duplicate", "case and punctuation do not count"),
        ({"question": LONG + " please"}, "near duplicate", "one word more"),
        ({"context": PAGE + " indeed"}, "near duplicate", "one word more on the page"),
        ({"question": LONG.replace("2014", "2013")}, None, "another year is another question"),
        ({"question": "what were the costs in 2015 and in the year before ?"}, None, "another question on the page"),
        ({"context": "costs were 5829 5735 4100 4000 2015 2014"}, None, "the same question on another page"),
        ({"history": [Turn(question="what was net revenue?", answer="5829")]}, None, "another conversation"),
        ({"choices": {"A": "one percent", "B": "two percent"}}, None, "options make another question"),
    ],
)
def test_a_repetition_is_dropped_and_a_like_question_kept(changes, reason, why):
    kept, dropped = drop_duplicates([problem("a"), problem("b", **changes)])
    assert [p.id for p in kept] == ["finqa/a"] + (["finqa/b"] if reason is None else []), why
    assert dropped == {"exact duplicate": 0, "near duplicate": 0} | ({reason: 1} if reason else {})


def test_a_later_turn_of_a_conversation_is_no_near_duplicate_of_the_turn_before():
    turns = [Turn(question=f"{LONG} for unit {unit}?", answer="1") for unit in ("north", "south", "west")]
    earlier = Turn(question="and in sum?", answer="3")
    problems = [problem("a", history=turns, question=earlier.question)]
    problems += [problem("b", history=[*turns, earlier], question="and how much is that of all?")]
    assert len(drop_duplicates(problems)[0]) == 2


def test_near_duplicates_agree_with_comparing_every_pair():
    problems = generate_problems(120, "train", seed=3)
    twins = [p.model_copy(update={"id": p.id + "/twin", "question": p.question + " Thanks"}) for p in problems[::5]]
    kept, dropped = drop_duplicates(problems + twins)

    def grams(text):
        words = tokens(text)
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    def repeats(a, b):
        parts = [(a.context, b.context), (a.question, b.question)]
        alike = [len(grams(x) & grams(y)) >= 0.8 * len(grams(x) | grams(y)) for x, y in parts]
        return all(alike) and [t.question for t in a.history] == [t.question for t in b.history]

    expected = [twin for twin in twins if any(repeats(twin, p) for p in problems if p.id + "/twin" == twin.id)]
    assert dropped["near duplicate"] == len(expected) > 0
    assert [p.id for p in kept[:120]] == [p.id for p in problems]


# ---------------------------------------------------------------------------
# Contamination


@pytest.mark.parametrize(
    ("changes", "leaks", "why"),
    [
        ({"context": "another page"}, True, "the question itself"),
        ({"question": "so, " + LONG + " ?"}, True, "the question within another"),
        ({"question": "what were the costs of the company in the year 2015 , in millions , after tax and fees"}, False,
         "only the page is shared, and pages never cross splits"),
        ({"source": "fincorpus", "question": "how many ?"}, True, "a source without shared pages: its context counts"),
        ({"source": "fincorpus", "context": "a b", "question": "c d"}, False, "nothing in common"),
    ],
)  # fmt: skip
def test_a_training_problem_that_shares_a_long_n_gram_with_a_test_one_is_dropped(changes, leaks, why):
    held_out = [problem("test", split="test"), problem("other", source="fincorpus", split="test", question="who ?")]
    kept, matches = decontaminate([problem("train", **changes)], held_out, ngram=13)
    assert bool(matches) is leaks and len(kept) == 1 - leaks, why
    if leaks:
        assert matches[0]["train_id"] == "finqa/train" and len(matches[0]["ngram"].split()) == 13


def test_twelve_shared_words_are_no_leak_at_thirteen():
    held_out = [problem("test", context="", question=" ".join(f"w{n}" for n in range(20)))]
    train = [problem("train", context="", question=" ".join(f"w{n}" for n in range(12)) + " and on it goes")]
    assert decontaminate(train, held_out, ngram=13)[1] == [] and decontaminate(train, held_out, ngram=12)[1]


def test_a_short_text_counts_whole_unless_it_rests_on_its_page():
    short = dict(context="", question="and in 2008?")
    tweets = [problem(i, **short, source="tfns") for i in "ab"], [problem(i, **short) for i in "ab"]
    assert len(decontaminate(tweets[0][:1], tweets[0][1:])[1]) == 1
    assert decontaminate(tweets[1][:1], tweets[1][1:])[1] == []


def test_a_phrase_of_many_held_out_groups_is_a_template_and_no_leak():
    held_out = [problem(f"test{n}", context=f"page {n}", source="tfns") for n in range(10)]
    assert decontaminate([problem("train", context="x", source="tfns")], held_out)[1] == []
    assert decontaminate([problem("train", context="x", source="tfns")], held_out[:3])[1]


def test_the_question_that_all_training_problems_of_a_source_share_is_no_leak():
    train = [problem(f"{n}", source="tfns", context=f"tweet {n} about another thing {n}") for n in range(30)]
    held_out = [problem("h", source="tfns", split="test", context="a tweet of its own")]
    assert decontaminate(train, held_out)[1] == [], "the question is long, and the same for every tweet"


def test_chinese_is_compared_by_characters():
    text = "某公司去年营业收入为三百万元其中成本占比为六成请计算该公司的净利润是多少万元"
    held_out = [problem("test", language="zh", context="", question=text, source="fincuge")]
    train = [problem("train", language="zh", context="", question="已知" + text[:25], source="fincuge")]
    (match,) = decontaminate(train, held_out)[1]
    assert match["ngram"] == text[:20]
    train = [problem("train", language="zh", context="", question="已知" + text[:19] + "是多少", source="fincuge")]
    assert decontaminate(train, held_out)[1] == [], "19 characters are no leak"


def test_synthetic_training_problems_are_not_taken_for_leaks():
    train, held_out = generate_problems(300, "train", seed=0), generate_problems(100, "test", seed=0)
    assert decontaminate(train, held_out)[1] == []


# ---------------------------------------------------------------------------
# Rows


def test_hash_shares_are_the_same_everywhere():
    assert hash_share("a", 0) == pytest.approx(0.6170009362330673, abs=1e-12)
    assert all(0 <= hash_share(str(n), 0) < 1 for n in range(100))


def test_sft_rows_are_conversational_and_in_the_response_format():
    told = render_completion("1 + 0 = 1", "1")
    rows = sft_rows([trace(told), trace("<think>1 + 0 = 1</think> It is \\boxed{1}.")])
    assert [row["completion"][0]["content"] for row in rows] == [told, told], "a foreign format is rendered into ours"
    assert rows[0]["completion"][0]["role"] == "assistant" and has_format(told)
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user"]


def test_a_trace_without_an_answer_is_no_sft_row():
    with pytest.raises(ValueError, match="t#0 has no answer"):
        sft_rows([trace("I give up", answer=None)])


def test_rl_rows_survive_datasets_with_different_labels_and_choices():
    datasets = pytest.importorskip("datasets")
    labelled = problem("a", answer_kind="label", labels={"0": "bearish"}, gold="bearish")
    chosen = problem("b", answer_kind="choice", choices={"A": "涨", "B": "跌"}, gold="A", alternatives=["B"], level=2)
    rows = rl_rows([labelled, chosen])
    back = datasets.Dataset.from_list(rows).to_list()
    assert back == rows
    assert json.loads(back[0]["labels"]) == {"0": "bearish"} and back[0]["choices"] == ""
    assert json.loads(back[1]["choices"]) == {"A": "涨", "B": "跌"} and "涨" in back[1]["choices"]
    assert set(back[0]) == {"id", "prompt", "solution", "answer_kind", "alternatives", "choices", "labels", "options",
                            "rel_tol", "family", "level", "language", "capability"}  # fmt: skip


def test_batches_change_nothing(monkeypatch):
    problems = generate_problems(400, "train", seed=3)
    problems += [p.model_copy(update={"id": f"{p.id}+"}) for p in problems[:7]]
    whole = drop_duplicates(problems)
    assert whole[1]["exact duplicate"] == 7
    monkeypatch.setattr("finr1.curation.BATCH", 100)
    assert drop_duplicates(problems) == whole


# ---------------------------------------------------------------------------
# Ray Data


@pytest.fixture(scope="module")
def on_ray():
    """What notebook 01 defines for Ray, with two workers of this machine."""
    ray = pytest.importorskip("ray", reason="the optional extra `ray` is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    params = SimpleNamespace(engine="ray", data_dir="finr1/sources/samples")
    yield SimpleNamespace(**cells("01_data", "engine", params=params))
    ray.shutdown()


def repetitive() -> list[Problem]:
    """The shipped records and synthetic problems, with exact and near repetitions, and leaks."""
    names = [name for name in SOURCES if (ROOT / "finr1" / "sources" / "samples" / name).is_dir()]
    made = [p for name in names for p in load_source(name, ROOT / "finr1" / "sources" / "samples").problems]
    made += generate_problems(150, "train", seed=3)
    made += [p.model_copy(update={"id": f"{p.id}/twin", "question": f"{p.question} Thanks"}) for p in made[::5]]
    made += [p.model_copy(update={"id": f"{p.id}/same"}) for p in made[::7]]
    tested = [p for p in made if p.split == "test"][:9]
    leak = {"source": "toy", "context": "", "split": "train"}
    return made + [p.model_copy(update=leak | {"id": f"{p.id}/leak"}) for p in tested]


def test_ray_gives_the_rows_and_counts_of_one_process(on_ray, monkeypatch):
    monkeypatch.setattr("finr1.curation.BATCH", 100)  # several tasks of each step
    problems = repetitive()
    unique, dropped = drop_duplicates(problems)
    assert drop_duplicates(problems, on_ray.workers) == (unique, dropped) and min(dropped.values()) > 20
    train, held_out = ([p for p in unique if (p.split == "train") is wanted] for wanted in (True, False))
    kept, matches = decontaminate(train, held_out)
    assert decontaminate(train, held_out, engine=on_ray.workers) == (kept, matches) and matches
    assert drop_duplicates([], on_ray.workers)[0] == [] == decontaminate([], held_out, engine=on_ray.workers)[0]
    [loaded] = on_ray.workers.batches(on_ray.read, ["tfns"], 1)["loaded"]
    assert loaded == load_source("tfns", ROOT / "finr1" / "sources" / "samples")
    rows = pd.DataFrame([(p.group, p.split) for p in problems], columns=["group", "split"])
    counted = on_ray.workers.groups(on_ray.splits_of, rows, "group").sort_values("group", ignore_index=True)
    assert counted.values.tolist() == on_ray.splits_of(rows).values.tolist() and counted["split"].max() > 1


def test_a_worker_of_ray_that_is_killed_costs_nothing(on_ray, tmp_path):
    def dies_once(items):
        with suppress(FileExistsError):
            (tmp_path / str(items[0])).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return pd.DataFrame({"square": [item**2 for item in items]})

    made = on_ray.workers.batches(dies_once, list(range(40)), 20)
    assert made["square"].tolist() == [n**2 for n in range(40)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "20"]


@pytest.mark.slow
def test_notebook_01_writes_the_same_files_on_ray(outputs):
    pytest.importorskip("ray", reason="the optional extra `ray` is not installed")
    made = {}
    for engine in ("local", "ray"):
        values = demo_values("01_data", run=engine, engine=engine, num_train=200, num_dev=40, num_test=60)
        pipeline.execute("01_data", DataParams(**values))
        names = ("problems.jsonl", "funnel.json", "contamination.jsonl")
        made[engine] = {name: (outputs / engine / "01_data" / name).read_bytes() for name in names}
    assert made["local"] == made["ray"]


def test_without_ray_the_engine_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    [line] = DataParams(**demo_values("01_data", engine="ray")).requirements()
    assert line.startswith('engine = "ray": `pip install')


# ---------------------------------------------------------------------------
# The real sources


@pytest.mark.slow
def test_real_training_problems_are_freed_of_test_tweets_and_questions(real_data: Path):
    there = [name for name, source in SOURCES.items() if source.folder_in(real_data).is_dir()]
    problems = [p for name in there for p in load_source(name, real_data).problems]
    assert len({(p.group, p.split) for p in problems}) == len({p.group for p in problems}), "no group in two splits"
    train, held_out = ([p for p in problems if (p.split == "train") is wanted] for wanted in (True, False))
    kept, matches = decontaminate(train, held_out)
    assert len(kept) + len(matches) == len(train) and 10 < len(matches) < 0.04 * len(train)
    assert decontaminate(kept, held_out)[1] == []
    tweets = [p for p in train if p.source == "tfns"]
    unique, dropped = drop_duplicates(tweets)
    assert len(unique) + sum(dropped.values()) == len(tweets) and dropped["near duplicate"] > 10


OBJECTIVE = [
    ("number", "60", True),
    ("label", "bullish", True),
    ("text", "weaker demand", False),
    ("code", "x = 1", False),
    ("code", '{"function": "f", "tests": [{"call": [2], "returns": 4}]}', True),
]


@pytest.mark.parametrize("kind, gold, objective", OBJECTIVE, ids=[f"{row[0]} {row[1][:9]}" for row in OBJECTIVE])
def test_a_problem_is_objective_where_rules_decide_every_answer(kind, gold, objective):
    fields = {"id": "p", "source": "synthetic", "module": "m", "language": "en", "capability": "code",
              "answer_kind": kind, "question": "?", "gold": gold, "split": "train", "group": "p"}  # fmt: skip
    assert cells("03_filtering", "objective")["is_objective"](Problem(**fields)) is objective
