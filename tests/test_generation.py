"""Generation: one interface, nothing paid twice, no key anywhere. Run alone: pytest tests/test_generation.py"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from loopback import DROP, HANG, Loopback
from tiny_model import make_tiny_model

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
    TransformersBackend,
    generate,
    request_key,
)
from finr1.generation.answering import Progress

KEY = "sk-planted-5f2b9c"
GREEDY = SamplingParams(max_tokens=16)
REPOSITORY = Path(__file__).parents[1]


def ask(*questions: str) -> list[Request]:
    return [Request(id=f"id {q}", messages=[{"role": "user", "content": q}]) for q in questions]


def echo(request: Request, sampling: SamplingParams, sample: int) -> str:
    return f"{request.messages[-1]['content']}/{sample}"


class Counting:
    """An echo that remembers what it was asked, and breaks before one question if told to."""

    def __init__(self, breaks_at: str | None = None, error: type[BaseException] = KeyboardInterrupt):
        self.asked, self.breaks_at, self.error = [], breaks_at, error
        self.backend = ScriptedBackend(self, "counting")

    def __call__(self, request, sampling, sample):
        text = echo(request, sampling, sample)
        if text == self.breaks_at:
            raise self.error
        self.asked.append(text)
        return text


def texts(completions) -> list[str]:
    return [completion.text for completion in completions]


# ---- generate --------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_requests_and_samples():
    completions = generate(ask("b", "a"), SamplingParams(num_samples=2), ScriptedBackend(echo, "echo"))
    assert texts(completions) == ["b/0", "b/1", "a/0", "a/1"]
    assert [(c.id, c.sample) for c in completions] == [("id b", 0), ("id b", 1), ("id a", 0), ("id a", 1)]


def test_no_requests_give_no_answers(tmp_path):
    assert generate([], GREEDY, EndpointBackend("http://127.0.0.1:9", "nobody"), AnswerStore(tmp_path / "a")) == []


def test_what_the_store_holds_is_not_asked_again(tmp_path):
    first, second = Counting(), Counting()
    generate(ask("a", "b"), GREEDY, first.backend, AnswerStore(tmp_path / "answers.jsonl"))
    completions = generate(ask("c", "b", "a"), GREEDY, second.backend, AnswerStore(tmp_path / "answers.jsonl"))
    assert second.asked == ["c/0"]
    assert texts(completions) == ["c/0", "b/0", "a/0"]


def test_equal_chats_are_asked_once_and_answered_under_each_id():
    counting = Counting()
    requests = [*ask("a"), Request(id="other", messages=[{"role": "user", "content": "a"}])]
    completions = generate(requests, GREEDY, counting.backend)
    assert counting.asked == ["a/0"]
    assert [(c.id, c.text) for c in completions] == [("id a", "a/0"), ("other", "a/0")]


def test_more_samples_reuse_the_ones_there_are(tmp_path):
    store, counting = AnswerStore(tmp_path / "answers.jsonl"), Counting()
    generate(ask("a"), SamplingParams(num_samples=2), counting.backend, store)
    generate(ask("a"), SamplingParams(num_samples=3), counting.backend, store)
    assert counting.asked == ["a/0", "a/1", "a/2"]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    interrupted, resumed = Counting(breaks_at="c/0"), Counting()
    with pytest.raises(KeyboardInterrupt):
        generate(ask("a", "b", "c", "d"), GREEDY, interrupted.backend, AnswerStore(tmp_path / "answers.jsonl"))
    completions = generate(ask("a", "b", "c", "d"), GREEDY, resumed.backend, AnswerStore(tmp_path / "answers.jsonl"))
    assert resumed.asked == ["c/0", "d/0"]
    assert texts(completions) == ["a/0", "b/0", "c/0", "d/0"]


def test_progress_is_told_at_the_end_and_reads_as_one_line(tmp_path):
    store, told = AnswerStore(tmp_path / "answers.jsonl"), []
    generate(ask("a"), GREEDY, Counting().backend, store)
    generate(ask("a", "b", "c"), GREEDY, Counting().backend, store, on_progress=lambda p: told.append(str(p)))
    assert len(told) == 1  # it took less than a second
    assert told[0].startswith("3/3 answers, 1 from the store, ") and "left" not in told[0]
    assert str(Progress(total=10, reused=2, answered=4, seconds=60)).endswith(", 0:01:00 left")
    assert "left" not in str(Progress(total=10, reused=2))  # nobody knows yet


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"messages": [{"role": "user", "content": "other"}]}, "another question"),
        ({"sampling": SamplingParams(temperature=0.5)}, "another decoding"),
        ({"sampling": SamplingParams(seed=1)}, "another seed"),
        ({"fingerprint": "other"}, "another model"),
        ({"sample": 1}, "another sample"),
    ],
)
def test_the_key_changes_with_everything_that_the_answer_depends_on(change, reason):
    base = {
        "messages": [{"role": "user", "content": "q"}],
        "sampling": SamplingParams(),
        "fingerprint": "f",
        "sample": 0,
    }

    def key(messages, sampling, fingerprint, sample):
        return request_key(Request(id="x", messages=messages), sampling, fingerprint, sample)

    assert key(**base) != key(**{**base, **change}), reason
    swapped = [{"content": "q", "role": "user"}]
    assert key(**base) == key(**{**base, "messages": swapped}), "the order of the names is nothing"


@pytest.mark.parametrize(
    ("text", "reasoning", "tagged"),
    [
        ("<think> so </think>42", "so", "<think> so </think>42"),
        ("so</think>42", "so", "so</think>42"),  # the template prefilled the opening tag
        ("<think>so far", "so far", "<think>so far"),  # cut off
        ("42", None, "42"),
        ("", None, ""),
    ],
)
def test_reasoning_is_read_from_the_think_block(text, reasoning, tagged):
    [completion] = generate(ask("q"), GREEDY, ScriptedBackend(lambda *_: text, "fixed"))
    assert (completion.text, completion.reasoning, completion.tagged) == (text, reasoning, tagged)


# ---- store -----------------------------------------------------------------------------------------------------------


def completion(key: str, text: str = "text"):
    return Job(ask("q")[0], 0, key).completion(text)


def test_a_stored_answer_comes_back_as_it_was(tmp_path):
    answer = completion("k", 'line\nbreak, 中文, "quotes", \0')
    AnswerStore(tmp_path / "deep" / "answers.jsonl").put([answer])
    store = AnswerStore(tmp_path / "deep" / "answers.jsonl")
    assert store.answers == {"k": answer}


def test_the_first_answer_to_a_key_stays(tmp_path):
    store = AnswerStore(tmp_path / "answers.jsonl")
    store.put([completion("k", "first")])
    store.put([completion("k", "second")])
    assert store.answers.get("k").text == "first"
    with store.path.open("a") as file:  # a file put together by hand
        file.write(completion("k", "fourth").model_dump_json() + "\n")
    assert AnswerStore(store.path).answers.get("k").text == "first"


@pytest.mark.parametrize("kept", [1, 9, 60])  # bytes of the second line that reached the disk
def test_a_torn_last_line_is_dropped(tmp_path, kept):
    store = AnswerStore(tmp_path / "answers.jsonl")
    store.put([completion("a")])
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + completion("b").model_dump_json().encode()[:kept])
    store.put([completion("c")])  # a store that was open all the time repairs as well
    reopened = AnswerStore(store.path).answers
    assert ["a" in reopened, "b" in reopened, "c" in reopened] == [True, False, True]
    assert store.path.read_bytes().startswith(whole)


def test_a_file_that_is_no_store_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    for content in ("a line\nthe end", "the end"):
        path.write_text(content)
        with pytest.raises(ValueError, match="notes.txt: this line is no stored answer"):
            AnswerStore(path)
        assert path.read_text() == content


def test_a_failure_is_never_stored(tmp_path):
    store = AnswerStore(tmp_path / "a")
    store.put([Job(ask("q")[0], 0, "k").failure("HTTP 500")])
    assert "k" not in store.answers and store.path.read_bytes() == b""


def test_a_store_sees_what_another_one_wrote(tmp_path):
    mine, theirs = AnswerStore(tmp_path / "a"), AnswerStore(tmp_path / "a")
    theirs.put([completion("k", "theirs")])
    assert "k" not in mine.answers
    mine.put([])
    assert mine.answers.get("k").text == "theirs"


def run_python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=REPOSITORY)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_writer_waits_for_the_one_that_holds_the_file(tmp_path):
    store = AnswerStore(tmp_path / "answers.jsonl")
    with store.path.open() as file, ThreadPoolExecutor() as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing = pool.submit(store.put, [completion("k")])
        with pytest.raises(TimeoutError):
            writing.result(timeout=0.05)
        fcntl.flock(file, fcntl.LOCK_UN)
        writing.result(timeout=5)
    assert "k" in store.answers


WRITER = """
import sys, time
from pathlib import Path
from finr1.generation import AnswerStore, Job, Request
store, name, start = AnswerStore(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
request = Request(id="q", messages=[{"role": "user", "content": "q"}])
Path(start.with_name(name)).touch()
while not start.exists():
    pass
for number in range(1000):
    mine, both = Job(request, 0, f"{name}{number}"), Job(request, 0, f"both{number}")
    store.put([mine.completion(name * 5000), both.completion(name)])
"""


def test_two_processes_share_a_store(tmp_path):
    path = tmp_path / "answers.jsonl"
    writers = [run_python(WRITER, path, name, tmp_path / "start") for name in ("x", "y")]
    wait_until(lambda: (tmp_path / "x").exists() and (tmp_path / "y").exists())
    (tmp_path / "start").touch()
    assert [writer.wait(timeout=30) for writer in writers] == [0, 0]
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 3000
    assert AnswerStore(path).answers.get("y999").text == "y" * 5000


SLOW_TEACHER = """
import sys, time
from pathlib import Path
from finr1.generation import AnswerStore, Request, SamplingParams, ScriptedBackend, generate
folder, log = Path(sys.argv[1]), open(Path(sys.argv[1]) / sys.argv[2], "a", buffering=1)
def slow(request, sampling, sample):
    time.sleep(0.01)
    log.write(request.id + "\\n")
    return "answer to " + request.id
requests = [Request(id=str(i), messages=[{"role": "user", "content": str(i)}]) for i in range(60)]
answers = generate(requests, SamplingParams(), ScriptedBackend(slow, "slow"), AnswerStore(folder / "answers.jsonl"))
(folder / "result").write_text("\\n".join(answer.model_dump_json() for answer in answers))
"""


def test_after_kill_9_no_answered_request_is_asked_again(tmp_path):
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    broken.mkdir(), unbroken.mkdir()
    store = broken / "answers.jsonl"
    for run, enough in enumerate((5, 15)):
        process = run_python(SLOW_TEACHER, broken, f"asked{run}")
        wait_until(lambda enough=enough: store.exists() and store.read_bytes().count(b"\n") >= enough)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    answered = {json.loads(line)["id"] for line in store.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")}
    assert run_python(SLOW_TEACHER, broken, "asked2").wait(timeout=30) == 0
    assert run_python(SLOW_TEACHER, unbroken, "asked").wait(timeout=30) == 0
    assert 15 <= len(answered) < 60
    assert not answered & set((broken / "asked2").read_text().split())
    assert (broken / "result").read_text() == (unbroken / "result").read_text()


# ---- endpoint --------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("FINR1_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


SOON = {"Retry-After": "0.01"}
BROKEN_OFF = '{"choices": [{"message": {"content": "4"}, "finish_reason": "insufficient_system_resource"}]}'
NOT_A_REPLY = '{"error": {"message": "busy"}}'


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([(429, SOON, "{}")] * 3, id="rate limit"),
        pytest.param([(500, SOON, "{}")] * 2, id="server error"),
        pytest.param([(503, SOON, "<html>")], id="overloaded"),
        pytest.param([(408, SOON, "{}"), (409, SOON, "{}")], id="time-out and conflict"),
        pytest.param([DROP], id="dropped connection"),
        pytest.param([HANG], id="no answer within the time-out"),
        pytest.param([(200, {}, '{"choices": [{"mess')], id="cut JSON"),
        pytest.param([(200, {}, "")], id="empty body"),
        pytest.param([(200, {}, '{"choices": []}')], id="no choices"),
        pytest.param([(200, {}, '{"choices": [{"message": null}]}')], id="no message"),
        pytest.param([(200, {}, '{"choices": [{"message": {}}]}')], id="a message without anything"),
        pytest.param([(200, {}, '{"error": {}, "choices": [{"message": {"content": ""}}]}')], id="an empty answer"),
        pytest.param([(200, {}, BROKEN_OFF)], id="broken off for lack of capacity"),
        pytest.param([(200, {}, NOT_A_REPLY), (500, SOON, "{}")], id="an error that calls itself a success"),
    ],
)
def test_passing_faults_are_survived(key, faults):
    with Loopback({"q": faults}) as server:
        [answer] = generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher", timeout=0.3))
    assert (answer.text, answer.reasoning) == ("<think>so</think>q!", "so")
    assert (answer.finish_reason, answer.usage.prompt_tokens, answer.usage.completion_tokens) == ("stop", 7, 3)
    assert server.asked["q"] == len(faults) + 1


def test_the_pauses_outlast_a_limit_per_minute():
    """They are the `openai` package's; the shortest that its chance allows."""
    from openai import _constants as openai

    retries = EndpointBackend("http://localhost", "m").max_retries
    pauses = [min(openai.INITIAL_RETRY_DELAY * 2.0**retry, openai.MAX_RETRY_DELAY) for retry in range(retries)]
    assert 0.75 * sum(pauses) > 60


def test_retry_after_is_honoured(key):
    with Loopback({"q": [(429, {"Retry-After": "0.7"}, "{}")]}) as server:
        start = time.monotonic()
        generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher"))
    assert 0.7 <= time.monotonic() - start < 5  # the library's own first pause is at most 0.5 s


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param((500, SOON, '{"detail": "full"}'), 'HTTP 500, Retry-After 0.01: {"detail": "full"}', id="status"),
        pytest.param(
            (200, {}, NOT_A_REPLY), "no answer: the server's reply makes no sense: b'{\"error\"", id="nonsense"
        ),
        pytest.param(DROP, "no answer: Server disconnected", id="dropped connection"),
        pytest.param(HANG, "no answer: Timeout on reading", id="silence"),
    ],
)
def test_retries_end_with_the_address_and_the_reason(key, fault, reason):
    with Loopback({"q": [fault] * 9}) as server:
        backend = EndpointBackend(server.base_url, "teacher", max_retries=2, timeout=0.2)
        [answer] = generate(ask("q"), GREEDY, backend, on_error="none")
    assert (answer.finish_reason, answer.text) == ("error", "")
    assert answer.error.startswith(f"{server.base_url}: {reason}")
    assert server.asked["q"] == 3


