"""An OpenAI-compatible server on loopback that misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DROP, HANG = object(), object()  # faults besides a (status, headers, body) to send


class Loopback:
    """`with Loopback() as server:` answers POST /v1/chat/completions at `server.base_url`.

    `faults[question]` lists what happens to the first attempts at that question: DROP, HANG (1 s) or (status, headers,
    body). After
    them comes `message(question)`, `delay` seconds later.
    """

    def __init__(
        self, faults=None, delay=0.0, message=lambda question: {"content": f"<think>so</think>{question}!"}, **more
    ):
        # more: `refuse(body)` returns a status and a text for bodies that the server does not take, `fields(body)` more
        # fields of the reply and `headers` its headers, `stream` an answer by events, `models` what GET /models lists.
        self.more = more
        self.faults = {question: list(faults) for question, faults in (faults or {}).items()}
        self.delay, self.message = delay, message
        self.asked: Counter[str] = Counter()  # question -> attempts
        self.requests: list[tuple[str, dict, bytes]] = []  # path, headers (lower case), body
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def __enter__(self) -> Loopback:
        handler = type("Handler", (_Handler,), {"loopback": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def reply(self, question: str, body: dict):
        """What to send back for the next attempt at `question`."""
        with self.lock:
            self.asked[question] += 1
            faults = self.faults.get(question)
            if faults:
                return faults.pop(0)
        if refused := self.more.get("refuse", lambda body: None)(body):
            return refused[0], {}, json.dumps({"error": {"message": refused[1]}})
        time.sleep(self.delay)
        if body.get("stream") or self.more.get("stream"):
            return 200, {"Content-Type": "text/event-stream"}, events(self.message(question))
        choice = {"index": 0, "message": {"role": "assistant", **self.message(question)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        reply = {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}
        reply |= self.more.get("fields", lambda body: {})(body)
        return 200, self.more.get("headers", {}), json.dumps(reply)


def events(message: dict) -> str:
    """`message` as server-sent events, a few characters each, the usage last."""
    deltas = [{key: text[at : at + 3]} for key, text in message.items() for at in range(0, len(text), 3)]
    chunks = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in [{"role": "assistant"}, *deltas]]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    chunks += [{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}]
    return ": hello\n\n" + "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else 40 ms for each answer on a kept connection

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.loopback
        self.record(body)
        with server.lock:
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        asked = json.loads(body)
        reply = server.reply(asked["messages"][-1]["content"], asked)
        with server.lock:
            server.in_flight -= 1
        if reply is HANG:
            time.sleep(1.0)
        if reply in (DROP, HANG):
            self.close_connection = True
        else:
            self.send(*reply)

    def do_GET(self):
        models = self.loopback.more.get("models")
        listed = {"object": "list", "data": models}
        self.send(*((404, {}, "{}") if models is None else (200, {}, json.dumps(listed))))

    def record(self, body):
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.loopback.requests.append((self.path, headers, body))

    def send(self, status, headers, body):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass
