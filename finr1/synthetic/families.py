"""The twenty template families, with the names and events of each split. No name or event stands in two splits.

Each family draws the numbers of one problem and returns a `Draft`. The order and the number of its draws from `rng` make
the problem of a seed: a changed draw changes every later problem of that seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from finr1.records import AnswerKind, Capability, Split, Turn

CODE_NAMES = {
    "train": ("price", "quantity", "fee"), "dev": ("rate", "hours", "bonus"), "test": ("cost", "units", "tax")
}  # fmt: skip
TABLE_ROW = {"train": "sales", "dev": "profits", "test": "costs"}
COMPANIES = {
    "train": ["Harbor Foods", "Alto Steel", "Nordwind", "Pine Bank", "Vega Motors", "Lumen Retail", "Oak Telecom"],
    "dev": ["Delta Paper", "Sierra Rail", "Cobalt Energy", "Maple Air"],
    "test": ["Orchid Labs", "Granite Ports", "Zephyr Media", "Willow Insurance"],
}
NEWS = {
    "bullish": {
        "train": ["raises its profit forecast", "wins a record order", "beats estimates", "lifts its dividend",
                  "posts its best quarter ever", "gets upgraded to buy", "sees sales soar"],
        "dev": ["tops expectations", "reports strong growth", "jumps on a new contract", "doubles its earnings",
                "gains market share"],
        "test": ["surges after a profit beat", "hikes its outlook", "hits a record high", "wins approval for its drug",
                 "pays a special dividend", "rallies on upbeat results"],
    },
    "bearish": {
        "train": ["cuts its profit forecast", "loses a key customer", "misses estimates", "suspends its dividend",
                  "posts a record loss", "gets downgraded to sell", "sees sales plunge"],
        "dev": ["falls short of expectations", "warns of weak demand", "drops on a lawsuit", "halves its earnings",
                "loses market share"],
        "test": ["tumbles after a profit miss", "slashes its outlook", "hits a record low", "recalls a faulty product",
                 "defaults on its debt", "sinks on weak results"],
    },
    "neutral": {
        "train": ["will hold its annual meeting", "publishes its report", "names the date of its call",
                  "files its yearly statement", "moves its office", "confirms its schedule", "updates its website"],
        "dev": ["will present at a conference", "announces the date of its results", "renames a division",
                "publishes its calendar", "opens a press page"],
        "test": ["will host an investor day", "schedules its shareholder vote", "changes its ticker symbol",
                 "posts its annual agenda", "lists the speakers of its forum", "sends out invitations"],
    },
}  # fmt: skip
INCIDENTS = {
    "environmental": {
        "train": ["spilled oil into a river", "cut its carbon emissions", "polluted the air near a plant",
                  "planted trees on old mines", "reduced its water use"],
        "dev": ["leaked chemicals into a lake", "switched to solar power", "protected a wetland"],
        "test": ["dumped waste in a forest", "recycled its plastic packaging", "burned coal without filters",
                 "restored a coral reef"],
    },
    "social": {
        "train": ["raised the pay of its workers", "ignored safety rules for staff", "trained unemployed youth",
                  "used child labour at a supplier", "gave parents paid leave"],
        "dev": ["fired workers who joined a union", "paid for staff health care", "opened a school for children"],
        "test": ["made employees work unpaid overtime", "hired more disabled people", "locked the exits of a factory",
                 "paid women as much as men"],
    },
    "governance": {
        "train": ["hid losses from its auditor", "bribed an official", "added independent directors to its board",
                  "let its chief executive set his own pay", "published its voting rules"],
        "dev": ["backdated options for its directors", "separated chairman and chief executive",
                "changed its auditor in secret"],
        "test": ["misled shareholders about its accounts", "gave its audit committee more power",
                 "paid its board without a vote", "disclosed all pay of directors"],
    },
}  # fmt: skip


@dataclass
class Draft:
    """What a family returns: four wordings of one question, its gold answer and the worked steps to it."""

    wordings: list[str]
    gold: str
    steps: list[str]
    context: str = ""
    history: list[Turn] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Family:
    """One template family; `draw(rng, split, level)` makes a `Draft` at one of its `levels`."""

    draw: Callable[[random.Random, Split, int], Draft]
    capability: Capability
    answer_kind: AnswerKind
    language: str = "en"
    levels: tuple[int, ...] = (1, 2)


def percent_of(rng: random.Random, split: Split, level: int) -> Draft:
    rate = rng.choice([10, 20, 50] if level == 1 else [5, 15, 25, 30, 40])
    amount = rng.randrange(20, 600, 10) if level == 1 else rng.randrange(20, 400, 20)
    result = rate * amount / 100
    return Draft(
        [f"What is {rate}% of ${amount}?", f"A fee is {rate}% of ${amount}. How many dollars is the fee?",
         f"Find {rate} percent of {amount} dollars.", f"A broker charges {rate}% on a trade of ${amount}. What does he earn?"],
        f"{result:g}",
        [f"{rate}% is {rate / 100:g}.", f"{rate / 100:g} * {amount} = {result:g}.", f"So it is {result:g}."],
    )  # fmt: skip


def profit(rng: random.Random, split: Split, level: int) -> Draft:
    name, cost = rng.choice(COMPANIES[split]), rng.randrange(2, 21 if level == 1 else 500)
    gain = rng.randrange(1, 11 if level == 1 else 300)
    return Draft(
        [f"{name} has revenue of ${cost + gain} million and costs of ${cost} million. What is its profit in millions?",
         f"Costs of {name} are ${cost} million, revenue is ${cost + gain} million. How many millions does it earn?",
         f"{name} sold goods for ${cost + gain} million and spent ${cost} million. What profit is left, in millions?",
         f"How many millions of profit does {name} make with ${cost + gain} million of sales and ${cost} million of cost?"],
        str(gain),
        ["Profit is revenue minus cost.", f"{cost + gain} - {cost} = {gain}.", f"So the profit is {gain}."],
    )  # fmt: skip


def simple_interest(rng: random.Random, split: Split, level: int) -> Draft:
    principal, rate = rng.randrange(100, 1000, 100), rng.randrange(2, 10)
    years = rng.randrange(2, 9)
    yearly = principal * rate // 100
    return Draft(
        [f"${principal} earns {rate}% simple interest a year. How much interest is paid in {years} years?",
         f"What simple interest does ${principal} bring at {rate}% a year over {years} years?",
         f"A loan of ${principal} costs {rate}% simple interest a year. What is the interest after {years} years?",
         f"You lend ${principal} for {years} years at {rate}% simple interest a year. What interest do you get?"],
        str(yearly * years),
        [f"{principal} * {rate} / 100 = {yearly} a year.", f"{yearly} * {years} = {yearly * years}.",
         f"So the interest is {yearly * years}."],
    )  # fmt: skip


def percent_change(rng: random.Random, split: Split, level: int) -> Draft:
    old, rate = rng.randrange(20, 500, 10), rng.choice([10, 20, 30, 50, 60, 70, 80, 90])
    new = old + old * rate // 100
    return Draft(
        [f"A share rises from ${old} to ${new}. What is the change in percent?",
         f"Sales grew from {old} to {new} million. By what percent did they grow?",
         f"The price was ${old} and is now ${new}. What is the rise in percent?",
         f"A fund went up from {old} to {new}. What percent did it gain?"],
        f"{rate}%",
        [f"{new} - {old} = {new - old}.", f"{new - old} / {old} = {rate / 100:g}.", f"So the change is {rate}%."],
    )  # fmt: skip


def currency(rng: random.Random, split: Split, level: int) -> Draft:
    rate, amount = rng.randrange(2, 10), rng.randrange(10, 100, 5) if level == 1 else rng.randrange(15, 150, 5)
    return Draft(
        [f"One dollar costs {rate} yuan. How many yuan are {amount} dollars?",
         f"The rate is {rate} yuan for a dollar. Change {amount} dollars into yuan.",
         f"At {rate} yuan a dollar, what are {amount} dollars worth in yuan?",
         f"You get {rate} yuan for each dollar. How many yuan do you get for {amount} dollars?"],
        str(rate * amount),
        [f"One dollar is {rate} yuan.", f"{amount} * {rate} = {amount * rate}.", f"So it is {amount * rate} yuan."],
    )  # fmt: skip


def portfolio(rng: random.Random, split: Split, level: int) -> Draft:
    shares, price = rng.randrange(2, 10), rng.randrange(5, 90)
    cash = rng.randrange(10, 100, 10)
    return Draft(
        [f"You own {shares} shares at ${price} and ${cash} in cash. What is it all worth?",
         f"A client holds ${cash} in cash and {shares} shares priced at ${price}. What is the total value?",
         f"What is the value of {shares} shares at ${price} each plus ${cash} in cash?",
         f"An account has {shares} shares worth ${price} each and ${cash} of cash. How much is the account worth?"],
        str(shares * price + cash),
        [f"{shares} * {price} = {shares * price}.", f"{shares * price} + {cash} = {shares * price + cash}.",
         f"So the total is {shares * price + cash}."],
    )  # fmt: skip


def interest_zh(rng: random.Random, split: Split, level: int) -> Draft:
    principal, rate = rng.randrange(100, 2600 if level == 1 else 5000, 100), rng.randrange(2, 10)
    interest = principal * rate // 100
    return Draft(
        [f"本金{principal}元，年利率{rate}%，一年利息多少元？", f"存{principal}元，年利率{rate}%，一年后利息是多少元？",
         f"年利率{rate}%，{principal}元一年的利息是多少？", f"贷款{principal}元，年利率{rate}%，一年要付多少元利息？"],
        str(interest),
        ["利息=本金*利率。", f"{principal} * {rate} / 100 = {interest}。", f"所以是{interest}。"],
    )  # fmt: skip


def profit_zh(rng: random.Random, split: Split, level: int) -> Draft:
    cost, gain = rng.randrange(2, 21 if level == 1 else 500), rng.randrange(1, 11 if level == 1 else 300)
    return Draft(
        [f"收入{cost + gain}万元，成本{cost}万元，利润多少万元？", f"成本{cost}万元，收入{cost + gain}万元，求利润（万元）。",
         f"公司收入{cost + gain}万元，花费{cost}万元，赚多少万元？", f"卖出{cost + gain}万元，成本{cost}万元，净赚多少万元？"],
        str(gain),
        ["利润=收入-成本。", f"{cost + gain} - {cost} = {gain}。", f"所以是{gain}。"],
    )  # fmt: skip


def code_total(rng: random.Random, split: Split, level: int) -> Draft:
    price, quantity = rng.randrange(2, 21 if level == 1 else 60), rng.randrange(2, 10)
    first, second, third = CODE_NAMES[split]
    lines, result = [f"{first} = {price}", f"{second} = {quantity}"], price * quantity
    steps = [f"{first} is {price}, {second} is {quantity}.", f"{price} * {quantity} = {result}."]
    if level == 1:
        lines.append(f"print({first} * {second})")
    else:
        fee = rng.randrange(1, 10)
        lines += [f"{third} = {fee}", f"print({first} * {second} + {third})"]
        steps, result = [steps[1], f"{result} + {fee} = {result + fee}."], result + fee
    return Draft(
        ["What does this Python code print?", "Read the code. What is its output?", "Which number does this program show?",
         "What value is printed?"],
        str(result),
        [*steps, f"So it prints {result}."],
        context="\n".join(lines),
    )  # fmt: skip


def default_loss(rng: random.Random, split: Split, level: int) -> Draft:
    exposure, rate = rng.randrange(100, 2600, 100), rng.randrange(1, 10 if level == 1 else 30)
    return Draft(
        [f"Loans of ${exposure} have a default rate of {rate}%. What loss is expected?",
         f"A bank lends ${exposure} and {rate}% is lost. What is the loss in dollars?",
         f"What is the expected loss on ${exposure} if {rate}% defaults?",
         f"{rate}% of a credit book of ${exposure} goes bad. How many dollars are lost?"],
        str(exposure * rate // 100),
        ["Loss is exposure times rate.", f"{exposure} * {rate} / 100 = {exposure * rate // 100}.",
         f"So the loss is {exposure * rate // 100}."],
    )  # fmt: skip


def emission_intensity(rng: random.Random, split: Split, level: int) -> Draft:
    revenue, intensity = rng.randrange(2, 30), rng.randrange(2, 30)
    return Draft(
        [f"A firm emits {revenue * intensity} tonnes of CO2 on ${revenue} million of sales. How many tonnes per million?",
         f"Sales are ${revenue} million, emissions {revenue * intensity} tonnes. What is the intensity in tonnes per million?",
         f"{revenue * intensity} tonnes of CO2 come with ${revenue} million of revenue. How many tonnes is that per million?",
         f"What are the tonnes per million for emissions of {revenue * intensity} tonnes and revenue of ${revenue} million?"],
        str(intensity),
        ["Intensity is emissions divided by sales.", f"{revenue * intensity} / {revenue} = {intensity}.", f"So it is {intensity}."],
    )  # fmt: skip


def _table(rng: random.Random, split: Split, level: int) -> tuple[int, int, str]:
    first, second = rng.sample(range(1, 21) if level == 1 else range(20, 300), 2)
    name, row = rng.choice(COMPANIES[split]), TABLE_ROW[split]
    return first, second, f"{name}, $ million\n\n||Q1|Q2|\n|---|---|---|\n|{row}|{first}|{second}|"


def table_change(rng: random.Random, split: Split, level: int) -> Draft:
    first, second, table = _table(rng, split, level)
    (low, less), (high, more) = sorted([("Q1", first), ("Q2", second)], key=lambda cell: cell[1])
    return Draft(
        [f"And how much more was it than in {low}?", f"By how much does it exceed {low}?",
         f"How many millions above {low} is that?", f"What is the difference to {low}?"],
        str(more - less),
        [f"{high} is {more}, {low} is {less}.", f"{more} - {less} = {more - less}.", f"So it is {more - less}."],
        context=table, history=[Turn(question=f"What were {TABLE_ROW[split]} in {high}?", answer=str(more))],
    )  # fmt: skip


def table_sum(rng: random.Random, split: Split, level: int) -> Draft:
    first, second, table = _table(rng, split, level)
    return Draft(
        ["What is the sum with Q2?", "And together with Q2?", "Add Q2. What is the total?",
         "How much is it when Q2 is included?"],
        str(first + second),
        [f"Q1 is {first}, Q2 is {second}.", f"{first} + {second} = {first + second}.", f"So it is {first + second}."],
        context=table, history=[Turn(question=f"What were {TABLE_ROW[split]} in Q1?", answer=str(first))],
    )  # fmt: skip


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


FAMILIES: dict[str, Family] = {
    "percent_of": Family(percent_of, "calculation", "number"),
    "profit": Family(profit, "calculation", "number"),
    "simple_interest": Family(simple_interest, "calculation", "number", levels=(2,)),
    "percent_change": Family(percent_change, "calculation", "percent", levels=(2,)),
    "currency": Family(currency, "calculation", "number"),
    "portfolio": Family(portfolio, "calculation", "number", levels=(2,)),
    "interest_zh": Family(interest_zh, "calculation", "number", "zh"),
    "profit_zh": Family(profit_zh, "calculation", "number", "zh"),
    "code_total": Family(code_total, "code", "number"),
    "code_branch": Family(code_branch, "code", "label"),
    "gift_rule": Family(gift_rule, "compliance", "boolean"),
    "position_rule": Family(position_rule, "compliance", "boolean"),
    "disclosure_zh": Family(disclosure_zh, "compliance", "boolean", "zh"),
    "risk_ratio": Family(risk_ratio, "risk", "label", levels=(1,)),
    "default_loss": Family(default_loss, "risk", "number"),
    "esg_topic": Family(esg_topic, "esg", "label", levels=(1,)),
    "emission_intensity": Family(emission_intensity, "esg", "number", levels=(2,)),
    "sentiment": Family(sentiment, "sentiment", "label", levels=(1,)),
    "table_change": Family(table_change, "multi_turn", "number"),
    "table_sum": Family(table_sum, "multi_turn", "number"),
}
