"""Every figure from realistic rows, warnings as errors: no missing glyph, no failed layout, no label cut off."""

from __future__ import annotations

import ast
import math
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
import torch
from recipes import cells

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from finr1 import plotting, reported, synthetic  # noqa: E402
from finr1.evaluation import Sample, paired_table, protocol_rows, results_table  # noqa: E402
from finr1.evaluation.tables import PARTS  # noqa: E402
from finr1.plotting.style import MODEL_MARKERS, WIDTH, looks  # noqa: E402

# What another test has left open is collected at any time; it is no fault of a figure.
pytestmark = pytest.mark.filterwarnings("error", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def samples(items: int = 40) -> list[Sample]:
    rng = random.Random(0)
    rows = []
    for number in range(items):
        for model, (formatted, right) in {"base": (0.05, 0.02), "sft": (0.7, 0.2), "grpo": (1.0, 0.4)}.items():
            for decoding, answers in (("greedy", 1), ("sampled", 4)):
                for k in range(answers):
                    correct = rng.random() < right
                    rows.append(
                        Sample(
                            model=model, decoding=decoding, problem_id=f"synthetic/{number}", sample=k, source="s",
                            family=["利率计算", "price_$_change", "growth"][number % 3],
                            capability=["calculation", "risk", "esg"][number % 3], language="en", question="?",
                            gold="1", prompt_sha256="x", text="t", tokens=30, finish_reason="stop", answer="1",
                            lenient_answer="1", format=rng.random() < formatted, correct=correct,
                            lenient_correct=correct or rng.random() < 0.1,
                        )
                    )  # fmt: skip
    return rows


SAMPLES = samples()
PROTOCOLS = {name: SAMPLES for name in ("ours", "strict", "lenient", "judge")}
RESULTS, STEPS = results_table(SAMPLES), paired_table(SAMPLES, seed=0)


def sft_rows(steps: int = 60) -> list[dict]:
    rng = random.Random(1)
    rows = [
        {"step": s, "loss": 2 * math.exp(-s / 20) + rng.random() / 10, "mean_token_accuracy": 1 - math.exp(-s / 20) / 2,
         "learning_rate": 1e-4 * (1 - s / steps), "grad_norm": 1 + rng.random(), "epoch": s / steps,
         "tokens_per_s": 400 + 50 * rng.random(), "memory_gib": 1.5 + s / 200, "peak_memory_gib": 3.1}
        for s in range(1, steps + 1)
    ]  # fmt: skip
    probe = {"step": 0, "memory_probe_gib": 3.1, "memory_probe_tokens": 900, "memory_gib": 1.4, "peak_memory_gib": 3.1}
    return [probe, *rows, {"step": steps, "train_runtime": 90.0, "train_loss": 0.5}]  # the trainer's last line


def grpo_rows(steps: int = 12, **other) -> list[dict]:
    rng = random.Random(2)
    rows = [
        {"step": s, "rewards/format_reward/mean": 0.6 + s / 40, "rewards/accuracy_reward/mean": 0.2 + rng.random() / 10,
         "reward": 0.8 + s / 40, "reward_std": 0.4, "frac_reward_zero_std": 0.3, "completions/mean_length": 35.0 - s,
         "completions/clipped_ratio": 0.2, "entropy": 1 / s, "clip_ratio/region_mean": 0.001 * s, "step_time": 40.0,
         "loss": 0.0} | other
        for s in range(1, steps + 1)
    ]  # fmt: skip
    probe = {"step": 0, "memory_probe_gib": 3.1, "memory_probe_tokens": 900, "memory_gib": 1.4, "peak_memory_gib": 3.1}
    return [probe, *rows, {"step": steps, "train_runtime": 500.0}]


PHASES = {
    "kl": 0.01, "time/generate": 25.0, "time/score": 6.0, "time/reward": 0.2, "time/update": 15.0,
    "watch/agreement": 0.7, "watch/no_reasoning": 0.1, "watch/repetition": 0.05,
}  # fmt: skip
FUNNEL = [
    {"stage": s, "kept": {"x": c}, "dropped": {}}
    for s, c in [("raw", 8281), ("gold readable", 7893), ("去重之后", 5006)]
]
NOTHING = [{"stage": "raw", "kept": {"x": 0}, "dropped": {}}]
PROBLEMS = [p for split in ("train", "dev", "test") for p in synthetic.generate_problems(60, split, 0)]
YIELDS = [
    {"series": judge, "label": f"at least {least}", "k": kept, "n": 90}
    for judge, counts in (("rules", (80, 60, 40)), ("model", (70, 65, 50)))
    for least, kept in zip((5, 6, 7), counts, strict=True)
]
AUDIT = [{"label": f, "n": n, "k": k} for f, n, k in [("wrong_answer", 41, 41), ("off_domain", 0, 0), ("none", 800, 7)]]
SEEDS = [row | {"by_seed": {"1": 0.2, "2": 0.3}, "seeds": 2} for row in RESULTS]
MEMORY = {"04 SFT": {"weights": 1.5, "optimizer": 3.0}, "05 GRPO": {"weights": 1.5, "sampling": 2.0}}
NUMBERS = {"train": "370,000\nproblems", "traces": "370,000\ntraces", "sft": "up to 300,000\ngood traces",
           "rl": "up to 70,000\nproblems", "test": "up to 5,000\ntest items",
           "groups": "120,000 completions"}  # fmt: skip
CHANCE = [s.model_copy(update={"model": m, "decoding": "none", "sample": 0})
          for m in ("guess", "constant") for s in SAMPLES if s.model == "sft" and s.decoding == "greedy"]  # fmt: skip
DECISIONS = [p for p in synthetic.generate_problems(60, "test", 1) if p.answer_kind in ("boolean", "label")]
DECIDED = [
    SAMPLES[0].model_copy(update={"model": model, "decoding": "greedy", "problem_id": p.id, "family": p.family,
                                  "source": p.source, "answer_kind": p.answer_kind, "gold": p.gold, "answer": answer})
    for model in ("sft", "grpo") for p in DECISIONS for answer in [p.gold if model == "sft" else "yes"]
]  # fmt: skip


def drawn(notebook: str, *ids: str, **names):
    """The figure that cells of a notebook draw."""
    run = SimpleNamespace(figures=Path(tempfile.gettempdir()) / "finr1-figures")
    return cells(notebook, *ids, run=run, **names)["fig"]


def shares(*arguments):
    return cells("03_filtering", "shares")["shares_figure"](*arguments)


def accuracy_by(*arguments):
    return cells("06_benchmark", "accuracy-by")["accuracy_by"](*arguments)


FIGURES = {
    "funnel": lambda: drawn("01_data", "cell-25", "funnel-figure", funnel=FUNNEL),
    "funnel of one stage": lambda: drawn("01_data", "cell-25", "funnel-figure", funnel=NOTHING),
    "data set": lambda: drawn("01_data", "cell-26", problems=PROBLEMS),
    "data set of one kind": lambda: drawn("01_data", "cell-26", problems=PROBLEMS[:1]),
    "audit": lambda: shares(AUDIT, "rejected by the filter"),
    "scores": lambda: drawn("03_filtering", "shares", "scores-figure", readable=[
        SimpleNamespace(points={"consistency": i % 9 > 0, "three_steps": True}) for i in range(90)]),
    "one judge": lambda: shares(YIELDS[:3], "traces kept"),
    "two judges": lambda: shares(YIELDS, "traces kept"),
    "memory": lambda: drawn("11_machine", "memory-figure", planned={"memory": MEMORY, "peak_gib": 4.5}, available=80,
                            where="GPU"),
    "pipeline": lambda: drawn("00_overview", "pipeline-figure", numbers=NUMBERS, said="preset demo, as planned"),
    "sft": lambda: plotting.training_curves(sft_rows()),
    "sft of one step": lambda: plotting.training_curves(sft_rows(1)),
    "live": lambda: plotting.training_curves(grpo_rows(5), ["reward", "kl", "completions/mean_length"]),
    "live before the first row": lambda: plotting.training_curves([], ["loss"], columns=1),
    "grpo": lambda: plotting.grpo_curves(grpo_rows())["rewards"],
    "grpo with KL": lambda: plotting.grpo_curves(grpo_rows(300, **PHASES))["moves"],
    "grpo with phases": lambda: plotting.grpo_curves(grpo_rows(300, **PHASES))["cost"],
    "grpo with signs": lambda: plotting.grpo_curves(grpo_rows(300, **PHASES))["signal"],
    "grpo with a wild step": lambda: plotting.grpo_curves(
        [*grpo_rows(9, **PHASES), *grpo_rows(1, kl=29_000.0)])["moves"],
    "grpo with looks": lambda: plotting.grpo_curves([
        *grpo_rows(9, accuracy=0.4, **{"watch/one_answer": 0.6, "answer_entropy/within": 0.3}),
        *({"step": step, "eval_accuracy": step / 10} for step in (0, 4, 8))])["rewards"],
    "grpo without rows": lambda: plotting.grpo_curves([])["rewards"],
    "verifier": lambda: plotting.grpo_curves(
        grpo_rows(**{"verifier/undecided": 0.6, "verifier/cached": 0.2, "verifier/failed": 0.05}))["cost"],
    "clip": lambda: drawn("05_grpo", "clip-figure", torch=torch,
                          params=SimpleNamespace(epsilon=0.2, epsilon_high=0.28)),
    "benchmark": lambda: drawn("06_benchmark", "cell-13", rows=RESULTS, models={"base", "sft", "grpo"}),
    "benchmark, one model": lambda: drawn("06_benchmark", "cell-13", rows=[RESULTS[0]], models={"base"}),
    "forest": lambda: plotting.paired_forest(STEPS),
    "by capability": lambda: accuracy_by(results_table(SAMPLES, by="capability"), "capability"),
    "by family": lambda: accuracy_by(results_table(SAMPLES, by="family"), "family", "sampled"),
    "protocols": lambda: accuracy_by(protocol_rows(PROTOCOLS), "protocol"),
    "protocols with others": lambda: accuracy_by(
        protocol_rows({name: [s.model_copy(update={"model": m}) for s in SAMPLES for m in ("base", "利率", "GPT-$")]
                       for name in PROTOCOLS}), "protocol"),
    "what chance is worth": lambda: accuracy_by(results_table([*CHANCE, *SAMPLES], "family"), "family"),
    "benchmark with chance": lambda: drawn(
        "06_benchmark", "cell-13", rows=results_table([*CHANCE, *SAMPLES]), models={"base", "sft", "grpo"}),
    "ways": lambda: drawn("06_benchmark", "ways", "ways-figure", head=[
        s.model_copy(update={"way": ["at_once", "by_parts"][n % 2]}) for n, s in enumerate(SAMPLES)]),
    "answers given": lambda: drawn("06_benchmark", "given-answers", "answers-map", samples=DECIDED, problems=DECISIONS),
    "pass at k": lambda: drawn("06_benchmark", "pass-at", "pass-figure", head=SAMPLES,
                               params=SimpleNamespace(num_samples=4)),
    "decomposition": lambda: drawn("06_benchmark", "cell-17", steps=STEPS),
    "beside the paper": lambda: plotting.beside_the_paper(RESULTS, reported.recipe_rows(), "synthetic, 135M", "x"),
    "over seeds": lambda: plotting.beside_the_paper(SEEDS, [], "preset demo"),
}  # fmt: skip


def beyond_limits(ax) -> set[int]:
    """The labels of ticks that lie beyond the limits of their axis, and so are never drawn."""
    return {
        id(label)
        for axis in (ax.xaxis, ax.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }


def texts(fig) -> list:
    """Every text that `fig` shows."""
    fig.canvas.draw()
    hidden = set().union(*(beyond_limits(ax) for ax in fig.axes))
    found = [text for text in fig.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]
    return [text for text in found if id(text) not in hidden and (text.axes is None or text.axes.get_visible())]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_without_warning_and_cuts_no_text(name):
    fig = FIGURES[name]()
    assert fig.get_figwidth() == WIDTH
    for text in texts(fig):
        box = text.get_window_extent()
        assert box.x0 >= -2 and box.x1 <= fig.bbox.width + 2, f"{text.get_text()!r} is cut off: {box}"
        assert box.y0 >= -2 and box.y1 <= fig.bbox.height + 2, f"{text.get_text()!r} is cut off: {box}"


def panel_texts(fig) -> str:
    return "\n".join(text.get_text() for text in texts(fig))


OF_ACCURACY = ["benchmark", "what chance is worth", "benchmark with chance", "forest", "by capability",
               "by family", "protocols", "decomposition", "beside the paper", "over seeds",
               "audit", "two judges"]  # fmt: skip


@pytest.mark.parametrize("name", OF_ACCURACY)
def test_a_figure_of_accuracies_shows_n_and_says_what_its_intervals_are(name):
    shown = panel_texts(FIGURES[name]())
    assert "n = " in shown
    assert "95 %" in shown and "interval" in shown


def test_each_part_of_a_gain_has_its_interval():
    lines = FIGURES["decomposition"]().axes[0].lines
    shown = [tuple(line.get_xdata()) for line in lines if len(set(line.get_ydata())) == 1]
    for row in STEPS:
        names = [("low", "high"), *((f"{part}_low", f"{part}_high") for part in PARTS)]
        assert {(100 * row[low], 100 * row[high]) for low, high in names} <= set(shown)


def test_models_with_other_numbers_of_items_are_not_shown_as_one():
    rows = [RESULTS[0], RESULTS[2] | {"n": 25}]
    assert "n = 25–40" in panel_texts(drawn("06_benchmark", "cell-13", rows=rows, models={"base", "sft"}))
    assert "n = 25–40" in panel_texts(plotting.beside_the_paper(rows, reported.recipe_rows(), "x"))


def test_a_run_without_kl_says_so_in_the_panel():
    assert "no KL term in this run (beta = 0)" in panel_texts(plotting.grpo_curves(grpo_rows())["moves"])
    assert "no KL term" not in panel_texts(plotting.grpo_curves(grpo_rows(kl=0.01))["moves"])


def test_each_reward_has_its_panel_whatever_it_is_called_and_however_large_it_gets():
    shown = panel_texts(plotting.grpo_curves(grpo_rows())["rewards"])
    assert "format reward" in shown and "accuracy reward" in shown
    third = [row | {"rewards/len_penalty/mean": -3.0 - row["step"]} for row in grpo_rows() if "reward" in row]
    fig = plotting.grpo_curves(third)["rewards"]
    (ax,) = (ax for ax in fig.axes if ax.get_title(loc="left") == "len penalty")
    assert ax.get_ylim()[0] < -15 and ax.get_ylim()[1] > 1
    assert sum(ax.get_visible() for ax in fig.axes) == len(plotting.grpo_curves(grpo_rows())["rewards"].axes) + 1


def test_no_figure_of_a_usual_run_has_more_than_four_panels():
    figures = plotting.grpo_curves(grpo_rows(**PHASES)).values()
    assert all(len(fig.axes) <= 4 for fig in figures)


def test_the_paper_stands_apart():
    run = (RESULTS, reported.recipe_rows(), "synthetic problems, 135M")
    shown = panel_texts(plotting.beside_the_paper(*run, "other questions"))
    assert "Not comparable" in shown and "this run" in shown and "reported by the paper" in shown
    shown = panel_texts(plotting.beside_the_paper(*run))
    assert "Not comparable" not in shown and "ledger" in shown


def test_the_bold_line_is_the_mean_of_the_last_steps_and_a_value_that_was_not_logged_is_left_out():
    rows = [{"step": 1, "kl": 4.0}, {"step": 2, "kl": None}, {"step": 3, "kl": float("nan")}, {"step": 4, "kl": 2.0},
            {"step": 5, "kl": 0.0}, {"step": 6, "kl": 6.0}]  # fmt: skip
    raw, bold = plotting.training_curves(rows, ["kl"]).axes[0].lines
    assert raw.get_xydata().tolist() == [[1, 4], [4, 2], [5, 0], [6, 6]]
    assert bold.get_ydata() == pytest.approx([4, 3, 2, 8 / 3])


def test_every_model_has_its_own_colour_and_marker():
    for codes in (plotting.MODEL_COLOURS, MODEL_MARKERS):
        assert set(codes) == {"base", "zero", "sft", "grpo"}
        assert len(set(codes.values())) == 4
    others = looks(["base", "grpo", "Fin-R1", "DeepSeek-R1"])
    assert len({look.colour for look in others.values()}) == len({look.marker for look in others.values()}) == 4


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("债 A", "U+503A  A"),  # no empty box in the place of a glyph
        ("growth → 5 %", "growth → 5 %"),  # DejaVu has the arrow
        ("$5 to $7", r"\$5 to \$7"),  # two dollars would start TeX
        ("two\nlines", "two lines"),
        (7, "7"),
    ],
)
def test_a_label_is_drawn_on_every_machine(monkeypatch, text, drawn):
    monkeypatch.setattr("finr1.plotting.style.CJK_FONTS", ())
    plotting.use_style()
    assert plotting.safe_text(text) == drawn


