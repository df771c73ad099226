"""GiB that training takes on each GPU (or in each process on a CPU), part by part, from shapes and parameters.

Sources: ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) for weights, gradients and Adam's moments and how they are
split; QLoRA (Dettmers et al. 2023, arXiv 2305.14314) for 4-bit weights; activations are counted as Korthikanti et al.
2022 (arXiv 2205.05198) do, tensor by tensor as autograd keeps them for transformers' Llama and Qwen2 code; the head as
TRL 1.16 computes it (`trl/kernels/chunked_logprob.py`). Nothing is added for fragmentation: `finr1.plan.calibration`
reports how far measured peaks lie from these numbers.
"""

from __future__ import annotations

from typing import Any

from finr1.cpu import PREFILL_TOKENS, SCORED_AT_ONCE
from finr1.params import GRPOParams, SFTParams, TrainingParams
from finr1.plan.shapes import Shape

GIB = 2**30
PARTS = (
    "process", "weights", "gradients", "optimizer", "reference model", "activations", "logits", "KV cache", "vLLM",
)  # fmt: skip
CUDA_CONTEXT = 1.0 * GIB  # driver, kernels and cuBLAS workspaces of one process; usual for current GPUs
CPU_PROCESS = 0.75 * GIB  # Python with torch, TRL and datasets imported, measured
LIVE_PARAMETERS = 1e9  # DeepSpeed's default stage3_max_live_parameters
HEAD_TOKENS, HEAD_VOCABULARY = 4096, 32768  # tile of TRL's head: TOKEN_CHUNK_SIZE x _CHUNKED_LOGPROB_CHUNK_SIZE


def sft_memory(shape: Shape, params: SFTParams, gpu: bool, length: int | None = None) -> dict[str, float]:
    """GiB by part for one process; `length` is the longest row in tokens, `max_length` when not given."""
    tokens = params.per_device_train_batch_size * (length or params.max_length)
    parts = _resident(shape, params, gpu)
    parts["activations"] = _activations(shape, params, gpu, tokens, length or params.max_length)
    parts["logits"] = _head(shape, params, gpu, tokens)  # on a CPU as if every token had a label
    return _gib(parts)


def grpo_memory(shape: Shape, params: GRPOParams, gpu_gib: float | None, prompt: int) -> dict[str, dict[str, float]]:
    """{"generate", "update": GiB by part} for one process; the two follow each other, so the larger one counts.

    `prompt` is the length of the longest prompt in tokens; `gpu_gib` the memory of a GPU, None on a CPU.
    """
    gpu = gpu_gib is not None
    length = prompt + params.max_completion_length
    resident = _resident(shape, params, gpu)
    if params.beta and params.peft == "full":
        resident["reference model"] = _reference(shape, params)
    if params.use_vllm and params.vllm_mode == "colocate" and gpu_gib:
        resident["vLLM"] = params.vllm_gpu_memory_utilization * gpu_gib * GIB  # taken whole, at the start
    update = dict(resident)
    tokens = params.per_device_train_batch_size * length
    update["activations"] = _activations(shape, params, gpu, tokens, length)
    scored = tokens if gpu else params.per_device_train_batch_size * params.max_completion_length
    update["logits"] = _head(shape, params, gpu, scored)
    generate = dict(resident)  # nothing is kept for a backward pass: one block's activations count, at the prompts
    if not params.use_vllm:
        rows = params.per_device_train_batch_size * params.gradient_accumulation_steps
        generate["KV cache"] = rows * length * kv_bytes_per_token(shape, 2 if params.bf16 else 4)
        copied = _samples_from_a_copy(params, gpu)  # each prompt of a group once, whole; else all of them in pieces
        at_once = -(-rows // params.num_generations) * prompt if copied else rows * min(prompt, PREFILL_TOKENS)
        generate["activations"] = at_once * _block_activations(shape, params, gpu, prompt)
        generate["logits"] = rows * shape.vocabulary * 4 * 3  # the last token's: fp32, filtered by top_p, probabilities
        generate["weights"] += _sampling_weights(shape, params, gpu)
    return {"generate": _gib(generate), "update": _gib(update)}


def kv_bytes_per_token(shape: Shape, width: int) -> int:
    """Keys and values of one token in all layers, `width` bytes a number."""
    return 2 * shape.layers * shape.kv_size * width


def _resident(shape: Shape, params: TrainingParams, gpu: bool) -> dict[str, float]:
    """Bytes that stay for the whole training: weights, gradients, optimizer, and what sharding gathers for a while."""
    size, shards = shape.parameters, shards_of(params)
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0) | {"process": CUDA_CONTEXT if gpu else CPU_PROCESS}
    trained = size if params.peft == "full" else shape.adapter_parameters(params.lora_r)
    if params.peft == "qlora":
        # 4 bits and 0.127 for the doubly quantised constants; embeddings, head and norms stay in 16 bits.
        small = shape.linear_parameters
        base = small * (4 + 0.127) / 8 + (size - small) * 2
    else:
        base = size * (2 if params.peft == "lora" and params.bf16 and gpu else 4)
    width = 2 if params.peft == "qlora" else 4  # TRL rounds a QLoRA adapter to bf16, and its moments are as wide
    parts["weights"] = base / shards + (0 if params.peft == "full" else trained * width / shards)
    parts["gradients"] = trained * width / shards
    parts["optimizer"] = trained * 2 * width / shards  # Adam's two moments
    if params.distributed == "zero3" and shards > 1 and params.bf16:
        # ZeRO keeps the fp32 weights with the optimizer; weights and gradients are 16 bits: 2 + 2 + 12 bytes.
        parts |= {"weights": size * 2 / shards, "gradients": trained * 2 / shards, "optimizer": trained * 12 / shards}
    parts["weights"] += _gathered(shape, params)
    if params.bf16 and params.peft == "full" and shards == 1:
        parts["weights"] += 2 * size  # autocast's bf16 copies, kept from forward to backward
    return parts


