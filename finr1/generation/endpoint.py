"""Answers from any server that speaks OpenAI's chat completions: DeepSeek, vLLM, OpenAI, `transformers serve`.

The `openai` package asks. It retries lost connections, time-outs, 408, 409, 429 and 5xx, after the server's Retry-After
(up to two minutes) or after 0.5, 1, 2, 4, 8, 8 ... s; so it does a success without an answer (`docs/endpoints.md`).
"""

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx2

from finr1.generation.answering import Backend, Completion, GenerationError, Groups, Job, Request, SamplingParams
from finr1.grading.extraction import after_thought
from finr1.paths import data_beside

DEFAULT_KEY_ENV = "FINR1_API_KEY"
_WORDS = data_beside(__file__, "endpoint.yaml")
_MOST_TOKENS = 10**7  # of one request; a server that counts more lies
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout)


@dataclass
class EndpointBackend(Backend):
    """Chat completions of `model` at `base_url`, `concurrency` requests at a time.

    Addresses with commas between them are replicas: they share the requests, and one that is gone is left out. Stored
    answers belong to the first. The key comes from the environment variable `api_key_env` (for the default name,
    OPENAI_API_KEY stands in) and is kept nowhere; servers on this machine need none. `ValueError`: no key or a bad URL.
    """

    base_url: str
    model: str
    api_key_env: str = DEFAULT_KEY_ENV
    concurrency: int = 16
    timeout: float = 600.0  # s, for connecting (at most 10) and for each wait for the server
    max_retries: int = 14  # longer than a minute, so that they outlast a limit per minute
    extra: Mapping[str, Any] | str | None = None  # more for each request's body, see `read_extra`
    only_model: bool = False  # a reply from another model is a failure; else it is noted
    notes: dict[str, str] = field(default_factory=dict)  # what is not as asked, each told once as a warning
    changes: dict[str, Any] = field(default_factory=dict)  # an extra, too: what the server was found to want
    gone: bool = False  # whether the last request could not reach it; the next ones then wait for less long

    def __post_init__(self) -> None:
        self.urls = addresses(self.base_url, "base_url ")
        if self.concurrency < 1:
            raise ValueError(f"concurrency={self.concurrency}: need at least 1")
        self._is_local = {urlsplit(url).hostname for url in self.urls} <= {"localhost", "127.0.0.1", "::1"}
        self._key()
        self.extra = read_extra(self.extra, self._key())
        what = {"endpoint": self.urls[0], "model": self.model, "extra": self.extra}
        self.fingerprint = json.dumps(what, sort_keys=True)

    def check(self) -> None:
        """Raise `GenerationError` unless the server is up, takes the key and knows the model."""
        job = Job(Request(id="check", messages=[{"role": "user", "content": "1"}]), sample=0, key="")
        patience = {"timeout": min(self.timeout, 60.0), "max_retries": min(self.max_retries, 2)}
        for impatient in [replace(self, base_url=url, **patience) for url in self.urls]:
            # Few tokens, at the one temperature that all servers take; that they hold no answer yet is no fault.
            [[answer]] = impatient.complete([job], SamplingParams(temperature=1.0, max_tokens=16), lambda: False)
            if answer.failed:
                raise GenerationError(f"model {self.model!r} at {answer.error}")

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        """Answer `jobs` one by one as the server does, see `Backend`. Sample k is asked with seed + k."""
        from anyio.from_thread import start_blocking_portal  # Jupyter has an event loop of its own in this thread

        todo = iter(jobs)
        under_way: set[Future[Completion]] = set()
        # Leaving the block early, by an exception or because the caller closes us, cancels what is under way.
        with start_blocking_portal() as portal, ExitStack() as stack:
            clients = [(url, portal.wrap_async_context_manager(self._client(url))) for url in self.urls]
            busy = Counter({(url, stack.enter_context(client)): 0 for url, client in clients})  # requests under way
            while True:
                more = [] if stop() else islice(todo, self.concurrency - len(under_way))
                under_way |= {portal.start_task_soon(self._ask, busy, job, sampling) for job in more}
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                # The caller stores and counts these first: a kill or a budget costs `concurrency` answers at most.
                yield [future.result() for future in done]

    def _client(self, url: str) -> Any:  # an AsyncOpenAI
        import openai

        async def read(response: httpx2.Response) -> None:
            """A success without an answer counts as a failed attempt, so that `openai` tries again."""
            if response.is_success:
                content = await response.aread()
                if len(key := self._key().encode()) > 7:  # a server may quote it
                    content = content.replace(key, b"***")
                try:
                    response.extensions["reply"] = read_reply(content, response.charset_encoding)
                except ValueError:
                    if all(re.search(form, response.text, re.I | re.S) for form in _WORDS["refused_by_success"]):
                        response.status_code = 400  # a refusal that came as a success: `refusal` reads it
                        return
                    raise httpx2.RemoteProtocolError(f"the server's reply makes no sense: {content[:1000]!r}") from None

        client = openai.AsyncOpenAI(
            api_key=self._key(),
            base_url=url,
            max_retries=self.max_retries,
            timeout=httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            default_headers={"Authorization": f"Bearer {self._key()}"},  # else OPENAI_CUSTOM_HEADERS may hold another
            http_client=openai.DefaultAioHttpClient(
                follow_redirects=False,  # no other address may see the key
                trust_env=not self._is_local,  # the environment's proxy can't reach this machine's servers
                event_hooks={"response": [read]},
            ),
        )
        client.organization = client.project = None  # an account at OpenAI is nobody else's business
        return client

    async def _ask(self, busy: Counter[tuple[str, Any]], job: Job, sampling: SamplingParams) -> Completion:
        """The answer of the least busy replica, or the reason for its absence; a replica that is gone is taken out."""
        url, client = replica = min(busy, key=busy.get)
        busy[replica] += 1
        alone = len(busy) == 1
        patient = alone and not self.gone  # else another is asked, or all would wait in vain, one after the other
        client.max_retries = self.max_retries if patient else min(2, self.max_retries)
        try:
            answer = await self._try(client, job, sampling, 0)
            if answer.finish_reason in _WORDS["no_answer"]:  # once more, with another seed, or it may say the same
                first, answer = answer, await self._try(client, job, sampling, 2**20)
                paid = {name: n + (getattr(first.usage, name) or 0) for name, n in answer.usage if n is not None}
                answer.usage = answer.usage.model_copy(update=paid)
            self.gone = False
            return answer
        except Exception as error:  # one request must not end all others
            gone, status = isinstance(error.__cause__, _UNREACHABLE), getattr(error, "status_code", 0)
            refused = status in (400, 413, 422)
            if alone or refused:  # others are asked where one fails, but not what each would refuse
                self.gone = gone
                refused = refused or status == 403 and re.search(_WORDS["moderated"], str(error), re.I)
                known = {"finish_reason": "refused" if refused else "error"}
                known["isolated"] = status == 500 or isinstance(error.__cause__, httpx2.RemoteProtocolError)
                return job.failure(self._reason(error, url)).model_copy(update=known)
            if not gone:  # it is busy: another one is asked, and it stays
                return await self._ask(Counter({r: n for r, n in busy.items() if r != replica}), job, sampling)
            if len(busy) > 1 and busy.pop(replica, None) is not None:
                self._note(url, f"{url} is gone and is left out; requests go to {len(busy)} other")
        finally:
            if replica in busy:
                busy[replica] -= 1
        return await self._ask(busy, job, sampling)

    async def _try(self, client: Any, job: Job, sampling: SamplingParams, seed: int) -> Completion:
        changes, refused = dict(self.changes), None
        while True:
            body = self._body(job, sampling, changes, seed)
            try:  # not `chat.completions.create`: it reads replies more slowly and less strictly
                self.last = response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
                break
            except Exception as error:
                refused = refused or error
                if not (change := refusal(error, body, self.extra)):
                    raise refused from refused.__cause__
                changes |= change
        for name, value in changes.items():  # only now, after they have helped
            self._note(name, f"the server asks for it, so {name} is {'left out' if value is None else 'sent'}")
        self.changes |= changes
        answer = job.completion(**response.extensions["reply"])
        self._compare(body, answer)
        if answer.model and not same_model(self.model, answer.model):
            told = f"asked for the model {self.model}, the server's reply is from {answer.model}"
            self._note(answer.model, told)
            if self.only_model:
                return job.failure(f"{self.base_url}: {told}")
        if said := _WORDS["no_answer"].get(answer.finish_reason):
            answer.error = self._clean(f"{self.base_url}: {said}, twice: {response.content[:300]!r}")
        return answer

    def _body(self, job: Job, sampling: SamplingParams, changes: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The request: our fields, changed as the server wants, and then as the user's `extra` says."""
        ours = sampling.model_dump(include={"temperature", "top_p", "max_tokens"})
        ours["seed"] = sampling.seed + job.sample + seed
        wanted = {name: sampling.max_tokens if name == "max_completion_tokens" else n for name, n in changes.items()}
        body = {"model": self.model, "messages": job.request.messages, **ours, **wanted, **self.extra}
        if body.get("stream"):  # else many servers count nothing
            body.setdefault("stream_options", {"include_usage": True})
        return {name: value for name, value in body.items() if value is not None}

    def _compare(self, body: Mapping[str, Any], answer: Completion) -> None:
        """Note a server that reads or writes less than it is asked to, as Ollama does with a small `num_ctx`."""
        limit, (_, read), (_, written) = body.get("max_tokens") or body.get("max_completion_tokens"), *answer.usage
        if answer.finish_reason == "length" and isinstance(limit, int) and written and written < limit:
            told = f"an answer was cut after {written} of {limit} allowed tokens: make the server's window"
            self._note("window", f"{told} larger (Ollama: num_ctx); it holds {written + (read or 0)}, prompt included")
        asked = sum(len(m["content"].encode()) for m in body["messages"] if isinstance(m.get("content"), str))
        if read and asked > max(4000, 8 * read):
            self._note("prompt", f"a prompt of {asked} bytes was counted as {read} tokens: the server cuts prompts")

    def _note(self, about: str, text: str) -> None:
        if about not in self.notes:
            self.notes[about] = self._clean(f"{self.model} at {self.base_url}: {text}")
            warnings.warn(self.notes[about], stacklevel=2)

    def _reason(self, error: Exception, url: str = "") -> str:
        """The message for an exception, made here only: address, status and advice. Never the key."""
        text = f"no answer: {str(error.__cause__ or '') or error}"
        if status := getattr(error, "status_code", None):  # `error.message` drops what servers say besides OpenAI's
            headers = [(name, error.response.headers.get(name)) for name in ("Location", "Retry-After")]
            told = "".join(f", {name} {value}" for name, value in headers if value)
            advice = f"{_WORDS['advice'][status]}: " if status in _WORDS["advice"] else ""
            text = f"{advice.format(key=self.api_key_env)}HTTP {status}{told}: {error.response.text}"
        return self._clean(f"{url or self.base_url}: {text}")

    def _clean(self, text: str) -> str:
        # Servers quote a key that they refuse. Cut last: half a key would not be recognised.
        return text.replace(self._key(), "***")[:500]

    def _key(self) -> str:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):  # it may be the key itself: not quoted
            raise ValueError("the key comes from an environment variable, and this is no name of one")
        names = [self.api_key_env] + ["OPENAI_API_KEY"] * (self.api_key_env == DEFAULT_KEY_ENV)
        key = next(filter(None, (os.environ.get(name, "").strip() for name in names)), "")
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the key in {' or '.join(names)} has characters that no key has")
        if not (key or self._is_local):
            raise ValueError(f"no API key for {self.base_url}: set the environment variable {' or '.join(names)}")
        return key or "no-key"


