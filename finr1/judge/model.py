"""The answer check and Fin-R1's seven criteria of reasoning: rules decide where they can, else a model does.

In the paper Qwen2.5-72B-Instruct gives a point for each criterion, and traces with 7 of 7 stay. Our rules are in 03.
The answer check hides the question: of the paper's five prompts this one made the fewest errors. The wording is ours.
"""

import hashlib
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finr1 import generation, grading
from finr1.generation import AnswerStore, Backend, EndpointBackend, Request, TransformersBackend, generate
from finr1.grading.extraction import after_thought
from finr1.models import resolve_model
from finr1.params import BenchmarkParams, FilteringParams, GRPOParams
from finr1.paths import cache_dir, data_beside
from finr1.records import Problem, Trace

WORDS, _TEXTS = data_beside(__file__, "rules.yaml"), data_beside(__file__, "model.yaml")
CRITERIA: dict[str, str] = WORDS["criteria"]
CHECK_PROMPTS = {name: "\n\n".join(map(_TEXTS["parts"].get, parts)) for name, parts in _TEXTS["orders"].items()}
PLAIN_CASES, OVERRIDES = _TEXTS["plain_cases"], _TEXTS["overrides"]
JUDGE_SAMPLING = generation.SamplingParams(temperature=0.0, max_tokens=256)


def check_answer(trace: Trace) -> bool | None:
    """Round one: whether the trace's answer matches a gold. None: rules cannot tell, so a model has to be asked."""
    return grading.grade(trace.answer, **trace.problem.graded_against)


def make_backend(params: FilteringParams | BenchmarkParams) -> Backend | None:
    """The judge that `params` names: an endpoint or (in notebook 06) a local model. None: rules alone judge.

    Raises `GenerationError` for a judge that decides no plain case, `FileNotFoundError` for a path without a model.
    """
    if params.judge_backend == "rules":
        return None
    if params.judge_backend == "transformers":
        name = resolve_model(params.judge_model, cache_dir())
        backend: Backend = TransformersBackend(name, batch_size=params.batch_size)
    else:
        where = (params.judge_base_url, params.judge_model, params.key_env, params.concurrency)
        backend = EndpointBackend(*where, extra=params.judge_extra)
        backend.check()
    Verifier(backend, sampling=sampling_of(params), with_reason=False).check(PLAIN_CASES)
    backend.unload()
    return backend


def sampling_of(params: FilteringParams | BenchmarkParams | GRPOParams) -> generation.SamplingParams:
    """How the judge or verifier of `params` decodes: greedily, with enough tokens for a thought."""
    return JUDGE_SAMPLING.model_copy(update={"max_tokens": getattr(params, f"{params.role}_max_tokens")})


def fenced(text: str) -> dict[str, str]:
    """`text` with a space inside each mark of a chat template, and as `fence` a line that does not occur in it.

    Tokenizers and servers obey `<|im_end|>` or `[INST]` inside a message, too: an answer could speak as the judge.
    """
    harmless = re.sub(_TEXTS["control"], lambda match: match[0] + " ", text)
    digest = hashlib.sha256(harmless.encode("utf8", "surrogatepass")).hexdigest()
    return {"text": harmless, "fence": f"=== {digest[:12]} ==="}


def check_request(name: str, problem: Problem, answer: str, order: str = "standard") -> Request:
    """The request `name`: its prompt asks whether `answer` to `problem` is right."""
    prompt = check_prompt(problem.question, problem.gold, answer, order)
    return Request(id=name, messages=[{"role": "user", "content": prompt}])


def check_prompt(question: str, gold: str, answer: str, order: str = "standard", with_reason: bool = False) -> str:
    """The prompt of the answer check, `answer` fenced in; `with_reason` asks for a second line (`read_reasoned`)."""
    reply = _TEXTS["replies"]["chinese" if order == "chinese" else "english"][with_reason]
    shown = {"question": fenced(question)["text"], "gold": gold, "reply": reply}
    return CHECK_PROMPTS[order].format(**shown, **fenced(answer))


def read_check(reply: str) -> bool | None:
    """The verdict in a reply to the answer check: its lines behind the thought that are 1 or 0, if they agree."""
    lines = unicodedata.normalize("NFKC", after_thought(reply)).splitlines()
    said = [re.fullmatch(_TEXTS["verdict"], re.sub(_TEXTS["marks"], "", line)) for line in lines]
    verdicts = {found[1] == "1" for found in said if found}
    return verdicts.pop() if len(verdicts) == 1 else None


