"""Sources whose records are a question with its answer: exams in Chinese, and open questions (README.md)."""

import re
from typing import Any

from finr1.paths import data_beside
from finr1.records import Problem, Turn, hash_share
from finr1.sources.files import Files, Results, key_of, problem_of, read_each, require, split_in_name, text_of, unpacked

# Ant_Finance is both a source and a benchmark: of some 2,343 questions with an answer some 940 are for the latter.
ANT_TEST_SHARE, ANT_DEV_SHARE, INSTRUCT_TEST_SHARE, SPLIT_SEED = 0.4, 0.1, 0.1, 0
ANT, _SHAREGPT = data_beside(__file__, "ant_finance.yaml"), {"human": "user", "gpt": "assistant"}
_EXAM = re.compile(r"(.*?)\n(A\s*[、.．].*?)\n\s*答案[:：](.*?)(?:\n\s*(?:分析解释|解析|分析)[:：](.*))?", re.DOTALL)


def read_ant(record: dict, file: str) -> Problem:
    *folders, name = ["", *file.split("/")]
    require({"FinEval, the other part of Fin-Eva": "sufe" not in file.lower().split("/")})
    task = name.split(".")[0]
    question, context, options = text_of(record["question"]), text_of(record.get("context")), options_of(record)
    key = key_of(context, question, *options.values())
    if not options and task in ANT["verdict_prompts"]:
        question = f"{ANT['verdict_prompts'][task]}\n\n{question}"
    place = hash_share(key, SPLIT_SEED)
    split = "test" if place < ANT_TEST_SHARE else "dev" if place < ANT_TEST_SHARE + ANT_DEV_SHARE else "train"
    capability = ANT["capabilities"].get(task) or ANT["capabilities"].get(folders[-1], "knowledge")
    kind = "choice" if options else "boolean"
    fields = {"answer_kind": kind, "context": context, "split": split, "capability": capability, "family": task}
    return _exam("ant_finance", f"{task}/{key}", question, options, record["answer"], **fields)


def read_financeiq(record: dict, file: str) -> Problem:
    question, options = text_of(record["Question"]), options_of(record)
    split = "dev" if split_in_name(file) == "dev" else "train"
    fields = {"split": split, "family": file.rpartition("/")[2].split(".")[0]}
    return _exam("financeiq", key_of(question, *options.values()), question, options, record["Answer"], **fields)


def read_fincorpus(record: dict, file: str) -> Problem:
    """An exam question out of its plain text: question, `A、` ... lines, `答案：`, `分析解释：`."""
    parts = _EXAM.fullmatch(record["text"].strip())
    require({"plain text, no question": parts})
    question, listed, answer, why = parts.groups("")
    options = dict(re.findall(r"^[ \t]*([A-H])[ \t]*[、.．][ \t]*(.*?)[ \t\r]*$", listed, re.MULTILINE))
    require({"no options": all(options.values())})  # they were images
    key, split = key_of(question, *options.values()), split_in_name(file) or "train"
    return _exam("fincorpus", key, question.strip(), options, answer, split=split, reference=why.strip())


def read_finpee(record: dict, file: str) -> Problem:
    """A question of one's own folder as a `Problem`; columns as in the module's text."""
    question, context, options = text_of(record["question"]), text_of(record.get("context")), options_of(record)
    kind = text_of(record.get("kind")).lower() or ("choice" if options else "number")
    stated = text_of(record.get("split")) or split_in_name(file) or "train"
    fields = {"context": context, "answer_kind": kind, "split": split_in_name(stated)}
    require({"unknown split": fields["split"]})
    return _exam("finpee", key_of(context, question, *options.values()), question, options, record["answer"], **fields)


def options_of(record: dict) -> dict[str, str]:
    """The columns `A`, `B`, ... that hold text, in the order of their letters."""
    return {letter: text_of(record[letter]) for letter in "ABCDEFGH" if text_of(record.get(letter))}


