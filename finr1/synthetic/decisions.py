"""Families whose answer is a word: rules to keep, grades, topics, sentiment, a branch of code."""

from __future__ import annotations

import random

from finr1.records import Split
from finr1.synthetic.wording import CODE_NAMES, COMPANIES, INCIDENTS, NEWS, Draft


def code_branch(rng: random.Random, split: Split, level: int) -> Draft:
    debt, limit = rng.sample(range(10, 50 if level == 1 else 90), 2)
    answer = "sell" if debt > limit else "buy"
    name = CODE_NAMES[split][0]
    code = f'{name} = {debt}\nif {name} > {limit}:\n    print("sell")\nelse:\n    print("buy")'
    return Draft(
        ["What does this code print, buy or sell?", "Which word does the program show, buy or sell?",
         "Read the code. Does it print buy or sell?", "Will the output be buy or sell?"],
        answer,
        [f"{name} is {debt}.", f"{debt} is {'' if debt > limit else 'not '}greater than {limit}.", f"So it prints {answer}."],
        context=code, labels=["buy", "sell"],
    )  # fmt: skip


def gift_rule(rng: random.Random, split: Split, level: int) -> Draft:
    limit, gift = rng.sample(range(20, 300, 10) if level == 1 else range(20, 200, 5), 2)
    answer = "non-compliant" if gift > limit else "compliant"
    ask = "Is this compliant or non-compliant?"
    return Draft(
        [f"Rule: staff may take gifts of at most ${limit}. A broker takes a gift of ${gift}. {ask}",
         f"Gifts over ${limit} are forbidden. An analyst accepts ${gift}. {ask}",
         f"A banker gets a present of ${gift}. The policy allows up to ${limit}. {ask}",
         f"The gift limit is ${limit}. A trader receives ${gift} from a client. {ask}"],
        answer,
        [f"The limit is {limit}.", f"The gift of {gift} is {'above' if gift > limit else 'not above'} it.", f"So it is {answer}."],
    )  # fmt: skip


def position_rule(rng: random.Random, split: Split, level: int) -> Draft:
    limit, held = rng.sample(range(4, 31 if level == 1 else 90), 2)
    answer = "no" if held > limit else "yes"
    return Draft(
        [f"A fund may hold at most {limit}% in one stock. It holds {held}%. Is this allowed, yes or no?",
         f"The cap for one issuer is {limit}%. The fund owns {held}%. Does it keep the rule, yes or no?",
         f"One position must not be over {limit}%. Ours is {held}%. Is that permitted, yes or no?",
         f"No stock may exceed {limit}% of the fund. One has {held}%. Is the fund within its limit, yes or no?"],
        answer,
        [f"The limit is {limit}%.", f"{held}% is {'above' if held > limit else 'not above'} it.", f"So the answer is {answer}."],
    )  # fmt: skip


def disclosure_zh(rng: random.Random, split: Split, level: int) -> Draft:
    limit, held = rng.sample(range(2, 31 if level == 1 else 90), 2)
    answer = "不合规" if held > limit else "合规"
    return Draft(
        [f"规定上限{limit}%，实际持仓{held}%，合规还是不合规？", f"持仓不得超过{limit}%，现为{held}%，合规还是不合规？",
         f"基金持股{held}%，上限为{limit}%，是否合规？", f"最多可持有{limit}%，账户持有{held}%，合规还是不合规？"],
        answer,
        [f"上限是{limit}%。", f"{held}%{'超过' if held > limit else '没有超过'}上限。", f"所以{answer}。"],
    )  # fmt: skip


def risk_ratio(rng: random.Random, split: Split, level: int) -> Draft:
    ratio = rng.randrange(50, 960) / 10
    answer = "low" if ratio < 30 else "medium" if ratio < 60 else "high"
    why = {"low": "below 30%", "medium": "from 30% to 60%", "high": "at least 60%"}[answer]
    rule = "Below 30% is low, below 60% medium, the rest high."
    return Draft(
        [f"{rule} A borrower has a debt ratio of {ratio}%. Is the risk low, medium or high?",
         f"{rule} Grade the risk of a loan with a debt ratio of {ratio}%: low, medium or high?",
         f"{rule} The client owes {ratio}% of assets. Which risk: low, medium or high?",
         f"{rule} What is the risk grade at {ratio}% debt: low, medium or high?"],
        answer,
        [f"The ratio is {ratio}%.", f"{ratio}% is {why}.", f"So the risk is {answer}."],
        labels=["low", "medium", "high"],
    )  # fmt: skip


def esg_topic(rng: random.Random, split: Split, level: int) -> Draft:
    answer = rng.choice(sorted(INCIDENTS))
    name, event, item = rng.choice(COMPANIES[split]), rng.choice(INCIDENTS[answer][split]), rng.randrange(100, 1000)
    about = {"environmental": "nature", "social": "people", "governance": "control of the company"}[answer]
    ask = "environmental, social or governance?"
    return Draft(
        [f"Item {item}: {name} {event}. Is this topic {ask}", f"News {item}: {name} {event}. Which ESG topic is it: {ask}",
         f"{name} {event} (note {item}). Does this belong to {ask}", f"Report {item}: {name} {event}. Name the ESG pillar: {ask}"],
        answer,
        [f"The company {event}.", f"This concerns {about}.", f"So the topic is {answer}."],
        labels=["environmental", "social", "governance"],
    )  # fmt: skip


def sentiment(rng: random.Random, split: Split, level: int) -> Draft:
    answer = rng.choice(sorted(NEWS))
    name, event, day = rng.choice(COMPANIES[split]), rng.choice(NEWS[answer][split]), rng.randrange(1, 366)
    why = {"bullish": "good for", "bearish": "bad for", "neutral": "not a signal for"}[answer]
    ask = "bullish, bearish or neutral?"
    return Draft(
        [f"Day {day}: {name} {event}. Is this {ask}", f"{name} {event} on day {day}. What is the sentiment: {ask}",
         f"Headline {day}: {name} {event}. Is the tone {ask}", f"Tweet {day}: {name} {event}. Classify it as {ask}"],
        answer,
        [f"The company {event}.", f"This is {why} the stock.", f"So it is {answer}."],
        labels=["bullish", "bearish", "neutral"],
    )  # fmt: skip
