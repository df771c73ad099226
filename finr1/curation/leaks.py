"""What must not reach training: questions of the held-out set, and groups that stand in two splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from finr1.curation.duplicates import tokens
from finr1.records import Problem

SHARED_PAGES = frozenset({"finqa", "convfinqa"})  # many questions over one page, which never crosses splits
MAX_HELD_OUT = 3  # an n-gram in more held-out groups than this is a phrase of the trade or a template, not a leak
MAX_TRAIN = 20  # ... and so is one in more training groups than this


class LeakError(ValueError):
    """A group of problems stands in more than one split."""


class Match(BaseModel):
    """A training problem that shares `ngram` with a held-out one."""

    train_id: str
    held_out_id: str
    ngram: str


def decontaminate(
    train: Sequence[Problem], held_out: Sequence[Problem], ngram: int = 13, ngram_zh: int = 20
) -> tuple[list[Problem], list[Match]]:
    """`train` without the problems that share `ngram` words in a row (`ngram_zh` characters) with a held-out one.

    13 words as in GPT-3 (Brown et al. 2020, appendix C). Compared are question and context, each for itself; for
    sources whose pages carry many questions the question alone, since their pages never cross splits and reports of
    one company repeat themselves. Shorter texts count whole, except questions that mean nothing without their page
    ("and in 2008?"). N-grams in more than `MAX_HELD_OUT` held-out or `MAX_TRAIN` training groups are templates.
    """
    where: dict[tuple, dict[str, str]] = defaultdict(dict)  # n-gram -> held-out group -> id
    for problem in held_out:
        for gram in _ngrams(problem, ngram, ngram_zh):
            where[gram].setdefault(problem.group, problem.id)
    leaks = {gram: next(iter(groups.values())) for gram, groups in where.items() if len(groups) <= MAX_HELD_OUT}
    shared = [[gram for gram in _ngrams(problem, ngram, ngram_zh) if gram in leaks] for problem in train]
    in_train: dict[tuple, set[str]] = defaultdict(set)
    for problem, grams in zip(train, shared, strict=True):
        for gram in grams:
            in_train[gram].add(problem.group)
    leaks = {gram: held for gram, held in leaks.items() if len(in_train[gram]) <= MAX_TRAIN}
    kept, matches = [], []
    for problem, grams in zip(train, shared, strict=True):
        gram = next((gram for gram in grams if gram in leaks), None)
        if gram is None:
            kept.append(problem)
        else:
            join = "" if problem.language == "zh" else " "
            matches.append(Match(train_id=problem.id, held_out_id=leaks[gram], ngram=join.join(gram)))
    return kept, matches


def _ngrams(problem: Problem, ngram: int, ngram_zh: int) -> list[tuple[str, ...]]:
    size = ngram_zh if problem.language == "zh" else ngram
    rests_on_page = problem.source in SHARED_PAGES
    grams: list[tuple[str, ...]] = []
    for text in [problem.question] if rests_on_page else [problem.context, problem.question]:
        words = tokens(text)
        if len(words) >= size:
            grams += [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        elif words and not rests_on_page:
            grams.append(tuple(words))
    return grams


def assert_no_leak(problems: Iterable[Problem]) -> None:
    """Raise `LeakError` if a group (page, template instance) stands in two splits, naming some of them."""
    splits: dict[str, set[str]] = defaultdict(set)
    for problem in problems:
        splits[problem.group].add(problem.split)
    crossing = {group: sorted(found) for group, found in splits.items() if len(found) > 1}
    if crossing:
        shown = "; ".join(f"{group}: {', '.join(found)}" for group, found in list(crossing.items())[:5])
        raise LeakError(f"{len(crossing)} groups stand in more than one split: {shown}")
