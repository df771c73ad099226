"""A preset before anything is spent: GiB in each process, tokens, FLOPs, hours and cost.

`python -m finr1 plan --preset paper [--set NAME=VALUE] [--json]`. A model of unknown shape has tokens and prices, but
neither GiB nor hours: a plan never stops a run. Nothing is added for fragmentation: `benchmarks/plan_calibration.py`
compares planned and measured memory. (`accelerate estimate-memory` covers weights and Adam only.)
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from finr1.cpu import SCORED_AT_ONCE
from finr1.models import EMBEDDED_MODEL
from finr1.params import STAGES, GRPOParams, ParameterError, Params, TrainingParams
from finr1.paths import preset_names, resolve
from finr1.pipeline import load_preset

GIB = 2**30
CUDA_CONTEXT, CPU_PROCESS = 1.0, 0.75  # GiB of a process without any model; the second is measured, with torch and TRL
GATHERED = 1e9  # parameters that sharding makes whole for a moment: DeepSpeed's default stage3_max_live_parameters
HEAD_TILE = 4096 * 32768  # logits that TRL computes at once on a GPU: trl/kernels/chunked_logprob.py
PREFILL = 512  # prompt tokens that are read at once where the policy itself samples
CHAT, SOLUTION = 75, 50  # mean tokens of a synthetic problem's chat and of its solution, measured
PAGE_CHARS, CHARS_PER_TOKEN = 4000, 3.5  # median page of FinQA, whose longest is three times as long; both measured
PAGES = {"finqa", "convfinqa"}  # sources whose questions come with a page of a report
SCRIPTED = ("scripted", "derived")  # teachers that are no model

# What no preset says. `--set NAME=VALUE` changes each; none is a promise.
ASSUMED = {
    "gpu_gib": 80.0,  # memory of one GPU
    "gpu_tflops": 989.0,  # bf16, dense: NVIDIA H100 SXM data sheet
    "gpu_hour_price": 2.5,  # ours: about what clouds ask for an H100
    "mfu_train": 0.4,  # share of the peak, training and reading prompts; ours: usual for 7B is 0.3 to 0.5
    "mfu_decode": 0.05,  # the same for writing tokens with vLLM; ours: bound by memory bandwidth
    "reasoning_tokens": 1200.0,  # mean answer of a reasoning teacher and of the 7B model; not stated by the paper
    "judge_answer_tokens": 150.0,  # reasons and verdict; ours
    "api_prompt_price": 0.55,  # a million tokens at an endpoint; DeepSeek-R1's list price of January 2025
    "api_completion_price": 2.19,  # as above
}


class Shape(NamedTuple):
    """A decoder with grouped-query attention and a gated MLP (Llama, Qwen), as its config.json states it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # the head is the embedding
    head_size: int

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' q, k, v, o, gate, up and down: what QLoRA stores in 4 bits."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_size
        return self.layers * self.hidden * (attention + 3 * self.intermediate)

    @property
    def parameters(self) -> int:
        """All parameters but norms and biases, which are less than a thousandth."""
        return self.linear_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)


# Models of the presets, whose config.json may not be here yet; Qwen2.5 as in table 1 of its report (arXiv 2412.15115).
_KNOWN = {
    EMBEDDED_MODEL: Shape(30, 576, 1536, 9, 3, 49152, True, 64),
    "Qwen2.5-7B": Shape(28, 3584, 18944, 28, 4, 152064, False, 128),
    "Qwen2.5-72B": Shape(80, 8192, 29568, 64, 8, 152064, False, 128),
}


def shape_of(model: str) -> Shape | None:
    """Shape of a model folder or a hub id: known, or read from its config without asking the hub; None: unknown.

    A mixture of experts is unknown, too: the formulas here are for one dense MLP in each block.
    """
    if known := _KNOWN.get(model) or _KNOWN.get(model.rpartition("/")[2].removesuffix("-Instruct")):
        return known
    from transformers import AutoConfig

    folder = resolve(model)
    try:
        config = AutoConfig.from_pretrained(folder if folder.is_dir() else model, local_files_only=True)
        text = config.get_text_config()
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        shape = Shape(text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.num_attention_heads,
                      text.num_key_value_heads, text.vocab_size, text.tie_word_embeddings, head_size)  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError):  # no config here, or of a kind without these sizes
        return None
    return None if any("expert" in name for name in text.to_dict()) else shape


def training_memory(shape: Shape, params: TrainingParams, length: float, gpu_gib: float | None) -> dict[str, float]:
    """GiB by part in each process that trains on rows of `length` tokens; `gpu_gib`: of a GPU, None on a CPU.

    Weights, gradients and Adam's moments in fp32 are 4, 4 and 8 bytes for each parameter, split over the processes but
    by DDP (ZeRO, arXiv 1910.02054; its bf16 moves bytes from part to part, not in sum). QLoRA (arXiv 2305.14314) has
    4.127 bits for each weight of a block, the rest in 16. LoRA (arXiv 2106.09685) is on every linear layer of a block.
    """
    size, in_blocks, width = shape.parameters, shape.linear_parameters, 2 if params.bf16 else 4
    shards = 1 if params.distributed == "ddp" else params.num_processes
    full, heads = params.peft == "full", 2 * (shape.heads + shape.kv_heads) * shape.head_size
    adapter = shape.layers * params.lora_r * (7 * shape.hidden + heads + 3 * shape.intermediate)
    trained = size if full else adapter
    frozen = {"full": 0, "lora": size * (width if gpu_gib else 4), "qlora": in_blocks * 0.516 + (size - in_blocks) * 2}
    weights = (frozen[params.peft] + 4 * trained) / shards
    if shards > 1:
        weights += width * min(size, GATHERED)
    elif full and params.bf16:
        weights += 2 * size  # autocast's copies, kept for the backward pass

    tokens, block = params.per_device_train_batch_size * length, _block_bytes(shape, params, length, gpu_gib)
    # With checkpointing each block's input, and one block computed again.
    blocks = shape.layers * shape.hidden * 4 + block if params.gradient_checkpointing else shape.layers * block
    if gpu_gib:  # one tile of logits, and the head's gradient
        logits = HEAD_TILE * width + (4 * shape.vocabulary * shape.hidden if full else 0)
    else:  # logits, in fp32, their log-softmax, and the gradients of the two
        logits = min(tokens, SCORED_AT_ONCE) * shape.vocabulary * (2 * width + 12)
    sampling = 0.0
    if isinstance(params, GRPOParams):
        if params.beta and full:  # the reference model; with an adapter it is the policy with the adapter off
            weights += 4 * size / shards
        if params.use_vllm and gpu_gib:  # taken whole, at the start
            sampling = params.vllm_gpu_memory_utilization * gpu_gib * GIB
    parts = {"weights": weights, "gradients": 4 * trained / shards, "optimizer": 8 * trained / shards,
             "activations": tokens * blocks + logits, "sampling": sampling}  # fmt: skip
    process = CUDA_CONTEXT if gpu_gib else CPU_PROCESS
    return {"process": process} | {name: value / GIB for name, value in parts.items()}


def sampling_memory(shape: Shape, params: GRPOParams, prompt: float, gpu_gib: float | None) -> dict[str, float]:
    """The same while GRPO samples for prompts of `prompt` tokens: the KV cache in place of activations."""
    parts = training_memory(shape, params, prompt, gpu_gib) | {"activations": 0.0}
    if not params.use_vllm:
        width = 2 if params.bf16 else 4
        rows = params.per_device_train_batch_size * params.gradient_accumulation_steps
        cache = 2 * shape.layers * shape.kv_heads * shape.head_size * width * (prompt + params.max_completion_length)
        read = min(prompt, PREFILL) * _block_bytes(shape, params, prompt, gpu_gib)  # one block's: no gradients
        split = params.distributed != "ddp" and params.num_processes > 1
        copy = shape.parameters * width if split or not gpu_gib else 0  # whole weights; on a CPU our bf16 copy samples
        parts["sampling"] = (rows * (cache + read) + copy) / GIB
    return parts


def _block_bytes(shape: Shape, params: TrainingParams, length: float, gpu_gib: float | None) -> float:
    """Bytes that autograd keeps of one block for each token, in rows of `length` (arXiv 2205.05198, for this MLP).

    In units of `hidden`: 16 bytes for norms and residuals in fp32; queries, keys, values and attention's output; five
    copies by autocast. Without sdpa (CPU) also the attention weights, in fp32 and again.
    """
    width = 2 if params.bf16 else 4
    matrix = 0 if gpu_gib else shape.heads * length * (4 + width)
    return shape.hidden * (16 + (9 if params.bf16 else 4) * width) + shape.intermediate * 4 * width + matrix


def forward_flops(shape: Shape | None, length: float) -> float:
    """FLOPs of one token with a mean of half of `length` tokens before it; NaN for an unknown shape.

    2 N (Kaplan et al., arXiv 2001.08361) and attention (PaLM, arXiv 2204.02311, appendix B).
    """
    return math.nan if shape is None else 2 * shape.parameters + 4 * shape.layers * shape.hidden * length / 2


