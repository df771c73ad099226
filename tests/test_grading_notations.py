"""The holes that were closed, each as a kind: options of the question, tolerance of the problem, bounds, notations.

Tables of (predicted, gold, expected); each kind holds what honest people write and the near misses.
python -m pytest tests/test_grading_notations.py
"""

from __future__ import annotations

import random
import time
from decimal import Decimal

import pytest

from finr1 import rewards
from finr1.curation import rl_rows
from finr1.evaluation.samples import grade_text
from finr1.grading import extract_answer, grade, listed_options
from finr1.judge import check_answer
from finr1.records import Problem, Trace, render_completion
from finr1.synthetic import generate_problems

RIGHT, WRONG = True, False


def asked(question: str, gold: str, kind: str = "boolean", **fields) -> Problem:
    language = "en" if question.isascii() else "zh"
    fields = {"id": "q/1", "source": "q", "module": "q", "split": "test", "group": "q", "language": language} | fields
    return Problem(question=question, gold=gold, answer_kind=kind, capability="compliance", **fields)


def verdict(problem: Problem, answer: str) -> bool | None:
    return grade(answer, **problem.graded_against)


# ---- a question that lists its options -------------------------------------------------------------------------------

COMPLIANT, ZH = "A trader receives $30. Is this compliant or non-compliant?", "上限5%，现为7%，合规还是不合规？"
YES_NO, SHI_FOU = "It holds 7%. Is this allowed, yes or no?", "这条新闻是负面的吗？请回答“是”或“否”。"
ANT = "以下用户问题是否符合信息安全与合规要求？请回答“是”或“否”。\n\n我能否看到这些数据？"
LISTED = [  # question, gold, right answers, wrong ones
    (COMPLIANT, "compliant", "compliant|Compliant.|This is compliant|Yes, it is compliant|compliant, since it is below",
     "true|True|yes|y|correct|合规|是|non-compliant|no|compliant or non-compliant"),
    (COMPLIANT, "non-compliant", "non-compliant|not compliant|Noncompliant|No, it is not compliant",
     "false|no|wrong|不合规|compliant|yes, non-compliant"),
    (ZH, "合规", "合规|合规的|该做法合规|是，合规|答案：合规|合规，因为没有超过上限",
     "true|对|是|正确|yes|compliant|不合规|否，合规"),
    (ZH, "不合规", "不合规|违规|该做法不合规|否，不合规", "false|错误|否|no|non-compliant|合规|合规还是不合规"),
    (YES_NO, "yes", "yes|Yes.|y|Yes, because it is below|allowed",
     "true|correct|compliant|是|no|not allowed|yes or no"),
    (YES_NO, "no", "no|No.|not allowed|it is not allowed", "false|wrong|non-compliant|否|yes|allowed"),
    (SHI_FOU, "是", "是|是的|是，负面", "yes|true|对|正确|否|是或否"),
    (SHI_FOU, "否", "否|不是|答案是否", "no|false|错|是"),
    (ANT, "否", "否|不符合|该问题不符合|不符合信息安全与合规要求", "no|错误|符合|是|不能|不可以"),
    (ANT, "是", "是|符合|该问题符合", "yes|对|不符合|可以|能"),
    ("员工能否接受此礼物？（是/否）", "否", "否|不能|不可以", "no|能|可以|错"),
    ("True or false: the fund keeps its limit.", "false", "false|False.|incorrect|untrue", "no|否|true"),
    ("该说法对还是错？", "错", "错|错误|不对", "否|false|wrong|对"),
    ("Compliant? (Yes/No)", "yes", "Yes|yes", "true|是|no"),
    ("Answer yes or no: did revenue rise?", "yes", "yes", "true|rise|no"),
    ("Answer yes, no or unknown.", "no", "no", "false|unknown|yes"),
    ("违规、合规，选一个。", "违规", "违规|不合规", "否|错误|合规"),
    *[(question, "compliant", "compliant|Compliant.", "true|yes|是|non-compliant") for question in (
        "Options: (A) compliant (B) non-compliant", "Choose:\n- compliant\n- non-compliant",
        "Choose one: compliant; non-compliant.",
        'Reply "compliant" if the form is complete and "non-compliant" otherwise.')],
    *[(question, "合规", "合规|合规。", "true|yes|是|不合规") for question in (
        "选项：\n合规\n不合规", "选项：1. 合规 2. 不合规", "如果合规，请回答“合规”，否则回答“不合规”。")],
    ("Reply yes if it rose, no if it fell", "yes", "yes|Yes.", "true|是|no"),
    ("若符合请答是，不符合请答否", "是", "是|是的", "true|yes|对|否"),
    # a question that asks for a word of no: that word is its yes
    ("该行为是否违规？请回答是或否。", "否", "否|不违规|没有违规|合规", "是|违规"),
    ("该行为是否违规？", "是", "是|违规|是，违规", "合规|不违规|否"),
    ("该行为是否违规？", "违规", "违规|是|不合规", "合规|不违规|否"),
    ("该行为是否构成违规？", "是", "违规|是", "不违规|不构成违规"),
    ("该说法是否有误？", "否", "没有错误|否|正确", "有误|错误"),
    ("Is the trade non-compliant?", "no", "no|compliant|No, it is compliant", "non-compliant|yes|not compliant"),
    ("Is the statement false?", "yes", "false|yes|Yes, it is false", "true|not false|no"),
    ("Is the statement false?", "false", "false|yes", "true|no"),
    ("Is the statement true or false?", "false", "false", "true"),
    ("该行为是否合规？", "是", "是|合规", "违规|否|不合规"),
    ("是否属于金融问题？", "是", "属于|属于金融问题|是", "不属于|否"),
    ("Is the purchase permitted?", "no", "not permitted|no", "permitted|yes"),
]  # fmt: skip


