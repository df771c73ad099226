"""`python -m finr1 generate`: the suite's endpoint client for anyone's prompts.

Input is JSONL, one row `{"id", "messages"}` per request. Output is JSONL, one row per answer: `id`, `text`,
`reasoning`, `finish_reason`, `usage`, and `error` where there is none. Rows are appended as answers arrive; at the end
the file is put into the order of the input. The same command again asks only for the missing answers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from finr1.generation.answering import Budget, Progress, generate
from finr1.generation.endpoint import DEFAULT_KEY_ENV, EndpointBackend
from finr1.generation.store import AnswerStore, Request, SamplingParams

DONE, FAILED, WRONG, SPENT, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `generate` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "generate",
        help="answer prompts with any OpenAI-compatible endpoint",
        description="Answer the prompts of a JSONL file. Answers are appended as they arrive; the same command again "
        "resumes with the missing ones. The key is read from the environment (--api-key-env).",
    )
    parser.set_defaults(command=answer_file)
    parser.add_argument("--input", type=Path, required=True, help='JSONL of {"id", "messages"}')
    parser.add_argument("--output", type=Path, required=True, help="JSONL of answers; run again = resume")
    parser.add_argument("--base-url", required=True, help="such as https://api.deepseek.com/v1")
    parser.add_argument("--model", required=True, help="its name at the endpoint")
    parser.add_argument("--concurrency", type=int, default=32, help="requests under way at once")
    parser.add_argument("--temperature", type=float, default=0.6, help="0: greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus (default: 1, all tokens)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="longest answer, reasoning included")
    parser.add_argument("--num-samples", type=int, default=1, help="answers for each request")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample; sample k has seed + k")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one attempt")
    parser.add_argument("--max-retries", type=int, default=14, help="further attempts at one request")
    parser.add_argument("--max-cost", type=float, help="stop when so much is spent; needs the prices")
    parser.add_argument("--prompt-price", type=float, default=0.0, help="for a million prompt tokens")
    parser.add_argument("--completion-price", type=float, default=0.0, help="for a million completion tokens")
    parser.add_argument("--api-key-env", default=DEFAULT_KEY_ENV, help="environment variable that holds the key")


def answer_file(options: argparse.Namespace) -> int:
    """Returns 0 when all is answered, 1 when some requests failed, 2 for wrong input, 3 when the budget is spent."""
    try:
        requests = read_requests(options.input)
        names = ("temperature", "top_p", "max_tokens", "num_samples", "seed")
        sampling = SamplingParams(**{name: getattr(options, name) for name in names})
        names = ("base_url", "model", "api_key_env", "concurrency", "timeout", "max_retries")
        backend = EndpointBackend(**{name: getattr(options, name) for name in names})
        if options.max_cost is not None and not (options.prompt_price or options.completion_price):
            raise ValueError("--max-cost needs --prompt-price or --completion-price")
        if options.output.resolve() == options.input.resolve():
            raise ValueError(f"{options.output}: --output is the --input")
        store = AnswerStore(options.output)
        if store.strange:
            raise ValueError(f"{options.output} holds {store.strange} lines that are no answers; name another --output")
    except (OSError, ValueError) as error:  # pydantic's error is a ValueError
        print(error, file=sys.stderr)
        return WRONG
    spent = False

    def tell(progress: Progress) -> None:
        nonlocal spent
        spent = progress.spent
        print(progress, file=sys.stderr, flush=True)

    budget = Budget(options.max_cost, options.prompt_price, options.completion_price)
    try:
        answers = generate(requests, sampling, backend, store, on_progress=tell, on_error="none", budget=budget)
    except KeyboardInterrupt:
        print("interrupted; the same command again resumes from here", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # a full disk; what is stored stays
        print(error, file=sys.stderr)
        return FAILED
    store.rewrite(answers)
    failures = [answer for answer in answers if answer.error is not None]
    for answer in failures[:10]:
        print(f"{answer.id}: {answer.error}", file=sys.stderr)
    if not failures:
        return DONE
    print(f"{len(failures)} of {len(answers)} have no answer; the same command again asks for them", file=sys.stderr)
    return SPENT if spent else FAILED


def read_requests(path: Path) -> list[Request]:
    """The requests of a JSONL file. Raises `ValueError` with file and line for a bad row or an id that stands twice."""
    requests: dict[str, Request] = {}
    with path.open(encoding="utf8") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                request = Request.model_validate_json(line)
                if str(request.id) in requests:
                    raise ValueError(f"{path}, line {number}: the id {request.id!r} stands twice")
                requests[str(request.id)] = request
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "row"
            raise ValueError(f"{path}, line {number}: {where}: {first['msg']}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}") from None
    return list(requests.values())
