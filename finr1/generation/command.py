"""`python -m finr1 generate`: the suite's endpoint client for anyone's prompts; `doctor` looks at an endpoint first.

Input is JSONL, one row `{"id", "messages"}` per request; output has one row per answer, in the same order. Answers lie
beside it, in `NAME.answers.jsonl`, as soon as they arrive: the same command again asks only for the missing ones.
"""

from __future__ import annotations

import argparse
import codecs
import json
import sys
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from finr1.generation.answering import AnswerStore, Budget, GenerationError, Request, SamplingParams, generate
from finr1.generation.doctor import diagnose
from finr1.generation.endpoint import EndpointBackend, whole
from finr1.paths import data_beside
from finr1.records import write_jsonl

_OPTIONS = data_beside(__file__, "command.yaml")
_TYPES = {"str": str, "int": int, "float": float, "path": Path}


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `generate` and `doctor` to the commands of `python -m finr1`."""
    for name, command in {"generate": answer_file, "doctor": diagnose}.items():
        about = _OPTIONS["about"][name]
        parser = commands.add_parser(name, help=about, description=about)
        parser.set_defaults(command=command)
        for option, how in (_OPTIONS[name] | _OPTIONS["endpoint"]).items():
            parser.add_argument(option, **how | {"type": _TYPES[how.get("type", "str")]})


def answer_file(options: argparse.Namespace) -> int:
    """Returns 0 when all is answered, 1 when some requests are not, 2 for wrong input or an endpoint that fails."""
    tell = partial(print, file=sys.stderr, flush=True)
    try:
        requests = read_requests(options.input)
        sampling = SamplingParams(**{name: getattr(options, name) for name in SamplingParams.model_fields})
        where = (options.base_url, options.model, options.api_key_env, options.concurrency)
        backend = EndpointBackend(*where, extra=options.extra)
        budget = Budget(options.max_cost, options.prompt_price, options.completion_price)
        if options.output.resolve() == options.input.resolve():
            raise ValueError(f"{options.output}: --output is the --input")
        store = AnswerStore(options.output.with_suffix(".answers.jsonl"))
        backend.check()
    except (ValueError, GenerationError) as error:
        tell(_told(error))
        return 2
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
        except ValueError as error:
            told = _told(error) if isinstance(error, ValidationError) else f"row: Invalid JSON: {error}"
            raise ValueError(f"{path}, line {number}: {told}") from None
    return requests


def _told(error: Exception) -> str:
    """An error in one line: of pydantic's, the first field that is wrong, and why."""
    first = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
    return ": ".join(filter(None, [".".join(map(str, first.get("loc", ["row"]))), first["msg"]]))