def test_requests_run_side_by_side_and_answers_keep_their_order(key):
    questions = [f"q{number}" for number in range(24)]
    with Loopback(delay=0.05) as server:
        answers = generate(ask(*questions), GREEDY, EndpointBackend(server.base_url, "teacher", concurrency=8))
    assert [answer.id for answer in answers] == [f"id {q}" for q in questions]
    assert [answer.text.removeprefix("<think>so</think>") for answer in answers] == [f"{q}!" for q in questions]
    assert 4 <= server.most_in_flight <= 8


def test_the_request_says_what_was_asked_for(key):
    sampling = SamplingParams(temperature=0.6, top_p=0.9, max_tokens=5, num_samples=2, seed=3)
    extra = {"max_tokens": None, "max_completion_tokens": 5}
    with Loopback() as server:
        generate(ask("q"), sampling, EndpointBackend(server.base_url, "teacher", concurrency=1, extra=extra))
    bodies = [json.loads(body) for _, _, body in server.requests]
    same = {"model": "teacher", "messages": [{"role": "user", "content": "q"}], "temperature": 0.6, "top_p": 0.9}
    assert bodies == [{**same, "max_completion_tokens": 5, "seed": 3}, {**same, "max_completion_tokens": 5, "seed": 4}]


def test_reasoning_that_comes_apart_is_kept_apart(key):
    message = {"content": "42", "reasoning_content": "six by seven"}
    with Loopback(message=lambda question: message) as server:
        [answer] = generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher"))
    assert (answer.text, answer.reasoning) == ("42", "six by seven")
    assert answer.tagged == "<think>six by seven</think>42"


