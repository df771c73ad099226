"""Answers from any server that speaks OpenAI's chat completions: DeepSeek, vLLM, OpenAI, `transformers serve`.

The `openai` package asks, over its aiohttp transport. It retries lost connections, time-outs, 408, 409, 429 and 5xx,
after the server's Retry-After (if that is at most two minutes) or after 0.5, 1, 2, 4, 8, 8 ... s. Ours is the rest: a
success without an answer in it is retried, too, and a bounded number of answers is not yet stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from finr1.generation.answering import GenerationError
from finr1.generation.store import Completion, Job, Request, SamplingParams, Usage

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import AsyncOpenAI

DEFAULT_KEY_ENV = "FINR1_API_KEY"
_NO_KEY = "none"  # sent to a server without authentication
_CHECK_TIMEOUT = 30.0  # seconds
_OURS = {"model", "messages", "stream", "n"}  # parts of the request that `extra` must not change
_BROKEN_OFF = {"error", "insufficient_system_resource"}  # finish reasons of an answer that the server gave up


@dataclass
class EndpointBackend:
    """Chat completions of `model` at `base_url`, `concurrency` requests at a time.

    The key comes from the environment variable `api_key_env`; for the default name, OPENAI_API_KEY stands in. Servers
    on this machine need none. It is read when it is used and kept nowhere. `timeout` (s) is for one attempt: for
    connecting, for the first byte, and for the reply from there on. 14 retries last longer than a minute, and so
    outlast a rate limit per minute. `extra` goes into every request's body as it is; None removes a field that
    we would send, e.g. `{"max_tokens": None, "max_completion_tokens": 4096}`.

    Raises `ValueError` for a missing or unusable key, a URL that is none or holds a secret, and wrong numbers. May be
    used inside a running event loop (Jupyter): its own runs in a thread of its own.
    """

    base_url: str
    model: str
    api_key_env: str = DEFAULT_KEY_ENV
    concurrency: int = 16
    timeout: float = 600.0
    max_retries: int = 14
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.username or url.password or url.query:
            raise ValueError(f"base_url must be a bare address; put the key into {self.api_key_env}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url={self.base_url!r} is no address such as https://api.deepseek.com/v1")
        if self.concurrency < 1 or self.max_retries < 0 or self.timeout <= 0:
            numbers = f"concurrency={self.concurrency}, max_retries={self.max_retries}, timeout={self.timeout}"
            raise ValueError(f"{numbers}: need at least 1, at least 0, more than 0")
        if clash := _OURS & self.extra.keys():
            raise ValueError(f"extra must not set {sorted(clash)}")
        self._key()

    @property
    def fingerprint(self) -> str:
        what = {"endpoint": self.base_url.rstrip("/"), "model": self.model, "extra": self.extra}
        return json.dumps(what, sort_keys=True)

    def unload(self) -> None:
        """Nothing to free: the model is elsewhere."""

    def check(self) -> None:
        """Raise `GenerationError` unless the server answers, takes the key and knows the model.

        Asks for the list of models; where that does not name the model, for one token.
        """
        from anyio.from_thread import start_blocking_portal

        async def find_problem() -> str | None:
            import openai
            from httpx2 import Response

            async with self._client(min(self.timeout, _CHECK_TIMEOUT)) as client:
                try:
                    reply = await client.get("/models", cast_to=Response, options={"max_retries": 1})
                    if self.model in {model["id"] for model in reply.json()["data"]}:
                        return None
                except (openai.AuthenticationError, openai.PermissionDeniedError, openai.APIConnectionError) as error:
                    return self._reason(error)
                except (openai.APIStatusError, ValueError, LookupError, TypeError):
                    pass  # no such route, or a list of its own kind: one token decides
                probe = Job(Request(id="check", messages=[{"role": "user", "content": "1"}]), sample=0, key="")
                return (await self._ask(client, probe, SamplingParams(max_tokens=1))).error

        with start_blocking_portal() as portal:
            problem = portal.call(find_problem)
        if problem:
            raise GenerationError(f"model {self.model!r} at {problem}")

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` one by one as the server does, see `Backend`. Sample k is asked with seed + k."""
        from anyio.from_thread import start_blocking_portal

        answers: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        # A request holds its place until its answer is stored: so much a kill may lose, and a budget overshoot.
        places = asyncio.Semaphore(self.concurrency)

        async def ask(client: AsyncOpenAI, job: Job) -> None:
            answers.put(await self._ask(client, job, sampling))

        async def ask_all() -> None:
            try:
                async with self._client(self.timeout) as client, asyncio.TaskGroup() as under_way:
                    for job in jobs:
                        await places.acquire()
                        if stop():
                            break
                        under_way.create_task(ask(client, job))
            finally:
                answers.put(None)

        def free_places(count: int) -> None:
            for _ in range(count):
                places.release()

        _allow_sockets(self.concurrency + 256)
        # Leaving the block early, by an exception or because the caller closes us, cancels what is under way.
        with start_blocking_portal() as portal:
            asking, last = portal.start_task_soon(ask_all), False
            while not last:
                group = [answers.get()]
                while not answers.empty():
                    group.append(answers.get())
                last = group[-1] is None
                if group := [answer for answer in group if answer is not None]:
                    yield group  # the caller stores and counts it before it comes back for more
                    portal.call(free_places, len(group))
            asking.result()

    def _client(self, timeout: float) -> AsyncOpenAI:
        import httpx2
        import openai

        async def refuse_nonsense(response: Response) -> None:
            """A reply without an answer is an attempt that failed: `openai` tries again."""
            if response.request.method == "POST" and response.is_success:
                try:
                    async with asyncio.timeout(timeout):
                        await response.aread()
                    read_reply(response.content)
                except TimeoutError:
                    raise httpx2.ReadTimeout("no answer before the time-out") from None
                except ValueError:  # pydantic's error is one
                    reason = f"the server's reply makes no sense: {response.content[:1000]!r}"
                    raise httpx2.RemoteProtocolError(reason) from None

        client = openai.AsyncOpenAI(
            api_key=self._key(),
            base_url=self.base_url,
            max_retries=self.max_retries,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
            default_headers={"Authorization": f"Bearer {self._key()}"},  # else OPENAI_CUSTOM_HEADERS may hold another
            http_client=openai.DefaultAioHttpClient(
                limits=httpx2.Limits(max_connections=self.concurrency),
                follow_redirects=False,  # the key is for this address alone
                trust_env=not self._is_local(),  # the environment's proxy can't reach this machine's servers
                event_hooks={"response": [refuse_nonsense]},
            ),
        )
        client.organization = client.project = None  # an account at OpenAI is nobody else's business
        return client

    async def _ask(self, client: AsyncOpenAI, job: Job, sampling: SamplingParams) -> Completion:
        """The answer, or the reason why there is none."""
        from httpx2 import Response

        body = {
            "model": self.model,
            "messages": job.request.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed + job.sample,
        }
        body = {name: value for name, value in {**body, **self.extra}.items() if value is not None}
        try:
            # Not `chat.completions.create`: it knows no `extra` field, and reads replies more slowly and less strictly.
            response = await client.post("/chat/completions", body=body, cast_to=Response)
            return job.completion(**read_reply(response.content))
        except Exception as error:  # one request must not end all others
            return job.failure(self._reason(error))

    def _reason(self, error: Exception) -> str:
        """The one place where an exception becomes words: address, status, what to do. Never the key."""
        import httpx2
        import openai

        text = f"{type(error).__name__}: {error}"
        if isinstance(error, openai.APIStatusError):
            status = error.status_code  # `error.message` has what OpenAI's servers say, and drops what others do
            text = f"HTTP {status}: {error.response.text}"
            if status in (401, 403):
                text = f"the key in {self.api_key_env} was refused: {text}"
            elif status == 404:
                text = f"no such model, or no such address: {text}"
            elif status < 400:
                text = f"a redirect, which might carry the key elsewhere; put the new address into base_url: {text}"
        elif isinstance(error, openai.APIConnectionError):
            cause = error.__cause__
            text = f"no connection: {cause or error}"
            if isinstance(cause, httpx2.ReadTimeout):
                text = "no answer before the time-out"
            elif isinstance(cause, httpx2.RemoteProtocolError):
                text = str(cause)
        text, key = f"{self.base_url}: {text}", self._key()
        if key != _NO_KEY:
            text = text.replace(key, "***")  # servers quote a key that they refuse
        return text[:500]  # cut last: half a key would not be recognised

    def _is_local(self) -> bool:
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")

    def _key(self) -> str:
        names = [self.api_key_env] + ["OPENAI_API_KEY"] * (self.api_key_env == DEFAULT_KEY_ENV)
        for name in names:
            key = os.environ.get(name, "").strip()
            if key and not (key.isascii() and key.isprintable()):
                raise ValueError(f"the key in {name} has characters that no key has")
            if key:
                return key
        if self._is_local():
            return _NO_KEY
        raise ValueError(
            f"no API key for {self.base_url}: set the environment variable {' or '.join(names)} "
            f"({self.api_key_env}={_NO_KEY} for a server that wants no key)"
        )


def _allow_sockets(wanted: int) -> None:
    """Raise the soft limit of open files to `wanted`, as far as the system lets us: a connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None  # DeepSeek, older vLLM
    reasoning: str | None = None  # newer vLLM, OpenRouter


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    error: Any = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None
    error: Any = None


def read_reply(content: bytes) -> dict[str, Any]:
    """Text, reasoning, finish reason and usage in a reply's JSON; raises `ValueError` for anything without an answer.

    Some servers say 200 and mean an error (OpenRouter), or break an answer off for lack of capacity (DeepSeek).
    """
    reply = _Reply.model_validate_json(content)
    choice, message, usage = reply.choices[0], reply.choices[0].message, reply.usage or Usage()
    reasoning = message.reasoning_content or message.reasoning
    if reply.error or choice.error or choice.finish_reason in _BROKEN_OFF:
        raise ValueError("the server means an error")
    if not (message.content or reasoning or choice.finish_reason):
        raise ValueError("the reply holds no answer")
    return {
        "text": message.content or "",
        "reasoning": reasoning,
        "finish_reason": choice.finish_reason or "unknown",
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
