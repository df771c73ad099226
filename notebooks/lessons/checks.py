"""What the exercises show, and `check(name, answer)`, which says why an answer is not right yet.

The material is made live by the suite's own functions. Each `_name` takes an answer and returns the reason why it is
wrong, "" for a right one; an answer of another shape than the exercise asks for is told so.
"""

import functools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import yaml

from finr1 import curation, evaluation, grading, judge, plan, records, reported, synthetic, teacher
from finr1.paths import repository_root
from finr1.records import Problem, Trace

HERE = Path(__file__).resolve().parent
SETS = ("printed_means", "belongs", "turn_two", "fits")  # answers that are sets of words


def check(name: str, answer) -> None:
    """Print whether `answer` solves the exercise `name`, and if it does not, why."""
    reason = why_wrong(name, answer)
    print(f"{name}: not yet. {reason}" if reason else f"{name}: right.")


def why_wrong(name: str, answer) -> str:
    """The reason why `answer` does not solve exercise `name`; "" when it does. `ValueError` for an unknown name."""
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    if answer is ... or isinstance(answer, dict) and any(value is ... for value in answer.values()):
        return f'There is no answer: put yours in place of the three dots. hint("{name}") helps.'
    if name in SETS and isinstance(answer, str):
        return 'That is one text. A set is wanted, in curly brackets: {"one", "another"}.'
    try:
        return EXERCISES[name](answer)
    except Exception as error:  # a learner's function may raise anything, and a wrong shape nearly anything
        return f"The answer could not be used ({type(error).__name__}: {error}). Look at the shape that is asked for."


def hint(name: str) -> None:
    """Print a hint for the exercise `name`; the solutions stand beside it in `solutions/`."""
    print(yaml.safe_load((HERE / "solutions" / "hints.yaml").read_text("utf8"))[name])


@functools.cache
def from_notebook(notebook: str, *names: str) -> SimpleNamespace:
    """What `notebook` defines, as far as the functions or classes `names` need it: its imports and their cells."""
    cells = nbformat.read(repository_root() / "notebooks" / f"{notebook}.ipynb", 4).cells
    wanted = re.compile(rf"^(?:def|class) (?:{'|'.join(names)})\(", re.MULTILINE)
    space: dict = {}
    for cell in cells:
        if cell.get("id") == "cell-01" or cell.cell_type == "code" and wanted.search(cell.source):
            exec(compile(cell.source, notebook, "exec"), space)
    return SimpleNamespace(**space)


def _close(given: float, right: float, share: float = 0.01) -> bool:
    return math.isclose(given, right, rel_tol=share, abs_tol=1e-9)


def _number(given: float, right: float, wrong: Mapping[float, str], rule: str) -> str:
    """Why a number is not `right`: the reason of the typical mistake in `wrong` that it is, else the `rule`."""
    return "" if _close(given, right) else next((why for value, why in wrong.items() if _close(given, value)), rule)


def _differences(given: Sequence, right: Sequence, reasons: Sequence[str], near: float | None = None) -> str:
    """The reason of the first place in which `given` is not `right`; numbers may be off by `near`."""
    if len(given) != len(right):
        return f"There are {len(right)} places, and the answer has {len(given)}."
    same = [a == b if near is None else abs(a - b) <= near for a, b in zip(given, right, strict=True)]
    places = [place for place, agrees in enumerate(same) if not agrees]
    return f"Place {places[0] + 1}: {reasons[places[0]]}" if places else ""


# ---- 00 overview ----------------------------------------------------------------------------------------------------


def _printed_means(answer: set) -> str:
    rows = {row["model"]: row for row in reported.RESULTS}
    if strange := sorted(set(answer) - rows.keys()):
        return f"There is no model {strange[0]!r}; they are {', '.join(rows)}."
    means = {name: sum(row["scores"].values()) / len(row["scores"]) for name, row in rows.items()}
    wrong = {name for name, mean in means.items() if abs(mean - rows[name]["mean"]) > 0.0501}
    for name in sorted(set(answer) ^ wrong):
        told = f"the five scores of {name} have the mean {means[name]:.2f}, and {rows[name]['mean']} is printed"
        return f"Something is missing: {told}." if name in wrong else f"{told[0].upper()}{told[1:]}: that is rounding."
    return ""


MODULE = "reasoning business knowledge"


def _reasoning_share(answer: float) -> str:
    own = [row for row in reported.SOURCES if row["module"] == MODULE]
    shares = {key: sum(row[key] for row in own) / sum(row[key] for row in reported.SOURCES) for key in ("kept", "raw")}
    if _close(answer, shares["kept"]):
        return ""
    if _close(answer, shares["raw"]):
        return "That is a share of the raw records; the model is trained on those that were kept."
    if _close(answer, len(own) / len(reported.SOURCES)):
        return "That counts sources. FinCorpus alone has 29,288 records: count records."
    return f"kept records of the module {MODULE!r} / all kept records, between 0 and 1."


USES = {  # what somebody wants to do -> the split that it may look at, and why
    "write teacher traces for SFT": ("train", "what a model learns is training data, whoever wrote it."),
    "choose the learning rate": ("dev", "a choice fits the data that it looks at, so the test split would be spent."),
    "keep the best checkpoint": (
        "dev",
        "the best of many looks is too good by luck; nobody may look so often at test.",
    ),
    "choose the best constant of a family": ("train", "a constant that knows the test golds would know the answer."),
    "report an accuracy": ("test", "only what nobody has chosen by is worth a report."),
}


def _splits(answer: Sequence[str]) -> str:
    return _differences(list(answer), [split for split, _ in USES.values()], [why for _, why in USES.values()])


# ---- 01 data --------------------------------------------------------------------------------------------------------


def _problem(text: str, name: str, split: str = "train", **more) -> Problem:
    return Problem(id=name, group=name, source="toy", module="toy", language="en", capability="calculation",
                   answer_kind="number", question=text, gold="60", split=split, **more)  # fmt: skip


