"""`python -m finr1 doctor`: what an endpoint is like, by a dozen cheap requests, and the `extra` to use with it."""

import argparse
import json
import sys
import warnings
from typing import Any

from finr1.generation.answering import Completion, GenerationError, Job, Request, SamplingParams
from finr1.generation.command import add_endpoint
from finr1.generation.endpoint import EndpointBackend, same_model

QUESTION = "What is 17 + 25? Answer with the number."
_LONG = " ".join(str(number) for number in range(1000, 2200))  # some three thousand tokens
_FIELDS = dict.fromkeys(("max_tokens", "temperature", "top_p", "seed"))
# What a server may want besides, the harmless first.
_NEEDS = ({}, {"stream": True}, {"enable_thinking": False}, {"temperature": 1}, {"reasoning_effort": "low"})
_WINDOWS = ("max_model_len", "context_length", "context_window", "max_context_length")


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `doctor` to the commands of `python -m finr1`."""
    about = "asks an endpoint a dozen cheap questions: what it refuses, counts and cuts, and which --extra it needs"
    parser = commands.add_parser("doctor", help=about, description=about)
    parser.set_defaults(command=diagnose)
    add_endpoint(parser)
    parser.add_argument("--max-tokens", type=int, default=2048, help="longest answer, reasoning included")


def diagnose(options: argparse.Namespace) -> int:
    """Print a row for each probe, a failed one, too. Returns 0 when the endpoint answers, 1 if not, 2 for bad input."""
    try:
        doctor = Doctor(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")  # the table says it
    for title in ("name served", "answer", "fields refused", "who answers", "thinking", "content", "window", "usage",
                  "repeatable at 0", "rate limit", "a thousand answers"):  # fmt: skip
        try:
            said = getattr(doctor, title.replace(" ", "_"))()
        except Exception as error:
            said = f"failed: {error if isinstance(error, GenerationError) else doctor.backend._reason(error)}"
        print(f"{title:20}{doctor.backend._clean(said)}", flush=True)
    print(f"{'extra to use':20}{json.dumps(doctor.extra) if doctor.extra else 'none'}")
    return 0 if doctor.__dict__.get("first") else 1


class Doctor:
    """The probes of one endpoint, each named after its row, whose text it returns. Most look at the first answer."""

    first: Completion

    def __init__(self, options: argparse.Namespace) -> None:
        where = (options.base_url, options.model, options.api_key_env)
        self.backend = EndpointBackend(*where, timeout=120.0, max_retries=2, extra=options.extra)
        self.options, self.raw, self.listed = options, {}, {}

    def __getattr__(self, name: str) -> Any:
        raise GenerationError("there is no answer to look at")  # `first`, as long as there is none

    @property
    def extra(self) -> dict[str, Any]:
        """What was found to be needed, beside what the user gave."""
        changes = self.backend.changes
        found = {name: True if name == "stream" else None for name in changes}
        return {**self.backend.extra, **found, **dict.fromkeys(filter(None, changes.values()), self.options.max_tokens)}

    def ask(self, text: str = QUESTION, **extra: Any) -> Completion:
        job = Job(Request(id="doctor", messages=[{"role": "user", "content": text}]), 0, "")
        known, self.backend.extra = self.backend.extra, {**self.backend.extra, **extra}
        [[answer]] = self.backend.complete([job], SamplingParams(max_tokens=self.options.max_tokens), lambda: False)
        self.backend.extra = known
        if answer.finish_reason == "error":
            raise GenerationError(answer.error)
        return answer

    def works(self, extra: dict[str, Any]) -> bool:
        try:
            return bool(self.ask(**extra))
        except GenerationError:
            return False

    def name_served(self) -> str:
        import openai

        http = openai.DefaultHttpxClient(follow_redirects=False, trust_env=not self.backend._is_local)
        where = {"base_url": self.backend.base_url, "api_key": self.backend._key(), "max_retries": 1, "timeout": 30.0}
        with openai.OpenAI(**where, http_client=http) as client:
            names = {str(model.id): model.model_dump() for model in client.models.list().data}
        self.listed = next((names[name] for name in names if same_model(self.backend.model, name)), {})
        others = f"not among the {len(names)} listed: {', '.join([*names][:8])}"
        return f"yes, as {self.listed['id']}" if self.listed else others

    def answer(self) -> str:
        told = ""
        try:
            self.first = self.ask()
        except GenerationError as error:  # refused, and not said what: the smallest body, then field by field
            refused = "HTTP 400" in str(error) or "HTTP 422" in str(error)
            need = next((need for need in _NEEDS if refused and self.works(_FIELDS | need)), None)
            if need is None:
                raise
            kept = {**_FIELDS, **need}
            for name in _FIELDS.keys() - need.keys():
                less = {other: value for other, value in kept.items() if other != name}
                kept = less if self.works(less) else kept
            longest = {"max_completion_tokens": self.options.max_tokens} if "max_tokens" in kept else {}
            self.backend.extra |= kept | (longest if self.works(kept | longest) else {})
            self.first, told = self.ask(), f", with the extra below; without it {error}"
        self.raw = self.backend.last.json() if self.backend.last.content.lstrip()[:1] == b"{" else {}
        return f"{self.first.error or repr(self.first.text[-60:])}{told}"

    def fields_refused(self) -> str:
        return self.first and (", ".join(name for name, value in self.extra.items() if value is None) or "none")

    def who_answers(self) -> str:
        if (model := self.first.model) is None:
            return "the reply does not say"
        return f"{model}, {'as asked' if same_model(self.backend.model, model) else 'NOT the model asked for'}"

    def thinking(self) -> str:
        where = "in the text, in tags" if "think" in self.first.text else "apart from the text"
        where = "none is sent" if self.first.reasoning is None else where
        if self.first.finish_reason == "thought":
            where = "holds the answer, and the text is empty: the server's reasoning parser does not fit the model"
        return f"{where}; cut off: a larger --max-tokens" if self.first.finish_reason == "length" else where

    def content(self) -> str:
        parts = self.first and self.raw and isinstance(self.raw["choices"][0]["message"].get("content"), list)
        return ("a list of parts" if parts else "text") if self.raw else "a stream of events, which is read"

    def window(self) -> str:
        stated = next((self.listed[name] for name in _WINDOWS if self.first and self.listed.get(name)), "not")
        read = self.ask(f"{_LONG}\n\n{QUESTION}").usage.prompt_tokens
        cut = [self.backend.notes[name] for name in ("prompt", "window") if name in self.backend.notes]
        return ": ".join([f"{stated} stated; {len(_LONG)} bytes are read as {read} tokens", *cut])

    def usage(self) -> str:
        counted, said = self.first.usage.completion_tokens, (self.raw.get("usage") or {}).get("completion_tokens")
        if counted is None:
            return "nothing is counted: max_cost can't be kept"
        honest = not self.raw or counted == said
        return f"{counted} tokens, which fits" if honest else f"says {said} tokens; {counted} with the thought"

    def repeatable_at_0(self) -> str:
        return "yes" if self.first.tagged == self.ask().tagged else "no: the same request gave another answer"

    def rate_limit(self) -> str:
        headers = self.first and self.backend.last.headers
        stated = [f"{name}: {value}" for name, value in headers.items() if "ratelimit" in name.lower()]
        return ", ".join(stated) or "none is stated"

    def a_thousand_answers(self) -> str:
        (_, read), (_, written) = self.first.usage
        cost = ((read or 0) * self.options.prompt_price + (written or 0) * self.options.completion_price) / 1e3
        priced = f"cost {cost:.4f}" if cost else "no --prompt-price or --completion-price"
        return f"{priced}; of a question as short as this, {read} tokens read and {written} written each"
