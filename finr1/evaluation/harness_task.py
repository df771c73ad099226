"""A task of lm-evaluation-harness: what a YAML cannot say of a chat of several turns that finr1 grades."""

from collections.abc import Callable, Sequence

from lm_eval.api.task import ConfigurableTask

from finr1.evaluation.samples import grade_text
from finr1.records import Problem


class ChatTask(ConfigurableTask):
    """A task whose rows hold a whole chat in `messages`, and as JSON in `problem` what its answer is graded by."""

    def __init__(self, config: dict) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def fewshot_context(self, doc: dict, *_, chat_template: Callable | None = None, **__) -> str:
        """The row's chat in the model's template; raises `ValueError` without `--apply_chat_template`."""
        if not chat_template:
            raise ValueError("finr1's tasks are chats: run lm_eval with --apply_chat_template")
        return chat_template(doc["messages"], add_generation_prompt=True)

    def process_results(self, doc: dict, results: Sequence[str]) -> dict[str, float]:
        """`accuracy` is left out where rules cannot decide, as in our own tables; `decided` says how often they can."""
        graded = grade_text(Problem.model_validate_json(doc["problem"]), results[0])
        correct, lenient = graded["correct"], bool(graded["lenient_correct"])
        scores = {"accuracy": correct, "format": graded["format"], "lenient": lenient, "decided": correct is not None}
        return {name: float(value) for name, value in scores.items() if value is not None}
