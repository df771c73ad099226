"""Solutions of exercises_02: distillation. The name of each is that of its exercise."""

from finr1 import records

# A false equation under a right answer; one sentence several times; a tag that is missing.
faults = ["arithmetic_slip", "repetition", "missing_format"]


def request(problem: records.Problem) -> str:
    """Context, earlier questions and answers, question and options as one text, and a rule for the answer."""
    turns = [f"{turn['role']}: {turn['content']}" for turn in records.messages(problem, system_prompt="")]
    return "\n\n".join([*turns, "Reason step by step and put the final answer in \\boxed{}."])


# Half was kept, so twice as many were asked about; each costs its prompt and its answer.
price = 60_091 / 0.5 * (400 * 0.5 + 1200 * 2.0) / 1_000_000
