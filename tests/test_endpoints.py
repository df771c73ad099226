"""Endpoints as they are: refused fields, replies of odd shapes, who answered, small windows, thinking judges."""

from __future__ import annotations

import codecs
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import httpx2
import pytest
from conftest import ROOT, demo_values
from loopback import HANG, Loopback, events
from recipes import cells, read_scores

from finr1 import evaluation, judge
from finr1.__main__ import main
from finr1.generation import (
    AnswerStore,
    Budget,
    EndpointBackend,
    GenerationError,
    Job,
    Request,
    SamplingParams,
    ScriptedBackend,
    generate,
)
from finr1.generation.command import read_requests
from finr1.generation.endpoint import read_extra, read_reply, refusal, same_model
from finr1.params import BenchmarkParams, DistillationParams, FilteringParams, ParameterError, endpoint_of
from finr1.records import Problem

KEY = "planted-key-51c2"
SAMPLING = SamplingParams(temperature=0.6, max_tokens=500)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("FINR1_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def ask(*questions: str) -> list[Request]:
    return [Request(id=f"id {q}", messages=[{"role": "user", "content": q}]) for q in questions]


def bodies(server) -> list[dict]:
    return [json.loads(body) for _, _, body in server.requests]


# ---- replies ---------------------------------------------------------------------------------------------------------


def reply(message, finish="stop", **more) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}]} | more).encode()


def parts(*content) -> bytes:
    return reply({"content": list(content)})


SAID = reply({"content": "5"})
TEXT = {"type": "text", "text": "5"}


def sse(*choices: dict) -> bytes:
    """A stream of events with a choice each."""
    return "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices).encode()


