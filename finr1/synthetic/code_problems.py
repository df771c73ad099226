"""Problems whose answer is a Python function, graded by unit tests in `finr1.sandbox`. SYNTHETIC, as all of this folder.

They stand apart from `FAMILIES`: a model of the demo's size can't write such code. A problem's convention (how often
interest is compounded, what is deducted) stands in its question only, so no formula learned by heart passes for all of
a family. The tests' arguments stand in no prompt. The step of a family is a solution that passes.
"""

import json
from random import Random

from finr1.synthetic.families import Family


def unit_tests(function: str, solution: str, calls: list[list]) -> str:
    """The gold that `sandbox.read_tests` reads: the arguments of each test with what our own `solution` returns."""
    space: dict = {}
    exec(solution, space)
    tests = [{"call": call, "returns": space[function](*call)} for call in calls]
    return json.dumps({"function": function, "tests": tests})


def _deposits(rng: Random, drawn: dict) -> list[list]:
    return [[rng.randrange(500, 9000), rng.randrange(5, 120) / 1000, rng.randrange(1, 25)] for _ in range(5)]


def _returns(rng: Random, count: int, shortest: int, longest: int) -> list[list]:
    lengths = range(shortest, longest + 1)
    return [[[rng.randrange(-90, 110) / 1000 for _ in range(rng.choice(lengths))]] for _ in range(count)]


def _family(function: str, solution: str, calls, draws: dict, wordings: list[str], derive=lambda **_: {}) -> Family:
    tail = " Use the standard library alone and do not round. Answer with the function in one Python code block."
    if not wordings[0].isascii():
        tail = "只用标准库，不要四舍五入。请用一个Python代码块给出函数。"
    wordings = [wording + tail for wording in wordings]
    return Family("code", "code", draws, derive, wordings, function, [solution], levels=(2,), calls=calls)


