"""Which models are asked: the recipe's own, and any others named by a parameter, all by the same code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finr1.evaluation.samples import MODELS
from finr1.evaluation.tables import DECODINGS, steps_between
from finr1.models import resolve_model
from finr1.params import API_KEY, BenchmarkParams, key_variable

if TYPE_CHECKING:
    from finr1.generation import Backend


def read_models(params: BenchmarkParams, inputs: Mapping[str, Path], cache: Path) -> dict[str, Backend]:
    """Name -> backend: base, zero (where there is one), sft, grpo, then `other_models` in their order.

    An entry of `other_models` is NAME=FOLDER (of a model or an adapter), NAME=HUB_ID or NAME=MODEL@URL for any
    OpenAI-compatible endpoint. Nothing is loaded yet, but a folder that is no model's raises `FileNotFoundError`
    and an endpoint that does not answer `GenerationError`, before the first model has worked for hours.
    """
    places = {"base": params.model_name_or_path}
    places |= {
        name: str(inputs[f"{name}_stage"] / "model") for name in ("zero", "sft", "grpo") if f"{name}_stage" in inputs
    }
    for entry in params.other_models:
        name, _, place = entry.partition("=")
        places[name.strip()] = place.strip()
    return {name: _backend(name, place, params, cache) for name, place in places.items()}


def count_comparisons(params: BenchmarkParams) -> int:
    """How many comparisons this run will make: the steps between its models, in each decoding."""
    recipe = [name for name in MODELS if name != "zero" or params.zero_stage]
    others = [entry.partition("=")[0].strip() for entry in params.other_models]
    return len(steps_between([*recipe, *others])) * len(DECODINGS)


def _backend(name: str, place: str, params: BenchmarkParams, cache: Path) -> Backend:
    from finr1.generation import EndpointBackend, TransformersBackend, VLLMBackend

    model, at, url = place.rpartition("@")
    if at and url.startswith("http"):
        own = key_variable(name)
        key = own if os.environ.get(own) else API_KEY
        backend = EndpointBackend(url, model, api_key_env=key, concurrency=params.concurrency)
        backend.check()
        return backend
    folder = resolve_model(place, cache)
    if params.inference_backend == "vllm":
        return VLLMBackend(folder)
    return TransformersBackend(folder, batch_size=params.batch_size)