ORIGINAL = "A clerk at the branch in Leeds pays 5% interest on a deposit of $1200. What is the interest in dollars?"
COPIES = {  # letter -> a copy of ORIGINAL, and what the filter makes of it
    "a": (ORIGINAL.upper() + "!!", "capitals and punctuation are no tokens of their own."),
    "b": (ORIGINAL.replace("5%", "five percent"), "5 became a word, and other numbers make another problem."),
    "c": (ORIGINAL.replace("1200", "１２００"), "full-width digits become plain ones before anything is compared."),
    "d": ("What interest in dollars does $1200 on deposit bring at 5%, paid by a clerk in the branch in Leeds?",
          "the numbers are the same, and yet fewer than 80 % of the word triples are shared."),
    "e": (ORIGINAL.replace("1200", "1300"), "$1300 is another question: it is no copy, and it must stay."),
}  # fmt: skip

OTHER = ORIGINAL.replace("What is the interest in dollars?", "How many months does it stay?")


def copies() -> list[Problem]:
    """The original and the copies, in one list as `curation.drop_duplicates` takes it."""
    return [_problem(ORIGINAL, "original"), *(_problem(text, letter) for letter, (text, _) in COPIES.items())]


def _kept_copies(answer: set) -> str:
    kept = {problem.id for problem in curation.drop_duplicates(copies())[0]} - {"original"}
    for letter in sorted(set(answer) ^ kept):
        does = "keeps" if letter in kept else "drops"
        return f"The filter {does} {letter}: {COPIES[letter][1]}" if letter in COPIES else f"There is no {letter!r}."
    return ""


def _same_question(answer: Callable[[str, str], bool]) -> str:
    for letter, (text, _) in COPIES.items():
        said = bool(answer(ORIGINAL, text))
        if said and letter == "e":
            return "It calls $1200 and $1300 one question: templates would shrink to one instance."
        if not said and letter != "e":
            return f"It misses the copy {letter}: {text}"
    if answer(ORIGINAL, OTHER):
        return f"It calls two different questions one, as their numbers are the same. The other one is: {OTHER}"
    families = ("percent_of", "currency", "sentiment")
    others = [records.render_question(p) for p in synthetic.generate_problems(60, "train", 1, families)]
    for first, second in zip(others, others[len(families) :], strict=False):
        if answer(first, second):
            return f"It calls two different questions one: {first!r} and {second!r}."
    return ""


HELD_OUT = "What was the percentage change in the net revenue of the whole group from 2014 to 2015, in percent?"
TRAINING = {
    "a": "Read the page first. What was the percentage change in the net revenue of the whole group from 2014 to 2015?",
    "b": "What was the percentage change in the net revenue of the group from 2014 to 2015, in percent?",
    "c": "What was the percentage change in the net revenue of the whole group from 2013 to 2014, in percent?",
    "d": "In per cent, how did the group's net revenue change from 2014 to 2015?",
}


def _leaks(answer: set) -> str:
    train = [_problem(text, letter) for letter, text in TRAINING.items()]
    kept, matches = curation.decontaminate(train, [_problem(HELD_OUT, "held-out", "test")])
    grams = {match["train_id"]: match["ngram"] for match in matches}
    for letter in sorted(set(answer) ^ grams.keys()):
        if letter in grams:
            return f"{letter} is dropped, whatever else it asks: it shares 13 words in a row, {grams[letter]!r}."
        if letter not in TRAINING:
            return f"There is no {letter!r}."
        return (
            f"{letter} stays: count its longest run of words in common with the held-out text; it is shorter than 13."
        )
    return ""


# ---- 02 distillation ------------------------------------------------------------------------------------------------


@functools.cache
def spoiled() -> list[Trace]:
    """Three traces of one problem, each with one fault of the scripted teacher."""
    cells = from_notebook("02_distillation", "other_number", "write_answer")
    problem = synthetic.generate_problems(1, "train", 3, ["currency"])[0]
    faults = ("arithmetic_slip", "repetition", "missing_format")
    texts = [cells.write_answer(problem, problem.reference_by_parts, fault, random.Random(5)) for fault in faults]
    thought = [text.replace("<think>", "").partition("</think>")[0] for text in texts]
    return [teacher.trace_of(problem, k, "scripted", text, thought[k], fault=faults[k])
            for k, text in enumerate(texts)]  # fmt: skip


def _faults(answer: Sequence[str]) -> str:
    known = from_notebook("02_distillation", "other_number", "write_answer").FAULTS
    if strange := [name for name in answer if name not in known]:
        return f"{strange[0]!r} is no name of a fault; the names are {', '.join(known)}."
    clues = {
        "arithmetic_slip": "the final answer is right, and one equation is false. Recompute each one.",
        "repetition": "format, answer and every equation are right. Read the sentences: is one there twice?",
        "missing_format": "the reasoning is sound. Look at the tags: exactly one think block, then one answer block.",
    }
    faults = [trace.fault for trace in spoiled()]
    return _differences(answer, faults, [clues[fault] for fault in faults])


ASKED = _problem("What is the interest in dollars?", "asked", context="A deposit of $1200 at 5% a year.")
SECOND_TURN = ASKED.model_copy(update={
    "id": "second turn", "answer_kind": "choice", "gold": "B", "question": "And after two years?",
    "history": [records.Turn(question="How much is it after one year?", answer="It is 60.")],
    "choices": {"A": "105 dollars", "B": "120 dollars"}, "reference": "PLAN-4402", "reference_by_parts": "PLAN-4402",
})  # fmt: skip


def _request(answer: Callable[[Problem], str]) -> str:
    gold = "SECRET-7731"
    text = answer(ASKED.model_copy(update={"gold": gold}))
    if gold in text:
        return "The request holds the gold answer: the teacher would copy it and reason backwards."
    if ASKED.context not in text:
        return "The context is missing: nobody can answer without the deposit. `records.render_question` has it."
    if ASKED.question not in text:
        return "The question itself is missing."
    if "\x08oxed" in text:
        return "Write two backslashes in Python: it reads one backslash and a b as a single sign, the backspace."
    if "\\boxed" not in text:
        return "Nothing asks for a \\boxed{} answer, so the grader would have to search the text for it."
    return _request_of_a_second_turn(answer(SECOND_TURN))


