"""Families whose answer is a number: arithmetic in English and Chinese, code, tables, losses, emissions."""

from __future__ import annotations

import random

from finr1.records import Split, Turn
from finr1.synthetic.wording import CODE_NAMES, COMPANIES, TABLE_ROW, Draft


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
