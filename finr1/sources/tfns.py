"""TFNS: tweets labelled bearish, bullish or neutral. Both ways to a label are by rule, not a teacher's (README.md)."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from finr1.records import Problem, hash_share
from finr1.sources.files import Files, Results, code_of, key_of, problem_of, read_each, require, split_in_name, text_of

LABELS = {"0": "bearish", "1": "bullish", "2": "neutral"}
QUESTION = "What is the sentiment of this tweet for the stock or market: bearish, bullish or neutral?"
DEV_SHARE, DEV_SEED = 0.1, 0
MIN_TWEETS, DAMP = 3, 4.0  # a word counts that stands in so many tweets; the pull of weights to zero; chosen on dev
_WORD = re.compile(r"https?://\S+|[$@#]?[a-z][a-z'’&-]*|[-+]?\$?\d[\d.,]*%?[a-z]*")


def read_files(files: Files) -> Results:
    """The results, the files of the test set first: of two copies of a tweet the first stays."""
    ordered = {name: files[name] for name in sorted(files, key=lambda n: split_in_name(n) == "train")}
    results = list(read_each(read, ordered))
    weights = learn([p for *_, p in results if isinstance(p, Problem) and p.split == "train"])
    for *place, p in results:
        yield *place, p.model_copy(update=rationales(p, weights)) if isinstance(p, Problem) else p


def read(record: dict, file: str) -> Problem:
    tweet, gold = " ".join(record["text"].split()), LABELS.get(code_of(record["label"]))
    text = " ".join(re.sub(r"https?://\S+", " ", tweet.lower()).split())  # two tweets that share it are the same
    key, split = key_of(text), split_in_name(file) or split_in_name(text_of(record.get("split")))
    require({"unknown split": split, "unreadable gold": gold, "no text but a link": text})
    if split == "dev":
        split = "test"
    elif split == "train" and hash_share(key, DEV_SEED) < DEV_SHARE:
        split = "dev"
    fields = {"capability": "sentiment", "answer_kind": "label", "labels": LABELS, "question": QUESTION}
    return problem_of("tfns", key, context=tweet, gold=gold, split=split, **fields)


def pieces(tweet: str) -> dict[str, tuple[int, int]]:
    """The words of `tweet` and its pairs of words, and where each stands. All tickers are one word, all numbers one."""
    words = []
    for match in _WORD.finditer(tweet.lower()):
        word = re.sub(r"^\$[a-z].*", "$a", re.sub(r"\d[\d.,]*", "1", match[0]))
        words += [] if word.startswith("http") else [(word, *match.span())]
    pairs = [(f"{one} {two}", start, end) for (one, start, _), (two, _, end) in zip(words, words[1:], strict=False)]
    return {piece: place for piece, *place in words + pairs}


def learn(train: Sequence[Problem]) -> dict[str, np.ndarray]:
    """How much each piece tells for each label: ridge regression in which every label counts the same."""
    from scipy.sparse import csr_matrix, linalg

    tweets, names = [pieces(problem.context) for problem in train], list(LABELS.values())
    counts = Counter(piece for tweet in tweets for piece in tweet)
    number = {piece: n for n, piece in enumerate(sorted(piece for piece in counts if counts[piece] >= MIN_TWEETS))}
    if not number:
        return {}
    cells = [(row, number[piece]) for row, tweet in enumerate(tweets) for piece in tweet if piece in number]
    golds = np.eye(len(names))[[names.index(problem.gold) for problem in train]]
    scale = (golds @ golds.mean(axis=0)) ** -0.5
    rows, columns = zip(*cells, strict=True)
    x = csr_matrix((scale[list(rows)], (rows, columns)), shape=(len(train), len(number)))
    solved = [linalg.lsqr(x, scale * (gold - 1 / len(names)), damp=DAMP * len(names) ** 0.5)[0] for gold in golds.T]
    return dict(zip(number, np.column_stack(solved).round(4), strict=True))  # rounded, so that machines agree


def rationales(problem: Problem, weights: dict[str, np.ndarray]) -> dict[str, str]:
    """The two ways to the gold label; nothing where the three most telling pieces say otherwise (a tie: the first)."""
    tweet, told = problem.context, []
    known = {piece: place for piece, place in pieces(tweet).items() if piece in weights}
    for piece in sorted(known, key=lambda piece: (-weights[piece].max(), piece)):
        start, end = known[piece]
        if len(told) < 3 and all(end <= other[0] or start >= other[1] for other in told):
            told.append((start, end, list(LABELS.values())[weights[piece].argmax()]))
    counts = Counter(label for *_, label in told).most_common()
    if len(told) < 2 or counts[0][0] != problem.gold:
        return {}
    by_parts = [f'"{tweet[start:end]}" sounds {label}.' for start, end, label in told]
    by_parts.append(f"That makes {', '.join(f'{count} {label}' for label, count in counts)}.")
    at_once = ["The tweet is about a stock or the market.", f"It sounds {problem.gold}."]
    both = {"reference": at_once, "reference_by_parts": by_parts}
    return {name: "\n".join([*lines, f"So the sentiment is {problem.gold}."]) for name, lines in both.items()}