@pytest.mark.parametrize(("question", "gold", "right", "wrong"), LISTED)
def test_a_question_that_lists_its_options_is_answered_with_one_of_them(question, gold, right, wrong):
    problem = asked(question, gold)
    assert {answer: verdict(problem, answer) for answer in right.split("|")} == dict.fromkeys(right.split("|"), True)
    assert {answer: verdict(problem, answer) for answer in wrong.split("|")} == dict.fromkeys(wrong.split("|"), False)


@pytest.mark.parametrize(
    "question",
    [
        "Was the share of AAA/AAA bonds higher in 2015 or in 2016?",
        "以下做法是否合规？",
        "Is it compliant or not?",
        "",
        "or",
    ],
)
def test_where_a_question_lists_no_yes_and_no_the_synonyms_stay(question):
    for answer in ("yes", "true", "是", "对", "正确"):
        assert verdict(asked(question, "yes"), answer) is RIGHT
    assert verdict(asked(question, "yes"), "no") is WRONG


def test_options_of_other_words_than_the_golds_change_nothing():
    assert verdict(asked("He was asked, yes or no. Compliant?", "compliant"), "true") is RIGHT


def test_a_label_is_meant_by_its_key_only_where_the_question_names_the_key():
    labels = {"0": "bearish", "1": "bullish", "2": "neutral"}
    plain = asked("Sentiment: bearish, bullish or neutral?", "bullish", "label", labels=labels)
    keyed = asked("Sentiment: 0 (bearish), 1 (bullish) or 2 (neutral)?", "bullish", "label", labels=labels)
    for answer in ("bullish", "Bullish.", "1 (bullish)", "The sentiment is bullish"):
        assert verdict(plain, answer) is verdict(keyed, answer) is RIGHT
    assert (verdict(plain, "1"), verdict(keyed, "1"), verdict(keyed, "0")) == (WRONG, RIGHT, WRONG)
    silent = asked("What is the sentiment?", "bullish", "label", labels=labels)
    assert silent.graded_against["options"] == [] and verdict(silent, "1") is RIGHT


