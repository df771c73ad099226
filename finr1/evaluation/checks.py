"""What a score hides: training on the test items, and golds that are known to be bad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from finr1.evaluation.rendering import change_text, estimate, remark, render_rows
from finr1.evaluation.samples import Sample
from finr1.evaluation.several import holm
from finr1.evaluation.tables import decided_items, paired_row, results_table
from finr1.params import read_flat_yaml
from finr1.paths import resolve
from finr1.records import Problem, read_jsonl

RUNS = ("clean", "paper_like")  # the tracks of notebook 01


def contamination_table(clean: Sequence[Sample], paper_like: Sequence[Sample], seed: int) -> list[dict]:
    """The gap between a run that had the test items in its training pool and one that had not: a row a model.

    Paired over the same items, `difference` = paper_like - clean with its interval; the base model was trained on
    neither pool, so its gap shows what the comparison makes of nothing. A model with fewer than two items that are
    decided in both has no row. Raises `ValueError` when the two runs saw other items or prompts, share no model with
    such items, or a judge graded one of them alone.
    """
    if {s.graded_by for s in clean} != {s.graded_by for s in paper_like}:
        raise ValueError("a judge graded one of the two runs alone; the gap would be the judge's")
    rows = []
    for model, decoding in dict.fromkeys((s.model, s.decoding) for s in clean):
        before, after = ([s for s in run if (s.model, s.decoding) == (model, decoding)] for run in (clean, paper_like))
        if len(decided_items(before, after)) > 1:
            row = paired_row(before, after, seed)
            for run, members in zip(RUNS, (before, after), strict=True):
                alone = results_table(members)[0]
                row |= {run: alone["accuracy"], f"{run}_low": alone["low"], f"{run}_high": alone["high"]}
            rows.append({"model": model, "decoding": decoding} | row)
    if not rows:
        raise ValueError("the two runs share no model and decoding with two decided items")
    return [row | {"p_holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]


def check_tracks(clean: Path, paper_like: Path) -> None:
    """Raise `ValueError` unless one benchmark is of a run with `track` clean and the other of one with paper_like.

    Both are folders of a finished notebook 06; the track is that of the notebook 01 that each was asked from.
    """
    for stage, wanted in ((clean, "clean"), (paper_like, "paper_like")):
        data = resolve(read_flat_yaml(stage / "params.yaml").values["data_stage"])
        track = read_flat_yaml(data / "params.yaml").values["track"]
        if track != wanted:
            raise ValueError(f'{stage}: asked from {data}, whose track is "{track}"; here "{wanted}" is needed')


def bad_gold_table(samples: Iterable[Sample]) -> list[dict]:
    """Accuracy over all items, over those without a known flaw, and over the flawed alone: a row a model."""
    samples = list(samples)
    kinds = {"all": samples, "without": [s for s in samples if not s.flaw], "flawed": [s for s in samples if s.flaw]}
    found = {
        kind: {(row["model"], row["decoding"]): row for row in results_table(members)}
        for kind, members in kinds.items()
    }
    rows = []
    for key, row in found["all"].items():
        parts = {kind: table.get(key) for kind, table in found.items()}
        shares = {
            kind: (part["accuracy"], part["low"], part["high"], part["n"]) for kind, part in parts.items() if part
        }
        rows.append({"model": row["model"], "decoding": row["decoding"], **shares})
    return rows


def render_bad_golds(rows: Sequence[dict]) -> str:
    """`bad_gold_table` as text, in percent with 95 % intervals and the number of items."""
    kinds = ("all", "without", "flawed")
    names = {"all": "all items", "without": "without bad golds", "flawed": "bad golds alone"}
    lines = [
        [row["model"], row["decoding"], *(_share(*row[kind]) if row.get(kind) else "-" for kind in kinds)]
        for row in rows
    ]
    return render_rows(["model", "decoding", *names.values()], lines, 2)


def render_contamination(rows: Sequence[dict]) -> str:
    """`contamination_table` as text; a gap inside the noise, alone or among so many, says so."""
    lines = [
        [row["model"], row["decoding"], str(row["n"]),
         *(estimate(row[run], row[f"{run}_low"], row[f"{run}_high"]) for run in RUNS),
         change_text(row), f"{row['p']:.3g}",
         f"{row['p_holm']:.3g}", remark(row)]
        for row in rows
    ]  # fmt: skip
    header = ["model", "decoding", "items", *(f"{run} [95 %]" for run in RUNS), "gap [95 %]", "p", "Holm", ""]
    return render_rows(header, lines, 2)


def flawed_rows(problems: Iterable[Problem]) -> list[dict]:
    """The problems with a known bad gold: id, what is wrong, and the golds that contradict each other."""
    return [
        {"id": p.id, "flaw": p.flaw, "golds": " | ".join([p.gold, *p.alternatives]), "question": p.question}
        for p in problems
        if p.flaw
    ]


def read_samples(stage: Path) -> list[Sample]:
    """The samples of a finished benchmark."""
    return list(read_jsonl(stage / "samples.jsonl", Sample))


def _share(accuracy: float | None, low: float | None, high: float | None, n: int) -> str:
    return f"{estimate(accuracy, low, high)} n={n}"
