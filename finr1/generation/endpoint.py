"""Answers from any server that speaks OpenAI's chat completions: DeepSeek, vLLM, OpenAI, `transformers serve`.

The `openai` package asks. It retries lost connections, time-outs, 408, 409, 429 and 5xx, after the server's Retry-After
(if that is at most two minutes) or after 0.5, 1, 2, 4, 8, 8 ... s; here, a success without an answer in it, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx2

from finr1.generation.answering import Backend, Completion, GenerationError, Groups, Job, Request, SamplingParams, Usage

DEFAULT_KEY_ENV = "FINR1_API_KEY"
_MOST_TOKENS = 10**8  # of one request; a server that counts more lies


@dataclass
class EndpointBackend(Backend):
    """Chat completions of `model` at `base_url`, `concurrency` requests at a time.

    The key comes from the environment variable `api_key_env`; for the default name, OPENAI_API_KEY stands in. Servers
    on this machine need none. It is read when it is used and kept nowhere. Raises `ValueError` for a missing or
    unusable key and an unusable URL. Works in Jupyter: its event loop runs in a thread of its own.
    """

    base_url: str
    model: str
    api_key_env: str = DEFAULT_KEY_ENV
    concurrency: int = 16
    timeout: float = 600.0  # s, for connecting (at most 10) and for each wait for the server
    max_retries: int = 14  # longer than a minute, so that they outlast a limit per minute
    extra: dict[str, Any] = field(default_factory=dict)  # more for each request's body; None removes a field of ours

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password or url.query:
            # Not quoted: it may hold a key.
            raise ValueError("base_url must be a bare address such as https://api.deepseek.com/v1, without a key in it")
        if self.concurrency < 1:
            raise ValueError(f"concurrency={self.concurrency}: need at least 1")
        self._is_local = url.hostname in ("localhost", "127.0.0.1", "::1")
        self._key()
        what = {"endpoint": self.base_url.rstrip("/"), "model": self.model, "extra": self.extra}
        self.fingerprint = json.dumps(what, sort_keys=True)

    def check(self) -> None:
        """Raise `GenerationError` unless the server answers with a token: it is up, takes the key, knows the model."""
        job = Job(Request(id="check", messages=[{"role": "user", "content": "1"}]), sample=0, key="")
        impatient = replace(self, timeout=min(self.timeout, 60.0), max_retries=min(self.max_retries, 2))
        [[answer]] = impatient.complete([job], SamplingParams(max_tokens=1), lambda: False)
        if answer.error:
            raise GenerationError(f"model {self.model!r} at {answer.error}")

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        """Answer `jobs` one by one as the server does, see `Backend`. Sample k is asked with seed + k."""
        from anyio.from_thread import start_blocking_portal

        todo = iter(jobs)
        under_way: set[Future[Completion]] = set()
        # Leaving the block early, by an exception or because the caller closes us, cancels what is under way.
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._client()) as client:
            while True:
                if not stop():
                    for job in islice(todo, self.concurrency - len(under_way)):
                        under_way.add(portal.start_task_soon(self._ask, client, job, sampling))
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                # The caller stores and counts these before it comes back for more: a kill loses no more than
                # `concurrency` answers, and a budget is overshot by no more.
                yield [future.result() for future in done]

    def _client(self) -> Any:  # an AsyncOpenAI
        import openai

        async def refuse_nonsense(response: httpx2.Response) -> None:
            """A success without an answer is an attempt that failed: `openai` tries again."""
            if response.is_success:
                await response.aread()
                try:
                    read_reply(response.content)
                except ValueError:
                    reason = f"the server's reply makes no sense: {response.content[:1000]!r}"
                    raise httpx2.RemoteProtocolError(reason) from None

        client = openai.AsyncOpenAI(
            api_key=self._key(),
            base_url=self.base_url,
            max_retries=self.max_retries,
            timeout=httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            default_headers={"Authorization": f"Bearer {self._key()}"},  # else OPENAI_CUSTOM_HEADERS may hold another
            http_client=openai.DefaultAioHttpClient(
                follow_redirects=False,  # the key is for this address alone
                trust_env=not self._is_local,  # the environment's proxy can't reach this machine's servers
                event_hooks={"response": [refuse_nonsense]},
            ),
        )
        client.organization = client.project = None  # an account at OpenAI is nobody else's business
        return client

    async def _ask(self, client: Any, job: Job, sampling: SamplingParams) -> Completion:
        """The answer, or the reason why there is none."""
        decoding = sampling.model_dump(include={"temperature", "top_p", "max_tokens"})
        body = {"model": self.model, "messages": job.request.messages, **decoding, "seed": sampling.seed + job.sample}
        body = {name: value for name, value in {**body, **self.extra}.items() if value is not None}
        try:
            # Not `chat.completions.create`: it knows no `extra` field, and reads replies more slowly and less strictly.
            response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            return job.completion(**read_reply(response.content))
        except Exception as error:  # one request must not end all others
            return job.failure(self._reason(error))

    def _reason(self, error: Exception) -> str:
        """The one place where an exception becomes words: address, status, what to do. Never the key."""
        status, text = getattr(error, "status_code", None), f"no answer: {str(error.__cause__ or '') or error}"
        if status is not None:  # `error.message` has what OpenAI's servers say, and drops what others do
            header = {"Location": status < 400, "Retry-After": status in (429, 503)}
            told = [f", {name} {error.response.headers.get(name)}" for name, counts in header.items() if counts]
            text = f"HTTP {status}{''.join(told)}: {error.response.text}"
        advice = dict.fromkeys((401, 403), f"the key in {self.api_key_env} was refused")
        advice |= dict.fromkeys((301, 302, 303, 307, 308), "a redirect; put the new address into base_url")
        advice[404] = "no such model, or no such address"
        if status in advice:
            text = f"{advice[status]}: {text}"
        text = text.replace(self._key(), "***")  # servers quote a key that they refuse
        return f"{self.base_url}: {text}"[:500]  # cut last: half a key would not be recognised

    def _key(self) -> str:
        names = [self.api_key_env] + ["OPENAI_API_KEY"] * (self.api_key_env == DEFAULT_KEY_ENV)
        key = next(filter(None, (os.environ.get(name, "").strip() for name in names)), "")
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the key in {' or '.join(names)} has characters that no key has")
        if not (key or self._is_local):
            raise ValueError(f"no API key for {self.base_url}: set the environment variable {' or '.join(names)}")
        return key or "no-key"


def read_reply(content: bytes) -> dict[str, Any]:
    """Text, reasoning, finish reason and usage in a reply's JSON; raises `ValueError` for anything without an answer.

    Some servers say 200 and mean an error (OpenRouter), or break an answer off for lack of capacity (DeepSeek). Empty
    text is an answer if it was cut or filtered, or if its tokens are counted. A count that can't be true is none.
    """
    try:
        reply = json.loads(content)
        choice, usage = reply["choices"][0], reply.get("usage")
        message, finish_reason = choice["message"], choice.get("finish_reason")
        body = message.get("content")
        text = _text(body) or _text(message.get("refusal"))
        # DeepSeek and older vLLM have `reasoning_content`, newer vLLM and OpenRouter `reasoning`, Mistral typed parts.
        apart = message.get("reasoning_content") or message.get("reasoning") or _text(body, "thinking")
        reasoning = _text(apart) if isinstance(apart, str) else ""
        error = reply.get("error") or choice.get("error") or finish_reason in ("error", "insufficient_system_resource")
    except (LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("the reply has no message") from None
    least = int(bool(text or reasoning))  # tokens; whoever counts none for a text, lies
    counts = {name: (usage if isinstance(usage, dict) else {}).get(name) for name in Usage.model_fields}
    counts = {name: n if type(n) is int and least <= n <= _MOST_TOKENS else None for name, n in counts.items()}
    empty = not (text or reasoning or finish_reason in ("length", "content_filter"))
    if error or empty and (body != "" or not counts["completion_tokens"]):
        raise ValueError("the reply means an error, or holds no answer")
    said = {"text": text, "reasoning": reasoning or None, "finish_reason": str(finish_reason or "unknown")}
    return said | {"usage": counts}


def _text(body: Any, kind: str = "") -> str:
    """The text of a message's content: one text, or of its typed parts those of one kind (default: text)."""
    if isinstance(body, list):
        return "".join(_text(part[kind or "text"]) for part in body if part["type"] == (kind or "text"))
    # Half a character (a lone surrogate) could not be stored. A number has no `encode`: that is no text.
    return "" if body is None or kind else body.encode("utf8", "replace").decode("utf8")