def addresses(text: str, name: str = "") -> list[str]:
    """The bare URLs in `text`, with commas between; `ValueError`, which does not quote it, where one may hold a key."""
    text = re.sub(", +", ",", text)
    with suppress(ValueError):  # a port that is none
        urls = [urlsplit(url) for url in text.split(",")]
        right = all(u.scheme in ("http", "https") and u.port != 0 and re.match(r"\w|:", u.hostname or "") for u in urls)
        right &= not any(re.search(_WORDS["key_in_path"], url.path) for url in urls)
        if right and not re.search(_WORDS["key"], text) and not re.search(r"[@?#;&=%\\]|[^!-~]", text):
            return [url.rstrip("/") for url in text.split(",")]
    raise ValueError(f"{name}should hold a bare address such as https://api.deepseek.com/v1, without a key in it")


def read_extra(extra: Mapping[str, Any] | str | None, key: str = "") -> dict[str, Any]:
    """More for each request's body, a mapping or its JSON; null removes a field. `ValueError` where it holds a key."""
    try:
        extra = dict((json.loads(extra or "{}") if isinstance(extra, str) else extra) or {})
        text = json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError('should be a JSON object such as {"max_tokens": null, "seed": 1}') from None
    keys = [key, *(value.strip() for name, value in os.environ.items() if re.match("(FINR1|OPENAI)_API_KEY", name))]
    found = re.search(_WORDS["secret"], text, re.I) or re.search(_WORDS["key"], text)
    if found or any(len(key) > 7 and key in text for key in keys):  # not quoted
        raise ValueError("holds a key, which would be stored with every answer: keys come from the environment alone")
    fixed = {"model", "messages"} & extra.keys() | {name for name in ("n",) if extra.get(name, 1) != 1}
    if fixed:  # of several answers one would be read, and all be paid for
        raise ValueError(f"{min(fixed)} belongs to the request itself, so extra cannot change it")
    return extra