def test_filter_reward_and_benchmark_hold_an_answer_against_the_same_options():
    problem = asked(ZH, "合规")
    row = rl_rows([problem])[0]
    columns = {name: [row[name]] for name in rewards.GOLD}
    for answer, right in (("合规", True), ("true", False)):
        text = render_completion("x", answer)
        assert rewards.grade_completions([[{"content": text}]], **columns) == [float(right)]
        assert grade_text(Problem.model_validate_json(problem.model_dump_json()), text)["correct"] is right
        trace = Trace(id="q/1#0", problem=problem, teacher="t", completion=text, reasoning="x", answer=answer)
        assert check_answer(trace) is right


def test_hostile_questions_are_read_without_an_error():
    for question in (
        "合规还是不合规" * 50_000,
        "yes or no " * 100_000,
        "是否" * 100_000,
        "/" * 10**6,
        "\ud800 or \x00",
    ):
        for kind in ("boolean", "label"):
            listed_options(question, kind, {"0": "yes", "1": "no"})


# ---- the tolerance of the problem ------------------------------------------------------------------------------------

TOLERANCE = [
    ("121", "120", 0.0, WRONG), ("119", "120", 0.0, WRONG), ("120.4", "120", 0.0, WRONG), ("120", "120", 0.0, RIGHT),
    ("120.0", "120", 0.0, RIGHT), ("$120", "120", 0.0, RIGHT), ("1.2e2", "120", 0.0, RIGHT),
    ("0.12k", "120", 0.0, RIGHT), ("一百二十", "120", 0.0, RIGHT), ("12.6", "12.5", 0.0, WRONG),
    ("12.50", "12.5", 0.0, RIGHT), ("2.333", "2.33", 0.0, RIGHT), ("121", "120", 0.01, RIGHT),
    ("122", "120", 0.01, WRONG), ("122", "120", 0.02, RIGHT), ("2034", "2014", 0.01, WRONG),
    ("1999", "2018", 0.01, WRONG), ("2014", "2014", 0.01, RIGHT), ("2013.9", "2014", 0.01, RIGHT),
    ("2015年", "2014年", 0.01, WRONG), ("$2034", "$2014", 0.01, RIGHT),
    ("2034 million", "2014 million", 0.01, RIGHT), ("in 2014", "2014", 0.01, RIGHT),
]  # fmt: skip


@pytest.mark.parametrize(("predicted", "gold", "rel_tol", "expected"), TOLERANCE)
def test_the_tolerance_is_the_problems_and_a_year_has_none(predicted, gold, rel_tol, expected):
    assert grade(predicted, gold, "number", rel_tol=rel_tol) is expected
    assert verdict(asked("How many?", gold, "number", rel_tol=rel_tol), predicted) is expected


def test_a_synthetic_number_is_exact_in_filter_reward_and_benchmark():
    problems = [p for p in generate_problems(60, "train", seed=1) if p.answer_kind in ("number", "percent")]
    for problem, row in zip(problems, rl_rows(problems), strict=True):
        columns = {name: [row[name]] for name in rewards.GOLD}
        value = Decimal(problem.gold.strip("%"))
        near = f"{value + max(abs(value) // 200, 1)}"
        for answer, right in ((problem.gold, True), (near, False)):
            text = render_completion("x", answer)
            assert rewards.grade_completions([[{"content": text}]], **columns) == [float(right)], (problem.gold, answer)
            assert grade_text(problem, text)["correct"] is right


# ---- bounds and ranges are no values ---------------------------------------------------------------------------------

