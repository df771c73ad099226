"""The page of notebook 07 is one file that needs nothing else, escapes what models wrote, and calls noise noise."""

from __future__ import annotations

import base64
import io
import random
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import pandas
import pytest
from markupsafe import Markup
from recipes import cells

matplotlib.use("Agg")

from finr1 import ledger, paths, pipeline, plotting, reported  # noqa: E402
from finr1.evaluation import (  # noqa: E402
    Sample,
    paired_table,
    protocol_rows,
    results_table,
)
from finr1.judge import Verdict, apply_verdicts  # noqa: E402
from finr1.manifest import digest, write_json  # noqa: E402
from finr1.params import STAGES as STAGE_PARAMS  # noqa: E402
from finr1.records import write_jsonl  # noqa: E402
from finr1.report import Page  # noqa: E402

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
STAGES = ("01_data", "02_distillation", "03_filtering", "04_sft", "05_grpo", "06_benchmark")
GAIN = {"base": (0.05, 0.02), "sft": (0.7, 0.3), "grpo": (1.0, 0.8)}
FLAT = {"base": (0.5, 0.3), "sft": (0.5, 0.3), "grpo": (0.5, 0.3)}


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


def manifest(stage: str, metrics: dict) -> dict:
    return {
        "stage": stage, "run": "demo", "seed": 3, "metrics": metrics, "inputs": {}, "outputs": {},
        "outputs_sha256": digest({}), "started": "2026-01-01T10:00:00+00:00",
        "parameters": {"learning_rate": 3e-5, "note": ATTACK, "data_dir": None, "num_generations": 4, "track": "clean",
                       "decontaminate_ngram": 13, "benchmark_names": ["synthetic"], "model_name_or_path": "SmolLM2"},
        "code": {"commit": "0123456789abcdef-dirty"}, "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "a cpu", "cores": 2, "gpus": []}, "phases_s": {"generation": 301.2, "update": 88.1},
        "peak_memory_gib": {"notebook": 1.2}, "finished": "2026-01-01T10:12:00+00:00",
    }  # fmt: skip


def made_page(root: Path, answers: Sequence[Sample], verdicts: Sequence[Verdict] = (), **changed) -> Path:
    """Notebook 07's own cells, run over a run in `root` whose stages are made up; the folder of 07."""
    funnel = [{"stage": "raw", "count": 1000}, {"stage": ATTACK, "count": 900}]
    lenient = [sample.model_copy(update={"correct": sample.lenient_correct}) for sample in answers]
    metrics = {
        "01_data": {"funnel": funnel, "contaminated": 7},
        "04_sft": {"wide": [{f"column_{n}": n / 7 for n in range(30)} | {"text": "w" * 200}], "long": "x" * 500},
        "05_grpo": {"warnings": [f"the policy writes {ATTACK}"], "stopped": None},
        "06_benchmark": {"protocols": protocol_rows({"ours": answers, "lenient": lenient}),
                         "seeds": [{"model": "sft", "accuracy": 0.3, "low": 0.2, "high": 0.4, "n": 60},
                                   {"model": "constant", "accuracy": 0.25, "low": None, "high": None, "n": 60}]},
    }  # fmt: skip
    plotting.use_style()
    for name in STAGES:
        folder = root / "demo" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "manifest.json", manifest(name, metrics.get(name, {})))
        if name in ("01_data", "05_grpo"):
            plotting.save_figure(plotting.training_curves([], ["loss"]), folder / "figures", "the_funnel")
    write_jsonl(folder / "samples.jsonl", answers)
    write_jsonl(folder / "verdicts.jsonl", verdicts)
    rollouts(root / "demo" / "05_grpo" / "completions")
    notebook = nbformat.read(paths.repository_root() / "notebooks" / "07_report.ipynb", 4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FINR1_OUTPUTS", str(root))
        names: dict = {}
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"run": "demo"} | changed
    return root / "demo" / "07_report"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return made_page(tmp_path_factory.mktemp("outputs"), samples(GAIN))


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text("utf8")


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


class PageParser(HTMLParser):
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


