"""Answers from this machine: a transformers model, vLLM, or a plain function."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from finr1.generation.answering import Backend, Groups, Job, Request, SamplingParams
from finr1.manifest import digest, sampled_sha256
from finr1.models import OWN_CODE, end_tokens, load_model, load_tokenizer, native_dtype, opened_thought, whole_model

_ANSWER_TOKENS = 32_768  # of a batch: keys and values of 1.9 GB for a 7B model of the Qwen2.5 family, in bf16


@dataclass
class ScriptedBackend(Backend):
    """`function(request, sampling, sample) -> text`. Change the `name` when the function gives other answers.

    Equal chats are asked once, so a function that reads `request.id` must not get one chat under two ids.
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
class _LocalBackend(Backend):
    """A model in this process: a folder (of a model or an adapter) or a hub id. It loads at the first use.

    Only the end tokens of a folder's `generation_config.json` count. A prompt goes through the chat template as in
    training; a `<think>` that the template opens belongs to the answer. `FileNotFoundError` without a model.
    """

    model_name_or_path: str | Path
    dtype: str = "bfloat16"
    engine: ClassVar[str]

    def __post_init__(self) -> None:
        if self.dtype == "bfloat16" and self.engine == "transformers":
            self.dtype = native_dtype()
        self.fingerprint = f"{self.engine}:{model_fingerprint(self.model_name_or_path)}:{self.dtype}"

    def complete(self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]) -> Groups:
        """Answer `jobs` batch by batch, see `Backend`. A prompt that leaves no room for `max_tokens` is an error."""
        _, tokenizer, window, ends = self._loaded
        room, rendering = window - sampling.max_tokens, {"add_generation_prompt": True, "return_dict": False}
        chats = [(job, tokenizer.apply_chat_template(job.request.messages, **rendering)) for job in jobs]
        fitting = [(job, prompt) for job, prompt in chats if len(prompt) <= room]
        why = f"max_tokens={sampling.max_tokens} leaves the model room for {max(room, 0)}"
        if long := [(job, prompt) for job, prompt in chats if len(prompt) > room]:
            yield [job.failure(f"prompt of {len(prompt)} tokens, but {why}") for job, prompt in long]
        # Longest first: a lack of memory shows at once, and a resumed run makes the same batches of the rest.
        fitting.sort(key=lambda pair: -len(pair[1]))
        size, opened = self._at_once(sampling), opened_thought(tokenizer)
        for start in range(0, len(fitting), size):
            if stop():
                return
            batch, completions = fitting[start : start + size], []
            for (job, prompt), tokens in zip(batch, self._decode(batch, sampling), strict=True):
                usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
                text = tokenizer.decode(tokens, skip_special_tokens=True)
                reason = "stop" if tokens[-1] in ends else "length"
                completions.append(job.completion(opened + text, finish_reason=reason, usage=usage))
            yield completions

    def unload(self) -> None:
        from accelerate.utils.memory import clear_device_cache

        self.__dict__.pop("_loaded", None)
        clear_device_cache(garbage_collection=True)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, float, list[int]]:
        """Model, tokenizer, tokens that fit, end tokens."""
        path = str(self.model_name_or_path)
        (model, window), tokenizer = self._load(path), load_tokenizer(path)
        return model, tokenizer, window, end_tokens(path, tokenizer)


