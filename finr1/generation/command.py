"""`python -m finr1 generate`: the suite's endpoint client for anyone's prompts; `doctor` looks at an endpoint first.

Input is JSONL, one row `{"id", "messages"}` per request; output has one row per answer, in the same order. Answers lie
beside it, in `NAME.answers.jsonl`, as soon as they arrive: the same command again asks only for the missing ones.
"""

import argparse
import codecs
import json
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from pydantic import ValidationError

from finr1 import generation
from finr1.generation import AnswerStore, Budget, EndpointBackend, GenerationError, Request, SamplingParams, generate
from finr1.generation.endpoint import same_model, whole
from finr1.paths import data_beside
from finr1.records import told, write_jsonl

_TEXTS = data_beside(__file__, "doctor.yaml")
_QUESTION, _NUMBERS = _TEXTS["question"], " ".join(map(str, range(1000, 2200)))  # some three thousand tokens


def answer_file(options: argparse.Namespace) -> int:
    """Returns 0 when all is answered, 1 when some requests are not."""
    tell, requests = partial(print, file=sys.stderr, flush=True), read_requests(options.input)
    sampling = SamplingParams(**{name: getattr(options, name) for name in SamplingParams.model_fields})
    where = (options.base_url, options.model, options.api_key_env, options.concurrency)
    backend = EndpointBackend(*where, extra=options.extra)
    budget = Budget(options.max_cost, options.prompt_price, options.completion_price)
    if options.output.resolve() == options.input.resolve():
        raise ValueError(f"{options.output}: --output is the --input")
    store = AnswerStore(options.output.with_suffix(".answers.jsonl"))
    backend.check()
    with store.turn():
        answers = generate(requests, sampling, backend, store, on_progress=tell, on_error="none", budget=budget)
        write_jsonl(options.output, [answer.model_dump() for answer in answers])
    failures = [answer for answer in answers if answer.error is not None]
    for answer in failures[:10]:
        tell(f"{answer.id}: {answer.error}")
    if failures:
        tell(f"{len(failures)} of {len(answers)} have no answer; the same command again asks for them")
    return 1 if failures else 0


def read_requests(path: Path) -> list[Request]:
    """The requests of a JSONL file, in UTF-8 or with a BOM. Raises `ValueError` with file and line for a bad row."""
    requests, data = [], path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as a Windows shell writes it
        data = data.decode("utf16").encode()
    for number, line in enumerate(data.splitlines(), 1):
        try:
            if line := line.removeprefix(codecs.BOM_UTF8).strip():  # joined files have several
                row = whole(json.dumps(json.loads(line), ensure_ascii=False))
                requests.append(Request.model_validate_json(row))
        except (ValueError, RecursionError) as error:
            why = told(error) if isinstance(error, ValidationError) else f"row: Invalid JSON: {error}"
            raise ValueError(f"{path}, line {number}: {why}") from None
    return requests


def diagnose(options: argparse.Namespace) -> int:
    """Print a row for each of `PROBES`, a failed one, too. Returns 0 for an answer, 1 for none."""
    doctor = Doctor(options)
    warnings.simplefilter("ignore")  # the table says it
    for title, probe in PROBES.items():
        try:
            if doctor.first is None and title not in ("name served", "answer"):
                raise GenerationError("there is no answer to look at")
            said = probe(doctor)
        except Exception as error:
            said = f"failed: {error if isinstance(error, GenerationError) else doctor.backend._reason(error)}"
        print(f"{title:20}{doctor.backend._clean(' '.join(said.split()))}", flush=True)
    print(f"{'extra to use':20}{json.dumps(doctor.extra) if doctor.extra else 'none'}")
    return 0 if doctor.first and not doctor.first.error else 1


