"""How questions are worded, header rows, and the files that hold questions, pairs and predictions."""

import pytest
from conftest import ROOT, check_growth

from cli import UserError
from entities import title_of
from question import (
    COURSE_TEMPLATE,
    QuestionTemplate,
    TemplateFit,
    find_header,
    find_template,
    find_words,
    fit_template,
    parse_pairs,
    parse_questions,
    read_predictions,
)

NAMES = {
    "Latin": ["Ada Ek", "Bo Li", "Cy van Dam", "Zoë Wu"],
    "Cyrillic": ["Анна Ким", "Пётр Лис", "Яна Рой", "Олег Цой"],
    "Chinese": ["王安", "李文", "赵一", "孙小平"],
    "Arabic": ["سامي نور", "ليلى حسن", "عمر زكي", "هدى علي"],
    "Devanagari": ["रवि वर्मा", "मीरा दास", "कबीर सेन", "लता राय"],
}
TEMPLATES = {
    "Latin": ["Where was {name} born?", "Birthplace of {name}?", "{name} was born in", "Home: {name}", "{name}"],
    "Cyrillic": ["Где родился {name}?", "{name}: место рождения?", "Город, где живёт {name}"],
    "Chinese": ["{name}出生在哪里？", "请问{name}生于何处？", "出生地：{name}"],
    "Arabic": ["أين ولد {name}؟", "{name} ولد في", "مدينة {name} هي"],
    "Devanagari": ["{name} का जन्म कहाँ हुआ?", "जन्मस्थान: {name}"],
}
CASES = [(script, template) for script, templates in TEMPLATES.items() for template in templates]


def titles_of(lines: list[str]) -> set[str]:
    return set(map(title_of, lines))


@pytest.mark.parametrize(("script", "template"), CASES)
@pytest.mark.parametrize("titled", [True, False])
def test_template_is_found_in_any_script_with_the_name_anywhere(script, template, titled):
    template = QuestionTemplate.parse(template)
    lines = [f"{name}. X" if titled else f"{name}, X" for name in NAMES[script]]
    questions = [template.ask(name) for name in NAMES[script]]
    assert find_template(questions, titles_of(lines), lines) == TemplateFit(template, 4, 4, None)
    assert [template.name_in(question) for question in questions] == NAMES[script]


@pytest.mark.parametrize(
    "names",
    [
        ["Ada Ek", "Ada Moro", "Ada Penn"],  # alike in front
        ["Ann Bach", "Bo Bach", "Cy Bach"],  # and at the end
        ["Ann", "Anna", "Annabel"],
        ["王安", "王文", "王一"],
        ["أحمد سالم", "أحمد حسن", "أحمد سامي"],
        ["Павел Лис", "Пётр Лис", "Прохор Лис"],
    ],
)
@pytest.mark.parametrize("titled", [True, False])
def test_names_that_share_letters_do_not_become_part_of_the_template(names, titled):
    template = QuestionTemplate("Home of ", "? Tell me!")
    lines = [f"{name}. X" if titled else f"{name}, X" for name in names]
    assert find_template([template.ask(name) for name in names], titles_of(lines), lines).template == template


def test_template_without_any_help_from_the_text_is_cut_at_words():
    questions = ["Birthplace of Ada?", "Birthplace of Alf?", "Birthplace of Amy?"]
    assert find_template(questions, ()).template == QuestionTemplate("Birthplace of ", "?")


@pytest.mark.parametrize("script", NAMES)
@pytest.mark.parametrize("misfit", ["question", "问题", "Кого?", "Tell me about Bo Li"])
@pytest.mark.parametrize("titled", [True, False])
def test_rows_with_another_wording_are_counted_and_the_first_is_named(script, misfit, titled):
    template = QuestionTemplate.parse(TEMPLATES[script][0])
    questions = [template.ask(name) for name in NAMES[script]]
    lines = [f"{name}. X" if titled else f"{name}, X" for name in NAMES[script]]
    for line in (1, 3):
        rows = [*questions[: line - 1], misfit, *questions[line - 1 :]]
        assert find_template(rows, titles_of(lines), lines) == TemplateFit(template, 4, 5, (line, misfit))