def refusal(error: Any, body: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What to change in `body` (an `extra`) after a refusal: a field that it names, if not of `chosen`; or a stream."""
    text = error.response.text if getattr(error, "status_code", 0) in _WORDS["refused_by"] else ""
    text = re.sub(rf"(?<!\w){re.escape(str(body.get('model')))}(?!\w)", "", text)  # doubao-seed-1.6 names no field
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)  # Chinese, as JSON may spell it
    text = re.sub(r"(?<=[a-z])([-_]?)(?=[A-Z])|(?<=max|top)-", "_", text).lower()  # maxTokens, top-p, Temperature
    says = {what: re.search(form, text, re.I) for what, form in _WORDS["refusal"].items()}
    ours = (body.keys() & _WORDS["ours"]) - chosen.keys()
    named = [name for name in re.findall("[a-z_]+", text) if name in ours]
    if named:  # of temperature and top_p, which may not go together, top_p
        name = "top_p" if {"top_p", "temperature"} <= {*named} else named[0]
        limit = "max" in name and "max_completion_tokens" not in text  # a lower one may do: leaving it out would cost
        costs = "max" in name or not body[name]  # without it the answer may be endless, or no longer greedy
        is_field = not (says["value"] or costs) or (says["field"] and not (limit and says["value"]))
        is_field = is_field or says["choice"] and "max" not in name
        if is_field or name == "top_p" and body[name] == 1:
            renamed = name == "max_tokens" and "max_completion_tokens" in text
            return {name: None} | ({"max_completion_tokens": body[name]} if renamed else {})
    return {"stream": True} if says["stream"] and "stream" not in body else {}


def same_model(asked: str, answered: str) -> bool:
    """Whether two names mean one model: `org/` before it, letter case, a version or date behind it do not count."""
    names = (re.split(r"[/\\]", name.rstrip("/"))[-1].lower() for name in (asked, answered))
    short, long = sorted((re.sub("[-_:](latest|stable|free)$", "", name) for name in names), key=len)
    return bool(re.fullmatch(f"{re.escape(short)}({_WORDS['same_model']})?", long))


def whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can spell and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_reply(content: bytes, charset: str | None = None) -> dict[str, Any]:
    """Text, reasoning, finish reason, usage and model of a reply; raises `ValueError` for anything without an answer.

    A reply is JSON or a stream of it (SSE). An empty one's finish reason is "empty", that of a thought alone "thought",
    and that of an answer which a filter has cut "filtered".
    """
    own = charset if charset and charset.lower().startswith("gb") else json.detect_encoding(content)
    text = content.decode(own, "replace").lstrip("\ufeff \t\r\n")
    if text.count("\ufffd") > content.count("\ufffd".encode()) + 3:  # more than a cut character
        raise ValueError("the reply is in no encoding that is known")
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if not line.startswith(":")]
    streamed = [line[5:].strip() for line in lines if line.startswith("data:")]
    said, finish, usage, model = [], None, {}, None
    try:
        events = [line for line in streamed if line.lower() not in ("", "null", "[done]")]
        for reply in map(json.JSONDecoder(strict=False).decode, events or ["\n".join(lines)]):
            choices = reply.get("choices") or [{}]
            choice = next((c for c in choices if str(c.get("index") or 0) == "0"), {} if events else choices[0])
            if reply.get("error") or choice.get("error") or re.match(_WORDS["fault"], str(reply.get("code")), re.I):
                raise ValueError("the server reports an error")
            message, so_far = choice.get("message") or {}, "".join(text for text, _ in said)
            message = {} if so_far and so_far == message.get("content") else message  # all of it once more, at the end
            said.append(_parts({**message, **(choice.get("delta") or {})}))
            cut = re.search(_WORDS["cut_off"], str(finish), re.I)  # a "stop" behind it does not undo it
            finish, model = (not cut and choice.get("finish_reason")) or finish, reply.get("model") or model
            usage = reply.get("usage") or choice.get("usage") or usage
    except (LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("the reply has no message") from None
    text, reasoning = (whole("".join(_last_of_growing(pieces))) for pieces in zip(*said, strict=True))
    begun = text or reasoning or finish
    if not reasoning and "</think>" in text and "<think>" not in text:
        text = f"<think>{text}"  # the chat template opened it, which no reply shows; `local.py` asks the template
    finish = "length" if re.search(_WORDS["cut_off"], str(finish), re.I) else finish
    broken = re.search(_WORDS["broken_off"], str(finish), re.I) or any(re.match("event: *error", s) for s in lines)
    if not begun or broken or (streamed and not finish and "[DONE]" not in streamed):
        raise ValueError("the reply holds no answer, or not all of it")
    said, begun = (any(char.isprintable() and char > " " for char in part) for part in (after_thought(text), text))
    if finish != "length" and not said:
        finish = "thought" if reasoning or begun else "empty"
    elif re.search(_WORDS["filtered"], str(finish), re.I):
        finish = "filtered"
    known = {"text": text, "reasoning": reasoning or None, "model": whole(model) if isinstance(model, str) else None}
    return known | {"finish_reason": whole(str(finish or "unknown")), "usage": _usage(usage, text + reasoning)}


def _last_of_growing(pieces: Sequence[str]) -> Sequence[str]:
    """The last piece where each of three and more holds the one before: some servers send all so far each time."""
    pieces = [piece for piece in pieces if piece]
    grows = all(len(a) < len(b) and b.startswith(a) for a, b in zip(pieces, pieces[1:], strict=False))
    return pieces[-1:] if len(pieces) > 2 and grows else pieces


def _parts(message: Mapping[str, Any]) -> tuple[str, str]:
    """Text and thought of a message or a piece of one: strings, or lists of parts; unknown parts are ignored."""
    content, texts, thoughts = message.get("content"), [], []
    for part in content if isinstance(content, list) else [content]:
        kind = part if isinstance(part, dict) else {}
        if kind.get("thought") or kind.get("thinking") or re.search("think|reason|thought", str(kind.get("type"))):
            thoughts.append(_flat(part))
        elif str(kind.get("type") or "text").lower() in _WORDS["texts"]:
            texts.append(_flat(part))
    apart = next(filter(None, (_flat(message.get(name)) for name in _WORDS["thoughts"])), "")
    return "".join(texts) or _flat(message.get("refusal")), apart or "".join(thoughts)


def _flat(value: Any) -> str:
    """The text in a part, however nested."""
    if isinstance(value, dict):
        return next(filter(None, (_flat(value.get(name)) for name in _WORDS["inside"])), "")
    return "".join(map(_flat, value)) if isinstance(value, list) else value if isinstance(value, str) else ""


def _usage(usage: Any, written: str) -> dict[str, int | None]:
    """The tokens to pay for. Some servers leave the thought out of `completion_tokens`, or count no tokens."""

    def count(*names: str, of: Any = usage) -> int | None:
        """What is said under the first of `names` that has a count, if it can be true."""
        said = [of.get(name) for name in names] if isinstance(of, dict) else []
        return next((int(n) for n in said if type(n) in (int, float) and 0 <= n <= _MOST_TOKENS and n % 1 == 0), None)

    prompt, total = count("prompt_tokens", "input_tokens"), count("total_tokens")
    counted, rest = count("completion_tokens", "output_tokens"), None if None in (prompt, total) else total - prompt
    if counted is not None or rest is not None:
        details = [usage, *(usage.get(f"{name}_tokens_details") for name in ("completion", "output"))]
        thought = max(count("reasoning_tokens", of=part) or 0 for part in details)
        counted = max(counted or 0, rest or 0)
        counted += thought if thought > counted else 0
        # A token holds about four bytes, never sixteen over a whole text: then there were more than is said.
        size = len(written.encode())
        counted = max(1, size // 4) if 16 * counted + 64 * (counted > 0) < size else counted
    return {"prompt_tokens": prompt, "completion_tokens": counted}