@dataclass(eq=False)
class TransformersBackend(_LocalBackend):
    """Batched decoding with transformers.

    The random state of a batch comes from its keys, and batches are stored whole. So a resumed run gives the same texts
    as an unbroken one. Other texts in the batch change a text; under greedy decoding only in near-ties.
    """

    batch_size: int | None = None  # None: 128, or fewer for long answers (`_ANSWER_TOKENS`)
    device: str | None = None  # None: CUDA where there is one
    engine = "transformers"

    def _at_once(self, sampling: SamplingParams) -> int:
        return self.batch_size or max(1, min(128, _ANSWER_TOKENS // sampling.max_tokens))

    def _load(self, path: str) -> tuple[Any, float]:
        import torch
        from transformers import GenerationConfig

        model = load_model(path, self.dtype)
        model.generation_config = GenerationConfig()  # else the folder's own settings would fill in ours
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return model.eval().to(device), getattr(model.config, "max_position_embeddings", float("inf"))

    def _decode(self, batch: list[tuple[Job, list[int]]], sampling: SamplingParams) -> list[list[int]]:
        import torch
        from transformers import GenerationConfig

        from finr1.cpu import complete

        sampled = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        decoding = sampled if sampling.temperature > 0 else {"do_sample": False}
        model, tokenizer, _, ends = self._loaded
        pad, device = tokenizer.pad_token_id, model.device
        config = GenerationConfig(max_new_tokens=sampling.max_tokens, eos_token_id=ends, pad_token_id=pad, **decoding)
        with torch.inference_mode(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_seed(job for job, _ in batch))
            return complete(model, [prompt for _, prompt in batch], config)


@dataclass(eq=False)
class VLLMBackend(_LocalBackend):
    """Decoding with vLLM in this process, far faster than transformers on a GPU. An adapter is merged into its base.

    For several GPUs or machines use `vllm serve` and `EndpointBackend`. Each request has its seed, so no text depends
    on another. The engine is a process: a script needs `if __name__ == "__main__":`. `ImportError` without vLLM.
    """

    engine = "vllm"

    def __post_init__(self) -> None:
        import vllm  # noqa: F401  (make install GPU=1)

        super().__post_init__()

    def unload(self) -> None:
        if "_loaded" in self.__dict__:  # its process would stay, with all its memory
            self._loaded[0].llm_engine.engine_core.shutdown(timeout=60)  # seconds; then it is killed
        super().unload()

    def _at_once(self, sampling: SamplingParams) -> int:
        return 1024  # requests that vLLM gets, and that are stored, at once

    def _load(self, path: str) -> tuple[Any, float]:
        import vllm.platforms

        with tempfile.TemporaryDirectory() as merged:
            # The folder's own decoding settings are ignored; a beginning that prompts share is computed once.
            given = {"generation_config": "vllm", "enable_prefix_caching": True} | OWN_CODE
            if vllm.platforms.current_platform.is_cpu():  # whose default, 92 % of all memory, is seldom free
                given["kv_cache_memory_bytes"] = 2 * 2**30  # unless VLLM_CPU_KVCACHE_SPACE says how many GiB
            llm = vllm.LLM(whole_model(path, Path(merged)), dtype=self.dtype, **given)
        return llm, llm.model_config.max_model_len

    def _decode(self, batch: list[tuple[Job, list[int]]], sampling: SamplingParams) -> list[list[int]]:
        import vllm

        decoding = sampling.model_dump(include={"temperature", "top_p", "max_tokens"})
        decoding |= {"stop_token_ids": self._loaded[3], "detokenize": False}
        settings = [vllm.SamplingParams(**decoding, seed=_seed([job])) for job, _ in batch]
        prompts = [{"prompt_token_ids": prompt} for _, prompt in batch]
        return [list(each.outputs[0].token_ids) for each in self._loaded[0].generate(prompts, settings, use_tqdm=False)]


def _seed(jobs: Iterable[Job]) -> int:
    """A seed from the keys, which hold the caller's seed and the number of the sample."""
    return int.from_bytes(hashlib.sha256("".join(job.key for job in jobs).encode()).digest()[:7], "big")


def model_fingerprint(model: str | Path) -> str:
    """Hash of a model folder's content, without place and time; a hub id itself; `FileNotFoundError` for neither."""
    folder = Path(model)
    if not folder.is_dir() and not (folder.is_absolute() or str(model).startswith(".") or len(folder.parts) > 2):
        return str(model)
    patterns = ("config.json", "adapter_config.json", "tokenizer*", "*.jinja", "*.safetensors", "pytorch_model*.bin")
    files = {file.name: sampled_sha256(file) for pattern in patterns for file in folder.glob(pattern)}
    if not {"config.json", "adapter_config.json"} & files.keys():
        raise FileNotFoundError(f"{model} is no model folder: it has no config.json")
    return digest(files)[:16]
