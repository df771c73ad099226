"""What is the answer of a completion, and does the completion keep to the format? Tables of completions."""

from __future__ import annotations

import time

import pytest

from finr1.grading import extract_answer, has_format, is_correct, lenient_answer

EXTRACTED = [
    ("<think>a</think><answer>\\boxed{5}</answer>", "5", "the house format"),
    ("<think>a</think>\n<answer>\n The result is 5. \n</answer>", "The result is 5.", "no box: the whole block"),
    ("5 is 2 + 3</think><answer>5</answer>", "5", "begins inside a prefilled think block"),
    ("<answer>5</answer>", "5", "no think block"),
    ("we get \\boxed{5}.", "5", "no block at all: the box"),
    ("<think>never closed <answer>5</answer>", None, "inside the reasoning"),
    ("<think>never closed \\boxed{5}", None, "inside the reasoning"),
    ("<think>\\boxed{5}</think> so that is it", None, "only inside the reasoning"),
    ("<think>a</think><think>b <answer>5</answer>", None, "the second block is never closed"),
    ("<think>a</think> <answer>4</answer> <think>b</think> <answer>5</answer>", "5", "behind the last think block"),
    ("<answer>1</answer> <answer>2</answer>", "2", "the last block"),
    ("<answer>1</answer> <answer>2", "1", "the last complete block"),
    ("<answer>1 <answer>2</answer></answer>", "2", "the block that begins last"),
    ("</answer>5<answer>", None, "no complete block"),
    ("<answer>\\boxed{1}, corrected: \\boxed{2}</answer>", "2", "the last box"),
    ("<answer>\\boxed{1}, corrected: \\boxed{2</answer>", "1", "the last balanced box"),
    ("<answer>the result is \\boxed{2</answer>", "the result is \\boxed{2", "no balanced box: the whole block"),
    ("<answer>5</answer> or rather \\boxed{9}", "5", "the block goes before a box outside"),
    ("<answer>\\boxed{5}</answer", "5", "a torn closing tag: no block, but a box"),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", "nested braces"),
    ("\\boxed{\\text{\\{A, B\\}}}", "\\text{\\{A, B\\}}", "escaped braces are none"),
    ("\\boxed{5 \\} 6}", "5 \\} 6", "escaped braces are none"),
    ("{{{ \\boxed{5}", "5", "open braces in front"),
    ("}}} \\boxed{5} }}}", "5", "stray braces around"),
    ("\\boxed{\\boxed{5}}", "5", "a box in a box"),
    ("\\boxed {5}", "5", "a space in front of the brace"),
    ("\\\\boxed{5}", "5", "escaped once too often"),
    ("<answer></answer>", "", "an empty block"),
    ("<answer>5 \\boxed{}</answer>", "", "an empty box"),
    ("the answer is 5", None, "no block and no box"),
    ("", None, "nothing"),
]


@pytest.mark.parametrize(("completion", "expected", "why"), EXTRACTED)
def test_the_answer_is_taken_from_where_the_contract_says(completion, expected, why):
    assert extract_answer(completion) == expected, why


FORMATS = [
    ("<think>a</think><answer>5</answer>", True, "the format"),
    (" \n<think>a\n</think>\n\n<answer>\\boxed{5}\n</answer>\n", True, "white space around"),
    ("<think> </think><answer>5</answer>", False, "no reasoning"),
    ("<think>a</think><answer> \n</answer>", False, "no answer"),
    ("Sure! <think>a</think><answer>5</answer>", False, "text in front"),
    ("<think>a</think> so <answer>5</answer>", False, "text between"),
    ("<think>a</think><answer>5</answer> done", False, "text behind"),
    ("<answer>5</answer><think>a</think>", False, "the wrong order"),
    ("<think>a<think>b</think></think><answer>5</answer>", False, "nested"),
    ("<think>a<answer>4</answer></think><answer>5</answer>", False, "nested"),
    ("<think>a</think><answer>5</answer><answer>6</answer>", False, "two answers"),
    ("<think>a</think><think>b</think><answer>5</answer>", False, "two think blocks"),
    ("<think>a</think><answer>5", False, "not closed"),
    ("<think>a<answer>5</think></answer>", False, "crossed"),
    ("a</think><answer>5</answer>", False, "not opened"),
    ("<answer>5</answer>", False, "no think block"),
    ("", False, "nothing"),
]


@pytest.mark.parametrize(("completion", "expected", "why"), FORMATS)
def test_the_format_is_one_think_block_then_one_answer_block(completion, expected, why):
    assert has_format(completion) is expected, why


def test_a_completion_is_correct_when_its_extracted_answer_is_right():
    problem = {"gold": "14%", "answer_kind": "percent", "alternatives": ["0.1411"]}
    assert is_correct("<think>10%?</think><answer>It is \\boxed{14.11\\%}.</answer>", **problem) is True
    assert is_correct("<think>\\boxed{14%}</think> I do not know", **problem) is False
    assert is_correct("a prefilled thought: 10%</think><answer>14.1%</answer>", **problem) is True
    assert is_correct("<answer>free text</answer>", gold="another text", answer_kind="text") is None


LENIENT = [
    ("<answer>\\boxed{5}</answer> and 6", None, "5", "the extracted answer goes first"),
    ("so the result is 14.11%.", None, "14.11%", "with its percent sign, without the full stop"),
    ("we get $5.2 million in total", None, "$5.2 million", "with currency and scale word"),
    ("约为6.25亿元。", None, "6.25亿元", "with unit"),
    ("from 5 to -3.2", None, "-3.2", "the last number, with its sign"),
    ("<think>5</think> it is 6", None, "6", "behind the reasoning"),
    ("The answer is B.", None, "B", "the last letter"),
    ("It is bullish.", None, "bullish", "the last label"),
    ("5 + 6 = 11, so (B)", "choice", "B", "a number cannot be meant"),
    ("yes, 38.2%", "boolean", "yes", "a number cannot be meant"),
    ("up 5%: bullish", "label", "bullish", "a number cannot be meant"),
    ("nothing here", None, None, "nothing that looks like an answer"),
]


@pytest.mark.parametrize(("completion", "kind", "expected", "why"), LENIENT)
def test_the_lenient_baseline_reads_the_answer_wherever_it_stands(completion, kind, expected, why):
    assert lenient_answer(completion, kind) == expected, why


def test_the_lenient_baseline_knows_the_labels_of_the_problem():
    assert lenient_answer("Low risk? No: high risk.", "label", {"0": "low risk", "1": "high risk"}) == "high risk"


HOSTILE = {
    "open braces": "{" * 10**6,
    "open boxes": "\\boxed{" * 100_000,
    "deep box": "\\boxed{" + "{" * 500_000 + "}" * 500_000 + "}",
    "brackets": "(" * 10**6,
    "backslashes": "\\" * 10**6,
    "think tags": "<think>" * 20_000,
    "closing tags": "</think>" * 20_000,
    "answer tags": "<answer>" * 20_000,
    "answers": "<answer>5</answer>" * 10_000,
    "spaces": " " * 10**6,
    "digits": "9" * 10**6,
    "unknown": "\ud800\x00",
}


@pytest.mark.parametrize("wrap", ["{}", "<answer>{}</answer>", "<think>a</think><answer>\\boxed{{{}}}</answer>"])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("function", [extract_answer, has_format, lenient_answer])
def test_a_hostile_completion_is_read_at_once(function, name, wrap):
    completion = wrap.format(HOSTILE[name])
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        function(completion)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.25  # 50 ms, and room for a busy machine; what is guarded against takes minutes
