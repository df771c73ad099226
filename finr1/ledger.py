"""The replication ledger: each claim of the paper, what a run did about it, what it got, and a finding by rule.

A score is *reproduced* when it lies in this run's 95 % interval, *not reproduced* outside it, and *not attempted* where
the run could not have met it: other questions, another base model, an interval wider than `WIDEST` to either side, open
questions that nobody graded. A setting is *followed* or *departed from*; what the paper leaves open is *open*.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from finr1 import reported
from finr1.evaluation import change_text, estimate, percent, points
from finr1.judge import TAKEN_OUT
from finr1.paths import data_beside

FINDINGS = ("reproduced", "not reproduced", "not attempted", "followed", "departed from", "open")
WIDEST = 0.05  # an interval wider than this to either side would "reproduce" nearly anything
UNREAD = 0.01  # share of answers that a judge may leave ungraded, its reply being no verdict


def read_claims() -> list[dict]:
    """The claims of `ledger.yaml` in their order; its head says what the fields are."""
    claims = []
    for block in data_beside(__file__, "ledger.yaml"):
        members, other = block.pop("claims", []), block.pop("each_score", {})
        if other:
            places = [(row["model"], name) for row in reported.RESULTS for name in reported.BENCHMARKS]
            members = [{"says": block["says"].format(model=model, benchmark=name), "reported": [f"{model}/{name}"]}
                       | other.get(f"{model}/{name}", {}) for model, name in places]  # fmt: skip
        claims += [{"note": ""} | block | claim for claim in members]
    return claims


def number(claim: Mapping) -> float | None:
    """A share in [0, 1] or a difference of two; None for a claim without a reported number."""
    scores = {row["model"]: row["scores"] for row in reported.RESULTS}
    values = [scores[model][at] / 100 for model, at in (place.split("/") for place in claim.get("reported", []))]
    return values[0] - sum(values[1:]) if values else None


def hold(claim: Mapping, manifests: Mapping[str, Mapping], rows: Sequence[Mapping], steps: Sequence[Mapping]) -> dict:
    """`claim` with its number as `shown`, what the run `did` and `got`, the `finding` by the rules above, and `why`.

    `manifests`: stage -> its manifest; `rows` of `evaluation.results_table` by source, `steps` of `paired_table`, one
    source at a time, which is in "source"; a judge's error is taken out of the rows alone.
    """
    settings = {f"{stage}.{name}": value for stage, made in manifests.items()
                for name, value in made["parameters"].items()}  # fmt: skip
    parameter, value = claim.get("parameter"), number(claim)
    shown = _text(claim.get("expected", [""])[0]) if "above" not in claim else f"above {claim['above']:g}"
    if value is not None:
        shown = points(value) if len(claim["reported"]) == 2 else f"{percent(value)} %"
    did = _setting(parameter, settings) if parameter in settings else ""
    entry = dict(claim) | {"shown": shown, "did": did, "got": "", "finding": "not attempted", "why": ""}
    where, also = ([_setting(name, settings) for name, values in claim.get(key, {}).items()
                    if settings.get(name) not in values] for key in ("where", "also"))  # fmt: skip
    if claim["status"] == "not stated":
        entry["finding"] = "open"
    elif where:
        entry["why"] = where[0]
    elif "by_hand" in claim:
        entry["why"] = f"by hand: {claim['by_hand']}"
    elif "reported" in claim:
        entry |= _hold_score(claim, settings, rows, steps)
    elif claim["status"] == "contradicted":
        entry |= {"finding": "open", "why": "the sources disagree"}
    elif "built_in" in claim:
        entry |= {"finding": "followed"} if claim["built_in"] else {"finding": "departed from", "why": "not built"}
    elif parameter not in settings:
        entry["why"] = "the stage has not run"
    else:
        value = settings[parameter]
        follows = any(_equal(value, expected) for expected in claim.get("expected", []))
        follows = value > claim["above"] if "above" in claim else follows
        entry |= {"finding": "followed" if follows and not also else "departed from", "why": ", ".join(also)}
    return entry


def _hold_score(claim: Mapping, settings: Mapping, rows: Sequence[Mapping], steps: Sequence[Mapping]) -> dict:
    """An accuracy (one reported place), or the paired difference of two models on one benchmark (two places)."""
    recipe = {model: step for step, model in reported.RECIPE.items()}
    places = [place.split("/") for place in claim["reported"]]
    models, source = [recipe.get(model, model) for model, _ in places], reported.SOURCE_NAMES[places[0][1]]
    asked = [row for row in rows if row["source"] == source and row["model"] in models]
    if {row["model"] for row in asked} != set(models):
        return {"why": f"this run did not ask {' and '.join(reversed(models))} anything of {source}"}
    decoding = min((row["decoding"] for row in asked), key=lambda name: name != "greedy")  # the paper states none
    asked = [row for row in asked if row["decoding"] == decoding]
    left, n = (sum(row[key] for row in asked) for key in ("undecided", "samples"))
    judged = any("judge_error" in row for row in asked)
    # Rules call a missing answer wrong, so the accuracy of the rest leans to that.
    if left > (UNREAD * n if judged else 0):
        return {"why": f"{left} of {n} answers are undecided{' after the judge' if judged else '; no judge'}"}
    paired = len(models) == 2
    if paired:
        asked = [step for step in steps if (step["source"], step["decoding"]) == (source, decoding)
                 and [step["after"], step["before"]] == models]  # fmt: skip
    if not asked:
        return {"why": "fewer than two items have an answer of both models"}
    [row] = asked
    got = {"did": f"{decoding}, {row['n']} items{', paired' if paired else ''}"}
    if "judge_error" in row:
        out = row["judge_error"] == TAKEN_OUT
        got["did"] += ", judged, its error taken out" if out else ", as judged, its error not included"
    value = row["difference" if paired else "accuracy"]
    got["got"] = change_text(row) if paired else estimate(value, row["low"], row["high"])
    base, cut = settings.get("06_benchmark.model_name_or_path"), settings.get("01_data.max_context_chars")
    if models[0] in reported.RECIPE and not _equal(base, reported.RECIPE["base"]):
        return got | {"why": f"another base model ({base})"}
    if cut:
        return got | {"why": f"contexts are cut to {cut} characters"}
    if max(row["high"] - value, value - row["low"]) > WIDEST:
        return got | {"why": f"{row['n']} items are too few: the interval is wider than {100 * WIDEST:g} points"}
    inside = row["low"] <= number(claim) <= row["high"]
    finding, where = ("reproduced", "inside") if inside else ("not reproduced", "outside")
    return got | {"finding": finding, "why": f"{where} this run's interval"}


def _equal(value: Any, expected: Any) -> bool:
    """Equal; names of models by their last part, lists as sets."""
    if isinstance(value, str) and isinstance(expected, str):
        return value.rpartition("/")[2].casefold() == expected.rpartition("/")[2].casefold()
    return set(value) == set(expected) if isinstance(value, list) and isinstance(expected, list) else value == expected


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _setting(parameter: str, settings: Mapping[str, Any]) -> str:
    return f"{parameter.partition('.')[2]} = {_text(settings.get(parameter))}"
