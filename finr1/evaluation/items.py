"""What is asked: the benchmarks with the paper's sampling, and six capability suites; the same list for a seed.

The paper (arXiv 2503.16252) asks 1,000 random questions of FinQA, ConvFinQA, Ant_Finance and TFNS each, all where there
are fewer, and "a stratified 10 %" of Finance-Instruct-500k by strata that it does not name. Here that tenth is what the
source's reader has put aside by hash (`sources.questions`), which keeps every stratum's share up to chance.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from finr1 import sandbox, synthetic
from finr1.curation import hash_share
from finr1.records import Capability, Problem

WHOLE = {"finance_instruct_500k"}  # benchmarks of which `num_items` is no limit
SUITES: dict[str, tuple[Capability, str | None]] = {  # name -> capability, and the language where it matters
    "code": ("code", None),
    "calculation (en)": ("calculation", "en"),
    "calculation (zh)": ("calculation", "zh"),
    "compliance": ("compliance", None),
    "risk": ("risk", None),
    "ESG": ("esg", None),
    "multi-turn": ("multi_turn", None),
}


def suite_of(capability: str, language: str) -> str | None:
    """The suite that questions of `capability` in `language` belong to; None for sentiment and knowledge."""
    return next(
        (name for name, (what, tongue) in SUITES.items() if what == capability and tongue in (None, language)), None
    )


def select_items(
    problems: Sequence[Problem], sampling: Literal["balanced", "paper"], num_items: int, seed: int
) -> list[Problem]:
    """The test problems to ask; the same for the same problems and `seed`.

    "balanced": the first `num_items`, as notebook 01 has put its kinds in turn. "paper": `num_items` of each source,
    drawn by `seed`, all where it has fewer; of those in `WHOLE`, all.
    """
    test = [problem for problem in problems if problem.split == "test"]
    if sampling == "balanced":
        return test[:num_items]
    chosen: list[Problem] = []
    for source in sorted({problem.source for problem in test}):
        members = _by_hash((problem for problem in test if problem.source == source), seed)
        chosen += members if source in WHOLE else members[:num_items]
    return chosen


def suite_items(items: Sequence[Problem], problems: Sequence[Problem], size: int, seed: int) -> list[Problem]:
    """Further test problems, so that each of `SUITES` has `size` questions where the benchmarks have fewer.

    Real records of `problems` come first; what is then missing is generated, and its `source` is "synthetic": a number
    on those says that a model can do the form, not that it knows finance. Their answers are exact, and none repeats a
    question of `items` or `problems`. A suite whose templates have fewer instances than `size` gets those it has.
    """
    chosen: list[Problem] = []
    taken = {problem.id for problem in items}
    spare = [problem for problem in problems if problem.split == "test" and problem.id not in taken]
    spare = [p for p in _by_hash(spare, seed) if p.source != "synthetic"] + [
        p for p in spare if p.source == "synthetic"
    ]
    counts = Counter(suite_of(problem.capability, problem.language) for problem in items)
    for name in SUITES:
        missing = max(0, size - counts[name])
        found = [p for p in spare if suite_of(p.capability, p.language) == name][:missing]
        chosen += found + _generated(name, missing - len(found), seed, [*items, *problems])
    return chosen


def _generated(suite: str, count: int, seed: int, known: Sequence[Problem]) -> list[Problem]:
    """Up to `count` synthetic test problems of one suite, none asked in `known`; code is graded by unit tests.

    Their ids are their own. A run's problems may come from the same seed, so as many more are drawn as may be known.
    """
    if count <= 0:
        return []
    known = {_asked(p) for p in known if p.source == "synthetic" and suite_of(p.capability, p.language) == suite}
    if suite == "code":
        sandbox.check()  # an error now, not when all answers are there
        members = synthetic.generate_code_problems(count + len(known), "test", seed, partial=True)
        return [p for p in members if _asked(p) not in known][:count]
    families = [name for name, f in synthetic.FAMILIES.items() if suite_of(f.capability, f.language) == suite]
    members = synthetic.generate_problems(count + len(known), "test", seed, families=families, partial=True)
    members = [p for p in members if _asked(p) not in known][:count]
    return [p.model_copy(update={"id": f"synthetic/suite/{p.family}/{p.id.rpartition('/')[2]}"}) for p in members]


def _asked(problem: Problem) -> tuple[str, str, tuple[str, ...]]:
    """What makes two problems the same question to a model: the last turn, its context, the turns before it."""
    return problem.question, problem.context, tuple(turn.question for turn in problem.history)


def items_record(items: Sequence[Problem], suites: Sequence[Problem], seed: int) -> dict:
    """What goes beside the answers: ids by source, and a hash by which two runs can tell that they asked the same.

    `sha256` is over the whole records, so an edited question is another list.
    """
    lines = [json.dumps(p.model_dump(mode="json"), sort_keys=True, ensure_ascii=False) for p in (*items, *suites)]
    by_source: dict[str, list[str]] = {}
    for problem in items:
        by_source.setdefault(problem.source, []).append(problem.id)
    return {
        "seed": seed,
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "benchmarks": by_source,
        "suites": [problem.id for problem in suites],
    }


def item_counts(items: Sequence[Problem], suites: Sequence[Problem]) -> list[dict]:
    """A row a benchmark and a suite: questions, how many of them are synthetic, how many have a known bad gold."""
    groups = [
        ("benchmark", source, [p for p in items if p.source == source]) for source in sorted({p.source for p in items})
    ]
    everything = [*items, *suites]
    groups += [
        ("suite", name, [p for p in everything if suite_of(p.capability, p.language) == name]) for name in SUITES
    ]
    return [
        {"part": part, "name": name, "items": len(members), "synthetic": sum(p.source == "synthetic" for p in members),
         "bad golds": sum(bool(p.flaw) for p in members), "languages": " ".join(sorted({p.language for p in members}))}
        for part, name, members in groups
    ]  # fmt: skip


def _by_hash(problems, seed: int) -> list[Problem]:
    return sorted(problems, key=lambda problem: hash_share(problem.id, seed))