def test_nothing_is_fetched_from_anywhere(html):
    for tag, attrs in PageParser(html).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in html and "@import" not in html


def test_links_lead_to_headings_that_exist(html):
    tags = PageParser(html).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= set(ids)


def test_figures_are_inlined_whole_and_described(html, folder):
    images = [attrs for tag, attrs in PageParser(html).tags if tag == "img"]
    assert [attrs["alt"] for attrs in images] == ["the funnel", "the funnel", "beside the paper"]
    data = base64.b64decode(images[0]["src"].partition(",")[2], validate=True)
    assert data == (folder.parent / "01_data" / "figures" / "the_funnel.png").read_bytes()


def test_what_models_and_data_say_is_text_and_not_markup(html):
    assert "<script" not in html and "<img src=x" not in html
    shown = PageParser(html).shown()
    assert ATTACK in shown  # shown as it was written, and not as 49
    assert shown.count(ATTACK) >= 5  # in a table of metrics, a warning, a parameter, a rollout and a sample


def test_each_number_stands_with_its_interval_and_n(html):
    shown = PageParser(html).shown()
    for row in results_table(samples(GAIN)):
        interval = f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        assert f"{row['n']} {row['samples']} {interval}" in shown
    for step in paired_table(samples(GAIN), seed=42):
        assert (
            f"{step['n']} {100 * step['difference']:+.1f} [{100 * step['low']:+.1f}, {100 * step['high']:+.1f}]"
            in shown
        )
    assert "sft 0.3 [0.2, 0.4] 60 constant 0.25 60" in shown  # a stage's own table


def test_the_papers_numbers_stand_apart(html):
    shown = PageParser(html).shown()
    own, _, paper = shown.rpartition("Reported by the paper, not measured here")
    assert "must not be compared with the ones above (other questions: synthetic" in paper
    assert "DeepSeek-R1" in paper and "DeepSeek-R1" not in own
    for row in reported.RESULTS:
        scores = " ".join(f"{row['scores'][name]:.1f}" for name in reported.BENCHMARKS)
        assert f"{row['model']} {scores} {row['mean']:.1f}" in paper


def test_costs_and_provenance_are_there(html):
    shown = PageParser(html).shown()
    for text in ("generation 301.2", "seed 3, commit 0123456789 with uncommitted changes", "3e-05", "a cpu"):
        assert text in shown
    assert "In all 0:38:56" in shown  # six stages of 389 s


def test_the_same_answers_stand_under_every_protocol(html):
    rows = results_table(samples(GAIN))
    row = next(row for row in rows if (row["model"], row["decoding"]) == ("sft", "greedy"))
    for protocol, key in (("ours", "accuracy"), ("lenient", "lenient")):
        assert f"{protocol} sft greedy 60 {100 * row[key]:.1f} [" in PageParser(html).shown()


def test_the_question_that_changed_most_is_shown_early_and_late(html):
    shown = PageParser(html).shown()
    assert "1 of 2 questions came back" in shown or "2 of 2 questions came back" in shown
    assert f"step 1 {ATTACK}" in shown and f"step 12 {ATTACK}" in shown


def test_the_ledger_is_there_claim_by_claim(html):
    shown = PageParser(html).shown()
    for claim in ledger.read_claims():
        assert " ".join(claim["says"].split()) in shown


def test_the_summary_is_the_table_and_the_sentences(folder):
    text = (folder / "summary.txt").read_text("utf8")
    assert text.splitlines()[1].startswith("model decoding") and "On 60 held-out problems" in text
    assert max(map(len, text.rpartition("\n\n")[2].splitlines())) <= 100


def test_an_ablation_is_shown_where_there_is_one(tmp_path):
    ablation = tmp_path / "all" / "09_ablation"
    ablation.mkdir(parents=True)
    write_json(ablation / "manifest.json", manifest("09_ablation", {}))
    (ablation / "ablation.txt").write_text(f"GRPO only 15.0 [5.0, 30.0] {ATTACK}")
    plotting.save_figure(plotting.training_curves([], ["loss"]), ablation / "figures", "ablation")
    made = made_page(tmp_path, samples(GAIN), ablation_stage=str(ablation))
    page = PageParser((made / "report.html").read_text("utf8"))
    assert f"GRPO only 15.0 [5.0, 30.0] {ATTACK}" in page.shown()
    assert "ablation" in [attrs["alt"] for tag, attrs in page.tags if tag == "img"]


