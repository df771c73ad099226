"""Answers from this machine: a transformers model, vLLM, or a plain function."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finr1.cpu import generation_inputs
from finr1.generation.store import Completion, Job, Request, SamplingParams
from finr1.models import load_model, load_tokenizer, whole_model

if TYPE_CHECKING:
    import torch

_BLOCK = 1 << 20  # bytes
_BLOCKS_PER_FILE = 256
_VLLM_GROUP = 1024  # requests that vLLM gets, and that are stored, at once


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
    """Batched decoding of a folder (a model's or an adapter's) or hub id with transformers; loads at the first use.

    Plain temperature and top-p: a folder's `generation_config.json` (with its top-k) is ignored, and the text ends at
    the tokenizer's end token. Prompts go longest first, so that a lack of memory shows at once. The random state of a
    batch comes from its keys: the same requests give the same text, and a run that was cut off and resumes with the
    same requests ends up with the text it would have had, because batches are stored whole. The text depends on
    what else is in the batch: always when sampling, in greedy decoding only where rounding flips a near-tie.
    The common beginning of a batch's prompts, and equal prompts, are computed once (`finr1.generation.prefill`).
    Continuous batching has a fifth of the speed on a CPU (`benchmarks/cpu_sampling.py`); on GPUs vLLM is the way.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        dtype: str = "bfloat16",
        batch_size: int = 64,
        device: str | None = None,
    ) -> None:
        """`device`: CUDA where there is one. Raises `FileNotFoundError` for a path that is no model folder."""
        self.model_name_or_path = str(model_name_or_path)
        self.dtype = dtype
        self.batch_size = batch_size
        self.device = device
        self.fingerprint = f"transformers:{model_fingerprint(self.model_name_or_path)}:{dtype}"
        self._model = self._tokenizer = None

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` batch by batch, see `Backend`. A prompt that leaves no room for `max_tokens` is an error."""
        self._load()
        prompts: dict[str, list[int]] = {}
        for job in jobs:
            text = self._tokenizer.apply_chat_template(job.request.messages, tokenize=False, add_generation_prompt=True)
            prompts[job.key] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        room = getattr(self._model.config, "max_position_embeddings", float("inf")) - sampling.max_tokens
        too_long = [job for job in jobs if len(prompts[job.key]) > room]
        if too_long:
            message = "prompt of {} tokens, but max_tokens={} leaves the model room for {}"
            sizes = [(job, len(prompts[job.key])) for job in too_long]
            yield [job.failure(message.format(size, sampling.max_tokens, max(room, 0))) for job, size in sizes]
        fitting = [job for job in jobs if len(prompts[job.key]) <= room]
        # Cut into batches from the front: a run that resumes after some whole batches cuts the rest the same way.
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

        self._tokenizer = load_tokenizer(self.model_name_or_path)
        model = load_model(self.model_name_or_path, self.dtype)
        model.generation_config = GenerationConfig()  # else the folder's own settings would fill in ours
        self._model = model.eval().to(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def _complete_batch(self, jobs: list[Job], prompts: list[list[int]], sampling: SamplingParams) -> list[Completion]:
        import torch
        from transformers import GenerationConfig

        decoding: dict = {"do_sample": False}
        if sampling.temperature > 0:
            decoding = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        config = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self._tokenizer.eos_token_id,
            pad_token_id=self._tokenizer.pad_token_id,
            **decoding,
        )
        device = self._model.device
        with torch.inference_mode(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_batch_seed(jobs))
            inputs = generation_inputs(self._model, prompts, self._tokenizer.pad_token_id)
            output = self._model.generate(**inputs, generation_config=config)
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        return [self._completion(*row) for row in zip(jobs, prompts, new_tokens, strict=True)]

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
    """Decoding with vLLM in this process, far faster than transformers on a GPU. Not yet run by a test.

    Several GPUs or machines: `vllm serve` behind `EndpointBackend`. Every request has a seed of its own, from its key,
    so its text does not depend on the others. Prompts share what they begin with (prefix caching). An adapter is merged
    into its base first.
    """

    def __init__(self, model_name_or_path: str | Path) -> None:
        """Raises `ImportError` where vLLM is not installed, `FileNotFoundError` for a path that is no model folder."""
        if importlib.util.find_spec("vllm") is None:
            raise ImportError("vllm is not installed; on a machine with a GPU: pip install 'finr1[gpu]'")
        self.model_name_or_path = str(model_name_or_path)
        self.fingerprint = f"vllm:{model_fingerprint(self.model_name_or_path)}:bfloat16"
        self._llm = None

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` in groups, see `Backend`."""
        import vllm

        if self._llm is None:
            with tempfile.TemporaryDirectory() as merged:
                self._llm = vllm.LLM(
                    model=whole_model(self.model_name_or_path, Path(merged)),
                    dtype="bfloat16",
                    enable_prefix_caching=True,  # system prompt and page are computed once for all questions on them
                    generation_config="vllm",  # not the folder's own decoding settings
                )
        for start in range(0, len(jobs), _VLLM_GROUP):
            if stop():
                return
            group = jobs[start : start + _VLLM_GROUP]
            settings = [
                vllm.SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=_batch_seed([job]),
                )
                for job in group
            ]
            outputs = self._llm.chat([job.request.messages for job in group], settings, use_tqdm=False)
            yield [
                job.completion(
                    output.outputs[0].text,
                    finish_reason=output.outputs[0].finish_reason or "unknown",
                    prompt_tokens=len(output.prompt_token_ids),
                    completion_tokens=len(output.outputs[0].token_ids),
                )
                for job, output in zip(group, outputs, strict=True)
            ]

    def unload(self) -> None:
        """Free the engine; the next use starts it again."""
        self._llm = None
        gc.collect()


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
