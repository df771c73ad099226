"""Tokens, FLOPs, hours and money of each stage, from a preset's parameters and a few stated assumptions.

FLOPs: 2 N for each token that a model reads or writes and 6 N for one that is trained (Kaplan et al. 2020, arXiv
2001.08361), with attention 4 L H s forward and 12 L H s trained (Chowdhery et al. 2022, arXiv 2204.02311, appendix B;
H hidden size, s mean length). A frozen base needs no gradients of its weights: 4 N. Activation checkpointing adds a
forward pass.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from finr1.params import Params, TrainingParams
from finr1.plan.shapes import Shape, shape_of

SYNTHETIC_PROMPT, SYNTHETIC_ANSWER = 75, 50  # mean tokens of a synthetic problem's chat and worked solution, measured
CHARS_PER_TOKEN = 3.5  # English text under the embedded model's tokenizer, measured
PAGE_CHARS = 4_000  # median page of FinQA, measured


@dataclass(frozen=True)
class Assumptions:
    """What no preset says. Each can be changed by `--set name=value`; none is a promise."""

    gpu_gib: float = 80.0  # memory of one GPU
    gpu_tflops: float = 989.0  # bf16, dense: NVIDIA H100 SXM data sheet
    gpu_hour_price: float = 2.5  # of one GPU; ours: about what clouds ask for an H100
    mfu_train: float = 0.4  # share of the peak; ours: usual for 7B at these lengths is 0.3 to 0.5
    mfu_prefill: float = 0.4  # reading prompts
    mfu_decode: float = 0.05  # writing tokens with vLLM; ours: bound by memory bandwidth
    reasoning_tokens: float = 1200.0  # mean answer of a reasoning teacher and of the 7B model; not stated by the paper
    teacher_prompt_price: float = 0.55  # a million tokens; DeepSeek-R1's list price of January 2025
    teacher_completion_price: float = 2.19  # a million tokens; as above
    judge_prompt_price: float = 0.4  # a million tokens, where the judge's endpoint is not local; ours
    judge_completion_price: float = 1.2  # as above
    judge_answer_tokens: float = 150.0  # reasons and verdict; ours

    def changed(self, changes: dict[str, str]) -> Assumptions:
        """With some values replaced; ValueError for one that is no number."""
        known = {field.name for field in fields(self)}
        return replace(self, **{name: float(value) for name, value in changes.items() if name in known})


@dataclass(frozen=True)
class Work:
    """One kind of work of a stage. Tokens: read by a model, written by it, trained."""

    stage: str
    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    read_flops: float = 0.0
    written_flops: float = 0.0
    trained_flops: float = 0.0
    api_cost: float = 0.0  # an endpoint's: no FLOPs of ours

    def gpu_hours(self, assumptions: Assumptions) -> float:
        peak = assumptions.gpu_tflops * 1e12 * 3600
        return (
            self.read_flops / (peak * assumptions.mfu_prefill)
            + self.written_flops / (peak * assumptions.mfu_decode)
            + self.trained_flops / (peak * assumptions.mfu_train)
        )


def prompt_tokens(presets: dict[str, Params]) -> float:
    """Mean prompt: a synthetic question, or one with a page of a report where a source has them."""
    data = presets["01_data"]
    pages = set(data.source_names) & {"finqa", "convfinqa"}
    return SYNTHETIC_PROMPT + ((data.max_context_chars or PAGE_CHARS) / CHARS_PER_TOKEN if pages else 0)


def answer_tokens(presets: dict[str, Params], assumptions: Assumptions) -> float:
    """Mean answer of the teacher: short where it is scripted, reasoning where it is a model."""
    teacher = presets["02_distillation"]
    if teacher.teacher_backend in ("scripted", "derived"):
        return SYNTHETIC_ANSWER
    return min(assumptions.reasoning_tokens, teacher.max_tokens)


def plan_work(presets: dict[str, Params], assumptions: Assumptions) -> list[Work]:
    """The work of every stage in order. Sampling counts the mean answer, at the most what the parameters allow."""
    shape = shape_of(presets["04_sft"].model_name_or_path)
    prompt, answer = prompt_tokens(presets), answer_tokens(presets, assumptions)
    return [
        _teacher(presets, assumptions, prompt, answer),
        _judge(presets, assumptions, prompt, answer),
        *_sft(presets, shape, prompt, answer),
        *_grpo(presets, shape, prompt, answer),
        _benchmark(presets, shape, prompt, answer),
    ]


def _teacher(presets: dict[str, Params], assumptions: Assumptions, prompt: float, answer: float) -> Work:
    teacher, problems = presets["02_distillation"], presets["01_data"].num_train
    asked = problems * teacher.num_samples
    if teacher.teacher_backend in ("scripted", "derived"):
        return Work("02 teacher")
    if teacher.teacher_backend != "endpoint":
        return sampling("02 teacher", shape_of(teacher.teacher_model), asked, prompt, answer)
    prices = (teacher.prompt_price, teacher.completion_price)
    if not any(prices):
        prices = (assumptions.teacher_prompt_price, assumptions.teacher_completion_price)
    return _endpoint("02 teacher", asked, prompt, answer, prices)


def _judge(presets: dict[str, Params], assumptions: Assumptions, prompt: float, answer: float) -> Work:
    judge, traces = presets["03_filtering"], presets["01_data"].num_train * presets["02_distillation"].num_samples
    if judge.judge_backend != "endpoint":
        return Work("03 judge")
    # The answer check of each trace, the reasoning's seven criteria of each trace, and five orders of the study.
    asked = 2 * traces + 5 * judge.study_items
    if "localhost" in judge.judge_base_url or "127.0.0.1" in judge.judge_base_url:
        try:
            shape = shape_of(judge.judge_model)
        except ValueError:  # a local server may call its model what it likes: tokens, but no FLOPs and no price
            return _endpoint("03 judge", asked, prompt + answer, assumptions.judge_answer_tokens, (0, 0))
        return sampling("03 judge", shape, asked, prompt + answer, assumptions.judge_answer_tokens)
    prices = (assumptions.judge_prompt_price, assumptions.judge_completion_price)
    return _endpoint("03 judge", asked, prompt + answer, assumptions.judge_answer_tokens, prices)


def _endpoint(stage: str, asked: float, prompt: float, answer: float, prices: tuple[float, float]) -> Work:
    cost = asked * (prompt * prices[0] + answer * prices[1]) / 1e6
    return Work(stage, read=asked * prompt, written=asked * answer, api_cost=cost)


def _sft(presets: dict[str, Params], shape: Shape, prompt: float, answer: float) -> list[Work]:
    sft = presets["04_sft"]
    rows = min(presets["03_filtering"].num_sft, presets["01_data"].num_train * presets["02_distillation"].num_samples)
    trained = sft.max_steps * sft.batch_size if sft.max_steps > 0 else sft.num_train_epochs * rows
    return [
        sampling("04 look before and after", shape, 2 * sft.eval_problems, prompt, min(answer, sft.eval_max_tokens)),
        training("04 SFT", shape, sft, trained, min(prompt + answer, sft.max_length)),
    ]


def _grpo(presets: dict[str, Params], shape: Shape, prompt: float, answer: float) -> list[Work]:
    grpo = presets["05_grpo"]
    length = min(answer, grpo.max_completion_length)
    sampled = grpo.max_steps / grpo.num_iterations * grpo.batch_size
    update = training("05 GRPO update", shape, grpo, grpo.max_steps * grpo.batch_size, prompt + length)
    if grpo.beta:  # the reference model scores each completion once
        scored = sampled * (prompt + length)
        flops = scored * forward_flops(shape, prompt + length)
        update = replace(update, read=update.read + scored, read_flops=update.read_flops + flops)
    tries = grpo.pass_rate_candidates * grpo.pass_rate_samples
    return [
        sampling("05 pass rates", shape, tries, prompt, length),
        sampling("05 GRPO generate", shape, sampled, prompt, length),
        update,
        sampling("05 look before and after", shape, 2 * grpo.eval_problems, prompt, min(answer, grpo.eval_max_tokens)),
    ]


def _benchmark(presets: dict[str, Params], shape: Shape, prompt: float, answer: float) -> Work:
    benchmark = presets["06_benchmark"]
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)  # base, SFT, GRPO and others
    benchmarks = len(presets["01_data"].benchmark_names) if benchmark.sampling == "paper" else 1
    asked = benchmark.num_items * benchmarks * (1 + benchmark.num_samples) * models
    return sampling("06 benchmark", shape, asked, prompt, min(answer, benchmark.max_tokens))


def forward_flops(shape: Shape, length: float) -> float:
    """FLOPs of one token at a mean of half of `length` tokens before it."""
    return 2 * shape.parameters + 4 * shape.layers * shape.hidden * length / 2


def sampling(stage: str, shape: Shape, rows: float, prompt: float, answer: float) -> Work:
    """`rows` prompts read and answered."""
    return Work(
        stage,
        read=rows * prompt,
        written=rows * answer,
        read_flops=rows * prompt * forward_flops(shape, prompt),
        written_flops=rows * answer * forward_flops(shape, 2 * prompt + answer),
    )


def training(stage: str, shape: Shape, params: TrainingParams, rows: float, length: float) -> Work:
    """`rows` rows of `length` tokens, forward and backward."""
    passes = (3 if params.peft == "full" else 2) + (1 if params.gradient_checkpointing else 0)
    return Work(stage, trained=rows * length, trained_flops=rows * length * passes * forward_flops(shape, length))


def cost_rows(work: list[Work], assumptions: Assumptions, gpus: int) -> list[dict[str, Any]]:
    """One row a kind of work: tokens, FLOPs, hours on `gpus` GPUs, and what GPUs and endpoints cost."""
    rows = []
    for item in work:
        hours = item.gpu_hours(assumptions)
        flops = item.read_flops + item.written_flops + item.trained_flops
        rows.append({
            "stage": item.stage,
            "read": item.read,
            "written": item.written,
            "trained": item.trained,
            "exaFLOPs": flops / 1e18,
            "hours": hours / gpus,
            "GPU cost": hours * assumptions.gpu_hour_price,
            "API cost": item.api_cost,
        })  # fmt: skip
    return rows


def assumption_rows(assumptions: Assumptions) -> dict[str, float]:
    """Name -> value of every assumption, for a table."""
    return asdict(assumptions)
