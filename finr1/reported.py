"""What the Fin-R1 paper and its README report: to print beside a run. Nothing here was measured by this project.

The paper used a 7B model, real benchmarks and a judge model that it does not name; it states neither decoding, seeds
nor intervals. A number of another model or of other questions stands beside these, not on their scale (`why_apart`);
else `ledger` decides.
"""

from collections.abc import Iterable

PAPER = "arXiv 2503.16252, version 5 (2026-03-19)"

# The paper's name of a benchmark -> the project's name of its source.
SOURCE_NAMES = {
    "FinQA": "finqa", "ConvFinQA": "convfinqa", "Ant_Finance": "ant_finance", "TFNS": "tfns",
    "Finance-Instruct": "finance_instruct_500k",
}  # fmt: skip
BENCHMARKS = tuple(SOURCE_NAMES)
# The steps of the recipe -> the paper's name of the model; "zero" is GRPO from the base model, without SFT.
RECIPE = {"base": "Qwen2.5-7B-Instruct", "zero": "Fin-R1-Zero", "sft": "Fin-R1-SFT", "grpo": "Fin-R1"}


def _row(model: str, *numbers: float, note: str = "") -> dict:
    *scores, mean = numbers
    return {"model": model, "scores": dict(zip(BENCHMARKS, scores, strict=True)), "mean": mean, "note": note}


# Accuracy in percent, and the mean that the paper prints.
RESULTS: list[dict] = [
    _row("DeepSeek-R1", 71.0, 82.0, 90.0, 78.0, 70.0, 78.2),
    _row("Fin-R1", 76.0, 85.0, 81.0, 71.0, 62.9, 75.2),
    _row("Qwen2.5-32B-Instruct", 72.0, 78.0, 84.0, 77.0, 58.0, 73.8),
    _row("R1-Distill-Qwen-32B", 70.0, 72.0, 87.0, 79.0, 54.0, 72.4),
    _row("Fin-R1-SFT", 73.0, 81.0, 76.0, 68.0, 61.4, 71.9, note="the README prints 61.0 for Finance-Instruct"),
    _row("Qwen2.5-14B-Instruct", 68.0, 77.0, 84.0, 72.0, 56.0, 71.4),
    _row("R1-Distill-Llama-70B", 68.0, 74.0, 84.0, 62.0, 56.0, 69.2, note="mean as printed; that of the row is 68.8"),
    _row("Fin-R1-Zero", 62.1, 76.3, 72.2, 70.9, 57.6, 67.8, note="GRPO only"),
    _row("R1-Distill-Qwen-14B", 62.0, 73.0, 82.0, 65.0, 49.0, 66.2),
    _row("Qwen2.5-7B-Instruct", 60.0, 66.0, 85.0, 68.0, 49.0, 65.6),
    _row("R1-Distill-Qwen-7B", 55.0, 62.0, 71.0, 60.0, 42.0, 58.0),
]

QUESTIONS = "1,000 at random of each benchmark (all if fewer), of Finance-Instruct a stratified 10 % subset"
NOT_STATED = ("the judge model", "the decoding", "the seeds", "intervals")


# Fin-R1-Data, 60,091 records. The raw ones are printed in thousands with two decimals.
_BUSINESS, _REASONING = "non-reasoning business knowledge", "reasoning business knowledge"
SOURCES: list[dict] = [
    {"source": source, "module": module, "language": language, "raw": raw, "kept": kept}
    for source, module, language, raw, kept in [
        ("FinCorpus", _BUSINESS, "zh", 235_210, 29_288),
        ("Finance-Instruct-500k", "professional knowledge", "en", 518_190, 11_300),
        ("ConvFinQA", _REASONING, "en", 14_120, 7_629),
        ("FinQA", _REASONING, "en", 8_280, 2_948),
        ("FinanceIQ", "professional knowledge", "zh", 7_170, 2_596),
        ("TFNS", _REASONING, "en", 11_930, 2_451),
        ("FinCUGE", _REASONING, "zh", 66_670, 2_000),
        ("Ant_Finance", _BUSINESS, "zh", 8_450, 1_548),
        ("FinPEE", "professional knowledge", "zh", 350, 179),
        ("FinanceQT", "code", "en", 390, 152),
    ]
]

# What stands beside these numbers wherever they are shown.
CAVEATS = (
    "The raw sizes equal all splits summed (FinQA, ConvFinQA, TFNS) and no exclusion of the evaluation questions is "
    "stated: contamination is possible. This is an inference.",
    "Ant_Finance falls from 85 (base) to 81. FinQA from SFT to RL is +3 at n = 1,000: z = 1.5 unpaired, not "
    "significant.",
    "The released weights score 58.74 on FinQA in the Fin-o1 paper (the base there 55.37). The same base model gets "
    "60.0, 66.7 or 55.4 on FinQA under three groups' protocols: the protocol is worth 11 points.",
)


def recipe_rows() -> list[dict]:
    """The rows of `RESULTS` for the models of `RECIPE`, in its order: the paper's ablation."""
    by_model = {row["model"]: row for row in RESULTS}
    return [by_model[name] for name in RECIPE.values()]


def why_apart(sources: Iterable[str], base: str | None) -> str:
    """Why no number of a run may be held against the paper's; empty where `ledger` decides number by number.

    `sources`: those of the run's benchmark items; `base`: its base model, as a folder or a hub id.
    """
    other = sorted(set(sources) - set(SOURCE_NAMES.values()))
    reasons = [f"other questions: {', '.join(other)}"] if other else []
    name = (base or "").rstrip("/").rpartition("/")[2]
    if name.casefold() != RECIPE["base"].casefold():
        reasons.append(f"another base model: {name or 'unknown'} instead of {RECIPE['base']}")
    return "; ".join(reasons)