def test_works_inside_a_running_event_loop(key):
    async def cell():
        return generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher"))

    with Loopback() as server:
        assert texts(asyncio.run(cell())) == ["<think>so</think>q!"]


REFUSED = (400, {}, '{"error": {"message": "too long"}}')


def test_a_failure_is_raised_after_the_answers_under_way_are_stored(key, tmp_path):
    questions = ["bad", *(f"q{number}" for number in range(20))]
    store = AnswerStore(tmp_path / "answers.jsonl")
    with Loopback({"bad": [(403, {}, REFUSED[2])]}, delay=0.2) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=4)
        with pytest.raises(GenerationError, match="of 21 requests have no answer; the first, 'id bad': .*too long"):
            generate(ask(*questions), GREEDY, backend, store)
        assert 4 <= server.asked.total() <= 8  # those under way, and what began before the failure was noticed
        assert len(store.answers) == server.asked.total() - 1
        answers = generate(ask(*questions), GREEDY, backend, store)
    assert len(answers) == 21
    assert server.asked == {**dict.fromkeys(questions, 1), "bad": 2}


def test_failures_can_be_left_in_place_and_are_asked_again(key, tmp_path):
    store = AnswerStore(tmp_path / "answers.jsonl")
    with Loopback({"bad": [REFUSED]}) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=1)
        first = generate(ask("a", "bad", "b"), GREEDY, backend, store, on_error="none")
        second = generate(ask("a", "bad", "b"), GREEDY, backend, store, on_error="none")
    assert [answer.finish_reason for answer in first] == ["stop", "refused", "stop"]
    assert "too long" in first[1].error
    assert [answer.finish_reason for answer in second] == ["stop", "stop", "stop"]
    assert server.asked == {"a": 1, "bad": 2, "b": 1}


