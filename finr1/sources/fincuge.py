"""FinCUGE: Chinese financial news and forum tasks of BBT-CFLEB; `TASKS` names the places of a record (README.md)."""

import re
from collections import defaultdict
from typing import Any

from finr1.paths import data_beside
from finr1.records import Problem
from finr1.sources.files import Files, Results, code_of, key_of, problem_of, read_each, require, split_in_name
from finr1.sources.golds import CONTRADICTORY

TASKS = data_beside(__file__, "fincuge.yaml")


def read_files(files: Files) -> Results:
    """The results: several answers to a question are alternatives (of sentiments: a flaw); train texts in eval go."""
    results = list(read_each(read, files))
    problems = [result for *_, result in results if isinstance(result, Problem)]
    tested = {problem.group for problem in problems if problem.split == "test"}
    golds: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)  # those of a question, in order
    for problem in problems:
        golds[problem.split, problem.id][problem.gold] = None
    done: set[str] = set()
    for file, number, result in results:
        if isinstance(result, Problem):
            first, *others = golds[result.split, result.id]
            if result.split != "test" and result.group in tested:
                result = "text of the test split"
            elif result.id in done:
                result = "duplicate id" if result.gold == first else "a further answer to a question"
            else:
                done.add(result.id)
                flaw = CONTRADICTORY if others and result.capability == "sentiment" else ""
                result = result.model_copy(update={"alternatives": others, "flaw": flaw})
        yield file, number, result


def read(record: Any, file: str) -> Problem:
    name = re.search(r"(?<![a-z])(fin(?:cqa|ese|fe|na|ne|nl|nsp|qa|re))(?![a-z])", file.lower())
    require({"unknown task": name, "unknown schema": isinstance(record, list)})
    family, task = name[1], TASKS.get(name[1])
    require({"values without a published meaning": task})
    golds, kind, question = task.get("golds", {}), task.get("kind", "text"), task.get("question", "")
    columns = dict(zip(task["columns"].split(), record, strict=True))
    context = "\n".join(columns[name] for name in task.get("context", "text").split()).strip()
    question, gold = question.format(**columns, options="、".join(golds)).strip(), columns["gold"]
    if not question:
        question, mark, context = (part.strip() for part in columns["text"].replace("?", "？", 1).partition("？"))
        question = f"{question}{mark}".strip()
    if golds:
        require({"unreadable gold": code_of(gold) in golds})
        gold = golds[code_of(gold)]
    gold = " ".join(gold.split()) if family == "finnl" else gold.strip()
    require({"no question": question, "no gold": gold and gold != "NaN"})
    labels = golds if kind == "label" else None
    asked = {"context": context, "question": question, "gold": gold, "labels": labels, "answer_kind": kind}
    split = "test" if "eval" in file.lower() else split_in_name(file) or "train"
    place = {"split": split, "group": f"fincuge/{key_of(context or question)}", "family": family}
    capability = task.get("capability", "knowledge")
    return problem_of("fincuge", key_of(question, context), capability=capability, **asked, **place)
