"""The report is one file that needs nothing else, escapes what models wrote, and says noise when it is noise."""

from __future__ import annotations

import base64
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pandas
import pytest

matplotlib.use("Agg")

from finr1 import ledger, plotting, reported  # noqa: E402
from finr1.evaluation import (  # noqa: E402
    Sample,
    paired_table,
    protocol_rows,
    results_table,
)
from finr1.judge import Verdict, apply_verdicts  # noqa: E402
from finr1.manifest import write_json  # noqa: E402
from finr1.progress import duration  # noqa: E402
from finr1.records import write_jsonl  # noqa: E402
from finr1.report import build_report, summary_sentences, summary_text, write_pdf  # noqa: E402
from finr1.report.content import environment, table  # noqa: E402

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def samples(rates: dict[str, tuple[float, float]], items: int = 60, text: str = ATTACK) -> list[Sample]:
    """Two decodings; `rates`: model -> (share in the format, share right)."""
    rng = random.Random(0)
    return [
        Sample(
            model=model, decoding=decoding, problem_id=f"synthetic/{number:03d}", sample=k, source="synthetic",
            family=f"f{number % 4}", capability="risk", language="en", question=ATTACK, gold="1", prompt_sha256="x",
            text=text, tokens=30, finish_reason="stop", answer="1", lenient_answer="1",
            format=rng.random() < formatted, correct=rng.random() < right, lenient_correct=rng.random() < right,
        )
        for number in range(items)
        for model, (formatted, right) in rates.items()
        for decoding, answers in (("greedy", 1), ("sampled", 2))
        for k in range(answers)
    ]  # fmt: skip


GAIN = {"base": (0.05, 0.02), "sft": (0.7, 0.3), "grpo": (1.0, 0.8)}
FLAT = {"base": (0.5, 0.3), "sft": (0.5, 0.3), "grpo": (0.5, 0.3)}


