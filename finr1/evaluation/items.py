"""Capability suites: questions of one kind across benchmarks, with new ones where a run's benchmarks have too few."""

from collections.abc import Sequence

from finr1 import sandbox, synthetic
from finr1.records import Problem, hash_share

SUITES = ("code", "calculation (en)", "calculation (zh)", "compliance", "risk", "ESG", "multi-turn")


def suite_of(capability: str, language: str) -> str | None:
    """The suite that questions of `capability` in `language` belong to; None for sentiment and knowledge."""
    suites = {"calculation": f"calculation ({language})", "esg": "ESG", "multi_turn": "multi-turn"}
    suite = suites.get(capability, capability)
    return suite if suite in SUITES else None


def suite_items(items: Sequence[Problem], problems: Sequence[Problem], size: int, seed: int) -> list[Problem]:
    """Further test problems, so that each of `SUITES` has `size` questions where the benchmarks have fewer.

    Real records of `problems` come first. The rest is generated, as far as there are instances; its `source` is
    "synthetic". A score on these says that a model masters the form, not finance. No question is asked twice.
    """

    def members(among: Sequence[Problem], suite: str) -> list[Problem]:
        return [problem for problem in among if suite_of(problem.capability, problem.language) == suite]

    taken = {problem.id for problem in items}
    spare = [problem for problem in problems if problem.split == "test" and problem.id not in taken]
    spare.sort(key=lambda problem: 1 if problem.source == "synthetic" else hash_share(problem.id, seed))
    chosen: list[Problem] = []
    for suite in SUITES:
        missing = max(0, size - len(members(items, suite)))
        kept = members(spare, suite)[:missing]
        chosen += kept
        if missing > len(kept):
            chosen += _generated(suite, missing - len(kept), seed, members([*items, *problems], suite))
    return chosen


def _generated(suite: str, count: int, seed: int, known: Sequence[Problem]) -> list[Problem]:
    """Up to `count` synthetic test problems of one suite, none asked in `known`; code is graded by unit tests."""

    def asked(problem: Problem) -> tuple:  # equal for problems that are the same question to a model
        return problem.question, problem.context, *(turn.question for turn in problem.history)

    known, code = {asked(problem) for problem in known if problem.source == "synthetic"}, suite == "code"
    if code:
        sandbox.check()  # an error now, not when all answers are there
    of_suite = [name for name, f in synthetic.FAMILIES.items() if suite_of(f.capability, f.language) == suite]
    size = count + len(known)  # a run's problems may come from the same seed
    members = synthetic.generate_problems(size, "test", seed, [] if code else of_suite, partial=True, code=code)
    members = [p for p in members if asked(p) not in known][:count]
    if code:
        return members
    return [p.model_copy(update={"id": f"synthetic/suite/{p.family}/{p.id.rpartition('/')[2]}"}) for p in members]