def test_an_interrupt_leaves_at_once_and_keeps_what_had_arrived(key, tmp_path):
    def interrupt(progress):
        raise KeyboardInterrupt

    store = AnswerStore(tmp_path / "answers.jsonl")
    with Loopback(delay=0.4) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=2)
        with pytest.raises(KeyboardInterrupt) as stopped:
            generate(ask(*"abcdefgh"), GREEDY, backend, store, on_progress=interrupt)  # comes after a second
        assert 1 <= len(store.answers) < 8
        told = f"stopped at {len(store.answers)} of 8 answers; run the cell again to ask for the rest"
        assert stopped.value._render_traceback_() == [told]  # all that a notebook shows
        assert len(generate(ask(*"abcdefgh"), GREEDY, backend, store)) == 8


# ---- endpoint: limits and budget -------------------------------------------------------------------------------------


def test_a_retry_after_of_hours_ends_the_request(key):
    with Loopback({"q": [(503, {"Retry-After": "7200"}, "{}")]}) as server:
        backend = EndpointBackend(server.base_url, "teacher")
        [answer] = generate(ask("q"), GREEDY, backend, on_error="none")
    assert "503" in answer.error and server.asked["q"] == 1


def test_faults_in_a_third_of_all_attempts_lose_and_invent_nothing(key, tmp_path):
    rng = random.Random(0)
    kinds = [
        (429, SOON, "{}"),
        (500, SOON, "{}"),
        (503, SOON, "x"),
        DROP,
        (200, {}, '{"choices": [{"m'),
        (200, {}, "{}"),
    ]
    questions = [f"q{number}" for number in range(150)]
    faults = {}
    for question in questions:
        while rng.random() < 0.3:
            faults.setdefault(question, []).append(rng.choice(kinds))
    with Loopback(faults) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=32)
        answers = generate(ask(*questions), GREEDY, backend, AnswerStore(tmp_path / "a.jsonl"), on_error="none")
    assert texts(answers) == [f"<think>so</think>{q}!" for q in questions]


