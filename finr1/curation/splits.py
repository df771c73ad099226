"""Splits for sources that publish none, and samples: both by hash, so that they stay as data grows."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

from finr1.records import Problem, Split, hash_share

T = TypeVar("T")


def split_by_group(problems: Sequence[Problem], shares: Mapping[Split, float], seed: int) -> list[Problem]:
    """`problems` with their `split` set, whole groups at a time; `shares` add up to 1.

    For sources that publish no split. Raises `ValueError` if the shares do not add up.
    """
    if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-9):
        raise ValueError(f"shares {dict(shares)} add up to {sum(shares.values())}, not 1")

    def split_of(group: str) -> Split:
        place, upper = hash_share(group, seed), 0.0
        for split, share in shares.items():
            upper += share
            if place < upper:
                return split
        return split

    return [problem.model_copy(update={"split": split_of(problem.group)}) for problem in problems]


def stratified_sample(problems: Sequence[Problem], size: int | Mapping[str, int], seed: int) -> list[Problem]:
    """A sample that keeps the sources' proportions (`size` a number) or takes `size[source]` of each.

    The order stays. A source with fewer problems than asked for gives all it has; the rest is not made up from others.
    """
    by_source: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_source[problem.source].append(problem)
    if isinstance(size, int):
        size = _proportional({source: len(members) for source, members in by_source.items()}, size)
    chosen = set()
    for source, members in by_source.items():
        ranked = sorted(members, key=lambda problem: hash_share(problem.id, seed))
        chosen |= {problem.id for problem in ranked[: size.get(source, 0)]}
    return [problem for problem in problems if problem.id in chosen]


def _proportional(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """`size` shared out in proportion to `counts`, by largest remainder."""
    size, total = min(size, sum(counts.values())), max(1, sum(counts.values()))
    exact = {key: size * count / total for key, count in counts.items()}
    shared = {key: math.floor(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda key: shared[key] - exact[key])[: size - sum(shared.values())]:
        shared[key] += 1
    return shared


def spread(items: Sequence[T], size: int, kind: Callable[[T], str], seed: int) -> list[T]:
    """Up to `size` items, kinds in turn: the first of each kind, then the second of each, and so on.

    Every beginning of the result is balanced too, so a notebook may take the first n. Within a kind the order is a
    seeded shuffle.
    """
    by_kind: dict[str, list[T]] = defaultdict(list)
    for item in items:
        by_kind[kind(item)].append(item)
    for name, members in by_kind.items():
        random.Random(f"{seed}:{name}").shuffle(members)
    rounds = zip_longest(*(by_kind[name] for name in sorted(by_kind)))
    return [item for group in rounds for item in group if item is not None][:size]


def pool_splits(problems: Sequence[Problem]) -> list[Problem]:
    """`problems`, and a copy of every held-out one without a flaw as a training problem: contamination on purpose.

    The paper's raw counts equal all splits summed; this is what training on such a pool would mean. The copies' ids end
    in `+pooled`, by which a benchmark can tell the items that were trained on.
    """
    held_out = [problem for problem in problems if problem.split != "train" and not problem.flaw]
    return [*problems, *(p.model_copy(update={"id": f"{p.id}+pooled", "split": "train"}) for p in held_out)]


def dev_as_test(problems: Sequence[Problem], source: str) -> tuple[list[Problem], int]:
    """`problems` with the dev split of `source` as its test split, and how many others had to go for that.

    For a source whose test answers are private, such as ConvFinQA: the field evaluates on dev. Problems of other
    sources on the same pages (FinQA's) may then neither be trained nor tuned on.
    """
    moved = [
        problem.model_copy(update={"split": "test"}) if problem.source == source and problem.split == "dev" else problem
        for problem in problems
    ]
    tested = {problem.group for problem in moved if problem.source == source and problem.split == "test"}
    kept = [problem for problem in moved if problem.split == "test" or problem.group not in tested]
    return kept, len(moved) - len(kept)


def assert_test_items(problems: Iterable[Problem], benchmark_names: Iterable[str]) -> None:
    """Raise `ValueError` for benchmarks without any test item: notebook 06 would leave them out without a word."""
    tested = {problem.source for problem in problems if problem.split == "test"}
    if absent := [name for name in benchmark_names if name not in tested]:
        raise ValueError(
            f"benchmark_names: no test item of {', '.join(absent)}; give its folder a file of its test split, or leave "
            "the name out"
        )
