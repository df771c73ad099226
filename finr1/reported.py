"""What the Fin-R1 paper and its README report, from reported.yaml, to print beside a run.

The paper used a 7B model, real benchmarks and a judge model that it does not name; it states neither decoding, seeds
nor intervals. Whether a run's number may be held against one of these, `ledger` decides.
"""

from finr1.paths import data_beside

_STATED = data_beside(__file__, "reported.yaml")
PAPER, QUESTIONS, NOT_STATED, CAVEATS = (_STATED[name] for name in ("paper", "questions", "not_stated", "caveats"))
SOURCE_NAMES: dict[str, str] = _STATED["benchmarks"]
BENCHMARKS = tuple(SOURCE_NAMES)
RECIPE: dict[str, str] = _STATED["recipe"]
SOURCES: list[dict] = _STATED["sources"]
RESULTS: list[dict] = [
    {**row, "scores": dict(zip(BENCHMARKS, row["scores"], strict=True)), "note": row.get("note", "")}
    for row in _STATED["results"]
]


def recipe_rows() -> list[dict]:
    """The rows of `RESULTS` for the models of `RECIPE`, in its order: the paper's ablation."""
    by_model = {row["model"]: row for row in RESULTS}
    return [by_model[name] for name in RECIPE.values()]
