"""Every sampled group can be read again, by step and by question, and nothing that a model wrote becomes markup."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from finr1 import rollouts

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
CHINESE = "规定上限14%，实际持仓11%，合规还是不合规？"


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write(folder: Path, step: int, groups: dict[str, list[float]], history: str = "", **columns: list) -> None:
    """One file of TRL's: `groups` is question -> accuracy reward of each completion."""
    (folder / "completions").mkdir(exist_ok=True)
    rows = [
        {"step": step,
         "prompt": [turn("system", "Be brief."), *([turn("user", history)] if history else []), turn("user", question)],
         "completion": [turn("assistant", f"answer {number} at {step} {ATTACK}")],
         "format_reward": 1.0, "accuracy_reward": reward,
         "advantage": (reward or 0) - sum(r or 0 for r in rewards) / len(rewards)}
        for question, rewards in groups.items()
        for number, reward in enumerate(rewards)
    ]  # fmt: skip
    pd.DataFrame(rows).assign(**columns).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")


@pytest.fixture
def stage(tmp_path) -> Path:
    write(tmp_path, 1, {"up": [0.0, 0.0], "down": [1.0, 1.0], "once": [0.0, 1.0]})
    write(tmp_path, 2, {CHINESE: [1.0, None], "steady": [0.0, 1.0]}, verifier_reason=["says 合规", None, ATTACK, ""])
    write(tmp_path, 3, {"up": [1.0, 1.0], "down": [0.0, 1.0], "steady": [1.0, 0.0]})
    return tmp_path


def page_of(table: pd.DataFrame, question: str, *groups: int) -> str:
    return rollouts.html(table, [("", question, groups)])


def test_a_group_is_what_was_sampled_for_one_question_at_one_step(stage):
    table = rollouts.read_rollouts(stage, 2)
    visits = rollouts.visits(table)
    assert list(zip(visits["step"], visits["question"], strict=True))[:4] == [
        (1, "up"), (1, "down"), (1, "once"), (2, CHINESE)]  # fmt: skip
    assert len(visits) == 8 and visits["completions"].eq(2).all()
    judged, undecided = table[table["group"] == 3].to_dict("records")
    assert (judged["rewards/format_reward"], judged["rewards/accuracy_reward"], judged["reward"]) == (1, 1, 2)
    assert pd.isna(undecided["rewards/accuracy_reward"]) and undecided["reward"] == 1  # not judged is not wrong
    assert visits.loc[3, ["rewards/format_reward", "rewards/accuracy_reward", "reward"]].to_list() == [1, 1, 1.5]
    assert judged["notes/verifier_reason"] == "says 合规" and pd.isna(undecided["notes/verifier_reason"])
    assert table["notes/verifier_reason"].notna().sum() == 2  # an empty one is none


def test_what_nobody_could_judge_pulls_no_mean_down(stage):
    file = stage / "completions" / "completions_00003.parquet"
    rows = pd.read_parquet(file)
    rows.loc[[0, 4, 5], ["format_reward", "accuracy_reward"]] = None  # one answer of "up", all of "steady"
    rows.to_parquet(file)
    table = rollouts.read_rollouts(stage, 2)
    visits = rollouts.visits(table)
    late = visits[visits["step"] == 3].set_index("question")
    assert late.loc["up", "reward"] == 2.0 and pd.isna(late.loc["steady", "reward"])
    assert "steady" not in rollouts.changes(visits).index
    assert "<b>–</b>" in page_of(table, "up", late.loc["up", "group"])


def test_a_group_without_spread_says_that_it_taught_nothing(stage):
    table = rollouts.read_rollouts(stage, 2)
    assert rollouts.visits(table)["spread"].to_list()[:3] == [False, False, True]
    assert "taught nothing" in page_of(table, "up", 0) and "taught nothing" not in page_of(table, "once", 2)


