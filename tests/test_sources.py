"""The ten sources: handmade records of every published shape, then the real files where they are at hand."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import urllib.error
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, demo_values
from recipes import cell_of, cells, score_reasoning

from finr1 import grading
from finr1.__main__ import main
from finr1.judge import check_answer, checked_steps
from finr1.params import DataParams
from finr1.records import Problem, Trace, Turn, messages, render_completion
from finr1.sources import SOURCES, Loaded, Source, SourceError, files, load_source, tfns
from finr1.sources.files import NoProblem
from finr1.sources.finqa import page_of
from finr1.sources.golds import CONTRADICTORY as BOTH
from finr1.sources.golds import choose_golds, execute, parse_program, worked_reasoning
from finr1.sources.pages import Page, clean_text
from finr1.teacher import way_of

TABLE = [["", "2015", "2014"], ["net revenue", "$ 5829", "$ 5735"], ["other", "-14 ( 14 )", "8.5% ( 8.5 % )"]]
PRE = ["the company sells pipes .", ". . ."]
POST = ["its staff grew to 120 people ."]
PAGE = Page.of({"pre_text": PRE, "table": TABLE, "post_text": POST})


def finqa_record(identifier="AB/2015/page_1.pdf-1", page=(PRE, TABLE, POST), **qa) -> dict:
    """A record of FinQA's official schema; `qa` overrides parts of the question."""
    asked = {
        "question": "what was the growth rate of net revenue in 2015?",
        "answer": "1.64%",
        "exe_ans": 0.01639,
        "program": "subtract(5829, 5735), divide(#0, 5735)",
    }
    pre, table, post = page
    return {"id": identifier, "pre_text": pre, "table": table, "post_text": post, "qa": asked | qa}


def conversation(identifier="Single_AB/2015/page_1.pdf-1", **changes) -> dict:
    """A record of ConvFinQA's official schema, Type I, three turns."""
    qa = {"answer": "1.64%", "steps": [{"res": "94"}, {"res": "1.64%"}]}
    programs = ["5829", "subtract(5829, 5735)", "subtract(5829, 5735), divide(#0, 5735)"]
    note = {
        "dialogue_break": ["what was net revenue in 2015?", "how much did it change from 2014?", "and in percent?"],
        "turn_program": programs,
        "exe_ans_list": [5829.0, 94.0, 0.01639],
        "qa_split": [0, 0, 0],
        "answer_list": ["5829", "A0", "A1"],
    }
    record = {"id": identifier, "pre_text": PRE, "table": TABLE, "post_text": POST, "qa": qa, "annotation": note}
    record["annotation"] = note | changes
    return record