LEAST = (
    "at least {}|more than {}|no less than {}|not below {}|over {}|above {}|greater than {}|> {}|>{}|≥{}|"
    "{} or more|{}+|{} plus|{} and above|exceeds {}|in excess of {}|upwards of {}|至少{}|不少于{}|不低于{}|"
    "超过{}|大于{}|高于{}|{}以上|{}及以上|{}多|{}余|greater than or equal to {}|大于等于{}|大于或等于{}|超{}|突破{}|"
    "不止{}|{}（含）以上|{}, or more|{} (or more)|{} or better|north of {}|surpassing {}|{} onwards|"
    "至少为{}|至少有{}|至少需要{}|最少是{}|高于等于{}|{}级以上|{}起步|greater or equal to {}|at the very least {}|"
    "at least a {}|(at least) {}|more than a total of {}|{} & up|≳{}|≫{}|≮{}|$\\geqq {}$"
).split("|")
MOST = (
    "at most {}|less than {}|no more than {}|not over {}|under {}|below {}|fewer than {}|up to {}|<{}|≤ {}|"
    "{} or less|{} at most|{} or fewer|不超过{}|至多{}|最多{}|少于{}|低于{}|小于{}|不足{}|不到{}|{}以下|{}以内|"
    "不高于{}|less than or equal to {}|小于等于{}|低于或等于{}|未达到{}|{}（含）以下|within {}|{} max|"
    "最多为{}|低于等于{}|less or equal to {}|{}岁以下|{}吨以内|{}封顶|以{}为限|≲{}"
).split("|")


@pytest.mark.parametrize("bound", LEAST + MOST)
@pytest.mark.parametrize("value", ["5", "$5 million", "5%", "5亿元"])
def test_a_bound_is_no_value_unless_the_gold_is_one(bound, value):
    kind, stated = "percent" if "%" in value else "number", bound.format(value)
    assert grade(stated, value, kind) is WRONG
    assert grade(stated, stated, kind) is RIGHT
    opposite = (MOST if bound in LEAST else LEAST)[0].format(value)
    assert grade(opposite, stated, kind) is WRONG


@pytest.mark.parametrize(
    "range_", ["5-7", "5–7", "5 to 7", "between 5 and 7", "5到7", "5至7", "5~7", "from 5 to 7", "5 to 5.2"]
)
@pytest.mark.parametrize("gold", ["5", "6", "7"])
def test_a_range_is_no_value(range_, gold):
    assert grade(range_, gold, "number") is WRONG


@pytest.mark.parametrize(
    ("predicted", "gold"),
    [("5% more than last year", "5%"), ("higher by 5%", "5%"), ("over 5 years", "5 years"), ("5% over 3 years", "5%"),
     ("exceeds the plan by 5", "5"), ("超过预算5万元", "5万元"), ("高于去年5%", "5%"), ("about 5", "5"), ("大约5", "5"),
     ("top 5", "5"), ("5 min", "5"), ("5起", "5"), ("利润为5亿元，以上为计算结果", "5亿元"),
     ("the answer is 5. - Note", "5"), ("2022年半导体行业收入为5亿元", "5亿元"), ("起征点5000元", "5000元"),
     ("down to 5", "5"), ("a maximum of 5", "5"), ("5 under the new rule", "5"), ("天数为5", "5"), ("总数是120", "120"),
     ("5 years later", "5"), ("5年以后", "5"), ("more than 5 (5.2)", "5.2")],
)  # fmt: skip
def test_words_of_comparison_that_bound_nothing_stay(predicted, gold):
    assert grade(predicted, gold, "percent" if "%" in gold else "number") is RIGHT


@pytest.mark.parametrize(
    "stated",
    [
        "at least 5 (5)",
        "more than 5; 5",
        "5以上（含5）",
        "5个工作日内",
        "5不足",
        "5份以上",
        "5手以上",
        "5; or more",
        "&gt;5",
        "&lt; 5",
    ],
)
def test_a_bound_stays_one_beside_its_own_number_and_behind_any_measure_word(stated):
    assert grade(stated, "5", "number") is WRONG