def test_a_budget_stops_cleanly_and_a_larger_one_goes_on(key, tmp_path):
    store, questions = AnswerStore(tmp_path / "a.jsonl"), [f"q{number}" for number in range(20)]
    with Loopback(delay=0.01) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=2)
        small = Budget(max_cost=50e-6, prompt_price=1.0, completion_price=1.0)  # ten tokens a reply: five replies
        with pytest.raises(GenerationError, match="not asked: the budget"):
            generate(ask(*questions), GREEDY, backend, store, budget=small)
        assert 5 <= len(store.answers) == server.asked.total() <= 7
        answers = generate(ask(*questions), GREEDY, backend, store, budget=Budget(max_cost=1.0, prompt_price=1.0))
    assert len(answers) == 20 and set(server.asked.values()) == {1}


def test_a_retry_after_of_nothing_is_no_reason_to_hammer(key):
    with Loopback({"q": [(503, {"Retry-After": "0"}, "{}")] * 2}) as server:
        start = time.monotonic()
        [answer] = generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher"))
        assert answer.error is None and time.monotonic() - start > 0.375 + 0.75  # our own pauses


def test_what_is_answered_and_not_yet_stored_is_bounded(key, tmp_path):
    """A slow disk must not let requests run ahead: a kill would lose them and a budget would not hold."""
    store = AnswerStore(tmp_path / "a.jsonl")
    holder = os.open(store.path, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with Loopback() as server, ThreadPoolExecutor(1) as pool:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=4)
        waiting = pool.submit(backend_group, backend, ask(*map(str, range(40))), store)
        time.sleep(0.5)
        assert server.asked.total() <= 4
        fcntl.flock(holder, fcntl.LOCK_UN)
        waiting.result()
    assert len(store.answers) == 40


def backend_group(backend, requests, store) -> None:
    """What `generate` does with a backend, the first look into the store left out: that one would wait, too."""
    jobs = [Job(request, 0, request.id) for request in requests]
    for group in backend.complete(jobs, GREEDY, lambda: False):
        store.put(group)


def test_a_budget_needs_a_server_that_counts(key, tmp_path):
    body = json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]})
    questions = [f"q{number}" for number in range(20)]
    with Loopback({q: [(200, {}, body)] for q in questions}) as server:
        backend = EndpointBackend(server.base_url, "teacher", concurrency=2)
        with pytest.raises(GenerationError, match="the server counts no tokens"):
            generate(ask(*questions), GREEDY, backend, budget=Budget(max_cost=1.0, completion_price=1.0))
        assert server.asked.total() <= 4


