"""A preset before anything is spent: GiB in each process, tokens, FLOPs, hours and cost.

`python -m finr1 plan --preset paper [--set NAME=VALUE] [--json]`. A model of unknown shape has tokens and prices, but
neither GiB nor hours: a plan never stops a run. `accelerate estimate-memory` covers weights and Adam alone.

Sources: ZeRO (arXiv 1910.02054) for weights, gradients and Adam's moments, and how they are split; QLoRA (arXiv
2305.14314) for 4-bit weights; Korthikanti et al. (arXiv 2205.05198) for activations, counted as autograd keeps them
for transformers' Llama and Qwen; Kaplan et al. (arXiv 2001.08361) for 2 N FLOPs of a token that is read or written and
6 N of one that is trained; PaLM (arXiv 2204.02311, appendix B) for attention. Nothing is added for fragmentation:
`benchmarks/plan_calibration.py` compares planned and measured memory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from finr1.cpu import SCORED_AT_ONCE
from finr1.models import EMBEDDED_MODEL
from finr1.params import STAGES, GRPOParams, ParameterError, Params, SFTParams, TrainingParams
from finr1.paths import preset_names, resolve
from finr1.pipeline import load_preset

GIB = 2**30
CUDA_CONTEXT, CPU_PROCESS = 1.0 * GIB, 0.75 * GIB  # of a process; Python with torch, TRL and datasets is measured
LIVE_PARAMETERS = 1e9  # DeepSpeed's default stage3_max_live_parameters
HEAD_TOKENS, HEAD_VOCABULARY = 4096, 32768  # tile of TRL's head: trl/kernels/chunked_logprob.py
SYNTHETIC_PROMPT, SYNTHETIC_ANSWER = 75, 50  # mean tokens of a synthetic problem's chat and solution, measured
CHARS_PER_TOKEN = 3.5  # English text under the embedded model's tokenizer, measured
PAGE_TOKENS = 4000 / CHARS_PER_TOKEN  # median page of FinQA; the longest is about three times as long
PAGES = {"finqa", "convfinqa"}  # sources whose questions come with a page of a report
SCRIPTED = ("scripted", "derived")  # teachers that are no model


class Shape(NamedTuple):
    """A decoder with grouped-query attention and a gated MLP (Llama, Qwen), as its config.json states it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # the head is the embedding
    attention_bias: bool  # of queries, keys and values
    head_size: int

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of each linear layer of one block: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        attention = [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' linear layers: what QLoRA stores in 4 bits."""
        return self.layers * sum(rows * columns for rows, columns in self.linears)

    @property
    def parameters(self) -> int:
        bias = (self.heads + 2 * self.kv_heads) * self.head_size if self.attention_bias else 0
        norms = self.layers * (2 * self.hidden + bias) + self.hidden
        return self.linear_parameters + norms + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of LoRA with this rank on every linear layer of the blocks (arXiv 2106.09685)."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self.linears)


# Shapes of models whose config.json may not be here yet; Qwen2.5 also in table 1 of its report (arXiv 2412.15115).
_KNOWN = {
    EMBEDDED_MODEL: Shape(30, 576, 1536, 9, 3, 49152, True, False, 64),
    "Qwen2.5-0.5B": Shape(24, 896, 4864, 14, 2, 151936, True, True, 64),
    "Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 151936, True, True, 128),
    "Qwen2.5-3B": Shape(36, 2048, 11008, 16, 2, 151936, True, True, 128),
    "Qwen2.5-7B": Shape(28, 3584, 18944, 28, 4, 152064, False, True, 128),
    "Qwen2.5-14B": Shape(48, 5120, 13824, 40, 8, 152064, False, True, 128),
    "Qwen2.5-32B": Shape(64, 5120, 27648, 40, 8, 152064, False, True, 128),
    "Qwen2.5-72B": Shape(80, 8192, 29568, 64, 8, 152064, False, True, 128),
}


def shape_of(model: str) -> Shape | None:
    """Shape of a model folder or a hub id: known, or read from its config without asking the hub; None: unknown.

    A mixture of experts is unknown, too: the formulas here are for one dense MLP a block.
    """
    if known := _KNOWN.get(model.rpartition("/")[2].removesuffix("-Instruct")) or _KNOWN.get(model):
        return known
    from transformers import AutoConfig

    folder = resolve(model)
    try:
        config = AutoConfig.from_pretrained(folder if folder.is_dir() else model, local_files_only=True)
    except (OSError, ValueError, KeyError):  # no config here, or of a kind that transformers does not know
        return None
    config = config.get_text_config()
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
             "vocab_size", "tie_word_embeddings")  # fmt: skip
    sizes = [getattr(config, name, None) for name in names]
    if None in sizes or any("expert" in name for name in config.to_dict()):
        return None
    bias = getattr(config, "attention_bias", config.model_type == "qwen2")
    return Shape(*sizes, bias, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


@dataclass(frozen=True)
class Assumptions:
    """What no preset says. Each can be changed by `--set name=value`; none is a promise."""

    gpu_gib: float = 80.0  # memory of one GPU
    gpu_tflops: float = 989.0  # bf16, dense: NVIDIA H100 SXM data sheet
    gpu_hour_price: float = 2.5  # of one GPU; ours: about what clouds ask for an H100
    mfu_train: float = 0.4  # share of the peak, training and reading prompts; ours: usual for 7B is 0.3 to 0.5
    mfu_decode: float = 0.05  # writing tokens with vLLM; ours: bound by memory bandwidth
    reasoning_tokens: float = 1200.0  # mean answer of a reasoning teacher and of the 7B model; not stated by the paper
    teacher_prompt_price: float = 0.55  # a million tokens; DeepSeek-R1's list price of January 2025
    teacher_completion_price: float = 2.19  # a million tokens; as above
    judge_prompt_price: float = 0.4  # a million tokens, where the judge's endpoint is not local; ours
    judge_completion_price: float = 1.2  # as above
    judge_answer_tokens: float = 150.0  # reasons and verdict; ours


# ---- memory ----------------------------------------------------------------------------------------------------------


def sft_memory(shape: Shape, params: SFTParams, gpu: bool, length: int | None = None) -> dict[str, float]:
    """GiB by part for one process; `length` is the longest row in tokens, `max_length` when not given."""
    length = length or params.max_length
    tokens = params.per_device_train_batch_size * length
    parts = _resident(shape, params, gpu)
    parts["activations"] = _activations(shape, params, gpu, tokens, length)
    parts["logits"] = _head(shape, params, gpu, tokens)  # on a CPU as if every token had a label
    return {name: value / GIB for name, value in parts.items()}


def grpo_memory(shape: Shape, params: GRPOParams, gpu_gib: float | None, prompt: int) -> dict[str, dict[str, float]]:
    """{"generate", "update": GiB by part} for one process; the two follow each other, so the larger one counts.

    `prompt` is the length of the longest prompt in tokens; `gpu_gib` the memory of a GPU, None on a CPU.
    """
    gpu, size = gpu_gib is not None, shape.parameters
    rows, length = params.per_device_train_batch_size, prompt + params.max_completion_length
    resident = _resident(shape, params, gpu)
    shards = 1 if params.distributed == "ddp" else params.num_processes
    if params.beta and params.peft == "full":  # with an adapter the reference is the policy with the adapter off
        halved = params.distributed == "zero3" and params.bf16 and shards > 1
        resident["reference model"] = size * (2 if halved else 4) / shards
    if params.use_vllm and gpu_gib:
        resident["sampling"] = params.vllm_gpu_memory_utilization * gpu_gib * GIB  # taken whole, at the start
    scored = rows * (length if gpu else params.max_completion_length)
    update = resident | {
        "activations": _activations(shape, params, gpu, rows * length, length),
        "logits": _head(shape, params, gpu, scored),
    }
    generate = dict(resident)
    if not params.use_vllm:
        rows *= params.gradient_accumulation_steps
        width = 2 if params.bf16 else 4
        copied = not gpu and params.bf16 and params.peft != "qlora"  # our bf16 copy samples, each prompt once a group
        at_once = -(-rows // params.num_generations) * prompt if copied else rows * min(prompt, 512)
        whole = 0 if shards == 1 else size * width  # of a model that is split, where the policy itself samples
        generate["weights"] += 2 * size if copied else whole
        generate["sampling"] = rows * length * 2 * shape.layers * shape.kv_heads * shape.head_size * width  # KV cache
        generate["activations"] = at_once * _block_activations(shape, params, gpu, prompt)  # one block's: no gradients
        generate["logits"] = rows * shape.vocabulary * 12  # of the last token: fp32, filtered by top_p, probabilities
    phases = {"generate": generate, "update": update}
    return {phase: {name: value / GIB for name, value in parts.items()} for phase, parts in phases.items()}


def _resident(shape: Shape, params: TrainingParams, gpu: bool) -> dict[str, float]:
    """Bytes that stay for the whole training, by part, and what sharding gathers for a while; the rest is 0."""
    size, full = shape.parameters, params.peft == "full"
    shards = 1 if params.distributed == "ddp" else params.num_processes
    width = 2 if params.peft == "qlora" else 4  # TRL rounds a QLoRA adapter to bf16, and its moments are as wide
    trained = size if full else shape.adapter_parameters(params.lora_r)
    base = size * (2 if params.peft == "lora" and params.bf16 and gpu else 4)
    if params.peft == "qlora":  # 4 bits, 0.127 for doubly quantised constants; embeddings, head and norms in 16 bits
        small = shape.linear_parameters
        base = small * (4 + 0.127) / 8 + (size - small) * 2
    weights, gradients, optimizer = base + (0 if full else trained * width), trained * width, trained * 2 * width
    if params.distributed == "zero3" and shards > 1 and params.bf16:
        weights, gradients, optimizer = size * 2, trained * 2, trained * 12  # fp32 weights stay with the optimizer
    gathered = 0.0  # whole weights for a moment; on one process autocast's bf16 copies, kept for the backward pass
    if shards == 1:
        gathered = 2 * size if params.bf16 and full else 0
    elif params.distributed == "zero3":
        gathered = (2 if params.bf16 else 4) * min(size, LIVE_PARAMETERS)
    else:  # this block and the next; embedding and head
        blocks = 2 * shape.linear_parameters / shape.layers
        gathered = (2 if params.bf16 else 4) * (blocks + 2 * shape.vocabulary * shape.hidden)
    parts = {"process": CUDA_CONTEXT if gpu else CPU_PROCESS, "weights": weights / shards + gathered}
    parts |= {"gradients": gradients / shards, "optimizer": optimizer / shards}
    return parts | dict.fromkeys(("reference model", "activations", "logits", "sampling"), 0.0)


def _activations(shape: Shape, params: TrainingParams, gpu: bool, tokens: int, length: int) -> float:
    """Bytes that autograd keeps of the blocks for `tokens` tokens in rows of `length`."""
    block = _block_activations(shape, params, gpu, length)
    if params.gradient_checkpointing:  # each block's input, and one block computed again
        return tokens * (shape.layers * shape.hidden * 4 + block)
    return tokens * shape.layers * block


def _block_activations(shape: Shape, params: TrainingParams, gpu: bool, length: int) -> float:
    """Bytes of one block's activations for each token, in rows of `length`."""
    width = 2 if params.bf16 else 4
    casts = 5 * width if params.bf16 else 0  # autocast copies the input of q, k, v, gate and up, each for itself
    matrix = 0 if gpu else shape.heads * length * (4 + width)  # without sdpa: attention weights in fp32 and again
    states = 2 * (shape.heads + shape.kv_heads) * shape.head_size * width  # queries, keys, values, attention's output
    return shape.hidden * (16 + casts) + shape.intermediate * 4 * width + states + matrix


def _head(shape: Shape, params: TrainingParams, gpu: bool, tokens: int) -> float:
    """Bytes of the head: logits over the vocabulary, in TRL's tiles on a GPU, in `cpu`'s on a CPU."""
    width = 2 if params.bf16 else 4
    if not gpu:  # logits, in fp32, their log-softmax, and the gradients of the two
        return min(tokens, SCORED_AT_ONCE) * shape.vocabulary * (2 * width + 12)
    tile = min(tokens, HEAD_TOKENS) * min(shape.vocabulary, HEAD_VOCABULARY) * width
    gradient = 4 * shape.vocabulary * shape.hidden if params.peft == "full" else 0
    return tile + gradient + 2 * tokens * shape.hidden * 4


# ---- work ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """One kind of work of a stage. FLOPs are NaN where the shape of the model is unknown."""

    stage: str
    read: float = 0.0  # tokens
    written: float = 0.0
    trained: float = 0.0
    compute: float = 0.0  # FLOPs of reading and training
    decode: float = 0.0  # FLOPs of writing, which memory bandwidth slows down
    api_cost: float = 0.0  # an endpoint's, which has no FLOPs of ours

    def minutes_here(self, rates: dict[str, float]) -> float:
        """Minutes at `rates` ("sample" and "train": the embedded model's tokens/s), scaled by FLOPs for each token."""
        size = 2 * _KNOWN[EMBEDDED_MODEL].parameters
        return (self.decode / size / rates["sample"] + self.compute / (3 * size) / rates["train"]) / 60

    def cost(self, assumed: Assumptions, gpus: int) -> dict[str, Any]:
        """Tokens, FLOPs, hours on `gpus` GPUs, and money for GPUs and endpoints."""
        peak = assumed.gpu_tflops * 1e12 * 3600
        hours = self.compute / (peak * assumed.mfu_train) + self.decode / (peak * assumed.mfu_decode)
        row = {"stage": self.stage, "read": self.read, "written": self.written, "trained": self.trained}
        row |= {"exaFLOPs": (self.compute + self.decode) / 1e18, "hours": hours / gpus}
        return row | {"GPU cost": hours * assumed.gpu_hour_price, "API cost": self.api_cost}


def forward_flops(shape: Shape | None, length: float) -> float:
    """FLOPs of one token with a mean of half of `length` tokens before it; NaN for an unknown shape."""
    return math.nan if shape is None else 2 * shape.parameters + 4 * shape.layers * shape.hidden * length / 2


def training(stage: str, shape: Shape | None, params: TrainingParams, rows: float, length: float) -> Work:
    """`rows` rows of `length` tokens, forward and backward; a frozen base needs no gradients of its weights."""
    passes = (3 if params.peft == "full" else 2) + (1 if params.gradient_checkpointing else 0)
    return Work(stage, trained=rows * length, compute=rows * length * passes * forward_flops(shape, length))


def sampling(stage: str, shape: Shape | None, rows: float, prompt: float, answer: float) -> Work:
    """`rows` prompts read and answered by a model of ours."""
    read, written = rows * prompt, rows * answer
    if not rows:
        return Work(stage)
    compute, decode = read * forward_flops(shape, prompt), written * forward_flops(shape, 2 * prompt + answer)
    return Work(stage, read, written, compute=compute, decode=decode)


def plan_work(stages: dict[str, Params], assumed: Assumptions) -> list[Work]:
    """The work of every stage in order. Sampling counts the mean answer, at the most what the parameters allow."""
    data, teacher, judge, sft, grpo, benchmark = (stages[name] for name in list(STAGES)[1:7])
    shape = shape_of(sft.model_name_or_path)
    page = PAGE_TOKENS if data.max_context_chars is None else data.max_context_chars / CHARS_PER_TOKEN
    prompt = SYNTHETIC_PROMPT + (page if PAGES & set(data.source_names) else 0)
    scripted = teacher.teacher_backend in SCRIPTED
    answer = SYNTHETIC_ANSWER if scripted else min(assumed.reasoning_tokens, teacher.max_tokens)

    traces = data.num_train * teacher.num_samples
    teaching = Work("02 teacher")
    if teacher.teacher_backend == "endpoint":
        prices = (teacher.prompt_price, teacher.completion_price)
        if not any(prices):
            prices = (assumed.teacher_prompt_price, assumed.teacher_completion_price)
        cost = traces * (prompt * prices[0] + answer * prices[1]) / 1e6
        teaching = Work("02 teacher", traces * prompt, traces * answer, api_cost=cost)
    elif not scripted:
        teaching = sampling("02 teacher", shape_of(teacher.teacher_model), traces, prompt, answer)

    judging = Work("03 judge")
    if judge.judge_backend == "endpoint":
        asked = 2 * traces + 5 * judge.study_items  # answer and reasoning of each trace, and five orders of the study
        read, written = asked * (prompt + answer), asked * assumed.judge_answer_tokens
        cost = (read * assumed.judge_prompt_price + written * assumed.judge_completion_price) / 1e6
        if local := any(host in judge.judge_base_url for host in ("localhost", "127.0.0.1")):
            cost = 0.0  # it may be served under any name: hours only where its shape is known
        judging = Work("03 judge", read, written, api_cost=cost)
        if local and (judges_shape := shape_of(judge.judge_model)):
            judging = sampling("03 judge", judges_shape, asked, prompt + answer, assumed.judge_answer_tokens)

    kept = min(judge.num_sft, traces)
    trained = sft.max_steps * sft.batch_size if sft.max_steps > 0 else sft.num_train_epochs * kept
    written = min(answer, grpo.max_completion_length)
    sampled = grpo.max_steps / grpo.num_iterations * grpo.batch_size
    update = training("05 GRPO update", shape, grpo, grpo.max_steps * grpo.batch_size, prompt + written)
    if grpo.beta:  # the reference model scores each completion once
        read = sampled * (prompt + written)
        update = replace(update, read=read, compute=update.compute + read * forward_flops(shape, prompt + written))
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)  # base, SFT, GRPO and others
    benchmarks = len(data.benchmark_names) if benchmark.sampling == "paper" else 1
    items = benchmark.num_items * benchmarks * (1 + benchmark.num_samples) * models
    tries = grpo.pass_rate_candidates * grpo.pass_rate_samples
    return [
        teaching,
        judging,
        sampling("04 look before and after", shape, 2 * sft.eval_problems, prompt, min(answer, sft.eval_max_tokens)),
        training("04 SFT", shape, sft, trained, min(prompt + answer, sft.max_length)),
        sampling("05 pass rates", shape, tries, prompt, written),
        sampling("05 GRPO generate", shape, sampled, prompt, written),
        update,
        sampling("05 look before and after", shape, 2 * grpo.eval_problems, prompt, min(answer, grpo.eval_max_tokens)),
        sampling("06 benchmark", shape, items, prompt, min(answer, benchmark.max_tokens)),
    ]


# ---- the plan --------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What a preset needs. `memory`: phase -> part -> GiB for each process, empty for a model of an unknown shape."""

    preset: str
    gpus: int  # that the larger of SFT and GRPO asks for; 0: planned for a CPU
    memory: dict[str, dict[str, float]]
    work: list[Work]
    costs: list[dict[str, Any]]
    assumptions: Assumptions
    stages: dict[str, Params]
    shape: Shape | None  # of the model that is trained

    @property
    def peak_gib(self) -> float:
        """GiB that one process needs in the phase that needs most; NaN: unknown."""
        return max((sum(parts.values()) for parts in self.memory.values()), default=math.nan)


def make_plan(preset: str, changes: Sequence[str] = (), gpu: bool | None = None) -> Plan:
    """Plan `preset`; `changes` are parameters (`05_grpo.max_steps=10`) or assumptions (`mfu_train=0.3`).

    `gpu`: for GPUs or for a CPU; None: for GPUs where the preset trains more than a billion parameters. Raises
    ParameterError for an unknown preset and a wrong parameter, ValueError for an assumption that is no number.
    """
    names = {field.name for field in fields(Assumptions)}
    pairs = {change: change.partition("=")[::2] for change in changes}
    assumed = Assumptions(**{name: float(value) for name, value in pairs.values() if name in names})
    stages = load_preset(preset, preset, list(STAGES), [change for change in changes if pairs[change][0] not in names])
    data, teacher, sft, grpo = (stages[name] for name in ("01_data", "02_distillation", "04_sft", "05_grpo"))
    shape = shape_of(sft.model_name_or_path)
    processes = max(sft.num_processes, grpo.num_processes)
    if gpu is None:
        gpu = shape.parameters > 1e9 if shape else processes > 1 or grpo.use_vllm
    page = 3 * PAGE_TOKENS if data.max_context_chars is None else data.max_context_chars / CHARS_PER_TOKEN
    longest = SYNTHETIC_PROMPT + int(page) if PAGES & set(data.source_names) else 2 * SYNTHETIC_PROMPT
    written = 4 * SYNTHETIC_PROMPT if teacher.teacher_backend in SCRIPTED else teacher.max_tokens
    memory = {}
    if shape:
        memory = {"04 SFT": sft_memory(shape, sft, gpu, min(sft.max_length, longest + written))}
        phases = grpo_memory(shape, grpo, assumed.gpu_gib if gpu else None, longest)
        memory |= {f"05 GRPO {phase}": parts for phase, parts in phases.items()}
    work = plan_work(stages, assumed)
    costs = [item.cost(assumed, processes if gpu else 1) for item in work]
    return Plan(preset, processes if gpu else 0, memory, work, costs, assumed, stages, shape)


def capacity() -> tuple[int, float]:
    """(number of GPUs, GiB of the smallest); without a GPU (0, GiB of main memory)."""
    import psutil
    import torch

    count = torch.cuda.device_count()
    gpus = [torch.cuda.get_device_properties(place).total_memory for place in range(count)]
    return count, min(gpus, default=psutil.virtual_memory().total) / GIB


def presets_here(count: int, gib: float) -> list[dict[str, Any]]:
    """One row per preset: processes, GiB in each, and whether `count` GPUs (0: a CPU) of `gib` hold that, in words."""
    rows = []
    for preset in preset_names():
        row = {"preset": preset, "processes": None, "GiB each": math.nan, "fits": "unknown"}
        try:
            plan = make_plan(preset, [f"gpu_gib={gib}"] if count else [], gpu=count > 0)
        except ParameterError:  # another preset's fault must not end this one's plan
            plan = None
        if plan and plan.memory:
            fits = plan.peak_gib <= gib and plan.gpus <= count
            row |= {"processes": max(plan.gpus, 1), "GiB each": plan.peak_gib, "fits": "yes" if fits else "no"}
        rows.append(row)
    return rows


def advice(plan: Plan, count: int, gib: float) -> list[str]:
    """A few lines to know before this plan is run on `count` GPUs (0: a CPU) of `gib` GiB."""
    lines, grpo, assumed = [], plan.stages["05_grpo"], plan.assumptions
    if plan.memory:
        phase, parts = max(plan.memory.items(), key=lambda item: sum(item[1].values()))
        part = max(parts, key=parts.get)
        lines.append(f"{phase} needs most: {plan.peak_gib:.1f} GiB in each process, {parts[part]:.1f} of them {part}")
    else:
        model = plan.stages["04_sft"].model_name_or_path
        lines.append(f"the shape of {model} is unknown: no GiB, no hours; `hf download {model} config.json` helps")
    if plan.gpus and not count:
        lines.append("this machine has no GPU: a model of this size will not train here in reasonable time")
    elif plan.gpus > count:
        lines.append(f"the preset asks for {plan.gpus} GPUs, here are {count}: lower num_processes")
    elif plan.peak_gib > gib:
        lines.append(f"here are {gib:.0f} GiB: lower per_device_train_batch_size or lengths, or use LoRA or QLoRA")
    if plan.gpus and plan.peak_gib > assumed.gpu_gib:
        lines.append(f"more than the {assumed.gpu_gib:.0f} GiB assumed for a GPU")
    vllm = plan.memory and grpo.use_vllm and plan.memory["05 GRPO generate"]["sampling"]
    if vllm and vllm < (needed := 2 * plan.shape.parameters / GIB):
        share = "vllm_gpu_memory_utilization"
        lines.append(f"vLLM gets {vllm:.1f} GiB and its weights alone take {needed:.1f}: raise {share}")
    return lines


# ---- the command -----------------------------------------------------------------------------------------------------


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `plan` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "plan",
        help="what a preset needs before anything is spent: GiB on each GPU, tokens, hours, cost",
        description="Memory, tokens, FLOPs, hours and cost of a preset by formula. Assumptions are listed with the "
        "result; --set changes them (mfu_train=0.3) and parameters (05_grpo.max_steps=10).",
    )
    parser.add_argument("--preset", default="demo", help="folder of params/ (default: demo)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a parameter or an assumption")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.set_defaults(command=print_plan)


