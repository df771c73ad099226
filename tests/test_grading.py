"""When is an answer right? Tables of (predicted, gold, expected, why), one table for each clause of the contract.

python -m pytest tests/test_grading.py
"""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from finr1.grading import grade

RIGHT, WRONG, UNDECIDED = True, False, None

TOLERANCE = [
    ("101", "100", RIGHT, "exactly 1 % above"),
    ("99", "100", RIGHT, "exactly 1 % below"),
    ("101.01", "100.00", WRONG, "a little more than 1 %"),
    ("98.99", "100.00", WRONG, "a little more than 1 %"),
    ("-101", "-100", RIGHT, "1 % of a negative gold"),
    ("14.11%", "14%", RIGHT, "rounds to the gold as it is written"),
    ("13.5%", "14%", RIGHT, "half-way, half up"),
    ("14.5%", "14%", RIGHT, "half-way, half to even"),
    ("14.5", "15", RIGHT, "half-way from below, half up"),
    ("15.5", "15", WRONG, "rounds to 16 either way"),
    ("14.51%", "14%", WRONG, "rounds to 15"),
    ("10%", "14%", WRONG, "coarser than the gold"),
    ("0", "14%", WRONG, "coarser than the gold"),
    ("0", "0.3", WRONG, "the gold would round to it, it does not round to the gold"),
    ("14%", "14.4%", WRONG, "coarser than the gold and more than 1 % off"),
    ("14%", "14.11%", RIGHT, "coarser but within 1 %"),
    ("-27.0%", "-0.26689", WRONG, "1.2 % off and no rounding of the gold"),
    ("0.67", "0.666", RIGHT, "within 1 %"),
    ("0.7", "0.666", WRONG, "coarser than the gold"),
    ("1.24e6", "1.2e6", RIGHT, "an exponent moves the last written digit"),
    ("0.0000312", "3e-05", RIGHT, "a tiny gold as Python prints it"),
    ("0.4", "0", RIGHT, "rounds to 0 as written"),
    ("1", "0", WRONG, "does not round to 0"),
    ("0.004", "0.00", RIGHT, "rounds to 0.00"),
    ("0.006", "0.00", WRONG, "rounds to 0.01"),
    ("40%", "0", WRONG, "0.4 would round to 0, but 40% is not nothing"),
    ("0.18182", "0%", WRONG, "18 % is not 0 %"),
    ("0.3 million", "0", WRONG, "300,000 is not nothing"),
    ("-0%", "0%", RIGHT, "minus nothing"),
]

PERCENT = [
    ("0.1411", "14%", RIGHT, "a share for a percentage"),
    ("14.11", "14%", RIGHT, "the percent sign left out"),
    ("14.11%", "0.14", RIGHT, "a percentage for a share"),
    ("14.11%", "14.11", RIGHT, "x% may mean x"),
    (".3%", "0.003", RIGHT, "leading point"),
    ("14 percent", "14%", RIGHT, "the word"),
    ("5个百分点", "5%", RIGHT, "percentage points"),
    ("百分之5", "5%", RIGHT, "prefix"),
    ("25bps", "0.25%", RIGHT, "basis points"),
    ("25 basis points", "25%", WRONG, "a hundredth of it"),
    ("0.14%", "14%", WRONG, "both state their unit"),
    ("1411%", "14.11%", WRONG, "both state their unit"),
    ("5%", "$5", WRONG, "a share is no amount"),
    ("5%", "5 million", WRONG, "a share is no amount"),
]

SIGN = [
    ("-5", "5", WRONG, "sign must agree"),
    ("5", "-5", WRONG, "sign must agree"),
    ("(5.83)", "-5.83", RIGHT, "brackets are a minus"),
    ("($ 5.83)", "-5.83", RIGHT, "brackets with currency"),
    ("( $ 5.83 )", "-5.83", RIGHT, "tokenised"),
    ("$(5.83)", "-5.83", RIGHT, "currency outside"),
    ("（5.83）", "-5.83", RIGHT, "full-width brackets"),
    ("(5.83 million)", "-5.83 million", RIGHT, "unit inside"),
    ("\\left(5.83\\right)", "-5.83", RIGHT, "LaTeX brackets"),
    ("\\(5.83\\)", "5.83", RIGHT, "math delimiters are no brackets"),
    ("-5.83", "($5.83)", RIGHT, "bracketed gold"),
    ("(5.83)", "5.83", WRONG, "minus against plus"),
    ("−5", "-5", RIGHT, "minus sign"),
    ("–5", "-5", RIGHT, "en dash"),
    ("—5", "-5", RIGHT, "em dash"),
    ("－5", "-5", RIGHT, "full-width"),
    ("$ -5", "-5", RIGHT, "behind the currency"),
    ("-$5", "-5", RIGHT, "in front of the currency"),
    ("Net change: -5", "-5", RIGHT, "behind a colon"),
    ("负5", "-5", RIGHT, "the word"),
    ("minus 5", "-5", RIGHT, "the word"),
    ("decrease of 5", "-5", RIGHT, "direction word"),
    ("decreased by 5%", "-0.05", RIGHT, "direction word"),
    ("a decline of 5%", "-5%", RIGHT, "direction word"),
    ("down 5%", "-5%", RIGHT, "direction word"),
    ("a loss of $5.83 million", "-5.83", RIGHT, "direction word"),
    ("降幅为5%", "-5%", RIGHT, "direction word"),
    ("负增长5%", "-5%", RIGHT, "direction word, although 增长 is in it"),
    ("negative growth of 5%", "-5%", RIGHT, "direction word, although growth is in it"),
    ("an outflow of $5", "-5", RIGHT, "direction word"),
    ("净流出5亿元", "-5亿元", RIGHT, "direction word"),
    ("revenue shrank by 5%", "-5%", RIGHT, "direction word"),
    ("-75% (-0.75)", "-75%", RIGHT, "says one thing twice, both with their sign"),
    ("-75% - 0.75", "-75%", WRONG, "nobody worked it out"),
    ("下降了5.2%", "-5.2%", RIGHT, "direction word"),
    ("减少5亿元", "-5亿元", RIGHT, "direction word"),
    ("亏损5.83亿元", "-5.83亿元", RIGHT, "direction word"),
    ("-5%", "5% decrease", RIGHT, "direction word in the gold"),
    ("decrease of 5", "5", RIGHT, "asked for the size of the decrease"),
    ("increase of 5%", "-5%", WRONG, "the other direction"),
    ("increased 5%", "decreased 5%", WRONG, "the other direction"),
    ("breakdown: 5", "-5", WRONG, "`down` inside a word"),
    ("-8.7 ( 8.7 )", "-8.7", RIGHT, "says one thing twice"),
    ("23.6% ( 23.6 % )", "23.6%", RIGHT, "says one thing twice"),
]

SCALE = [
    ("5200 thousand", "5.2 million", RIGHT, "both have one: convert"),
    ("5.2 billion", "5.2 million", WRONG, "both have one: convert"),
    ("$5.2 million", "5.2", RIGHT, "one side: as it stands"),
    ("$5.2 million", "5200000", RIGHT, "one side: converted"),
    ("17966", "$ 17966 million", RIGHT, "the unit of the page"),
    ("5,200,000", "$5.2 million", RIGHT, "one side: converted"),
    ("108.7", "108681175.5", WRONG, "no side has one"),
    ("5k", "5 thousand", RIGHT, "k"),
    ("5.2mn", "5.2 million", RIGHT, "mn"),
    ("5.2bn", "5200 million", RIGHT, "bn"),
    ("1.2万亿元", "1.2 trillion", RIGHT, "万亿"),
    ("3千万", "3000万", RIGHT, "千万"),
    ("3百万", "3 million", RIGHT, "百万"),
    ("5千", "5000", RIGHT, "千"),
    ("4.45亿元", "44500万元", RIGHT, "亿 and 万"),
    ("1.0126万元", "10126", RIGHT, "万"),
    ("5.2万", "5.2亿", WRONG, "万 is not 亿"),
    ("1亿2000万元", "1.2亿元", RIGHT, "two parts"),
    ("Approximately 7.2 (million)", "7.2 million", RIGHT, "in brackets"),
    ("4.447亿", "4.45亿", RIGHT, "rounds to the gold"),
]

UNITS = [
    ("5亿港元", "5亿美元", WRONG, "two currencies"),
    ("5亿港元", "5亿", RIGHT, "ignored when one side has none"),
    ("HK$5", "US$5", WRONG, "two currencies"),
    ("€5", "$5", WRONG, "two currencies"),
    ("5元", "5美元", WRONG, "two currencies"),
    ("$5", "5美元", RIGHT, "the same in another language"),
    ("USD 5", "$5", RIGHT, "code and sign"),
    ("RMB 5", "5元", RIGHT, "code and word"),
    ("¥5", "人民币5元", RIGHT, "sign and word"),
    ("港币5.2亿元", "5.2亿港元", RIGHT, "港币 in front goes before 元 behind"),
    ("港币5.2亿元", "5.2亿元", WRONG, "港币 is not 人民币"),
    ("$5.2 million ($5,200,000)", "5.2", RIGHT, "the same amount twice"),
    ("5 days", "5 years", WRONG, "two units of time"),
    ("5年", "5个月", WRONG, "two units of time"),
    ("12 months", "1 year", WRONG, "two units of time"),
    ("5年", "5 years", RIGHT, "the same in another language"),
    ("30天", "30日", RIGHT, "the same day"),
    ("5", "5 years", RIGHT, "ignored when one side has none"),
    ("$5", "5 years", WRONG, "money is no time"),
]

DRESS = [
    ("1,234.5", "1234.5", RIGHT, "thousands comma"),
    ("１，２３４．５", "1234.5", RIGHT, "full-width digits and signs"),
    ("2.43:1", "2.43", RIGHT, "ratio"),
    ("2.43178", "2.43:1", RIGHT, "ratio as gold"),
    ("127:81", "1.57", RIGHT, "ratio of two numbers"),
    ("1:22", "22", WRONG, "the ratio is 0.045"),
    ("2.43x", "2.43", RIGHT, "multiple"),
    ("2.43倍", "2.43", RIGHT, "multiple"),
    ("1/4", "0.25", RIGHT, "fraction"),
    ("1/4", "25%", RIGHT, "fraction for a percentage"),
    ("2 1/4", "2.25", RIGHT, "mixed number"),
    ("5½", "5.5", RIGHT, "vulgar fraction"),
    ("3/0", "3", WRONG, "division by zero"),
    ("1.2e6", "1200000", RIGHT, "exponent"),
    ("1.2×10^6", "1200000", RIGHT, "power of ten"),
    ("1.2×10⁶", "1.2 million", RIGHT, "superscript"),
    ("约5", "5", RIGHT, "about"),
    ("~5", "5", RIGHT, "about"),
    ("≈5", "5", RIGHT, "about"),
    ("**$5.2 million**", "5.2", RIGHT, "markdown"),
    ("`5`", "5", RIGHT, "markdown"),
    ("\\frac{1}{4}", "0.25", RIGHT, "LaTeX"),
    ("-\\dfrac{1}{4}", "-0.25", RIGHT, "LaTeX"),
    ("2\\frac{1}{4}", "2.25", RIGHT, "not 21/4"),
    ("14.11\\%", "14%", RIGHT, "LaTeX"),
    ("$14.11\\%$", "14%", RIGHT, "math delimiters are no currency"),
    ("$57.10$万元", "57.10万元", RIGHT, "math delimiters are no currency"),
    ("\\$1,\\!800", "$1800", RIGHT, "LaTeX"),
    ("1{,}234", "1234", RIGHT, "LaTeX"),
    ("1\\,234", "1234", RIGHT, "thin space between thousands"),
    ("5\\text{ million}", "5000000", RIGHT, "LaTeX"),
    ("\\mathbf{14.11\\%}", "14%", RIGHT, "LaTeX"),
    ("1.2\\times 10^{6}", "1200000", RIGHT, "LaTeX"),
    ("x \\approx 5", "5", RIGHT, "LaTeX"),
    ("38316\\n", "38316.33", RIGHT, "a literal \\n behind"),
    ("\\n0.923", "0.923", RIGHT, "a literal \\n in front"),
    ("14.11%.", "14%", RIGHT, "full stop"),
    ("5.", "5", RIGHT, "full stop"),
    ("$400,000,000 increase.", "400000000", RIGHT, "a word behind"),
    ("69,07", "69.07", RIGHT, "decimal comma where decimals are asked for"),
]

SEVERAL = [
    ("(25-20)/20 = 5/20 = 0.25", "0.25", RIGHT, "the last member"),
    ("10 - 5 = 5", "5", RIGHT, "the result"),
    ("5 = 6", "5", WRONG, "the last member is 6"),
    ("EPS = 5, PE = 10", "10", WRONG, "two equations"),
    ("5% or 6%", "5%", WRONG, "two answers"),
    ("5% or 6%", "6%", WRONG, "two answers"),
    ("100 or 100.4", "100", WRONG, "two answers, however near"),
    ("5-10%", "5%", WRONG, "range"),
    ("5 to 10", "5", WRONG, "range"),
    ("5~10", "10", WRONG, "range"),
    ("5 6 7", "6", WRONG, "list"),
    ("5,6", "5", WRONG, "list"),
    ("5、6", "5", WRONG, "list"),
    ("14.11% (0.1411)", "14%", RIGHT, "one number in two forms"),
    ("7011270 or about 7 million", "7011270", RIGHT, "one number and its rounding"),
    ("1/3 or 33.33%", "0.3333", RIGHT, "one number in two forms"),
    ("94 in 2015", "94", RIGHT, "a year beside it"),
    ("2015: 94", "94", RIGHT, "a year as a label, no ratio"),
    ("2015年净利润94亿元", "94亿元", RIGHT, "a year beside it"),
    ("the cost decreased 29333 from 2010 to 2012", "-29333", RIGHT, "two years beside it"),
    ("94 as of December 31, 2015", "94", RIGHT, "a date beside it"),
    ("94 in 2015", "2015", WRONG, "the year is not what it answers"),
    ("94 or 2015", "94", WRONG, "the year is a second answer"),
    ("2015", "2015", RIGHT, "the year is the answer"),
    ("in 2015", "2015", RIGHT, "the year is the answer"),
    ("2015 or 2016", "2015", WRONG, "two years"),
    ("2,015 in 2014", "2015", RIGHT, "an amount in a year"),
    ("5+5", "5", WRONG, "nobody worked it out"),
    ("5 x 5", "5", WRONG, "nobody worked it out"),
    ("\\sqrt{5}", "5", WRONG, "nobody worked it out"),
    ("2^3", "2", WRONG, "nobody worked it out"),
    ("5±1", "5", WRONG, "a range"),
    (">5", "5", WRONG, "a bound"),
    ("not 14%", "14%", WRONG, "negated"),
    ("3.25, rounded to 2 decimal places", "3.25", RIGHT, "how it is written is no second answer"),
    ("3.25 (rounded to 1 decimal)", "3.25", RIGHT, "how it is written is no second answer"),
    ("3.25（保留2位小数）", "3.25", RIGHT, "how it is written is no second answer"),
    ("18% over 5 years", "18%", RIGHT, "a period is no second answer"),
    ("the 3-year average is 18%", "18%", RIGHT, "a period is no second answer"),
    ("18% over 5 years", "5 years", WRONG, "the period is not what it answers"),
    ("over 5 years", "5 years", RIGHT, "the period is the answer"),
    ("18% (see table 3)", "18%", RIGHT, "a place is no second answer"),
    ("18%; note 5%", "18%", WRONG, "a percentage is no place"),
    ("2015年比2014年增长18%", "18%", RIGHT, "two years, no ratio"),
    ("18% and 5 years", "18%", WRONG, "a list"),
    ("yes , 38.2%", "0.38166", RIGHT, "the number counts"),
    ("yes", "38.2%", WRONG, "no number"),
    ("Q4", "4", WRONG, "a name"),
]

NUMBERS = TOLERANCE + PERCENT + SIGN + SCALE + UNITS + DRESS + SEVERAL


@pytest.mark.parametrize(("predicted", "gold", "expected", "why"), NUMBERS)
def test_a_number_is_right_only_when_the_contract_says_so(predicted, gold, expected, why):
    assert grade(predicted, gold, "percent" if "%" in gold else "number") is expected, why


def test_a_bare_number_is_a_share_or_a_percentage_only_where_a_percentage_is_asked_for():
    assert grade("14.11", "0.1411", "percent") is RIGHT
    assert grade("0.1411", "14.11", "percent") is RIGHT
    assert grade("380", "3.8", "number") is WRONG


YES = ("yes", "Yes.", "**Yes**", "\\text{Yes}", "是", "是的", "Ｙes", "(yes)")
MORE_YES = ("yes✅", "對", "正確", "\u202ayes\u202c", "y\u200bes", "𝐲𝐞𝐬")  # dress that came up later
NO = ("no", "No.", "否", "不是", "NO", "not yes")
BOTH = ("yes and no", "yes or no", "yes/no", "Yes, no", "yes no", "是/否", "Yes. No.", "yes if so, otherwise no")
BOOLEANS = [
    *[(yes, "yes", RIGHT, "the word") for yes in YES],
    *[(no, "no", RIGHT, "the word") for no in NO],
    *[(both, gold, WRONG, "both polarities") for both in BOTH for gold in ("yes", "no")],
    ("True", "true", RIGHT, "the word"),
    ("false", "true", WRONG, "the other word"),
    ("对", "正确", RIGHT, "the same answer"),
    ("错", "正确", WRONG, "the other answer"),
    ("不正确", "错误", RIGHT, "negated"),
    ("不正确", "正确", WRONG, "contains the gold"),
    ("incorrect", "correct", WRONG, "contains the gold"),
    ("不合规", "合规", WRONG, "contains the gold"),
    ("不合规", "不合规", RIGHT, "the word"),
    ("合规", "不合规", WRONG, "inside the gold"),
    ("non-compliant", "non-compliant", RIGHT, "the word"),
    ("not compliant", "non-compliant", RIGHT, "negated"),
    ("non-compliant", "compliant", WRONG, "contains the gold"),
    ("not fully compliant", "compliant", WRONG, "negated"),
    ("该做法不合规", "不合规", RIGHT, "in a sentence"),
    *[
        (said, "合规", WRONG, "negated or not whole")
        for said in "不属于合规|不能认定为合规|不一定合规|未必合规|部分合规|没有合规|不算合规".split("|")
    ],
    *[
        (said, "compliant", WRONG, "negated or not whole")
        for said in ("cannot be considered compliant", "does not appear to be compliant", "hardly compliant")
    ],
    *[(said, "违规", WRONG, "negated") for said in "没有违规|不构成违规|未发现违规|无违规".split("|")],
    *[(said, "合规", RIGHT, "negated twice") for said in "没有违规|未发现违规|合规，没有违规".split("|")],
    ("没有错误", "错误", WRONG, "negated"),
    ("不完全正确", "正确", WRONG, "not whole"),
    ("违规行为", "违规", RIGHT, "a noun behind"),
    ("这句话是对的", "对", RIGHT, "in a sentence"),
    ("The transaction is compliant with the rules", "compliant", RIGHT, "in a sentence"),
    ("This statement is not correct.", "no", RIGHT, "in a sentence"),
    ("Yes, because there is no violation", "yes", RIGHT, "a reason behind"),
    ("否，因为这属于违规行为", "否", RIGHT, "a reason behind"),
    ("是，该做法不合规", "是", RIGHT, "asked whether it breaks a rule"),
    ("对，因为错误的会计处理会虚增利润", "对", RIGHT, "the reason speaks of errors"),
    ("yes , 38.2%", "yes", RIGHT, "a number behind"),
    ("答案是否", "否", RIGHT, "答案是 + 否"),
    ("判断该行为是否合规：否", "否", RIGHT, "the question repeated"),
    ("合规/不合规", "合规", WRONG, "both polarities"),
    *[
        (echo, gold, WRONG, "the question's two words: what a policy learns when it is rewarded for it")
        for echo in (
            "合规还是不合规",
            "不合规还是合规？",
            "合规不合规",
            "正确还是错误",
            "对还是错",
            "合规或者不合规",
            "合规（不合规）",
            "合规与不合规",
            "合规抑或违规",
            "compliant or non-compliant",
            "non-compliant, compliant",
            "true false",
            "compliant non-compliant",
            "compliant vs. non-compliant",
            "both compliant and non-compliant",
        )
        for gold in ("合规", "不合规", "true", "false")
    ],
    *[(yes, "yes", RIGHT, "the word") for yes in MORE_YES],
    *[(no, "no", RIGHT, "the word") for no in ("錯誤", "不對", "不正確", "✗")],
    ("合規", "合规", RIGHT, "traditional characters"),
    ("違規", "不合规", RIGHT, "traditional characters"),
    ("不合規", "合规", WRONG, "traditional characters"),
    *[
        (hedge, gold, WRONG, "both polarities with nothing but a hedge between them")
        for hedge in (
            "whether yes or no",
            "yes, unless no",
            "no (sometimes yes)",
            "yes if true, no if false",
            "maybe yes, maybe no",
            "可能是，也可能不是",
            "否，但在某些情况下是",
            "no但在某些情况下yes",
            "对，不一定错",
            "正確或錯誤",
            "是\u200b否",
        )
        for gold in ("yes", "no")
    ],
    *[
        (half, gold, WRONG, "half of the question's two words is no answer")
        for half in ("合规还是", "合规还是？", "不合规或", "对或者", "yes or", "compliant vs.", "yes/")
        for gold in ("合规", "不合规", "yes", "no", "对")
    ],
    ("n/a", "no", WRONG, "not available is no answer"),
    ("N.A.", "no", WRONG, "not available is no answer"),
    ("the company has no debt . " * 30 + "no . of shares", "no", WRONG, "a page is no answer"),
    ("这还是合规的", "合规", RIGHT, "still compliant: no question"),
    ("compliant, not non-compliant", "compliant", RIGHT, "the same twice"),
    ("incorrect, the correct answer is no", "no", RIGHT, "an adjective is no answer"),
    ("A gift above the compliant limit is non-compliant", "non-compliant", RIGHT, "an adjective is no answer"),
    ("对也不对", "对", WRONG, "both polarities"),
    ("yes, it is not compliant", "compliant", WRONG, "both polarities"),
    ("是否", "是", WRONG, "a question"),
    ("对于该问题，需要分析", "对", WRONG, "对于 is no answer"),
    ("Yesterday", "yes", WRONG, "a word that begins like it"),
    ("northern", "no", WRONG, "a word that begins like it"),
    ("It depends", "yes", WRONG, "no answer"),
    ("38.2%", "yes", WRONG, "no answer"),
]


@pytest.mark.parametrize(("predicted", "gold", "expected", "why"), BOOLEANS)
def test_a_boolean_is_right_when_it_says_what_the_gold_says_and_not_both(predicted, gold, expected, why):
    assert grade(predicted, gold, "boolean") is expected, why


OPTIONS = {"A": "Net income", "B": "Total assets", "C": "2.5%", "D": "股东大会；董事会", "E": "A+B"}
ONE_LETTER = (
    *(
        "B",
        "(B)",
        "B.",
        "选B",
        "答案是B",
        "Ｂ",
        "b",
        "B ",
        "【B】",
        "**B**",
        "\\text{B}",
        "B选项",
        "Answer: B",
        "故选B。",
    ),
    *("B、Total assets", "B) Total assets", "The correct answer is (B).", "B because A is wrong", "B项正确"),
)
THREE_LETTERS = (
    "A、B、D均正确",
    "ABD三项",
    "ABD",
    "A、B以及D",
    "A, B and D",
    "D,B,A",
    "A、B、D",
    "A B D",
    "(A)(B)(D)",
    '["A","B","D"]',
    "选择：A、B、D。",
)
LETTERS = [
    ("B项错误", "B", WRONG, "said of B"),
    ("A或者B", "A", WRONG, "two letters"),
    *[(dress, "B", RIGHT, "dress of one letter") for dress in ONE_LETTER],
    *[(dress, "ABD", RIGHT, "dress of several letters") for dress in THREE_LETTERS],
    ("AB", "A", WRONG, "more letters than the gold"),
    ("A", "AB", WRONG, "fewer letters than the gold"),
    ("ABCDE", "A", WRONG, "all letters"),
    ("A\nB\nC\nD", "A", WRONG, "all letters"),
    ("A. Net income\nB. Total assets", "A", WRONG, "two letters with their texts"),
    ("A or B", "A", WRONG, "two letters"),
    *[
        (both, gold, WRONG, "two letters, whatever stands between them")
        for both in ("A|B", "A-B", "A→B", "A = B", "A==B", "A?B?", "A\x00B", "A~B", "A_B", "A…B", "A或B", "A✅B")
        for gold in ("A", "B")
    ],
    *[(every, "A", WRONG, "all letters") for every in ("A|B|C|D", "A-B-C-D", "A→B→C→D", "A/B/C/D", "A\tB\tC\tD")],
    *[
        (dress, "B", RIGHT, "dress of one letter")
        for dress in ("【答案】B", "[答案] B", "《B》", "✅B", "\u202eB", "𝐁")
    ],
    ("❌B", "B", WRONG, "crossed out"),
    ("A. No, B", "A", WRONG, "two letters"),
    ("A, F", "A", WRONG, "a letter that is not on offer"),
    ("not B", "B", WRONG, "negated"),
    ("不选B", "B", WRONG, "negated"),
    ("不是B", "B", WRONG, "negated"),
    *[
        (denied, "B", WRONG, "negated")
        for denied in ("not option B", "I would not choose B", "anything but B", "it isn't B", "all but B", "除了B")
    ],
    *[
        (named, "B", RIGHT, "the other one is negated")
        for named in ("It is not A but B", "The answer is B, not A", "不是A，是B", "I do not know; I say B")
    ],
    ("Class B shares", "B", WRONG, "a letter in a sentence"),
    ("A bond", "A", WRONG, "an article"),
    ("bad", "ABD", WRONG, "a word"),
]
OPTION_TEXTS = [
    ("Total assets", "B", RIGHT, "the option's own text"),
    ("total assets.", "B", RIGHT, "the option's own text"),
    ("2.50%", "C", RIGHT, "the option's own number"),
    ("股东大会；董事会", "D", RIGHT, "an option that holds a semicolon"),
    ("E. A+B", "E", RIGHT, "letters in the option's own text are not claimed"),
    ("Net income; Total assets", "AB", RIGHT, "two options' texts"),
    ("A Net income B Total assets", "A", WRONG, "two options with letter and text, in one line"),
    ("A: Net income / B: Total assets", "A", WRONG, "two options with letter and text, in one line"),
    ("assets", "B", WRONG, "a part of the option's text"),
    ("B. Net income", "B", WRONG, "the letter of one, the text of another"),
]


@pytest.mark.parametrize(("predicted", "gold", "expected", "why"), LETTERS)
@pytest.mark.parametrize("choices", [OPTIONS, None])
def test_a_choice_is_right_when_it_names_the_gold_letters_and_no_others(predicted, gold, choices, expected, why):
    assert grade(predicted, gold, "choice", choices=choices) is expected, why


@pytest.mark.parametrize(("predicted", "gold", "expected", "why"), OPTION_TEXTS)
def test_an_options_own_text_counts_as_its_letter(predicted, gold, expected, why):
    assert grade(predicted, gold, "choice", choices=OPTIONS) is expected, why


LABELS = {"0": "bearish", "1": "bullish", "2": "neutral"}
ONE_LABEL = ("1", "bullish", "Bullish.", '"bullish"', "**bullish**", "1 (bullish)", "label: 1")
LABEL_CASES = [
    *[(dress, RIGHT, "key or name") for dress in ONE_LABEL],
    ("The sentiment is bullish", RIGHT, "dressed like an answer"),
    ("bullish sentiment", RIGHT, "dressed like an answer"),
    ("The tweet is bullish ✅", RIGHT, "dressed like an answer"),
    ("情绪：bullish", RIGHT, "dressed like an answer"),
    ("该新闻的情感倾向是bullish。", RIGHT, "dressed like an answer"),
    ("sentiment", WRONG, "dress alone"),
    ("the label of the tweet", WRONG, "dress alone"),
    ("neutral to bullish", WRONG, "two labels"),
    ("bullish|bearish", WRONG, "two labels"),
    ("bearish", WRONG, "another label"),
    ("0 (bullish)", WRONG, "the key of another"),
    ("bullish or bearish", WRONG, "two labels"),
    ("bullish bearish neutral", WRONG, "all labels"),
    ("0, 1, 2", WRONG, "all keys"),
    ("not bullish", WRONG, "negated"),
    ("bullishness", WRONG, "contains the label"),
    ("bull", WRONG, "a part of the label"),
]


@pytest.mark.parametrize(("predicted", "expected", "why"), LABEL_CASES)
@pytest.mark.parametrize("gold", ["1", "bullish"])
def test_a_label_is_right_alone_by_key_or_name(predicted, gold, expected, why):
    assert grade(predicted, gold, "label", labels=LABELS) is expected, why


def test_a_negative_label_key_keeps_its_sign():
    labels = {"-1": "negative", "0": "neutral", "1": "positive"}
    assert grade("-1", "negative", "label", labels=labels) is RIGHT
    assert grade("1", "negative", "label", labels=labels) is WRONG


TEXTS = [
    ("长实 集团。", "长实集团", RIGHT, "white space and punctuation"),
    ("Mark to Market", "mark-to-market", RIGHT, "case and punctuation"),
    ("ＡＢＣ", "abc", RIGHT, "NFKC"),
    ("44500万元", "4.45亿元", RIGHT, "one number with a unit each"),
    ("约为6.25亿元", "6.25亿元", RIGHT, "one number with a unit each"),
    ("0.333枚比特币", "0.3333枚比特币", RIGHT, "one number with a unit each"),
    ("4.5亿元", "4.45亿元", WRONG, "two different amounts"),
    ("5亿港元", "5亿美元", WRONG, "two currencies"),
    ("2018年", "2019年", WRONG, "two years, within 1 % of each other"),
    ("605007", "605006", UNDECIDED, "two codes, within 1 % of each other"),
    ("3 apples", "3 oranges", UNDECIDED, "two nouns"),
    ("不超过14.5元", "14.5元", UNDECIDED, "a bound"),
    ("8月20日", "8月21日", UNDECIDED, "no single number"),
    ("企业未破产", "企业破产", UNDECIDED, "free text is for the judge"),
    ("the gold answer and more", "gold answer", UNDECIDED, "never a substring test"),
    ("-5", "5", UNDECIDED, "a sign is no punctuation"),
    ("1.5%", "15%", WRONG, "a point is no punctuation in a number"),
    ("a×b", "a÷b", UNDECIDED, "an operator is no punctuation"),
    ("Ⅲ、Ⅳ", "Ⅰ、Ⅱ、Ⅳ", UNDECIDED, "III, IV is not I, II, IV"),
    ("...", "x", WRONG, "nothing but punctuation is empty"),
]


@pytest.mark.parametrize(("predicted", "gold", "expected", "why"), TEXTS)
def test_a_text_is_decided_only_where_rules_can(predicted, gold, expected, why):
    assert grade(predicted, gold, "text") is expected, why


def test_code_is_right_when_it_is_the_same_and_otherwise_for_the_judge():
    assert grade("```python\nx = 1 \n```", "x = 1", "code") is RIGHT
    assert grade("a(i)", "a[i]", "code") is UNDECIDED
    assert grade("", "x = 1", "code") is WRONG


BLANKS = [
    ("10000;-8000", "10000;-8000", "number", RIGHT, "each in its place"),
    ("10000；-8000", "10000;-8000", "number", RIGHT, "full-width semicolon"),
    ("10000, -8000", "10000;-8000", "number", RIGHT, "commas instead"),
    ("(1) 10000; (2) -8000", "10000;-8000", "number", RIGHT, "numbered"),
    ("-8000;10000", "10000;-8000", "number", WRONG, "the wrong places"),
    ("10000", "10000;-8000", "number", WRONG, "one is missing"),
    ("10000;-8000;5", "10000;-8000", "number", WRONG, "one too many"),
    ("69.07;287644.75", "69,07;287644.75", "number", RIGHT, "comma as decimal point in the gold"),
    ("69,07；287644.75", "69,07;287644.75", "number", RIGHT, "comma as decimal point on both sides"),
    ("A;C", "A;C", "choice", RIGHT, "letters"),
    ("C;A", "A;C", "choice", WRONG, "the wrong places"),
    ("AC", "A;C", "choice", WRONG, "one blank with both letters"),
    ("是;否", "是;否", "boolean", RIGHT, "booleans"),
    ("否;是", "是;否", "boolean", WRONG, "the wrong places"),
    ("10000;abc", "10000;xyz", "text", UNDECIDED, "one is for the judge"),
    ("1万;abc", "2万;xyz", "text", WRONG, "one is wrong"),
]


@pytest.mark.parametrize(("predicted", "gold", "kind", "expected", "why"), BLANKS)
def test_several_blanks_are_graded_each_in_its_place(predicted, gold, kind, expected, why):
    assert grade(predicted, gold, kind) is expected, why


KINDS = {"number": "14", "percent": "14%", "boolean": "yes", "choice": "B", "label": "1", "text": "x", "code": "x"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nothing", [None, "", "  \n "])
def test_an_empty_prediction_is_wrong_for_every_kind(kind, nothing):
    assert grade(nothing, KINDS[kind], kind, choices=OPTIONS, labels=LABELS) is WRONG
    assert grade(nothing, f"{KINDS[kind]};{KINDS[kind]}", "text" if kind == "code" else kind) is WRONG


NO_NUMBER = ("n/a", "nan", "inf", "Infinity", "yes", "5% or 6%", "1.91% and 3.46%", "8-14", "1e999999999", "9" * 1000)
UNREADABLE = [
    *[(empty, kind) for kind in KINDS for empty in ("", " \n")],
    *[(gold, "number") for gold in NO_NUMBER],
    *[("10000;", "boolean"), ("maybe", "boolean"), ("yes and no", "boolean"), ("F", "choice"), ("Z", "choice")],
    *[("purple", "label"), ("...", "text"), ("5;n/a", "number"), ("A;;C", "choice")],
]


@pytest.mark.parametrize(("gold", "kind"), UNREADABLE)
@pytest.mark.parametrize("predicted", ["5", None])
def test_an_unreadable_gold_raises_whatever_the_prediction(gold, kind, predicted):
    with pytest.raises(ValueError, match="gold answer"):
        grade(predicted, gold, kind, choices=OPTIONS, labels=LABELS)


def test_an_unknown_kind_of_answer_raises():
    with pytest.raises(ValueError, match="answer_kind 'integer'"):
        grade("5", "5", "integer")


def test_right_against_any_alternative_is_right():
    assert grade("14.11", "14.1%", "percent", alternatives=["0.14113"]) is RIGHT
    assert grade("0.38166", "yes", "boolean", alternatives=["0.38166"]) is RIGHT, "a number among yes and no"
    assert grade("yes", "0.38166", "number", alternatives=["yes"]) is RIGHT, "a yes among numbers"
    assert grade("no", "0.38166", "number", alternatives=["yes"]) is WRONG
    assert grade("x", "a", "text", alternatives=["x"]) is RIGHT, "undecided against one, right against another"


def test_an_unreadable_alternative_is_left_out():
    assert grade("14.11", "14.1%", "percent", alternatives=["", "n/a"]) is RIGHT
    assert grade("15", "14.1%", "percent", alternatives=["", "n/a"]) is WRONG


ATTACKS = [
    *("", " ", "the answer is", "correct answer", "gold", "<answer>", "\\boxed{}", "%", "$", "亿", "\x00", "\ud800"),
    *("yes and no", "A, B, C, D, E", "ABCDE", "bullish or bearish or neutral", "0 1 2"),
    *("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "14 15", "13-15", "14%-ish 15%", "is 14 or is 15"),
    *("nan", "inf", "-inf", "Infinity", "1e999999999", "1e-999999999", "9" * 100_000, "0." + "3" * 100_000),
    *("{" * 10_000, "}" * 10_000, "(" * 10**6, "[" * 10**6, "(" * 2000 + "14" + ")" * 2000),
    *("\\frac", "\\frac{", "\\frac{1}{", "\\frac" * 10_000, "\\boxed{" * 10_000, "\\" * 100_000, "$" * 100_000),
    *("1," * 50_000, "1 " * 50_000, "1/" * 50_000, "1=" * 50_000, "10^" * 30_000, ";" * 100_000, "A;" * 50_000),
    *("不" * 100_000, "-" * 100_000, " " * 10**6, "\u200b" * 1000),
    *("\u200b" * 10**6, "\u202e" * 100_000 + "41", "\x00" * 10**6, "\ud800" * 10**6, "\u0301" * 100_000, "ﷺ" * 50_000),
    *("٤١", "१४ १५", "l4", "Ⅹ4 O", "aа" * 500_000, "🤔" * 250_000, "５½" * 300_000, "1²" * 300_000),
    *("\\frac{1}{" * 3000 + "2" + "}" * 3000, "\\text{" * 5000 + "}" * 5000, "{" * 10**6, "<b>" * 300_000, "`" * 10**6),
    *(
        "答案是" * 330_000,
        "【答案】" * 250_000,
        "not " * 250_000,
        "non-" * 250_000,
        "the label is " * 70_000,
        "(A)" * 300_000,
    ),
    *(
        "yes no " * 150_000,
        "是否" * 500_000,
        "ABCDE" * 200_000,
        "2015 " * 200_000,
        "2015-01-01 " * 90_000,
        "(15" * 300_000,
    ),
    *(
        "rounded to " * 100_000,
        "over the last " * 80_000,
        "decrease " * 100_000,
        "usd " * 250_000,
        "if then " * 125_000,
    ),
    "a" + "。" * 3900 + "b",
]


def fastest_of_three(function) -> float:
    """Seconds of processor time of the fastest of three calls."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        function()
        seconds.append(time.thread_time() - began)
    return min(seconds)


@pytest.mark.parametrize("attack", ATTACKS, ids=[repr(attack)[:30] for attack in ATTACKS])
@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_is_never_right_never_raises_and_is_answered_at_once(kind, attack):
    assert not grade(attack, KINDS[kind], kind, choices=OPTIONS, labels=LABELS)
    assert fastest_of_three(lambda: grade(attack, KINDS[kind], kind, choices=OPTIONS, labels=LABELS)) < 0.25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "gold", ["9" * 100_000, "\\" * 100_000, "1;" * 50_000, "(" * 10**6], ids=["9", "slash", "1;", "("]
)
def test_a_hostile_gold_is_answered_at_once(kind, gold):
    def attempt() -> None:
        with contextlib.suppress(ValueError):
            grade("5", gold, kind)

    assert fastest_of_three(attempt) < 0.25


def test_grading_works_off_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(grade("14.11%", "14%", "percent")))
    thread.start()
    thread.join()
    assert results == [RIGHT]