def manifest(stage: str, metrics: dict) -> dict:
    return {
        "stage": stage, "run": "demo", "seed": 3, "metrics": metrics,
        "inputs": {"data_stage": {"path": "outputs/demo/01_data", "sha256": "ab" * 32}},
        "parameters": {"learning_rate": 3e-5, "bf16": True, "note": ATTACK, "data_dir": None, "num_generations": 4},
        "outputs": {"train.jsonl": {"sha256": "cd" * 32, "bytes": 10, "rows": 640}},
        "code": {"commit": "0123456789abcdef", "dirty": True}, "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "a cpu", "cores": 2, "gpus": []}, "phases_s": {"generation": 301.2, "update": 88.1},
        "peak_memory_gib": {"notebook": 1.2}, "started": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:12:00+00:00",
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict[str, Path]:
    """A run of all stages but one, two of them with a figure."""
    root = tmp_path_factory.mktemp("run")
    stages = {name: root / name for name in ("01_data", "02_distillation", "04_sft", "05_grpo", "06_benchmark")}
    funnel = [{"stage": "raw", "count": 1000}, {"stage": ATTACK, "count": 900}]
    wide = [{f"column_{number}": number / 7 for number in range(30)} | {"text": "w" * 200}]
    metrics = {"01_data": {"funnel": funnel, "by": {"en": 3}}, "04_sft": {"wide": wide, "long": "x" * 500}}
    metrics["05_grpo"] = {"warnings": [f"the policy writes {ATTACK}"], "stopped": None}
    lenient = [sample.model_copy(update={"correct": sample.lenient_correct}) for sample in samples(GAIN)]
    metrics["06_benchmark"] = {
        "protocols": protocol_rows({"ours": samples(GAIN), "lenient": lenient}),
        "bad_golds": [{"model": "sft", "decoding": "greedy", "all": [0.3, 0.2, 0.4, 60]}],
    }
    for name, folder in stages.items():
        folder.mkdir()
        if name != "02_distillation":  # under way: no manifest yet
            write_json(folder / "manifest.json", manifest(name, metrics.get(name, {})))
    plotting.use_style()
    for name in ("01_data", "05_grpo"):
        plotting.save_figure(plotting.funnel(funnel), stages[name] / "figures", "the_funnel")
    write_jsonl(stages["06_benchmark"] / "samples.jsonl", samples(GAIN))
    rollouts(stages["05_grpo"] / "completions")
    return stages


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def rollouts(folder: Path) -> None:
    folder.mkdir()
    for step in (1, 12):
        rows = [
            {"step": step, "prompt": [turn("system", "Be brief."), turn("user", f"question {i // 4}")],
             "completion": [turn("assistant", f"step {step} {ATTACK} 合规" + "y" * 400 * (i == 1))],
             "format_reward": float(i % 2), "accuracy_reward": None if i else step / 12, "advantage": 0.5}
            for i in range(8)
        ]  # fmt: skip
        pandas.DataFrame(rows).to_parquet(folder / f"completions_{step:05d}.parquet")


class Page(HTMLParser):
    """What a browser would fetch, run and show."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def shown(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def html(run: dict[str, Path], tmp_path_factory) -> str:
    return build_report(
        run, tmp_path_factory.mktemp("out") / "07_report" / "report.html", measured_on="synthetic problems"
    ).read_text("utf8")


def test_nothing_is_fetched_from_anywhere(html):
    for tag, attrs in Page(html).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in html and "@import" not in html


def test_links_lead_to_headings_that_exist(html):
    tags = Page(html).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= set(ids)


def test_figures_are_inlined_whole_and_described(html, run):
    images = [attrs for tag, attrs in Page(html).tags if tag == "img"]
    assert len(images) == 2
    for attrs in images:
        data = base64.b64decode(attrs["src"].partition(",")[2], validate=True)
        assert data == (run["01_data"] / "figures" / "the_funnel.png").read_bytes()
        assert attrs["alt"] == "the funnel"


def test_what_models_and_data_say_is_text_and_not_markup(html):
    assert "<script" not in html and "<img src=x" not in html
    shown = Page(html).shown()
    assert ATTACK in shown  # shown as it was written, and not as 49
    assert shown.count(ATTACK) >= 4  # in a table of metrics, a parameter, a rollout and a sample


def test_each_number_stands_with_its_interval_and_n(html):
    shown = Page(html).shown()
    rows = results_table(samples(GAIN))
    for row in rows:
        interval = f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        assert f"{row['n']} {row['samples']} {interval}" in shown


def test_the_papers_numbers_stand_apart(html):
    shown = Page(html).shown()
    own, _, paper = shown.rpartition("Reported by the paper, not measured here")
    assert "must not be compared" in paper
    assert "DeepSeek-R1" in paper and "DeepSeek-R1" not in own
    for row in reported.RESULTS:
        scores = " ".join(f"{row['scores'][name]:.1f}" for name in reported.BENCHMARKS)
        assert f"{row['model']} {scores} {row['mean']:.1f}" in paper


def test_costs_and_provenance_are_there(html):
    shown = Page(html).shown()
    for text in (
        "6 min 29 s",
        "generation 301.2",
        "seed 3, commit 0123456789 with uncommitted changes",
        "3e-05",
        "cd" * 32,
    ):
        assert text in shown


def test_a_stage_that_is_not_complete_says_so(html):
    assert Page(html).shown().count("This stage is not complete in this run.") == 2  # under way, and not given


def test_a_run_with_nothing_in_it_still_gives_a_report(tmp_path):
    shown = Page(build_report({}, tmp_path / "report.html").read_text("utf8")).shown()
    assert "The benchmark has not run" in shown and "This run has kept none." in shown


def test_the_same_answers_stand_under_every_protocol(html):
    shown = Page(html).shown()
    ours, lenient = (
        next(row for row in results_table(samples(GAIN)) if (row["model"], row["decoding"]) == ("sft", "greedy"))[key]
        for key in ("accuracy", "lenient")
    )
    assert re.search(rf"SFT greedy 60 {100 * ours:.1f} \[[\d., ]+\] {100 * lenient:.1f} \[[\d., ]+\]", shown)


def test_what_the_benchmark_measured_besides_is_shown_under_a_name_for_readers(html):
    shown = Page(html).shown()
    assert "With and without golds that are known to be bad" in shown
    assert "sft greedy 30.0 [20.0, 40.0] 60" in shown
    assert f"the policy writes {ATTACK}" in shown and "stopped" not in shown.partition("Manifests")[0]


def test_the_question_that_changed_most_is_shown_early_and_late(html):
    shown = Page(html).shown()
    assert "1 of 2 questions came back" in shown or "2 of 2 questions came back" in shown
    assert f"step 1 {ATTACK}" in shown and f"step 12 {ATTACK}" in shown


def test_the_ledger_is_there_claim_by_claim(html):
    shown = Page(html).shown()
    for claim in ledger.read_claims():
        assert " ".join(claim.says.split()) in shown
    assert "95 % interval" in shown and "not attempted" in shown


def test_an_ablation_is_shown_where_there_is_one(run, tmp_path):
    folder = tmp_path / "ablation"
    folder.mkdir()
    row = {"model": "zero", "decoding": "greedy", "by_seed": {"1": 0.1, "2": 0.2}, "accuracy": 0.15, "low": 0.05,
           "high": 0.3, "spread": 0.07, "seeds": 2, "n": 480}  # fmt: skip
    step = {"before": "base", "after": "zero", "decoding": "greedy", "difference": 0.15, "low": 0.05, "high": 0.3,
            "inside_noise": False, "by_seed": {"1": 0.1, "2": 0.2}, "p": 0.01, "seeds": 2, "n": 480}  # fmt: skip
    write_json(folder / "ablation.json", {"seeds": [1, 2], "rows": [row], "steps": [step]})
    plotting.save_figure(plotting.funnel([{"stage": "a", "count": 2}]), tmp_path / "07_report" / "figures", "ablation")
    page = build_report(run | {"ablation": folder}, tmp_path / "07_report" / "report.html").read_text("utf8")
    shown = Page(page).shown()
    assert "GRPO only greedy 15.0 [5.0, 30.0] 7.0 2 480 10.0 20.0" in shown
    assert "base GRPO only greedy +15.0 [+5.0, +30.0] no 0.01 2 480 +10.0 +20.0" in shown
    assert "The recipe with steps left out" in page and 'id="ablation"' in page
    assert 'id="ablation"' not in build_report(run, tmp_path / "without" / "report.html").read_text("utf8")


def test_the_manifests_of_plan_ablation_and_other_runs_are_there_as_far_as_they_are(run, outputs):
    """06 names another seed, a paper-like run (made anew since) and a Zero run (gone); the ablation its seeds."""

    def complete(folder: Path, made: str, **inputs) -> dict:
        record = manifest(folder.name, {}) | {"run": folder.parent.name, "outputs_sha256": made, "inputs": inputs}
        folder.mkdir(parents=True)
        write_json(folder / "manifest.json", record)
        return {"path": str(folder), "sha256": made}

    seed, again = (complete(outputs / name / "06_benchmark", "ef" * 32) for name in ("seed1", "pooled"))
    data = complete(outputs / "mine" / "01_data", "01" * 32)
    gone = {"path": "outputs/zero/05_grpo", "sha256": "ef" * 32}
    others = {"seed_stages[0]": seed, "paper_like_stage": again | {"sha256": "00" * 32}, "zero_stage": gone}
    complete(outputs / "mine" / "06_benchmark", "02" * 32, data_stage=data, **others)
    complete(outputs / "mine" / "00_overview", "03" * 32)
    complete(outputs / "all" / "ablation", "04" * 32, seed1_stage=seed, seed2_stage=gone)
    write_json(outputs / "all" / "ablation" / "ablation.json", {"seeds": [1], "rows": [], "steps": []})
    stages = {name: outputs / "mine" / name for name in ("01_data", "06_benchmark")}
    path = outputs / "mine" / "07_report" / "report.html"

    def named(stages: dict[str, Path]) -> list[str]:
        page = Page(build_report(stages, path).read_text("utf8"))
        return [a["id"].removeprefix("manifest-") for _, a in page.tags if a.get("id", "").startswith("manifest-")]

    mine = ["01_data", "06_benchmark", "00_overview"]
    assert named(stages | {"ablation": outputs / "all" / "ablation"}) == [*mine, "ablation", "seed1/06_benchmark"]
    assert named(stages) == [*mine, "seed1/06_benchmark"]


def test_a_table_sets_each_number_beside_its_interval():
    rows = [{"model": "a", "n": 1200, "accuracy": 0.25, "low": 0.2, "high": 0.31, "gap": 0.01, "gap_low": -0.02,
             "gap_high": None, "format_part": -0.013, "detectable": 0.05, "gap_note": 2}]  # fmt: skip
    shown = table(rows)
    assert [(c["text"], c["span"]) for c in shown["header"]] == [
        ("model", 1), ("n", 1), ("accuracy (%)", 2), ("gap (points)", 2), ("format part (points)", 1),
        ("detectable (points)", 1), ("gap note", 1),
    ]  # fmt: skip
    assert [c["text"] for c in shown["rows"][0]] == [
        "a",
        "1,200",
        "25.0",
        "[20.0, 31.0]",
        "+1.0",
        "",
        "-1.3",
        "+5.0",
        "2",
    ]


def test_what_a_judge_is_worth_is_a_table_in_percent():
    row = {"model": "base", "judged share": 0.5, "as judged": 0.8, "corrected": 0.7, "low": 0.6, "high": 0.8,
           "judge_error": "taken out"}  # fmt: skip
    unknown = row | dict.fromkeys(("corrected", "low", "high")) | {"judge_error": "not measured"}
    cells = [[c["text"] for c in line] for line in table([row, unknown])["rows"]]
    assert cells == [["base", "50.0", "80.0", "70.0", "[60.0, 80.0]", "taken out"],
                     ["base", "50.0", "80.0", "-", "", "not measured"]]  # fmt: skip


@pytest.mark.parametrize("seconds, text", [(12.3, "12 s"), (389, "6 min 29 s"), (3700, "1 h 01 min"), (0, "0 s")])
def test_a_duration_reads_like_one(seconds, text):
    assert duration(seconds) == text


def test_the_environment_says_where_stages_differ():
    first, second = manifest("a", {}), manifest("b", {}) | {"versions": {"torch": "2.14.0"}}
    rows = environment({"a": first, "b": second})
    assert {"what": "cpu", "value": "a cpu", "stages": "all"} in rows
    assert [(r["value"], r["stages"]) for r in rows if r["what"] == "torch"] == [("2.13.0", "a"), ("2.14.0", "b")]
    assert {"what": "gpus", "value": "none", "stages": "all"} in rows


def test_a_machine_without_a_converter_says_so_and_leaves_no_old_pdf(tmp_path, monkeypatch):
    monkeypatch.setenv("FINR1_BROWSER", "no-such-browser")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    page, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text("<p>x</p>")
    pdf.write_bytes(b"of an older report")
    assert write_pdf(page, pdf).startswith("no report.pdf: neither a Chromium nor weasyprint")
    assert not pdf.exists()


def test_a_browser_that_fails_does_not_fail_the_run(tmp_path, monkeypatch):
    broken = tmp_path / "broken-browser"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("FINR1_BROWSER", str(broken))
    page = tmp_path / "report.html"
    page.write_text("<p>x</p>")
    assert write_pdf(page, tmp_path / "report.pdf") == "no report.pdf: broken-browser failed (CalledProcessError)"


def test_the_same_run_gives_the_same_report(run, tmp_path):
    first, second = (build_report(run, tmp_path / name, seed=1).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


# ---- the sentences --------------------------------------------------------------------------------------------------


def sentences(rates: dict) -> list[str]:
    own = samples(rates)
    return summary_sentences(results_table(own), paired_table(own, seed=0), "synthetic problems")


def test_five_sentences_hold_levels_steps_format_and_limits():
    told = sentences(GAIN)
    assert len(told) == 5
    assert told[0].startswith("On 60 held-out problems (synthetic problems), greedy accuracy is: base ")
    assert "From base to SFT" in told[1] and "with sampled decoding" in told[1]
    assert "From SFT to SFT + GRPO" in told[2]
    assert "% of the gain" in told[3] and "read leniently" in told[3]
    assert "not another training seed" in told[4] and "compared with the paper" in told[4]
    assert all(re.search(r"[.]$", sentence) for sentence in told)


@pytest.mark.parametrize(
    "sources, base, says, not_says",
    [
        (["synthetic"], "SmolLM2-135M-Instruct", ["none of these", "synthetic", "SmolLM2-135M-Instruct"], ["ledger"]),
        (["finqa", "tfns"], "SmolLM2-135M-Instruct", ["none of these", "SmolLM2-135M"], ["other questions", "ledger"]),
        (["synthetic"], "Qwen/Qwen2.5-7B-Instruct", ["none of these", "other questions: synthetic"], ["base model"]),
        (["finqa", "tfns"], "/models/Qwen2.5-7B-Instruct/", ["only where the replication ledger does"], ["none of"]),
        (["finqa", "finpee"], "Qwen/Qwen2.5-7B-Instruct", ["none of these", "finpee"], ["finqa", "ledger"]),
        (["finqa"], None, ["none of these", "unknown"], ["ledger"]),
    ],
)
def test_what_may_be_compared_with_the_paper_depends_on_the_run(sources, base, says, not_says):
    own = samples(GAIN)
    rows, steps = results_table(own), paired_table(own, seed=0)
    last = summary_sentences(rows, steps, "x", reported.why_apart(sources, base))[-1]
    assert all(text in last for text in says) and not any(text in last for text in not_says)
    shown = [axes.get_title() for axes in plotting.beside_the_paper(rows, reported.recipe_rows(), "x").axes]
    assert not any("other tasks" in title for title in shown)


def test_the_page_says_why_it_stands_apart(html):
    assert "must not be compared with the ones above (other questions: synthetic" in Page(html).shown()


def test_no_difference_is_called_noise_and_no_gain_is_shared_out():
    told = sentences(FLAT)
    assert "inside the noise" in told[1] and "inside the noise" in told[2]
    assert "of the gain" not in told[3]


def test_a_clear_gain_is_not_called_noise():
    assert "noise" not in " ".join(sentences(GAIN)[1:3])


def test_a_difference_that_holms_correction_takes_away_is_called_noise():
    own = samples(GAIN)
    steps = paired_table(own, seed=0)
    weak = [step | {"p_holm": 0.05 if step["after"] == "sft" else 0.049} for step in steps]
    told = summary_sentences(results_table(own), weak, "synthetic problems")
    assert told[1].count(", which is noise among so many comparisons") == 2  # greedy and sampled
    assert "noise" not in told[2]
    axes = plotting.paired_forest(weak).axes[0]
    dots = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [step["after"] == "sft" for step in weak]


def test_an_accuracy_of_a_part_of_the_answers_is_not_told_as_a_plain_one():
    opened = [s.model_copy(update={"correct": None}) if s.problem_id[-1] in "02468" else s for s in samples(GAIN)]
    told = summary_sentences(results_table(opened), paired_table(opened, seed=0), "open questions")
    assert told[0].count("of the 30 of 60 answers that could be graded") == 3
    assert "on the 30 of 60 problems that could be graded" in told[1]


def test_open_questions_that_nobody_graded_still_give_a_report_and_figures(tmp_path):
    """No two items are decided: no step anywhere, and no crash."""
    own = [s.model_copy(update={"correct": None, "lenient_correct": None}) for s in samples(GAIN, items=8)]
    write_jsonl(tmp_path / "06_benchmark" / "samples.jsonl", own)
    rows, steps = results_table(own), paired_table(own, seed=0)
    assert steps == []
    for number, fig in enumerate(
        (plotting.benchmark_bars(rows), plotting.paired_forest(steps), plotting.decomposition_bars(steps),
         plotting.beside_the_paper(rows, reported.recipe_rows(), "this run"), plotting.protocol_scores([], []),
         plotting.accuracy_by(results_table(own, by="capability"), "capability"))
    ):  # fmt: skip
        plotting.save_figure(fig, tmp_path / "figures", f"figure_{number}")
    page = build_report({"06_benchmark": tmp_path / "06_benchmark"}, tmp_path / "report.html")
    shown = Page(page.read_text("utf8")).shown()
    assert "not known (no answer could be graded)" in shown and "8 of 8 answers undecided" in shown


def test_the_report_takes_the_judges_error_out_of_what_it_shows(tmp_path):
    """Half of the answers are judged, by one that passes half of what is wrong; then its verdicts are lost."""
    ruled = samples({"base": (1.0, 0.2), "sft": (1.0, 0.5), "grpo": (1.0, 0.5)}, items=100)
    key = {"model", "decoding", "problem_id", "sample"}
    verdicts = [
        Verdict(**s.model_dump(include=key), judge="J", verdict=bool(s.correct) or n % 8 in (0, 1),
                rules=s.correct if n % 4 > 1 else None, study=n % 4 > 1)
        for n, s in enumerate(ruled)
    ]  # fmt: skip
    verdicts = [v.model_copy(update={"verdict": bool(v.rules) or n % 8 in (2, 3)}) if v.study else v
                for n, v in enumerate(verdicts)]  # fmt: skip
    folder = tmp_path / "06_benchmark"
    final = apply_verdicts(ruled, verdicts)
    write_jsonl(folder / "samples.jsonl", final)
    plain = next(row for row in results_table(final) if (row["model"], row["decoding"]) == ("base", "greedy"))
    for kept, said in ((verdicts, "its error is taken out of accuracies"), ([], "its error is not measured")):
        write_jsonl(folder / "verdicts.jsonl", kept)
        shown = Page(build_report({"06_benchmark": folder}, tmp_path / "report.html").read_text("utf8")).shown()
        assert said in shown
        as_judged = f"base greedy 100 100 {100 * plain['accuracy']:.1f} ["
        assert (as_judged in shown) is not bool(kept)


def test_one_model_alone_has_no_steps():
    told = sentences({"base": GAIN["base"]})
    assert len(told) == 2
    assert "difference" not in told[1]


def test_the_summary_fits_a_terminal():
    own = samples(GAIN)
    text = summary_text(results_table(own), paired_table(own, seed=0))
    assert max(map(len, text.splitlines())) <= 100


# ---- the paper's numbers --------------------------------------------------------------------------------------------


def test_the_reported_table_is_consistent():
    for row in reported.RESULTS:
        mean = sum(row["scores"].values()) / len(row["scores"])
        printed_otherwise = row["model"] == "R1-Distill-Llama-70B"  # 69.2 is printed, 68.8 is the row's mean
        assert (abs(mean - row["mean"]) < 0.06) != printed_otherwise
        assert row["place"]
    assert [row["model"] for row in reported.recipe_rows()] == ["Qwen2.5-7B-Instruct", "Fin-R1-SFT", "Fin-R1"]


def test_the_ten_sources_sum_to_the_data_set():
    assert len(reported.SOURCES) == 10
    assert sum(row["kept"] for row in reported.SOURCES) == reported.RECORDS