def test_a_password_file_and_a_proxy_do_not_reach_a_local_server(key, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Loopback() as server:
        [answer] = generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher"))
    assert answer.error is None


# ---- the command -----------------------------------------------------------------------------------------------------


def run_generate(tmp_path, server, *arguments) -> int:
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    return main(["generate", *files, "--base-url", server.base_url, "--model", "teacher", *arguments])


def write_input(tmp_path, *questions) -> None:
    rows = [{"id": f"id {q}", "messages": [{"role": "user", "content": q}], "more": 1} for q in questions]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def read_output(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_the_command_answers_a_file_in_its_order_and_goes_on(key, tmp_path, capsys):
    write_input(tmp_path, "a", "bad", "b", "a ")
    with Loopback({"bad": [REFUSED]}) as server:
        assert run_generate(tmp_path, server) == 1
        assert "id bad: " in capsys.readouterr().err
        rows = read_output(tmp_path)
        assert [row["id"] for row in rows] == ["id a", "id bad", "id b", "id a "]
        assert "too long" in rows[1]["error"]
        assert run_generate(tmp_path, server) == 0
    rows = read_output(tmp_path)
    assert [row["error"] for row in rows] == [None] * 4
    assert rows[0]["text"] == "<think>so</think>a!" and rows[0]["reasoning"] == "so"
    assert rows[0]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3} and rows[0]["finish_reason"] == "stop"
    assert server.asked == {"1": 2, "a": 1, "bad": 2, "b": 1, "a ": 1}  # "1" is what the check asks


def test_the_command_killed_at_any_moment_asks_for_no_stored_answer_again(key, tmp_path):
    questions = [f"q{number}" for number in range(60)]
    write_input(tmp_path, *questions)
    with Loopback(delay=0.05) as server:
        files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        address = ["--base-url", server.base_url, "--model", "teacher", "--concurrency", "4"]
        command = [sys.executable, "-m", "finr1", "generate", *files, *address]
        for stored in (8, 25):
            process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
            while not (tmp_path / "out.answers.jsonl").exists() or len(read_whole_lines(tmp_path)) < stored:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
            process.wait()
            answered = {row["id"] for row in read_whole_lines(tmp_path)}
            before = dict(server.asked)
            (tmp_path / "out.answers.jsonl").open("a").write('{"key":"torn')
        assert run_generate(tmp_path, server) == 0
        again = {q for q in questions if server.asked[q] > before.get(q, 0)}
        assert not again & {identifier.removeprefix("id ") for identifier in answered}
        assert server.asked.total() <= len(questions) + 2 * 4 + 3  # those under way when we killed, and three checks
    assert [row["id"] for row in read_output(tmp_path)] == [f"id {q}" for q in questions]
    assert [row["text"] for row in read_output(tmp_path)] == [f"<think>so</think>{q}!" for q in questions]


@pytest.mark.parametrize("loading", [True, False])
def test_the_command_is_interrupted_in_one_line(key, tmp_path, loading):
    write_input(tmp_path, *map(str, range(60)))
    with Loopback(delay=0.3) as server:
        files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        address = ["--base-url", server.base_url, "--model", "teacher", "--concurrency", "2"]
        options = ["-X", "importtime"] if loading else []  # tells of each module on stderr
        command = [sys.executable, *options, "-m", "finr1", "generate", *files, *address]
        heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts behind "&" ignores it
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
        if loading:
            next(line for line in process.stderr if "pydantic" in line)
        while not loading and not ((tmp_path / "out.answers.jsonl").exists() and read_whole_lines(tmp_path)):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = [line for line in process.communicate(timeout=60)[1].splitlines() if "import time:" not in line]
    assert process.returncode == 130 and said[-1] == "interrupted; the same command again resumes"
    assert not any("Traceback" in line for line in said)


def read_whole_lines(tmp_path) -> list[dict]:
    lines = (tmp_path / "out.answers.jsonl").read_text().splitlines(True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def test_the_command_stops_at_its_budget(key, tmp_path, capsys):
    write_input(tmp_path, *map(str, range(9)))
    with Loopback(delay=0.02) as server:
        prices = ["--prompt-price", "1", "--completion-price", "1", "--concurrency", "1"]
        assert run_generate(tmp_path, server, *prices, "--max-cost", "25e-6") == 1
        assert "the budget of 2.5e-05 is spent" in capsys.readouterr().err
        assert run_generate(tmp_path, server, *prices, "--max-cost", "1") == 0
    del server.asked["1"]  # the check asks that, too
    assert set(server.asked.values()) == {1} and len(read_output(tmp_path)) == 9


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('{"id": "a", "messages": []}', [], "line 1: messages"),
        ('{"id": "a"}', [], "line 1: messages: Field required"),
        ("{", [], "line 1"),
        ('{"id": "a", "messages": [{}]}\n{"id": "b"}', [], "line 2: messages: Field required"),
        ("\udc80", [], "line 1: row: Invalid JSON"),
        ('{"id": "a", "messages": [{}]}', ["--temperature", "-1"], "temperature"),
        ('{"id": "a", "messages": [{}]}', ["--max-cost", "1"], "max_cost needs"),
        ('{"id": "a", "messages": [{}]}', ["--concurrency", "0"], "concurrency=0"),
        ('{"id": "a", "messages": [{}]}', ["--output", "IN"], "--output is the --input"),
        ('{"id": "a", "messages": [{}]}', ["--output", "OTHER"], "other.answers.jsonl: this line is no stored answer"),
    ],
)
def test_wrong_input_of_the_command_is_named_before_any_request(key, tmp_path, capsys, content, arguments, message):
    (tmp_path / "in.jsonl").write_bytes(content.encode("utf8", "surrogateescape"))
    (tmp_path / "other.answers.jsonl").write_text('{"a": 1}\n')
    arguments = [
        {"IN": str(tmp_path / "in.jsonl"), "OTHER": str(tmp_path / "other.jsonl")}.get(a, a) for a in arguments
    ]
    with Loopback() as server:
        assert run_generate(tmp_path, server, *arguments) == 2
    assert message in capsys.readouterr().err and not server.requests
    assert (tmp_path / "other.answers.jsonl").read_text() == '{"a": 1}\n'


# ---- endpoint: the key -----------------------------------------------------------------------------------------------


def test_the_key_goes_into_the_authorization_header_and_nowhere_else(key, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-planted")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer of-another-provider")
    caplog.set_level(logging.DEBUG)
    echoing = (401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}))
    store = AnswerStore(tmp_path / "answers.jsonl")
    with Loopback({"bad": [echoing]}) as server:
        backend = EndpointBackend(server.base_url, "teacher")
        backend.check()
        generate(ask("q"), GREEDY, backend, store)
        with pytest.raises(GenerationError, match="the key in FINR1_API_KEY was refused") as caught:
            generate(ask("bad"), GREEDY, backend, store)
    for path, headers, body in server.requests:
        assert headers.pop("authorization") == f"Bearer {KEY}"
        assert KEY not in f"{path} {headers} {body}"
        assert "org-planted" not in str(headers)  # the account at OpenAI is nobody else's business
    with Loopback(
        message=lambda question: {"content": f"You sent {KEY}"}, fields=lambda body: {"model": KEY}
    ) as server:
        [answer] = generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher"), store)
    assert (answer.text, answer.model) == ("You sent ***", "***")
    seen = [str(caught.value), str(caught.value.__cause__), str(caught.value.__context__)]
    seen += [repr(backend), str(vars(backend)), backend.fingerprint, store.path.read_text(), caplog.text]
    assert [text for text in seen if KEY in text] == []


