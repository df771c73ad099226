"""What the Fin-R1 paper and its README report, each number with its place: to print beside a run.

Nothing here was measured by this project. The paper used a 7B model, real benchmarks (see
`QUESTIONS`) and a judge model that it does not name; it states neither decoding, seeds nor intervals. A number of
another model or of other questions stands beside these, not on their scale (`why_apart`); else `ledger` decides.
"""

from __future__ import annotations

from collections.abc import Iterable

PAPER = "arXiv 2503.16252, version 5 (2026-03-19)"
README = "README of the repository SUFE-AIFLM-Lab/Fin-R1"

BENCHMARKS = ("FinQA", "ConvFinQA", "Ant_Finance", "TFNS", "Finance-Instruct")
# The paper's name of a benchmark -> the project's name of its source.
SOURCE_NAMES = dict(
    zip(BENCHMARKS, ("finqa", "convfinqa", "ant_finance", "tfns", "finance_instruct_500k"), strict=True)
)
BASE, SFT, GRPO = "Qwen2.5-7B-Instruct", "Fin-R1-SFT", "Fin-R1"  # the three steps of the recipe in the paper's table


def _row(model: str, *numbers: float, note: str = "") -> dict:
    *scores, mean = numbers
    by_name = dict(zip(BENCHMARKS, scores, strict=True))
    return {"model": model, "scores": by_name, "mean": mean, "place": PAPER, "note": note}


ZERO = "Fin-R1-Zero"  # GRPO from the base model, without SFT

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

# One model, three groups, three protocols: FinQA for Qwen2.5-7B-Instruct.
PROTOCOLS = [
    {"group": "Fin-o1 paper", "score": 55.4},
    {"group": "Fin-R1 paper", "score": 60.0},
    {"group": "a third group", "score": 66.7},
]

# Number of questions behind each column, as far as the paper states it.
QUESTIONS = {name: "1,000 at random (all if fewer)" for name in BENCHMARKS[:4]} | {
    "Finance-Instruct": "a stratified 10 % subset"
}
NOT_STATED = ("the judge model", "the decoding", "the seeds", "intervals")


def _source(name: str, module: str, language: str, kind: str, raw: float, kept: int, home: str) -> dict:
    row = {"source": name, "module": module, "language": language, "type": kind, "raw": round(raw * 1000)}
    return row | {"kept": kept, "home": home, "place": PAPER}


# Fin-R1-Data: 60,091 records. `raw` is printed in thousands with two decimals.
SOURCES: list[dict] = [
    _source("FinCorpus", "non-reasoning business knowledge", "zh", "corpus", 235.21, 29_288, "Duxiaoman-DI/FinCorpus"),
    _source("Finance-Instruct-500k", "professional knowledge", "en", "QA", 518.19, 11_300,
            "Josephgflowers/Finance-Instruct-500k"),
    _source("ConvFinQA", "reasoning business knowledge", "en", "QA, multi-turn", 14.12, 7_629, "czyssrs/ConvFinQA"),
    _source("FinQA", "reasoning business knowledge", "en", "QA, table + text", 8.28, 2_948, "czyssrs/FinQA"),
    _source("FinanceIQ", "professional knowledge", "zh", "choice", 7.17, 2_596, "Duxiaoman-DI/XuanYuan"),
    _source("TFNS", "reasoning business knowledge", "en", "sentiment", 11.93, 2_451,
            "zeroshot/twitter-financial-news-sentiment"),
    _source("FinCUGE", "reasoning business knowledge", "zh", "multi-task", 66.67, 2_000,
            "ssymmetry/BBT-FinCUGE-Applications"),
    _source("Ant_Finance", "non-reasoning business knowledge", "zh", "choice / true-false", 8.45, 1_548,
            "alipay/financial_evaluation_dataset"),
    _source("FinPEE", "professional knowledge", "zh", "calculation", 0.35, 179, "closed (university exams)"),
    _source("FinanceQT", "code", "en", "choice / code QA", 0.39, 152, "lumalik/Quant-Trading-Instruct"),
]  # fmt: skip
RECORDS = 60_091

# Share of wrong verdicts (percent) of two judges on 100 FinQA items x 5 repeats, against people, by prompt.
ANSWER_CHECK: list[dict] = [
    {"prompt": prompt, "Qwen2.5-72B-Instruct": qwen, "GPT-4o": gpt, "place": PAPER}
    for prompt, qwen, gpt in [
        ("the one that was used: without the question", 0.4, 2.8),
        ("with the question", 8.0, 6.0),
        ("inputs at the end", 2.0, 2.0),
        ("with the question and inputs at the end", 9.6, 4.8),
        ("in Chinese", 1.6, 5.2),
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


def ablation_rows() -> list[dict]:
    """The rows of `RESULTS` for base, GRPO only, SFT and Fin-R1: the paper's ablation."""
    by_model = {row["model"]: row for row in RESULTS}
    return [by_model[name] for name in (BASE, ZERO, SFT, GRPO)]


def recipe_rows() -> list[dict]:
    """The rows of `RESULTS` for base, SFT and Fin-R1, in the order of the recipe."""
    by_model = {row["model"]: row for row in RESULTS}
    return [by_model[name] for name in (BASE, SFT, GRPO)]


def why_apart(sources: Iterable[str], base: str | None) -> str:
    """Why no number of a run may be held against the paper's; empty where `ledger` decides number by number.

    `sources`: those of the run's benchmark items; `base`: its base model, as a folder or a hub id.
    """
    other = sorted(set(sources) - set(SOURCE_NAMES.values()))
    reasons = [f"other questions: {', '.join(other)}"] if other else []
    name = (base or "").rstrip("/").rpartition("/")[2]
    if name.casefold() != BASE.casefold():
        reasons.append(f"another base model: {name or 'unknown'} instead of {BASE}")
    return "; ".join(reasons)
