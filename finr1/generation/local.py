"""Answers from this machine: a transformers model, vLLM, or a plain function."""

from __future__ import annotations

import gc
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finr1.cpu import complete
from finr1.generation.answering import Backend, Completion, Groups, Job, Request, SamplingParams
from finr1.models import load_model, load_tokenizer, whole_model

_BLOCK = 1 << 20  # bytes
_ANSWER_TOKENS = 32_768  # of a batch: keys and values of 1.9 GB for a 7B model of the Qwen2.5 family, in bf16
_VLLM_GROUP = 1024  # requests that vLLM gets, and that are stored, at once


@dataclass
class ScriptedBackend(Backend):
    """`function(request, sampling, sample) -> text`, under a `name` that changes when the function's answers do.

    Equal chats are asked once: a function that looks at `request.id` must not be given one chat under two ids.
    """

    function: Callable[[Request, SamplingParams, int], str]
    name: str

    @property
    def fingerprint(self) -> str:
        return f"scripted:{self.name}"

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        for job in jobs:
            if stop():
                return
            yield [job.completion(self.function(job.request, sampling, job.sample))]


@dataclass(eq=False)
class TransformersBackend(Backend):
    """Batched decoding of a folder (a model's or an adapter's) or hub id with transformers; loads at the first use.

    A folder's `generation_config.json` is ignored. The random state of a batch comes from its keys, and batches are
    stored whole: a run that resumes with the same requests ends up with the text that an unbroken one has. The text
    depends on what else is in the batch: always when sampling, in greedy decoding only where rounding flips a near-tie.
    Raises `FileNotFoundError` for a path without a model.
    """

    model_name_or_path: str | Path
    dtype: str = "bfloat16"
    batch_size: int | None = None  # None: 128, or fewer for long answers (`_ANSWER_TOKENS`)
    device: str | None = None  # None: CUDA where there is one

    def __post_init__(self) -> None:
        self.fingerprint = f"transformers:{model_fingerprint(self.model_name_or_path)}:{self.dtype}"

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        """Answer `jobs` batch by batch, see `Backend`. A prompt that leaves no room for `max_tokens` is an error."""
        model, tokenizer = self._loaded
        room = getattr(model.config, "max_position_embeddings", float("inf")) - sampling.max_tokens
        size = self.batch_size or max(1, min(128, _ANSWER_TOKENS // sampling.max_tokens))
        fitting: list[tuple[Job, list[int]]] = []
        for job in jobs:
            text = tokenizer.apply_chat_template(job.request.messages, tokenize=False, add_generation_prompt=True)
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(prompt) <= room:
                fitting.append((job, prompt))
            else:
                why = f"max_tokens={sampling.max_tokens} leaves the model room for {max(room, 0)}"
                yield [job.failure(f"prompt of {len(prompt)} tokens, but {why}")]
        # Longest first: a lack of memory shows at once, and a run that resumes cuts the rest into the same batches.
        fitting.sort(key=lambda pair: -len(pair[1]))
        for start in range(0, len(fitting), size):
            if stop():
                return
            yield self._complete_batch(fitting[start : start + size], sampling)

    def unload(self) -> None:
        import torch

        self.__dict__.pop("_loaded", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        import torch
        from transformers import GenerationConfig

        model = load_model(str(self.model_name_or_path), self.dtype)
        model.generation_config = GenerationConfig()  # else the folder's own settings would fill in ours
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return model.eval().to(device), load_tokenizer(str(self.model_name_or_path))

    def _complete_batch(self, batch: list[tuple[Job, list[int]]], sampling: SamplingParams) -> list[Completion]:
        import torch
        from transformers import GenerationConfig

        sampled = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        decoding = sampled if sampling.temperature > 0 else {"do_sample": False}
        model, tokenizer = self._loaded
        end, pad, device = tokenizer.eos_token_id, tokenizer.pad_token_id, model.device
        config = GenerationConfig(max_new_tokens=sampling.max_tokens, eos_token_id=end, pad_token_id=pad, **decoding)
        with torch.inference_mode(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_seed(job for job, _ in batch))
            answers = complete(model, [prompt for _, prompt in batch], config)
        completions = []
        for (job, prompt), tokens in zip(batch, answers, strict=True):
            ended = tokens[-1] == end
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
            completions.append(job.completion(text, finish_reason="stop" if ended else "length", usage=usage))
        return completions


class VLLMBackend(Backend):
    """Decoding with vLLM in this process, far faster than transformers on a GPU. Not yet run by a test.

    Several GPUs or machines: `vllm serve` behind `EndpointBackend`. Every request has a seed of its own, from its key,
    so its text does not depend on the others. An adapter is merged into its base first. Raises `ImportError` where vLLM
    is not installed, `FileNotFoundError` for a path without a model.
    """

    def __init__(self, model_name_or_path: str | Path) -> None:
        import vllm  # noqa: F401  (pip install 'finr1[gpu]')

        self.model = str(model_name_or_path)
        self.fingerprint = f"vllm:{model_fingerprint(self.model)}:bfloat16"
        self._llm = None

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        import vllm

        if self._llm is None:
            with tempfile.TemporaryDirectory() as merged:
                model = whole_model(self.model, Path(merged))
                # Not the folder's own decoding settings; the beginning that prompts share is computed once.
                given = {"generation_config": "vllm", "enable_prefix_caching": True, "trust_remote_code": False}
                self._llm = vllm.LLM(model, dtype="bfloat16", **given)
        decoding = sampling.model_dump(include={"temperature", "top_p", "max_tokens"})
        for start in range(0, len(jobs), _VLLM_GROUP):
            if stop():
                return
            group = jobs[start : start + _VLLM_GROUP]
            settings = [vllm.SamplingParams(**decoding, seed=_seed([job])) for job in group]
            outputs = self._llm.chat([job.request.messages for job in group], settings, use_tqdm=False)
            completions = []
            for job, output in zip(group, outputs, strict=True):
                [answer] = output.outputs
                usage = {"prompt_tokens": len(output.prompt_token_ids), "completion_tokens": len(answer.token_ids)}
                completions.append(job.completion(answer.text, finish_reason=answer.finish_reason, usage=usage))
            yield completions

    def unload(self) -> None:
        self._llm = None
        gc.collect()


def _seed(jobs: Iterable[Job]) -> int:
    """From the keys, which hold the caller's seed and the number of the sample."""
    return int.from_bytes(hashlib.sha256("".join(job.key for job in jobs).encode()).digest()[:7], "big")


def model_fingerprint(model: str | Path) -> str:
    """Hash of what a model folder holds, wherever it stands and whenever it was written; a hub id stays as it is.

    Of a file above 256 MiB, 256 blocks of 1 MiB at even distances are read, not only its ends: training may move the
    layers in the middle alone. Raises `FileNotFoundError` for a path that is no model folder.
    """
    folder = Path(model)
    if not folder.is_dir() and not (folder.is_absolute() or str(model).startswith(".") or len(folder.parts) > 2):
        return str(model)
    patterns = ("config.json", "adapter_config.json", "tokenizer*", "*.jinja", "*.safetensors", "pytorch_model*.bin")
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    if not {"config.json", "adapter_config.json"} & {file.name for file in files}:
        raise FileNotFoundError(f"{model} is no model folder: it has no config.json")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for offset in range(0, size, max(_BLOCK, size // 256)):
                content.seek(offset)
                digest.update(content.read(_BLOCK))
    return digest.hexdigest()[:16]
