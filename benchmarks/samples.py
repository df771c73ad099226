"""Chooses the real records that the package ships, from a folder with all of them: python samples.py DATA.

The rule: of each source and split the first `COUNTS` records by a hash of their ids (`SEED`). A record with a page has
the schema of the official files and a short page; each of its questions has golds that agree and a program that leads
to them. A page counts once. Of the tweets each label has as many. Records are written as they are.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from finr1.curation import spread
from finr1.records import Problem, hash_share
from finr1.sources import SOURCES, load_source, tfns
from finr1.sources.files import read_each, read_folder, split_in_name
from finr1.sources.finqa import page_of

FOLDER = Path(__file__).resolve().parent.parent / "finr1" / "sources" / "samples"
SEED = 0
MAX_CONTEXT = 3000  # characters of a page as a model reads it
# The test answers of ConvFinQA are private: its `dev` is what is tested on.
COUNTS = {"finqa": {"train": 20, "test": 20}, "convfinqa": {"train": 8, "dev": 6}, "tfns": {"train": 240, "valid": 21}}


def choose(data: Path) -> dict[str, str]:
    """The text of each file by its name below `FOLDER`."""
    files = {}
    for source in ("finqa", "convfinqa"):
        for split, count in COUNTS[source].items():
            lines = [json.dumps(record) for record in pages(data, source, split)][:count]
            files[f"{source}/{split}.jsonl"] = "\n".join(lines) + "\n"
    for split, count in COUNTS["tfns"].items():
        rows = io.StringIO()
        writer = csv.DictWriter(rows, ["text", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(tweets(data, split, count))
        files[f"tfns/sent_{split}.csv"] = rows.getvalue()
    return files


def pages(data: Path, source: str, split: str) -> Iterator[dict]:
    """The records that qualify, the first by hash first, and one of each page."""
    questions: dict[str, list[Problem]] = defaultdict(list)
    for problem in load_source(source, data).problems:
        questions[re.sub(r"_\d+$", "", problem.id) if source == "convfinqa" else problem.id].append(problem)
    seen = set()
    files = {file: records for file, records in read_folder(data / source).items() if split_in_name(file) == split}
    found = [record for records in files.values() for record in records if is_official(record)]
    for record in sorted(found, key=lambda record: hash_share(record["id"], SEED)):
        asked, page = questions[f"{source}/{record['id']}"], page_of(record["id"])
        turns = len(record["annotation"]["dialogue_break"]) if "annotation" in record else 1
        good = [p for p in asked if p.reference_by_parts and not p.flaw and len(p.context) <= MAX_CONTEXT]
        if page not in seen and len(good) == turns:
            seen.add(page)
            yield record


def is_official(record: object) -> bool:
    """Whether it is a record of the official files, and not of a re-upload in another shape."""
    has = record.keys() if isinstance(record, dict) else set()  # it may be broken
    return {"id", "pre_text", "post_text", "table_ori"} <= has and ("qa" in has or "qa_0" in has)


def tweets(data: Path, split: str, count: int) -> list[dict]:
    """`count` tweets, the labels in turn; of the train file none of the dev tenth."""
    shown = {"train": "train", "valid": "test"}[split]
    usable = {p.id: p for p in load_source("tfns", data).problems if p.split == shown}
    rows = {}
    for file, number, problem in read_each(tfns.read, files := read_folder(data / "tfns")):
        if isinstance(problem, Problem) and problem.id in usable and file.startswith(f"sent_{split}"):
            rows.setdefault(problem.id, files[file][number])
    chosen = spread(sorted(rows), count, lambda name: usable[name].gold, SEED)
    return [rows[name] for name in chosen]


if __name__ == "__main__":
    for name, text in choose(Path(sys.argv[1])).items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, "utf8")
    for source in COUNTS:
        loaded = load_source(source, FOLDER)
        print(source, Counter(p.split for p in loaded.problems), SOURCES[source].licence, loaded.rows)
