"""Scoring, what the text says about a name, and the measures of a report, each against a plain formula."""

import math
import re
import unicodedata

import numpy as np
import pytest
from conftest import check_growth

from question import accuracy_line, count_near_misses, count_places, count_right, near_misses_line, stands_in
from report import (
    COLUMNS,
    Finding,
    ReportRow,
    TextIndex,
    as_row,
    as_screen,
    as_table,
    attention_picture,
    auroc,
    calibration_error,
    reliability_diagram,
    report_rows,
    summary,
)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def index_of(text: str) -> TextIndex:
    """Titles are what comes before the first ". " or "。" in this text."""
    lines = text.split("\n")
    titles = [re.match(r"(.+?)(?:\. |。)", line) for line in lines]
    return TextIndex(lines, [title[1] if title else "" for title in titles])


def finding(index: TextIndex, name: str, answer: str, reason: str | None = None) -> Finding:
    likeliest = [] if reason else [(answer, 0.75), ("elsewhere", 0.25)]
    return Finding(name, answer, 0.75, likeliest, index.evidence(name, answer), reason)


# scoring


def test_accuracy_line_is_the_one_of_the_course():
    assert accuracy_line(500.0, 115.0) == "Correct: 115.0 out of 500.0: 23.0%"
    assert accuracy_line(400.0, 47.0) == "Correct: 47.0 out of 400.0: 11.75%"
    assert accuracy_line(500.0, 28.0) == "Correct: 28.0 out of 500.0: 5.6%"  # not 5.6000000000000005
    assert accuracy_line(3.0, 1.0) == "Correct: 1.0 out of 3.0: 33.33%"


def test_counting_right_answers(capsys):
    pairs = [("Where was Ada born?", "London"), ("Где Анна?", "Омск"), ("王安？", "碎叶")]
    assert count_places(pairs, ["London", "Томск", "碎叶"]) == (3.0, 2.0)
    with pytest.raises(ValueError, match="2 predictions for 3 questions"):
        count_places(pairs, ["London"] * 2)
    assert count_places([(question, None) for question, _ in pairs], ["London"] * 3) == (0.0, 0.0)
    assert capsys.readouterr().out == "No gold birth places provided; returning (0,0)\n"


@pytest.mark.parametrize("place", ["London", "Nižný Hrušov", "碎叶", "Омск", "นครพนม"])
def test_blanks_around_places_and_predictions_do_not_count(place):
    for blank in (" ", "\u00a0", "\u3000", "\t"):
        assert count_right([("q", place)], [place + blank]) == count_right([("q", blank + place)], [place]) == 1
        assert count_near_misses([("q", place)], [place + blank]) == 0


@pytest.mark.parametrize(
    ("place", "prediction"),
    [
        ("New York", "New  York"),
        ("New York", "NewYork"),
        ("Genève", nfd("Genève")),
        (nfd("Нижний"), "Нижний"),
        ("東京 都", "東京都"),
        ("ΑΘΉΝΑ", "Αθήνα"),
        ("Омск", "омск"),
        ("서울", nfd("서울")),
        ("Straße", "STRASSE"),
        ("Łódź", "łódź"),
        ("№ 1", "no 1"),
    ],
)
def test_near_misses_are_wrong_and_counted(place, prediction):
    pairs = [("q", place), ("q", place), ("q", place)]
    assert count_right(pairs, [prediction, place, "Bonn"]) == 1
    assert count_near_misses(pairs, [prediction, place, "Bonn"]) == 1


def test_another_letter_is_no_near_miss():
    assert count_near_misses([("q", "Genève"), ("q", None), ("q", "Омск")], ["Geneve", "Bonn", "Томск"]) == 0
    assert near_misses_line(3) == "3 wrong answers differ from the right answer only in case, Unicode form or blanks"


# what the text says


def test_words_are_found_as_words():
    for words, found in {"Paris": True, "of Paris": True, "Marseille": False, "aris": False, "": False}.items():
        assert stands_in(words, "A native of Paris-Nord, then of Marseilles") == found


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        ("碎叶", "李白出生于碎叶城", True),
        ("李白", "唐朝诗人李白生于碎叶城", True),
        ("Рига", "родилась: Рига.", True),
        ("بغداد", "ولد في بغداد سنة", True),
        ("京都", "かれは京都で生まれた", True),
        ("เชียงใหม่", "เขาเกิดที่เชียงใหม่ในปี", True),
        ("ວຽງຈັນ", "ເກີດທີ່ວຽງຈັນໃນ", True),
        ("មន្តេស", "គាត់កើតនៅមន្តេសក្នុង", True),
        ("မန္တလေး", "သူမန္တလေးမှာ", True),
        ("서울", "그는 서울에서 태어났다", True),
        ("Омск", "родился в Омске", False),
        ("Омск", "родился в «Омск»", True),
        ("राम", "रामा बोला", False),
        ("रामा", "रामायण", False),
        ("राम", "यह राम है", True),
        ("Jose", nfd("José"), False),
        (nfd("José"), nfd("José, born"), True),
        (nfd("Jos"), nfd("José"), False),
        ("กา", "ก่า", False),
        (nfd("가"), nfd("간"), False),
        ("Αθήνα", "στην Αθήνα.", True),
        ("نور", "منصور", False),
        ("Ada", "在Ada那里", True),
        ("a_b", "a_bc", False),
    ],
)
def test_words_end_where_their_script_lets_them(words, text, found):
    assert stands_in(words, text) == found


