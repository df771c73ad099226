"""Answers from this machine: a transformers model, vLLM, or a plain function."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finr1.cpu import generation_inputs
from finr1.generation.request import Completion, Job, Request, SamplingParams
from finr1.models import is_adapter, load_model, load_tokenizer, whole_model

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig

_BLOCK = 1 << 20  # bytes
_BLOCKS_PER_FILE = 256


@dataclass
class ScriptedBackend:
    """`function(request, sampling, sample) -> text`, under a `name` that changes when the function's answers do.

    Equal chats are asked once: a function that looks at `request.id` must not be given one chat under two ids.
    What the function raises goes through; the answers before are stored.
    """

    function: Callable[[Request, SamplingParams, int], str]
    name: str

    @property
    def fingerprint(self) -> str:
        return f"scripted:{self.name}"

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` in their order, see `Backend`."""
        for job in jobs:
            if stop():
                return
            yield [job.completion(self.function(job.request, sampling, job.sample))]

    def unload(self) -> None:
        """Nothing to free."""


def batch_that_fits(max_tokens: int, most: int = 64) -> int:
    """`batch_size` for answers of up to `max_tokens`: `most`, or fewer where their keys and values would fill a GPU.

    32,768 tokens of answers in a batch: 1.9 GB for a 7B model of the Qwen2.5 family, in bf16; prompts come on top.
    """
    return max(1, min(most, 32_768 // max_tokens))


class TransformersBackend:
    """Batched decoding of a folder or hub id with transformers; loads at the first use.

    Plain temperature and top-p: a folder's `generation_config.json` (with its top-k) is ignored, and the text ends at
    the tokenizer's end token. Prompts go longest first, so that a lack of memory shows at once. The random state of a
    batch comes from the keys in it: the same requests give the same text, and a run that was cut off and goes on with
    the same requests ends up with what it would have had, because batches are stored whole. In other company a request
    may get another text: sampled for sure, greedy where rounding decides. What the prompts of a batch begin with, and
    equal prompts, are computed once (`finr1.generation.prefill`). Continuous batching was measured and does not pay on
    a CPU (`benchmarks/cpu_sampling.py`: a fifth of the speed); on GPUs vLLM is the way. The
    folder may be an adapter's (peft): its base model is loaded first.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        dtype: str = "bfloat16",
        batch_size: int = 64,
        device: str | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        """`device`: CUDA where there is one. `attn_implementation`: the fastest here, see `finr1.models`.

        Raises `FileNotFoundError` for a path that is no model folder.
        """
        self.model_name_or_path = str(model_name_or_path)
        self.dtype = dtype
        self.batch_size = batch_size
        self.device = device
        self.attn_implementation = attn_implementation
        self.fingerprint = f"transformers:{model_fingerprint(self.model_name_or_path)}:{dtype}"
        self._model = self._tokenizer = None

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` batch by batch, see `Backend`. A prompt that leaves no room for `max_tokens` is an error."""
        self._load()
        prompts = {job.key: self._prompt(job.request) for job in jobs}
        room = getattr(self._model.config, "max_position_embeddings", float("inf")) - sampling.max_tokens
        too_long = [job for job in jobs if len(prompts[job.key]) > room]
        if too_long:
            message = "prompt of {} tokens, but max_tokens={} leaves the model room for {}"
            sizes = [(job, len(prompts[job.key])) for job in too_long]
            yield [job.failure(message.format(size, sampling.max_tokens, max(room, 0))) for job, size in sizes]
        fitting = [job for job in jobs if len(prompts[job.key]) <= room]
        # Cut into batches from the front: a run that goes on after some whole batches cuts the rest the same way.
        fitting.sort(key=lambda job: -len(prompts[job.key]))
        for start in range(0, len(fitting), self.batch_size):
            if stop():
                return
            batch = fitting[start : start + self.batch_size]
            yield self._complete_batch(batch, [prompts[job.key] for job in batch], sampling)

    def unload(self) -> None:
        """Free the model's memory; the next use loads it again."""
        import torch

        self._model = self._tokenizer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import GenerationConfig

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = load_tokenizer(self.model_name_or_path)
        model = load_model(self.model_name_or_path, self.dtype)
        if self.attn_implementation:
            model.set_attn_implementation(self.attn_implementation)
        model.generation_config = GenerationConfig()  # what the folder's leaves unsaid or says would fill ours
        self._model = model.eval().to(device)

    def _prompt(self, request: Request) -> list[int]:
        text = self._tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _complete_batch(self, jobs: list[Job], prompts: list[list[int]], sampling: SamplingParams) -> list[Completion]:
        import torch

        device = self._model.device
        with torch.inference_mode(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_batch_seed(jobs))
            inputs = generation_inputs(self._model, prompts, self._tokenizer.pad_token_id)
            output = self._model.generate(**inputs, generation_config=self._generation_config(sampling))
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        return [self._completion(*row) for row in zip(jobs, prompts, new_tokens, strict=True)]

    def _generation_config(self, sampling: SamplingParams) -> GenerationConfig:
        from transformers import GenerationConfig

        sampled = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self._tokenizer.eos_token_id,
            pad_token_id=self._tokenizer.pad_token_id,
            **(sampled if sampling.temperature > 0 else {"do_sample": False}),
        )

    def _completion(self, job: Job, prompt: list[int], new_tokens: torch.Tensor) -> Completion:
        tokens = new_tokens.tolist()
        ended = self._tokenizer.eos_token_id in tokens
        if ended:  # what follows is padding
            tokens = tokens[: tokens.index(self._tokenizer.eos_token_id) + 1]
        return job.completion(
            self._tokenizer.decode(tokens, skip_special_tokens=True),
            finish_reason="stop" if ended else "length",
            prompt_tokens=len(prompt),
            completion_tokens=len(tokens),
        )


class VLLMBackend:
    """Decoding with vLLM in this process: for a GPU, and far faster there than transformers. Not tested without one.

    Several GPUs: `tensor_parallel_size`; several machines: `vllm serve` behind `EndpointBackend`. Every request has a
    seed of its own, from its key, so its text does not depend on the company. `group` requests are handed over at once
    and stored together. Prompts share what they begin with (vLLM's prefix caching). An adapter's folder is run as LoRA
    on the base model that its configuration names.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        dtype: str = "bfloat16",
        tensor_parallel_size: int = 1,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        group: int = 1024,
    ) -> None:
        """Raises `ImportError` where vLLM is not installed, `FileNotFoundError` for a path that is no model folder."""
        if importlib.util.find_spec("vllm") is None:
            raise ImportError("vllm is not installed; on a machine with a GPU: pip install 'finr1[gpu]'")
        self.model_name_or_path = str(model_name_or_path)
        self.group = group
        self.fingerprint = f"vllm:{model_fingerprint(self.model_name_or_path)}:{dtype}"
        self._arguments = {
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
            "max_model_len": max_model_len,
            "gpu_memory_utilization": gpu_memory_utilization,
            "enable_prefix_caching": True,  # system prompt and page are computed once for all questions on them
            "generation_config": "vllm",  # not the folder's own decoding settings
        }
        self._llm = self._lora = None

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` in groups, see `Backend`."""
        import vllm

        if self._llm is None:
            self._start(vllm)
        for start in range(0, len(jobs), self.group):
            if stop():
                return
            batch = jobs[start : start + self.group]
            settings = [
                vllm.SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=_batch_seed([job]) % 2**63,
                )
                for job in batch
            ]
            chats = [job.request.messages for job in batch]
            outputs = self._llm.chat(chats, settings, use_tqdm=False, lora_request=self._lora)
            yield [self._completion(job, output) for job, output in zip(batch, outputs, strict=True)]

    def _start(self, vllm) -> None:
        adapter = Path(self.model_name_or_path) / "adapter_config.json"
        if not adapter.is_file():
            self._llm, self._lora = vllm.LLM(model=self.model_name_or_path, **self._arguments), None
            return
        from vllm.lora.request import LoRARequest

        config = json.loads(adapter.read_text(encoding="utf8"))
        base, rank = config["base_model_name_or_path"], config["r"]
        if is_adapter(base):  # GRPO's adapter on SFT's: vLLM takes one, so both are merged
            with tempfile.TemporaryDirectory() as folder:
                merged = whole_model(self.model_name_or_path, Path(folder))
                self._llm, self._lora = vllm.LLM(model=merged, **self._arguments), None
            return
        self._llm = vllm.LLM(model=base, enable_lora=True, max_lora_rank=rank, **self._arguments)
        self._lora = LoRARequest("adapter", 1, str(adapter.parent))

    def unload(self) -> None:
        """Free the engine; the next use starts it again."""
        self._llm = None
        gc.collect()

    @staticmethod
    def _completion(job: Job, output) -> Completion:
        answer = output.outputs[0]
        return job.completion(
            answer.text,
            finish_reason=answer.finish_reason or "unknown",
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(answer.token_ids),
        )


