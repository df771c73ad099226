"""From problems to training rows, step by step: duplicates and test questions go, samples are drawn, rows written."""

import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from finr1 import grading
from finr1.records import Problem, Trace, messages, render_completion

SHINGLE = 3  # words in a row: what near-duplicate detection compares
MIN_SIMILARITY = 0.8  # Jaccard, of context, earlier questions, question and options, each
NUM_PERM, BAND = 64, 4  # 16 bands of four values: a pair of similarity 0.8 shares one with probability 0.9998
MOST_COMPARED = 20  # of the problems in one bucket, the earliest
BATCH = 5000  # problems whose words are in memory at once

NGRAM, NGRAM_ZH = 13, 20  # shared words or characters that make a leak; 13 as in GPT-3 (Brown et al. 2020, appendix C)
SHARED_PAGES = frozenset({"finqa", "convfinqa"})  # many questions over one page; a page stands in one split only
MAX_HELD_OUT = 3  # an n-gram in more held-out groups than this is a phrase of the trade or a template, not a leak
MAX_TRAIN = 20  # ... and so is one in more training groups than this


# Who runs the steps: `batches(function, items, size)` gives the rows of `function` of so many items each, in order, and
# `groups(function, rows, key)` those of rows of which all with one key are together. Notebook 01 has one for Ray Data.
LOCAL = SimpleNamespace(
    batches=lambda function, items, size=None: pd.concat(
        [function(items[at : at + (size or BATCH)]) for at in range(0, len(items) or 1, size or BATCH)]
    ),
    groups=lambda function, rows, key: function(rows),
)


def tokens(text: str) -> list[str]:
    """Words, Chinese characters, numbers and signs before them (7 - 2 is not 7 * 2); NFKC, lower case, no links."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"https?://[!-~]+", " ", text)  # no further: Chinese text may follow a link
    return re.findall(r"[\u4e00-\u9fff]|[-−+*/×÷<>=](?=\s?[$¥€]?\d)|[^\W_\u4e00-\u9fff]+(?:[.,]\d+)*", text)


def drop_duplicates(problems: Sequence[Problem], engine: Any = LOCAL) -> tuple[list[Problem], dict[str, int]]:
    """`problems` without repetitions, and how many were dropped for which reason. The first of several copies stays.

    Exact: context, earlier questions, question and options have the same tokens. Near: the numbers are the same, and
    each of the four shares at least `MIN_SIMILARITY` of its word triples. Problems with other numbers are different
    (two instances of a template, two years of one table), however alike their words are.
    """
    if not problems:
        return [], {"exact duplicate": 0, "near duplicate": 0}
    unique = engine.batches(fingerprints, problems).assign(place=range(len(problems))).drop_duplicates("exact")
    near = _near_duplicates(problems, unique, engine)
    kept = [problems[place] for place in unique["place"] if place not in near]
    return kept, {"exact duplicate": len(problems) - len(unique), "near duplicate": len(near)}


def fingerprints(problems: Sequence[Problem]) -> pd.DataFrame:
    """One row per problem: hashes of its tokens (`exact`) and `numbers`, and in columns 0, 1, ... its MinHash."""
    from rensa import RMinHash

    def hashes(texts: list[str]) -> np.ndarray:
        return pd.util.hash_array(np.array([text.encode("utf8", "surrogatepass") for text in texts], dtype=object))

    words = [_words(problem) for problem in problems]
    exact = ["\x1e".join("\x1f".join(part) for part in parts) for parts in words]
    numbers = ["\x1e".join(" ".join(sorted(w for w in part if w[0].isdigit())) for part in parts) for parts in words]
    triples = [set().union(*_triples(parts)) for parts in words]
    prints = pd.DataFrame(np.array(RMinHash.digests_from_token_sets(triples, NUM_PERM, 1), dtype=np.uint32))
    return prints.assign(exact=hashes(exact), numbers=hashes(numbers))


def _words(problem: Problem) -> list[list[str]]:
    """Tokens of context, earlier questions, question and options."""
    earlier, options = (turn.question for turn in problem.history), (problem.choices or {}).values()
    return [tokens(text) for text in (problem.context, " ".join(earlier), problem.question, " ".join(options))]


def _triples(parts: list[list[str]]) -> list[set[str]]:
    """The runs of `SHINGLE` words of each part, marked with the number of the part. A shorter text is one run."""
    return [
        {f"{part} " + " ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
        for part, words in enumerate(parts)
    ]


def _near_duplicates(problems: Sequence[Problem], prints: pd.DataFrame, engine: Any) -> set[int]:
    """Places of the problems that nearly repeat an earlier one that stays.

    Two problems are compared when their numbers and one band of their MinHash (Broder 1997) are equal; the shared words
    decide. rensa's `RMinHashLSH` ignores numbers: it would compare all instances of a template with each other.
    """
    starts = range(0, NUM_PERM, BAND)  # generators: the bands of a million problems take half a gibibyte
    bands = (prints[[*range(start, start + BAND), "numbers"]].assign(band=start) for start in starts)
    keys = (prints[["place"]].assign(key=pd.util.hash_pandas_object(band, index=False)) for band in bands)
    pairs = sorted({*engine.groups(_pairs, pd.concat(keys), "key").itertuples(index=False, name=None)})

    def compare(pairs: Sequence[tuple[Problem, Problem]]) -> pd.DataFrame:
        both = [zip(*(_triples(_words(problem)) for problem in pair), strict=True) for pair in pairs]
        return pd.DataFrame({"same": [all(len(a & b) >= MIN_SIMILARITY * len(a | b) for a, b in p) for p in both]})

    compared = engine.batches(compare, [(problems[here], problems[there]) for here, there in pairs])
    repeated: set[int] = set()
    for (here, there), same in zip(pairs, compared["same"], strict=True):
        repeated |= {here} if same and there not in repeated else set()
    return repeated


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a place and an earlier one with the same key, which is one of the first `MOST_COMPARED` with it."""
    rows = rows[rows.duplicated("key", keep=False)].sort_values("place")
    buckets = [places.tolist() for _, places in rows.groupby("key")["place"]]
    pairs = [(p, q) for bucket in buckets for n, p in enumerate(bucket) for q in bucket[: min(n, MOST_COMPARED)]]
    return pd.DataFrame(pairs, columns=["here", "there"], dtype="int64")