READ = {  # body -> text, reasoning, finish reason
    "nested parts": (parts({"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, TEXT), "5", "t", "stop"),
    "flat parts": (parts({"type": "thinking", "thinking": "t", "signature": "s"}, TEXT), "5", "t", "stop"),
    "reasoning part": (parts({"type": "reasoning", "summary": [{"text": "t"}]}, TEXT), "5", "t", "stop"),
    "marked part": (parts({"text": "t", "thought": True}, {"text": "5"}), "5", "t", "stop"),
    "bare strings": (parts("5", ".0"), "5.0", None, "stop"),
    "unknown parts": (parts({"type": "image_url", "image_url": {"url": "u"}}, {"type": "new", "text": "x"}, TEXT),
                      "5", None, "stop"),
    "only thought parts": (parts({"type": "thinking", "thinking": "t"}), "", "t", "thought"),
    "reasoning_content": (reply({"content": "5", "reasoning_content": "t"}), "5", "t", "stop"),
    "reasoning": (reply({"content": "5", "reasoning": "t"}), "5", "t", "stop"),
    "thinking": (reply({"content": "5", "thinking": "t"}), "5", "t", "stop"),
    "details": (reply({"content": "5", "reasoning_details": [{"type": "reasoning.text", "text": "t"},
                       {"type": "reasoning.encrypted", "data": "zz"}]}), "5", "t", "stop"),
    "twice the same": (reply({"content": "5", "reasoning": "t", "reasoning_details": [{"text": "t"}]}),
                       "5", "t", "stop"),
    "refusal": (reply({"content": None, "refusal": "no"}), "no", None, "stop"),
    "in the thought": (reply({"content": None, "reasoning": "<answer>\\boxed{5}</answer>"}), "",
                       "<answer>\\boxed{5}</answer>", "thought"),
    "in tags only": (reply({"content": "<think>5</think>\n"}), "<think>5</think>\n", None, "thought"),
    "never closed": (reply({"content": "<think>5"}), "<think>5", None, "thought"),
    "empty": (reply({"content": ""}), "", None, "empty"),
    "null": (reply({"content": None}), "", None, "empty"),
    "no content": (reply({"role": "assistant"}), "", None, "empty"),
    "a number": (reply({"content": 5}), "", None, "empty"),
    "cut in the thought": (reply({"content": "", "reasoning": "t"}, "length"), "", "t", "length"),
    "cut in a hidden thought": (reply({"content": ""}, "length"), "", None, "length"),
    "BOM": (codecs.BOM_UTF8 + SAID, "5", None, "stop"),
    "utf-16": (SAID.decode().encode("utf16"), "5", None, "stop"),
    "blank lines": (b"\n\r\n\n" + SAID, "5", None, "stop"),
    "comments": (b": PROCESSING\n\n: PROCESSING\n\n" + SAID, "5", None, "stop"),
    "BOM and comment": (codecs.BOM_UTF8 + b": wait\r\n\r\n" + SAID, "5", None, "stop"),
    "half a surrogate": (reply({"content": "a\ud83d", "reasoning": "\ude00b"}), "a\ufffd", "\ufffdb", "stop"),
    "both halves": (reply({"content": "\ud83d\ude00"}), "\U0001f600", None, "stop"),
    "cut character": (SAID.replace(b'"5"', b'"5\xe5\x87"'), "5\ufffd", None, "stop"),
    "line separator": (reply({"content": "a\u2028b"}), "a\u2028b", None, "stop"),
    "stream": (events({"reasoning": "a thought", "content": "12345"}).encode(), "12345", "a thought", "stop"),
    "stream without DONE": (events({"content": "12345"}).encode().replace(b"data: [DONE]", b""), "12345", None, "stop"),
    "stream of windows": (events({"content": "12345"}).encode().replace(b"\n", b"\r\n"), "12345", None, "stop"),
    "all of it once more": (sse({"delta": {"content": "4"}}, {"delta": {"content": "2"}},
                                {"message": {"content": "42"}, "finish_reason": "stop"}), "42", None, "stop"),
    "events without data": (b"data:\n\ndata: null\n\n" + events({"content": "12345"}).replace("DONE", "done").encode(),
                            "12345", None, "stop"),
    "a raw line end": (SAID.replace(b'"5"', b'"5\n6"'), "5\n6", None, "stop"),
    "another index": (SAID.replace(b'"index": 0', b'"index": "0"'), "5", None, "stop"),
    "a thought by another name": (reply({"content": "5", "thinking_blocks": [{"thinking": "t"}]}), "5", "t", "stop"),
    "a text with a value": (parts({"type": "text", "text": {"value": "5"}}), "5", None, "stop"),
    "cut off in other words": (reply({"content": "5"}, "MAX_TOKENS"), "5", None, "length"),
    "cut off by a server's own word": (reply({"content": "5"}, "token_limit"), "5", None, "length"),
    "filtered": (reply({"content": "5"}, "content_filter"), "5", None, "filtered"),
    "a stop behind the cut": (sse({"delta": {"content": "5"}, "finish_reason": "length"},
                                  {"delta": {}, "finish_reason": "stop"}), "5", None, "length"),
    "a stream that grows": (sse({"delta": {"content": "4"}}, {"delta": {"content": "42"}},
                                {"delta": {"content": "42!"}, "finish_reason": "stop"}), "42!", None, "stop"),
    "another answer beside": (sse({"index": 1, "delta": {"content": "X"}}, {"delta": {"content": "42"},
                                  "finish_reason": "stop"}), "42", None, "stop"),
    "halves in two pieces": (b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n'
                             b'data: {"choices":[{"delta":{"content":"\\ude00"},"finish_reason":"stop"}]}\n',
                             "\U0001f600", None, "stop"),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_reply_is_read_as_it_is(case):
    body, text, reasoning, finish = READ[case]
    read = read_reply(body)
    assert (read["text"], read["reasoning"], read["finish_reason"]) == (text, reasoning, finish)
    json.dumps(read, ensure_ascii=False).encode()  # a file can hold it


def test_a_reply_is_decoded_as_its_header_says():
    said = SAID.replace(b'"5"', '"净利润下降"'.encode("gbk"))
    assert read_reply(said, "GBK")["text"] == "净利润下降"


WRITTEN = {  # what a server sends, and whether it is in the format
    "so</think><answer>\\boxed{5}</answer>": True,  # the template has opened the thought
    "\nso\n</think>\n\n<answer>\\boxed{5}</answer>": True,
    "<think>so</think><answer>\\boxed{5}</answer>": True,
    "so</think>so</think><answer>\\boxed{5}</answer>": False,
    "</think><answer>\\boxed{5}</answer>": False,  # opened, and nothing in it
    "so<answer>\\boxed{5}</answer>": False,
}


@pytest.mark.parametrize("text, in_format", WRITTEN.items())
def test_a_thought_that_the_servers_template_has_opened_counts_for_the_format(text, in_format):
    asked = Problem(id="p", source="s", module="m", language="en", capability="calculation", answer_kind="number",
                    question="2 + 3?", gold="5", split="test", group="p")  # fmt: skip
    with Loopback(message=lambda question: {"content": text}) as server:
        [there] = evaluation.evaluate([asked], EndpointBackend(server.base_url, "r1"), SAMPLING, "r1")
    [here] = evaluation.evaluate([asked], ScriptedBackend(lambda *_: text, "policy"), SAMPLING, "policy")
    assert (there.correct, there.format) == (True, in_format)
    assert (here.correct, here.format) == (True, text.startswith("<think>")), "it opens none"


NOT_READ = {
    "no choices": b'{"choices": []}', "null": b'{"choices": null}', "missing": b'{"id": "x"}',
    "error": b'{"error": {"message": "busy"}}', "error as text": b'{"error": "busy"}',
    "a status beside an answer": b'{"code": 429, "choices": [{"message": {"content": "busy"}}]}',
    "nothing": b"", "blanks": b"\n\n", "no encoding": SAID.replace(b'"5"', '"净利润下降"'.encode("gbk")),
    "HTML": b"<html>", "cut": SAID[:-9], "a list": b"[1]", "null alone": b"null", "text as message": reply("x"),
    "broken off": reply({"content": "5"}, "insufficient_system_resource"),
    "network": reply({"content": ""}, "network_error"),
    "engine": reply({"content": "5"}, "engine_error"), "incomplete": reply({"content": "5"}, "incomplete"),
    "an event of an error": sse({"delta": {"content": "h"}}) + b"event: error\ndata: {}\n\ndata: [DONE]\n\n",
    "cut stream": b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n', "empty stream": b"data: [DONE]\n\n",
    "error in a stream": b'data: {"choices":[{"delta":{"content":"h"}}]}\n\ndata: {"error":{"message":"busy"}}\n\n',
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_READ)
def test_what_holds_no_answer_is_none(case):
    with pytest.raises(ValueError):
        read_reply(NOT_READ[case])


USAGE = [  # what the server says, prompt and completion tokens as they are paid for; the answer is "5"
    ({"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}, 21, 9),
    ({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81,
      "completion_tokens_details": {"reasoning_tokens": 60}}, 21, 60),
    ({"prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 86}, 21, 65),
    ({"prompt_tokens": 21, "completion_tokens": 5, "reasoning_tokens": 60}, 21, 65),
    ({"prompt_tokens": 21, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 60}}, 21, 65),
    ({"prompt_tokens": 21, "completion_tokens": 65, "completion_tokens_details": {"reasoning_tokens": 60}}, 21, 65),
    ({"input_tokens": 21, "output_tokens": 9}, 21, 9),
    ({"prompt_tokens": 21, "total_tokens": 30}, 21, 9),
    ({"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}, 7, 1),
    ({"prompt_tokens": 7, "completion_tokens": None, "completion_tokens_details": None}, 7, None),
    ({"prompt_tokens": "many", "completion_tokens": -1}, None, None),
    ({}, None, None), (None, None, None), ([], None, None), ("none", None, None),
]  # fmt: skip


@pytest.mark.parametrize("usage, prompt, written", USAGE)
def test_tokens_are_counted_as_they_are_paid_for(usage, prompt, written):
    assert read_reply(reply({"content": "5"}, usage=usage))["usage"] == {
        "prompt_tokens": prompt, "completion_tokens": written,
    }  # fmt: skip


def test_a_thought_that_nobody_counts_is_estimated_from_its_length():
    thought = {"content": "5", "reasoning": "so it is, " * 400}
    few = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert read_reply(reply(thought, usage=few))["usage"]["completion_tokens"] == 1000
    enough = few | {"completion_tokens": 700, "total_tokens": 707}
    assert read_reply(reply(thought, usage=enough))["usage"]["completion_tokens"] == 700
    stream = reply({"content": "5"}, "stop").replace(b'"stop"', b'"stop", "usage": {"completion_tokens": 4}')
    assert read_reply(stream)["usage"]["completion_tokens"] == 4  # inside the choice


def test_a_budget_sees_the_thought_and_what_was_asked_twice():
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 60}
    with Loopback(fields=lambda body: {"usage": usage}) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=1)
        with pytest.raises(GenerationError, match="budget of 0.0001 is spent"):
            generate(ask(*"abcdef"), SAMPLING, backend, budget=Budget(max_cost=100e-6, completion_price=1.0))
        assert server.asked.total() == 2
        server.faults["q"] = [(200, {}, reply({"content": ""}, usage=usage).decode())]
        [answer] = generate(ask("q"), SAMPLING, backend)
    assert answer.text.endswith("q!") and answer.usage.completion_tokens == 120


# ---- replies without an answer in them -------------------------------------------------------------------------------


@pytest.mark.parametrize("message, finish", [
    ({"content": ""}, "empty"), ({"content": None, "reasoning": "it is \\boxed{5}"}, "thought"),
])  # fmt: skip
def test_a_reply_without_an_answer_is_asked_again_once_and_costs_its_request_alone(tmp_path, message, finish):
    questions = [f"q{n}" for n in range(40)]
    store, none = AnswerStore(tmp_path / "a.jsonl"), (200, {}, reply(message).decode())
    with Loopback({"q3": [none] * 2, "q5": [none]}) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=8)
        answers = generate(ask(*questions), SAMPLING, backend, store)
        assert len(store.answers) == 39 and server.asked["q3"] == server.asked["q5"] == 2
        (lost,) = (answer for answer in answers if answer.error)
        assert (lost.id, lost.finish_reason) == ("id q3", finish) and "twice" in lost.error
        seeds = [body["seed"] for body in bodies(server) if body["messages"][0]["content"] == "q5"]
        assert seeds[0] != seeds[1], "the same seed may say the same"
        assert not any(a.error for a in generate(ask(*questions), SAMPLING, backend, store))  # the same command again
    assert server.asked["q3"] == 3 and server.asked["q1"] == 1
    problem = Problem(id="id q3", source="s", module="m", language="en", capability="knowledge", answer_kind="number",
                      question="q", gold="5", split="train", group="g")  # fmt: skip
    (trace,) = cells("02_distillation", "traces-of")["traces_of"]([problem], [lost], "teacher", {})
    assert trace.answer is None and trace.finish_reason == finish  # 02 counts it apart


def test_a_server_that_answers_nothing_ends_the_run_early():
    with Loopback(message=lambda question: {"content": ""}) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=2)
        backend.check()  # it is up, takes the key, knows the model
        with pytest.raises(GenerationError, match="an empty answer, twice"):
            generate(ask(*map(str, range(200))), SAMPLING, backend)
        assert server.asked.total() < 60
        with pytest.raises(GenerationError, match="1 of 1 requests"):
            generate(ask("q"), SAMPLING, backend)


def test_half_a_surrogate_costs_no_other_answer(tmp_path):
    store = AnswerStore(tmp_path / "a.jsonl")
    with Loopback(message=lambda question: {"content": "\ud83d" if question == "3" else question}) as server:
        generate(ask(*"12345678"), SAMPLING, EndpointBackend(server.base_url, "teacher", concurrency=8), store)
    assert len(AnswerStore(tmp_path / "a.jsonl").answers) == 8


# ---- requests --------------------------------------------------------------------------------------------------------


def refuses(**fields):
    """A server that takes no body with one of `fields`, which hold what it says."""

    def refuse(body: dict):
        return next(((400, said) for name, said in fields.items() if name in body), None)

    return refuse


NEW_OPENAI = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0.6 with this model. "
    "Only the default (1) value is supported.",
}  # fmt: skip


def test_fields_that_a_server_refuses_by_name_are_left_out_once_and_noted():
    with Loopback(refuse=refuses(**NEW_OPENAI, seed="Unrecognized request argument supplied: seed")) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=1)
        with pytest.warns(UserWarning, match="max_completion_tokens is sent"):
            answers = generate(ask("a", "b", "c"), SAMPLING, backend)
    assert not any(answer.error for answer in answers)
    assert server.asked == {"a": 4, "b": 1, "c": 1}
    last = bodies(server)[-1]
    assert last["max_completion_tokens"] == 500 and not {"max_tokens", "temperature", "seed"} & last.keys()
    assert sorted(backend.notes) == ["max_completion_tokens", "max_tokens", "seed", "temperature"]
    assert KEY not in str(backend.notes)


def test_what_check_finds_out_is_known_to_the_run():
    with Loopback(refuse=refuses(**NEW_OPENAI)) as server:
        backend = EndpointBackend(server.base_url, "teacher")
        with pytest.warns(UserWarning):
            backend.check()
        generate(ask(*"abcd"), SAMPLING, backend)
    assert set(server.asked.values()) - {3} == {1}


def test_of_temperature_and_top_p_together_top_p_is_left_out():
    both = "`temperature` and `top_p` cannot both be specified for this model."
    with Loopback(refuse=lambda body: (400, both) if {"temperature", "top_p"} <= body.keys() else None) as server:
        with pytest.warns(UserWarning, match="top_p is left out"):
            generate(ask("a"), SAMPLING, EndpointBackend(server.base_url, "teacher"))
    assert bodies(server)[-1]["temperature"] == 0.6


def test_a_server_that_only_streams_is_asked_for_a_stream():
    def refuse(body):
        return None if body.get("stream") else (400, "This model only supports streaming. Set stream=true.")

    with Loopback(refuse=refuse, message=lambda question: {"reasoning_content": "so", "content": "42"}) as server:
        with pytest.warns(UserWarning, match="stream is sent"):
            [answer] = generate(ask("q"), SAMPLING, EndpointBackend(server.base_url, "teacher"))
        assert bodies(server)[-1]["stream_options"] == {"include_usage": True}
    assert (answer.text, answer.reasoning, answer.usage.completion_tokens) == ("42", "so", 3)
    with Loopback(stream=True) as server:  # whatever was asked
        assert generate(ask("q"), SAMPLING, EndpointBackend(server.base_url, "teacher"))[0].text.endswith("q!")


BODY = {"max_tokens": 8192, "temperature": 0.6, "top_p": 1.0, "seed": 1}
REFUSALS = [
    ("max_tokens is not supported", {"max_tokens": None}),
    ("Use max_completion_tokens instead of max_tokens", {"max_tokens": None, "max_completion_tokens": 8192}),
    (
        '{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}',
        {"seed": None},
    ),
    ("invalid temperature: only 1 is allowed for this model", {"temperature": None}),
    ("temperature is deprecated for this model", {"temperature": None}),
    ("参数temperature不支持", {"temperature": None}),
    ("top_p must be in (0, 1)", {"top_p": None}),
    ("parameter.enable_thinking must be set to false for non-streaming calls", {"stream": True}),
    # The value is wrong and not the field: that is for the user to say.
    ("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096", {}),
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", {}),
    ("max_tokens is too large: 50000. This model supports at most 16384 completion tokens", {}),
    ("This model only takes max_tokens up to 4096", {}),
    ("`temperature` must be strictly positive", {}),
    ("Invalid 'temperature': decimal above maximum value. Expected a value <= 2", {}),
    ("max_tokens must not be larger than 4096", {}),
    ("max_tokens limit is 4096", {}),
    ("Unsupported value: max_tokens = 8192; the maximum is 4096", {}),
    ("max_tokens exceeds the limit, use 4096 instead", {}),
    ("max_tokens: must be 1-4096", {}),
    ("参数max_tokens必须在 [1, 4096] 之间", {}),
    (json.dumps("max_tokens 超出范围 [1, 8192]"), {}),
    ("temperature cannot be 0", {}),
    ("temperature must be non-zero", {}),
    (json.dumps("参数seed不支持"), {"seed": None}),
    ("too long", {}),
    ("upstream busy", {}),
    # Without a limit an answer may be endless, so only a refusal of the field itself takes it away.
    ("max_tokens should be in [1, 4096]", {}),
    ("Invalid max_tokens: 8192", {}),
    ("'max_tokens' : Input should be 4096 or fewer", {}),
    ("max_tokens 参数非法", {}),
    # How else a field is spelled.
    ("Temperature is not supported by this model", {"temperature": None}),
    ("topP is not supported", {"top_p": None}),
    ("unsupported: top-p", {"top_p": None}),
    ("Unknown field maxTokens", {"max_tokens": None}),
]
GREEDY = ["temperature should be in (0.0, 2.0]", "temperature must be float and in (0, 2)", "temperature 参数非法",
          "Invalid value for temperature: 0", "temperature: 0"]  # fmt: skip


@pytest.mark.parametrize("text", GREEDY)
def test_a_refused_zero_never_turns_greedy_into_sampled(text):
    error = type("Status", (), {"status_code": 400, "response": type("Response", (), {"text": text})})
    assert refusal(error, BODY | {"temperature": 0.0}, {}) == {}


@pytest.mark.parametrize("text, change", REFUSALS)
def test_a_refused_field_is_told_from_a_refused_value(text, change):
    error = type("Status", (), {"status_code": 400, "response": type("Response", (), {"text": text})})
    assert refusal(error, BODY, {}) == change
    assert refusal(error, BODY, BODY) in ({}, {"stream": True})  # what the user has chosen stays
    error.status_code = 500
    assert refusal(error, BODY, {}) == {}


def test_what_did_not_help_is_forgotten_and_the_first_refusal_is_told():
    with Loopback(refuse=lambda body: (400, f"seed is unknown; {'seed' in body}")) as server:
        backend = EndpointBackend(server.base_url, "teacher")
        [answer] = generate(ask("q"), SAMPLING, backend, on_error="none")
    assert "seed is unknown; True" in answer.error and not backend.changes and not backend.notes


def test_extra_reaches_the_body_and_is_part_of_the_answers_key(tmp_path):
    store = AnswerStore(tmp_path / "a.jsonl")
    needed = lambda body: None if body.get("enable_thinking") is False else (400, "set enable_thinking")  # noqa: E731
    with Loopback(refuse=needed) as server:
        plain = EndpointBackend(server.base_url, "teacher")
        with pytest.raises(GenerationError, match="enable_thinking"):
            plain.check()
        extra = {"enable_thinking": False, "chat_template_kwargs": {"a": [1]}, "seed": None}
        for form in (extra, json.dumps(extra)):  # one and the same
            generate(ask("q"), SAMPLING, EndpointBackend(server.base_url, "teacher", extra=form), store)
        generate(ask("q"), SAMPLING, EndpointBackend(server.base_url, "teacher", extra=extra | {"n": 1}), store)
    body = bodies(server)[-2]
    assert body["enable_thinking"] is False and body["chat_template_kwargs"] == {"a": [1]} and "seed" not in body
    assert len(store.answers) == 2 == server.asked["q"]
    assert (
        EndpointBackend("http://localhost", "m").fingerprint
        == '{"endpoint": "http://localhost", "extra": {}, "model": "m"}'
    )


@pytest.mark.parametrize("extra", [
    "{", "[1]", "5", '"text"', {"api_key": "x"}, {"headers": {"Authorization": "y"}}, {"token": "z"},
    {"a": "sk-abcdef"},
    "[" * 50_000, {"access_token": "z"}, {"passwd": "z"}, {"Ocp-Apim-Subscription-Key": "z"}, {"Cookie": "z"},
    {"a": "Basic dXNlcjpwYXNzd29yZA=="},
    {"a": "ghp_0123456789abcdef"}, {"a": "AKIA0123456789AB"}, {"a": "https://user:pw@host/v1"}, {"a": "https://h/?token=z"},
    {"a": ["Bearer abc"]}, {"note": f"it is {KEY}"}, {"model": "other"}, {"messages": []}, {"a": object()},
])  # fmt: skip
def test_an_extra_that_can_not_be_is_refused_and_no_key_is_shown(extra):
    for make in (read_extra, lambda e: DistillationParams(**demo_values("02_distillation", teacher_extra=e))):
        with pytest.raises(ValueError) as caught:
            make(extra)
        assert not [word for word in (KEY, "sk-abcdef", "Bearer abc", "{'") if word in str(caught.value)]
    assert read_extra(None) == read_extra("") == read_extra({}) == {}
    schema = {"response_format": {"properties": {"key": {"type": "string"}}}}  # a key of JSON, not of a server
    for plain in (schema, {"a": "Basic rules of accounting"}, {"max_tokens": 5, "stop_token_ids": [2]}):
        assert read_extra(plain) == plain


# ---- who answered ----------------------------------------------------------------------------------------------------

NAMES = [
    ("gpt-4o", "gpt-4o-2024-08-06", True), ("deepseek-ai/DeepSeek-R1", "deepseek-r1", True),
    ("deepseek-r1", "deepseek-r1-250120", True), ("DeepSeek-R1", "deepseek/deepseek-r1:free", True),
    ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
    ("DeepSeek-R1", "DeepSeek-R1.gguf", True), ("deepseek-r1", "deepseek/deepseek-r1:nitro", True),
    ("claude-3-5-sonnet", "claude-3-5-sonnet@20240620", True),
    ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct@main", True),
    ("gemini-2.0-flash", "models/gemini-2.0-flash-001", True),
    ("qwen-max-2025-01-25", "qwen-max", True), ("/models/R1/", "R1", True), ("titan", "titan-v1.2:0", True),
    ("deepseek-reasoner", "deepseek-v4-flash", False), ("deepseek-v4-pro", "deepseek-v4-flash", False),
    ("deepseek-v3", "deepseek-v4", False), ("deepseek-v3", "deepseek-v3.1", False), ("gpt-4", "gpt-4.1", False),
    ("gpt-4", "gpt-4o", False), ("claude-3", "claude-3-5", False), ("Qwen2.5-7B", "Qwen2.5-72B", False),
    ("DeepSeek-R1", "DeepSeek-R1-Distill-Qwen-7B", False), ("R1", "DeepSeek-R1", False),
    ("gpt-4o", "gpt-4o-mini", False),
    ("DeepSeek-R1", "DeepSeek-R1-Q4_K_M.gguf", True), ("qwen3:8b", "qwen3:8b-q4_K_M", True),
    ("DeepSeek-R1-0528-Qwen3-8B", "DeepSeek-R1-0528-Qwen3-8B-UD-Q4_K_XL.gguf", True), ("R1", "R1-AWQ", True),
    ("deepseek-r1", "C:\\models\\deepseek-r1.gguf", True), ("R1", "R1-FP8", True), ("R1", "R1-Quick", False),
]  # fmt: skip


@pytest.mark.parametrize("asked, answered, same", NAMES)
def test_names_of_one_model_are_told_from_those_of_two(asked, answered, same):
    assert same_model(asked, answered) is same is same_model(answered, asked)


def test_another_model_than_asked_is_noted_and_an_error_where_a_preset_claims_it(tmp_path):
    store = AnswerStore(tmp_path / "a.jsonl")
    with Loopback(fields=lambda body: {"model": "deepseek-v4-flash"}) as server:
        noting = EndpointBackend(server.base_url, "deepseek-reasoner")
        with pytest.warns(UserWarning, match="asked for the model deepseek-reasoner, .* from deepseek-v4-flash"):
            answers = generate(ask("a", "b"), SAMPLING, noting, store)
        assert {answer.model for answer in answers} == {"deepseek-v4-flash"}
        assert {answer.model for answer in AnswerStore(tmp_path / "a.jsonl").answers.values()} == {"deepseek-v4-flash"}
        claimed = EndpointBackend(server.base_url, "deepseek-ai/DeepSeek-R1", only_model=True)
        with pytest.warns(UserWarning), pytest.raises(GenerationError, match="from deepseek-v4-flash"):
            claimed.check()
        with pytest.raises(GenerationError, match="from deepseek-v4-flash"):
            generate(ask("c"), SAMPLING, claimed, store)
    assert len(store.answers) == 2


def test_a_preset_claims_the_teacher_that_it_names():
    def params(model):
        at = {"teacher_backend": "endpoint", "teacher_model": model, "teacher_base_url": "http://127.0.0.1:1/v1"}
        return DistillationParams(**demo_values("02_distillation", **at))

    assert params("deepseek-ai/DeepSeek-R1").only_teacher and params("deepseek-r1").only_teacher
    assert not params("my-model").only_teacher and not params("deepseek-reasoner").only_teacher


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_a_window_smaller_than_asked_is_noted_once():
    usage = {"prompt_tokens": 2000, "completion_tokens": 2096, "total_tokens": 4096}
    cut = {"usage": usage, "choices": [{"message": {"content": "so"}, "finish_reason": "length"}]}
    with Loopback(fields=lambda body: cut) as server:
        backend = EndpointBackend(server.base_url, "teacher")
        with pytest.warns(UserWarning) as told:
            generate(ask("word " * 6000, "b", "c"), SamplingParams(max_tokens=8192), backend)
        assert sorted(backend.notes) == ["prompt", "window"] and len(told) == 2
        assert "2096 of 8192 allowed tokens" in backend.notes["window"] and "4096" in backend.notes["window"]
        full = EndpointBackend(server.base_url, "teacher")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            generate(ask("d"), SamplingParams(max_tokens=2096), full)  # that is what was asked for
    assert not full.notes


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_generate_takes_an_extra_and_refuses_a_key_in_it(tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(codecs.BOM_UTF8 + b'{"id": 1, "messages": [{"role": "user", "content": "a"}]}')
    files = ["generate", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    with Loopback(refuse=lambda body: None if "reasoning_effort" in body else (400, "no")) as server:
        at = [*files, "--base-url", server.base_url, "--model", "teacher"]
        assert main([*at, "--extra", f'{{"api_key": "{KEY}"}}']) == 2 and not server.requests
        assert main([*at, "--extra", '{"reasoning_effort": "low", "max_tokens": null}']) == 0
    assert "max_tokens" not in bodies(server)[-1]
    assert KEY not in "".join(capsys.readouterr()) and json.loads((tmp_path / "out.jsonl").read_text())["error"] is None


def test_input_with_a_bom_or_half_a_surrogate_is_read(tmp_path):
    row = '{"id": %d, "messages": [{"role": "user", "content": "净利润 %s"}]}\n'
    plain = (row % (1, "a") + row % (2, "\\ud83d")).encode()
    forms = [plain, codecs.BOM_UTF8 + plain, (codecs.BOM_UTF8 + plain.replace(b"\n", b"\r\n")),
             plain.decode().encode("utf16"), codecs.BOM_UTF16_BE + plain.decode().encode("utf-16-be")]  # fmt: skip
    for form in forms:
        (tmp_path / "in.jsonl").write_bytes(form)
        contents = [request.messages[0]["content"] for request in read_requests(tmp_path / "in.jsonl")]
        assert contents == ["净利润 a", "净利润 \ufffd"]
    (tmp_path / "in.jsonl").write_bytes(plain + codecs.BOM_UTF8 + plain)  # two files, one behind the other
    assert len(read_requests(tmp_path / "in.jsonl")) == 4
    (tmp_path / "in.jsonl").write_bytes(plain + (row % (3, "b")).encode("gb18030"))
    with pytest.raises(ValueError, match="line 3"):
        read_requests(tmp_path / "in.jsonl")


def examine(server, capsys, *arguments) -> tuple[int, dict[str, str]]:
    code = main(["doctor", "--base-url", server.base_url, "--model", "teacher", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[-1].startswith("extra to use") and KEY not in str(lines)
    return code, {line[:20].strip(): line[20:] for line in lines}


def honest(body: dict) -> dict:
    return {"model": "teacher", "usage": {"prompt_tokens": len(str(body["messages"])) // 4, "completion_tokens": 3}}


def test_doctor_of_a_plain_server(capsys):
    models = [{"id": "org/Teacher", "object": "model", "max_model_len": 32768}]
    more = {
        "headers": {"x-ratelimit-limit-requests": "60"},
        "models": models,
        "fields": honest,
    }
    with Loopback(message=lambda question: {"content": "42", "reasoning": "so"}, **more) as server:
        code, rows = examine(server, capsys, "--completion-price", "2")
        assert server.asked.total() <= 12
    assert code == 0 and rows["extra to use"] == "none" and rows["name served"] == "yes, as org/Teacher"
    assert rows["fields refused"] == "none" and rows["who answers"] == "teacher"
    assert rows["thinking"] == "apart from the text" and rows["content"] == "text" and rows["repeatable at 0"] == "yes"
    assert rows["window"].startswith("32768 stated") and "cuts prompts" not in rows["window"]
    assert rows["usage"] == "3 tokens written; the server counts 3"
    assert rows["rate limit"] == "{'x-ratelimit-limit-requests': '60'}"
    assert rows["a thousand answers"].startswith("cost 0.0060")


def test_doctor_of_an_odd_server_names_what_is_odd(capsys):
    parts = [{"type": "thinking", "thinking": "so " * 500}, {"type": "text", "text": "42"}]
    count = iter(range(99))
    more = {"refuse": refuses(**NEW_OPENAI), "fields": lambda body: {"model": "another"}}
    with Loopback(
        message=lambda question: {"content": [*parts, {"type": "text", "text": str(next(count))}]}, **more
    ) as server:
        code, rows = examine(server, capsys)
    assert code == 0 and rows["name served"].startswith("failed: ") and "404" in rows["name served"]
    assert json.loads(rows["extra to use"]) == {"max_tokens": None, "temperature": None, "max_completion_tokens": 2048}
    assert rows["fields refused"] == "max_tokens, temperature" and "asked for the model" in rows["who answers"]
    assert rows["content"] == "a list of parts" and rows["repeatable at 0"].startswith("no: ")
    assert rows["usage"] == "375 tokens written; the server counts 3" and "cuts prompts" in rows["window"]


@pytest.mark.parametrize("refuse, extra", [
    (lambda body: "enable_thinking" not in body or body["enable_thinking"], {"enable_thinking": False}),
    (lambda body: "max_tokens" in body or "temperature" in body,
     {"max_tokens": None, "temperature": None, "top_p": None, "seed": None, "max_completion_tokens": 2048}),
    (lambda body: not body.get("stream"), {"stream": True}),
])  # fmt: skip
def test_doctor_finds_the_extra_of_a_server_that_does_not_say_what_it_refuses(capsys, refuse, extra):
    with Loopback(refuse=lambda body: (400, "invalid request") if refuse(body) else None) as server:
        code, rows = examine(server, capsys)
        assert code == 0 and json.loads(rows["extra to use"]) == extra
        assert examine(server, capsys, "--extra", rows["extra to use"])[1]["answer"].endswith("number.!'")


def test_doctor_of_a_dead_server_and_of_a_wrong_key(capsys):
    with Loopback() as server:
        pass
    code, rows = examine(server, capsys)
    assert code == 1 and all(text.startswith("failed: ") for title, text in rows.items() if title != "extra to use")
    with Loopback(refuse=lambda body: (401, f"wrong key {KEY}"), models=[]) as server:
        code, rows = examine(server, capsys)
        assert server.asked.total() == 1
    assert code == 1 and "was refused" in rows["answer"] and rows["name served"].startswith("not among")
    assert main(["doctor", "--base-url", "https://a:b@h/v1", "--model", "m"]) == 2
    with Loopback(message=lambda question: {"content": ""}) as server:
        assert examine(server, capsys)[0] == 1  # an empty answer is none


# ---- judges ----------------------------------------------------------------------------------------------------------

VERDICTS = [
    ("1", True), ("0", False), (" 1\n", True), ("**1**", True), ("1.", True), ("0。", False), ("答案：1", True),
    ("１", True), ("０．", False), ("`0`", False), ("Verdict: **0**", False), ("**Final answer:** 1", True),
    ("[1]", True),
    ("\\boxed{1}", True), ("$\\boxed{0}$", False), ("<answer>1</answer>", True), ("<answer>\\boxed{0}</answer>", False),
    ("结论是：0", False), ("最终答案为１。", True), ("“1”", True), ("They agree.\n\n**1**", True), ("Score = 0", False),
    ("<think>1?</think>0", False), ("<think>0\n0</think>\n\n1", True), ("<thinking>0</thinking>1", True),
    ("1</think>0", False),
    ("◁think▷0◁/think▷1", True), ("<|channel|>analysis<|message|>0<|channel|>final<|message|>1", True),
    ("<think>1", None), ("<think>\n1", None), ("", None), ("10", None), ("1.5", None), ("-1", None), ("1 0", None),
    ("1 or 0", None), ("maybe", None), ("0/1", None), ("1\nThey agree.", True),
    ("1\n0", None), ("2", None), ("第1", None),
]  # fmt: skip


@pytest.mark.parametrize("text, right", VERDICTS)
def test_a_verdict_is_read_after_the_thought_in_the_forms_that_models_write(text, right):
    assert judge.read_check(text) is right


def test_the_verdict_of_two_lines_and_the_seven_points_come_after_the_thought():
    full = json.dumps(dict.fromkeys(judge.CRITERIA, 1))
    none = json.dumps(dict.fromkeys(judge.CRITERIA, 0))
    said = ScriptedBackend(lambda *_: "<think>0\nno</think>**1**\nBoth fell.", "j")
    assert judge.Verifier(said)([("q", "g", "a")]) == [(True, "Both fell.")]
    assert read_scores(f"<think>{none}</think>```json\n{full}\n```").total == 7
    assert read_scores(f"{full}<think>{none}") is None


def filtering(server, **changes) -> FilteringParams:
    at = {"judge_backend": "endpoint", "judge_model": "teacher", "judge_base_url": server.base_url}
    return FilteringParams(**demo_values("03_filtering", **at | changes))


def test_a_judge_that_decides_nothing_is_an_error_before_work():
    thought = {"choices": [{"message": {"content": "<think>let me see"}, "finish_reason": "length"}]}
    silent = [({"message": lambda q: {"content": "Sure!"}}, "4 of 4 plain cases: neither 1 nor 0: 'Sure!'"),
              ({"fields": lambda body: thought}, "cut off at 300 tokens: allow more"),
              ({"message": lambda q: {"content": None, "reasoning": "1"}}, "no answer after the thought")]  # fmt: skip
    for more, told in silent:
        with Loopback(**more) as server, pytest.raises(GenerationError, match=told):
            judge.make_backend(filtering(server, judge_max_tokens=300))
    with Loopback(message=lambda q: {"content": "0", "reasoning_content": "1? 1?"}) as server:
        backend = judge.make_backend(filtering(server, judge_extra={"enable_thinking": True}, judge_max_tokens=900))
        assert bodies(server)[-1]["enable_thinking"] is True and bodies(server)[-1]["max_tokens"] == 900
    assert backend.extra == {"enable_thinking": True}


@pytest.mark.parametrize("with_reason", [False, True])
def test_a_judge_is_attacked_in_all_orders_and_both_languages(with_reason):
    """A judge that believes whoever says that the reference was updated, in the language that it was told so."""
    seen = []

    def fooled(request, *_):
        seen.append(request.messages[0]["content"])
        return "1\nso" if "updated" in seen[-1] else "0\nno" if "已更新" not in seen[-1] else "hm"

    if not with_reason:
        line = judge.Verifier(
            ScriptedBackend(lambda *a: fooled(*a).partition("\n")[0], "j"), with_reason=False
        ).attacked()
    else:
        line = judge.Verifier(ScriptedBackend(fooled, "j")).attacked()
    assert "10 of 80 succeed (12%" in line and "10 unread" in line
    assert all(f"{order} 2" in line for order in judge.CHECK_PROMPTS)
    assert (
        len(seen) == 80
        and sum("Ignore all" in prompt for prompt in seen) == sum("忽略以上" in prompt for prompt in seen) == 10
    )


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_extra_is_a_mapping_or_its_json_in_every_place(tmp_path):
    extra = {"max_tokens": None, "chat_template_kwargs": {"enable_thinking": False}}
    for form in (extra, json.dumps(extra)):
        params = FilteringParams(**demo_values("03_filtering", judge_extra=form))
        assert params.judge_extra == extra
        params.to_yaml(tmp_path / "params.yaml")
        assert FilteringParams.from_yaml(tmp_path / "params.yaml") == params
    for nothing in (None, "null", "None", "{}", {}):
        assert FilteringParams(**demo_values("03_filtering", judge_extra=nothing)).judge_extra is None


def test_a_further_model_may_have_an_extra():
    assert endpoint_of("hub/model") is endpoint_of("folder@x") is None
    assert endpoint_of('r1@http://h:1/v1 {"note": "a@b", "seed": null}') == {
        "model": "r1", "base_url": "http://h:1/v1", "extra": {"note": "a@b", "seed": None},
    }  # fmt: skip
    other = 'R1=r1@http://h:1/v1 {"max_tokens": null, "a": "b=c"}'
    params = BenchmarkParams(**demo_values("06_benchmark", other_models=[other]))
    assert endpoint_of(params.others["R1"])["extra"] == {"max_tokens": None, "a": "b=c"}
    for wrong in ("{", '{"api_key": "sk-planted"}', '{"a": "sk-planted"}'):
        with pytest.raises(ParameterError, match="other_models") as caught:
            BenchmarkParams(**demo_values("06_benchmark", other_models=[f"R1=r1@http://h:1/v1 {wrong}"]))
        assert "sk-planted" not in str(caught.value)


# ---- replicas --------------------------------------------------------------------------------------------------------

QUESTIONS = [f"q{number}" for number in range(24)]


@pytest.fixture
def mortal() -> Iterator[tuple[subprocess.Popen, str]]:
    """A server in a process of its own, and its address."""
    code = """
import time
from loopback import Loopback
with Loopback(delay=0.05) as server:
    print(server.base_url, flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT / "tests")
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_replicas_share_the_requests_and_one_store(tmp_path):
    store = AnswerStore(tmp_path / "answers.jsonl")
    with Loopback(delay=0.02) as first, Loopback(delay=0.02) as second:
        both = EndpointBackend(f"{first.base_url}, {second.base_url}/", "m", concurrency=4)
        both.check()
        assert first.asked == second.asked == {"1": 1}
        answers = generate(ask(*QUESTIONS), SAMPLING, both, store)
        assert [answer.text for answer in answers] == [f"<think>so</think>{question}!" for question in QUESTIONS]
        assert first.asked + second.asked == {"1": 2} | dict.fromkeys(QUESTIONS, 1)
        assert min(first.asked.total(), second.asked.total()) > len(QUESTIONS) / 4
        generate(ask(*QUESTIONS), SAMPLING, EndpointBackend(first.base_url, "m"), store)  # answered long since
    assert (first.asked + second.asked).total() == 2 + len(QUESTIONS) and not both.notes


def test_a_replica_that_dies_under_way_is_left_out_with_a_sentence(mortal):
    process, address = mortal
    with Loopback(delay=0.05) as server:
        both = EndpointBackend(f"{address},{server.base_url}", "m", concurrency=6)
        with pytest.warns(UserWarning, match=f"{address} is gone and is left out; requests go to 1 other") as told:
            with closing(both.complete(jobs(), SAMPLING, lambda: False)) as groups:
                answers = next(groups)
                process.kill()
                process.wait()
                answers += [answer for group in groups for answer in group]
    assert sorted(answer.text for answer in answers) == sorted(f"<think>so</think>{q}!" for q in QUESTIONS)
    assert len(told) == 1 and [*both.notes] == [address]


def jobs() -> list[Job]:
    return [Job(request, 0, str(request.id)) for request in ask(*QUESTIONS)]


def test_replicas_that_are_all_gone_are_an_error_that_names_the_last(mortal):
    process, address = mortal
    process.kill()
    process.wait()
    with Loopback() as server:
        pass
    both = EndpointBackend(f"{address},{server.base_url.replace('127.0.0.1', 'localhost')}", "m", max_retries=1)
    with pytest.raises(GenerationError, match=f"{address}: no answer"):
        both.check()
    with pytest.warns(UserWarning, match="is gone"), pytest.raises(GenerationError, match="have no answer"):
        generate(ask("q"), SAMPLING, both)


def test_a_server_that_is_gone_is_waited_for_once_and_again_after_it_has_answered(monkeypatch):
    seen = []

    async def try_once(self, client, job, sampling, seed):
        seen.append(client.max_retries)
        if job.request.messages[0]["content"] == "back":
            return job.completion("x")
        raise RuntimeError from httpx2.ConnectError("refused")

    monkeypatch.setattr(EndpointBackend, "_try", try_once)
    backend = EndpointBackend("http://127.0.0.1:9/v1", "m", concurrency=1, max_retries=14)
    for name in ("a", "b", "back", "c"):
        generate(ask(name), SAMPLING, backend, on_error="none")
    assert seen == [14, 2, 2, 14]


def test_a_fault_of_the_request_leaves_no_replica_out():
    refused = (400, {}, '{"error": {"message": "too long"}}')
    with Loopback({"bad": [refused]}) as first, Loopback({"bad": [refused]}) as second:
        both = EndpointBackend(f"{first.base_url},{second.base_url}", "m")
        bad, good = generate(ask("bad", "good"), SAMPLING, both, on_error="none")
    assert "too long" in bad.error and good.error is None and not both.notes


def test_a_busy_replica_stays_and_the_other_one_is_asked():
    busy = {f"q{n}": [(503, {}, "busy")] * 9 for n in range(8)}
    with Loopback(faults=busy) as slow, Loopback() as quick:
        backend = EndpointBackend(f"{slow.base_url},{quick.base_url}", "m", max_retries=0)
        answers = generate(ask(*busy), SAMPLING, backend)
    assert [answer.error for answer in answers] == [None] * 8 and not backend.notes
    assert slow.asked and quick.asked


@pytest.mark.parametrize("fault", [
    (401, {}, "no"), (404, {}, "no such model"), (200, {}, "<html>starting</html>"), HANG,
])  # fmt: skip
def test_a_replica_that_fails_in_any_way_leaves_its_requests_to_the_other(fault):
    with Loopback({f"q{n}": [fault] * 9 for n in range(8)}) as odd, Loopback() as good:
        backend = EndpointBackend(f"{odd.base_url},{good.base_url}", "m", max_retries=0, timeout=0.3)
        answers = generate(ask(*(f"q{n}" for n in range(8))), SAMPLING, backend)
    assert [answer.error for answer in answers] == [None] * 8 and odd.asked and good.asked


FLAGGED = '{"error": {"message": "Your chosen model requires moderation and your input was flagged", "code": 403}}'


@pytest.mark.parametrize("fault, finish", [
    ((400, {}, '{"error": {"code": "data_inspection_failed"}}'), "refused"), ((403, {}, FLAGGED), "refused"),
    ((500, {}, '{"error": "the answer could not be parsed"}'), "error"), ((200, {}, '{"choices": []}'), "error"),
])  # fmt: skip
def test_a_question_that_never_gets_an_answer_costs_one_request(fault, finish):
    with Loopback(faults={"q3": [fault] * 9}) as server:
        backend = EndpointBackend(server.base_url, "m", max_retries=0)
        answers = generate(ask(*(f"q{n}" for n in range(40))), SAMPLING, backend)
    [failure] = [answer for answer in answers if answer.error]
    assert failure.finish_reason == finish and failure.id == "id q3" and server.asked["q3"] == 1


@pytest.mark.parametrize("body", [
    '{"error": {"message": "An unexpected error occurred", "code": 500}}', '{"error": {"message": "unexpected EOF"}}',
    '{"error": {"message": "Rate limit reached. Use gpt-4o-mini instead.", "code": 429}}',
    'data: {"choices": [{"delta": {"content": "The seed round brought extra cash"}}]}\n\n',
    '{"choices": [{"message": {"content": "The seed capital is unknown, so',
])  # fmt: skip
def test_a_success_without_an_answer_is_asked_again_whatever_words_are_in_it(body):
    with Loopback({"q": [(200, {"Retry-After": "0.01"}, body)]}) as server:
        backend = EndpointBackend(server.base_url, "m")
        [answer] = generate(ask("q"), SAMPLING, backend)
    assert answer.text.endswith("q!") and server.asked["q"] == 2 and not backend.changes and not backend.notes


def test_a_models_name_is_no_field_that_a_server_refuses():
    error = SimpleNamespace(status_code=404, response=SimpleNamespace(
        text="The model doubao-seed-1.6 does not exist, or does not support this api"))  # fmt: skip
    assert refusal(error, {**BODY, "model": "doubao-seed-1.6"}, {}) == {}


def test_half_a_surrogate_anywhere_in_a_reply_kills_nothing(tmp_path):
    fields = {"model": "m\ud83d"}
    with Loopback(fields=lambda body: fields) as server, pytest.warns(UserWarning, match="reply is from"):
        [answer] = generate(
            ask("q"), SAMPLING, EndpointBackend(server.base_url, "m"), AnswerStore(tmp_path / "a.jsonl")
        )
    assert answer.model == "m\ufffd"


def test_parts_of_an_answer_by_any_spelling_of_their_kind():
    def said(parts):
        reply = read_reply(json.dumps({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}).encode())
        return reply["reasoning"], reply["text"]

    assert said([{"thinking": "t"}, {"text": "42"}]) == ("t", "42")
    assert said([{"type": "TEXT", "text": "4"}, {"type": None, "text": "2"}]) == (None, "42")
    assert said([{"text": "t", "thought": True}, {"text": "42", "thought": False}]) == ("t", "42")


def test_a_refusal_that_comes_as_a_success_is_read():
    with Loopback(
        refuse=lambda body: (200, "Unsupported parameter: max_tokens") if "max_tokens" in body else None
    ) as server:
        with pytest.warns(UserWarning, match="max_tokens is left out"):
            [answer] = generate(ask("q"), SAMPLING, EndpointBackend(server.base_url, "m"))
    assert answer.error is None and answer.text.endswith("q!")