def _batch_seed(jobs: Sequence[Job]) -> int:
    """From the keys, which hold the caller's seed and the number of the sample."""
    return int.from_bytes(hashlib.sha256("".join(job.key for job in jobs).encode()).digest()[:7], "big")


def model_fingerprint(model_name_or_path: str) -> str:
    """Hash of what a model folder holds, wherever it stands and whenever it was written; a hub id stays as it is.

    Counts: configuration, tokenizer, chat template, weights and adapters. Of a file above 256 MiB, 256 blocks of 1 MiB
    at even distances are read, not only its ends: training may move the layers in the middle alone.
    Raises `FileNotFoundError` for a path that is no model folder.
    """
    folder = Path(model_name_or_path)
    if not folder.is_dir():
        if folder.is_absolute() or model_name_or_path.startswith(".") or len(folder.parts) > 2:
            raise FileNotFoundError(f"no model folder at {model_name_or_path}")
        return model_name_or_path
    patterns = ("config.json", "adapter_config.json", "tokenizer*", "*.jinja", "*.safetensors", "pytorch_model*.bin")
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    if not {"config.json", "adapter_config.json"} & {file.name for file in files}:
        raise FileNotFoundError(f"{model_name_or_path} is no model folder: it has no config.json")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for offset in range(0, size, max(_BLOCK, size // _BLOCKS_PER_FILE)):
                content.seek(offset)
                digest.update(content.read(_BLOCK))
    return digest.hexdigest()[:16]