def decontaminate(
    train: Sequence[Problem], held_out: Sequence[Problem], ngram: int = NGRAM, engine: Any = LOCAL
) -> tuple[list[Problem], list[dict[str, str]]]:
    """`train` without the problems that share `ngram` words in a row (`NGRAM_ZH` characters) with a held-out one.

    The second result has one row per dropped problem: `train_id`, `held_out_id` and the shared `ngram`. Question and
    context are compared separately. For `SHARED_PAGES` only the question is, since reports of one company repeat
    themselves. A shorter text counts as a whole, unless it means nothing without its page ("and in 2008?").
    """
    where: dict[str, dict[str, str]] = defaultdict(dict)  # n-gram -> held-out group -> id
    for problem in held_out:
        for gram in _ngrams(problem, ngram):
            where[gram].setdefault(problem.group, problem.id)
    leaks = {gram: next(iter(groups.values())) for gram, groups in where.items() if len(groups) <= MAX_HELD_OUT}

    def find(problems: Sequence[Problem]) -> pd.DataFrame:
        return pd.DataFrame({"grams": [[gram for gram in _ngrams(p, ngram) if gram in leaks] for p in problems]})

    shared = engine.batches(find, train)["grams"]
    held = {(gram, problem.group) for problem, grams in zip(train, shared, strict=True) for gram in grams}
    in_train = Counter(gram for gram, _ in held)  # n-gram -> number of training groups that have it
    kept, matches = [], []
    for problem, grams in zip(train, shared, strict=True):
        if gram := next((gram for gram in grams if in_train[gram] <= MAX_TRAIN), None):
            text = gram.replace("\x1f", "" if problem.language == "zh" else " ")
            matches.append({"train_id": problem.id, "held_out_id": leaks[gram], "ngram": text})
        else:
            kept.append(problem)
    return kept, matches


def _ngrams(problem: Problem, ngram: int) -> list[str]:
    size = NGRAM_ZH if problem.language == "zh" else ngram
    rests_on_page, grams = problem.source in SHARED_PAGES, []
    for text in [problem.question] if rests_on_page else [problem.context, problem.question]:
        words = tokens(text)
        if len(words) >= size or words and not rests_on_page:
            grams += ["\x1f".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))]
    return grams


def spread(items: Sequence, size: int, kind: Callable[..., str], seed: int) -> list:
    """Up to `size` items: kinds in turn, a seeded order within each. Every beginning of the list is balanced, too."""
    by_kind: dict[str, list] = defaultdict(list)
    for item in items:
        by_kind[kind(item)].append(item)
    for name, members in by_kind.items():
        random.Random(f"{seed}:{name}").shuffle(members)
    rounds = zip_longest(*(by_kind[name] for name in sorted(by_kind)))
    return [item for group in rounds for item in group if item is not None][:size]


def kind_of(problem: Problem) -> str:
    """The kind that `spread` takes in turn: a synthetic family, a label of a real source (tweets), else the source."""
    label = problem.gold if problem.labels else ""
    return problem.family if problem.source == "synthetic" else problem.source + label


def sft_rows(traces: Iterable[Trace]) -> list[dict[str, object]]:
    """Conversational rows of prompt and completion. TRL computes the loss on the completion (`completion_only_loss`).

    A completion in another format is rewritten into ours: DeepSeek-R1, for one, returns reasoning and answer apart.
    Raises `ValueError` for a trace without an answer.
    """
    rows = []
    for trace in traces:
        if not trace.answer:
            raise ValueError(f"trace {trace.id} has no answer and cannot be trained on")
        in_format = grading.has_format(trace.completion)
        content = trace.completion if in_format else render_completion(trace.reasoning, trace.answer)
        completion = [{"role": "assistant", "content": content}]
        rows.append({"id": trace.id, "prompt": messages(trace.problem), "completion": completion})
    return rows


def rl_rows(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """One row per problem for GRPO. TRL passes all columns but the prompt to the reward functions, by their names."""
    rows = []
    for problem in problems:
        against = problem.graded_against
        row = {"id": problem.id, "prompt": messages(problem), "solution": against.pop("gold")} | against
        # `datasets` would merge dicts into one struct with every key.
        row |= {name: json.dumps(row[name], ensure_ascii=False) if row[name] else "" for name in ("choices", "labels")}
        rows.append(row | {name: getattr(problem, name) for name in ("family", "level", "language", "capability")})
    return rows