def test_a_part_is_shown_by_its_kind_and_in_the_notebook_as_on_the_page():
    page = Page("a run")
    rows = [{"model": "a", "share": "25.0 [20.0, 31.0]", "n": 1200}, {"model": "<b>", "share": None, "n": 7}]
    shown = page.add(
        "Results", "A text.", rows, {"seed_of": 3}, ["one", "two"], [], Markup("<i>as it is</i>")
    )._repr_html_()
    right, left = (f'<td style="text-align:{side}' for side in ("right;white-space:nowrap", "left;white-space:nowrap"))
    assert f'{right}">25.0 [20.0, 31.0]</td>' in shown and f'{right}">1,200</td>' in shown
    assert f'{left}">&lt;b&gt;</td>' in shown
    for text in ("<p>A text.</p>", "<dt>seed of</dt><dd>3</dd>", "<li>two</li>", "<i>as it is</i>"):
        assert text in shown
    assert 'left;white-space:normal">&lt;b&gt;</td>' in page.add("Results", rows, look="folded")._repr_html_()


def test_open_questions_that_nobody_graded_still_give_a_page_and_figures(tmp_path):
    """No two items are decided: no step anywhere, and no crash."""
    own = [s.model_copy(update={"correct": None, "lenient_correct": None}) for s in samples(GAIN, items=8)]
    rows, steps = results_table(own), paired_table(own, seed=0)
    assert steps == []
    by_capability = cells("06_benchmark", "accuracy-by")["accuracy_by"](
        results_table(own, by="capability"), "capability"
    )
    plotting.save_figure(by_capability, tmp_path, "by_capability")
    models, run = {row["model"] for row in rows}, SimpleNamespace(figures=tmp_path / "figures")
    cells("06_benchmark", "cell-13", "cell-15", "cell-17", rows=rows, steps=steps, models=models, run=run)
    assert len(list(run.figures.iterdir())) == 6
    shown = PageParser((made_page(tmp_path, own) / "report.html").read_text("utf8")).shown()
    assert "not known (no answer could be graded)" in shown and "8 of 8 answers undecided" in shown


def test_the_judges_error_is_taken_out_of_what_the_page_shows(tmp_path):
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
    final = apply_verdicts(ruled, verdicts)
    plain = next(row for row in results_table(final) if (row["model"], row["decoding"]) == ("base", "greedy"))
    for name, kept, said in (("a", verdicts, "its error is taken out of acc"), ("b", [], "its error is left in")):
        shown = PageParser((made_page(tmp_path / name, final, kept) / "report.html").read_text("utf8")).shown()
        assert said in shown
        assert (f"base greedy 100 100 {100 * plain['accuracy']:.1f} [" in shown) is not bool(kept)


def test_what_chance_is_worth_stands_on_the_page_with_the_step_and_the_seed(tmp_path):
    answers = samples(GAIN)
    asked = [s for s in answers if s.model == "sft" and s.decoding == "greedy"]
    worth = [s.model_copy(update={"model": model, "decoding": "none", "correct": n % 4 == 0})
             for model in ("guess", "constant") for n, s in enumerate(asked)]  # fmt: skip
    (tmp_path / "demo" / "06_benchmark").mkdir(parents=True)
    write_jsonl(tmp_path / "demo" / "06_benchmark" / "chance.jsonl", worth)
    shown = PageParser((made_page(tmp_path, answers) / "report.html").read_text("utf8")).shown()
    (step,) = (
        s for s in paired_table(answers, 42) if (s["before"], s["decoding"], s["after"]) == ("sft", "greedy", "grpo")
    )
    assert f"GRPO after SFT, points {100 * step['difference']:+.1f}" in shown
    assert "one training, seed 3" in shown and "a constant is worth 25.0 %" in shown
    assert "GRPO after SFT, seed 3: greedy" in shown and "SFT + GRPO is above the constant" in shown
    assert "constant none 60 60 25.0" in shown
    for by in ("numbers", "risk", "synthetic"):  # kind, capability, source
        assert f"constant none {by} 60 60 25.0" in shown


