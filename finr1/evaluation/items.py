"""The items: the benchmarks with the paper's sampling, and seven capability suites.

The paper (arXiv 2503.16252) asks 1,000 random questions of FinQA, ConvFinQA, Ant_Finance and TFNS each, all where there
are fewer, and "a stratified 10 %" of Finance-Instruct-500k by strata that it does not name. Here that tenth is the part
that the source's reader has put aside by hash (`sources.questions`), which keeps every stratum's share up to chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from finr1 import sandbox, synthetic
from finr1.records import Capability, Problem, hash_share

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
    suites = (name for name, (kind, tongue) in SUITES.items() if kind == capability and tongue in (None, language))
    return next(suites, None)


def _members(problems: Sequence[Problem], suite: str) -> list[Problem]:
    return [problem for problem in problems if suite_of(problem.capability, problem.language) == suite]


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
        members = sorted((p for p in test if p.source == source), key=lambda p: hash_share(p.id, seed))
        chosen += members if source in WHOLE else members[:num_items]
    return chosen


def suite_items(items: Sequence[Problem], problems: Sequence[Problem], size: int, seed: int) -> list[Problem]:
    """Further test problems, so that each of `SUITES` has `size` questions where the benchmarks have fewer.

    Real records of `problems` come first. Missing ones are generated, and their `source` is "synthetic": a number on
    those says that a model can do the form, not that it knows finance. None repeats a question of `items` or
    `problems`. A suite whose templates have fewer instances than `size` gets those it has.
    """
    taken = {problem.id for problem in items}
    spare = [problem for problem in problems if problem.split == "test" and problem.id not in taken]
    real = sorted((p for p in spare if p.source != "synthetic"), key=lambda p: hash_share(p.id, seed))
    spare = [*real, *(problem for problem in spare if problem.source == "synthetic")]
    chosen: list[Problem] = []
    for suite in SUITES:
        missing = max(0, size - len(_members(items, suite)))
        members = _members(spare, suite)[:missing]
        chosen += members
        if missing > len(members):
            chosen += _generated(suite, missing - len(members), seed, _members([*items, *problems], suite))
    return chosen


def _generated(suite: str, count: int, seed: int, known: Sequence[Problem]) -> list[Problem]:
    """Up to `count` synthetic test problems of one suite, none asked in `known`; code is graded by unit tests."""

    def asked(problem: Problem) -> tuple:  # equal for problems that are the same question to a model
        return problem.question, problem.context, *(turn.question for turn in problem.history)

    known = {asked(problem) for problem in known if problem.source == "synthetic"}
    size = count + len(known)  # a run's problems may come from the same seed
    if suite == "code":
        sandbox.check()  # an error now, not when all answers are there
        members = synthetic.generate_code_problems(size, "test", seed, partial=True)
        return [p for p in members if asked(p) not in known][:count]
    families = [name for name, f in synthetic.FAMILIES.items() if suite_of(f.capability, f.language) == suite]
    members = synthetic.generate_problems(size, "test", seed, families=families, partial=True)
    members = [p for p in members if asked(p) not in known][:count]
    return [p.model_copy(update={"id": f"synthetic/suite/{p.family}/{p.id.rpartition('/')[2]}"}) for p in members]
