"""How fast is the endpoint client, beside a bare loop over the openai package, distilabel and bespokelabs-curator?

    python benchmarks/endpoint.py [--requests 20000] [--concurrency 256] [--latency 0.2]
        [--distilabel PYTHON] [--curator PYTHON]

A server in a process of its own answers each chat completion after `--latency` seconds. The two other clients run only
where an interpreter with them is named (distilabel 1.5.3 and bespokelabs-curator 0.1.31 don't fit into our versions):
`python -m venv X && X/bin/pip install 'distilabel[openai]==1.5.3' requests`. Every client has to return every answer;
the table is printed with rows per second and the ratio to the bare loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import openai

from finr1.generation import AnswerStore, EndpointBackend, Request, SamplingParams, generate

MESSAGE = {"role": "assistant", "content": "<think>a</think>b"}
REPLY = {
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
} | {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
BODY = json.dumps(REPLY).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Server(asyncio.Protocol):
    """The least that is an HTTP/1.1 server: it reads Content-Length bodies and answers them all the same."""

    def __init__(self, latency: float):
        self.latency, self.buffer = latency, b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        head, end, body = (self.buffer + data).partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if end and len(body) >= int(length[1]):  # clients don't pipeline: this is one request, whole
            self.buffer = b""
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, RESPONSE)
        else:
            self.buffer += data


def serve(latency: float, port) -> None:
    """Serve on a free port, which `port` (a Value) then holds, until the process is ended."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Server(latency), "127.0.0.1", 0, backlog=4096)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


def messages(number: int) -> list[dict]:
    return [{"role": "user", "content": f"What is the interest on ${number} at 5%?"}]


def bare_loop(url: str, count: int, concurrency: int) -> int:
    """The loop that one would write oneself, over the same transport: nothing is kept but the answers' texts."""

    async def run() -> int:
        texts, numbers = {}, iter(range(count))
        transport = openai.DefaultAioHttpClient()
        async with openai.AsyncOpenAI(base_url=url, api_key="x", http_client=transport) as client:

            async def work() -> None:
                for number in numbers:
                    reply = await client.chat.completions.create(model="m", messages=messages(number))
                    texts[number] = reply.choices[0].message.content

            await asyncio.gather(*(work() for _ in range(concurrency)))
        return len(texts)

    return asyncio.run(run())


def ours(url: str, count: int, concurrency: int) -> int:
    """`finr1.generation.generate` with its store on disk."""
    requests = [Request(id=str(number), messages=messages(number)) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        store = AnswerStore(Path(folder) / "answers.jsonl")
        backend = EndpointBackend(url, "m", concurrency=concurrency)
        answers = generate(requests, SamplingParams(), backend, store)
        assert len(store.answers) == count
    return sum(answer.error is None for answer in answers)


DISTILABEL = """
import sys, time, logging
from distilabel.models import OpenAILLM
url, count, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llm = OpenAILLM(base_url=url, api_key="x", model="m"); llm.load()
chats = [[{"role": "user", "content": f"What is the interest on ${n} at 5%?"}] for n in range(count)]
start, done = time.monotonic(), 0
for i in range(0, count, concurrency):  # its unit of work is a batch of inputs
    done += len(llm.generate_outputs(inputs=chats[i : i + concurrency]))
print("RESULT", done, time.monotonic() - start)
"""

CURATOR = """
import os, sys, tempfile, time
os.environ |= {"CURATOR_VIEWER": "0", "CURATOR_DISABLE_CACHE": "1", "OPENAI_API_KEY": "x", "TELEMETRY_ENABLED": "false"}
os.environ["CURATOR_CACHE_DIR"] = tempfile.mkdtemp()
import tiktoken  # it counts tokens for its rate limit, by a file from the web; here it counts words, which costs less
words = type("Words", (), {"encode": lambda self, text, **_: text.split()})()
tiktoken.get_encoding = tiktoken.encoding_for_model = lambda name: words
from bespokelabs import curator
url, count, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llm = curator.LLM(model_name="m", backend="openai", backend_params={"base_url": url, "api_key": "x",
    "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10, "max_concurrent_requests": concurrency})
start = time.monotonic()
result = llm([f"What is the interest on ${n} at 5%?" for n in range(count)])
rows = getattr(result, "dataset", result)
print("RESULT", len(rows), time.monotonic() - start)
"""


def other(python: str, code: str, url: str, count: int, concurrency: int) -> tuple[int, float]:
    """Answers and seconds of a client in another interpreter."""
    command = [python, "-c", code, url, str(count), str(concurrency)]
    environment = os.environ | {"OPENAI_API_KEY": "x"}
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout
    [(_, done, seconds)] = [line.split() for line in out.splitlines() if line.startswith("RESULT")]
    return int(done), float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--distilabel", metavar="PYTHON")
    parser.add_argument("--curator", metavar="PYTHON")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    context.Process(target=serve, args=(options.latency, port), daemon=True).start()
    while not port.value:
        time.sleep(0.05)
    run = (f"http://127.0.0.1:{port.value}/v1", options.requests, options.concurrency)
    ceiling = options.concurrency / options.latency
    print(f"{run[1]} requests, concurrency {run[2]}, latency {options.latency} s: at most {ceiling:.0f}/s")
    results: dict[str, tuple[int, float]] = {}
    for name, client in {"openai, bare loop": bare_loop, "finr1, with its store": ours}.items():
        start = time.monotonic()
        results[name] = client(*run), time.monotonic() - start
    for name, python, code in (("distilabel", options.distilabel, DISTILABEL), ("curator", options.curator, CURATOR)):
        if python:
            results[name] = other(python, code, *run)
    bare = results["openai, bare loop"][1]
    for name, (answers, seconds) in results.items():
        assert answers == options.requests, (name, answers)
        print(f"{name:28}{answers / seconds:8.0f} rows/s{bare / seconds:8.2f} of the bare loop")


if __name__ == "__main__":
    main()
