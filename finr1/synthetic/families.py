"""The twenty template families; names and events of each split stand in `words.yaml`.

The order and the number of a family's draws make the problem of a seed: a changed draw changes every later problem of
that seed.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finr1.records import AnswerKind, Capability

_LISTS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf8"))
WORDS, COMPANIES, NEWS, INCIDENTS = (_LISTS[name] for name in ("words", "companies", "news", "incidents"))
TABLE = "{name}, $ million\n\n||Q1|Q2|\n|---|---|---|\n|{row}|{q1}|{q2}|"
TABLE_DRAWS = {"q1 q2": {1: range(1, 21), 2: range(20, 300)}, "name": COMPANIES}


@dataclass(frozen=True)
class Family:
    """One template family. Its sentences are filled with what is drawn, what follows from it, and `WORDS`."""

    capability: Capability
    answer_kind: AnswerKind
    draws: dict[str, Any]  # names -> options, perhaps by level, split or {answer}; two names never get the same
    derive: Callable[..., dict[str, Any]]  # from what was drawn, by name
    wordings: list[str]  # of one question: two for train, one for dev, one for test
    gold: str
    steps: list[str] | dict[int, list[str]]  # the worked solution, perhaps by level
    context: str | dict[int, str] = ""
    earlier: tuple[str, str] | None = None  # the turn before: question and answer
    labels: tuple[str, ...] = ()
    levels: tuple[int, ...] = (1, 2)
    calls: Callable[[random.Random, dict[str, Any]], list[list]] | None = None  # arguments of a function's tests

    @property
    def language(self) -> str:
        return "en" if self.wordings[0].isascii() else "zh"


# fmt: off
FAMILIES = {
    "percent_of": Family("calculation", "number",
        {"rate": {1: [10, 20, 50], 2: [5, 15, 25, 30, 40]}, "amount": {1: range(20, 600, 10), 2: range(20, 400, 20)}},
        lambda rate, amount: {"share": rate / 100, "result": rate * amount / 100},
        ["What is {rate}% of ${amount}?", "A fee is {rate}% of ${amount}. How many dollars is the fee?",
         "Find {rate} percent of {amount} dollars.", "A broker charges {rate}% on a trade of ${amount}. What does he earn?"],
        "{result:g}",
        ["{rate}% is {share:g}.", "{share:g} * {amount} = {result:g}.", "So it is {result:g}."]),
    "profit": Family("calculation", "number",
        {"name": COMPANIES, "cost": {1: range(2, 21), 2: range(2, 500)}, "gain": {1: range(1, 11), 2: range(1, 300)}},
        lambda name, cost, gain: {"revenue": cost + gain},
        ["{name} has revenue of ${revenue} million and costs of ${cost} million. What is its profit in millions?",
         "Costs of {name} are ${cost} million, revenue is ${revenue} million. How many millions does it earn?",
         "{name} sold goods for ${revenue} million and spent ${cost} million. What profit is left, in millions?",
         "How many millions of profit does {name} make with ${revenue} million of sales and ${cost} million of cost?"],
        "{gain}",
        ["Profit is revenue minus cost.", "{revenue} - {cost} = {gain}.", "So the profit is {gain}."]),
    "simple_interest": Family("calculation", "number",
        {"principal": range(100, 1000, 100), "rate": range(2, 10), "years": range(2, 9)},
        lambda principal, rate, years: {"yearly": principal * rate // 100, "total": principal * rate // 100 * years},
        ["${principal} earns {rate}% simple interest a year. How much interest is paid in {years} years?",
         "What simple interest does ${principal} bring at {rate}% a year over {years} years?",
         "A loan of ${principal} costs {rate}% simple interest a year. What is the interest after {years} years?",
         "You lend ${principal} for {years} years at {rate}% simple interest a year. What interest do you get?"],
        "{total}",
        ["{principal} * {rate} / 100 = {yearly} a year.", "{yearly} * {years} = {total}.", "So the interest is {total}."],
        levels=(2,)),
    "percent_change": Family("calculation", "percent",
        {"old": range(20, 500, 10), "rate": [10, 20, 30, 50, 60, 70, 80, 90]},
        lambda old, rate: {"rise": old * rate // 100, "new": old + old * rate // 100, "share": rate / 100},
        ["A share rises from ${old} to ${new}. What is the change in percent?",
         "Sales grew from {old} to {new} million. By what percent did they grow?",
         "The price was ${old} and is now ${new}. What is the rise in percent?",
         "A fund went up from {old} to {new}. What percent did it gain?"],
        "{rate}%",
        ["{new} - {old} = {rise}.", "{rise} / {old} = {share:g}.", "So the change is {rate}%."],
        levels=(2,)),
    "currency": Family("calculation", "number",
        {"rate": range(2, 10), "amount": {1: range(10, 100, 5), 2: range(15, 150, 5)}},
        lambda rate, amount: {"yuan": rate * amount},
        ["One dollar costs {rate} yuan. How many yuan are {amount} dollars?",
         "The rate is {rate} yuan for a dollar. Change {amount} dollars into yuan.",
         "At {rate} yuan a dollar, what are {amount} dollars worth in yuan?",
         "You get {rate} yuan for each dollar. How many yuan do you get for {amount} dollars?"],
        "{yuan}",
        ["One dollar is {rate} yuan.", "{amount} * {rate} = {yuan}.", "So it is {yuan} yuan."]),
    "portfolio": Family("calculation", "number",
        {"shares": range(2, 10), "price": range(5, 90), "cash": range(10, 100, 10)},
        lambda shares, price, cash: {"stock": shares * price, "total": shares * price + cash},
        ["You own {shares} shares at ${price} and ${cash} in cash. What is it all worth?",
         "A client holds ${cash} in cash and {shares} shares priced at ${price}. What is the total value?",
         "What is the value of {shares} shares at ${price} each plus ${cash} in cash?",
         "An account has {shares} shares worth ${price} each and ${cash} of cash. How much is the account worth?"],
        "{total}",
        ["{shares} * {price} = {stock}.", "{stock} + {cash} = {total}.", "So the total is {total}."],
        levels=(2,)),
    "interest_zh": Family("calculation", "number",
        {"principal": {1: range(100, 2600, 100), 2: range(100, 5000, 100)}, "rate": range(2, 10)},
        lambda principal, rate: {"interest": principal * rate // 100},
        ["本金{principal}元，年利率{rate}%，一年利息多少元？", "存{principal}元，年利率{rate}%，一年后利息是多少元？",
         "年利率{rate}%，{principal}元一年的利息是多少？", "贷款{principal}元，年利率{rate}%，一年要付多少元利息？"],
        "{interest}",
        ["利息=本金*利率。", "{principal} * {rate} / 100 = {interest}。", "所以是{interest}。"]),
    "profit_zh": Family("calculation", "number",
        {"cost": {1: range(2, 21), 2: range(2, 500)}, "gain": {1: range(1, 11), 2: range(1, 300)}},
        lambda cost, gain: {"revenue": cost + gain},
        ["收入{revenue}万元，成本{cost}万元，利润多少万元？", "成本{cost}万元，收入{revenue}万元，求利润（万元）。",
         "公司收入{revenue}万元，花费{cost}万元，赚多少万元？", "卖出{revenue}万元，成本{cost}万元，净赚多少万元？"],
        "{gain}",
        ["利润=收入-成本。", "{revenue} - {cost} = {gain}。", "所以是{gain}。"]),
    "code_total": Family("code", "number",
        {"price": {1: range(2, 21), 2: range(2, 60)}, "quantity": range(2, 10), "fee": {1: (), 2: range(1, 10)}},
        lambda price, quantity, fee=0: {"product": price * quantity, "result": price * quantity + fee},
        ["What does this Python code print?", "Read the code. What is its output?",
         "Which number does this program show?", "What value is printed?"],
        "{result}",
        {1: ["{first} is {price}, {second} is {quantity}.", "{price} * {quantity} = {result}.", "So it prints {result}."],
         2: ["{price} * {quantity} = {product}.", "{product} + {fee} = {result}.", "So it prints {result}."]},
        context={1: "{first} = {price}\n{second} = {quantity}\nprint({first} * {second})",
                 2: "{first} = {price}\n{second} = {quantity}\n{third} = {fee}\nprint({first} * {second} + {third})"}),
    "code_branch": Family("code", "label",
        {"debt limit": {1: range(10, 50), 2: range(10, 90)}},
        lambda debt, limit: {"answer": "sell", "is": "is"} if debt > limit else {"answer": "buy", "is": "is not"},
        ["What does this code print, buy or sell?", "Which word does the program show, buy or sell?",
         "Read the code. Does it print buy or sell?", "Will the output be buy or sell?"],
        "{answer}",
        ["{first} is {debt}.", "{debt} {is} greater than {limit}.", "So it prints {answer}."],
        context='{first} = {debt}\nif {first} > {limit}:\n    print("sell")\nelse:\n    print("buy")', labels=("buy", "sell")),
    "gift_rule": Family("compliance", "boolean",
        {"limit gift": {1: range(20, 300, 10), 2: range(20, 200, 5)}},
        lambda limit, gift: {"answer": "non-compliant", "is": "is"} if gift > limit else {"answer": "compliant", "is": "is not"},
        ["Rule: staff may take gifts of at most ${limit}. A broker takes a gift of ${gift}. Is this compliant or non-compliant?",
         "Gifts over ${limit} are forbidden. An analyst accepts ${gift}. Is this compliant or non-compliant?",
         "A banker gets a present of ${gift}. The policy allows up to ${limit}. Is this compliant or non-compliant?",
         "The gift limit is ${limit}. A trader receives ${gift} from a client. Is this compliant or non-compliant?"],
        "{answer}",
        ["The limit is {limit}.", "The gift of {gift} {is} above it.", "So it is {answer}."]),
    "position_rule": Family("compliance", "boolean",
        {"limit held": {1: range(4, 31), 2: range(4, 90)}},
        lambda limit, held: {"answer": "no", "is": "is"} if held > limit else {"answer": "yes", "is": "is not"},
        ["A fund may hold at most {limit}% in one stock. It holds {held}%. Is this allowed, yes or no?",
         "The cap for one issuer is {limit}%. The fund owns {held}%. Does it keep the rule, yes or no?",
         "One position must not be over {limit}%. Ours is {held}%. Is that permitted, yes or no?",
         "No stock may exceed {limit}% of the fund. One has {held}%. Is the fund within its limit, yes or no?"],
        "{answer}",
        ["The limit is {limit}%.", "{held}% {is} above it.", "So the answer is {answer}."]),
    "disclosure_zh": Family("compliance", "boolean",
        {"limit held": {1: range(2, 31), 2: range(2, 90)}},
        lambda limit, held: {"answer": "不合规", "over": "超过"} if held > limit else {"answer": "合规", "over": "没有超过"},
        ["规定上限{limit}%，实际持仓{held}%，合规还是不合规？", "持仓不得超过{limit}%，现为{held}%，合规还是不合规？",
         "基金持股{held}%，上限为{limit}%，是否合规？", "最多可持有{limit}%，账户持有{held}%，合规还是不合规？"],
        "{answer}",
        ["上限是{limit}%。", "{held}%{over}上限。", "所以{answer}。"]),
    "risk_ratio": Family("risk", "label",
        {"tenths": range(50, 960)},
        lambda tenths: {"ratio": tenths / 10} | (
            {"answer": "low", "why": "below 30%"} if tenths < 300
            else {"answer": "medium", "why": "from 30% to 60%"} if tenths < 600
            else {"answer": "high", "why": "at least 60%"}),
        [f"Below 30% is low, below 60% medium, the rest high. {question}" for question in (
            "A borrower has a debt ratio of {ratio}%. Is the risk low, medium or high?",
            "Grade the risk of a loan with a debt ratio of {ratio}%: low, medium or high?",
            "The client owes {ratio}% of assets. Which risk: low, medium or high?",
            "What is the risk grade at {ratio}% debt: low, medium or high?")],
        "{answer}",
        ["The ratio is {ratio}%.", "{ratio}% is {why}.", "So the risk is {answer}."],
        labels=("low", "medium", "high"), levels=(1,)),
    "default_loss": Family("risk", "number",
        {"exposure": range(100, 2600, 100), "rate": {1: range(1, 10), 2: range(1, 30)}},
        lambda exposure, rate: {"loss": exposure * rate // 100},
        ["Loans of ${exposure} have a default rate of {rate}%. What loss is expected?",
         "A bank lends ${exposure} and {rate}% is lost. What is the loss in dollars?",
         "What is the expected loss on ${exposure} if {rate}% defaults?",
         "{rate}% of a credit book of ${exposure} goes bad. How many dollars are lost?"],
        "{loss}",
        ["Loss is exposure times rate.", "{exposure} * {rate} / 100 = {loss}.", "So the loss is {loss}."]),
    "esg_topic": Family("esg", "label",
        {"answer": sorted(INCIDENTS), "name": COMPANIES, "event": INCIDENTS, "item": range(100, 1000)},
        lambda answer, **_: {"about": {"environmental": "nature", "social": "people"}.get(answer, "control of the company")},
        ["Item {item}: {name} {event}. Is this topic environmental, social or governance?",
         "News {item}: {name} {event}. Which ESG topic is it: environmental, social or governance?",
         "{name} {event} (note {item}). Does this belong to environmental, social or governance?",
         "Report {item}: {name} {event}. Name the ESG pillar: environmental, social or governance?"],
        "{answer}",
        ["The company {event}.", "This concerns {about}.", "So the topic is {answer}."],
        labels=("environmental", "social", "governance"), levels=(1,)),
    "emission_intensity": Family("esg", "number",
        {"revenue": range(2, 30), "intensity": range(2, 30)},
        lambda revenue, intensity: {"emitted": revenue * intensity},
        ["A firm emits {emitted} tonnes of CO2 on ${revenue} million of sales. How many tonnes per million?",
         "Sales are ${revenue} million, emissions {emitted} tonnes. What is the intensity in tonnes per million?",
         "{emitted} tonnes of CO2 come with ${revenue} million of revenue. How many tonnes is that per million?",
         "What are the tonnes per million for emissions of {emitted} tonnes and revenue of ${revenue} million?"],
        "{intensity}",
        ["Intensity is emissions divided by sales.", "{emitted} / {revenue} = {intensity}.", "So it is {intensity}."],
        levels=(2,)),
    "sentiment": Family("sentiment", "label",
        {"answer": sorted(NEWS), "name": COMPANIES, "event": NEWS, "day": range(1, 366)},
        lambda answer, **_: {"why": {"bullish": "good for", "bearish": "bad for"}.get(answer, "not a signal for")},
        ["Day {day}: {name} {event}. Is this bullish, bearish or neutral?",
         "{name} {event} on day {day}. What is the sentiment: bullish, bearish or neutral?",
         "Headline {day}: {name} {event}. Is the tone bullish, bearish or neutral?",
         "Tweet {day}: {name} {event}. Classify it as bullish, bearish or neutral?"],
        "{answer}",
        ["The company {event}.", "This is {why} the stock.", "So it is {answer}."],
        labels=("bullish", "bearish", "neutral"), levels=(1,)),
    "table_change": Family("multi_turn", "number",
        TABLE_DRAWS,
        lambda q1, q2, **_: {"low": "Q1", "high": "Q2", "less": q1, "more": q2, "result": q2 - q1} if q1 < q2
        else {"low": "Q2", "high": "Q1", "less": q2, "more": q1, "result": q1 - q2},
        ["And how much more was it than in {low}?", "By how much does it exceed {low}?",
         "How many millions above {low} is that?", "What is the difference to {low}?"],
        "{result}",
        ["{high} is {more}, {low} is {less}.", "{more} - {less} = {result}.", "So it is {result}."],
        context=TABLE, earlier=("What were {row} in {high}?", "{more}")),
    "table_sum": Family("multi_turn", "number",
        TABLE_DRAWS,
        lambda q1, q2, **_: {"total": q1 + q2},
        ["What is the sum with Q2?", "And together with Q2?", "Add Q2. What is the total?",
         "How much is it when Q2 is included?"],
        "{total}",
        ["Q1 is {q1}, Q2 is {q2}.", "{q1} + {q2} = {total}.", "So it is {total}."],
        context=TABLE, earlier=("What were {row} in Q1?", "{q1}")),
}
