"""`python -m finr1 generate`: the suite's endpoint client for anyone's prompts.

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
from finr1.generation.endpoint import DEFAULT_KEY_ENV, EndpointBackend, whole
from finr1.records import write_jsonl


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `generate` to the commands of `python -m finr1`."""
    about = "answers prompts with any OpenAI-compatible endpoint; the same command again asks for the missing ones"
    parser = commands.add_parser("generate", help=about, description=about)
    parser.set_defaults(command=answer_file)
    parser.add_argument("--input", type=Path, required=True, help='JSONL of {"id", "messages"}')
    parser.add_argument("--output", type=Path, required=True, help="JSONL of answers; run again = resume")
    add_endpoint(parser)
    parser.add_argument("--concurrency", type=int, default=32, help="requests under way at once")
    parser.add_argument("--temperature", type=float, default=0.6, help="0: greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus (default: 1, all tokens)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="longest answer, reasoning included")
    parser.add_argument("--num-samples", type=int, default=1, help="answers for each request")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample; sample k has seed + k")
    parser.add_argument("--max-cost", type=float, help="stop when so much is spent; needs the prices")


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add what says which endpoint is asked, and how."""
    parser.add_argument("--base-url", required=True, help="such as https://api.deepseek.com/v1")
    parser.add_argument("--model", required=True, help="its name at the endpoint")
    parser.add_argument("--extra", help='JSON for each request\'s body; null removes a field: {"max_tokens": null}')
    parser.add_argument("--prompt-price", type=float, default=0.0, help="for a million prompt tokens")
    parser.add_argument("--completion-price", type=float, default=0.0, help="for a million completion tokens")
    parser.add_argument("--api-key-env", default=DEFAULT_KEY_ENV, help="environment variable that holds the key")


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
    except (ValueError, GenerationError) as error:  # pydantic's error is a ValueError
        tell(error)
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
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "row"
            raise ValueError(f"{path}, line {number}: {where}: {first['msg']}") from None
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: row: Invalid JSON: {error}") from None
    return requests