def test_a_redirect_does_not_carry_the_key_elsewhere(key):
    with Loopback() as elsewhere, Loopback() as server:
        there = (307, {"Location": f"{elsewhere.base_url}/chat/completions"}, "{}")
        server.faults = {"q": [there], "1": [there]}
        backend = EndpointBackend(server.base_url, "teacher")
        with pytest.raises(GenerationError, match="put the new address into base_url"):
            backend.check()
        [answer] = generate(ask("q"), GREEDY, backend, on_error="none")
    assert "put the new address into base_url" in answer.error and "307" in answer.error
    assert not elsewhere.requests


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({"FINR1_API_KEY": "a", "OPENAI_API_KEY": "b"}, {}, "a"),
        ({"OPENAI_API_KEY": "b"}, {}, "b"),
        ({"FINR1_API_KEY": " a\n"}, {}, "a"),  # as `$(cat file)` may leave it
        ({"MINE": "c", "FINR1_API_KEY": "a"}, {"api_key_env": "MINE"}, "c"),
        ({}, {}, "no-key"),  # a server on this machine may want none
        ({"OPENAI_API_KEY": "b"}, {"api_key_env": "MINE"}, "no-key"),  # one provider's key is not for another
    ],
)
def test_the_key_is_looked_up_in_order(monkeypatch, environment, arguments, expected):
    for name in ("FINR1_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Loopback() as server:
        generate(ask("q"), GREEDY, EndpointBackend(server.base_url, "teacher", **arguments))
    assert server.requests[0][1]["authorization"] == f"Bearer {expected}"


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({}, {}, "set the environment variable FINR1_API_KEY or OPENAI_API_KEY"),
        ({}, {"api_key_env": "MINE"}, "set the environment variable MINE$"),
        ({"FINR1_API_KEY": "two\nlines"}, {}, "the key in FINR1_API_KEY or OPENAI_API_KEY has characters"),
        ({"FINR1_API_KEY": "a"}, {"base_url": "https://user:secret@api.example.com"}, "bare address"),
        ({"FINR1_API_KEY": "a"}, {"base_url": "https://api.example.com?key=secret"}, "bare address"),
        ({"FINR1_API_KEY": "a"}, {"base_url": "api.example.com"}, "bare address"),
        ({"FINR1_API_KEY": "a"}, {"concurrency": 0}, "concurrency=0"),
    ],
)
def test_a_wrong_set_up_stops_before_any_request(monkeypatch, environment, arguments, message):
    for name in ("FINR1_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message) as caught:
        EndpointBackend(**{"base_url": "https://api.example.com/v1", "model": "teacher", **arguments})
    assert "secret" not in str(caught.value)
    assert "two" not in str(caught.value)


# ---- endpoint: check -------------------------------------------------------------------------------------------------


def test_check_names_a_dead_endpoint():
    with Loopback() as server:
        base_url = server.base_url
    start = time.monotonic()
    with pytest.raises(GenerationError, match=f"{base_url}.*no answer"):
        EndpointBackend(base_url, "teacher").check()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((401, {}, f'{{"error": {{"message": "no {KEY}"}}}}'), "the key in FINR1_API_KEY was refused"),
        ((404, {}, '{"error": {"message": "no such model"}}'), "no such model"),
    ],
)
def test_check_names_a_bad_key_and_a_wrong_model(key, fault, message):
    with Loopback({"1": [fault]}) as server:
        backend = EndpointBackend(server.base_url, "teacher")
        with pytest.raises(GenerationError, match=message) as caught:
            backend.check()
        backend.check()  # the server has come round
    assert KEY not in str(caught.value)
    assert json.loads(server.requests[-1][2])["max_tokens"] == 16


# ---- transformers ----------------------------------------------------------------------------------------------------


QUESTIONS = ["What is 2 + 2?", "Hi", "Revenue rose from 120 to 150. What is the growth in percent?", "净利润?", "7?"]
SAMPLED = SamplingParams(temperature=1.0, max_tokens=12, num_samples=2, seed=1)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several fight over so small a model: 100 times slower on a busy machine
    yield make_tiny_model(tmp_path_factory.mktemp("tiny_model"))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("max_tokens, size", [(64, 128), (80, 128), (2048, 16), (4000, 8), (100_000, 1)])
def test_long_answers_are_decoded_in_smaller_batches(tiny_model, monkeypatch, max_tokens, size):
    """The first two are the demo's; 128 answers of 2048 tokens would be 15 GB of keys and values for a 7B model."""
    backend, batches = local(tiny_model, batch_size=None), []
    model, tokenizer, _, ends = backend._loaded
    backend._loaded = model, tokenizer, 200_000, ends
    monkeypatch.setattr(backend, "_decode", lambda batch, _: batches.append(len(batch)) or [[5]] * len(batch))
    jobs = [Job(request, 0, request.id) for request in ask(*map(str, range(150)))]
    assert list(backend.complete(jobs, SamplingParams(max_tokens=max_tokens), lambda: False))
    assert batches[0] == size and sum(batches) == 150


def local(folder: Path, batch_size: int | None = 4) -> TransformersBackend:
    return TransformersBackend(folder, dtype="float32", batch_size=batch_size, device="cpu")


