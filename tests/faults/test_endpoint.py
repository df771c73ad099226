"""Endpoint x oddity: what a server may send in place of an answer, or beside it; and limits that would be none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from loopback import Loopback

from finr1.__main__ import main
from finr1.generation import AnswerStore, Budget, EndpointBackend, Request, SamplingParams, generate
from finr1.generation.endpoint import read_reply

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def reply(content: Any = "4", finish: Any = "stop", usage: Any = USAGE, **message: Any) -> bytes:
    choice = {"message": {"content": content} | message, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def parts(*texts: str, kind: str = "text") -> list[dict]:
    return [{"type": kind, kind: text} for text in texts]


NO_ANSWER = {
    "the message is a text": json.dumps({"choices": [{"message": "4"}]}).encode(),
    "the choices are an object": json.dumps({"choices": {"message": {"content": "4"}}}).encode(),
    "a choice is null": b'{"choices": [null]}',
    "a list": b"[1, 2]",
    "a number": b"4",
    "a page": b"<html>Welcome</html>",
    "a stream of events": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "a number of 5,000 digits": b'{"usage": ' + b"9" * 5000 + b"}",
    "100,000 brackets": b"[" * 100_000,
    "an error in the choice": json.dumps({"choices": [{"message": {"content": "4"}, "error": {"code": 502}}]}).encode(),
    **{
        f"finished by {word}": reply("4", word)
        for word in ("error", "ERROR", "failed", "abort", "cancelled", "timeout")
    },
    "another protocol's answer": json.dumps({"content": parts("4"), "stop_reason": "end_turn"}).encode(),
    "two replies in one": reply("4") * 2,
}


@pytest.mark.parametrize("oddity", NO_ANSWER)
def test_a_reply_that_is_none_is_refused(oddity):
    with pytest.raises(ValueError, match="reply|Expecting|Extra data|digit|server (means|reports)"):
        read_reply(NO_ANSWER[oddity])


NOTHING_SAID = {
    "content is null, and it says stop": (reply(None), "empty"),
    "no content at all": (b'{"choices": [{"message": {}, "finish_reason": "stop"}]}', "empty"),
    "an empty text that was counted": (reply(""), "empty"),
    "an empty text of no tokens": (reply("", usage={"prompt_tokens": 7, "completion_tokens": 0}), "empty"),
    "an empty text that nobody counted": (reply("", usage=None), "empty"),
    "blanks": (reply(" \n"), "empty"),
    "no-break spaces": (reply("\xa0\u3000"), "empty"),
    "marks that nobody sees": (reply("\u200b\ufeff"), "empty"),
    "NULs": (reply("\0\0"), "empty"),
    "tags around nothing": (reply("<think>\n</think>\n\n"), "thought"),
    "an empty list of parts": (reply([]), "empty"),
    "a list of pictures": (reply(parts("a.png", kind="image_url")), "empty"),
    "parts without their text": (reply([{"type": "text"}]), "empty"),
    "a tool is called": (reply(None, "tool_calls", tool_calls=[{"id": "x"}]), "empty"),
    "a filter stood between": (reply(None, "content_filter"), "empty"),
    "content is a number": (reply(4), "empty"),
    "content is true": (reply(True), "empty"),
    "a thought alone": (reply(None, reasoning_content="so"), "thought"),
}


@pytest.mark.parametrize("oddity", NOTHING_SAID)
def test_a_reply_that_says_nothing_is_asked_for_once_more_and_never_stored(tmp_path, oddity):
    content, finish = NOTHING_SAID[oddity]
    assert read_reply(content)["finish_reason"] == finish
    nothing = (200, {}, content.decode())
    with Loopback({"never": [nothing] * 9, "once": [nothing]}) as server:
        store, backend = AnswerStore(tmp_path / "answers.jsonl"), EndpointBackend(server.base_url, "m")
        never, once = generate(ask("never", "once"), SamplingParams(), backend, store, on_error="none")
    assert server.asked == {"never": 2, "once": 2}
    assert (never.finish_reason, once.finish_reason) == (finish, "stop") and "twice" in never.error
    assert [*AnswerStore(store.path).answers] == [once.key]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (reply(parts("4", "2")), ("42", None, "stop")),
        (reply(["4", "2"]), ("42", None, "stop")),
        (reply({"text": "42"}), ("42", None, "stop")),
        (reply([*parts("six by seven", kind="thinking"), *parts("42")]), ("42", "six by seven", "stop")),
        (reply([{"type": "thinking", "thinking": parts("so")}, *parts("42")]), ("42", "so", "stop")),
        (reply("42", reasoning={"steps": 3}), ("42", None, "stop")),
        (reply(None, refusal="I will not."), ("I will not.", None, "stop")),
        (reply("", "length"), ("", None, "length")),
        (reply("4", 7), ("4", None, "7")),
        (reply("4", None), ("4", None, "unknown")),
        (reply("half \ud83d a face"), ("half \ufffd a face", None, "stop")),
    ],
)
def test_an_unusual_answer_is_read_and_can_be_stored(tmp_path, content, expected):
    found = read_reply(content)
    assert (found["text"], found["reasoning"], found["finish_reason"]) == expected
    with Loopback({"q": [(200, {}, content.decode("utf8"))]}) as server:
        store = AnswerStore(tmp_path / "answers.jsonl")
        [answer] = generate(ask("q"), SamplingParams(), EndpointBackend(server.base_url, "m"), store)
    assert AnswerStore(store.path).answers[answer.key].text == expected[0]


def test_bytes_that_are_no_text_are_read_as_such():
    assert read_reply(reply("4?").replace(b"?", b"\xff"))["text"] == "4\ufffd"


def ask(*questions: str) -> list[Request]:
    return [Request(id=q, messages=[{"role": "user", "content": q}]) for q in questions]


LIES = [-5, -1, 10**30, 1e30, 10**8, 2**31, float("inf"), 3.5, float("nan"), True, "3", None, [3], {}]


@pytest.mark.parametrize("lie", LIES, ids=repr)
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_a_count_that_cannot_be_true_is_none_and_a_budget_stops_at_it(monkeypatch, name, lie):
    assert read_reply(reply(usage=USAGE | {name: lie}))["usage"] == {**USAGE, name: None}
    questions = [f"q{number}" for number in range(9)]
    lying = (200, {}, reply(usage=USAGE | {name: lie}).decode())
    with Loopback({q: [lying] for q in questions}) as server:
        backend = EndpointBackend(server.base_url, "m", concurrency=1)
        budget = Budget(max_cost=1.0, prompt_price=1.0, completion_price=1.0)
        answers = generate(ask(*questions), SamplingParams(), backend, on_error="none", budget=budget)
    assert [answer.error is None for answer in answers] == [True] + [False] * 8
    assert "the server counts no tokens" in answers[1].error


def test_no_tokens_for_a_text_that_is_there_are_estimated():
    assert read_reply(reply("4", usage=USAGE | {"completion_tokens": 0}))["usage"] == USAGE | {"completion_tokens": 1}


@pytest.mark.parametrize("usage", [None, [], "7", 7, {}, {"total_tokens": 10}], ids=repr)
def test_usage_of_another_shape_is_no_count(usage):
    assert read_reply(reply(usage=usage))["usage"] == {"prompt_tokens": None, "completion_tokens": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0, -1e-9], ids=str)
@pytest.mark.parametrize("name", ["max_cost", "prompt_price", "completion_price"])
def test_a_limit_or_a_price_that_is_none_is_refused(tmp_path, capsys, name, value):
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Budget(**{"max_cost": 1.0, "prompt_price": 1.0} | {name: value})
    (tmp_path / "in.jsonl").write_text('{"id": "a", "messages": [{"role": "user", "content": "q"}]}')
    with Loopback() as server:
        command = ["generate", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        command += ["--base-url", server.base_url, "--model", "m", "--max-cost=1", "--prompt-price=1"]
        assert main([*command, f"--{name.replace('_', '-')}={value}"]) == 2
        assert not server.requests and f"{name} = " in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--temperature=inf", "--temperature=nan", "--temperature=-1", "--top-p=nan", "--top-p=2", "--max-tokens=0"],
)
def test_decoding_is_finite(tmp_path, capsys, option):
    (tmp_path / "in.jsonl").write_text('{"id": "a", "messages": [{}]}')
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["generate", *files, "--base-url", "http://127.0.0.1:9", "--model", "m", option]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert option[2:].partition("=")[0].replace("-", "_") in line and "Input should be" in line


@pytest.mark.parametrize("address", ["https://host/v1/sk-planted-0123456789", "https://host/v1;a", "http://[::1/v1"])
def test_an_address_with_a_key_asks_nobody_and_is_not_shown(tmp_path, capsys, address):
    (tmp_path / "in.jsonl").write_text('{"id": "a", "messages": [{}]}')
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["generate", *files, "--base-url", address, "--model", "m"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "base_url should hold a bare address" in line and "planted" not in line


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ((302, {"Location": "http://elsewhere.test/v1"}, "{}"), "HTTP 302, Location http://elsewhere.test/v1"),
        ((308, {"Location": "/v2"}, "{}"), "HTTP 308, Location /v2"),
        ((429, {"Retry-After": "7200"}, "{}"), "HTTP 429, Retry-After 7200"),
        ((503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, "{}"), "HTTP 503, Retry-After Fri, 31 Dec 2100"),
    ],
)
def test_where_a_server_points_and_how_long_it_asks_to_wait_is_told(fault, told):
    with Loopback({"q": [fault] * 3}) as server:
        backend = EndpointBackend(server.base_url, "m", max_retries=0)
        [answer] = generate(ask("q"), SamplingParams(), backend, on_error="none")
    assert told in answer.error


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
@pytest.mark.parametrize("name", ["gpu_hour_price", "mfu_train", "reasoning_tokens"])
def test_a_plan_takes_no_price_that_is_none(capsys, name, value):
    assert main(["plan", "--preset", "demo", "--set", f"{name}={value}"]) == 2
    assert f"{name} = {float(value)}: should be" in capsys.readouterr().err