def _exam(source: str, key: str, question: str, options: dict[str, str], answer: object, **fields: Any) -> Problem:
    """An exam question as a `Problem`, by default a choice; the answer `["A","B"]` becomes AB."""
    kind = fields.setdefault("answer_kind", "choice")
    several = unpacked({"answers": answer})["answers"]  # a list, or the text of one
    parts = [text_of(part) for part in (several if isinstance(several, list) else [answer])]
    gold = "".join(sorted(parts)) if kind == "choice" else ";".join(parts)
    require({"no question": question, "no gold": gold, "no options": kind != "choice" or len(options) > 1})
    fields = {"capability": "knowledge"} | fields
    return problem_of(source, key, question=question, choices=options or None, gold=gold, **fields)


def finance_instruct_files(files: Files) -> Results:
    """The results; `train` is a split only beside another: the hub calls unsplit data so, too."""
    has_splits = any(split_in_name(name) in ("dev", "test") for name in files)
    return read_each(lambda record, file: read_finance_instruct(record, file if has_splits else ""), files)


def read_finance_instruct(record: dict, file: str) -> Problem:
    """A conversation as a `Problem` whose gold is the last answer."""
    record = {"system": ""} | record
    if "conversations" in record:
        turns = [{"from": "system", "value": record["system"] or ""}, *record["conversations"]]
        turns = [turn if "role" in turn else {"role": turn["from"], "content": turn["value"]} for turn in turns]
        chat = [turn | {"role": _SHAREGPT.get(turn["role"], turn["role"])} for turn in turns]
    elif isinstance(record.get("prompt"), str) and "messages" not in record:
        chat = [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": record["completion"]}]
    elif "messages" in record or "prompt" in record:
        chat = record["messages"] if "messages" in record else [*record["prompt"], *record["completion"]]
    else:
        chat = [{"role": role, "content": text_of(record[role])} for role in ("system", "user", "assistant")]
    chat = [{"role": turn["role"], "content": _content(turn["content"])} for turn in chat]
    system = "\n".join(turn["content"] for turn in chat if turn["role"] == "system" and turn["content"])
    turns = [turn for turn in chat if turn["role"] != "system"]
    in_turn = [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    require({"no question and answer in turn": turns and in_turn})
    *earlier, question, answer = (turn["content"] for turn in turns)
    require({"empty turn": all(earlier)})
    history = [Turn(question=q, answer=a) for q, a in zip(earlier[::2], earlier[1::2], strict=True)]
    key = key_of(system, *(turn.question for turn in history), question)
    split = split_in_name(file) or ("test" if hash_share(key, SPLIT_SEED) < INSTRUCT_TEST_SHARE else "train")
    return _open("finance_instruct_500k", key, question, answer, context=system, history=history, split=split)


def _content(content: Any) -> str:
    """The text of a chat's turn, which may be a list of typed parts; raises `NoProblem` for a part that is no text."""
    if not isinstance(content, list):
        return content.strip()
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    require({"a turn that is not all text": all(part["type"] == "text" for part in parts)})
    return "".join(part["text"] for part in parts).strip()


def read_financeqt(record: dict, file: str) -> Problem:
    record = {"context": ""} | record
    question, answer, context = (text_of(record[name]) for name in ("question", "answer", "context"))
    fields = {"context": context, "split": split_in_name(file) or "train", "capability": "code"}
    return _open("financeqt", key_of(context, question), question, answer, **fields)


def _open(source: str, key: str, question: str, answer: str, **fields: Any) -> Problem:
    require({"no question": question, "no gold": answer})
    kind = "number" if re.fullmatch(r"[-+]?\$?\d[\d,]*(\.\d+)?", answer) else "text"
    language = "zh" if re.search(r"[\u4e00-\u9fff]", question) else "en"
    fields = {"capability": "knowledge", "answer_kind": kind, "language": language} | fields
    return problem_of(source, key, question=question, gold=answer, **fields)
