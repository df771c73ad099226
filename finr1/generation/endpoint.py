"""Answers from any server that speaks OpenAI's chat completions: DeepSeek, vLLM, OpenAI, `transformers serve`.

One request is one attempt after another until it is answered: connection errors, time-outs, 408, 409, 429, 5xx and
replies that make no sense (cut JSON, no choices) are tried again, after the server's Retry-After or after 0.5, 1, 2,
4, 8, 8 ... s less up to a quarter by chance. A 429 also halves how many requests are under way, see `Throttle`.

On aiohttp and not on the `openai` package: in a bare loop, that got through half as many requests a second as aiohttp
(benchmarks/README.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from finr1.generation.answering import GenerationError
from finr1.generation.reply import read_reply
from finr1.generation.request import Completion, Job, Request, SamplingParams
from finr1.generation.throttle import Slots, Throttle

if TYPE_CHECKING:
    from aiohttp import ClientSession

DEFAULT_KEY_ENV = "FINR1_API_KEY"
_NO_KEY = "none"  # what a server without authentication is sent
_CHECK_TIMEOUT = 30.0  # seconds
_OURS = {"model", "messages", "stream", "n"}  # parts of the request that `extra` must not change
_RETRIED = {408, 409, 429}  # and every 5xx
_LONGEST_PAUSE = 120.0  # seconds; a server that asks for a longer one has closed for the day
_RATE_LIMIT_PATIENCE = 900.0  # seconds for which a request puts up with 429s, which are no fault of its own
_GROUP = 512  # answers handed over at once


@dataclass
class EndpointBackend:
    """Chat completions of `model` at `base_url`, `concurrency` requests at a time.

    The key comes from the environment variable `api_key_env`; for the default name, OPENAI_API_KEY stands in. Servers
    on this machine need none. It is read when it is used and kept nowhere. `timeout` (s) is for one attempt, from
    the connection to the last byte. `extra` goes into every request's body as it is; None removes a field that we would
    send, e.g. `{"max_tokens": None, "max_completion_tokens": 4096}`.

    Raises `ValueError` for a missing or unusable key, a URL that is none or holds a secret, and wrong numbers. May be
    used inside a running event loop (Jupyter): its own runs in a thread of its own.
    """

    base_url: str
    model: str
    api_key_env: str = DEFAULT_KEY_ENV
    concurrency: int = 16
    timeout: float = 600.0
    max_retries: int = 6
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

        with start_blocking_portal() as portal:
            problem = portal.call(self._find_problem)
        if problem:
            raise GenerationError(f"endpoint {self.base_url}, model {self.model!r}: {problem}")

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` one by one as the server does, see `Backend`. Sample k is asked with seed + k."""
        from anyio.from_thread import start_blocking_portal

        answers: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        # Leaving the block early, by an exception or because the caller closes us, cancels what is under way.
        with start_blocking_portal() as portal:
            slots = Slots(self.concurrency)
            asking = portal.start_task_soon(self._ask_all, jobs, sampling, stop, answers, slots)
            last = False
            while not last:
                group = [answers.get()]
                while not answers.empty() and len(group) < _GROUP:
                    group.append(answers.get())
                last = group[-1] is None
                if group := [answer for answer in group if answer is not None]:
                    yield group  # the caller stores and counts it before it comes back for more
                    slots.free(len(group))
            asking.result()

    # ---- inside the event loop --------------------------------------------------------------------------------------

    async def _ask_all(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop, answers: queue.SimpleQueue, slots: Slots
    ) -> None:
        """Put the answers to `jobs` into `answers` as they come, then None."""
        waiting, throttle = iter(jobs), Throttle(self.concurrency)

        async def work(session: ClientSession) -> None:
            while True:
                await slots.take()
                job = None if stop() else next(waiting, None)  # shared: each takes the next one that nobody has
                if job is None:
                    slots.give()
                    return
                try:
                    answer = await self._ask(session, throttle, job, sampling)
                except Exception as error:  # one request must not end all others
                    answer = job.failure(self._redact(f"{type(error).__name__}: {error}")[:500])
                answers.put(answer)

        _allow_sockets(self.concurrency)
        try:
            async with self._session(self.timeout) as session, asyncio.TaskGroup() as workers:
                for _ in range(min(self.concurrency, len(jobs))):
                    workers.create_task(work(session))
        finally:
            answers.put(None)

    async def _ask(self, session: ClientSession, throttle: Throttle, job: Job, sampling: SamplingParams) -> Completion:
        """Attempt after attempt, until there is an answer or a reason why there is none."""
        try:
            body = json.dumps(self._body(job, sampling)).encode()
        except (TypeError, ValueError) as error:  # messages that no JSON can hold
            return job.failure(f"{type(error).__name__}: {error}")
        failures, attempts, started = 0, 0, time.monotonic()
        while True:
            async with throttle:
                outcome = await self._attempt(session, job, body)
                throttle.adapt(limited=isinstance(outcome, _Failure) and outcome.status == 429)
            if isinstance(outcome, Completion):
                return outcome
            waited = time.monotonic() - started
            is_limit = outcome.status == 429 and waited < _RATE_LIMIT_PATIENCE
            failures += not is_limit
            if not outcome.passing or failures > self.max_retries or (outcome.pause or 0) > _LONGEST_PAUSE:
                return job.failure(self._redact(outcome.text)[:500])
            # A Retry-After of 0, or a date in the past, is no advice: thousands of attempts would follow.
            attempts += 1
            own = min(8.0, 0.5 * 2 ** (attempts - 1)) * random.uniform(0.75, 1.0)
            await asyncio.sleep(outcome.pause * random.uniform(1.0, 1.1) if outcome.pause else own)

    async def _attempt(self, session: ClientSession, job: Job, body: bytes) -> Completion | _Failure:
        import aiohttp

        try:
            async with session.post(self._url("chat/completions"), data=body, allow_redirects=False) as response:
                content = await response.read()
        except TimeoutError:
            return _Failure("no answer before the time-out")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # the last: a host that is no name
            return _Failure(f"no connection to {self.base_url}: {error or type(error).__name__}")
        if response.status != 200:
            return self._refusal(response.status, response.headers, content)
        try:
            return read_reply(job, content)
        except ValueError:  # pydantic's error is one
            return _Failure(f"the server's reply makes no sense: {content[:200]!r}", status=200)

    def _refusal(self, status: int, headers: Any, content: bytes) -> _Failure:
        """A status other than 200, with what the server says about it."""
        text = f"Error code: {status} - {content[:400].decode('utf8', 'replace')}"
        if status in (401, 403):
            text = f"the key in {self.api_key_env} was refused: {text}"
        passing = status in _RETRIED or status >= 500
        return _Failure(text, status, passing, _retry_after(headers))

    async def _find_problem(self) -> str | None:
        import aiohttp

        async with self._session(min(self.timeout, _CHECK_TIMEOUT)) as session:
            served: set[str] = set()
            try:
                async with session.get(self._url("models"), allow_redirects=False) as response:
                    content = await response.read()
                    if response.status in (401, 403):
                        return self._redact(self._refusal(response.status, response.headers, content).text)
                    served = {model["id"] for model in json.loads(content)["data"]}
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                return self._redact(f"no connection to {self.base_url}: {error or 'no answer before the time-out'}")
            except (ValueError, LookupError, TypeError):
                pass  # no such route, or a list of its own kind: one token decides
            if self.model in served:
                return None
            probe = Job(Request(id="check", messages=[{"role": "user", "content": "1"}]), sample=0, key="")
            return (await self._ask(session, Throttle(1), probe, SamplingParams(max_tokens=1))).error

    def _session(self, timeout: float) -> ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key()}", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=timeout, connect=None, sock_connect=min(timeout, 10.0)),
            connector=aiohttp.TCPConnector(limit=0),  # `Throttle` is the limit
            proxy=self._proxy(),
        )

    def _proxy(self) -> str | None:
        """The environment's proxy for the server; none for this machine's own, which it can't reach.

        aiohttp's `trust_env` would do it, but then a password in ~/.netrc clashes with the key.
        """
        url = urlsplit(self.base_url)
        return None if self._is_local() or proxy_bypass(url.hostname) else getproxies().get(url.scheme)

    def _url(self, route: str) -> str:
        return f"{self.base_url.rstrip('/')}/{route}"

    def _body(self, job: Job, sampling: SamplingParams) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": job.request.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed + job.sample,
        }
        return {name: value for name, value in {**body, **self.extra}.items() if value is not None}

    # ---- the key ----------------------------------------------------------------------------------------------------

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

    def _redact(self, text: str) -> str:
        """`text` without the key: servers quote it when they refuse it."""
        key = self._key()
        return text if key == _NO_KEY else text.replace(key, "***")


@dataclass(frozen=True)
class _Failure:
    """An attempt without an answer."""

    text: str
    status: int | None = None
    passing: bool = True  # worth another attempt
    pause: float | None = None  # seconds that the server asks for


def _allow_sockets(count: int) -> None:
    """Raise the soft limit of open files where `count` connections would not fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _retry_after(headers: Any) -> float | None:
    """Seconds of `retry-after-ms` or `Retry-After` (seconds or a date); None without one that can be read."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("Retry-After", "")
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()) if value else None
    except (ValueError, TypeError, OverflowError):
        return None