def test_greedy_answers_equal_those_of_one_prompt_at_a_time(tiny_model):
    batched = generate(ask(*QUESTIONS), GREEDY, local(tiny_model))
    single = [generate(ask(question), GREEDY, local(tiny_model))[0] for question in QUESTIONS]
    assert texts(batched) == texts(single)
    assert [answer.id for answer in batched] == [f"id {question}" for question in QUESTIONS]
    assert len(set(texts(batched))) > 1


def test_the_text_ends_at_the_end_token_and_is_counted(tiny_model):
    answers = generate(ask(*QUESTIONS), SamplingParams(temperature=2.0, max_tokens=300), local(tiny_model))
    stopped = [answer for answer in answers if answer.finish_reason == "stop"]
    cut = [answer for answer in answers if answer.finish_reason == "length"]
    assert stopped
    assert all(answer.usage.completion_tokens < 300 and "<|im_" not in answer.text for answer in stopped)
    assert all(answer.usage.completion_tokens == 300 for answer in cut)
    assert answers[2].usage.prompt_tokens > answers[1].usage.prompt_tokens > 0


def test_the_same_seed_gives_the_same_text_and_another_one_does_not(tiny_model):
    first, again = (generate(ask(*QUESTIONS), SAMPLED, local(tiny_model)) for _ in range(2))
    other = generate(ask(*QUESTIONS), SAMPLED.model_copy(update={"seed": 2}), local(tiny_model))
    assert texts(first) == texts(again)
    assert texts(first) != texts(other)
    assert first[0].text != first[1].text  # two samples of one question


def test_sampling_leaves_the_callers_random_state_alone(tiny_model):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generate(ask("Hi"), SAMPLED, local(tiny_model))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_run_that_goes_on_equals_an_unbroken_one(tiny_model, tmp_path, sampling):
    class Broken(TransformersBackend):
        def complete(self, *arguments):
            batches = super().complete(*arguments)
            yield next(batches)
            raise KeyboardInterrupt

    store = AnswerStore(tmp_path / "answers.jsonl")
    with pytest.raises(KeyboardInterrupt):
        generate(ask(*QUESTIONS), sampling, Broken(tiny_model, "float32", batch_size=2, device="cpu"), store)
    assert len(store.answers) == 2  # the first batch, whole
    resumed = generate(ask(*QUESTIONS), sampling, local(tiny_model, batch_size=2), store)
    assert resumed == generate(ask(*QUESTIONS), sampling, local(tiny_model, batch_size=2))


def test_the_folders_own_decoding_settings_are_ignored(tiny_model, tmp_path):
    folder = make_tiny_model(tmp_path / "model")
    settings = {"top_k": 1, "repetition_penalty": 9.0, "max_length": 5, "temperature": 0.1, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    for sampling in (GREEDY, SAMPLED):
        expected = generate(ask(*QUESTIONS), sampling, local(tiny_model))
        assert texts(generate(ask(*QUESTIONS), sampling, local(folder))) == texts(expected)


def test_the_folders_end_tokens_count_beside_the_tokenizers_own(tiny_model, tmp_path):
    """As in Phi and Gemma: one ends a turn, another a text."""
    folder, seen = make_tiny_model(tmp_path / "model"), []
    backend = local(folder)
    decode = backend._decode
    backend._decode = lambda *given: seen.extend(decode(*given)) or seen
    (whole,) = generate(ask("Hi"), GREEDY, backend)
    last = next(token for token in seen[0] if token != seen[0][0])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, last]}))
    (cut,) = generate(ask("Hi"), GREEDY, local(folder))
    assert cut.finish_reason == "stop" and cut.usage.completion_tokens == seen[0].index(last) + 1
    assert whole.finish_reason == "length" and whole.text.startswith(cut.text)


def test_a_prompt_without_room_for_its_answer_is_an_error_and_the_others_are_answered(tiny_model):
    answers = generate(ask("Hi", "1" * 2040), GREEDY, local(tiny_model), on_error="none")
    assert [answer.finish_reason == "error" for answer in answers] == [False, True]
    assert "max_tokens=16 leaves the model room for 2032" in answers[1].error


def test_bfloat16_and_unload_work(tiny_model):
    backend = TransformersBackend(tiny_model, batch_size=2, device="cpu")
    first = generate(ask(*QUESTIONS), GREEDY, backend)
    backend.unload()
    assert texts(generate(ask(*QUESTIONS), GREEDY, backend)) == texts(first)


def test_the_fingerprint_tells_models_apart_by_content(tiny_model, tmp_path):
    same, other = make_tiny_model(tmp_path / "same"), make_tiny_model(tmp_path / "other", seed=1)
    os.utime(same / "model.safetensors", (0, 0))
    assert local(same).fingerprint == local(tiny_model).fingerprint
    assert local(other).fingerprint != local(tiny_model).fingerprint
    assert TransformersBackend(same, dtype="bfloat16").fingerprint != local(same).fingerprint


@pytest.mark.parametrize("path", ["./nowhere", "outputs/no-such-run/04_sft/model", "{empty}"])
def test_a_path_that_is_no_model_folder_is_an_error_at_once(tmp_path, path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        TransformersBackend(path.format(empty=tmp_path))