def work_row(
    stage: str, shape: Shape | None, rows: float, read: float = 0.0, written: float = 0.0, trained: float = 0.0,
    params: TrainingParams | None = None, prices: tuple[float, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Tokens, exaFLOPs and price of `rows` rows with `read`, `written` and `trained` tokens each.

    `params`: of the training. `prices`: an endpoint's for a million tokens read and written; its FLOPs are not ours.
    """
    compute = decode = cost = 0.0
    # Backward is two forward passes, one with a frozen base; checkpointing is one more.
    passes = (3 if params.peft == "full" else 2) + params.gradient_checkpointing if params else 0
    if prices:
        cost = rows * (read * prices[0] + written * prices[1]) / 1e6
    elif rows:
        compute = rows * (read * forward_flops(shape, read) + passes * trained * forward_flops(shape, trained))
        decode = rows * written * forward_flops(shape, 2 * read + written)
    tokens = {"read": rows * read, "written": rows * written, "trained": rows * trained}
    return {"stage": stage, **tokens, "exaFLOPs": compute / 1e18, "exaFLOPs writing": decode / 1e18, "API cost": cost}


def work_table(stages: dict[str, Params], prompt: float, assumed: dict[str, float], gpus: int) -> list[dict[str, Any]]:
    """One row per kind of work, in order: tokens, FLOPs, hours on `gpus` GPUs, prices.

    `prompt`: the mean in tokens. Sampling counts the mean answer, at the most what the parameters allow. The looks of
    04 and 05 at a few answers are left out.
    """
    data, teacher, judge, sft, grpo, benchmark = (stages[name] for name in list(STAGES)[1:7])
    shape, prices = shape_of(sft.model_name_or_path), (assumed["api_prompt_price"], assumed["api_completion_price"])
    scripted = teacher.teacher_backend in SCRIPTED
    answer = SOLUTION if scripted else min(assumed["reasoning_tokens"], teacher.max_tokens)
    traces = data.num_train * teacher.num_samples
    teachers, teachers_prices = None, (teacher.prompt_price or prices[0], teacher.completion_price or prices[1])
    if not scripted and teacher.teacher_backend != "endpoint":
        teachers, teachers_prices = shape_of(teacher.teacher_model), None
    asked, judges, judges_prices = 0, None, prices
    if judge.judge_backend == "endpoint":
        asked = 2 * traces + 5 * judge.study_items  # answer and reasoning of each trace, and five orders of the study
        if any(host in judge.judge_base_url for host in ("localhost", "127.0.0.1")):
            judges = shape_of(judge.judge_model)  # it may be served under any name: hours only where it is known
            judges_prices = None if judges else (0.0, 0.0)
    rows = sft.max_steps * sft.batch_size if sft.max_steps > 0 else sft.num_train_epochs * min(judge.num_sft, traces)
    updated, written = grpo.max_steps * grpo.batch_size, min(answer, grpo.max_completion_length)
    generated = updated / grpo.num_iterations
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)  # base, SFT, GRPO and others
    benchmarks = len(data.benchmark_names) if benchmark.sampling == "paper" else 1
    items = benchmark.num_items * benchmarks * (1 + benchmark.num_samples) * models
    table = [
        work_row("02 teacher", teachers, 0 if scripted else traces, prompt, answer, prices=teachers_prices),
        work_row("03 judge", judges, asked, prompt + answer, assumed["judge_answer_tokens"], prices=judges_prices),
        work_row("04 SFT", shape, rows, trained=min(prompt + answer, sft.max_length), params=sft),
        work_row("05 pass rates", shape, grpo.pass_rate_candidates * grpo.pass_rate_samples, prompt, written),
        work_row("05 GRPO generate", shape, generated, prompt, written),
        work_row("05 GRPO reference", shape, generated if grpo.beta else 0, prompt + written),
        work_row("05 GRPO update", shape, updated, trained=prompt + written, params=grpo),
        work_row("06 benchmark", shape, items, prompt, min(answer, benchmark.max_tokens)),
    ]
    peak = assumed["gpu_tflops"] * 3600 / 1e6  # exaFLOPs in an hour
    for row in table:
        hours = (row["exaFLOPs"] / assumed["mfu_train"] + row["exaFLOPs writing"] / assumed["mfu_decode"]) / peak
        row |= {"hours": hours / gpus, "GPU cost": hours * assumed["gpu_hour_price"]}
    return table


class Plan(NamedTuple):
    """What a preset needs. `memory`: phase -> part -> GiB in each process, empty for a model of unknown shape."""

    preset: str
    gpus: int  # that the larger of SFT and GRPO asks for; 0: planned for a CPU
    peak_gib: float  # in the phase that needs most; NaN: unknown
    memory: dict[str, dict[str, float]]
    costs: list[dict[str, Any]]  # of `work_table`
    assumptions: dict[str, float]


def make_plan(preset: str, changes: Sequence[str] = ()) -> Plan:
    """Plan `preset`, for GPUs where it trains more than a billion parameters, else for a CPU.

    `changes` are parameters (`05_grpo.max_steps=10`) or assumptions (`mfu_train=0.3`). Raises ParameterError for an
    unknown preset and a wrong parameter, ValueError for an assumption that is no number.
    """
    pairs = [change.partition("=")[::2] for change in changes]
    assumed = ASSUMED | {name: float(value) for name, value in pairs if name in ASSUMED}
    stages = load_preset(preset, preset, list(STAGES), [c for c in changes if c.partition("=")[0] not in ASSUMED])
    data, teacher, sft, grpo = (stages[name] for name in ("01_data", "02_distillation", "04_sft", "05_grpo"))
    shape, processes = shape_of(sft.model_name_or_path), max(sft.num_processes, grpo.num_processes)
    on_gpu = shape.parameters > 1e9 if shape else processes > 1 or grpo.use_vllm
    gpus, gpu_gib = (processes, assumed["gpu_gib"]) if on_gpu else (0, None)

    page, longest = 0.0, 2.0 * CHAT  # tokens of the mean page and of the longest prompt
    if PAGES & set(data.source_names):
        page = (data.max_context_chars or PAGE_CHARS) / CHARS_PER_TOKEN
        longest = CHAT + page * (1 if data.max_context_chars else 3)
    answer = 6 * SOLUTION if teacher.teacher_backend in SCRIPTED else teacher.max_tokens
    memory = {}
    if shape:
        memory["04 SFT"] = training_memory(shape, sft, min(sft.max_length, longest + answer), gpu_gib)
        memory["05 GRPO generate"] = sampling_memory(shape, grpo, longest, gpu_gib)
        memory["05 GRPO update"] = training_memory(shape, grpo, longest + grpo.max_completion_length, gpu_gib)
    peak = max((sum(parts.values()) for parts in memory.values()), default=math.nan)
    costs = work_table(stages, CHAT + page, assumed, max(gpus, 1))
    return Plan(preset, gpus, peak, memory, costs, assumed)


def capacity() -> tuple[int, float]:
    """(number of GPUs, GiB of the smallest); without a GPU (0, GiB of main memory)."""
    import psutil
    import torch

    count = torch.cuda.device_count()
    gpus = [torch.cuda.get_device_properties(place).total_memory for place in range(count)]
    return count, min(gpus, default=psutil.virtual_memory().total) / GIB


def presets_here(count: int, gib: float) -> list[dict[str, Any]]:
    """One row per preset: GPUs, GiB in each process, and whether `count` GPUs (0: a CPU) of `gib` hold it, in words."""
    rows = []
    for preset in preset_names():
        row = {"preset": preset, "GPUs": math.nan, "GiB each": math.nan, "fits": "unknown: a fault in its parameters"}
        with suppress(ParameterError):  # it must not end another preset's plan
            plan = make_plan(preset, [f"gpu_gib={gib}"] if count else [])
            row |= {"GPUs": plan.gpus, "GiB each": plan.peak_gib, "fits": "yes"}
            if not plan.memory:
                row["fits"] = "unknown: its model's shape; `hf download MODEL config.json` helps"
            elif plan.gpus > count:
                row["fits"] = f"no: {plan.gpus} GPUs asked for, here are {count}"
            elif plan.peak_gib > gib:
                row["fits"] = f"no: here are {gib:.0f} GiB; smaller batches or lengths, LoRA or QLoRA would help"
        rows.append(row)
    return rows


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `plan` to the commands of `python -m finr1`."""
    parser = commands.add_parser("plan", help="what a preset needs before anything is spent: GiB, tokens, hours, cost")
    parser.add_argument("--preset", default="demo", help="folder of params/ (default: demo)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a parameter or an assumption")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.set_defaults(command=print_plan)


def print_plan(options: argparse.Namespace) -> int:
    """Print the plan as text or JSON; returns 2 with the reason for a wrong preset, parameter or value."""
    try:
        plan = make_plan(options.preset, options.set)
    except ValueError as error:  # a ParameterError is one
        print(error, file=sys.stderr)
        return 2
    result = plan._asdict() | {"presets_here": presets_here(*capacity())}
    if options.json:
        plain = json.loads(json.dumps(result), parse_constant=lambda name: None)  # JSON has no NaN
        print(json.dumps(plain, indent=1))
        return 0
    import pandas as pd

    costs = pd.DataFrame(plan.costs).set_index("stage")
    costs.loc["all"] = costs.sum(skipna=False)
    memory = pd.DataFrame(plan.memory).T.assign(sum=lambda table: table.sum(axis=1))
    tables = {
        f"GiB in each process, on {plan.gpus} GPUs (0: a CPU)": memory,
        "Tokens, FLOPs, hours and money": costs,
        "Assumed (--set changes them)": pd.Series(plan.assumptions).to_frame("value"),
        "Presets on this machine": pd.DataFrame(result["presets_here"]).set_index("preset"),
    }
    for title, table in tables.items():
        text = "unknown" if table.empty else table.to_string(float_format="{:,.2f}".format, na_rep="unknown")
        print(f"{title}\n{text}\n")
    return 0