def test_blank_after_a_question_does_not_matter():
    rows = parse_pairs("Where was Ada Ek born? \tRome\nWhere was Bo Li born?\tOslo\n")
    assert find_template([question for question, _ in rows], ()) == TemplateFit(COURSE_TEMPLATE, 2, 2, None)


@pytest.mark.parametrize("lines", [["Ada Ek. Born in Rome"], ["Bo. Born"], []])
def test_one_question_is_enough_if_it_has_the_wording_of_the_course(lines):
    assert find_template(["Where was Ada Ek born?"], titles_of(lines), lines).template == COURSE_TEMPLATE


def test_one_question_is_enough_if_the_text_has_its_title():
    assert str(find_template(["Home of Ada Ek?"], {"Ada Ek"}).template) == "Home of {name}?"


def test_most_frequent_of_several_wordings_is_the_template():
    names = [f"{first} {last}" for first in ("Ada", "Bo", "Cy") for last in ("Ek", "Li", "Tan", "Wu")]
    wordings = ["Home of {name}?", "Where is {name} from?", "Home of {name}?", "Town of {name}?"] * 3
    questions = [QuestionTemplate.parse(wording).ask(name) for wording, name in zip(wordings, names, strict=True)]
    fit = find_template(questions, names)
    assert fit == TemplateFit(QuestionTemplate("Home of ", "?"), 6, 12, (2, "Where is Ada Li from?"))


def test_wording_of_the_repository_is_that_of_the_course():
    lines = (ROOT / "wiki.txt").read_text(encoding="utf-8").split("\n")
    questions = [question for question, _ in parse_pairs((ROOT / "birth_places_train.tsv").read_text(encoding="utf-8"))]
    for titles in (titles_of(lines), ()):
        fit = find_template(questions, titles, lines)
        assert fit == TemplateFit(COURSE_TEMPLATE, len(questions), len(questions), None)