def _request_of_a_second_turn(text: str) -> str:
    if SECOND_TURN.reference in text:
        return "The request holds `reference`, the worked solution: the teacher would copy it."
    if any(part not in text for turn in SECOND_TURN.history for part in (turn.question, turn.answer)):
        return (
            f"Earlier turns (`history`) are missing: nobody understands {SECOND_TURN.question!r} without them. "
            "`records.messages` has them."
        )
    if SECOND_TURN.context not in text:
        return (
            "The context is missing where there are earlier turns: `records.render_question` leaves it to the first "
            "of them. `records.messages` has it."
        )
    if any(option not in text for option in SECOND_TURN.choices.values()):
        return "The options (`choices`) are missing: the teacher could not choose one."
    return ""


PRICE = {"records": 60_091, "kept": 0.5, "prompt": 400, "answer": 1200, "prompt_price": 0.5, "answer_price": 2.0}


def _price(answer: float) -> str:
    asked = PRICE["records"] / PRICE["kept"]
    read, written = PRICE["prompt"] * PRICE["prompt_price"], PRICE["answer"] * PRICE["answer_price"]
    wrong = {
        PRICE["records"]
        * (read + written)
        / 1e6: "That pays for the kept records alone: each rejected one was paid, too.",
        asked * (read + written): "Prices are for a million tokens: divide by 1,000,000.",
        asked * written / 1e6: "The prompts are missing: tokens that are read cost money, too.",
    }
    for value, reason in wrong.items():
        if _close(answer, value):
            return reason
    right = asked * (read + written) / 1e6
    return (
        "" if _close(answer, right) else f"It is {'more' if answer < right else 'less'}: records asked x cost of each."
    )


# ---- 03 filtering ---------------------------------------------------------------------------------------------------

FRESH = {"en": ["Two swans crossed the pond at dawn.", "My brother plays the trumpet.", "The paint was still wet."],
         "zh": ["两只天鹅游过池塘。", "我哥哥会吹小号。", "油漆还没有干。"]}  # fmt: skip  # said by nobody before


@functools.cache
def audited() -> list[tuple[Trace, bool]]:
    """650 traces of the scripted teacher with what was planted, and whether the criteria of notebook 03 keep them.

    29 of them have a stray sentence, and the criteria reject 14 of these, as they did when the exercise was written.
    """
    cells = from_notebook("02_distillation", "other_number", "write_answer", "planted_fault")
    traces, strays = [], {True: 15, False: 14}  # whether a stray is kept -> how many more are wanted
    for problem in synthetic.generate_problems(3000, "train", 42):
        fault = cells.planted_fault(problem, 0, 0.3, 42)
        solution = teacher.solution_of(problem, 0, 42, 0.4)
        text = cells.write_answer(problem, solution, fault, teacher.rng_of("text", problem, 0, 42))
        thought = text.replace("<think>", "").partition("</think>")[0]
        if fault != "off_domain" and len(traces) == 650 - sum(strays.values()):
            continue
        trace = teacher.trace_of(problem, 0, "scripted", text, thought, fault=fault)
        kept = judge.check_answer(trace) is True and _meets_seven(trace)
        if fault != "off_domain" or strays[kept]:
            strays[kept] -= fault == "off_domain"
            traces.append((trace, kept))
        if len(traces) == 650:
            break
    return traces


def _meets_seven(trace: Trace) -> bool:
    rules = from_notebook("03_filtering", "Scores", "is_gold", "stated_answers", "unrelated")
    return not rules.score_reasoning(trace).reasons


@functools.cache
def strayed() -> list[Trace]:
    """Sound traces with one sentence of `FRESH` put in, which the seven criteria keep all the same."""
    rng, made = random.Random(3), []
    for trace in [trace for trace, kept in audited() if kept and not trace.fault]:
        steps = judge.split_steps(trace.reasoning)
        steps.insert(rng.randrange(len(steps)), rng.choice(FRESH[trace.problem.language]))
        thought = ("。" if trace.problem.language == "zh" else " ").join(steps)
        changed = trace.model_copy(update={"reasoning": thought, "fault": "off_domain"})
        made += [changed] if _meets_seven(changed) else []
    return made


def counts(traces: Sequence[tuple[Trace, bool]]) -> pd.DataFrame:
    """By fault ("none": sound): how many are `planted`, and how many of them the seven criteria have `rejected`."""
    planted = Counter(trace.fault or "none" for trace, _ in traces)
    rejected = Counter(trace.fault or "none" for trace, kept in traces if not kept)
    return pd.DataFrame({"planted": planted, "rejected": rejected}).fillna(0).astype(int)


def _eighth(answer: Callable[[Trace], bool]) -> str:
    def met(trace: Trace) -> bool:
        return answer(trace.model_copy(update={"fault": None}))  # nobody tells a filter what was planted

    strays = [(trace, kept) for trace, kept in audited() if trace.fault == "off_domain"]
    lost = [trace for trace, kept in audited() if kept and not trace.fault and not met(trace)]
    if len(lost) > 4:
        return f"It loses {len(lost)} sound traces, and 4 are allowed. One of them: {lost[0].reasoning}"
    before = sum(not kept for _, kept in strays)
    found = sum(not (kept and met(trace)) for trace, kept in strays)
    if found < 26:
        return f"Off-domain recall goes from {before} to {found} of {len(strays)}; 26 are asked for."
    known = sum(not met(trace) for trace in strayed())
    if known < 0.8 * len(strayed()):
        told = f"It finds the planted strays, and only {known} of {len(strayed())} sentences that nobody has shown you"
        return f"{told}, such as {FRESH['en'][0]!r}: it knows words, not what makes a step strange."
    return ""


