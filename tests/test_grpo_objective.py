"""GRPO's objective by hand, in plain Python and torch, against what TRL's trainer makes of the same batch.

Four completions of one question: reward, advantage and loss of the paper's objective (arXiv 2503.16252: R = R_format +
R_accuracy, advantage standardised by the group, mean over each completion's tokens, symmetric clip, KL to the starting
policy) to 1e-5, with a policy that has moved since it sampled; then the same for every variant of notebook 09.
"""

from __future__ import annotations

import math
import statistics
from itertools import pairwise, product

import pytest
import torch
from recipes import recipe
from test_training import demo

from finr1 import curation, rewards
from finr1.params import GRPOParams
from finr1.records import write_jsonl

COMPLETIONS = [
    "<think>150 - 120 = 30 and 30 / 120 = 0.25.</think><answer>\\boxed{25}</answer>",
    "<think>So it is 30.</think><answer>\\boxed{30}</answer>",
    "The growth is \\boxed{25}.",
    "30 percent, I guess, or 31 percent.",
]
FORMAT, ACCURACY = [1, 1, 0, 0], [1, 0, 1, 0]
BETA, EPSILON, MAX_LENGTH = 0.04, 0.2, 80


@pytest.fixture
def batch(outputs, tiny):
    """`batch(ours, **parameters)`: the trainer, its scored batch, and log-probabilities taken one completion at a time.

    `ours` False leaves TRL's own scoring in place. Sampling is replaced by the four completions above; between
    sampling and the loss, the policy moves.
    """

    def make(ours: bool = True, **changes):
        cells = recipe("05_grpo")
        if not ours:
            cells.speed_up = lambda trainer: None
        values = {"beta": BETA, "epsilon": EPSILON, "loss_type": "grpo", "num_iterations": 2, "save_steps": 2,
                  "max_completion_length": MAX_LENGTH, "num_generations": 4, "temperature": 0.7, "peft": "full",
                  "bf16": False, "mask_truncated_completions": False}  # fmt: skip
        params = demo(GRPOParams, sft_stage=None, model_name_or_path=str(tiny), **(values | changes))
        problem = curation_row()
        write_jsonl(outputs / "r" / "05_grpo" / rewards.TRAIN_FILE, [problem])
        trainer = cells.make_trainer(params, outputs / "r" / "05_grpo")
        trainer.current_gradient_accumulation_steps = 1
        tokenizer = trainer.processing_class
        prompt = tokenizer.apply_chat_template(problem["prompt"], add_generation_prompt=True)["input_ids"]
        texts = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in COMPLETIONS]
        trainer.rollout_func = lambda prompts, _: {
            "prompt_ids": [prompt] * 4, "completion_ids": texts, "logprobs": None
        }  # fmt: skip
        trainer.model.train()
        old = [logps(trainer.model, prompt, ids, params.temperature).detach() for ids in texts]
        inputs = trainer._generate_and_score_completions([problem] * 4)
        move(trainer.model)
        new = [logps(trainer.model, prompt, ids, params.temperature) for ids in texts]
        return trainer, inputs, old, new

    return make


def curation_row() -> dict:
    from finr1.records import Problem

    question = "Revenue rose from 120 million to 150 million. What is the growth in percent?"
    fields = {"id": "p", "source": "synthetic", "module": "m", "language": "en", "capability": "calculation",
              "answer_kind": "number", "question": question, "gold": "25", "split": "train",
              "group": "p"}  # fmt: skip
    (row,) = curation.rl_rows([Problem(**fields)])
    return row


