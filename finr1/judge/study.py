"""How far a judge can be trusted: against known verdicts by prompt order, and against another judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finr1.generation import AnswerStore, Backend, SamplingParams, generate
from finr1.judge.model import CHECK_ORDERS, check_request, read_verdict
from finr1.records import Trace


def study_orders(
    traces: Sequence[Trace],
    known: Sequence[bool],
    backend: Backend,
    store: AnswerStore | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> list[dict[str, object]]:
    """The paper's judge study on any judge: a row an order of the prompt, with shares over traces x repeats.

    `inaccurate`: a 0 or 1 that is not the known verdict. `irregular`: a reply that is neither. The paper has 100 FinQA
    items, 5 repeats and people's verdicts; it does not state the temperature, so the judge's repeats are sampled at 1.
    The interval is Wilson's over the replies, which are not independent within an item: read it as a lower bound.
    """
    from statsmodels.stats.proportion import proportion_confint

    sampling = SamplingParams(temperature=1.0, max_tokens=16, num_samples=repeats, seed=seed)
    rows = []
    for order in CHECK_ORDERS:
        completions = generate([check_request(t, order) for t in traces], sampling, backend, store)
        verdicts = [read_verdict(completion.text) for completion in completions]
        expected = [verdict for verdict in known for _ in range(repeats)]
        wrong = sum(v is not None and v != e for v, e in zip(verdicts, expected, strict=True))
        low, high = proportion_confint(wrong, len(verdicts), method="wilson")
        rows.append(
            {
                "order": order,
                "n": len(verdicts),
                "inaccurate": wrong / len(verdicts),
                "low": float(low),
                "high": float(high),
                "irregular": verdicts.count(None) / len(verdicts),
            }
        )
    return rows


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two judges with its 95 % interval, over `n` traces that both have judged."""

    kappa: float
    low: float
    high: float
    n: int
    agree: float  # share of equal verdicts


def cohen_kappa(first: Sequence[bool | None], second: Sequence[bool | None]) -> Agreement | None:
    """Agreement of two judges beyond chance (Cohen 1960); the interval uses the asymptotic variance of Fleiss et al.
    1969, both from statsmodels. Pairs with a None are left out.

    None where kappa is undefined: no pairs, or both judges give the same one verdict to all.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    table = [[sum(p == (a, b) for p in pairs) for b in (False, True)] for a in (False, True)]
    agree = table[0][0] + table[1][1]
    if not pairs or max(table[0][0], table[1][1]) == len(pairs):
        return None
    result = cohens_kappa(table)
    return Agreement(
        float(result.kappa), float(result.kappa_low), float(result.kappa_upp), len(pairs), agree / len(pairs)
    )