def test_lines_about_a_name_are_those_with_its_title_or_else_all_that_contain_it():
    lines = ["A friend of Ada Lovelace.", "Ada Lovelace. Born .", "Ada Lovelace. Again .", "", "One friend of Ada"]
    index = TextIndex(lines, ["", "Ada Lovelace", "Ada Lovelace", "", ""])
    assert index.find("Ada Lovelace").lines == (2, 3)
    assert index.find("friend of Ada").lines == (1, 5)
    assert index.find("Björk").lines == index.find("Love").lines == index.find("").lines == ()
    assert index.find("born .\nada").lines == index.find("Again .\n\nOne").lines == ()  # not in one line


@pytest.mark.parametrize(
    ("text", "name", "answer", "supporting"),
    [
        ("Jo Ek. Jo Ek, a potter, born in Hull.\nMia. In Cork.\nJo Ek. Jo Ek, born in Cork.", "Jo Ek", "Cork", (3,)),
        ("Олег. Из Омска.\nОлег. Родился: Томск.\nОлег. Умер: Томск.", "Олег", "Томск", (2, 3)),
        ("王安。生于洛阳。\n李四。生于长安。\n王安。生于长安。", "王安", "长安", (3,)),
        ("สมชาย เกิดที่ลำปาง\nพบสมชายที่น่าน", "สมชาย", "น่าน", (2,)),
        ("Jo Ek. Hull.\nJo Ek. York.", "Jo Ek", "Cork", ()),
    ],
)
def test_every_line_about_a_name_counts(text, name, answer, supporting):
    index = index_of(text)
    evidence = index.evidence(name, answer)
    lines = tuple(number for number, line in enumerate(text.split("\n"), 1) if name in line)
    assert evidence.mention.lines == lines and evidence.mention.form == name
    assert evidence.supporting == supporting
    assert evidence.line == (supporting or lines)[0] and evidence.text == text.split("\n")[evidence.line - 1]


@pytest.mark.parametrize(
    ("line", "form", "asked"),
    [
        ("Ada Okafor. Ada Okafor was born in Lagos.", "Ada Okafor", "ada okafor"),
        ("Ada  Okafor was born in Lagos.", "Ada  Okafor", "Ada Okafor"),
        ("Zoë Brandt. Born in Bremen.", "Zoë Brandt", nfd("Zoë Brandt")),
        (nfd("Born in Bremen: Zoë Brandt."), nfd("Zoë Brandt"), "ZOË BRANDT"),
        ("Родился Йозеф Кац.", "Йозеф Кац", nfd("йозеф кац")),
        (nfd("Antonín Dvořák was born."), nfd("Antonín Dvořák"), "Antonín Dvořák"),
        ("Ο Νίκος Σταύρος γεννήθηκε.", "Νίκος Σταύρος", "ΝΊΚΟΣ ΣΤΑΎΡΟΣ"),
        ("그는김소월이다", "김소월", nfd("김소월")),
        (nfd("그는김소월이다"), nfd("김소월"), "김소월"),
        ("かれはガモウです", "ガモウ", nfd("ガモウ")),
        ("ＡＤＡ出生于长安", "ＡＤＡ", "Ada"),
    ],
)
def test_name_in_another_form_is_named_in_that_form(line, form, asked):
    index = TextIndex(["", "Bo. Someone else.", line], ["", "Bo", form if line.startswith(f"{form}. ") else ""])
    mention = index.find(asked)
    assert mention.lines == (3,) and mention.form == form
    shown = as_screen(finding(index, asked, "Lagos"), "a.txt", colors=False)
    assert f"in a.txt as {form!r}" in shown and ", line 3; " in shown and "made up" not in shown
    assert ("(Unicode form NFC)" in shown) == (unicodedata.normalize("NFC", asked) == form)
    assert ("(Unicode form NFD)" in shown) == (nfd(asked) == form != unicodedata.normalize("NFC", asked))