def move(model, size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def logps(model, prompt: list[int], completion: list[int], temperature: float) -> torch.Tensor:
    """Log-probability of each token of one completion, (T,): no padding, no batch, no mask."""
    logits = model(torch.tensor([prompt + completion])).logits[0].double() / temperature
    steps = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return torch.stack([logits[at].log_softmax(-1)[token] for at, token in zip(steps, completion, strict=True)])


def standardised(rewards: list[float]) -> list[float]:
    """(r - mean) / spread of the group; TRL adds 1e-4 where the paper takes the larger of spread and eps."""
    mean, spread = statistics.mean(rewards), statistics.stdev(rewards)
    return [(reward - mean) / (spread + 1e-4) for reward in rewards]


def clipped(ratio, advantage: float, low: float = EPSILON, high: float = EPSILON):
    return torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def k3(reference, now):
    """The KL estimator of Schulman (2020): pi_ref / pi - log(pi_ref / pi) - 1, never below zero."""
    return torch.exp(reference - now) - (reference - now) - 1


def test_the_papers_reward_advantage_and_loss(batch):
    trainer, inputs, old, new = batch()
    rewards = [f + a for f, a in zip(FORMAT, ACCURACY, strict=True)]
    advantages = standardised(rewards)
    assert rewards == [2, 1, 1, 0]
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert logged["rewards/format_reward/mean"] == logged["rewards/accuracy_reward/mean"] == 0.5
    assert logged["reward"] == 1.0 and logged["reward_std"] == pytest.approx(statistics.stdev(rewards))
    assert inputs["advantages"].tolist() == pytest.approx(advantages, abs=1e-5)
    terms = []
    for a, before, now in zip(advantages, old, new, strict=True):  # the policy that sampled is also the reference
        tokens = clipped(torch.exp(now - before), a) - BETA * k3(before, now)
        terms.append(-tokens.mean())
    expected = torch.stack(terms).mean()
    found = trainer.compute_loss(trainer.model, inputs)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    ratios = torch.cat([torch.exp(now - before) for before, now in zip(old, new, strict=True)])
    assert ((ratios - 1).abs() > EPSILON).float().mean() > 0.1, "the clip has to be at work for this to say something"
    trainer.args.use_bias_correction_kl = True  # TRL's own default is another objective
    assert abs(trainer.compute_loss(trainer.model, inputs).item() - expected.item()) > 1e-4


def sequence_ratio(before, now):
    return torch.exp((now - before).mean()).expand(len(now))


# Name -> (parameters, rewards by hand, advantages by hand or None for the paper's, one token's loss by hand from
# ratio, advantage and log-probability, how tokens become one number).
EACH, TOKENS, CONSTANT = "mean of each completion", "mean over all tokens", "sum / (G x max length)"
SUMMED = [2.0, 1.0, 1.0, 0.0]
VARIANTS = {
    "no KL": ({"beta": 0.0}, SUMMED, lambda r, a, p: -clipped(r, a), EACH),
    "gated": (
        {"beta": 0.0, "reward_funcs": ["gated_reward"], "reward_weights": [1.0]},
        [1.0, 0.0, 0.0, 0.0],
        lambda r, a, p: -clipped(r, a),
        EACH,
    ),
    "DAPO": (
        {"beta": 0.0, "loss_type": "dapo", "epsilon_high": 0.28},
        SUMMED,
        lambda r, a, p: -clipped(r, a, high=0.28),
        TOKENS,
    ),
    "Dr. GRPO": (
        {"beta": 0.0, "loss_type": "dr_grpo", "scale_rewards": "none"},
        SUMMED,
        lambda r, a, p: -clipped(r, a),
        CONSTANT,
    ),
    "GSPO": (
        {"beta": 0.0, "importance_sampling_level": "sequence", "epsilon": 0.01, "epsilon_high": 0.5},
        SUMMED,
        lambda r, a, p: -clipped(r, a, 0.01, 0.5),
        EACH,
    ),
    "CISPO": (
        {"beta": 0.0, "loss_type": "cispo", "epsilon_high": 1.5},
        SUMMED,
        lambda r, a, p: -r.clamp(max=1.5).detach() * a * p,
        TOKENS,
    ),
    "overlong": (
        {"beta": 0.0, "soft_punish_cache": 60},
        None,  # from the lengths of the completions
        lambda r, a, p: -clipped(r, a),
        EACH,
    ),
    "GDPO": (
        {"beta": 0.0, "multi_objective_aggregation": "normalize_then_sum"},
        None,  # an advantage of each reward, summed, then standardised over the batch
        lambda r, a, p: -clipped(r, a),
        EACH,
    ),
}


def advantages_by_hand(name: str, rewards: list[float] | None, lengths: list[int]) -> list[float]:
    if name == "GDPO":
        shapes, rights = standardised(FORMAT), standardised(ACCURACY)
        return standardised([f + a for f, a in zip(shapes, rights, strict=True)])
    if name == "overlong":
        start = MAX_LENGTH - 60
        rewards = [r - max(0, length - start) / 60 for r, length in zip(SUMMED, lengths, strict=True)]
    if name == "Dr. GRPO":
        return [reward - statistics.mean(rewards) for reward in rewards]
    return standardised(rewards)


@pytest.mark.parametrize("ours", [True, False], ids=["our scoring", "TRL's scoring"])
@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_is_the_loss_of_its_paper(batch, name, ours):
    changes, rewards, token_loss, reduction = VARIANTS[name]
    trainer, inputs, old, new = batch(ours, **changes)
    lengths = [len(p) for p in new]
    advantages = advantages_by_hand(name, rewards, lengths)
    assert inputs["advantages"].tolist() == pytest.approx(advantages, abs=1e-5)
    tokens = []
    for a, before, now in zip(advantages, old, new, strict=True):
        ratio = sequence_ratio(before, now) if name == "GSPO" else torch.exp(now - before)
        tokens.append(token_loss(ratio, a, now))
    total = torch.cat(tokens).sum()
    expected = {
        EACH: torch.stack([t.mean() for t in tokens]).mean(),
        TOKENS: total / sum(lengths),
        CONSTANT: total / (4 * MAX_LENGTH),
    }[reduction]
    found = trainer.compute_loss(trainer.model, inputs)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    by_hand, by_trl = (gradient(trainer.model, loss) for loss in (expected, found))
    assert by_hand.norm() > 1e-3
    assert torch.allclose(by_trl, by_hand, atol=1e-5, rtol=1e-3)


def pull(shares: tuple[float, ...], size: int, divided: bool) -> list[float]:
    """By label: what a group adds to its logit on average, for a policy that says labels by `shares` whatever is asked.

    Each label is right equally often. Exact: over all groups of `size`. `divided`: advantages by the group's spread.
    """
    total = [0.0] * len(shares)
    for gold, said in product(range(len(shares)), product(range(size + 1), repeat=len(shares))):
        if sum(said) == size:
            chance = math.prod(share**n / math.factorial(n) for share, n in zip(shares, said, strict=True))
            rewards = [1.0] * said[gold] + [0.0] * (size - said[gold])
            mean = statistics.mean(rewards)
            advantages = standardised(rewards) if divided else [reward - mean for reward in rewards]
            for label, n in enumerate(said):
                gain = advantages[0] if label == gold else advantages[-1]
                total[label] += chance * math.factorial(size) / len(shares) * n / size * gain
    return total


@pytest.mark.parametrize(("size", "most"), [(4, 0.0015), (8, 0.0097)])
def test_only_advantages_divided_by_the_spread_pull_to_the_rare_label(size, most):
    """docs/when-grpo-teaches.md: on balanced labels no constant earns more than another, yet GRPO moves to one."""
    shares = (0.22, 0.45, 0.33)  # of 240 sampled answers: bearish, bullish, neutral
    rare, common, _ = pull(shares, size, divided=True)
    assert rare == pytest.approx(most, abs=5e-5) and common == pytest.approx(-most, abs=5e-5)
    assert pull(shares, size, divided=False) == pytest.approx([0, 0, 0], abs=1e-12)


def gradient(model, loss) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_right_after_sampling_clip_and_ratio_change_nothing(batch):
    """With `num_iterations` = 1 all ratios are 1: losses that differ in ratio and clip alone have the same gradient."""
    same = [{"loss_type": "grpo"}, {"importance_sampling_level": "sequence"}, {"epsilon_high": 0.5}]
    found = []
    for changes in same:
        trainer, inputs, *_ = batch(beta=0.0, num_iterations=1, **changes)
        assert "old_per_token_logps" not in inputs  # so TRL takes the policy as it is now
        found.append(gradient(trainer.model, trainer.compute_loss(trainer.model, inputs)))
    for one, other in pairwise(found):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-4)
    assert not math.isclose(found[0].norm().item(), 0, abs_tol=1e-3)
