"""Each claim of the paper has its place and status, its number stands once, and a verdict follows from a rule."""

from __future__ import annotations

import random
import re

import pytest

from finr1 import ledger, reported
from finr1.evaluation import Sample, paired_table, results_table
from finr1.judge import Verdict, apply_verdicts, with_judge_error
from finr1.ledger import WIDEST
from finr1.params import STAGES

CLAIMS = ledger.read_claims()
PAPER_MODEL = "Qwen/Qwen2.5-7B-Instruct"


def samples(source: str, right: dict[str, float], items: int) -> list[Sample]:
    """Greedy answers to `items` questions; `right`: model -> share that is right, the same items first."""
    return [
        Sample(
            model=model, decoding="greedy", problem_id=f"{source}/{n:05d}", sample=0, source=source, family="f",
            capability="calculation", language="en", question="q", gold="1", prompt_sha256="x", text="t", tokens=3,
            finish_reason="stop", answer="1", lenient_answer="1", format=True, correct=n < share * items,
            lenient_correct=True,
        )
        for model, share in right.items()
        for n in range(items)
    ]  # fmt: skip


def run(
    parameters: dict | None = None,
    metrics: dict | None = None,
    answers: list[Sample] = (),
    verdicts: list[Verdict] = (),
) -> tuple:
    """`parameters` and `metrics`: "<stage>.<name>" -> value; rows and steps as notebook 07 makes them."""
    manifests: dict = {}
    for kind, flat in (("parameters", parameters or {}), ("metrics", metrics or {})):
        for name, value in flat.items():
            stage, _, key = name.partition(".")
            manifests.setdefault(stage, {"parameters": {}, "metrics": {}})[kind][key] = value
    rows, steps = with_judge_error(results_table(answers, by="source"), answers, verdicts), []
    for source in {s.source for s in answers} & set(reported.SOURCE_NAMES.values()):
        own = [s for s in answers if s.source == source]
        judged = {"judge_error": "left in"} if any(s.graded_by == "judge" for s in own) else {}
        steps += [step | judged | {"source": source} for step in paired_table(own, 0)]
    return manifests, rows, steps


# ---- the file -------------------------------------------------------------------------------------------------------


FIELDS = {"part", "place", "status", "says", "note", "parameter", "expected", "above", "also", "where", "built_in",
          "reported", "by_hand"}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: re.sub(r"\W+", "_", claim["says"])[:60])
def test_a_claim_has_its_place_its_status_and_parameters_that_exist(claim):
    assert set(claim) <= FIELDS and claim["says"] and claim["place"].startswith(("paper", "README"))
    assert claim["status"] in ("stated", "contradicted", "not stated", "inferred")
    for parameter in filter(None, (claim.get("parameter"), *claim.get("where", {}), *claim.get("also", {}))):
        stage, _, name = parameter.partition(".")
        assert name in STAGES[stage].model_fields
    checkable = {"reported", "expected", "above", "built_in", "by_hand"} & set(claim)
    assert bool(checkable) is (claim["status"] in ("stated", "inferred")) or claim["status"] == "contradicted"


def test_every_accuracy_of_the_papers_table_is_claimed_once():
    claimed = [claim["reported"][0] for claim in CLAIMS if len(claim.get("reported", [])) == 1]
    assert claimed == [f"{row['model']}/{name}" for row in reported.RESULTS for name in reported.BENCHMARKS]
    assert ledger.number(claim_of(FINQA)) == pytest.approx(0.76)
    (fall,) = (claim for claim in CLAIMS if claim["says"].startswith("Ant_Finance, from the base"))
    assert ledger.number(fall) == pytest.approx(-0.04) and ledger.hold(fall, *run())["shown"] == "-4.0"


def test_what_the_sources_contradict_says_how():
    results = [claim for claim in CLAIMS if claim["part"] == "results" and claim["status"] == "contradicted"]
    assert len(results) == 3 and all(claim["note"] for claim in results)


# ---- verdicts on settings -------------------------------------------------------------------------------------------


def setting(**fields) -> dict:
    return {"part": "grpo", "says": "x", "place": "paper", "status": "stated", "note": ""} | fields


