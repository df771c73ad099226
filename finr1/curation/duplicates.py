"""Exact and near duplicates, by the words of question and context.

Near duplicates are found exactly, by word overlap with a prefix filter (Bayardo et al. 2007), without a dependency;
for 20,000 problems that takes seconds. Beyond some 100,000 a MinHash library is the better tool.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from finr1.records import Problem

SHINGLE = 3  # words in a row that near-duplicate detection compares
MIN_SIMILARITY = 0.8  # Jaccard, of context, earlier questions and question, each


def tokens(text: str) -> list[str]:
    """Words and numbers of `text` after NFKC, lower case, without links; every Chinese character is one token."""
    text = re.sub(r"https?://\S+", " ", unicodedata.normalize("NFKC", text).lower())
    return re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+(?:[.,]\d+)*", text)


def drop_duplicates(
    problems: Sequence[Problem], min_similarity: float = MIN_SIMILARITY
) -> tuple[list[Problem], dict[str, int]]:
    """`problems` without repetitions, the first of each kept, and how many went for which reason.

    Exact: the same tokens in context, earlier questions, question and options. Near: the same numbers, and at least
    `min_similarity` of the word triples shared in each of them. Other numbers mean another problem (a template's
    instances, two years of one table), however alike the words. `min_similarity` above 1 leaves near duplicates in.
    Meant for one split at a time; between splits `decontaminate` decides.
    """
    seen: set[tuple] = set()
    unique = []
    for problem in problems:
        key = tuple(tuple(tokens(part)) for part in _parts(problem))
        if key not in seen:
            seen.add(key)
            unique.append(problem)
    near = _near_duplicates(unique, min_similarity) if min_similarity <= 1 else set()
    kept = [problem for number, problem in enumerate(unique) if number not in near]
    return kept, {"exact duplicate": len(problems) - len(unique), "near duplicate": len(near)}


def _parts(problem: Problem) -> tuple[str, str, str, str]:
    """What a problem rests on, what was asked before, what it asks, and among what one may choose."""
    earlier = " ".join(turn.question for turn in problem.history)
    return problem.context, earlier, problem.question, " ".join((problem.choices or {}).values())


def _shingles(text: str, part: int) -> frozenset[int]:
    words = tokens(text)
    return frozenset(hash((part, *words[i : i + SHINGLE])) for i in range(max(1, len(words) - SHINGLE + 1)))


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(sorted(word for word in tokens(text) if word[0].isdigit()))


def _near_duplicates(problems: Sequence[Problem], min_similarity: float) -> set[int]:
    """Places of the problems that nearly repeat an earlier one.

    Two sets that share a fraction t of their union must share one of the (1 - t) |set| + 1 rarest members of each, so
    only those are indexed. The parts together reach t whenever each of them does.
    """
    shingles, numbers = lru_cache(None)(_shingles), lru_cache(None)(_numbers)  # many problems share their page
    sets = [tuple(shingles(text, part) for part, text in enumerate(_parts(problem))) for problem in problems]
    stated = [hash(tuple(numbers(text) for text in _parts(problem))) for problem in problems]
    frequency = Counter(chain.from_iterable(chain(*parts) for parts in sets))
    index: dict[tuple[int, int], list[int]] = defaultdict(list)  # (shingle, hash of the numbers) -> places
    repeated: set[int] = set()
    for here, parts in enumerate(sets):
        members = sorted(chain(*parts), key=lambda shingle: (frequency[shingle], shingle))
        prefix = members[: len(members) - math.ceil(min_similarity * len(members)) + 1]
        candidates = {there for shingle in prefix for there in index[shingle, stated[here]]}
        if any(_similar(parts, sets[there], min_similarity) for there in candidates):
            repeated.add(here)
            continue
        for shingle in prefix:
            index[shingle, stated[here]].append(here)
    return repeated


def _similar(first: tuple[frozenset, ...], second: tuple[frozenset, ...], least: float) -> bool:
    return all(len(a & b) >= least * len(a | b) for a, b in zip(first, second, strict=True))