def test_the_headline_is_of_problems_with_two_ways_where_there_are_such(tmp_path):
    answers = samples(GAIN)
    two = {"way": "by_parts", "family": "sums"}
    mixed = [s.model_copy(update=two) if s.problem_id < "synthetic/020" else s for s in answers]
    text = (made_page(tmp_path, mixed) / "summary.txt").read_text("utf8")
    assert "On 20 held-out problems (synthetic problems with two ways to the answer)" in " ".join(text.split())


# ---- the band of the shipped seeds ----------------------------------------------------------------------------------

SEEDS = "seed,processor,torch,date,sft_greedy,grpo_greedy,sft_sampled,grpo_sampled\n"
SHIPPED = SEEDS + "42,A,2.13.0,2026-01-01,30.0,50.0,31.0,52.0\n43,A,2.13.0,2026-01-01,34.0,60.0,33.0,58.0\n"


def band(shipped: str, measured: dict[str, float], made: dict | None = None, **changed) -> list[str]:
    """What 07 says of a run of the demo's parameters, or of `changed` ones, with these accuracies."""
    table = pandas.read_csv(io.StringIO(shipped))
    stages = pipeline.load_preset("demo", "r", list(STAGE_PARAMS)[1:7], [f"{k}={v}" for k, v in changed.items()])
    made = {"hardware": {"cpu": "A"}, "versions": {"torch": "2.13.0"}, "seed": 42} | (made or {})
    manifests = {stage: made | {"parameters": params.model_dump(mode="json")} for stage, params in stages.items()}
    rows = [{"model": name.split("_")[0], "decoding": name.split("_")[1], "accuracy": value / 100}
            for name, value in measured.items()]  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pandas, "read_csv", lambda _: table)
        return cells(
            "07_report", "held-against", "band", manifests=manifests, rows=rows, run=SimpleNamespace(name="r")
        )["band"]


def test_five_of_the_eight_shipped_seeds_lie_outside_the_band_of_the_others_as_07_says():
    table = pandas.read_csv(paths.repository_root() / "params" / "demo" / "seeds.csv")
    names = [f"{model}_{how}" for how in ("greedy", "sampled") for model in ("sft", "grpo")]
    outside = 0
    for place, row in table.iterrows():
        lines = band(table.drop(index=place).to_csv(index=False), {name: row[name] for name in names})
        outside += any(": below the band" in line or ": above the band" in line for line in lines)
    assert (outside, len(table)) == (5, 8)


INSIDE = {"sft_greedy": 31.0, "grpo_greedy": 52.0, "sft_sampled": 33.04, "grpo_sampled": 55.0}


def test_a_run_inside_the_band_is_said_to_be_and_gives_no_reasons():
    said = band(SHIPPED, INSIDE, seed=7)  # another seed is the demo still
    assert said[0] == "sft greedy 31.0: inside the band of 2 seeds, 30.0 to 34.0."
    assert "step greedy 21.0: inside the band of 2 seeds, 20.0 to 26.0." in said
    assert len(said) == 6 and all("inside" in line for line in said)


def test_a_run_outside_the_band_names_what_is_not_as_in_the_shipped_seeds():
    *said, last = band(SHIPPED, INSIDE | {"grpo_greedy": 32.0}, {"hardware": {"cpu": "B"}, "seed": 44})
    assert "grpo greedy 32.0: below the band of 2 seeds, 50.0 to 60.0." in said
    assert "step greedy 1.0: below the band of 2 seeds, 20.0 to 26.0." in said
    assert last == "Possible reasons, since the shipped seeds have none of these: processor B, seed 44."
    *said, last = band(SHIPPED, INSIDE | {"grpo_sampled": 70.0})
    assert "grpo sampled 70.0: above the band" in " ".join(said) and last.startswith(
        "Processor, torch and seed are among"
    )
    assert len(band(SHIPPED, {"sft_greedy": 31.0})) == 1  # nothing is said of what was not measured


