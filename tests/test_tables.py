"""The tables of notebooks and of the report: what stands where, how numbers are written, and that no text is markup."""

from __future__ import annotations

import re

import nbformat
import pandas as pd
import pytest
from conftest import ROOT as REPOSITORY
from markupsafe import Markup

from finr1.plotting import table
from finr1.plotting.tables import ROOM


def shown(*rows, **options) -> tuple[list[str], list[list[str]], str]:
    """Names and rows of the first table, each cell as "side: text", and all that stands behind it."""
    first, _, rest = table(*rows, **options).data.partition("</table>")
    cells = [re.findall(r'<t[hd] style="text-align:(\w+)[^>]*>(.*?)</t[hd]>', line) for line in first.split("</tr>")]
    lines = [[f"{side}: {text}" for side, text in line] for line in cells if line]
    return [text for _, text in cells[0]], lines[1:], rest


def test_text_stands_left_and_numbers_right():
    names, lines, rest = shown([{"model": "sft", "n": 1200, "share [95 %]": "25.0 [20.0, 31.0]"}])
    assert names == ["model", "n", "share [95 %]"]
    assert lines == [["left: sft", "right: 1,200", "right: 25.0 [20.0, 31.0]"]] and "details" not in rest


@pytest.mark.parametrize(
    "values, texts",
    [
        ([3e-5, 1e-6], ["3e-05", "1e-06"]),
        ([3e-5, 0.5], ["3e-05", "0.5"]),
        ([0.123456, 0.5], ["0.123", "0.500"]),
        ([1.5, 12.345], ["1.5", "12.3"]),
        ([1234.5, 2.25], ["1,234", "2"]),
        ([0.0, 0.0], ["0", "0"]),
        ([3, 20_000], ["3", "20,000"]),
        ([3.0, None], ["3", "–"]),
        ([None, None], ["–", "–"]),
    ],
)
def test_a_column_has_one_precision(values, texts):
    _, lines, _ = shown(pd.DataFrame({"x": values}))
    assert [line[0].partition(": ")[2] for line in lines] == texts


def test_values_of_several_kinds_are_written_each_by_itself():
    values = [3e-5, 2048, True, None, ["a", "b"], [], {"wrong gold": 3}]
    _, lines, _ = shown([{"this run": value} for value in values], missing="None")
    assert [line[0] for line in lines] == [
        f"left: {text}" for text in ("3e-05", "2048", "True", "None", "a, b", "[]", "wrong gold 3")
    ]


def test_no_text_is_markup_but_markup():
    rows = [{"<b>": "outputs/<run>/01_data", "made": Markup("<b>yes</b>")}]
    made = table(rows).data
    assert "outputs/&lt;run&gt;/01_data" in made and "&lt;b&gt;" in made and "<b>yes</b>" in made


def test_five_columns_are_shown_and_all_of_them_on_demand():
    row = {f"c{place}": place for place in range(7)}
    names, _, rest = shown([row])
    assert names == list(row)[:5]
    assert "<details><summary" in rest and "all 7 columns in full" in rest and rest.count("<td") == 7
    assert shown([row], columns=7)[0] == list(row) and "details" not in shown([row], columns=7)[2]
    assert shown([row], columns=["c6", "c1"])[0] == ["c1", "c6"]
    assert shown([row], columns=["c6", "c1"])[2].count("<td") == 7


@pytest.mark.parametrize("path", sorted((REPOSITORY / "notebooks").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_shows_no_table_but_these(path):
    """A frame's own HTML puts texts to the right, and a printed table of eleven columns wraps."""
    for cell in nbformat.read(path, 4).cells:
        assert not re.search(r"display\((?!plotting\.table\(|HTML\(|coloured\(|\w+\._repr_mimebundle_)", cell.source)
        assert "print(evaluation.render_table" not in cell.source


def test_a_long_text_is_cut_to_the_room_and_whole_on_demand():
    long = "资产负债表 and a long line of reasons " * 20
    _, ((name, text),), rest = shown([{"name": "gold", "why": long}])
    assert name == "left: gold" and text.endswith(" …") and len(text) < ROOM and long in rest


def test_a_number_is_never_cut():
    share = "45.0 [30.0, 60.0] n=120"
    _, lines, _ = shown([{f"a column {place}": share for place in range(7)}], columns=7)
    assert lines == [[f"right: {share}"] * 7]


def test_an_index_that_says_something_is_the_first_column():
    counted = pd.crosstab(pd.Series(["a", "b"], name="source"), pd.Series(["x", "y"], name="suite"))
    assert shown(counted)[0] == ["source", "x", "y"]
    assert shown(pd.Series({"cpu": "Xeon"}, name="here").to_frame())[0] == ["", "here"]
    assert shown(pd.DataFrame({"x": [1, 2, 3]}).iloc[1:])[0] == ["x"]


def test_no_rows_are_said():
    assert table([]).data == table(pd.DataFrame({"x": []})).data == "<p>no rows</p>\n"