BETA = {"parameter": "05_grpo.beta", "above": 0}
MODEL = {"parameter": "04_sft.model_name_or_path", "expected": ["Qwen2.5-7B-Instruct"]}
SOURCES = {"parameter": "01_data.benchmark_names", "expected": [["finqa", "tfns"]]}
TEACHER = {
    "parameter": "02_distillation.temperature", "expected": [0.6],
    "where": {"02_distillation.teacher_backend": ["endpoint"]},
}  # fmt: skip


@pytest.mark.parametrize(
    "fields, parameters, verdict",
    [
        (BETA, {"05_grpo.beta": 0.001}, "followed"),
        (BETA, {"05_grpo.beta": 0.0}, "departed from"),
        (BETA, {}, "not attempted"),  # the stage has not run
        (MODEL, {"04_sft.model_name_or_path": "/models/Qwen2.5-7B-Instruct"}, "followed"),
        (MODEL, {"04_sft.model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct"}, "departed from"),
        (SOURCES, {"01_data.benchmark_names": ["tfns", "finqa"]}, "followed"),
        (SOURCES, {"01_data.benchmark_names": ["tfns"]}, "departed from"),
        (TEACHER, {"02_distillation.temperature": 0.6, "02_distillation.teacher_backend": "endpoint"}, "followed"),
        (TEACHER, {"02_distillation.temperature": 0.6, "02_distillation.teacher_backend": "scripted"}, "not attempted"),
        (BETA | {"status": "inferred"}, {"05_grpo.beta": 1.0}, "followed"),
        ({"parameter": "05_grpo.beta", "status": "not stated"}, {"05_grpo.beta": 1.0}, "open"),
        (BETA | {"status": "contradicted"}, {"05_grpo.beta": 1.0}, "open"),
        ({"built_in": True}, {}, "followed"),
        ({"built_in": False}, {}, "departed from"),
    ],
)
def test_verdicts_on_settings(fields, parameters, verdict):
    assert ledger.hold(setting(**fields), *run(parameters))["finding"] == verdict


@pytest.mark.parametrize(
    "sampling, num_items, verdict, why",
    [
        ("paper", 1000, "followed", ""),
        ("paper", 480, "departed from", "num_items = 480"),
        ("balanced", 1000, "departed from", ""),
    ],
)
def test_a_thousand_questions_of_each_are_a_thousand(sampling, num_items, verdict, why):
    (claim,) = (claim for claim in CLAIMS if claim["says"].startswith("1,000 random questions"))
    entry = ledger.hold(claim, *run({"06_benchmark.sampling": sampling, "06_benchmark.num_items": num_items}))
    assert (entry["finding"], entry["why"]) == (verdict, why)


MAX = {"05_grpo.verifier_model": "qwen/Qwen2.5-Max"}
OTHER = {"05_grpo.verifier_model": "another", "05_grpo.verifier_backend": "endpoint"}


@pytest.mark.parametrize(
    "says, parameters, verdict, why",
    [
        ("R_accuracy is 1", MAX | {"05_grpo.verifier_backend": "endpoint"}, "followed", ""),
        ("R_accuracy is 1", MAX | {"05_grpo.verifier_backend": "rules"}, "departed from", "verifier_backend = rules"),
        ("R_accuracy is 1", OTHER, "departed from", ""),
        ("The clip of the ratio", {"05_grpo.epsilon_high": None}, "followed", ""),
        ("The clip of the ratio", {"05_grpo.epsilon_high": 0.28}, "departed from", ""),
        ("The clip of the ratio", {"05_grpo.beta": 0.1}, "not attempted", "the stage has not run"),
        ("Width of the clip", {"05_grpo.epsilon": 0.2}, "open", ""),
    ],
)
def test_the_verifier_has_to_be_asked_and_the_clip_to_be_symmetric(says, parameters, verdict, why):
    (claim,) = (claim for claim in CLAIMS if claim["says"].startswith(says))
    entry = ledger.hold(claim, *run(parameters))
    assert (entry["finding"], entry["why"]) == (verdict, why)


def test_a_model_that_is_named_and_not_asked_follows_no_claim():
    """A name alone changes nothing while rules decide; and no claim of a model leaves its backend out."""
    backends = {
        "05_grpo.verifier_model": "05_grpo.verifier_backend",
        "03_filtering.judge_model": "03_filtering.judge_backend",
    }
    for claim in (claim for claim in CLAIMS if claim.get("parameter") in backends and "expected" in claim):
        named = {claim["parameter"]: claim["expected"][0], backends[claim["parameter"]]: "rules"}
        assert ledger.hold(claim, *run(named))["finding"] == "departed from", claim["says"]