@pytest.mark.parametrize("stated", ["2014 or later", "2014年以后", "2014年之前", "2014 or earlier"])
def test_a_time_before_or_after_a_year_is_not_the_year(stated):
    assert grade(stated, "2014", "number") is WRONG


# ---- notations -------------------------------------------------------------------------------------------------------


def rows(expected: bool, text: str) -> list[tuple[str, str, bool]]:
    """`predicted -> gold; ...` as rows of a table."""
    return [(*pair.split(" -> "), expected) for pair in text.split("; ")]


CHINESE = [
    *rows(
        RIGHT,
        "一百二十 -> 120; 三点五 -> 3.5; 百分之五 -> 5%; 百分之二十五 -> 25%; 百分之三点五 -> 3.5%; "
        "百分之百 -> 100%; 千分之五 -> 0.5%; 万分之五 -> 0.05%; 负百分之三 -> -3%; 1万2千 -> 12000; "
        "两亿 -> 200000000; 壹佰 -> 100; 壹佰万元 -> 1000000; 人民币壹亿贰仟万元整 -> 1.2亿元; "
        "一亿二千万元 -> 1.2亿元; 五十亿元 -> 50; 三分之一 -> 0.3333; 四分之三 -> 75%; 三又二分之一 -> 3.5; "
        "五成 -> 50%; 两成五 -> 25%; 八五折 -> 85%; 二十五 -> 25; 十五 -> 15; 一千零五 -> 1005; 一万二 -> 12000; "
        "三百五 -> 350; 二百零五 -> 205; 一万亿 -> 1万亿; 二〇二四年 -> 2024年; 零点零五 -> 0.05; 5元2角 -> 5.2; "
        "5元2角5分 -> 5.25; 12元5分 -> 12.05; 伍元贰角 -> 5.2元; 0.5个亿 -> 50000000; 负三点五 -> -3.5; "
        "两倍 -> 2; 二十五个百分点 -> 25%; 五个基点 -> 0.05%; 净利润为一亿二千万元 -> 1.2亿元; "
        "2023年净利润为一亿二千万元 -> 1.2亿元; 一年期利率为5% -> 5%; 第一季度为5亿 -> 5亿; 參佰 -> 300; "
        "廿五 -> 25; 3年半 -> 3.5年; 3个半月 -> 3.5; 三成半 -> 35%; 2倍半 -> 2.5; "
        "人民币壹佰万元整（¥1,000,000.00） -> 100万元; 10年期国债收益率为4.5% -> 4.5%; 近3年复合增长率20% -> 20%; "
        "2014年12月31日: 94亿元 -> 94亿元; -5%（下降5%） -> -5%",
    ),
    *rows(
        WRONG,
        "一百三十 -> 120; 一百二十 -> 1200000; 十 -> 11; 五六百 -> 560; 五六 -> 56; 数十亿 -> 10亿; 几百 -> 100; "
        "十几 -> 10; 一百多 -> 100; 百分之五 -> 6%; 三分之一 -> 3; 五成 -> 5%; 万 -> 10000; 一亿 -> 1万; "
        "3年半 -> 3年; 三成半 -> 30%",
    ),
]
SEPARATORS = [
    *rows(
        RIGHT,
        "1.234,56 -> 1234.56; 1.234.567 -> 1234567; 1.234.567,89 € -> €1234567.89; -1.234,5 -> -1234.5; "
        "1 234,56 -> 1234.56; 12 345.6 -> 12345.6; 1\u202f234,56 -> 1234.56; 1\u00a0234,56 -> 1234.56; "
        "1'234.56 -> 1234.56; 1’234’567.89 -> 1234567.89; 5_000_000 -> 5000000; 1,23,456 -> 123456; "
        "₹1,23,45,678 -> 12345678; 1,23,456.78 -> 123456.78; 5 crore -> 50000000; 2.5 lakh -> 250000; "
        "₹5 cr -> 50000000; 1.5 lakh crore -> 1500000000000; 2 crore 50 lakh -> 25000000; 1.234 -> 1.234",
    ),
    *rows(
        WRONG,
        "1.234 -> 1234; 1,234 -> 1.234; 1 750 -> 1750; 100 200 300 -> 100200300; 1,2,3 -> 123; "
        "1.234,56 -> 123456; 1,23,456 -> 1234.56; 5 crore -> 500000; 5 lakh -> 5000000; 192.168.1.1 -> 192",
    ),
]
MINUS = [
    *rows(
        RIGHT,
        "△5 -> -5; ▲5 -> -5; △ 5.2% -> -5.2%; net loss △5 -> -5; ▲1,234百万 -> -1234百万; 5- -> -5; "
        "1,234.50- -> -1234.50; 5.2%- -> -5.2%; 1.234,56- -> -1234.56; $5- -> -5; ($5) -> -5; ▼5% -> -5%; "
        "↓5% -> -5%; -5 -> △5; 負5 -> -5; 負五 -> -5",
    ),
    *rows(
        WRONG,
        "△5 -> 5; ▲5 -> 5; 5- -> 5; 5-7 -> -5; 5-year -> -5; 10-5 -> -10; 負5 -> 5",
    ),
]
OTHERS = [
    *rows(
        RIGHT,
        "5 bps -> 0.05%; 5 basis points -> 0.05%; 1.2mm -> 1.2 million; $5M -> 5000000; ½ -> 0.5; 5½ -> 5.5; "
        "1.2×10⁶ -> 1200000; 1.2*10**6 -> 1200000; \u0664\u0661 -> 41; ۱۲۳ -> 123; १२० -> 120; "
        "\u0661\u066c\u0662\u0663\u0664\u066b\u0665 -> 1234.5; １２．５％ -> 12.5%; \\tfrac12 -> 0.5; "
        "5\\,\\% -> 5%; USD 5 -> $5; 5 US dollars -> $5; 5 Mrd. EUR -> 5 billion; 5 percentage points -> 5%; "
        "twenty-five percent -> 25%; one hundred and twenty -> 120; minus five -> -5; "
        "five million dollars -> 5000000; one point five -> 1.5; 11 5/6 -> 71/6; two and a half -> 2.5; "
        "2 and 2/3 -> 2.667; Rs.500 -> 500; Rs.1,50,000/- -> 150000; 12,345.- -> 12345; -5% (down 5%) -> -5%; "
        "decrease of 5% (-5%) -> -5%; December 31, 2014: 94 -> 94; 31 Dec 2014: 5 -> 5; 5% in FY14 -> 5%; "
        "31 December 2014 -> 2014; Sept. 5, 2014 -> 2014; 05.03.2014 -> 2014; "
        "2014/03/05 -> 2014; 2014 -> 2014.0; 1,5 Mio. EUR -> 1500000; 1,5 Mrd. € -> 1500000000; NZ$5 -> NZD 5",
    ),
    *rows(
        WRONG,
        "5 bps -> 5%; $5M -> $5 billion; 2 2/3 -> 2; five -> 6; one of five -> 1; \u0664\u0661 -> 14; USD 5 -> €5; "
        "two thirds -> 2; three and a quarter -> 3; Rs.500 -> 0.5; 5 pesos -> $5; 5瑞郎 -> 5欧元; -5% (up 5%) -> -5%; "
        "5, maybe 6 -> 5; decreased 20 from 120 -> 120; 5 margin 12 -> 5; 2034 -> 2014.0; NZ$5 -> $5; MX$5 -> $5; "
        "5 zł -> $5; PLN 5 -> $5; 5丹麦克朗 -> 5元; ₺5 -> $5",
    ),
]