@pytest.mark.parametrize("titled", [True, False])
def test_finding_the_template_takes_time_in_proportion_to_the_questions(titled):
    def find(number: int) -> None:
        names = [f"{first}{i:04} Smith" for i in range(number // 4) for first in ("Ann", "Anna", "Bo", "B")]
        fit = find_template([f"Birthplace of {name}?" for name in names], names if titled else (), sorted(names))
        assert fit == TemplateFit(QuestionTemplate("Birthplace of ", "?"), number, number, None)

    check_growth(find, 10_000)


@pytest.mark.parametrize("text", ["Where was Ada born?", "{name} or {name}?", "", "{Name}?"])
def test_template_needs_one_name(text):
    with pytest.raises(UserError, match=r"^--question .*: holds \{name\} [02] times; write it once"):
        QuestionTemplate.parse(text)


def test_template_is_asked_and_read_back():
    template = QuestionTemplate.parse(" Where was {name} born? ")
    assert template == COURSE_TEMPLATE and str(template) == "Where was {name} born?"
    assert template.ask(" Ada Ek ") == "Where was Ada Ek born?"
    assert template.name_in("Where was  Ada Ek born?") == "Ada Ek"
    for other in ("Where was born?", "Where was  born?", "where was Ada born?", "Where was Ada born? ", "", "Ada"):
        assert template.name_in(other) is None
    assert QuestionTemplate("aba", "aba").name_in("ababa") is None


# header rows


@pytest.mark.parametrize("script", NAMES)
@pytest.mark.parametrize(
    "header",
    [("question", "answer"), ("Question", None), ("问题", "答案"), ("Вопрос", "Ответ"), ("name", "birthplace")],
)
def test_header_row_is_found(script, header):
    template = QuestionTemplate.parse(TEMPLATES[script][0])
    lines = [f"{name}. Born in Rome" for name in NAMES[script]]
    rows = [header, *((template.ask(name), header[1] and "Rome") for name in NAMES[script])]
    fit = find_template([question for question, _ in rows], titles_of(lines), lines)
    assert find_header(rows, fit, "\n".join(lines)).startswith(f"'{header[0]}' looks like a header row; remove it")
    fit = fit_template(template, [question for question, _ in rows[1:]])
    assert find_header(rows[1:], fit, "\n".join(lines)) is None


def test_header_of_bare_names_is_found():
    text, rows = "Ada Ek. Born in Rome\nBo Li. Born in Oslo", [("Ada Ek", "Rome"), ("Bo Li", "Oslo")]
    fit = find_template(["Person", *dict(rows)], ["Ada Ek", "Bo Li"])
    assert str(fit.template) == "{name}"
    assert "'Person' looks like a header row" in find_header([("Person", "Place"), *rows], fit, text)
    assert find_header([*rows, ("Person", "Place")], fit, text) is None


@pytest.mark.parametrize(
    "first",
    [
        ("Where was Xu born?", "Nowhere"),  # the wording of the others
        ("Birthplace of Ada Ek?", "Rome"),  # another wording, but the text holds the place
        ("Town of Xu?", "Nowhere"),  # shared with the last row
    ],
)
def test_first_row_with_a_known_place_or_a_shared_wording_is_not_a_header(first):
    text, names = "Ada Ek. Born in Rome\nBo Li. Born in Oslo", ["Ada Ek", "Bo Li", "Cy Tan"]
    rows = [first, *((COURSE_TEMPLATE.ask(name), "Rome") for name in names), ("Town of Bo?", "Oslo")]
    assert find_header(rows, find_template([question for question, _ in rows], names), text) is None
    assert find_header(rows[:1], fit_template(COURSE_TEMPLATE, [first[0]]), text) is None


def test_header_that_begins_like_the_questions_is_found():
    rows = [("Where", "Place"), ("Where was Ada born?", "Rome"), ("Where was Bo born?", "Rome")]
    fit = find_template([question for question, _ in rows], ())
    assert "'Where' looks like a header row" in find_header(rows, fit, "Ada. Born in Rome")


# names in texts, and files


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        ("Ada", "Adams met Ada.", 10),
        ("Anna", "Hanna", None),
        ("Ким", "Акимов и Ким", 9),
        ("碎叶", "生于碎叶城", 2),
        ("نور", "منصور نور", 6),
        ("王", "王安", 0),
        ("Paris", "在Paris开店", 1),
    ],
)
def test_words_are_found_whole_where_scripts_have_spaces(words, text, found):
    assert next(find_words(words, text), None) == found


def test_questions_places_and_predictions_are_stripped(tmp_path):
    text = " Where was Ada born? \t Rome\u00a0\r\nWo wurde 王安 geboren?\u3000\tSão  Paulo \n"
    assert parse_pairs(text) == [("Where was Ada born?", "Rome"), ("Wo wurde 王安 geboren?", "São  Paulo")]
    assert parse_questions(" Где Анна? \nWhere? \n") == [("Где Анна?", None), ("Where?", None)]
    path = tmp_path / "predictions"
    path.write_text(" Rome \n\nSão  Paulo\t\n", encoding="utf-8")
    assert read_predictions(str(path), [("a", None)] * 3) == ["Rome", "", "São  Paulo"]


@pytest.mark.parametrize("place", ["", " ", "\u3000", "\u00a0 "])
def test_blank_place_is_refused(place):
    with pytest.raises(UserError, match=r"^a\.tsv, line 2: no answer after the tab"):
        parse_pairs(f"Where was Ada born?\tRome\nWhere was Bo born?\t{place}\n", "a.tsv")