def test_what_a_claim_expects_is_printed_as_the_run_prints_its_own():
    (clip,) = (claim for claim in CLAIMS if claim["says"].startswith("The clip of the ratio"))
    entry = ledger.hold(clip, *run({"05_grpo.epsilon_high": None}))
    assert (entry["shown"], entry["did"]) == ("none", "epsilon_high = none")


# ---- verdicts on numbers --------------------------------------------------------------------------------------------


def claim_of(place: str) -> dict:
    return next(claim for claim in CLAIMS if claim.get("reported") == [place])


FINQA = "Fin-R1/FinQA"  # 76.0
SEVEN_B = {"06_benchmark.model_name_or_path": PAPER_MODEL, "01_data.max_context_chars": None}


@pytest.mark.parametrize(
    "parameters, source, share, items, verdict, why",
    [
        (SEVEN_B, "finqa", 0.77, 1000, "reproduced", "inside"),
        (SEVEN_B, "finqa", 0.587, 1000, "not reproduced", "outside"),
        (SEVEN_B, "finqa", 0.76, 100, "not attempted", "100 items are too few"),
        (SEVEN_B, "synthetic", 0.76, 1000, "not attempted", "anything of finqa"),
        (SEVEN_B | {"01_data.max_context_chars": 900}, "finqa", 0.76, 1000, "not attempted", "cut to 900"),
        ({"06_benchmark.model_name_or_path": "SmolLM2-135M-Instruct"}, "finqa", 0.76, 1000, "not attempted", "SmolLM2"),
    ],
)
def test_verdicts_on_an_accuracy(parameters, source, share, items, verdict, why):
    entry = ledger.hold(claim_of(FINQA), *run(parameters, answers=samples(source, {"grpo": share}, items)))
    assert entry["finding"] == verdict and why in entry["why"]
    assert bool(entry["got"]) == (source == "finqa")  # what was measured is shown, whatever the verdict


def test_an_interval_that_is_reproduced_is_narrow_enough_to_mean_something():
    for share in (0.5, 0.7, 0.9):
        for items in (50, 200, 350, 1000):
            entry = ledger.hold(claim_of(FINQA), *run(SEVEN_B, answers=samples("finqa", {"grpo": share}, items)))
            if entry["finding"] == "reproduced":
                low, high = map(float, re.findall(r"\[([\d.]+), ([\d.]+)\]", entry["got"])[0])
                assert high - low <= 2 * 100 * WIDEST + 0.2


def test_another_model_is_held_against_its_own_line_whatever_the_base_is():
    small = {"06_benchmark.model_name_or_path": "SmolLM2-135M-Instruct"}
    answers = samples("finqa", {"base": 0.0, "DeepSeek-R1": 0.71}, 1000)
    assert ledger.hold(claim_of("DeepSeek-R1/FinQA"), *run(small, answers=answers))["finding"] == "reproduced"


def test_a_difference_is_paired_on_the_items_of_its_source():
    claim = next(claim for claim in CLAIMS if claim["says"] == "FinQA, from SFT to GRPO")
    gain = samples("finqa", {"sft": 0.73, "grpo": 0.76}, 1000) + samples("tfns", {"sft": 0.9, "grpo": 0.1}, 50)
    entry = ledger.hold(claim, *run(SEVEN_B, answers=gain))
    assert entry["finding"] == "reproduced" and entry["got"].startswith("+3.0 [") and "paired" in entry["did"]
    loss = ledger.hold(claim, *run(SEVEN_B, answers=samples("finqa", {"sft": 0.76, "grpo": 0.73}, 1000)))
    assert loss["finding"] == "not reproduced"


def opened(answers: list[Sample], every: int = 2) -> list[Sample]:
    """Of every `every`-th item rules cannot tell."""
    return [s.model_copy(update={"correct": None}) if n % every == 0 else s for n, s in enumerate(answers)]


def judging(answers: list[Sample], share: float, study: list[Sample], forgives: int) -> list[Verdict]:
    """A judge of the undecided among `answers`, and of `study`, where it passes one wrong answer in `forgives`."""
    return [
        Verdict(**s.model_dump(include={"model", "decoding", "problem_id", "sample"}), judge="J", rules=s.correct,
                verdict=bool(s.correct) or n % forgives == 0 if is_study else n < share * len(answers), study=is_study)
        for is_study, members in ((False, answers), (True, study))
        for n, s in enumerate(members)
        if is_study or s.correct is None
    ]  # fmt: skip