# fmt: off
CODE_FAMILIES = {
    "write_compound": _family(
        "compound",
        "def compound(principal, rate, years):\n    return (principal - {fee}) * (1 + rate / {times}) ** ({times} * years)",
        _deposits, {"times": [2, 4, 12, 52], "fee": range(1, 200)},
        ["Write compound(principal, rate, years): the value of a deposit after a fee of ${fee} is taken from it at the start. The annual rate is a fraction, interest is compounded {times} times a year.",
         "A bank deducts ${fee} from a new deposit and compounds interest {times} times a year. Write compound(principal, rate, years) for the final value; rate is annual, 0.05 means five percent.",
         "Define compound(principal, rate, years). A fee of ${fee} comes off the principal first; then the annual rate (a fraction) is compounded {times} times a year. Return the final amount.",
         "Please code compound(principal, rate, years), which returns what a deposit less an entry fee of ${fee} grows to with {times} compounding periods a year and an annual rate given as a fraction."]),
    "write_npv": _family(
        "npv",
        "def npv(rate, flows):\n    return sum(flow / (1 + rate) ** (i + 1) for i, flow in enumerate(flows)) - {cost}",
        lambda rng, _: [
            [rng.randrange(1, 200) / 1000, [rng.randrange(-200, 900) for _ in range(rng.randrange(1, 7))]]
            for _ in range(5)
        ],
        {"cost": range(50, 2000)},
        ["Write npv(rate, flows): the net present value of a project that costs ${cost} today and pays flows[0] after one year, flows[1] after two, and so on. rate is a fraction.",
         "A project needs ${cost} now; flows lists what it pays at the end of year 1, 2, 3 ... Write npv(rate, flows) for its net present value at the discount rate (a fraction).",
         "Define npv(rate, flows). The outlay is ${cost} at time 0, the first of the flows arrives one year later. Return the net present value; rate 0.1 is ten percent.",
         "Please code npv(rate, flows) for an investment of ${cost} today, with yearly flows from the end of the first year on, discounted at rate (a fraction)."]),
    "write_loan_payment": _family(
        "loan_payment",
        "def loan_payment(amount, rate, months):\n    owed, monthly = amount + {fee}, rate / 12\n    if monthly == 0:\n        return owed / months\n"
        "    return owed * monthly / (1 - (1 + monthly) ** -months)",
        lambda rng, _: [
            [rng.randrange(1000, 90000), rate, rng.randrange(6, 361)]
            for rate in [0, *(rng.randrange(5, 150) / 1000 for _ in range(4))]
        ],
        {"fee": range(1, 300)},
        ["Write loan_payment(amount, rate, months): the level monthly payment of a loan to which a fee of ${fee} is added. rate is the annual rate as a fraction, a month's rate is a twelfth; rate may be 0.",
         "A fee of ${fee} is added to a loan, which is repaid in equal monthly amounts. Write loan_payment(amount, rate, months); rate is annual, a fraction, perhaps 0, and a twelfth of it counts each month.",
         "Define loan_payment(amount, rate, months) for an annuity loan with ${fee} of charges added to the amount. The yearly rate (fraction, may be zero) is divided by twelve. Return one month's payment.",
         "Please code loan_payment(amount, rate, months): equal monthly payments on amount plus ${fee} of costs, at a twelfth of the annual rate (a fraction, zero allowed) each month."]),
    "write_sharpe": _family(
        "sharpe",
        "import statistics\n\ndef sharpe(returns):\n    excess = statistics.mean(returns) - {riskless} / {periods}\n"
        "    return excess / statistics.stdev(returns) * {periods} ** 0.5",
        lambda rng, drawn: _returns(rng, 5, 4, 12), {"free": range(1, 60), "periods": [4, 12, 52, 252]},
        ["Write sharpe(returns): the annualised Sharpe ratio of periodic returns, {periods} a year. A year's riskless return is {riskless} in equal parts over its periods; use the sample standard deviation.",
         "returns holds fractions, {periods} a year. With a riskless return of {riskless} a year, an equal part in each period, write sharpe(returns): mean excess over sample standard deviation, times the root of {periods}.",
         "Define sharpe(returns) for {periods} returns a year and {riskless} of riskless return a year (divide it by {periods}). Annualise with the square root; the standard deviation is the sample's.",
         "Please code sharpe(returns): annual Sharpe ratio (sample standard deviation, square root of time) of returns that come {periods} times a year, against {riskless} a year without risk, spread evenly."],
        lambda free, periods: {"riskless": free / 1000}),
    "write_drawdown": _family(
        "drawdown",
        "def drawdown(returns):\n    value = peak = {start}\n    worst = 0.0\n    for r in returns:\n        value *= 1 + r\n"
        "        peak = max(peak, value)\n        worst = max(worst, peak - value)\n    return worst",
        lambda rng, drawn: [*_returns(rng, 4, 3, 11), [[0.01, 0.02]]], {"start": range(20, 900)},
        ["Write drawdown(returns): the largest fall in dollars below an earlier peak of a fund that starts with ${start} and earns these returns (fractions) one after another. The start may be the peak; 0 without a fall.",
         "A fund of ${start} earns the fractions in returns in turn. Write drawdown(returns): how many dollars at most it stands below its highest value so far (the start included), 0 if it never falls.",
         "Define drawdown(returns) for a portfolio worth ${start} that compounds the given returns. Return the maximum drawdown from the running peak, first value included, in dollars, at least 0.",
         "Please code drawdown(returns): starting with ${start}, compound the returns and give the biggest fall from any earlier high (also from the start) in dollars; never below 0."]),
    "write_bond_price": _family(
        "bond_price",
        "def bond_price(coupon, yield_, years):\n    periods, rate, paid = years * {times}, yield_ / {times}, coupon * {face} / {times}\n"
        "    return sum(paid / (1 + rate) ** t for t in range(1, periods + 1)) + {face} / (1 + rate) ** periods",
        lambda rng, _: [
            [rng.randrange(0, 90) / 1000, rng.randrange(5, 110) / 1000, rng.randrange(1, 20)] for _ in range(5)
        ],
        {"hundreds": range(1, 60), "times": [1, 2, 4]},
        ["Write bond_price(coupon, yield_, years) for a bond with a face value of {face} that pays its annual coupon rate in {times} equal parts a year. yield_ is nominal a year with as many compounding periods; both are fractions.",
         "A bond repays {face} and has {times} coupon dates a year. Write bond_price(coupon, yield_, years): coupon and yield_ are annual fractions, divide both by {times} for a period.",
         "Define bond_price(coupon, yield_, years): present value of {times} coupons a year and the face value of {face} at the end, at a period's rate of yield_ over {times}. The annual coupon is a fraction of face.",
         "Please code bond_price(coupon, yield_, years) for face value {face}, {times} coupons a year, discounting at yield_ divided by {times} per period (annual fractions)."],
        lambda hundreds, times: {"face": hundreds * 100}),
    "write_compound_zh": _family(
        "fuli",
        "def fuli(principal, rate, years):\n    interest = principal * (1 + rate / {times}) ** ({times} * years) - principal\n    return principal + interest * (1 - {tax} / 100)",
        _deposits, {"times": [1, 2, 4, 12], "tax": range(1, 40)},
        ["编写函数 fuli(principal, rate, years)：存款每年计息{times}次（复利），年利率rate为小数，到期时对利息征收{tax}%的税，返回税后本息和。",
         "存款按复利每年计息{times}次，利息到期缴纳{tax}%的税。请写 fuli(principal, rate, years)，rate为小数形式的年利率，返回税后总额。",
         "定义 fuli(principal, rate, years)：年利率rate（小数），一年计息{times}次，期末利息部分扣税{tax}%，求本金加税后利息。",
         "请实现 fuli(principal, rate, years)，复利一年{times}次，利息税率{tax}%在到期时一次扣除，rate是小数，返回最终到手的金额。"]),
    "write_moving_average_zh": _family(
        "xinhao",
        "def xinhao(prices):\n    found = []\n    for i in range({window} - 1, len(prices)):\n        mean = sum(prices[i - {window} + 1 : i + 1]) / {window}\n"
        "        if prices[i] > mean * (1 + {limit} / 100):\n            found.append(i)\n    return found",
        lambda rng, drawn: [
            *(
                [[rng.randrange(8000, 12000) / 100 for _ in range(rng.randrange(drawn["window"] + 4, 20))]]
                for _ in range(4)
            ),
            [[100.5]],
        ],
        {"window": range(2, 8), "tenths": range(1, 60)},
        ["编写函数 xinhao(prices)：从第{window}天起，若当天价格比最近{window}天（含当天）的平均价高出超过{limit}%，该天记为信号。返回信号天的下标列表（从零开始）。",
         "给定每日价格prices，用{window}日均线（含当天）。价格超过均线{limit}%以上的日子是信号。请写 xinhao(prices)，返回这些日子的下标（零起），均线不足{window}天的不算。",
         "定义 xinhao(prices)：计算{window}日移动平均（包括当日），返回价格严格大于均线乘以(1+{limit}%)的下标列表，下标由零开始，前面不足{window}天的跳过。",
         "请实现 xinhao(prices)，返回所有满足“当日价高于{window}日均价（含当日）{limit}%以上”的日期下标，下标从零数起，不满{window}天不判断。"],
        lambda window, tenths: {"limit": tenths / 10}),
}