def _audit(answer: dict) -> str:
    table = counts(audited())
    caught = table.drop("none")["rejected"].sum()
    recall, precision = caught / table.drop("none")["planted"].sum(), caught / table["rejected"].sum()
    right = {
        "precision": precision,
        "recall": recall,
        "sound kept": 1 - table.loc["none", "rejected"] / table.loc["none", "planted"],
    }
    if recall != precision and _close(answer["precision"], recall) and _close(answer["recall"], precision):
        return "The two are swapped: precision is of the rejected, recall of the planted."
    if _close(answer["recall"], caught / table["planted"].sum()):
        return "Recall divides by the planted faults alone, not by all traces: sound traces are none."
    wrong = [name for name, value in right.items() if not _close(answer[name], value)]
    told = {"precision": "rejected traces with a fault / all rejected traces",
            "recall": "rejected traces with a fault / all traces with a fault",
            "sound kept": "sound traces that stay / all sound traces"}  # fmt: skip
    return f"{wrong[0]} is {told[wrong[0]]}." if wrong else ""


REPLIES = [
    "**1**",
    "<think>The answer is 12, so 0?</think>1",
    "I would say 1, but it could be 0.",
    "The two agree.\n0",
    "1 point",
]


def _verdicts(answer: Sequence[bool | None]) -> str:
    reasons = [
        "stars around a verdict do no harm: it is a plain 1.",
        "a thought does not count; behind it stands a plain 1.",
        "a line with more than a verdict is none: the judge said neither 1 nor 0, so None.",
        "the last line decides, and it is 0, whatever the line before it says.",
        "the line holds a word beside the 1, so it is no verdict: None, not True.",
    ]
    return _differences(answer, [judge.read_check(reply) for reply in REPLIES], reasons)


# ---- 04 SFT ---------------------------------------------------------------------------------------------------------

ROW = {
    "prompt": [{"role": "user", "content": "what is 5 + 7"}],
    "completion": [{"role": "assistant", "content": "<think> 5 + 7 = 12 </think> 12"}],
}