def test_changes_run_from_the_largest_gain_to_the_largest_loss(stage):
    visits = rollouts.visits(rollouts.read_rollouts(stage, 2))
    assert rollouts.changes(visits)["gain"].to_dict() == {"up": 1.0, "steady": 0.0, "down": -0.5}
    assert list(rollouts.changes(visits).index) == ["up", "steady", "down"]
    assert rollouts.selection(visits) == [("The largest gain: +1.00 in mean reward", "up", [0, 5]),
                                          ("The largest loss: -0.50 in mean reward", "down", [1, 6])]  # fmt: skip
    told = rollouts.average_change(visits, seed=0)
    assert "3 of 5 questions came back" in told and "+0.17" in told and "inside the noise" in told


def test_where_no_question_came_back_first_and_last_group_are_shown(tmp_path):
    write(tmp_path, 1, {"a": [0.0, 1.0], "b": [1.0, 1.0]})
    table = rollouts.read_rollouts(tmp_path, 2)
    selected = rollouts.selection(rollouts.visits(table))
    assert selected == [("The first group", "a", [0]), ("The last group", "b", [1])]
    assert "0 of 2 questions came back" in rollouts.static_html(table, seed=0)


def test_a_batch_that_is_used_for_several_steps_is_taken_once(tmp_path):
    write(tmp_path, 1, {"a": [0.0, 1.0]})
    once = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    once.assign(step=2).to_parquet(tmp_path / "completions" / "completions_00002.parquet")
    assert rollouts.read_rollouts(tmp_path, 2)["step"].to_list() == [1, 1]


def test_equal_last_turns_after_other_turns_are_other_questions(tmp_path):
    write(tmp_path, 1, {"And Q2?": [0.0, 1.0]}, history="Q1 was 5.")
    write(tmp_path, 2, {"And Q2?": [0.0, 1.0]}, history="Q1 was 7.")
    visits = rollouts.visits(rollouts.read_rollouts(tmp_path, 2))
    first, second = visits["question"]
    assert first != second and "Q1 was 5." in first and "Be brief" not in first
    assert rollouts.changes(visits).empty


def test_rows_that_are_no_whole_number_of_groups_are_an_error(stage):
    with pytest.raises(ValueError, match="completions_00001.parquet: 6 rows are no whole number of groups of 4"):
        rollouts.read_rollouts(stage, 4)


def test_nothing_kept_is_no_groups(tmp_path):
    table = rollouts.read_rollouts(tmp_path, 2)
    assert table.empty
    rollouts.show(table, seed=0)  # and nothing to display


def test_text_is_escaped_and_chinese_stays(stage):
    table = rollouts.read_rollouts(stage, 2)
    html = rollouts.static_html(table, seed=0) + page_of(table, CHINESE, 3)
    assert "<script" not in html and "<img" not in html and "49" not in html
    assert "&lt;script&gt;" in html and CHINESE in html and "says 合规" in html and "verifier reason" in html


