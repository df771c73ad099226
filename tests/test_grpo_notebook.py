"""What notebook 05 chooses and says: cells run by id, on rows and logs made by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from recipes import cells, recipe

from finr1 import synthetic, watch
from finr1.records import Problem, render_completion

PARAMS = {"seed": 1, "batch_size": 8, "num_generations": 8, "pass_rate_samples": 4, "pass_rate_candidates": 0,
          "load_best_model_at_end": False}  # fmt: skip


def params(**changes) -> SimpleNamespace:
    return SimpleNamespace(**(PARAMS | changes))


# ---- choosing problems ----------------------------------------------------------------------------------------------


def rl_row(place: int, family: str, gold: str, kind: str = "number") -> dict:
    return {"id": f"{family}/{place}", "family": family, "solution": gold, "answer_kind": kind, "prompt": [],
            "alternatives": [], "choices": "", "labels": "", "options": [], "rel_tol": 0.01}  # fmt: skip


def some(family: str, golds: list[str], kind: str = "number") -> list[dict]:
    return [rl_row(place, family, gold, kind) for place, gold in enumerate(golds)]


def balanced(rows: list[dict]):
    return cells("05_grpo", "balanced", params=params())["balanced"](rows)


def test_rows_are_balanced_by_family_and_gold_after_the_selection():
    rows = [
        *some("gift", ["yes"] * 8 + ["no"] * 3, "boolean"),
        *some("risk", ["high"] * 5, "label"),  # a constant would be right
        *some("profit", [str(n) for n in range(30)]),
        *some("percent", [str(n) for n in range(7)]),
    ]
    kept, left_out = balanced(rows)
    assert left_out == ["risk"]
    assert Counter(row["family"] for row in kept) == {"gift": 6, "percent": 7, "profit": 7}
    assert Counter(row["solution"] for row in kept if row["family"] == "gift") == {"yes": 3, "no": 3}
    assert kept == [row for row in rows if row in kept], "their order stays"
    assert balanced(rows)[0] == kept
    assert balanced([]) == ([], []) and balanced(some("risk", ["high"], "label")) == ([], ["risk"])


def choose(rows: list[dict], texts: list[str], tmp_path, **changes) -> dict:
    """What the cells make of the rows and, one after the other, of the tries of each candidate."""
    written = SimpleNamespace(path=lambda name: tmp_path / name)
    given = params(**changes)
    names = {"rows": rows, "params": given, "run": written, "verifier": None}
    names |= {"candidates": rows[: given.pass_rate_candidates], "accuracy": recipe("05_grpo").accuracy_reward}
    names["tries"] = [SimpleNamespace(tagged=text) for text in texts]
    return cells("05_grpo", "cell-12b", "balanced", "cell-13", **names)


def test_a_family_in_which_the_model_knows_one_answer_is_left_out_and_named(tmp_path, capsys):
    rows = [*some("risk", ["high", "low"] * 4, "boolean"), *some("gift", ["yes", "no"] * 4, "boolean")]
    rows = [row | {"solution": {"high": "yes", "low": "no"}.get(row["solution"], row["solution"])} for row in rows]
    tries = {"risk": ["yes", "yes", "yes", "yes"], "gift": ["yes", "no", "yes", "no"]}
    texts = [f"\\boxed{{{said}}}" for row in rows for said in tries[row["family"]]]
    texts[0] = "\\boxed{no}"  # one risk problem is sometimes right: by pass rate it would stay
    made = choose(rows, texts, tmp_path, pass_rate_candidates=16)
    assert {row["family"] for row in made["chosen"]} == {"gift"} and len(made["chosen"]) == 8
    assert made["left_out"] == {"risk": "the model says 'yes' in 97%"}
    assert "left out: {'risk': " in capsys.readouterr().out


def test_without_tries_the_rows_are_balanced_all_the_same(tmp_path, capsys):
    rows = [*some("risk", ["yes"] * 3, "boolean"), *some("profit", list("123")), *some("loss", list("1234"))]
    made = choose(rows, [], tmp_path)
    assert [row["family"] for row in made["chosen"]] == ["profit"] * 3 + ["loss"] * 3
    assert made["left_out"] == {"risk": "one gold is left"} and len(made["known"]) == 0
    cells("05_grpo", "pass-rates-figure", params=params(), known=made["known"])
    assert "No problem was tried" in capsys.readouterr().out


# ---- advantages and the loss by hand ---------------------------------------------------------------------------------


def by_hand() -> dict:
    """The four completions of the notebook under the reward functions of its recipe."""
    names = {name: value for name, value in vars(recipe("05_grpo")).items() if not name.startswith("__")}
    return cells("05_grpo", "cell-05", "toy-rewards", "cell-07", **names)


def test_right_without_tags_and_wrong_with_tags_both_get_advantage_0():
    made = by_hand()
    assert made["total"].tolist() == [2, 1, 1, 0] and made["advantages"][1:3].tolist() == [0, 0]
    doubled = made["advantage"](made["total"] + made["toy"]["accuracy"])
    assert doubled[1] < 0 < doubled[2], "accuracy that counts twice parts them"
    gated = made["advantage"](made["toy"]["gated"])
    assert gated[1] == gated[2] < 0, "the gate does not"


def test_the_table_of_the_guide_is_that_of_the_notebook():
    table = by_hand()["by_hand"].replace({r"\+0\.00": "0.00"}, regex=True)
    guide = (Path(__file__).parent.parent / "docs" / "rewards.md").read_text("utf8")
    for row in table.itertuples(index=False):
        assert f"| {' | '.join(row)} |" in guide


def test_the_loss_of_grpo_is_zero_and_that_of_dapo_is_not(capsys):
    """Where a long completion is better than a short one; the gradient is there in both."""
    names = {"torch": torch, "texts": ["a b c d e f", "a b", "a b c", "a"]}
    made = cells(
        "05_grpo", "cell-09", advantages=torch.tensor([1.5, -0.5, -0.5, -0.5]), params=params(epsilon=0.2), **names
    )
    assert abs(made["losses"]["grpo"].item()) < 1e-6
    assert made["losses"]["dapo"].item() == pytest.approx(-(1.5 * 6 - 0.5 * 6) / 12)
    assert made["gradient"].abs().min() == 0 and (made["gradient"].sum(dim=1) != 0).all()  # none on padding
    assert "dapo: loss -0.5" in capsys.readouterr().out


def test_a_figure_of_curves_says_what_it_shows(tmp_path):
    rewards = [0.3 + 0.05 * n + wave(n) for n in range(12)]
    log = [{"step": step, "reward": value, "entropy": 0.5} for step, value in enumerate(rewards, 1)]
    cells("05_grpo", "change", "curves", log=log, run=SimpleNamespace(figures=tmp_path))
    titles = [plt.figure(number).get_suptitle() for number in plt.get_fignums()]
    assert titles[0].startswith("reward: 0.305 to 0.845") and titles[0].endswith("up")
    assert titles[1] == "entropy (nats): 0.5 to 0.5 [+0, +0] (not beyond the noise)"
    assert titles[2] == "length (tokens): too few steps to say" and len(list(tmp_path.glob("*.png"))) == 4


# ---- what is said of a run ------------------------------------------------------------------------------------------

WRONG, RIGHT = "<think>a</think><answer>\\boxed{1}</answer>", "<think>a</think><answer>\\boxed{2}</answer>"


def said(capsys, reward, right, shaped=lambda step: 1.0, length=lambda step: 50.0, parts=None) -> str:
    """What the cells print of twelve steps of forty completions; each argument is a share by step."""
    table = pd.DataFrame({"reward": [reward(n) for n in range(12)],
                          "completions/mean_length": [length(n) for n in range(12)]}, index=range(1, 13))  # fmt: skip
    rows = []
    for step in range(12):
        for place in range(40):
            in_format = place < 40 * shaped(step)
            rows.append({"step": step + 1, "right": float(in_format and place < 40 * right(step) * shaped(step)),
                         "completion": RIGHT if in_format else "none"})  # fmt: skip
    ways = pd.DataFrame({"by_parts": [parts(n) if parts else float("nan") for n in range(12)]}, index=table.index)
    given = params(reward_funcs=["format_reward", "accuracy_reward"], soft_punish_cache=0)
    answers = {"sampled": pd.DataFrame(rows), "ways": ways, "both": ways.dropna()}
    cells("05_grpo", "change", "notice", "notice-way", table=table, params=given, **answers)
    return capsys.readouterr().out


def wave(step: int) -> float:
    return 0.02 * (-1) ** step


def test_a_run_that_learned_is_told_from_obedience_noise_and_loss(capsys):
    up, flat = (lambda n: 0.3 + 0.05 * n + wave(n)), (lambda n: 0.5 + wave(n))
    assert "more than obedience" in said(capsys, up, up)
    by_format = said(capsys, up, lambda n: 0.5, shaped=lambda n: 0.4 + 0.05 * n)
    assert "Reward: obedience." in by_format
    nothing = said(capsys, flat, flat)
    assert "not beyond the noise" in nothing and "no gain beyond the noise" in nothing
    assert "something went wrong" in said(capsys, lambda n: 1 - up(n), flat)


def test_the_ways_are_told_only_where_they_moved(capsys):
    up, down = (lambda n: 0.3 + 0.05 * n + wave(n)), (lambda n: 0.9 - 0.05 * n + wave(n))
    grown = said(capsys, up, up, length=lambda n: 50 + 2 * n + wave(n), parts=up)
    assert "The policy moved to answers by parts, and thoughts grew; no reward asks for that." in grown
    assert "moved to answers at once" in said(capsys, up, up, parts=down)
    still = said(capsys, up, up, parts=lambda n: 0.5 + wave(n))
    assert "by parts (%): 5" in still and "moved" not in still
    assert "moved" not in said(capsys, up, up) and "by parts" not in said(capsys, up, up)


def test_two_steps_are_too_few_to_say(capsys):
    change = cells("05_grpo", "change")["change"]
    assert change("reward", pd.Series([1.0, 2.0])) == ("reward: too few steps to say", "short")


LOOKS = [
    ([0.2, 0.3, 0.9], {}, "the last", "90% at step 10: better."),
    ([0.5, 0.52, 0.51], {}, "step 10: the last", "inside the noise of two samples."),
    ([0.9, 0.5, 0.2], {}, "step 10", "worse."),
    ([0.0, 0.0, 0.0], {}, "step 10", "inside the noise of two samples."),
    ([0.9, 0.5, 0.2], {}, "step 10", "No look after the first is better"),
    ([0.2, 0.9, 0.3], {"load_best_model_at_end": True}, "step 5: the best look", "30% at step 10"),
    ([0.9, 0.5, 0.5], {"load_best_model_at_end": True}, "step 5: the best look", "No look after the first is better"),
]


@pytest.mark.parametrize("accuracies, changes, saved, words", LOOKS)
def test_the_looks_say_what_was_saved_and_whether_it_is_better(accuracies, changes, saved, words, capsys):
    log = [{"step": 5 * n, "eval_loss": 0.0, "eval_accuracy": value} for n, value in enumerate(accuracies)]
    table = pd.DataFrame({"reward": [1.0] * 10}, index=range(1, 11))
    cells("05_grpo", "looks", log=log, table=table, dev=[None] * 40, params=params(**changes))
    printed = capsys.readouterr().out
    assert saved in printed and words in printed


def test_a_run_without_looks_says_only_what_was_saved(capsys):
    table = pd.DataFrame({"reward": [1.0] * 10}, index=range(1, 11))
    cells("05_grpo", "looks", log=[{"step": 1, "reward": 1.0}], table=table, dev=[None] * 40, params=params())
    assert capsys.readouterr().out.strip() == "Saved is the model of step 10: the last"


def two_ways() -> Problem:
    (problem,) = [p for p in synthetic.generate_problems(40, "train", seed=1) if p.family == "percent_of"][:1]
    return problem.model_copy(update={"reference": "One.", "reference_by_parts": "One. Two. Three. Four. Five."})


def draw_ways(problem: Problem, tmp_path, **problem_changes) -> dict:
    problem = problem.model_copy(update=problem_changes)
    by_parts, at_once = (render_completion(told, "1") for told in ("One. Two. Three. Four. Five.", "One."))
    table = pd.DataFrame(
        {"reward": [1.0, 1.5], "completions/mean_length": [40.0, 60.0]}, index=pd.Index([1, 2], name="step")
    )
    sampled = pd.DataFrame({"step": [1, 1, 2, 2], "id": problem.id, "rewards/accuracy_reward": [1.0, 0.0, 1.0, 0.0],
                            "completion": [by_parts, at_once, by_parts, by_parts]})  # fmt: skip
    names = {"of_id": {problem.id: problem}, "sampled": sampled, "table": table}
    names["accuracy"] = recipe("05_grpo").accuracy_reward
    return cells("05_grpo", "ways-figure", run=SimpleNamespace(figures=tmp_path), **names)


def test_the_share_of_each_way_is_drawn_beside_reward_and_length(tmp_path):
    made = draw_ways(two_ways(), tmp_path)
    assert made["ways"]["by_parts"].tolist() == [0.5, 1.0]
    assert made["ways"]["right/by_parts"].tolist() == [1.0, 0.5] and made["ways"]["right/at_once"][1] == 0.0
    titles = [ax.get_title(loc="left") for ax in made["fig"].axes]
    assert titles == ["total reward", "completion length (tokens)", "answers by parts (%)", "right, by way (%)"]
    assert (tmp_path / "ways.png").exists()


def test_problems_with_one_way_draw_nothing_and_say_so(tmp_path, capsys):
    made = draw_ways(two_ways(), tmp_path, reference_by_parts="")
    assert "no way to choose" in capsys.readouterr().out and "fig" not in made and not list(tmp_path.iterdir())


def test_a_family_with_one_answer_is_shown_with_a_completion(capsys, tmp_path, monkeypatch):
    problem = two_ways()
    log = [{"step": step, "reward": 1.0, "loss": 0.0, f"one_answer/{problem.family}": 1.0} for step in range(1, 9)]
    sampled = pd.DataFrame(
        {"step": [7, 8], "id": problem.id, "question": "What is 10%?", "completion": ["first", RIGHT]}
    )
    made = cells("05_grpo", log=log, problems=[problem], run=SimpleNamespace(dir=tmp_path), params=params())
    monkeypatch.setattr(made["rollouts"], "read_rollouts", lambda folder, size: sampled)
    made = cells("05_grpo", "cell-22", **{name: made[name] for name in ("log", "problems", "run", "params")})
    cells("05_grpo", "one-answer", **{name: made[name] for name in ("sampled", "problems", "warned")})
    printed = capsys.readouterr().out
    assert f"WARNING {problem.family}: one answer makes up 100%" in printed
    assert f"{problem.family}: one answer whatever is asked, as at step 8: What is 10%?\n  {RIGHT}" in printed


def test_a_constant_that_no_batch_shows_is_found_over_many_batches(capsys):
    # One problem of the family in each batch: alone its answers say nothing of other golds.
    rows = [p for p in synthetic.generate_problems(150, "train", seed=1) if p.family == "position_rule"][:4]
    texts = [render_completion("x", answer) for answer in ("yes", "no")]
    kept = {"step": range(1, 9), "id": [row.id for row in rows] * 2, "question": "Q"}
    for constant, warned in ((True, True), (False, False)):
        said = [texts[0] if constant else texts[row.gold == "no"] for row in rows] * 2
        cells("05_grpo", "one-answer", sampled=pd.DataFrame(kept | {"completion": said}), problems=rows, warned=[])
        assert ("WARNING position_rule: one answer" in capsys.readouterr().out) is warned
    assert watch.ONE_ANSWER == 0.8