@pytest.mark.parametrize("asked", ["Ada Oka", "Bob Okafor", "Zoe Brandt", "王安", "Ким", "김소"])
def test_only_a_name_that_is_nowhere_is_called_made_up(asked):
    index = TextIndex(["Ada Okafor. Ada Okafor was born in Lagos.", "Zoë Brandt met Акимов", "김수월"], [""] * 3)
    assert index.find(asked).lines == ()
    shown = as_screen(finding(index, asked, "Lagos"), "a.txt", colors=False)
    assert "not in a.txt, so any answer is made up" in shown


def test_finding_names_takes_time_in_proportion_to_the_lines():
    def find(number: int) -> None:
        lines = [f"Name{i} Son. Name{i} Son was born in Ulm, far from Älv." for i in range(number)]
        index = TextIndex(lines, [line.partition(". ")[0] for line in lines])
        for i in range(1, 200):
            assert index.find(f"Name{i}0 Son").lines == (10 * i + 1,)
            assert index.find(f"nobody{i}").lines == ()
        assert index.find(f"name{number - 1} son").lines == (number,)

    check_growth(find, 20_000)


# ask


def test_row_has_the_line_with_the_answer_and_the_reason():
    index = index_of("Jo Ek. Jo Ek, born in Hull.\nJo Ek. Jo\tEk\u2028born in Cork.")
    row = dict(zip(COLUMNS, as_row(finding(index, "Jo Ek", "Cork")).split("\t"), strict=True))
    assert COLUMNS[:9] == [*["name", "answer", "probability", "lines", "line", "text", "reason", "answer_1", "p_1"]]
    assert row["line"] == "2" and row["text"] == "Jo Ek. Jo Ek born in Cork."
    assert (row["lines"], row["lines_with_answer"], row["found_as"], row["reason"]) == ("2", "1", "Jo Ek", "")
    assert (row["answer_1"], row["p_1"], row["answer_3"]) == ("Cork", "0.750000", "")
    row = dict(zip(COLUMNS, as_row(finding(index, "jo ek", "", "too long")).split("\t"), strict=True))
    assert (row["answer"], row["found_as"], row["reason"]) == ("", "Jo Ek", "too long")
    row = dict(zip(COLUMNS, as_row(finding(index, "Bo", "Cork")).split("\t"), strict=True))
    assert (row["line"], row["text"], row["lines"], row["found_as"]) == ("0", "", "0", "")


def test_screen_says_which_of_several_lines_contains_the_answer():
    index = index_of("王安。生于洛阳。\n李四。生于长安。\n王安。生于长安，长安人。")
    shown = as_screen(finding(index, "王安", "长安"), "a.txt", colors=True)
    assert "\033[1m王安\033[0m" in shown and "\033[1m  长安 " in shown
    assert "a.txt, line 3, contains the answer (found in 1 of 2 lines about the name): " in shown
    assert "王安。生于\033[32m长安\033[0m，\033[32m长安\033[0m人。" in shown
    shown = as_screen(finding(index, "王安", "成都"), "a.txt", colors=False)
    assert "none of 2 lines about the name contains the answer; a.txt, line 1: 王安。生于洛阳。" in shown
    shown = as_screen(finding(index, "李四", "长安"), "a.txt", colors=False)
    assert "a.txt, line 2, contains the answer: 李四。" in shown
    shown = as_screen(finding(index, "李四", "洛"), "a.txt", colors=False)
    assert "a.txt, line 2, does not contain the answer: 李四。" in shown


def test_screen_says_why_a_name_cannot_be_asked():
    index = index_of("Zoë. Born in Bremen.")
    shown = as_screen(finding(index, nfd("Zoë"), "", "it is too long"), "a.txt", colors=False)
    assert "cannot be asked: it is too long" in shown and "in a.txt as 'Zoë' (Unicode form NFC), line 1" in shown
    shown = as_screen(finding(index, "Bo", "", "it is too long"), "a.txt", colors=False)
    assert shown == "Bo\n  cannot be asked: it is too long\n"


# the report of evaluate


