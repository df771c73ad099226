"""The gallery of failures: every failure happens, and the check that its text names sees it."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from finr1 import plotting

GALLERY = Path(__file__).parent.parent / "notebooks" / "lessons" / "failures.ipynb"


def test_a_cell_of_the_gallery_is_short_and_keeps_no_output():
    code = [cell for cell in nbformat.read(GALLERY, 4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and len(cell.source.splitlines()) <= 19 for cell in code)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> tuple[dict, dict[str, str]]:
    """All names of the notebook after it ran, and the text that each cell printed."""
    import contextlib
    import io

    names, printed = {}, {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FINR1_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        for cell in (cell for cell in nbformat.read(GALLERY, 4).cells if cell.cell_type == "code"):
            with contextlib.redirect_stdout(io.StringIO()) as told:
                exec(compile(cell.source, cell.id, "exec"), names)
            printed[cell.id] = told.getvalue()
            assert len(plt.get_fignums()) <= 4
            plt.close("all")
    return names, printed


def late(log, name: str) -> float:
    return log[name][-10:].mean()


@pytest.mark.slow
def test_the_softmax_policy_follows_the_gradient_of_grpo(gallery):
    """The update is autograd's, of the surrogate of notebook 05 right after sampling, where every ratio is 1."""
    import numpy as np
    import torch

    names, _ = gallery
    logits, rng = np.array([0.3, -0.2, 0.1]), np.random.default_rng(0)
    chosen, R = rng.choice(3, (8, 8)), rng.integers(0, 3, (8, 8)).astype(float)
    weights = torch.tensor(logits, requires_grad=True)
    log_p = torch.log_softmax(weights, 0)[torch.tensor(chosen)]
    gain = torch.exp(log_p - log_p.detach()) * torch.tensor(names["advantages"](R))
    gain.mean().backward()
    assert names["update"](logits, chosen, R) - logits == pytest.approx(weights.grad.numpy())


@pytest.mark.slow
def test_uneven_golds_teach_a_constant_which_the_watch_names(gallery):
    names, printed = gallery
    assert late(names["uneven"], "always compliant") > 0.9 and late(names["even"], "reads the clauses") > 0.9
    uneven, balanced = printed["constants-curve"].split("balanced:")
    assert "gift_rule: one answer makes up" in uneven and "one answer" not in balanced


@pytest.mark.slow
def test_a_forgiving_grader_pays_for_true_and_strict_shows_it(gallery):
    names, printed = gallery
    assert all(late(log, "true and false") > 0.3 for log in names["forgiving"])
    assert late(names["today"], "true and false") < 0.05
    for told in ("under no options: 100% right", "under strict: 0% right", "under ours, today: 0% right"):
        assert told in printed["true-curve"]


@pytest.mark.slow
def test_too_little_room_loses_the_arithmetic_while_the_reward_rises(gallery):
    names, printed = gallery
    tight, ample = names["tight"], names["ample"]
    assert tight["reward"][:5].mean() < late(tight, "reward") and late(tight, "right") < 0.1 < 0.5 < late(
        ample, "right"
    )
    assert late(tight, "in the format") > 0.9
    assert "format and accuracy agree in" in printed["short-curve"].split("enough room")[0]


@pytest.mark.slow
def test_without_a_first_reward_the_stop_rule_ends_the_run(gallery):
    names, printed = gallery
    never, seldom = names["runs"].values()
    assert never["in the format"].max() < 0.001 and late(seldom, "in the format") > 0.9
    assert "stop_dead_groups = 0.95" in printed["zero-train"] and "no rule stops it" in printed["zero-train"]
    assert printed["zero"].count("format 0, accuracy 0") == 2


@pytest.mark.slow
def test_no_check_of_the_suite_sees_a_false_comparison_and_that_of_the_gallery_does(gallery):
    names, printed = gallery
    assert printed["false-real"].count("format 1, accuracy 1, false steps 0") == 2
    text = names["compared"](names["ratios"][1], None, False)
    assert names["grade_text"](names["ratios"][1], text)["false_steps"] == 0 and names["false_comparisons"](text) == 1
    assert all(names["false_comparisons"](names["compared"](p, None)) == 0 for p in names["ratios"])
    assert late(names["checked"], "false comparison") < 0.05


@pytest.mark.slow
def test_a_run_is_searched_for_the_same_failures(gallery, monkeypatch, tmp_path, capsys):
    from finr1.evaluation.samples import about, grade_text
    from finr1.records import messages, write_jsonl

    names, printed = gallery
    assert "no benchmark of a run 'demo' here" in printed["yours-2"]
    problems = names["ratios"][:6]
    texts = [names["compared"](problem, None, place > 0) for place, problem in enumerate(problems)]
    samples = [
        names["evaluation"].Sample(**about(p, messages(p)), **grade_text(p, text), model="grpo", decoding="greedy",
                                   sample=0, text=text, tokens=9, finish_reason="stop")
        for p, text in zip(problems, texts, strict=True)
    ]  # fmt: skip
    write_jsonl(tmp_path / "mine" / "06_benchmark" / "samples.jsonl", samples)
    monkeypatch.setenv("FINR1_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(plotting, "table", lambda rows, **how: rows)
    search, count = (cell for cell in nbformat.read(GALLERY, 4).cells if cell.id in ("yours", "yours-2"))
    exec(search.source.replace('run = "demo"', 'run = "mine"') + "\n" + count.source, names)
    counts = names["counts"].sum().iloc[0]
    assert counts["right"] == 6 and counts["false comparison"] == 1 and counts["no equation"] == 0
