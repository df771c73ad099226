"""Requests, answers, the JSONL file that keeps them (users read and share it), and `generate`: no run pays twice."""

import codecs
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, BeforeValidator, Field

from finr1.paths import MessageAlone, Stopped, lock, naming, shown
from finr1.progress import ProgressLine, duration

_LINE_START = b'{"key":"'
_READ = BeforeValidator(lambda chat: json.loads(chat) if isinstance(chat, str) else chat)


class Request(BaseModel):
    """A chat that awaits the assistant's turn: `[{"role": "user", "content": "..."}, ...]`, or that as JSON text."""

    id: str | int  # the caller's own; not part of the key, so another id does not ask again
    messages: Annotated[list[dict[str, Any]], Field(min_length=1), _READ]


class SamplingParams(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """How to decode. `temperature=0` is greedy."""

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)  # new tokens, reasoning included
    num_samples: int = Field(1, ge=1)  # answers for each request
    seed: int = 0  # of the first sample


class Usage(BaseModel):
    """Tokens of one answer as the backend counts them; None where it does not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """One answer to one request; with `error` set, the reason for its absence."""

    key: str  # of the request, see `request_key`
    id: str | int  # of the request
    sample: int  # 0 .. num_samples - 1
    text: str  # as it came, with a `<think>` that the template opened; without a reasoning sent in a field of its own
    reasoning: str | None = None  # the endpoint's own field (`reasoning_content`), else the content of <think>
    # "stop", "length" or another word of the endpoint; with `error` set "error", "empty" or (a thought alone) "thought"
    finish_reason: str = "stop"
    usage: Usage = Usage()
    error: str | None = None
    model: str | None = None  # the name of the model that answered, where the endpoint says it
    isolated: bool = Field(False, exclude=True)  # a failure that may be of this request only, and ends no others

    @property
    def failed(self) -> bool:
        """Whether nothing came: the server failed ("error"), or it refuses this one request ("refused")."""
        return self.finish_reason in ("error", "refused")

    @property
    def tagged(self) -> str:
        """`text` with its reasoning in a think block, wherever the backend put it."""
        if self.reasoning is None or "<think>" in self.text or "</think>" in self.text:
            return self.text
        return f"<think>{self.reasoning}</think>{self.text}"


class Job(NamedTuple):
    """One answer for a backend to fetch."""

    request: Request
    sample: int
    key: str

    def completion(self, text: str, reasoning: str | None = None, **more: Any) -> Completion:
        """`text` as the answer to this job, with `more` fields; `reasoning` is read from the think block, if any."""
        # Templates that prefill `<think>` leave only the closing tag, and a cut answer has only the opening one.
        head, closing, _ = text.partition("</think>")
        if reasoning is None and (closing or "<think>" in head):
            reasoning = head.split("<think>", 1)[-1].strip()
        asked = {"key": self.key, "id": self.request.id, "sample": self.sample}
        return Completion(**asked, text=text, reasoning=reasoning, **more)

    def failure(self, error: str) -> Completion:
        """This job without an answer, because of `error`."""
        return self.completion("", finish_reason="error", error=error)


def request_key(request: Request, sampling: SamplingParams, fingerprint: str, sample: int = 0) -> str:
    """SHA-256 (hex) of all that the answer depends on; not of `num_samples`: a run that asks for more reuses these."""
    question = {"messages": request.messages, "sampling": sampling.model_dump(exclude={"num_samples"})}
    question |= {"backend": fingerprint, "sample": sample}
    canonical = json.dumps(question, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class AnswerStore:
    """Append-only JSONL file of `Completion`s, keyed by `Completion.key`; the first answer to a key stays.

    `put` returns when the operating system has its lines: they survive `kill -9`, but no power cut. Several processes
    may share a store (`flock`). A fragment without a newline comes from a writer that died; the next one drops it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open `path`, creating it and its folder. Raises `ValueError` for a file that holds something else."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self.answers: dict[str, Completion] = {}  # by key, as of the last `put`
        self._end = 0  # everything before this byte is in `answers`
        # True while this process asks for what is missing. The ranks of a training need no turns: its folder is locked.
        self.asking = os.environ.get("WORLD_SIZE", "1") != "1"
        self.put([])

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait, with a message, until no other process asks for what the store lacks; then it is this one's turn."""
        with lock(
            Path(f"{self.path.resolve()}.lock"), f"asks for answers that go to {shown(self.path.absolute())}", wait=True
        ):
            self.asking = True
            try:
                yield
            finally:
                self.asking = False

    def put(self, completions: Iterable[Completion]) -> None:
        """Append the answers (no failures) with new keys in one write, and read what other processes have stored."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._read_new_lines()
            answers = {answer.key: answer for answer in completions if answer.error is None}
            new = [answer.model_dump_json() + "\n" for key, answer in answers.items() if key not in self.answers]
            data = "".join(new).encode()
            with naming(self.path):
                while data:
                    data = data[os.write(self._fd, data) :]
            self._read_new_lines()
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _read_new_lines(self) -> None:
        """Read the lines after `_end`; cut off a last line whose writer died before its end."""
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(self._end)
            for line in file:
                size = len(line)
                endless = b"\n" not in line and b"\r" not in line and _LINE_START.startswith(line[: len(_LINE_START)])
                try:  # an editor may have left a byte order mark or an empty line
                    if line := line.removeprefix(codecs.BOM_UTF8).strip():
                        answer = Completion.model_validate_json(line)
                        self.answers.setdefault(answer.key, answer)
                except ValueError:
                    if endless:  # under the lock nobody else is in the middle of a line
                        os.ftruncate(self._fd, self._end)
                        break
                    where = f"line {self.path.read_bytes()[: self._end].count(10) + 1}, {line[:80]!r}"
                    advice = "repair or remove the line; without it, its request is asked again"
                    raise ValueError(f"{self.path}: this line is no stored answer: {where}; {advice}") from None
                if endless:  # the line is whole: an editor took its end
                    size += os.write(self._fd, b"\n")
                self._end += size


Groups = Iterator[list[Completion]]


class Backend(Protocol):
    """Anything that can answer requests."""

    fingerprint: str  # names what answers depend on besides the request (model, endpoint, dtype); never a secret

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        """Answer `jobs` in any order, in groups as they get ready.

        Once `stop()` is true, only jobs under way are yielded, and closing gives these up. A failed one has an `error`.
        """

    def unload(self) -> None:
        """Free the memory of a model that runs in this process; the next use loads it again."""


class GenerationError(MessageAlone, RuntimeError):
    """Some requests have no answer."""


@dataclass(frozen=True)
class Budget:
    """The cost at which asking stops. Requests under way are still answered, so up to `concurrency` answers more."""

    max_cost: float | None = None  # in the currency of the prices; None: no limit
    prompt_price: float = 0.0  # for a million prompt tokens
    completion_price: float = 0.0  # for a million completion tokens, reasoning included

    def __post_init__(self) -> None:
        """Raise `ValueError` for a number that limits nothing: NaN, infinity, below 0, or a limit without a price."""
        for name, value in vars(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: should be 0 or more, and finite")
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            raise ValueError("max_cost needs prompt_price or completion_price above 0")

    def cost(self, usage: Usage) -> float | None:
        """Cost of one answer; None where the server does not count the tokens that have a price."""
        counts = ((usage.prompt_tokens, self.prompt_price), (usage.completion_tokens, self.completion_price))
        return None if any(n is None and price for n, price in counts) else sum((n or 0) * p for n, p in counts) / 1e6


@dataclass
class Progress:
    """The state of `generate`; as text, one plain line."""

    total: int  # different answers needed
    reused: int  # of them, from the store, at no cost
    answered: int = 0
    failed: int = 0
    uncounted: int = 0  # answers without a count of tokens that have a price
    tokens: int = 0  # of the answers
    cost: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        done = f"{self.reused + self.answered}/{self.total} answers, {self.reused} from the store, {self.failed} failed"
        done += f", {self.answered / (self.seconds or 1):.1f}/s, {self.tokens} tokens, cost {self.cost:.2f}"
        left = self.total - self.reused - self.answered - self.failed
        return f"{done}, {duration(left * self.seconds / self.answered)} left" if left and self.answered else done


def generate(
    requests: Sequence[Request],
    sampling: SamplingParams,
    backend: Backend,
    store: AnswerStore | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_error: Literal["raise", "none"] = "raise",
    budget: Budget = Budget(),
) -> list[Completion]:
    """Answers to `requests`, in their order, `sampling.num_samples` in a row for each.

    What `store` holds is not asked again, equal requests are asked once, and each answer is in the store before
    anybody sees it. `on_progress` (such as `print`) is called at most once a second, and at the end; by default a line
    in a notebook shows it where more than a few are asked for.

    Asking ends once `budget` is spent (or can't be kept), or the server has failed for good. Requests under way are
    answered and stored; then `GenerationError` is raised, also where more than one reply in twenty has no answer. With
    `on_error="none"` failures end nothing: each gets a completion with `error` set, which a next run asks again.
    """
    if store is not None and not store.asking:
        with store.turn():  # whoever waited here finds the other's answers in the store, and pays for none twice
            return generate(requests, sampling, backend, store, on_progress, on_error, budget)
    pairs = product(requests, range(sampling.num_samples))
    jobs = [Job(request, k, request_key(request, sampling, backend.fingerprint, k)) for request, k in pairs]
    unique = {job.key: job for job in jobs}
    answers: dict[str, Completion] = {}
    if store is not None:
        store.put([])
        answers = {key: store.answers[key] for key in unique if key in store.answers}
    asked = [job for key, job in unique.items() if key not in answers]
    progress = Progress(len(unique), reused=len(answers))

    def why_stop() -> str:
        if budget.max_cost is not None and (progress.uncounted or progress.cost >= budget.max_cost):
            why = "cannot be kept, the server counts no tokens" if progress.uncounted else "is spent"
            return f"the budget of {budget.max_cost} {why}"
        return "another request failed" if on_error == "raise" and failing() else ""

    def failing() -> bool:  # few replies without an answer are the model's, many the server's
        return broken or progress.failed > max(min(8, progress.total / 20), (progress.reused + progress.answered) / 20)

    started, told, broken = time.monotonic(), 0.0, False
    if on_progress is None:
        on_progress = ProgressLine(quiet=True).show if len(asked) > 8 else lambda _: None
        on_progress(progress)  # the first answers may take long
    try:
        with closing(backend.complete(asked, sampling, lambda: bool(why_stop()))) as groups:
            for group in groups if asked else ():
                if store is not None:  # where another process was first, its answer counts
                    store.put(group)
                    group = [completion if completion.error else store.answers[completion.key] for completion in group]
                for completion in group:
                    answers[completion.key] = completion
                    cost, lost = budget.cost(completion.usage), completion.error is not None
                    broken |= completion.finish_reason == "error" and not completion.isolated
                    progress.failed += lost
                    progress.answered += not lost
                    progress.uncounted += cost is None and not completion.failed
                    progress.tokens += completion.usage.completion_tokens or 0
                    progress.cost += cost or 0.0
                progress.seconds = time.monotonic() - started
                if progress.seconds - told >= 1.0:
                    told = progress.seconds
                    on_progress(progress)
    except KeyboardInterrupt:
        done = f"{progress.reused + progress.answered} of {progress.total} answers"
        raise Stopped(f"stopped at {done}; run the cell again to ask for the rest") from None
    on_progress(progress)
    unasked = {key: job.failure(f"not asked: {why_stop()}") for key, job in unique.items() if key not in answers}
    answers |= unasked
    if on_error == "raise" and (unasked or failing()):
        failures = [answer for answer in answers.values() if answer.error is not None]
        first = f"the first, {failures[0].id!r}: {failures[0].error}"
        raise GenerationError(f"{len(failures)} of {progress.total} requests have no answer; {first}")
    return [answers[job.key].model_copy(update={"id": job.request.id, "sample": job.sample}) for job in jobs]