@functools.cache
def toy_tokenizer():
    """One token for each word between blanks, with the chat template that SmolLM2 and Qwen2.5 have (ChatML)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = "<|im_start|> <|im_end|> [UNK] user assistant what is 5 + 7 = 12 <think> </think>".split()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = (
        "{% for m in messages %}{{ '<|im_start|> ' + m.role + ' ' + m.content + '<|im_end|> ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
    )
    return fast


def example() -> dict[str, list]:
    """The row as notebook 04 turns it into tokens: `words`, and for each whether it is learned (1) or given (0)."""
    made = from_notebook("04_sft", "training_row").training_row(ROW, toy_tokenizer())
    return {"words": toy_tokenizer().convert_ids_to_tokens(made["input_ids"]), "ids": made["input_ids"],
            "learned": made["completion_mask"]}  # fmt: skip


def _labels(answer: Sequence[int]) -> str:
    row = example()
    right = [token if learned else -100 for token, learned in zip(row["ids"], row["learned"], strict=True)]
    if list(answer) == row["ids"]:
        return "Every token has a label: the model would learn to ask the question, too. Given tokens are -100."
    reasons = []
    for word, learned in zip(row["words"], row["learned"], strict=True):
        given = "it is part of the prompt (the template's words before the answer included), so it is -100."
        end = "it ends the answer and is learned: without it the model never stops."
        reasons.append(f"{word}: " + ((end if word == "<|im_end|>" else "it is learned.") if learned else given))
    return _differences(list(answer), right, reasons)


LAYER = {"inputs": 576, "outputs": 1536, "r": 16}


def _lora(answer: int) -> str:
    inputs, outputs, r = LAYER.values()
    wrong = {
        inputs * outputs: "That is the frozen weight W. LoRA trains A (r x inputs) and B (outputs x r) beside it.",
        r * inputs: "That is A alone; B has outputs x r.",
        r * outputs: "That is B alone; A has r x inputs.",
        r * inputs * outputs: "The two matrices stand side by side: add their sizes, do not multiply them.",
    }
    return "" if answer == r * (inputs + outputs) else wrong.get(answer, "Count the entries of A and of B.")


STEPS = {"rows": 1000, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_train_epochs": 1}


def _steps(answer: int) -> str:
    rows, size, accumulation, epochs = STEPS.values()
    right = math.ceil(rows / size / accumulation) * epochs
    wrong = {
        math.ceil(rows / size): "Those are micro-batches: two of them make one step of the optimiser.",
        rows // (size * accumulation): "The rows that are left over make one more, smaller step.",
        rows: "A step learns from a whole batch, not from one row.",
    }
    return "" if answer == right else wrong.get(answer, "Rows / (batch x accumulation), rounded up.")


# ---- 05 GRPO --------------------------------------------------------------------------------------------------------

FOUR = {  # one group: what an answer is like -> its text; the gold is 60
    "right, with tags": "<think>12 * 5 = 60.</think><answer>\\boxed{60}</answer>",
    "right, without tags": "12 * 5 = 60, so it is \\boxed{60}.",
    "wrong, with tags": "<think>12 * 5 = 70.</think><answer>\\boxed{70}</answer>",
    "wrong, without tags": "Seventy, I guess.",
}


def advantages(rewards: Sequence[float]) -> list[float]:
    """(r - mean) / (spread + 1e-4) of one group, as TRL has it."""
    values = pd.Series(rewards, dtype=float)
    return ((values - values.mean()) / (values.std() + 1e-4)).tolist()


AGAIN = {  # gold -> four answers, the best first: right with tags, right without, wrong with, wrong without
    "60": (FOUR["right, with tags"], FOUR["right, without tags"],
           "<think>60 is too much: 12 * 4 = 48.</think><answer>\\boxed{48}</answer>", "Not 60: it is \\boxed{48}."),
    "70": (FOUR["wrong, with tags"], "14 * 5 = 70, so it is \\boxed{70}.",
           FOUR["right, with tags"], FOUR["right, without tags"]),
}  # fmt: skip


def _rewarded(answer: Callable, texts: Sequence[str], gold: str) -> list[float]:
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    return list(answer(chats, solution=[gold] * len(chats), answer_kind=["number"] * len(chats)))


def _two_zeros(answer: Callable) -> str:
    texts = [*FOUR.values()]
    rewards = _rewarded(answer, texts, "60")
    if len(rewards) != 4:
        return "A reward function returns one number for each completion."
    both, untagged, obedient, neither = advantages(rewards)
    if not any(map(abs, (both, untagged, obedient, neither))):
        return "All four get the same reward: the group has no spread, and teaches nothing."
    if abs(untagged - obedient) < 0.05:
        return f"Both middle answers get the advantage {untagged:+.2f}: they are not told apart."
    if untagged < obedient:
        return (
            "A wrong answer with tags is worth more than a right one without: obedience would be learned before truth."
        )
    if both <= untagged:
        return "Right with tags has to be worth more than right without, or the format is never learned."
    if neither >= obedient:
        return (
            "Wrong without tags is worth as much as wrong with tags: then a group of wrong answers teaches no format."
        )
    if _rewarded(answer, texts, "70") == rewards:
        return "It does not read the gold: with another gold the rewards are the same."
    if _rewarded(answer, texts[::-1], "60")[::-1] != rewards:
        return "The four texts changed places, and their rewards did not: read each text."
    for gold, ordered in AGAIN.items():
        best, second, third, last = _rewarded(answer, ordered, gold)
        if not best > second > third > last:
            named = "a text that names 60 and boxes 48 is wrong: read the box, not the whole text."
            return f"With the gold {gold}, " + (
                named if gold == "60" else "the answers that box 70 are the right ones."
            )
    return ""


def _by_hand(answer: Sequence[float]) -> str:
    right, rewards = advantages(GROUP), pd.Series(GROUP)
    if all(map(_close, answer, rewards - rewards.mean(), [0.01] * 4)):
        return "Divide by the spread, too: that is Dr. GRPO's advantage, not GRPO's."
    if all(map(_close, answer, (rewards - rewards.mean()) / rewards.std(ddof=0), [0.01] * 4)):
        return "The spread divides by n - 1 = 3, as torch.std does; yours divided by n = 4."
    return _differences(list(answer), right, ["(r - mean) / spread."] * 4, near=0.01)


GROUP = [2.0, 1.0, 1.0, 0.0]
GROUPS = {"a": [1, 1, 1, 1], "b": [2, 0, 0, 0], "c": [0, 0, 0, 0], "d": [1, 1, 2, 1], "e": [1, None, None, 1]}


def _dead(answer: set) -> str:
    dead = {name for name, group in GROUPS.items() if len({r for r in group if r is not None}) < 2}
    for name in sorted(set(answer) ^ dead):
        if name not in GROUPS:
            return f"There is no {name!r}."
        if name not in dead:
            return f"{name} has two different rewards, so its advantages are not all 0: it teaches."
        known = [reward for reward in GROUPS[name] if reward is not None]
        none = " None is no 0: such a completion is left out." if None in GROUPS[name] else ""
        return f"{name} teaches nothing: every reward is {known[0]}, and so every advantage is 0.{none}"
    return ""


TOKENS = [(1.1, 1.0), (1.3, 1.0), (0.7, 1.0), (1.3, -1.0), (0.7, -1.0)]  # ratio, advantage; epsilon is 0.2


def _clipped(answer: Sequence[bool]) -> str:
    import torch

    right = []
    for ratio, advantage in TOKENS:
        rho = torch.tensor(ratio, requires_grad=True)
        torch.min(rho * advantage, rho.clamp(0.8, 1.2) * advantage).backward()
        right.append(rho.grad.item() == 0)
    reasons = [
        "1.1 lies between 0.8 and 1.2: nothing is clipped.",
        "a better token (A > 0) that is already 1.3 times as probable is clipped: no gradient.",
        "a better token that has become rarer may still rise: min takes 0.7, not the clipped 0.8.",
        "a worse token (A < 0) that has become more probable may still fall: min(-1.3, -1.2) is the unclipped -1.3.",
        "a worse token that is already rarer than 0.8 is clipped: min(-0.7, -0.8) is the clipped one. No gradient.",
    ]
    return _differences([bool(said) for said in answer], right, reasons)


# ---- 06 benchmark ---------------------------------------------------------------------------------------------------


@functools.cache
def answers() -> pd.DataFrame:
    """Made-up answers of a policy to real synthetic questions: `family`, `gold`, `given`, `right`.

    One family has collapsed to a constant; another is hard, and one is easy.
    """
    rng, rows = random.Random(2), []
    for problem in synthetic.generate_problems(90, "test", 5, ["position_rule", "percent_of", "sentiment"]):
        names = list((problem.labels or {}).values())
        given = {
            "position_rule": "no",
            "percent_of": problem.gold if rng.random() < 0.2 else str(rng.randrange(100, 900)),
            "sentiment": problem.gold if rng.random() < 0.75 else rng.choice(names or ["neutral"]),
        }[problem.family]
        right = bool(grading.grade(given, **problem.graded_against))
        rows.append({"family": problem.family, "gold": problem.gold, "given": given, "right": right})
    return pd.DataFrame(rows)


def _collapsed(answer: str) -> str:
    table = answers()
    own = table[table["family"] == answer]
    if own.empty:
        return f"There is no family {answer!r}; the families are {', '.join(table['family'].unique())}."
    share = own["given"].value_counts(normalize=True).iloc[0]
    if share > 0.8:
        return ""
    told = f"{answer} is right in {own['right'].mean():.0%}, and its commonest answer makes up {share:.0%} only."
    return f"{told} Low accuracy is difficulty, not collapse: count how often each answer is *given*."


PAIRS = {"right before, wrong after": 36, "wrong before, right after": 44, "both right": 90, "both wrong": 70}


def _mcnemar(answer: float) -> str:
    lost, gained, both, neither = PAIRS.values()
    before = [1] * lost + [0] * gained + [1] * both + [0] * neither
    after = [0] * lost + [1] * gained + [1] * both + [0] * neither
    right = evaluation.mcnemar(before, after)[2]
    if _close(answer, right, 0.02):
        return ""
    if _close(answer, right / 2, 0.03):
        return "That is one side. The sign of the change was not known before: the test has two sides."
    if answer < 0.05:
        return "So small a p would be strong evidence, and 44 heads in 80 tosses are no proof. Which counts went in?"
    return "Only the 80 items that changed count: how often do 80 tosses of a fair coin give 44 or more, or 36 or less?"


TRAIN_GOLDS = {"position_rule": ["yes"] * 30 + ["no"] * 20, "sentiment": ["bullish"] * 20 + ["bearish"] * 15}
TEST_GOLDS = {"position_rule": ["yes"] * 8 + ["no"] * 12, "sentiment": ["bullish"] * 9 + ["bearish"] * 6}


def _constant(answer: float) -> str:
    def worth(source: dict) -> float:
        best = {family: Counter(golds).most_common(1)[0][0] for family, golds in source.items()}
        hits = sum(gold == best[family] for family, golds in TEST_GOLDS.items() for gold in golds)
        return hits / sum(map(len, TEST_GOLDS.values()))

    if _close(answer, worth(TRAIN_GOLDS)):
        return ""
    if _close(answer, worth(TEST_GOLDS)):
        return (
            "That constant was chosen on the test golds. Nobody who is tested knows them: choose on the training golds."
        )
    return "For each family: its commonest training gold, and how many test golds are that. Then all hits / all items."


CLAIM = "SFT followed by GRPO is better than GRPO without SFT (Fin-R1 against Fin-R1-Zero; Table 2 of the paper)"


def _claim(answer: dict) -> str:
    arms, seeds = set(answer["arms"]), answer["seeds"]
    if {"zero", "grpo"} - arms:
        return f"Without the arm {min({'zero', 'grpo'} - arms)!r} there is nothing to compare: the claim names both."
    if seeds < 3:
        return "One or two trainings of each arm say nothing about the next: with 3 seeds notebook 09 has an interval."
    if answer["preset"] != "paper":
        return f"The claim is about Qwen2.5-7B on financial records; {answer['preset']!r} has another model or data."
    rows = {row["stage"]: row["cost"] for row in plan.make_plan("paper")["costs"]}
    grpo, sft = rows["05 GRPO samples"] + rows["05 GRPO update"], rows["04 SFT"]
    wrong = {
        seeds
        * (sft + grpo): "That trains GRPO once for each seed; zero is a training of its own, from the base model.",
        seeds * 2 * grpo: "SFT is not paid: the arm grpo starts from a model after SFT, one for each seed.",
        seeds * 2 * (sft + grpo): "SFT is paid for both arms, and zero has none: it starts from the base model.",
        sft + 2 * grpo: "That is the price of one seed.",
    }
    rule = "training_cost: seeds x (04 SFT + 05 GRPO for each of the two arms), from `plan.make_plan`."
    return _number(answer["training_cost"], seeds * (sft + 2 * grpo), wrong, rule)


# ---- 07 report ------------------------------------------------------------------------------------------------------

STEPS_READ = [  # of a benchmark: the difference in points, its paired interval, and p after Holm's correction
    {"difference": 6.1, "low": 2.0, "high": 10.2, "p_holm": 0.01},
    {"difference": 9.0, "low": -1.5, "high": 19.0, "p_holm": 0.30},
    {"difference": -3.2, "low": -5.9, "high": -0.4, "p_holm": 0.04},
    {"difference": 2.4, "low": 0.2, "high": 4.6, "p_holm": 0.12},
]


def _better_or_noise(answer: Sequence[str]) -> str:
    if strange := [word for word in answer if word not in ("better", "worse", "noise")]:
        return f"{strange[0]!r} is none of the words better, worse, noise."
    right, reasons = [], []
    for step in STEPS_READ:
        remark = evaluation.remark(step | {"inside_noise": step["low"] <= 0 <= step["high"]})
        right.append("noise" if remark else "better" if step["difference"] > 0 else "worse")
        many = "several steps were tested, and Holm's p of 0.12 says that one of them looks so by chance."
        zero = "a large difference with zero in its interval is compatible with no difference."
        reasons.append({"inside the noise": zero}.get(remark, many if remark else "the whole interval is on one side."))
    return _differences(list(answer), right, reasons)


CHANGES = {"A": (14, 2), "B": (60, 48), "C": (2, 14)}  # pair of models -> items of 200 that turned right, turned wrong


def pairs() -> dict[str, tuple[list[int], list[int]]]:
    """By letter, what two models got on the same 200 items: 1 for right. The first model is right in 100."""
    return {letter: ([0] * gained + [1] * lost + [0] * (100 - gained) + [1] * (100 - lost),
                     [1] * gained + [0] * lost + [0] * (100 - gained) + [1] * (100 - lost))
            for letter, (gained, lost) in CHANGES.items()}  # fmt: skip


def _overlap(answer: dict) -> str:
    for letter, (before, after) in pairs().items():
        found = evaluation.paired_bootstrap(before, after, 0)
        right = "noise" if found.inside_noise else "better" if found.difference > 0 else "worse"
        if answer[letter] != right:
            gained, lost = CHANGES[letter]
            told = f"{letter}: {gained} items turned right and {lost} wrong, so the paired interval is"
            why = f"{told} {100 * found.low:+.1f} to {100 * found.high:+.1f} points."
            return f"{why} Two intervals that overlap say nothing about pairs." if answer[letter] == "noise" else why
    return ""


STAGES_MADE = {  # stage -> (what it was made from: stage and hash, the hash of what it wrote)
    "01_data": ({}, "a1"),
    "03_filtering": ({"01_data": "a1"}, "c7"),
    "04_sft": ({"01_data": "a1", "03_filtering": "c7"}, "d2"),
    "05_grpo": ({"01_data": "a1", "03_filtering": "c5", "04_sft": "d2"}, "e9"),
    "06_benchmark": ({"01_data": "a1", "04_sft": "d1", "05_grpo": "e9"}, "f3"),
}


def _belongs(answer: set) -> str:
    wrong = {f"{stage} < {name}" for stage, (inputs, _) in STAGES_MADE.items() for name, made in inputs.items()
             if made != STAGES_MADE[name][1]}  # fmt: skip
    for link in sorted(set(answer) ^ wrong):
        if link in wrong:
            stage, _, name = link.partition(" < ")
            return f"{stage} was made from a {name} that is no longer there: the two hashes differ."
        return f"{link!r} is no broken link. Compare what a stage was made from with what stands there now."
    return ""


# ---- 08 use the model -----------------------------------------------------------------------------------------------

EDITED = [  # one answer after five edits; the gold is 1,250
    "<think>25 * 50 = 1250.</think><answer>\\boxed{1,250}</answer>",
    "<think>25 * 50 = 1250.</think>\\boxed{1250}",
    "<think></think><answer>\\boxed{1250}</answer>",
    "<think>25 * 50 = 1350.</think><answer>\\boxed{1250}</answer>",
    "<think>25 * 50 = 1250.</think><answer>\\boxed{1250}</answer> I hope this helps!",
]


def _edited(answer: Sequence[float]) -> str:
    right = [float(grading.has_format(text)) + bool(grading.is_correct(text, gold="1250", answer_kind="number"))
             for text in EDITED]  # fmt: skip
    reasons = [
        "1,250 and 1250 are one number, and the format is there.",
        "the answer is right, and the answer tags are missing: one reward of two.",
        "an empty thought is no format: one reward of two.",
        "no reward reads the thought: a false step costs nothing. That is how a policy learns to write nonsense.",
        "text behind the last tag breaks the format; the box still holds the right answer.",
    ]
    return _differences([float(value) for value in answer], right, reasons)


SAID = {"system": records.SYSTEM_PROMPT, "question 1": "What is 5 % of 200?", "thought 1": "5 / 100 * 200 = 10.",
        "answer 1": "10", "question 2": "And of 300?", "thought 2": "5 / 100 * 300 = 15."}  # fmt: skip


def _turn_two(answer: set) -> str:
    earlier = [records.Turn(question=SAID["question 1"], answer=SAID["answer 1"])]
    chat = records.messages(_problem(SAID["question 2"], "two", history=earlier))
    inside = {name for name, text in SAID.items() if text in [turn["content"] for turn in chat]}
    reasons = {"system": "each conversation begins with it.", "thought 2": "the model has yet to write it.",
               "thought 1": "earlier thoughts are left out, as in training: they would fill the window."}  # fmt: skip
    for name in sorted(set(answer) ^ inside):
        known = reasons.get(name, "without it the second question could not be understood.")
        return (
            f"{name} is {'' if name in inside else 'not '}there: {known}" if name in SAID else f"There is no {name!r}."
        )
    return ""


WEIGHTS = 7.6e9  # of a model of the size of Qwen2.5-7B


def _sizes(answer: Sequence[float]) -> str:
    in_q8 = WEIGHTS * (32 * 8 + 16) / 32 / 8 / 1e9
    if _close(answer[0], WEIGHTS * 4 / 1e9):
        return "That is fp32: bf16 has 16 bits, which are two bytes."
    if _close(answer[1], WEIGHTS / 1e9):
        return "q8_0 keeps 8 bits for a weight, and 16 more for the scale of each block of 32."
    if _close(answer[0], WEIGHTS * 2 / 2**30):
        return "That is in GiB (2**30 bytes); a GB has 1e9."
    return "" if all(map(_close, answer, (WEIGHTS * 2 / 1e9, in_q8))) else "weights x bits / 8 / 1e9, for each type."


# ---- 09 ablation ----------------------------------------------------------------------------------------------------


def seed_steps() -> list[float]:
    """The greedy step from SFT to GRPO of each seed that ships with the demo, in points."""
    table = pd.read_csv(repository_root() / "params" / "demo" / "seeds.csv")
    return (table["grpo_greedy"] - table["sft_greedy"]).round(1).tolist()


def _half_width(spread: float, n: int, normal: bool = False) -> float:
    from scipy.stats import norm, t

    return (norm.ppf(0.975) if normal else t.ppf(0.975, n - 1)) * spread / math.sqrt(n)


def _t_interval(answer: Sequence[float]) -> str:
    steps = pd.Series(seed_steps())
    n, mean, spread = len(steps), steps.mean(), steps.std()
    half = (max(answer) - min(answer)) / 2
    if not _close(sum(answer) / 2, mean):
        return f"The middle of the interval is the mean of the {n} steps, {mean:.1f}."
    if _close(half, _half_width(spread, n, normal=True)):
        return (
            f"1.96 is for many seeds. With {n}, the spread is itself a guess: take t with {n - 1} degrees of freedom."
        )
    if _close(half, _half_width(spread, n) * math.sqrt(n)):
        return "That is where one more seed may fall. The mean is surer: divide by the root of n."
    if _close(half, _half_width(spread, n) * math.sqrt(n + 1)):
        return "That is for the step of the next seed alone, with 1 + 1 / n under the root. The mean has 1 / n there."
    return "" if _close(half, _half_width(spread, n)) else "mean -/+ t(0.975, n - 1) x spread / sqrt(n)."


SPREAD, WANTED = 7.0, 5.0  # points: of the steps of single seeds, and half the width that is wanted


def _seeds_needed(answer: int) -> str:
    right, by_normal = (next(n for n in range(2, 99) if _half_width(SPREAD, n, normal) <= WANTED)
                        for normal in (False, True))  # fmt: skip
    if answer == right:
        return ""
    if answer < 2:
        return "One seed has no spread, and so no interval: begin with 2."
    if answer == by_normal:
        return "With 1.96 in place of t: a spread that comes from few seeds is itself unsure."
    width = f"{answer} seeds give +-{_half_width(SPREAD, answer):.2f} points"
    return f"{width}: fewer seeds are enough." if answer > right else f"{width}; at most {WANTED:.2f} are wanted."


ARMS, LEVEL = 8, 0.05  # arms that are all worth the same, and the level of each test


def _best_of(answer: float) -> str:
    wrong = {LEVEL: "That is for one arm; there are eight chances to be lucky.",
             ARMS * LEVEL: "Chances that may come together do not add up: compute that none of them is lucky.",
             (1 - LEVEL) ** ARMS: "That is the chance that none of them looks better."}  # fmt: skip
    return _number(answer, 1 - (1 - LEVEL) ** ARMS, wrong, "1 - (1 - level) ** arms.")


# ---- 10 compare -----------------------------------------------------------------------------------------------------

RUNS = {  # which items two runs were asked
    "A": (range(100), range(100)),
    "B": (range(100), range(100, 200)),
    "C": (range(100), range(50, 150)),
    "D": (range(100), range(50)),
}
SHARES, ITEMS = (0.60, 0.70), 100  # right answers of two runs, each of so many items, none in common
P_VALUES = [0.004, 0.03, 0.02, 0.5]  # of four rows of one table


def _paired(answer: set[str]) -> str:
    told = {
        "A": "both runs were asked the same items, so each item has its partner.",
        "B": "no item is in both runs, so nothing can be subtracted item by item.",
        "C": "half of the items have no partner. Notebook 10 pairs where all of the smaller run's items are shared.",
        "D": "each of the 50 items of the smaller run has its partner in the other.",
    }
    for letter in sorted(set(answer) ^ {"A", "D"}):
        return f"{letter}: {told[letter]}" if letter in told else f"There is no {letter!r}."
    return ""


def _unpaired_width(answer: float) -> str:
    variances = [p * (1 - p) / ITEMS for p in SHARES]
    right = 196 * math.sqrt(sum(variances))
    wrong = {196 * sum(map(math.sqrt, variances)): "Variances add up, standard errors do not.",
             100 * math.sqrt(sum(variances)): "That is one standard error; 95 % need 1.96 of them.",
             196 * math.sqrt(variances[0]): "That is the first run alone; the second is unsure, too."}  # fmt: skip
    return _number(answer, right, wrong, "1.96 x root of the sum of p (1 - p) / n.")


def _survivors(answer: int) -> str:
    wrong = {3: "Three are below 0.05 alone. Four rows are four chances to be lucky.",
             2: "0.02 is multiplied by the number of rows that are left, three: 0.06."}  # fmt: skip
    return (
        ""
        if answer == 1
        else wrong.get(answer, "Holm: the smallest p times 4, the next times 3, until one is above 0.05.")
    )


# ---- 11 machine, memory and cost --------------------------------------------------------------------------------

PARAMETERS, PROCESSES = 7e9, 8  # of a full fine-tuning in fp32 with Adam, split by ZeRO-3
ROWS, LENGTH = 60_091, 1000  # rows of SFT and tokens of each, once
GPU_FLOPS, SHARE = 989e12, 0.4  # of one GPU for bf16, and the share that a training reaches


def _memory(answer: float) -> str:
    whole = PARAMETERS * 16 / 2**30
    wrong = {whole: "That is the whole; each process holds an eighth of it.",
             PARAMETERS * 4 / 2**30 / PROCESSES: "The weights alone. Gradients and Adam's two moments are there, too.",
             PARAMETERS * 12 / 2**30 / PROCESSES: "12 bytes: Adam keeps two moments, 4 bytes each.",
             PARAMETERS * 16 / 1e9 / PROCESSES: "A GiB has 2**30 bytes."}  # fmt: skip
    return _number(answer, whole / PROCESSES, wrong, "4 + 4 + 8 bytes for each parameter.")


def _hours(answer: float) -> str:
    right = 6 * PARAMETERS * ROWS * LENGTH / (PROCESSES * GPU_FLOPS * SHARE) / 3600
    wrong = {right / 3: "2 FLOPs a parameter and token are the forward pass; the backward pass has twice as many.",
             right * SHARE: "No training reaches the GPU's peak.",
             right * PROCESSES: "That is one GPU; there are eight."}  # fmt: skip
    return _number(answer, right, wrong, "6 x parameters x tokens / FLOPs a second.")


def _fits(answer: set[str]) -> str:
    told = {
        "full": "16 bytes for each parameter are 104 GiB before any activation.",
        "lora": "the frozen weights alone are 13 GiB in bf16, and activations come on top of them.",
        "qlora": "4.127 bits for each weight are 3.4 GiB.",
    }
    for way in sorted(set(answer) ^ {"qlora"}):
        return f"{way}: {told[way]}" if way in told else f"There is no {way!r}; the ways are {', '.join(told)}."
    return ""


EXERCISES = {
    "printed_means": _printed_means, "reasoning_share": _reasoning_share, "splits": _splits,
    "kept_copies": _kept_copies, "same_question": _same_question, "leaks": _leaks,
    "faults": _faults, "request": _request, "price": _price,
    "eighth": _eighth, "audit": _audit, "verdicts": _verdicts,
    "labels": _labels, "lora": _lora, "steps": _steps,
    "two_zeros": _two_zeros, "by_hand": _by_hand, "dead": _dead, "clipped": _clipped,
    "collapsed": _collapsed, "mcnemar": _mcnemar, "constant": _constant, "claim": _claim,
    "better_or_noise": _better_or_noise, "overlap": _overlap, "belongs": _belongs,
    "edited": _edited, "turn_two": _turn_two, "sizes": _sizes,
    "t_interval": _t_interval, "seeds_needed": _seeds_needed, "best_of": _best_of,
    "paired": _paired, "unpaired_width": _unpaired_width, "survivors": _survivors,
    "memory": _memory, "hours": _hours, "fits": _fits,
}  # fmt: skip