@pytest.mark.parametrize(
    ("text", "name", "places"),
    [
        ("Jo Ek. A potter from Hull.\nJo Ek. Born in Cork.", "Jo Ek", ("Hull", "Cork", "York")),
        ("Иван. Умер: Омск.\nИван. Родился: Томск.", "Иван", ("Омск", "Томск", "Киров")),
        ("王安。卒于洛阳。\n王安。生于长安。", "王安", ("洛阳", "长安", "成都")),
    ],
)
def test_report_row_says_what_all_lines_about_the_name_contain(text, name, places):
    first, second, nowhere = places
    index = index_of(text)
    pairs = [(f"{name}?", second), (f"{name}?", nowhere), (f"{name}?", f" {second}")]
    rivals = [[(first, 0.5), (second, 0.125)], [(first, 0.5)], []]
    names = [name, name.upper(), None]
    rows = report_rows(pairs, names, [first, first, second], [0.5, 0.5, 0.25], rivals, index, {second})
    assert [row.correct for row in rows] == [False, False, True]
    assert [row.margin for row in rows] == [0.375, 0.5, 0.25]
    assert [row.name_in_text for row in rows] == [True, True, True]  # the last by a title in the question
    assert [row.truth_in_line for row in rows] == [True, False, True]
    assert [row.prediction_in_line for row in rows] == [True, True, True]
    assert [row.prediction_trained_on for row in rows] == [False, False, True]
    assert report_rows(pairs[:1], [name], [first], [0.5], [[]], index, None)[0].prediction_trained_on is None
    header, *cells = (line.split("\t") for line in as_table(rows).splitlines())
    assert header[0] == "question" and cells[0][1:6] == [first, second, "False", "0.500000", "0.375000"]


def test_question_with_another_wording_says_nothing_about_its_name():
    index = index_of("Jo Ek. Born in Cork.\nJo Ek Li. Born in Hull.")
    assert index.name_in("Jo Ek Li hails from?") == "Jo Ek Li" and index.name_in("Bo Ek hails from?") is None
    for first, second in (("Jo Ek", "Bo Li"), ("Bo Li", "Jo Ek")):  # of two titles, the first in the question
        assert index_of("Jo Ek. x\nBo Li. y").name_in(f"{first} or {second}?") == first
    rows = report_rows([("Bo hails from?", "Cork")], [None], ["Cork"], [0.5], [[]], index, None)
    assert rows[0].name_in_text is None and "\tNone\t" in as_table(rows)
    table = {line[:48].strip(): line[48:].split() for line in summary(rows).splitlines()}
    assert table["the question has another wording"] == ["1", "1", "100.0"] and table["neither"] == ["0", "0", "-"]


def test_calibration_error_and_auroc():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 0.15])
    correct = np.array([True, True, True, False, False, True])
    # |0.75 - 0.95| over 4 of 6, |0.5 - 0.15| over 2 of 6
    assert calibration_error(confidence, correct) == pytest.approx(0.2 * 4 / 6 + 0.35 * 2 / 6)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    pairs = [(c, w) for c in confidence[correct] for w in confidence[~correct]]
    assert auroc(confidence, correct) == pytest.approx(np.mean([(c > w) + 0.5 * (c == w) for c, w in pairs]))
    assert math.isnan(auroc(confidence, np.ones(6, dtype=bool)))


def asked(correct: bool, in_line: bool, trained_on: bool | None, prediction: str = "p") -> ReportRow:
    return ReportRow("q", prediction, "t", correct, 0.5, 0.1, True, True, in_line, trained_on)


def test_summary_tells_where_wrong_answers_come_from():
    wrong = [(True, True), (True, False), (True, False), (False, True), (False, True), (False, False)]
    rows = [asked(False, *where) for where in wrong] + [asked(True, True, True)]
    assert summary(rows).endswith(
        "\nof 6 wrong answers, 3 are in a line about the person, 2 more are answers of the training pairs, 1 neither"
    )
    rows = [asked(False, True, None), asked(False, False, None)]
    assert summary(rows).endswith("\nof 2 wrong answers, 1 are in a line about the person")


def test_summary_has_no_auroc_where_all_answers_are_alike():
    for rows in ([asked(True, True, None)], [asked(False, True, None)]):
        assert "expected calibration error 50.0 %\n" in summary(rows)
    assert "%, AUROC" in summary([asked(True, True, None), asked(False, True, None)])


def test_summary_counts_near_misses():
    assert summary([asked(False, True, None, "T")]).endswith("\n" + near_misses_line(1))
    assert "differ" not in summary([asked(False, True, None)])


def test_pictures_show_what_was_measured():
    diagram = reliability_diagram(np.array([0.05, 0.95]), np.array([False, True]), size=100)
    assert (diagram[50, 95] == (70, 120, 180)).all() and (diagram[50, 5] == 255).all()
    weights = [np.tril(np.full((2, n, n), 0.5)) for n in (3, 5)]
    weights[1][1, 4, 0] = 1.0
    picture = attention_picture(weights)
    assert picture.dtype == np.uint8 and picture.shape == (3 * 2 * 7, 3 * 2 * 7, 3)
    assert picture.min() == 0 and (picture == 0).sum() == 27  # one weight of 1: 3 x 3 pixels, 3 colors
    assert (picture[3 * (7 + 4) + 1, 3 * 7 + 1] == 0).all() and (picture[0, 3] == 255).all()