def print_plan(options: argparse.Namespace) -> int:
    """Print the plan; returns 2 with the reason for a wrong preset, parameter or value."""
    try:
        plan = make_plan(options.preset, options.set)
    except ValueError as error:  # a ParameterError is one
        print(error, file=sys.stderr)
        return 2
    count, gib = capacity()
    result = {"preset": plan.preset, "gpus": plan.gpus, "memory_gib": plan.memory, "costs": plan.costs,
              "assumptions": asdict(plan.assumptions), "presets_here": presets_here(count, gib),
              "advice": advice(plan, count, gib)}  # fmt: skip
    if options.json:
        plain = json.loads(json.dumps(result), parse_constant=lambda name: None)  # JSON has no NaN
        print(json.dumps(plain, indent=1))
        return 0
    import pandas as pd

    memory = pd.DataFrame(plan.memory).T.assign(sum=lambda table: table.sum(axis=1))
    costs = pd.DataFrame(plan.costs).set_index("stage")
    costs.loc["all"] = costs.sum(skipna=False)
    form = {"float_format": "{:,.2f}".format, "na_rep": "unknown"}
    where = f"{plan.gpus} GPUs" if plan.gpus else "a CPU"
    hardware = f"{plan.gpus or 1} GPUs of {plan.assumptions.gpu_tflops:g} TFLOP/s"
    print(f"{plan.preset}, planned for {where}\n\nGiB in each process")
    print(memory.loc[:, memory.any()].to_string(**form) if plan.memory else "unknown")
    print(f"\nTokens, and hours on {hardware}\n{costs.to_string(**form)}")
    print("\nAssumed (--set changes them): " + ", ".join(f"{k} = {v:g}" for k, v in result["assumptions"].items()))
    print(f"\nOn this machine\n{pd.DataFrame(result['presets_here']).to_string(index=False, **form)}\n")
    print("\n".join(f"- {line}" for line in result["advice"]))
    return 0