def test_a_chinese_question_of_the_demo_has_its_translation_below(tmp_path):
    write(tmp_path, 1, {"借款9600元，年利率5%，一年付多少利息？": [0.0, 1.0], "Up? ": [0.0, 1.0]})
    table = rollouts.read_rollouts(tmp_path, 2)
    chinese, english = (page_of(table, table["question"][row], row // 2) for row in (0, 2))
    assert "<b>In English:</b> 9600 yuan are borrowed at 5% a year." in chinese and "In English" not in english


def test_dollar_amounts_are_no_formula_in_a_notebook(tmp_path):
    write(tmp_path, 1, {"Gifts over $50 are forbidden. She accepts $20.": [0.0, 1.0]})
    table = rollouts.read_rollouts(tmp_path, 2)
    for html in (rollouts.static_html(table, seed=0), page_of(table, table["question"][0], 0)):
        assert "$50" in html and "mathjax_ignore" in html  # JupyterLab typesets $...$ in any other output


def test_the_viewer_shows_the_chosen_step_and_question(stage):
    bar, turning, question, page = rollouts.explorer(rollouts.read_rollouts(stage, 2)).children
    (earlier, later, step), (previous, following) = bar.children, turning.children
    assert [value for _, value in question.options] == ["up", "down", "once", CHINESE, "steady"]
    question.value = "up"
    assert "answer 0 at 1 " in page.value and "answer 1 at 3 " in page.value
    step.value = 3
    assert [value for _, value in question.options] == ["up", "down", "steady"]
    assert "answer 0 at 1 " not in page.value and "answer 1 at 3 " in page.value  # the history keeps both steps
    question.value = "down"
    step.value = 2  # "down" was not asked there
    assert question.value == CHINESE and "says 合规" in page.value and "<script" not in page.value
    following.click()
    assert question.value == "steady" and "answer 0 at 2 " in page.value
    following.click()
    assert question.value == CHINESE  # the first comes after the last
    previous.click()
    assert question.value == "steady"
    later.click()  # a keyboard alone reaches each step
    assert step.value == 3 and question.value == "steady" and "answer 0 at 2 " not in page.value
    later.click()
    assert step.value == 0  # all of them come before the first
    earlier.click()
    assert step.value == 3


def test_the_gold_and_the_answer_that_was_read_stand_beside_what_was_earned(tmp_path):
    write(tmp_path, 1, {"growth?": [0.0, 1.0]}, id=["a", "a"], gold=["a note", "by its name"])
    gold = {"id": "a", "solution": "25% <b>", "answer_kind": "percent"}
    (tmp_path / "train.jsonl").write_text(json.dumps(gold) + "\n", "utf8")
    table = rollouts.read_rollouts(tmp_path, 2)
    table["completion"] = ["<think>x</think><answer>25%</answer>", "25%"]
    assert table["gold"].to_list() == ["25% <b>"] * 2 and table["notes/gold"].to_list() == ["a note", "by its name"]
    table["answer"] = ["25%", None]
    page = page_of(table, "growth?", 0)
    assert "<b>Gold:</b> 25% &lt;b&gt; (percent)" in page and ">none in the format</td>" in page
    (tmp_path / "train.jsonl").unlink()
    assert "Gold:" not in page_of(rollouts.read_rollouts(tmp_path, 2), "growth?", 0)


@pytest.mark.parametrize("in_lab", [False, True])
def test_a_run_without_a_person_shows_the_static_page_alone(stage, monkeypatch, in_lab):
    """As in a papermill run: real kernel, no front end. nbconvert then shows the page and runs no script of a model."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    read = f"rollouts.read_rollouts(Path({str(stage)!r}), 2)"
    code = f"from pathlib import Path\nfrom finr1 import rollouts\nrollouts.show({read}, 0)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=os.pathsep)
    monkeypatch.setenv("JPY_SESSION_NAME", "05_grpo.ipynb") if in_lab else monkeypatch.delenv("JPY_SESSION_NAME", False)
    NotebookClient(notebook, kernel_name="python3").execute()
    page_output, *explorer = notebook.cells[0].outputs
    assert "The largest gain" in page_output.data["text/html"]
    assert [output.data["text/html"] for output in explorer] == [""] * in_lab
    assert all("application/vnd.jupyter.widget-view+json" in output.data for output in explorer)
    notebook.metadata.pop("widgets", None)
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    assert page.count("The largest gain") == 1 and "<script>alert" not in page


def test_real_rollouts_can_be_read():
    stage = Path(__file__).parent.parent / "outputs" / "demo" / "05_grpo"
    if not (stage / "manifest.json").exists():
        pytest.skip("no finished run in outputs/demo")
    from finr1.run import read_manifest

    table = rollouts.read_rollouts(stage, read_manifest(stage)["parameters"]["num_generations"])
    assert len(table) and rollouts.static_html(table, seed=0).count("<tr>") > 10
