"""Text generation behind one function, for the teacher, the judge, pass-rate sampling and the benchmark.

store = AnswerStore("answers.jsonl")
backend = EndpointBackend("https://api.deepseek.com", "deepseek-reasoner")
completions = generate(requests, SamplingParams(temperature=0.6), backend, store, on_progress=print)
"""

from finr1.generation.answering import Backend, Budget, GenerationError, Progress, generate
from finr1.generation.endpoint import EndpointBackend
from finr1.generation.local import ScriptedBackend, TransformersBackend, VLLMBackend, batch_that_fits
from finr1.generation.store import AnswerStore, Completion, Job, Request, SamplingParams, request_key

__all__ = [
    "AnswerStore",
    "Backend",
    "Budget",
    "Completion",
    "EndpointBackend",
    "GenerationError",
    "Job",
    "Progress",
    "Request",
    "SamplingParams",
    "ScriptedBackend",
    "TransformersBackend",
    "VLLMBackend",
    "batch_that_fits",
    "generate",
    "request_key",
]