class Doctor:
    """What the probes share: the endpoint, its first answer, and the probes that take more than an expression."""

    def __init__(self, options: argparse.Namespace) -> None:
        where = (options.base_url, options.model, options.api_key_env)
        self.backend = EndpointBackend(*where, timeout=120.0, max_retries=2, extra=options.extra)
        self.sampling = SamplingParams(max_tokens=options.max_tokens)
        self.budget = Budget(None, options.prompt_price, options.completion_price)
        self.first, self.listed, self.extra = None, {}, self.backend.extra

    def ask(self, text: str = _QUESTION, **extra: Any) -> generation.Completion:
        job = generation.Job(Request(id="doctor", messages=[{"role": "user", "content": text}]), 0, "")
        known, self.backend.extra = self.backend.extra, {**self.backend.extra, **extra}
        [[answer]] = self.backend.complete([job], self.sampling, lambda: False)
        self.backend.extra = known
        return answer

    def name_served(self) -> str:
        asked = self.backend
        at, headers = f"{asked.urls[0]}/models", {"Authorization": f"Bearer {asked._key()}"}
        reply = httpx2.get(at, headers=headers, timeout=30.0, trust_env=not asked._is_local).raise_for_status()
        names = {str(model["id"]): model for model in reply.json()["data"]}
        name = next((name for name in names if same_model(asked.model, name)), None)
        self.listed = names.get(name, {})
        return f"yes, as {name}" if name else f"not among the {len(names)} listed: {', '.join([*names][:8])}"

    def answer(self) -> str:
        first, told = self.ask(), ""
        if first.failed:
            # Refused without naming a field: try one field more, then the smallest body, alone and with one more.
            needs = [less | need for less in ({}, _TEXTS["fields"]) for need in _TEXTS["needs"]][1:]
            refused = re.search("HTTP 4(00|22)", first.error)
            found = next((need for need in needs if refused and not self.ask(**need).failed), None)
            if found is None:
                raise GenerationError(first.error)
            longest = found | ({"max_completion_tokens": self.sampling.max_tokens} if "max_tokens" in found else {})
            self.backend.extra |= found if self.ask(**longest).failed else longest
            first, told = self.ask(), f", with the extra below; without it {first.error}"
        self.extra = {**self.backend.changes, **self.backend.extra}  # found to be needed, beside what the user gave
        self.first, self.came = first, re.sub(r"\s", "", self.backend.last.text)  # as the server wrote it
        self.counted = ", ".join(re.findall(r'"(?:completion|output)_tokens":(\d+)', self.came))
        return f"{first.error or repr(first.text[-60:])}{told}"

    def thinking(self) -> str:
        where = "in the text, in tags" if "think" in self.first.text else "apart from the text"
        where = "none is sent" if self.first.reasoning is None else where
        return where + _TEXTS["odd"].get(self.first.finish_reason, "")

    def price(self) -> str:
        cost = self.budget.cost(self.first.usage)
        return "no count of tokens: max_cost can't be kept" if cost is None else f"cost {1000 * cost:.4f}, if as short"

    def window(self) -> str:
        stated = next((self.listed[name] for name in _TEXTS["windows"] if self.listed.get(name)), "not")
        answer, notes = self.ask(f"{_NUMBERS}\n\n{_QUESTION}"), self.backend.notes
        read, least = answer.usage.prompt_tokens, len(_NUMBERS.split())  # a token for each number, or more
        fewer = f"fewer than the {least} numbers: the server cuts prompts" if read and read < least else ""
        cut = answer.error or notes.get("prompt") or notes.get("window") or fewer or "nothing is cut"
        return f"{stated} stated; {len(_NUMBERS)} bytes are read as {answer.usage.prompt_tokens} tokens: {cut}"


PROBES: dict[str, Callable[[Doctor], str]] = {
    "name served": Doctor.name_served,
    "answer": Doctor.answer,
    "fields refused": lambda d: ", ".join(name for name, value in d.extra.items() if value is None) or "none",
    "who answers": lambda d: d.backend.notes.get(d.first.model) or d.first.model or "the reply does not say",
    "thinking": Doctor.thinking,
    "content": lambda d: "a list of parts" if '"content":[' in d.came else "text",
    "window": Doctor.window,
    "usage": lambda d: f"{d.first.usage.completion_tokens} tokens written; the server counts {d.counted or 'none'}",
    "repeatable at 0": lambda d: "yes" if (one := d.ask()).tagged == d.first.tagged else f"no: {one.error or one.text}",
    "rate limit": lambda d: str({k: v for k, v in d.backend.last.headers.items() if "ratelimit" in k} or "not stated"),
    "a thousand answers": Doctor.price,
}