def shards_of(params: TrainingParams) -> int:
    """Over how many processes weights, gradients and optimizer are split; 1: each holds all."""
    return 1 if params.distributed == "ddp" else params.num_processes


def _gathered(shape: Shape, params: TrainingParams) -> float:
    """Whole weights that are there for a moment where each process holds a part."""
    if shards_of(params) == 1:
        return 0.0
    width = 2 if params.bf16 else 4
    if params.distributed == "zero3":
        return width * min(shape.parameters, LIVE_PARAMETERS)
    block = shape.linear_parameters / shape.layers
    return width * (2 * block + 2 * shape.vocabulary * shape.hidden)  # this block and the next; embedding and head


def _reference(shape: Shape, params: GRPOParams) -> float:
    """The frozen starting model for the KL term; with an adapter it is the policy with the adapter switched off."""
    width = 2 if params.distributed == "zero3" and params.bf16 and shards_of(params) > 1 else 4
    return shape.parameters * width / shards_of(params)


def _sampling_weights(shape: Shape, params: GRPOParams, gpu: bool) -> float:
    """What transformers' sampling adds: our bf16 copy on a CPU; the whole model where it is split."""
    if not gpu:
        return 2.0 * shape.parameters if _samples_from_a_copy(params, gpu) else 0.0
    return 0.0 if shards_of(params) == 1 else shape.parameters * (2 if params.bf16 else 4)


def _activations(shape: Shape, params: TrainingParams, gpu: bool, tokens: int, length: int) -> float:
    """Bytes that autograd keeps of the blocks for `tokens` tokens in rows of `length`."""
    per_token = _block_activations(shape, params, gpu, length)
    if params.gradient_checkpointing:  # each block's input, and one block computed again
        return tokens * (shape.layers * shape.hidden * 4 + per_token)
    return tokens * shape.layers * per_token


def _block_activations(shape: Shape, params: TrainingParams, gpu: bool, length: int) -> float:
    """Bytes of one block's activations a token, in rows of `length`."""
    width = 2 if params.bf16 else 4
    casts = 5 * width if params.bf16 else 0  # autocast copies the input of q, k, v, gate and up, each for itself
    per_token = shape.hidden * (16 + casts)  # two norms: input and normalised input in fp32
    per_token += shape.intermediate * 4 * width  # gate, its activation, up, their product
    per_token += 2 * (shape.hidden + shape.kv_size) * width  # queries, keys, values, attention's output
    implementation = "sdpa" if gpu else "grouped"
    if implementation == "eager":  # keys and values repeated for each head
        per_token += 2 * shape.hidden * width
    if implementation in ("eager", "grouped"):  # the matrix of weights in fp32 and again
        per_token += shape.heads * length * (4 + width)
    return per_token


def _head(shape: Shape, params: TrainingParams, gpu: bool, tokens: int) -> float:
    """Bytes of the head: logits over the vocabulary, in TRL's tiles on a GPU, all at once on a CPU."""
    width = 2 if params.bf16 else 4
    if not gpu:  # `finr1.completion_head`: logits, in fp32, their log-softmax, and the gradients of the two
        return min(tokens, SCORED_AT_ONCE) * shape.vocabulary * (2 * width + 12)
    tile = min(tokens, HEAD_TOKENS) * min(shape.vocabulary, HEAD_VOCABULARY) * width
    gradient = 4 * shape.vocabulary * shape.hidden if params.peft == "full" else 0
    return tile + gradient + 2 * tokens * shape.hidden * 4


def _gib(parts: dict[str, float]) -> dict[str, Any]:
    return {name: value / GIB for name, value in parts.items()}


def _samples_from_a_copy(params: GRPOParams, gpu: bool) -> bool:
    return not params.use_vllm and not gpu and params.bf16 and params.peft != "qlora"