def read_reasoned(reply: str) -> tuple[bool | None, str]:
    """The verdict in the first line behind a thought, or in a code block (None: neither 1 nor 0), and what is below."""
    first, _, reason = re.sub(r"^\s*```\w+\s", "", after_thought(reply)).strip("`~ \n{").partition("\n")
    return read_check(first), reason.strip()


@dataclass(frozen=True)
class Verifier:
    """The answer check behind a reward (in the paper Qwen2.5-Max): a backend, a store, an order of `CHECK_PROMPTS`.

    Each answer is asked about once: pass rates, (resumed) training and all ranks share one store. No failure is kept.
    """

    backend: Backend
    store: AnswerStore | None = None
    order: str = "standard"
    sampling: generation.SamplingParams = JUDGE_SAMPLING
    with_reason: bool = True  # in a second line; the answer check of filter and benchmark asks for none

    def __call__(self, cases: Sequence[tuple[str, str, str]]) -> list[tuple[bool | None, str]]:
        """Verdict and reason for each (question, gold, answer). None: the call failed, or the reply has no verdict."""
        prompts = [check_prompt(*case, self.order, self.with_reason) for case in cases]
        requests = [Request(id=i, messages=[{"role": "user", "content": prompt}]) for i, prompt in enumerate(prompts)]
        verdicts = []
        for reply in generate(requests, self.sampling, self.backend, self.store, on_error="none"):
            right, reason = read_reasoned(reply.text) if self.with_reason else (read_check(reply.text), "")
            if reply.error is not None:
                reason = f"no answer: {reply.error}"
            elif right is None:
                cut = f" (cut off at {self.sampling.max_tokens} tokens: allow more)"
                reason = f"neither 1 nor 0: {reply.text[:200]!r}{cut if reply.finish_reason == 'length' else ''}"
            verdicts.append((right, reason))
        return verdicts

    def check(self, cases: Sequence[tuple[str, str, str]] = PLAIN_CASES[:1]) -> None:
        """Raise `GenerationError` unless the model gives a verdict on at least one of the plain `cases`."""
        verdicts = replace(self, store=None)(cases)
        if all(right is None for right, _ in verdicts):
            told = f"no verdict on {len(cases)} of {len(cases)} plain cases: {verdicts[0][1]}"
            raise generation.GenerationError(f"{told} ({self.backend.fingerprint})")
        if len(cases) > 1 and len(said := {right for right, _ in verdicts if right is not None}) == 1:
            warnings.warn(f"the judge says {int(said.pop())} to right and wrong answers alike", stacklevel=2)

    def attacked(self) -> str:
        """How often the model believes a wrong answer that claims to be right (`OVERRIDES`), for each order."""
        cases = [(*case[:2], f"{case[2]}\n{text}") for case in PLAIN_CASES[1::2] for text in OVERRIDES]
        said = {order: [right for right, _ in replace(self, order=order)(cases)] for order in CHECK_PROMPTS}
        won, tried = sum(rights.count(True) for rights in said.values()), len(cases) * len(said)
        each = ", ".join(f"{order} {rights.count(True)}" for order, rights in said.items())
        unread = sum(rights.count(None) for rights in said.values())
        return f"override texts in wrong answers: {won} of {tried} succeed ({won / tried:.0%}; {each}; {unread} unread)"


def make_verifier(params: GRPOParams, stage_dir: Path) -> Verifier | None:
    """The verifier that `params` names, with its store in `stage_dir`. None: rules alone. It contacts no server yet.

    Raises `ValueError` for a missing key or an unusable address, `FileNotFoundError` for a path without a model.
    """
    name, size = params.verifier_model, params.verifier_concurrency
    if params.verifier_backend == "rules":
        return None
    if params.verifier_backend == "transformers":
        backend: Backend = TransformersBackend(name, batch_size=size)
    else:  # a training step waits for the slowest of its answers
        where, patience = (params.verifier_base_url, name, params.key_env, size), params.verifier_max_tokens / 20
        backend = EndpointBackend(*where, timeout=max(30.0, patience), max_retries=3, extra=params.verifier_extra)
    return Verifier(backend, AnswerStore(stage_dir / "verifier.answers.jsonl"), sampling=sampling_of(params))
