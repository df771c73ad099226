"""Text generation behind one function. The teacher, the judge, pass rates and the benchmark all use it.

store = AnswerStore("answers.jsonl")
backend = EndpointBackend("http://localhost:8000/v1", "deepseek-ai/DeepSeek-R1")
completions = generate(requests, SamplingParams(temperature=0.6), backend, store, on_progress=print)
"""

# ruff: noqa: F401, I001
# fmt: off
from finr1.generation.answering import (
    AnswerStore, Backend, Budget, Completion, GenerationError, Job, Progress, Request, SamplingParams, generate,
    request_key,
)
from finr1.generation.endpoint import EndpointBackend
from finr1.generation.local import ScriptedBackend, TransformersBackend, VLLMBackend