def test_an_installed_chinese_font_is_used(monkeypatch):
    monkeypatch.setattr("finr1.plotting.style.CJK_FONTS", ("no such font", "DejaVu Serif", "DejaVu Sans Mono"))
    plotting.use_style()
    assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "DejaVu Serif"]
    assert plotting.safe_text("债券 A") == "债券 A"


# ---- files and notebooks --------------------------------------------------------------------------------------------


def test_a_saved_figure_is_two_files_and_the_same_each_time(tmp_path):
    for folder in ("a", "b"):
        assert plotting.save_figure(plotting.paired_forest(STEPS), tmp_path / folder, "steps") is None
    for name in ("steps.pdf", "steps.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "a" / "steps.pdf").read_bytes()  # the second may be the same by chance


def test_a_notebook_gets_the_titles_of_a_saved_figure_as_its_alt_text(tmp_path):
    """IPython takes the metadata from the figure and the picture from its own formatter."""
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.pylabtools import print_figure

    fig = plotting.training_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], ["loss", "kl"])
    plotting.save_figure(fig, tmp_path, "curves")
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(matplotlib.figure.Figure, print_figure)
    data, metadata = formatter.format(fig)
    titles = [ax.get_title("left") for ax in fig.axes]
    assert all(titles) and metadata["image/png"]["alt"] == "; ".join(titles)
    assert data["image/png"].startswith(b"\x89PNG")
    bare = matplotlib.figure.Figure()
    plotting.save_figure(bare, tmp_path, "bare")
    assert formatter.format(bare)[1]["image/png"]["alt"] == "bare"


def test_show_source_is_highlighted_and_complete():
    shown = plotting.show_source(looks)
    assert "def looks" in shown.data
    assert ast.parse(shown.data)
    assert 'class="highlight"' in shown._repr_html_()


def test_the_live_curve_is_redrawn_in_its_place_and_leaves_no_figure_open(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.DisplayHandle.display", lambda handle, fig: shown.append("new"))
    monkeypatch.setattr("IPython.display.DisplayHandle.update", lambda handle, fig: shown.append("in its place"))
    callback = plotting.show_live(["loss"], seconds=0)
    callback(sft_rows(3))
    callback(sft_rows(4))
    assert shown == ["new", "in its place"]
    slow = plotting.show_live(["loss"], seconds=3600)
    slow(sft_rows(3))
    slow(sft_rows(4))  # too soon: not drawn
    assert len(shown) == 3
    assert plt.get_fignums() == []