def test_what_rules_leave_undecided_attempts_no_number():
    """A missing answer is wrong and an open one undecided: the accuracy of the rest says nothing of the whole."""
    parts = opened(samples("finqa", {"sft": 0.7, "grpo": 0.76}, 1000))
    step = next(claim for claim in CLAIMS if claim["says"] == "FinQA, from SFT to GRPO")
    for claim, n in ((claim_of(FINQA), "500 of 1000"), (step, "1000 of 2000")):
        entry = ledger.hold(claim, *run(SEVEN_B, answers=parts))
        assert entry["finding"] == "not attempted" and entry["why"] == f"{n} answers are undecided; no judge"
    one = [s.model_copy(update={"correct": None if n % 1000 else True}) for n, s in enumerate(parts)]
    # One item decided for both models: no difference.
    assert "undecided" in ledger.hold(step, *run(SEVEN_B, answers=one))["why"]


def test_a_judges_error_is_taken_out_of_what_is_held_against_a_claim():
    """The judge passes half of what is wrong: as judged 88 of 100 are right, with its error out 76."""
    ruled = samples("finqa", {"grpo": 0.76}, 1000)
    answers = [s.model_copy(update={"correct": None}) for s in ruled]
    study = samples("tfns", {"grpo": 0.5}, 400)
    verdicts = judging(answers, 0.88, study, forgives=2)
    graded = [*apply_verdicts(answers, verdicts), *study]
    entry = ledger.hold(claim_of(FINQA), *run(SEVEN_B, answers=graded, verdicts=verdicts))
    assert entry["got"].startswith("76.0 [") and entry["did"].endswith("judged, its error taken out")
    bare = ledger.hold(claim_of(FINQA), *run(SEVEN_B, answers=graded))  # its verdicts were not kept
    assert bare["got"].startswith("88.0 [") and bare["did"].endswith("as judged, its error not included")
    no_verdict = {"correct": None, "graded_by": "rules"}
    unread = [s.model_copy(update=no_verdict) if n < 20 else s for n, s in enumerate(graded)]
    why = ledger.hold(claim_of(FINQA), *run(SEVEN_B, answers=unread, verdicts=verdicts))["why"]
    assert why == "20 of 1000 answers are undecided after the judge"


def test_a_difference_of_judged_answers_is_shown_as_judged():
    """Of a level the judge's error is taken out, of a difference not, and its entry says so."""
    step = next(claim for claim in CLAIMS if claim["says"] == "FinQA, from SFT to GRPO")
    verdicts, graded = [], []
    for model, share in (("sft", 0.84), ("grpo", 0.88)):
        answers = [s.model_copy(update={"correct": None}) for s in samples("finqa", {model: 1.0}, 1000)]
        verdicts += (own := judging(answers, share, [], forgives=2))
        graded += apply_verdicts(answers, own)
    entry = ledger.hold(step, *run(SEVEN_B, answers=graded, verdicts=verdicts))
    assert entry["got"].startswith("+4.0 [") and entry["did"].endswith("paired, as judged, its error not included")


def test_a_number_that_no_rule_compares_says_where_a_person_finds_it():
    (claim,) = (claim for claim in CLAIMS if "by_hand" in claim)
    entry = ledger.hold(claim, *run({"01_data.sampling": "paper"}))
    assert (entry["finding"], entry["why"]) == ("not attempted", f"by hand: {claim['by_hand']}")


def test_a_synthetic_run_attempts_no_number_and_an_empty_one_nothing():
    rng = random.Random(0)
    answers = samples("synthetic", {m: rng.random() for m in ("base", "sft", "grpo")}, 480)
    for evidence in (run(SEVEN_B, answers=answers), run()):
        scores = [claim for claim in CLAIMS if "reported" in claim]
        assert {ledger.hold(claim, *evidence)["finding"] for claim in scores} == {"not attempted"}
    found = {ledger.hold(claim, *run())["finding"] for claim in CLAIMS}
    assert found <= set(ledger.FINDINGS) - {"reproduced", "not reproduced"}