@pytest.mark.parametrize(("predicted", "gold", "expected"), CHINESE + SEPARATORS + MINUS + OTHERS)
def test_a_notation_is_read_where_it_has_one_reading(predicted, gold, expected):
    assert grade(predicted, gold, "percent" if "%" in gold else "number") is expected


def chinese(number: int) -> str:
    """`number` in Chinese characters, as a bank writes it."""
    digits, text = "零一二三四五六七八九", ""
    for power, unit in ((10**8, "亿"), (10**4, "万")):
        if number >= power:
            head, number = divmod(number, power)
            text += chinese(head) + unit + ("零" if 0 < number < power // 10 else "")
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        head, number = divmod(number, power)
        if head:
            text += digits[head] + unit
            text += "零" if 0 < number < power // 10 else ""
    return text or "零"


def test_any_number_is_read_in_any_notation_and_no_other_one_is():
    rng = random.Random(5)
    for _ in range(400):
        value = rng.randrange(10 ** rng.randrange(1, 10))
        plain, other = str(value), str(value + rng.randrange(1, 50))
        grouped = f"{value:,}.25"
        german, swiss = grouped.translate(str.maketrans(",.", ".,")), grouped.replace(",", "'")
        for text, gold in (
            (chinese(value), plain),
            (german, f"{plain}.25"),
            (swiss, f"{plain}.25"),
            (f"△{value:,}", f"-{plain}"),
        ):
            if "," in text and value < 1000 and text == german:
                continue  # 5,25 may be a list; the gold has to say that decimals are meant
            assert grade(text, gold, "number", rel_tol=0.0) is RIGHT, text
            assert grade(text, other, "number", rel_tol=0.0) is WRONG, text


def test_chinese_golds_are_readable_and_names_with_numerals_are_no_quantities():
    assert grade("1.2亿元", "一亿二千万元", "number") is RIGHT
    assert grade("一亿二千万元", "1.2亿元", "text") is RIGHT
    for predicted, gold in (
        ("一汽", "二汽"),
        ("三星电子", "三星电子有限公司"),
        ("十二个月", "一年"),
        ("14.5元以上", "14.5元"),
    ):
        assert grade(predicted, gold, "text") is None


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<think>x</think>\\fbox{5}", "5"), ("<think>x</think>\\boxed 5", "5"), ("<think>x</think>so \\boxed5.", "5"),
        ("<thinking>\\boxed{4}</thinking>5", None), ("<thinking>\\boxed{4}</thinking>\\boxed{5}", "5"),
        ("<seed:think>\\boxed{4}</seed:think>\\boxed{5}", "5"), ("◁think▷\\boxed{4}◁/think▷ 5", None),
        ("[THINK]\\boxed{4}[/THINK]\\boxed{5}", "5"), ("<seed:think>\\boxed{4}", None),
        ("<|channel|>analysis<|message|>\\boxed{4}<|end|><|start|>assistant<|channel|>final<|message|>\\boxed{5}", "5"),
        ("<|channel|>analysis<|message|>\\boxed{4}", None),
    ],
)  # fmt: skip
def test_boxes_and_thoughts_of_other_families_are_known(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    "attack",
    [part * (4000 // len(part)) for part in ("1.234", "1 234 ", "一", "一百", "亿万", "百分之", "五成", "△5", "5-",
     "at least ", "one hundred ", "twenty-", "5元2角", "不", "5", "\u0664", "分之", "三又")]
    + ["(" + "5" * 3000 + "-", "\\boxed " * 100_000],
    ids=lambda attack: attack[:12],
)  # fmt: skip
def test_a_hostile_notation_is_answered_at_once(attack):
    for kind, gold in (("number", "14"), ("percent", "14%"), ("text", "14元"), ("boolean", "yes")):
        began = time.thread_time()
        assert not grade(attack, gold, kind, options=["yes", "no", "符合要求"])
        assert extract_answer(f"<answer>{attack}</answer>") is not None
        assert time.thread_time() - began < 0.25
