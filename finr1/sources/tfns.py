"""TFNS: tweets about companies and markets, labelled bearish, bullish or neutral.

https://huggingface.co/datasets/zeroshot/twitter-financial-news-sentiment; a record is {"text": ..., "label": 0|1|2}.
The published `validation` split is the test set here; `dev` is a tenth of `train`, chosen by a hash of the tweet, so
that it is the same tenth everywhere. Tweets that differ only in their link count as one, and test wins over train.

`reference` is a rationale BY RULE, not a teacher's: the cue words of `cues.py`, the meaning we give them, and the
label. It exists only where the rule agrees with the gold label; it says what the words say, and no more. A tweet
without any cue is neutral by rule, and its rationale says that no cue was found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from finr1.records import Problem, hash_share
from finr1.sources.cues import rationale
from finr1.sources.files import Files, load_hub, split_in_name

HUB_ID = "zeroshot/twitter-financial-news-sentiment"
LABELS = {"0": "bearish", "1": "bullish", "2": "neutral"}
QUESTION = "What is the sentiment of this tweet for the stock or market: bearish, bullish or neutral?"
DEV_SHARE, DEV_SEED = 0.1, 0
SPLITS = {"train": "train", "dev": "test", "test": "test"}  # the split in a file's name -> ours


def fetch(cache: Path) -> Files:
    """The two published splits from the hub, kept in `cache`. Raises `SourceError` if the hub cannot be reached."""
    return load_hub(HUB_ID, cache)


def rows(files: Files) -> Iterator[tuple[str, int, dict]]:
    """(file, number, record), the files of the test set first: of two copies of a tweet, the first one stays."""
    for name in sorted(files, key=lambda name: SPLITS.get(split_in_name(name) or "") != "test"):
        for number, record in enumerate(files[name]):
            yield name, number, record


def read(record: object, file: str) -> Problem | str:
    """A tweet as a `Problem`, or the reason why it is none."""
    if not isinstance(record, dict) or not {"text", "label"} <= record.keys():
        # One re-upload renames label 1 to "neutral" and 2 to "positive", which is wrong.
        if isinstance(record, dict) and "target" in record:
            return "words in place of labels"
        return (
            f"missing column {min({'text', 'label'} - record.keys())}" if isinstance(record, dict) else "unknown schema"
        )
    tweet, gold = " ".join(record["text"].split()), LABELS.get(str(record["label"]))
    split, key = SPLITS.get(split_in_name(file) or ""), tweet_key(tweet)
    if not split or not gold or not key:
        return "unknown split" if not split else "unreadable gold" if not gold else "no text but a link"
    identifier = hashlib.sha256(key.encode()).hexdigest()[:12]
    if split == "train" and hash_share(identifier, DEV_SEED) < DEV_SHARE:
        split = "dev"
    return Problem(
        id=f"tfns/{identifier}",
        source="tfns",
        module="reasoning business knowledge",
        language="en",
        capability="sentiment",
        answer_kind="label",
        context=tweet,
        question=QUESTION,
        labels=LABELS,
        gold=gold,
        split=split,
        group=f"tfns/{identifier}",
        reference=rationale(key, gold),
    )


def tweet_key(tweet: str) -> str:
    """What makes two tweets the same: the text without links, case and white space."""
    return " ".join(re.sub(r"https?://\S+", " ", tweet.lower()).split())