def write(folder: Path, name: str, records: list) -> None:
    """`records` as a JSON list, or one a line, gzipped where the name says so."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(records) if ".jsonl" not in name else "\n".join(json.dumps(record) for record in records)
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (folder / name).write_bytes(data)


def load(tmp_path: Path, source: str, **by_name: list) -> Loaded:
    """Load `source` from a folder of files given as `name__suffix=records`."""
    for name, records in by_name.items():
        write(tmp_path / source, name.replace("__", "."), records)
    return load_source(source, tmp_path)


def dropped(loaded: Loaded) -> dict[str, int]:
    return {reason: count for row in loaded.rows for reason, count in row["dropped"].items()}


def assert_accounted(loaded: Loaded) -> None:
    for row in loaded.rows:
        assert row["raw"] == row["kept"] + sum(row["dropped"].values()), row


# ---------------------------------------------------------------------------
# Pages


@pytest.mark.parametrize(
    ("text", "cleaned", "why"),
    [
        ("-8.7 ( 8.7 )", "-8.7", "a negative number stands twice"),
        ("$ -369 ( 369 )", "$ -369", "with a currency before it"),
        ("23.6% ( 23.6 % )", "23.6%", "a percentage stands twice"),
        ("rose 14% ( 14 % ) and fell -3% ( 3 % ) .", "rose 14% and fell -3% .", "in the middle of a sentence"),
        ("( 5.93% ( 5.93 % ) ) due 2022", "( 5.93% ) due 2022", "within brackets"),
        ("3.25%-3.65% ( 3.25%-3.65 % ) above libor", "3.25%-3.65% above libor", "a range of percentages"),
        ("( 2 ) % ( % )", "( 2 ) %", "a bare percent sign"),
        ("dividend declared ( 2 )", "dividend declared ( 2 )", "a footnote stays"),
        ("2 ( 2 )", "2 ( 2 )", "a footnote that happens to repeat a positive number stays"),
        ("-119 ( 19 )", "-119 ( 19 )", "another number stays"),
        ("visa 2019s  201cplan 201d", 'visa\'s "plan"', "code points that lost their backslash"),
        ("in 2013 2014 dash", "in 2013 2014 dash", "a dash or a year: left alone"),
    ],
)
def test_page_text_is_cleaned(text, cleaned, why):
    assert clean_text(text) == cleaned, why


def test_a_context_is_text_then_a_markdown_table_then_text():
    assert PAGE.context() == (
        "the company sells pipes .\n\n"
        "|  | 2015 | 2014 |\n| --- | --- | --- |\n| net revenue | $ 5829 | $ 5735 |\n| other | -14 | 8.5% |\n\n"
        "its staff grew to 120 people ."
    )


def test_ragged_rows_are_filled_and_pipes_in_cells_replaced():
    page = Page((), (("a", "b"), ("x|y",)), ())
    assert page.context().splitlines() == ["| a | b |", "| --- | --- |", "| x/y |  |"]


def test_a_flattened_page_gives_the_same_context():
    table = " | 2015 | 2014\nnet revenue | $ 5829 | $ 5735\nother | -14 ( 14 ) | 8.5%"
    flat = f"{PRE[0]}\n\n{table}\n\n{POST[0]}"
    assert Page.of(flat).context() == PAGE.context()


# ---------------------------------------------------------------------------
# Golds


def gold(gold: str, alternatives: list[str], kind: str, flaw: str = "") -> dict:
    return {"gold": gold, "alternatives": alternatives, "answer_kind": kind, "flaw": flaw}


@pytest.mark.parametrize(
    ("text", "executed", "question", "expected", "why"),
    [
        ("1.64%", 0.01639, "", gold("1.64%", ["0.01639"], "percent"), "the text has the sign"),
        ("94", 94.0, "", gold("94", [], "number"), "both the same"),
        ("38316\\n", 38316.32653, "", gold("38316", ["38316.32653"], "number"), "newline debris"),
        ("4.9\\", "4.85514", "", gold("4.9", ["4.85514"], "number"), "backslash debris"),
        (".3%", 0.00302, "", gold("0.3%", ["0.00302"], "percent"), "leading dot"),
        ("", "yes", "", gold("yes", [], "boolean"), "no text answer"),
        ("", 0.14136, "what percent is it?", gold("0.14136", [], "percent"), "without a text the question tells"),
        ("67.88", 0.67877, "what percent was kept?", gold("67.88", ["0.67877"], "percent"), "only the sign lacks"),
        ("67.88", 0.67877, "what was kept?", gold("0.67877", ["67.88"], "number", BOTH), "nobody asked for percent"),
        ("380", 3.8, "", gold("3.8", ["380"], "number", BOTH), "a factor of 100"),
        ("10%", -0.09709, "", gold("-0.09709", ["10%"], "percent", BOTH), "another sign"),
        ("yes", 471.0, "", gold("471", ["yes"], "number", BOTH), "yes and a number"),
        ("apple never booked it but 856 it is", 856.0, "", gold("856", [], "number"), "a sentence is a poor gold"),
    ],
)
def test_the_text_answer_is_the_gold_unless_it_is_unreadable_or_contradicted(text, executed, question, expected, why):
    chosen = {"flaw": ""} | choose_golds(text, executed, question)
    if not expected["alternatives"]:
        chosen["alternatives"] = []
    assert chosen == expected, why


@pytest.mark.parametrize(("text", "reason"), [("see the note", "unreadable gold"), (None, "no gold")])
def test_without_a_readable_gold_there_is_no_problem(text, reason):
    with pytest.raises(NoProblem, match=reason):
        choose_golds(text, None, "")


# ---------------------------------------------------------------------------
# Programs


@pytest.mark.parametrize(
    ("program", "result", "why"),
    [
        ("subtract(5829, 5735), divide(#0, 5735)", 94 / 5735, "a reference to an earlier step"),
        ("multiply(8.5%, const_100)", 8.5, "a percentage is a fraction; a constant"),
        ("add(-14, const_m1)", -15.0, "minus one"),
        ("exp(1.1, const_2)", 1.1**2, "a power"),
        ("greater(5829, 5735)", "yes", "a comparison"),
        ("table_average(net revenue, none)", 5782.0, "a row of the table"),
        ("table_max(net revenue, none), subtract(#0, 5735)", 94.0, "a row, then on"),
        ("table_sum(no such row, none)", None, "an unknown row"),
        ("divide(1, 0)", None, "division by zero"),
        ("exp(10, 400)", None, "overflow"),
        ("add(#3, 1)", None, "a step that does not exist"),
        ("frobnicate(1, 2)", None, "an unknown operation"),
        ("60.94", 60.94, "a look-up"),
        ("", None, "nothing"),
    ],
)
def test_programs_are_executed_as_the_source_defines_them(program, result, why):
    assert execute(program, PAGE.table) == (pytest.approx(result) if isinstance(result, float) else result), why


def test_a_row_name_with_brackets_and_commas_is_one_argument():
    assert parse_program("table_sum(costs ( net , 2009 ), none)") == [("table_sum", "costs ( net , 2009 )", "none")]


@pytest.mark.parametrize(
    ("program", "gold", "executed", "at_once", "by_parts"),
    [
        (
            "subtract(5829, 5735), divide(#0, 5735)", "1.64%", "0.01639",
            ["No single value on the page is the answer.", "It is (5829 - 5735) / 5735 = 1.6391%.",
             "So the answer is 1.64%."],
            ["The table gives 5829 for net revenue (2015).", "The table gives 5735 for net revenue (2014).",
             "The difference is 5829 - 5735 = 94.", "The quotient is 94 / 5735 = 0.016391.",
             "As a percentage that is 0.016391 * 100 = 1.6391.", "So the answer is 1.64%."],
        ),
        (
            "subtract(120, -14)", "134", "134.0",
            ["No single value on the page is the answer.", "It is 120 - (-14) = 134.", "So the answer is 134."],
            ['The text says "its staff grew to 120 people".', "The table gives -14 for other (2015).",
             "The difference is 120 - (-14) = 134.", "So the answer is 134."],
        ),
        (
            "greater(5735, 5829)", "no", "no",
            ["No single value on the page is the answer.", "5735 is not greater than 5829.",
             "The first value is not greater, so the answer is no."],
            ["The table gives 5735 for net revenue (2014).", "The table gives 5829 for net revenue (2015).",
             "5735 is not greater than 5829.", "The first value is not greater, so the answer is no."],
        ),
        (
            "table_average(net revenue, none)", "5782", "5782.0",
            ["No single value on the page is the answer.", "It is 5782.", "So the answer is 5782."],
            ['The row "net revenue" holds 5829, 5735.', "Adding up, 5829 + 5735 = 11564.",
             "The average is 11564 / 2 = 5782.", "So the answer is 5782."],
        ),
        (
            "table_max(net revenue, none), multiply(#0, const_2)", "11658", "11658.0",
            ["No single value on the page is the answer.", "It is 5829 * 2 = 11658.", "So the answer is 11658."],
            ['The row "net revenue" holds 5829, 5735.', "Its largest value is 5829.",
             "The product is 5829 * 2 = 11658.", "So the answer is 11658."],
        ),
        (
            "5829", "5829", "5829.0",
            ["The page states the value.", "It is 5829.", "So the answer is 5829."],
            ["The page states the value.", 'The row "net revenue" holds $ 5829 (2015), $ 5735 (2014).',
             "The table gives 5829 for net revenue (2015).", "It is 5829.", "So the answer is 5829."],
        ),
    ],
)  # fmt: skip
def test_a_program_is_told_in_true_steps_that_end_at_the_gold(program, gold, executed, at_once, by_parts):
    told = worked_reasoning(program, gold, executed, PAGE, "what is it?")
    assert [way.splitlines() for way in told] == [at_once, by_parts]


@pytest.mark.parametrize(
    ("program", "gold", "executed", "why"),
    [
        ("subtract(5829, 5735)", "95", "95.0", "our execution gives another result than the source's"),
        ("add(577.8, 540.2), add(#0, const_2), divide(#1, const_2)", "559", "560.0", "560 is not 559, 1 % or not"),
        ("add(const_3, const_2)", "5", "5.0", "two sentences are no reasoning"),
        ("what is this", "94", "94.0", "no program"),
        ("", "94", "94.0", "no program at all"),
        ("subtract(5829, 5735)", "94", "", "no executed answer to check ours against"),
    ],
)
def test_what_cannot_be_told_honestly_is_left_empty(program, gold, executed, why):
    assert worked_reasoning(program, gold, executed, PAGE, "what is it?") == ("", ""), why


def test_rounded_steps_do_not_carry_the_result_away():
    # 1.0000001 - 1 needs more digits than are printed at first.
    program = "divide(10000001, 10000000), subtract(#0, const_1), multiply(#1, const_1000000)"
    for told in worked_reasoning(program, "0.1", "0.1", PAGE, "how much?"):
        assert told.endswith("So the answer is 0.1.") and all(checked_steps(told).values())


# ---------------------------------------------------------------------------
# FinQA


def test_an_official_record_becomes_a_problem(tmp_path):
    (problem,) = load(tmp_path, "finqa", train__json=[finqa_record()]).problems
    assert problem.id == "finqa/AB/2015/page_1.pdf-1"
    assert (problem.split, problem.group, problem.capability) == ("train", "AB/2015/page_1.pdf", "calculation")
    assert (problem.gold, problem.alternatives, problem.answer_kind) == ("1.64%", ["0.01639"], "percent")
    assert (problem.family, problem.level) == ("divide", 2)
    assert problem.context == PAGE.context() and problem.reference.endswith("So the answer is 1.64%.")


@pytest.mark.parametrize("name", ["train__json", "train__jsonl", "train__json__gz", "train__jsonl__gz"])
def test_lists_and_lines_load_alike_gzipped_or_not(tmp_path, name):
    assert len(load(tmp_path, "finqa", **{name: [finqa_record()]}).problems) == 1


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("train__json", finqa_record(page=([], [], [])), "no context"),
        ("train__json", finqa_record(answer="", exe_ans=None), "no gold"),
        ("train__json", finqa_record(answer="see above", exe_ans=None), "unreadable gold"),
        ("train__json", finqa_record(question=" "), "no question"),
        ("part1__json", finqa_record(), "unknown split"),
        ("train__json", {"a": 1}, "unknown schema"),
        ("train__json", ["a"], "unknown schema"),
        ("test__json", {"id": "x", "generation": "<think>", "prediction": 1, "pre_text": []}, "unknown schema"),
        ("pairs__json", {"q_uid": "Z/1/page_1.pdf-1", "question": "?", "answer_1": "1", "answer_2": "1"}, "no context"),
        ("dev_prompts__json", {"text": "Question: q\n Output: add(1, 2)"}, "about other records"),
        ("ids__json", {"train": [], "dev": [], "test": []}, "about other records"),
    ],
)
def test_a_finqa_record_that_cannot_be_used_is_counted_under_its_reason(tmp_path, name, record, reason):
    loaded = load(tmp_path, "finqa", **{name: [record]})
    assert dropped(loaded) == {reason: 1}
    assert_accounted(loaded)


def test_of_two_copies_the_official_one_stays_even_when_it_is_flawed(tmp_path):
    flat = {"id": "AB/2015/page_1.pdf-1", "question": "?", "context": "a page", "gold_raw": "0.01639", "program": ""}
    loaded = load(tmp_path, "finqa", a_train__jsonl=[flat], b_train__json=[finqa_record(answer="12%")])
    (problem,) = loaded.problems
    assert problem.flaw == BOTH, "the copy without the text answer would hide the contradiction"
    assert (problem.gold, problem.alternatives) == ("0.01639", ["12%"])
    assert dropped(loaded) == {"other copy of a record": 1}


def test_a_broken_line_is_counted_and_the_rest_loads(tmp_path):
    folder = tmp_path / "finqa"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(finqa_record()) + '\n{"id": "cut', encoding="utf8")
    loaded = load_source("finqa", tmp_path)
    assert len(loaded.problems) == 1 and dropped(loaded) == {"broken record": 1}
    assert_accounted(loaded)


FLAT_PAGE = f"{PRE[0]}\n\n | 2015 | 2014\nnet revenue | $ 5829 | $ 5735\n\n{POST[0]}"
QUESTION, PROGRAM = finqa_record()["qa"]["question"], finqa_record()["qa"]["program"]
REUPLOADS = {
    "uda": {"q_uid": "AB/2015/page_1.pdf-1", "question": QUESTION, "program": PROGRAM,
            "answers": {"str_answer": "1.64%", "exe_answer": 0.01639},
            "context": {"pre_text": PRE, "table": TABLE, "post_text": POST}},
    "lists": {"id": "AB/2015/page_1.pdf-1", "question": QUESTION, "program": PROGRAM, "answer": 0.01639,
              "pre_text": PRE, "table": TABLE, "post_text": POST},
    "flat": {"id": "AB/2015/page_1.pdf-1", "question": QUESTION, "program": PROGRAM, "answer": "0.01639",
             "gold_raw": "0.01639", "context": FLAT_PAGE},
    "verl": {"prompt": [{"content": f"Context: {FLAT_PAGE}\nQuestion: {QUESTION}\n\nPlease answer.", "role": "user"}],
             "reward_model": {"ground_truth": "1.64"}, "extra_info": {"id": "AB/2015/page_1.pdf-1"}},
}  # fmt: skip
PAIR = {"q_uid": "AB/2015/page_1.pdf-1", "question": QUESTION, "answer_1": "1.64%", "answer_2": "0.01639"}
IDS = {"train": ["AB/2015/page_1.pdf-1"], "dev": [], "test": []}


@pytest.mark.parametrize("shape", REUPLOADS)
def test_a_reupload_joined_with_the_pairs_gives_what_the_official_record_gives(tmp_path, shape):
    prompt = {"text": f"Table: []\n    Question: {QUESTION}\n    \n\n    Output: {PROGRAM} </s>\n"}
    loaded = load(tmp_path, "finqa", pairs__jsonl=[PAIR], ids__json=[IDS], train_prompts__jsonl=[prompt],
                  copy__jsonl=[REUPLOADS[shape]])  # fmt: skip
    (problem,) = loaded.problems
    assert (problem.gold, problem.alternatives, problem.answer_kind) == ("1.64%", ["0.01639"], "percent")
    assert problem.split == "train" and problem.question == QUESTION
    assert "| net revenue | $ 5829 | $ 5735 |" in problem.context and "Please" not in problem.context
    assert problem.reference.endswith("So the answer is 1.64%.")


def test_without_the_pairs_a_lossy_gold_is_not_used_but_the_program_executed(tmp_path):
    prompt = {"text": f"Question: {QUESTION}\n\n Output: {PROGRAM} </s>"}
    loaded = load(tmp_path, "finqa", ids__json=[IDS], train_prompts__jsonl=[prompt], copy__jsonl=[REUPLOADS["verl"]])
    assert [problem.gold for problem in loaded.problems] == ["0.01639"]


def test_a_pair_gets_the_page_of_another_question_on_it(tmp_path):
    pair = {"q_uid": "AB/2015/page_1.pdf-2", "question": "how many people?", "answer_1": "120", "answer_2": "120.0"}
    loaded = load(tmp_path, "finqa", pairs__jsonl=[pair], train__json=[finqa_record()])
    assert [problem.gold for problem in loaded.problems] == ["1.64%", "120"]
    assert loaded.problems[1].context == PAGE.context() and loaded.problems[1].reference == ""


def test_golds_are_joined_only_under_the_same_question(tmp_path):
    other = PAIR | {"question": "another question", "answer_1": "7", "answer_2": "7"}
    loaded = load(tmp_path, "finqa", pairs__jsonl=[other], train__jsonl=[REUPLOADS["flat"]])
    assert [problem.gold for problem in loaded.problems] == ["0.01639"]


# ---------------------------------------------------------------------------
# ConvFinQA


def test_every_turn_is_a_problem_with_the_earlier_turns_as_a_real_chat(tmp_path):
    problems = load(tmp_path, "convfinqa", train__json=[conversation()]).problems
    assert [problem.gold for problem in problems] == ["5829", "94", "1.64%"]
    last = problems[2]
    assert last.id == "convfinqa/Single_AB/2015/page_1.pdf-1_2" and last.group == "AB/2015/page_1.pdf"
    assert [(turn.question, turn.answer) for turn in last.history][1] == ("how much did it change from 2014?", "94")
    assert [message["role"] for message in messages(last)] == ["system", *["user", "assistant"] * 2, "user"]
    assert [problem.level for problem in problems] == [1, 2, 3]
    assert all(problem.reference for problem in problems)


def test_type_two_conversations_take_each_half_from_its_own_question(tmp_path):
    record = conversation("Double_AB/2015/page_1.pdf", qa_split=[0, 1, 1], answer_list=["5829", "#1", "#2"])
    del record["qa"]
    record["qa_0"] = {"answer": "5829", "steps": [{"res": "5829"}]}
    record["qa_1"] = {"answer": "1.64%", "steps": [{"res": "94"}, {"res": "1.6%"}]}
    assert [p.gold for p in load(tmp_path, "convfinqa", dev__json=[record]).problems] == ["5829", "94", "1.64%"]


def test_step_results_are_not_used_where_turns_were_merged(tmp_path):
    record = conversation(answer_list=["5829", "#0", "7", "#1"])
    problems = load(tmp_path, "convfinqa", dev__json=[record]).problems
    assert [problem.gold for problem in problems] == ["5829", "94", "1.64%"], "the second from exe_ans_list"


@pytest.mark.parametrize("identifier", ["V/2008/p_1.pdf-1", "Single_V/2008/p_1.pdf-1", "Double_V/2008/p_1.pdf"])
def test_both_sources_name_a_page_alike(identifier):
    assert page_of(identifier) == "V/2008/p_1.pdf"


def turn_record(number: int) -> dict:
    """The official one-record-a-turn schema."""
    whole = conversation()
    note = whole["annotation"]
    whole["id"] += f"_{number}"
    whole["annotation"] = {
        "cur_dial": note["dialogue_break"][: number + 1],
        "cur_program": note["turn_program"][number],
        "exe_ans": note["exe_ans_list"][number],
        "turn_ind": number,
    }
    return whole


def test_official_turn_files_give_the_same_ids_and_histories(tmp_path):
    turns = load(tmp_path / "a", "convfinqa", train_turn__json=[turn_record(n) for n in range(3)]).problems
    whole = load(tmp_path / "b", "convfinqa", train__json=[conversation()]).problems
    assert [p.id for p in turns] == [p.id for p in whole]
    assert [t.question for t in turns[2].history] == [t.question for t in whole[2].history]


LISTS = {
    "id": "Single_AB/2015/page_1.pdf-1",
    "financial_report": {"pre_text": PRE, "table": TABLE, "post_text": POST},
    "conversation": [
        {"question": "what was net revenue in 2015?", "expected_program": "5829", "expected_answer": 5829.0,
         "predicted_program": "1", "predicted_answer": 1.0},
    ],
}  # fmt: skip
DERIVED = {
    "id": "Single_AB/2015/page_1.pdf-1_0", "turn_ind": 0, "cur_dial": ["what was net revenue in 2015?"],
    "cur_program": "5829", "exe_ans": 5829.0, "answer": "5829", "text": PRE[0],
    "table": "- | 2015 | 2014\nnet revenue | $ 5829 | $ 5735\n",
}  # fmt: skip


@pytest.mark.parametrize("record", [LISTS, DERIVED], ids=["lists", "derived turn"])
def test_convfinqa_reuploads_give_the_same_turn(tmp_path, record):
    (problem,) = load(tmp_path, "convfinqa", train__jsonl__gz=[record]).problems
    assert (problem.id, problem.gold) == ("convfinqa/Single_AB/2015/page_1.pdf-1_0", "5829")
    assert "|  | 2015 | 2014 |\n| --- | --- | --- |\n| net revenue | $ 5829 | $ 5735 |" in problem.context


@pytest.mark.parametrize(
    ("name", "records", "reasons"),
    [
        ("train__json", [conversation() | {"pre_text": [], "table": [], "post_text": []}], {"no context": 1}),
        ("test_private__json", [conversation(turn_program=None, exe_ans_list=None) | {"qa": {}}], {"no gold": 1}),
        ("part__json", [conversation()], {"unknown split": 1}),
        ("train__json", [conversation(dialogue_break=["a?", "", "c?"])], {}),
        ("train_turn__json", [turn_record(0), turn_record(2)], {"no gold in an earlier turn": 1}),
        ("dev__jsonl", [{"id": "x", "questions": ["a?", "b?"], "answer": 1}], {"unknown schema": 1}),
        ("train__json", [conversation(), conversation()], {"duplicate id": 1}),
        ("train__json", [{"id": "x", "table": [], "annotation": {}}], {"missing column pre_text": 1}),
        ("train_turn__json", [turn_record(0) | {"annotation": {"cur_dial": []}}], {"missing column turn_ind": 1}),
        ("train__json", [{"doc": {}, "dialogue": {"conv_questions": ["a?", "b?"]}, "id": "x"}], {"unknown schema": 1}),
        ("train__json", [{"question_id": "x_q0", "conv_questions": "a?"}], {"unknown schema": 1}),
        ("train__json", [{"question": "a?", "answer": "1"}], {"unknown schema": 1}),
        ("train__json", [{"a": 1}, "text"], {"unknown schema": 2}),
    ],
)  # fmt: skip
def test_a_turn_that_cannot_be_used_is_counted_under_its_reason(tmp_path, name, records, reasons):
    loaded = load(tmp_path, "convfinqa", **{name: records})
    assert dropped(loaded) == reasons
    assert_accounted(loaded)


def test_after_a_contradiction_the_history_goes_on_from_the_executed_answer(tmp_path):
    problems = load(tmp_path, "convfinqa", train__json=[conversation(exe_ans_list=[5829.0, 95.5, 0.01639])]).problems
    assert [turn.answer for turn in problems[-1].history] == ["5829", "95.5"]


def test_the_official_archive_is_read_as_it_is(tmp_path):
    (tmp_path / "convfinqa").mkdir()
    with zipfile.ZipFile(tmp_path / "convfinqa" / "data.zip", "w") as archive:
        archive.writestr("data/dev.json", json.dumps([conversation()]))
        archive.writestr("__MACOSX/data/._dev.json", b"\x00\x05")
    loaded = load_source("convfinqa", tmp_path)
    assert [row["file"] for row in loaded.rows] == ["data.zip/data/dev.json"]
    assert {problem.split for problem in loaded.problems} == {"dev"}


# ---------------------------------------------------------------------------
# TFNS


def tweets(tmp_path: Path, train: str, valid: str = "text,label\nOpening today,2\n") -> Loaded:
    (tmp_path / "tfns").mkdir(parents=True)
    (tmp_path / "tfns" / "sent_train.csv").write_text(train, encoding="utf-8-sig")
    (tmp_path / "tfns" / "sent_valid.csv").write_text(valid, encoding="utf8")
    return load_source("tfns", tmp_path)


def test_tweets_load_from_csv_with_a_byte_order_mark(tmp_path):
    loaded = tweets(tmp_path, 'text,label\n"$ALLY - Ally pulls outlook, again https://t.co/x",0\n')
    problem = next(p for p in loaded.problems if p.split != "test")
    assert problem.context == "$ALLY - Ally pulls outlook, again https://t.co/x"
    assert (problem.gold, problem.answer_kind, problem.labels) == ("bearish", "label", tfns.LABELS)
    assert grading.grade("Bearish", problem.gold, "label", labels=problem.labels) is True


def test_tweets_that_differ_in_their_link_are_one_and_test_wins(tmp_path):
    train = "text,label\nShares up https://t.co/a,1\nSHARES up https://t.co/b,1\nopening  today,2\n"
    loaded = tweets(tmp_path, train, "text,label\nOpening today https://t.co/c,2\n")
    assert sorted(problem.context for problem in loaded.problems if problem.split == "test") == [
        "Opening today https://t.co/c"
    ]
    assert dropped(loaded) == {"other copy of a record": 2}
    assert_accounted(loaded)


def test_tweets_that_cannot_be_used_are_counted(tmp_path):
    write(tmp_path / "tfns", "test.jsonl.gz", [{"context": "Input: up", "target": "positive"}, {"x": 1}])
    write(tmp_path / "tfns", "valid.jsonl", [{"text": "https://t.co/a", "label": 1}, {"text": "up", "label": "7"}])
    write(tmp_path / "tfns", "part.jsonl", [{"text": "up", "label": 1}])
    loaded = load_source("tfns", tmp_path)
    assert dropped(loaded) == {
        "missing column text": 2,
        "no text but a link": 1,
        "unreadable gold": 1,
        "unknown split": 1,
    }


def test_dev_is_the_same_tenth_of_train_in_any_order(tmp_path):
    lines = [f"tweet number {n},2" for n in range(500)]
    first = tweets(tmp_path / "a", "\n".join(["text,label", *lines]))
    second = tweets(tmp_path / "b", "\n".join(["text,label", *lines[::-1]]))
    dev = [{p.id for p in loaded.problems if p.split == "dev"} for loaded in (first, second)]
    assert dev[0] == dev[1] and 30 < len(dev[0]) < 70


def taught(tmp_path: Path, *test: str) -> list[Problem]:
    """Test tweets ("text,label"), read by made-up training tweets in which a verb and an adjective tell."""
    told = [("cut", "weak", 0), ("raised", "strong", 1), ("hosts", "usual", 2)]
    names = ("Acme", "Nordwind", "Harbor", "Granite")
    train = [f"{name} {verb} while {bank} sees {view} days,{label}" for name in names
             for bank in ("Citi", "UBS", "Baader") for verb, view, label in told]  # fmt: skip
    loaded = tweets(tmp_path, "\n".join(["text,label", *train]), "\n".join(["text,label", *test]))
    return [problem for problem in loaded.problems if problem.split == "test"]


def test_a_tweet_is_read_by_the_words_that_told_most_in_training(tmp_path):
    [problem] = taught(tmp_path, "Forge Cut but sees WEAK rivals,0")
    assert problem.reference.splitlines()[1:] == ["It sounds bearish.", "So the sentiment is bearish."]
    first, second, *_, makes, last = problem.reference_by_parts.splitlines()
    assert {first, second} == {'"Cut" sounds bearish.', '"sees WEAK" sounds bearish.'}
    assert makes.startswith("That makes 2 bearish") and last == "So the sentiment is bearish."


def test_a_tweet_whose_words_tell_for_another_label_has_no_rationale(tmp_path):
    problems = taught(tmp_path, "Forge cut but sees weak rivals,1", "Nothing known here,2")
    assert [(p.reference, p.reference_by_parts) for p in problems] == [("", "")] * 2


def test_the_words_that_tell_are_learned_from_the_train_split_alone(tmp_path):
    """Test tweets that say the opposite change no reading."""
    tweet, opposite = "Forge cut but sees weak rivals,0", [f"Firm{n} cut but sees weak rivals,1" for n in range(50)]
    alone, among = taught(tmp_path / "a", tweet), taught(tmp_path / "b", tweet, *opposite)
    assert alone[0].reference_by_parts == among[0].reference_by_parts != ""


# ---------------------------------------------------------------------------
# Retrieval


CONTEXTS = cell_of("01_data", "retrieved_context")


def long_problem(**changes) -> Problem:
    filler = [f"paragraph {n} is about something else entirely ." for n in range(60)]
    post = ["net revenue rose because of pipes .", *filler]
    page = Page.of({"pre_text": filler, "table": TABLE, "post_text": post})
    fields = dict(
        id="x/1", source="finqa", module="m", language="en", capability="calculation", answer_kind="number",
        context=page.context(), question="what was net revenue in 2015?", gold="5829", split="dev", group="g",
    )  # fmt: skip
    return Problem(**fields | changes)


def test_retrieval_keeps_header_and_related_lines_in_page_order():
    lines = CONTEXTS.retrieved_context(long_problem(), 200).splitlines()
    assert lines[0] == "|  | 2015 | 2014 |"
    assert "| net revenue | $ 5829 | $ 5735 |" in lines and lines[-1] == "net revenue rose because of pipes ."
    assert not any("something else" in line for line in lines)


def test_retrieval_never_looks_at_the_gold():
    problem = long_problem()
    changed = long_problem(gold="8.5%", alternatives=["other"], reference="other other other")
    assert CONTEXTS.retrieved_context(problem, 200) == CONTEXTS.retrieved_context(changed, 200)


@pytest.mark.parametrize("room", [0, 10, 60, 200, 1000])
def test_retrieval_stays_within_its_room(room):
    assert len(CONTEXTS.retrieved_context(long_problem(), room)) <= room


def test_a_context_that_fits_is_returned_unchanged():
    problem = long_problem()
    assert CONTEXTS.retrieved_context(problem, len(problem.context)) == problem.context


# ---------------------------------------------------------------------------
# Folders, damaged files, the public homes


def test_a_missing_folder_says_where_the_files_come_from(tmp_path):
    with pytest.raises(SourceError, match=r"finqa: there is no folder .*finqa.*github.com/czyssrs/FinQA"):
        load_source("finqa", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 50)[:-20], "cut short"),
        ("train.jsonl.gz", b"no gzip", "damaged"),
        ("train.json", b'[{"id": 1},', "not what its name says"),
        ("train.csv", "text,label\nM\xfcll,1".encode("latin-1"), "not what its name says"),
        ("data.zip", b"PK no archive", "damaged"),
        ("train.json", b"", "empty"),
        ("train.jsonl.gz", gzip.compress(b" \n"), "empty"),
        ("train.json", b"[" * 100_000, "not what its name says"),
        ("train.json", b"[" + b"9" * 5000 + b"]", "not what its name says"),
        ("train.csv", b'text,label\nfine,0\n"Apple up,1\nthird,2\n', "not what its name says"),
        ("TRAIN.JSONL.GZ", b"no gzip", "damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (tmp_path / "finqa").mkdir()
    (tmp_path / "finqa" / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{re.escape(name)}.*{message}"):
        load_source("finqa", tmp_path)


def test_a_folder_without_a_readable_file_is_no_empty_source(tmp_path):
    (tmp_path / "finqa").mkdir()
    with pytest.raises(SourceError, match=r"finqa holds no file that ends in one of \.json, "):
        load_source("finqa", tmp_path)
    (tmp_path / "finqa" / "train.xlsx").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"train\.xlsx: unreadable file, .*: convert it to one of \.json, "):
        load_source("finqa", tmp_path)


def test_an_unknown_source_is_a_key_error(tmp_path):
    with pytest.raises(KeyError):
        load_source("nosuch", tmp_path)


def test_a_download_is_kept_and_read_from_the_cache_the_next_time(tmp_path):
    write(tmp_path, "home.json", [finqa_record()])
    urls = {"train.json": (tmp_path / "home.json").as_uri()}
    assert files.download(urls, tmp_path / "cache") == {"train.json": [finqa_record()]}
    (tmp_path / "home.json").unlink()
    assert files.download(urls, tmp_path / "cache") == {"train.json": [finqa_record()]}


@pytest.mark.parametrize("name", ["finqa", "convfinqa"])
def test_an_unreachable_home_says_what_to_download_to_where(tmp_path, monkeypatch, name):
    def offline(url, timeout):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(files.urllib.request, "urlopen", offline)
    with pytest.raises(SourceError, match=rf"czyssrs.*no network.*by hand to {tmp_path}"):
        load_source(name, cache_dir=tmp_path)


def test_an_unreachable_hub_says_what_to_download(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def offline(*args, **kwargs):
        raise ConnectionError("no hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(SourceError, match="zeroshot/twitter-financial-news-sentiment.*no hub.*folder"):
        load_source("tfns", cache_dir=tmp_path)


def test_the_hub_s_two_splits_become_train_dev_and_test(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    train = [{"text": f"tweet {n}", "label": 2} for n in range(100)]
    splits = {"train": train, "validation": [{"text": "up", "label": 1}]}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: splits)
    loaded = load_source("tfns", cache_dir=tmp_path)
    assert {problem.split for problem in loaded.problems} == {"train", "dev", "test"}
    assert [problem.gold for problem in loaded.problems if problem.split == "test"] == ["bullish"]


def test_the_sources_command_prints_a_row_a_file_and_names_a_damaged_one(tmp_path, capsys):
    write(tmp_path / "tfns", "train.jsonl", [{"text": "up", "label": 1}, {"text": "up", "label": 1}])
    (tmp_path / "misspelt").mkdir()
    assert main(["sources", "--data", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == ["tfns", "2", "1", "train.jsonl", '{"duplicate', 'id":', "1}"]
    assert "misspelt" in err
    (tmp_path / "tfns" / "test.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "label": 1}\n' * 99)[:-9])
    assert main(["sources", "--data", str(tmp_path)]) == 1
    assert "tfns: test.jsonl.gz: unreadable file, damaged" in capsys.readouterr().err
    assert main(["sources", "--data", str(tmp_path / "nowhere")]) == 1


def test_an_eleventh_source_is_one_function_and_one_entry(tmp_path, monkeypatch):
    def read(record: dict, file: str) -> Problem | str:
        return long_problem(id=f"mine/{record['n']}", source="mine") if record["n"] else "no number"

    names = dict(
        run="demo", seed=1, source_names=["mine"], benchmark_names=["mine", "synthetic"], data_dir=str(tmp_path)
    )
    sizes = dict(num_train=1, num_dev=1, num_test=1, code_problems=0, dirt_share=0.0, engine="local")
    rules = dict(track="clean", sampling="balanced", decontaminate_ngram=13, max_context_chars=None)
    with pytest.raises(ValueError, match="source_names = .*mine should be one of synthetic, fincorpus"):
        DataParams(**names, **sizes, **rules)
    mine = Source("mine", "m", "en", paper_raw=4, paper_kept=1, licence="MIT", home="my desk", read=read)
    monkeypatch.setitem(SOURCES, "mine", mine)
    params = DataParams.from_notebook(names | sizes | rules)
    assert params.source_names == ["mine"]
    write(tmp_path / "mine", "records.jsonl", [{"n": 1}, {"n": 0}, {"n": 1}, {"n": 2}])
    loaded = load_source("mine", Path(params.data_dir), tmp_path / "cache")
    assert [problem.id for problem in loaded.problems] == ["mine/1", "mine/2"]
    assert dropped(loaded) == {"no number": 1, "duplicate id": 1}
    with pytest.raises(SourceError, match="mine: it cannot be downloaded; .* come from my desk"):
        load_source("mine", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("source", "name", "records", "reason"),
    [
        ("tfns", "train.jsonl", [{"text": "up", "label": "7"}], "unreadable gold"),
        ("tfns", "train.jsonl", [{"text": "up"}], "missing column label"),
        ("tfns", "train.jsonl", [{"text": "up \0 down", "label": 1}], "NUL bytes"),
        ("tfns", "train.jsonl", [{"text": "up " * 400_000, "label": 1}], "too long"),
        ("tfns", "train.jsonl", [{"text": 5, "label": 1}], "malformed record"),
        ("finqa", "train.json", [finqa_record() | {"qa": None}], "malformed record"),
        ("finqa", "train.json", [finqa_record() | {"table": 7}], "malformed record"),
        ("finqa", "train.json", [finqa_record() | {"id": 5}], "malformed record"),
        ("finqa", "train.json", [{"train": [finqa_record()], "dev": [], "test": []}], "about other records"),
        ("finqa", "train.json", [{"train": 5, "dev": [], "test": []}], "unknown schema"),
        ("finqa", "dev.json", [{"id": 5, "question": "?", "context": "", "gold_raw": 1}], "malformed record"),
        ("convfinqa", "train.json", [{"id": "x", "table": [], "annotation": 5}], "missing column pre_text"),
        ("convfinqa", "train_turn.json", [conversation(cur_dial=["q"], turn_ind=1e999)], "malformed record"),
        ("tfns", "train.jsonl", ["hello world"], "malformed record"),
        ("financeiq", "test/a.jsonl", [{"Question": "q", "A": "x", "B": "y", "Answer": "Z"}], "unreadable gold"),
        ("financeiq", "test/a.jsonl", [{"Question": "q", "A": "x", "B": "y"}], "missing column Answer"),
        ("financeiq", "test/a.jsonl", [{"Question": "q", "Answer": "A"}], "no options"),
        ("fin_eva", "ant/安全合规/金融合规性.jsonl", [{"question": "q", "answer": ""}], "no gold"),
        ("fin_eva", "sufe/val/tax_law.jsonl", [{"question": "q", "answer": "A"}], "FinEval, the other part of Fin-Eva"),
        ("fincuge", "finfe_eval.jsonl", [["text", 9]], "unreadable gold"),
        ("fincuge", "finfe_eval.jsonl", [["text"]], "malformed record"),
        ("fincuge", "finese_eval.jsonl", [["1", "text", "其他", "NaN"]], "no gold"),
        ("fincuge", "finne_eval.jsonl", [["text", "1.0"]], "values without a published meaning"),
        ("finance_instruct_500k", "a.jsonl", [{"system": "", "user": "q", "assistant": ""}], "no gold"),
        ("finance_instruct_500k", "a.jsonl", [{"system": "", "assistant": "a"}], "missing column user"),
        ("fincorpus", "news.jsonl", [{"text": "Shares rose."}], "plain text, no question"),
        ("fincorpus", "exam.jsonl", [{"text": "问？\nA、\nB、对\nC、错\n答案：A"}], "no options"),
        ("finpee", "a.jsonl", [{"question": None, "answer": 5}], "no question"),
        ("finpee", "a.jsonl", [{"question": "q", "answer": "[" * 100_000}], "unreadable gold"),
        ("fincuge", "x_train.jsonl", [["text", "gold"]], "unknown task"),
        ("finpee", "a.jsonl", [{"question": "q", "answer": "about ten"}], "unreadable gold"),
        ("financeqt", "a.jsonl", [{"context": "", "question": "q"}], "missing column answer"),
    ],
)
def test_a_bad_record_is_counted_and_never_a_stack_trace(tmp_path, source, name, records, reason):
    write((tmp_path / source / name).parent, Path(name).name, records)
    name_of = "ant_finance" if source == "fin_eva" else source
    loaded = load_source(name_of, tmp_path)
    assert dropped(loaded) == {reason: 1}
    assert_accounted(loaded)


@pytest.mark.parametrize(
    ("source", "name", "record", "expected"),
    [
        (
            "ant_finance", "fin_eva/ant/安全合规/金融合规性.jsonl", {"id": "0", "question": "可以吗", "answer": "否"},
            {"gold": "否", "answer_kind": "boolean", "capability": "compliance"},
        ),
        (
            "ant_finance", "fin_eva/ant/金融认知/金融情绪识别.jsonl",
            {"id": "0", "question": "涨了", "A": "中性", "B": "积极", "C": "消极", "answer": "B"},
            {"gold": "B", "choices": {"A": "中性", "B": "积极", "C": "消极"}, "capability": "sentiment"},
        ),
        (
            "financeiq", "financeiq/test/税务师.jsonl",
            {"": "3", "Question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "D "},
            {"gold": "D", "split": "train", "family": "税务师"},
        ),
        (
            "fincorpus", "fincorpus/fin_exam.jsonl",
            {"text": "问题？\nA、甲\nB、乙\nC、丙\nD、丁\n答案：[\"A\",\"C\"]\n分析解释：因为。"},
            {"gold": "AC", "reference": "因为。", "choices": {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}},
        ),
        (
            "fincuge", "fincuge/finfe_eval.jsonl", ["试仓500股", 2],
            {"gold": "积极", "answer_kind": "label", "split": "test"},
        ),
        ("fincuge", "fincuge/finre_train.jsonl", ["甲", "乙", "收购", "甲收购乙"], {"gold": "收购", "split": "train"}),
        (
            "fincuge", "fincuge/finqa_eval.jsonl", ["主体是什么？全文在此。", "甲公司"],
            {"question": "主体是什么？", "context": "全文在此。", "gold": "甲公司"},
        ),
        (
            "finance_instruct_500k", "finance_instruct_500k/train.jsonl",
            {"system": "Be short.", "user": "What is 2+2?", "assistant": "4"},
            {"context": "Be short.", "gold": "4", "answer_kind": "number"},
        ),
        (
            "finance_instruct_500k", "finance_instruct_500k/train.jsonl",
            {"prompt": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"},
                        {"role": "user", "content": "c?"}], "completion": [{"role": "assistant", "content": "d"}]},
            {"question": "c?", "gold": "d", "history": [Turn(question="a?", answer="b")]},
        ),
        (
            "financeqt", "financeqt/a.jsonl", {"context": "c", "question": "q", "answer": "x = 1"},
            {"capability": "code", "module": "code"},
        ),
        (
            "finpee", "finpee/mine.jsonl", {"question": "q", "answer": "12.5%", "kind": "percent", "split": "dev"},
            {"gold": "12.5%", "answer_kind": "percent", "split": "dev"},
        ),
    ],
)  # fmt: skip
def test_a_record_of_each_other_source_becomes_its_problem(tmp_path, source, name, record, expected):
    write((tmp_path / name).parent, Path(name).name, [record])
    (problem,) = load_source(source, tmp_path).problems
    assert {field: getattr(problem, field) for field in expected} == expected
    assert problem.source == source and problem.module == SOURCES[source].module


def instructions_of(count: int) -> list[dict]:
    return [{"system": "", "user": f"Question {n}?", "assistant": "An answer."} for n in range(count)]


@pytest.mark.parametrize(
    ("layout", "shares"),
    [
        ({"train": 400}, {"train": 0.9, "test": 0.1}),  # what the hub calls all of a data set without splits
        ({"train-1": 200, "train-2": 200}, {"train": 0.9, "test": 0.1}),
        ({"finance": 400}, {"train": 0.9, "test": 0.1}),
        ({"train": 300, "test": 100}, {"train": 0.75, "test": 0.25}),
        ({"train": 300, "valid": 100}, {"train": 0.75, "dev": 0.25}),
        ({"test": 400}, {"test": 1.0}),
    ],
)
def test_a_tenth_of_finance_instruct_is_tested_unless_its_files_have_splits(tmp_path, layout, shares):
    records = iter(instructions_of(400))
    for name, count in layout.items():
        write(tmp_path / "finance_instruct_500k", f"{name}.jsonl", [next(records) for _ in range(count)])
    splits = [p.split for p in load_source("finance_instruct_500k", tmp_path).problems]
    found = {split: splits.count(split) / 400 for split in set(splits)}
    assert found == pytest.approx(shares, abs=0.03) and len(splits) == 400


def test_the_hubs_finance_instruct_has_test_items(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: {"train": instructions_of(300)})
    loaded = load_source("finance_instruct_500k", cache_dir=tmp_path)
    assert 15 < sum(p.split == "test" for p in loaded.problems) < 50
    assert loaded.rows[0]["file"] == "train" and loaded.rows[0]["kept"] == 300


def test_csv_with_byte_order_mark_crlf_unnamed_column_and_a_torn_row(tmp_path):
    folder = tmp_path / "financeiq" / "test"
    folder.mkdir(parents=True)
    text = ",Question,A,B,C,D,Answer\r\n0,q?,1,2,3,4,A\r\n1,r?,1,2,3,4,B,stray\r\n"
    (folder / "x.csv").write_bytes("\ufeff".encode() + text.encode())
    loaded = load_source("financeiq", tmp_path)
    assert [p.gold for p in loaded.problems] == ["A"]
    assert dropped(loaded) == {"broken record": 1}


def test_a_bad_member_of_an_archive_is_named(tmp_path):
    (tmp_path / "financeiq").mkdir()
    with zipfile.ZipFile(tmp_path / "financeiq" / "all.zip", "w") as archive:
        archive.writestr("FinanceIQ/test/good.csv", "Question,A,B,Answer\nq?,1,2,A\n")
        archive.writestr("FinanceIQ/other/empty.json", "")
    good, bad = load_source("financeiq", tmp_path).rows
    assert good["file"] == "all.zip/FinanceIQ/test/good.csv" and good["kept"] == 1
    [reason] = bad["dropped"]
    assert bad["file"] == "all.zip/FinanceIQ/other/empty.json" and reason.endswith("the file is empty")


def test_a_link_that_points_nowhere_is_no_silent_loss(tmp_path):
    write(tmp_path / "tfns", "train.jsonl", [{"text": "up", "label": 1}])
    (tmp_path / "tfns" / "test.jsonl").symlink_to(tmp_path / "annexed")
    rows = {row["file"]: row["dropped"] for row in load_source("tfns", tmp_path).rows}
    assert not rows["train.jsonl"] and "No such file" in str(rows["test.jsonl"])


def test_an_unusable_copy_does_not_hide_a_good_one(tmp_path):
    loaded = load(
        tmp_path, "finqa", a_dev__json=[finqa_record(answer="", exe_ans=None)], b_train__json=[finqa_record()]
    )
    assert [p.gold for p in loaded.problems] == ["1.64%"] and dropped(loaded) == {"no gold": 1}


def test_a_question_with_several_answers_is_one_problem(tmp_path):
    write(tmp_path / "fincuge", "finre_eval.jsonl", [["甲", "乙", "合作", "文"], ["甲", "乙", "竞争", "文"]])
    write(tmp_path / "fincuge", "finfe_train.jsonl", [["好", 2], ["好", 0], ["文", 1]])
    loaded = load_source("fincuge", tmp_path)
    relation = next(p for p in loaded.problems if p.family == "finre")
    assert (relation.gold, relation.alternatives, relation.flaw) == ("合作", ["竞争"], "")
    assert [p.flaw for p in loaded.problems if p.family == "finfe"] == [BOTH]
    assert dropped(loaded) == {"a further answer to a question": 1, "text of the test split": 1}
    assert_accounted(loaded)


# ---------------------------------------------------------------------------
# The real files

RECORDS = {  # as the files' own documentation counts them
    "tfns": {"sent_train.jsonl.gz": 9543, "sent_valid.jsonl.gz": 2388, "finlora_tfns_test.jsonl.gz": 2388},
    "finqa": {"original_train_100.jsonl.gz": 100, "original_dev_457.jsonl.gz": 457, "original_test_583.jsonl.gz": 583,
              "dev_838_flat.jsonl.gz": 838, "test_full_verl_1147.jsonl.gz": 1147, "qa_pairs_all_8190.jsonl.gz": 6143},
    "convfinqa": {"dev_original_schema_293.jsonl.gz": 293, "dev_turns_derived.jsonl.gz": 1490,
                  "train_original_schema_50.jsonl.gz": 50, "train_first100_with_docs.jsonl.gz": 100},
}  # fmt: skip


# Answers of a model, tables with wrong signs, questions without a page: re-uploads that no problem is made of.
OF_NO_USE = {"finr1_model_outputs_100", "dev_dialogues_421", "dev_pot_421", "train_subset_200_tomoro",
             "train_qa_pairs_3965_noctx", "train_turns_3461_noctx"}  # fmt: skip


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, Loaded]:
    there = [name for name, source in SOURCES.items() if (real_data / (source.folder or name)).is_dir()]
    return {name: load_source(name, real_data) for name in there}


def test_every_real_record_is_kept_or_counted(real):
    for name, loaded in real.items():
        assert_accounted(loaded)
        records = {row["file"]: row["raw"] for row in loaded.rows}
        assert RECORDS.get(name, {}).items() <= records.items()
        refused = {row["file"].partition(".")[0] for row in loaded.rows if "unknown schema" in row["dropped"]}
        assert refused <= OF_NO_USE
        assert len({problem.id for problem in loaded.problems}) == len(loaded.problems)


def test_enough_real_problems_are_kept_in_every_split(real):
    least = {("tfns", "train"): 8000, ("tfns", "test"): 2300, ("finqa", "train"): 1500, ("finqa", "dev"): 750,
             ("finqa", "test"): 1000, ("convfinqa", "train"): 500, ("convfinqa", "dev"): 1400}  # fmt: skip
    for (name, split), count in least.items():
        assert sum(problem.split == split for problem in real[name].problems) >= count, (name, split)


def test_no_real_page_crosses_splits_even_between_sources(real):
    splits: dict[str, set[str]] = {}
    for problem in (problem for loaded in real.values() for problem in loaded.problems):
        splits.setdefault(problem.group, set()).add(problem.split)
    assert not [group for group, found in splits.items() if len(found) > 1]


def test_every_real_gold_can_be_graded_and_its_alternatives_agree(real):
    for problem in (problem for loaded in real.values() for problem in loaded.problems):
        golds = [problem.gold, *problem.alternatives]
        verdicts = [grading.grade(g, problem.gold, problem.answer_kind, alternatives=problem.alternatives,
                                  choices=problem.choices, labels=problem.labels) for g in golds]  # fmt: skip
        assert problem.flaw or verdicts == [True] * len(golds), problem.id


def test_both_ways_of_every_real_problem_are_true_right_and_told_apart(real):
    lost = 0
    for problem in (problem for loaded in real.values() for problem in loaded.problems if problem.reference):
        for way, told in (("at_once", problem.reference), ("by_parts", problem.reference_by_parts)):
            if not problem.reference_by_parts:
                way, told = None, problem.reference
            text = render_completion(told, problem.gold)
            stated = re.search(r"(?:answer|sentiment) is (.+)\.$", told.splitlines()[-1])[1]
            fields = {"teacher": "derived", "completion": text, "reasoning": told, "answer": stated}
            trace = Trace(id=f"{problem.id}#0", problem=problem, **fields)
            assert check_answer(trace) is True, problem.id
            assert way_of(problem, text) == way, problem.id
            reasons = score_reasoning(trace).reasons
            lost += bool(reasons)
            assert set(reasons) <= {"diversity"}, (problem.id, reasons)  # a row that a program reads twice
    assert lost <= 30


def test_most_real_problems_with_a_program_have_a_reference(real):
    with_program = [p for name in ("finqa", "convfinqa") for p in real[name].problems if p.level]
    assert sum(bool(problem.reference) for problem in with_program) > 0.95 * len(with_program)


def test_the_words_of_a_tweet_tell_its_label_twice_as_often_as_a_constant(real):
    """On the dev tenth, which the weights have not seen; a mean over labels, of which a constant gets a third."""
    right = {label: [] for label in tfns.LABELS.values()}
    for problem in (p for p in real["tfns"].problems if p.split == "dev"):
        right[problem.gold].append(bool(problem.reference))
    shares = [sum(told) / len(told) for told in right.values()]
    assert sum(shares) / 3 > 0.68 and min(shares) > 0.6, shares


def test_no_doubled_number_is_left_on_a_real_page(real):
    doubled = re.compile(r"(?:-(\S+)|(\S+)%) \( (?:\1|\2)(?: %)? \)")
    contexts = {problem.context for name in ("finqa", "convfinqa") for problem in real[name].problems}
    assert not [found[0] for context in contexts if (found := doubled.search(context))]


def test_retrieval_finds_the_numbers_of_most_real_programs(real):
    problems = [p for p in real["finqa"].problems if p.split == "dev" and p.reference]
    found = 0
    for problem in problems:
        equations = " ".join(line for line in problem.reference.splitlines() if " = " in line)
        used, page, short = (
            set(re.findall(r"\d+(?:\.\d+)?", text))
            for text in (equations, problem.context, CONTEXTS.retrieved_context(problem, 1000))
        )
        found += used & page <= short
    assert found > 0.7 * len(problems)


# ---------------------------------------------------------------------------
# The records that the package ships


SAMPLES = Path(files.__file__).with_name("samples")


@pytest.fixture(scope="module")
def shipped() -> dict[str, Loaded]:
    return {name: load_source(name, SAMPLES) for name in ("finqa", "convfinqa", "tfns")}


def test_the_shipped_records_load_whole_and_have_their_licence_beside_them(shipped):
    for name, loaded in shipped.items():
        assert all(row["raw"] == row["kept"] > 0 for row in loaded.rows) and not any(p.flaw for p in loaded.problems)
        licence = (SAMPLES / name / "LICENSE").read_text("utf8")
        assert licence.startswith("MIT License\n\nCopyright (c) ") and SOURCES[name].licence.startswith("MIT")
        assert f"| `{name}/` |" in (SAMPLES / "README.md").read_text("utf8")
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*")) < 400_000


def test_the_shipped_parts_can_be_held_out(shipped):
    splits = {(name, split): sum(p.split == split for p in loaded.problems)
              for name, loaded in shipped.items() for split in ("train", "dev", "test")}  # fmt: skip
    assert splits == {("finqa", "train"): 16, ("finqa", "dev"): 0, ("finqa", "test"): 20,
                      ("convfinqa", "train"): 30, ("convfinqa", "dev"): 21, ("convfinqa", "test"): 0,
                      ("tfns", "train"): 240, ("tfns", "dev"): 0, ("tfns", "test"): 21}  # fmt: skip
    problems = [problem for loaded in shipped.values() for problem in loaded.problems]
    train = {p.group for p in problems if p.split == "train"}
    assert not train & {p.group for p in problems if p.split != "train"}


@pytest.mark.slow
def test_the_shipped_records_are_what_the_rule_chooses(real_data, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    chosen = importlib.import_module("samples").choose(real_data)
    assert chosen == {name: (SAMPLES / name).read_text("utf8") for name in chosen}
    assert {path.name for path in SAMPLES.glob("*/*")} - {"LICENSE"} == {Path(name).name for name in chosen}


@pytest.mark.parametrize("elsewhere", [None, "/nowhere"])
def test_the_demo_tests_on_shipped_records_whatever_finr1_data_says(monkeypatch, elsewhere):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("the demo needs no network"))
    monkeypatch.setenv("FINR1_DATA", elsewhere) if elsewhere else monkeypatch.delenv("FINR1_DATA", raising=False)
    params = DataParams.from_notebook(demo_values("01_data"))
    ran = cells("01_data", "cell-06a", "engine", "cell-07", "cell-08", "real-record", params=params)
    sources = Counter((p.source, p.split) for p in ran["problems"] if p.source != "synthetic")
    assert sources == {("finqa", "test"): 20, ("convfinqa", "dev"): 21, ("tfns", "test"): 21}


def test_notebook_01_shows_a_real_record_with_its_source_and_licence(capsys):
    problems = load_source("finqa", SAMPLES).problems
    cells("01_data", "real-record", problems=problems)
    shown = capsys.readouterr().out
    first = next(p for p in problems if p.split == "test")
    assert first.context in shown and first.question in shown and "licence: MIT" in shown
    assert SOURCES["finqa"].home in shown