def test_without_seeds_or_with_other_parameters_there_is_no_band():
    assert band(SEEDS, INSIDE) == ["No band yet: 0 seeds are shipped."]
    other = {"05_grpo.max_steps": 3, "06_benchmark.num_items": 7}
    (said,) = band(SHIPPED, INSIDE, **other)
    assert said == "No band: these parameters are not the demo's: 05_grpo.max_steps, 06_benchmark.num_items."


def test_the_shipped_seeds_have_the_columns_that_the_band_reads():
    text = (paths.repository_root() / "params" / "demo" / "seeds.csv").read_text("utf8")
    assert text.startswith(SEEDS) and all(len(line.split(",")) == 8 for line in text.splitlines())


# ---- the sentences --------------------------------------------------------------------------------------------------


def told_by(*arguments) -> list[str]:
    return cells("07_report", "sentence-parts", "sentences")["sentences"](*arguments)


def sentences(rates: dict) -> list[str]:
    own = samples(rates)
    return told_by(results_table(own), paired_table(own, seed=0), "synthetic problems", "")


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
    apart = cells("07_report", "why-apart")["why_apart"](sources, base)
    last = told_by(rows, steps, "x", apart)[-1]
    assert all(text in last for text in says) and not any(text in last for text in not_says)


def test_no_difference_is_called_noise_and_no_gain_is_shared_out():
    told = sentences(FLAT)
    assert "inside the noise" in told[1] and "inside the noise" in told[2]
    assert "of the gain" not in told[3]


def test_a_base_that_never_keeps_the_format_leaves_nothing_to_share_out():
    told = sentences(GAIN | {"base": (0.0, 0.0)})
    assert "cannot tell form from content" in told[3] and "of the gain" not in told[3]


def test_a_clear_gain_is_not_called_noise():
    assert "noise" not in " ".join(sentences(GAIN)[1:3])


def test_a_difference_that_holms_correction_takes_away_is_called_noise():
    own = samples(GAIN)
    steps = paired_table(own, seed=0)
    weak = [step | {"p_holm": 0.05 if step["after"] == "sft" else 0.049} for step in steps]
    told = told_by(results_table(own), weak, "synthetic problems", "")
    assert told[1].count(", which is noise among so many comparisons") == 2  # greedy and sampled
    assert "noise" not in told[2]
    axes = plotting.paired_forest(weak).axes[0]
    dots = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [step["after"] == "sft" for step in weak]


def test_an_accuracy_of_a_part_of_the_answers_is_not_told_as_a_plain_one():
    opened = [s.model_copy(update={"correct": None}) if s.problem_id[-1] in "02468" else s for s in samples(GAIN)]
    told = told_by(results_table(opened), paired_table(opened, seed=0), "open questions", "")
    assert told[0].count("of the 30 of 60 answers that could be graded") == 3
    assert "on the 30 of 60 problems that could be graded" in told[1]


def test_one_model_alone_has_no_steps():
    told = sentences({"base": GAIN["base"]})
    assert len(told) == 2
    assert "difference" not in told[1]


# ---- the paper's numbers --------------------------------------------------------------------------------------------


def test_the_reported_table_is_consistent():
    for row in reported.RESULTS:
        mean = sum(row["scores"].values()) / len(row["scores"])
        printed_otherwise = row["model"] == "R1-Distill-Llama-70B"  # 69.2 is printed, 68.8 is the row's mean
        assert (abs(mean - row["mean"]) < 0.06) != printed_otherwise
    models = ["Qwen2.5-7B-Instruct", "Fin-R1-Zero", "Fin-R1-SFT", "Fin-R1"]
    assert [row["model"] for row in reported.recipe_rows()] == models


def test_the_ten_sources_sum_to_the_data_set():
    assert len(reported.SOURCES) == 10
    assert sum(row["kept"] for row in reported.SOURCES) == 60_091
