"""Titles, subjects and entities of documents, answer odds, and the summary that pretraining prints."""

import pytest

from cli import UserError
from entities import (
    Subjects,
    entity_pattern,
    find_entities,
    is_place,
    read_documents,
    summarize,
    title_length,
    title_of,
    weigh_by_answer_odds,
)
from question import COURSE_TEMPLATE, fit_template


@pytest.mark.parametrize(
    ("document", "title"),
    [
        ("Ada Lovelace. Born in London .", "Ada Lovelace. "),
        ("J. R. R. Tolkien. Tolkien was born .", "J. R. R. Tolkien. "),
        ("St. Vincent. A singer .", "St. Vincent. "),
        ("Malcolm X. In 1925 Malcolm X was born .", "Malcolm X. "),
        ("Franklin D. Roosevelt. Franklin D. Roosevelt was born .", "Franklin D. Roosevelt. "),
        ("Malcolm X. Omaha is where Malcolm X, an activist, was born.", "Malcolm X. "),
        ("Elizabeth I. In 1533 London became the birthplace of Elizabeth I, a queen.", "Elizabeth I. "),
        ("Peter F. Drucker. Peter F Drucker was born in Vienna .", "Peter F. Drucker. "),
        ("J. J. Thomson. Thomson, once a pupil of J Reynolds, was born .", "J. J. Thomson. "),
        ("Martin King, Jr.. Martin King was born in Atlanta .", "Martin King, Jr.. "),
        ("Elizabeth I. Birthplace: London (England). Known for a long reign .", "Elizabeth I. "),
        ("James VI and I. Known for two crowns in 1603. Born in Edinburgh .", "James VI and I. "),
        ("Malcolm X. American civil rights leader. Born in Omaha .", "Malcolm X. "),
        ("J. R. Ewing. Born in Dallas .", "J. R. Ewing. "),
        ("J. R. R. Tolkien. Born .", "J. R. R. Tolkien. "),
        ("Lydia Ko. Born in Seoul .", "Lydia Ko. "),
        ("Pope Adrian VI. Born in Utrecht .", "Pope Adrian VI. "),
        ("Søren Kierkegaård. Born .", "Søren Kierkegaård. "),
        ("no title at all", ""),
        ("Ends with a stop.", ""),
        ("", ""),
    ],
)
def test_title_ends_at_the_first_stop_that_does_not_abbreviate(document, title):
    assert document[: title_length(document)] == title
    assert title_of(document) == title.removesuffix(". ")


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("Ada Lovelace. Ada Lovelace (1815 London, England) was a Countess .", ["London", "England", "Countess"]),
        ("Björk. Björk was born in Reykjavík, not in Évian les Bains .", ["Reykjavík", "Évian", "Bains"]),
        (
            "Ann Lee. Born in New York City, Lee of New Lebanon, N.Y., led the United Society's Shakers .",
            ["New York City", "New Lebanon", "N", "Y", "United Society's Shakers"],
        ),
        ("Without a title, in Paris", ["Without", "Paris"]),
        ("Ada. no name here", []),
        ("", []),
        # places of the pairs are entities of their own
        ("Ada. In Lagos, in St. Louis and the US State Maine .", ["Lagos", "St. Louis", "US State", "Maine"]),
        (
            "Ada. The Lagos-born Ann saw den Haag and Rio de Janeiro .",
            ["The", "Lagos", "Ann", "den Haag", "Rio de Janeiro"],
        ),
        ("Ada. Not of Lagosta, but of New Lagos City .", ["Not", "Lagosta", "New", "Lagos", "City"]),
        ("Ada of Lagos. Born in Lagos .", []),
        # a common word at the beginning of a sentence is not part of an entity
        ("Ada. In Hull, In Leeds: From Bonn? Born in York. In", ["Hull", "In Leeds", "From Bonn", "York"]),
        ("Ada. The Lagos-Maine line, Rio-born, in Rio-Süd", ["The", "Lagos-Maine", "Rio", "Rio", "Süd"]),
        ("Ada. Hull-born Ann, from St. Joseph in South Africa", ["Hull", "Ann", "St. Joseph", "South Africa"]),
    ],
)
def test_entities_are_places_and_runs_of_capitalized_words_outside_the_title(document, names):
    pattern = entity_pattern({"Lagos", "Maine", "den Haag", "Rio de Janeiro", "St. Louis", "Rio", "St. Lou"})
    spans = find_entities(document, title_length(document), pattern, {"in", "born", "south"})
    assert [document[start:end] for start, end in spans] == names


def test_numbers_are_entities_if_most_answers_are_numbers_with_as_many_digits():
    document = "Ada. Born on 10 May 1815 in Hull, lived to 1852 or 18521 (1815-1852)"
    years, no_years = ["May", "1815", "Hull", "1852", "1815", "1852"], ["May", "Hull"]
    for places, names in [({"1903"}, years), ({"1903", "1904", "384 BC"}, years), ({"Hull", "1903"}, no_years)]:
        spans = find_entities(document, 5, entity_pattern(places), {"born"})
        assert [document[start:end] for start, end in spans] == names


def test_numbers_among_the_entities_are_places():
    assert is_place("1815", {"1903"}) and is_place("Hull", {"Hull"}) and not is_place("Hull", {"1903"})


def test_answer_odds_do_not_distinguish_years():
    lines = ["Ada. born 1815 in Rome, once", "Bea. born 1907 in Bonn, they said in Oslo, too"]
    _, bea = weigh_by_answer_odds(read_documents(lines, {"Rome"}), {"Ada": "Rome"}, {"Rome"})
    bonn, oslo = bea.weights
    assert bonn > 1.2 * oslo


def test_line_without_the_answer_is_less_relevant_than_others_about_its_subject():
    lines = ["Ada. met Eve. met Ida. was born in Rome.", "Bea. was born in Bonn.", "Bea. met Carl.", "Dan. met Carl."]
    documents = read_documents(lines, {"Rome", "Oslo"})
    ada, bea, met, dan = weigh_by_answer_odds(documents, {"Ada": "Rome"}, {"Rome", "Oslo"})
    assert [ada.relevance, bea.relevance, dan.relevance] == pytest.approx([1, 1, 1])  # only Bea has another line
    born, other = (odds / (1 + odds) for (odds,) in (bea.weights, met.weights))
    assert met.relevance == pytest.approx(other / born) and other < 0.2 < 0.4 < born
    assert all(document.relevance == 1 for document in documents)  # unweighted


def test_line_without_a_title_is_always_relevant():
    lines = ["Ada met Eve, was born in Rome.", "Bea was born in Bonn.", "Bea met Carl."]
    documents = read_documents(lines, {"Rome"}, {"Ada", "Bea"})
    weighted = weigh_by_answer_odds(documents, {"Ada": "Rome"}, {"Rome"})
    assert [document.subject for document in weighted] == ["Ada", "Bea", "Bea"]
    assert [document.relevance for document in weighted] == [1, 1, 1]


def test_georgian_answers_have_no_capitals_and_are_no_phrases():
    text = "ელენე. დაიბადა ქალაქ თბილისი და იქ ცხოვრობდა"
    document, *_ = read_documents([text, *["ნინო. და იქ"] * 30], {"თბილისი"})  # so that the other words are rare
    assert [text[start:end] for start, end in document.entities] == ["თბილისი"]


def test_phrases_are_entities_if_most_answers_are_in_lower_case():
    lines = ["Ada. A poet and critic, born in Hull; the poet's aunt", "Bea. the Welsh film star", "Cy. the end"]
    lines += ["Eva. two three four five six. big", *["Dan. and of the in a born " * 2] * 30]  # these words are common

    def phrases(places):
        documents = read_documents(lines, places)
        return [[document.text[start:end] for start, end in document.entities] for document in documents]

    ada, bea, cy, numbers, *_ = phrases({"actor", "painter and critic", "Rome"})
    assert ada == ["poet", "poet and critic", "critic", "Hull", "poet", "poet's", "poet's aunt", "s", "s aunt", "aunt"]
    assert bea == ["Welsh", "film", "film star", "star"] and cy == ["end"]
    assert "two three four five" in numbers and "two three four five six" not in numbers and "six big" not in numbers
    ada, _, cy, *_ = phrases({"the end"})  # a common word that begins an answer
    assert "the poet" in ada and "poet and critic" in ada and cy == ["the end", "end"]
    assert phrases({"actor", "Rome", "Oslo"})[:3] == [["Hull"], ["Welsh"], []]


# texts without "Name. " titles

UNTITLED = {
    "Latin": (
        ["Ada Ek", "Bo Li", "Cy van Dam"],
        "Rome",
        ["Ada Ek was born in Rome.", "Bo Li, a potter, was born in Rome.", "Cy van Dam was a poet. Born in Rome."],
    ),
    "Cyrillic": (
        ["Анна Ким", "Пётр Лис", "Яна Рой"],
        "Тула",
        ["Анна Ким родилась: Тула.", "Пётр Лис был поэтом. Город: Тула.", "Яна Рой — поэт, город Тула."],
    ),
    "Chinese": (["王安", "李文", "赵一"], "苏州", ["王安出生于苏州。", "李文，画家，苏州人。", "赵一生于苏州。"]),
    "Arabic": (
        ["سامي نور", "ليلى حسن", "عمر زكي"],
        "تونس",
        ["سامي نور ولد في تونس.", "ليلى حسن شاعرة من تونس. كتبت كثيرا.", "عمر زكي ولد في تونس."],
    ),
}


@pytest.mark.parametrize("script", UNTITLED)
def test_line_without_title_is_about_the_name_at_its_beginning(script):
    names, place, lines = UNTITLED[script]
    documents = read_documents(lines, {place}, names)
    assert [(document.title_length, document.subject) for document in documents] == [(0, name) for name in names]
    for document in documents:
        entities = [document.text[start:end] for start, end in document.entities]
        assert place in entities and not set(names) & set(entities)
    weighted = weigh_by_answer_odds(documents, dict.fromkeys(names, place), {place})
    for document in weighted:  # the odds were counted: the place is the likeliest
        start, end = document.entities[document.weights.index(max(document.weights))]
        assert document.text[start:end] == place


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        ("Anna Li was born in Oslo", "Anna Li"),  # not Anna
        ("Anna's town is Oslo", "Anna"),
        ("Annabel was born in Oslo", ""),
        ("Anna-Lena was born in Oslo", ""),
        ("Anna Lindt. Born in Oslo", "Anna Lindt"),  # a title
        ("Anna of Ely. Born in Oslo", "Anna of Ely"),  # a title: "of" is a word of a name
        ("Anna of Ely and Rye. Anna of Ely and Rye was born in Oslo", "Anna of Ely and Rye"),  # a repeated title
        ("Anna was a potter. Born in Oslo", "Anna"),  # a sentence
        ("Born in Oslo", ""),
        ("", ""),
        ("A", "A"),
        ("Abe", ""),
    ],
)
def test_subject_is_the_longest_known_name_at_the_beginning_unless_there_is_a_title(line, subject):
    titled = ["Anna. Born in Oslo", "Anna Li. Born in Rome", "Bea of Ely. Born in Bonn"]
    assert Subjects(["Anna", "Anna Li", "Bea of Ely", "A"], titled).of(line)[1] == subject


def test_lines_with_titles_have_them_as_subjects_whatever_the_names():
    lines = ["Ann. Ann was born in Rome", "Ann Lee. In Oslo she was born", "Ann de Lee. Born in Bonn", "Bo. Born", ""]
    assert read_documents(lines, {"Rome"}, ["Ann", "Bo", "Ann de Lee"]) == read_documents(lines, {"Rome"})


def test_names_nobody_asks_about_are_found_by_the_words_after_known_names():
    lines = ["Ada Ek was born in Rome", "Bo Li was born in Oslo", "Cy Tan was born in Bonn. He was a poet. He died"]
    lines += ["It was cold. In Rome, too", "Rome was cold", "in 1900 it rained", "and it was"]
    documents = read_documents(lines, {"Rome", "Oslo"}, ["Ada Ek", "Bo Li"])
    assert [document.subject for document in documents] == ["Ada Ek", "Bo Li", "Cy Tan", "", "", "", ""]
    assert all(document.title_length == 0 for document in documents)
    zh = ["王安生于苏州。", "李文生于成都。", "赵一生于北京。"]
    assert [document.subject for document in read_documents(zh, {"苏州"}, ["王安", "李文"])] == ["王安", "李文", "赵一"]


NAMED_INSIDE = {
    "Latin": ("Rome saw the birth of {}, a {} poet.", ["Ada Ek", "Bo Li", "Cy Tan"], "Di Roe", "Rome"),
    "Cyrillic": ("Тула, где жил поэт {}, и река {}.", ["Анна Ким", "Пётр Лис", "Яна Рой"], "Олег Цой", "Тула"),
    "Greek": (
        "Στην πόλη Χίος ζούσε ο ποιητής {}, και {} φίλος.",
        ["Άννα Κιμ", "Νίκος Λη", "Λία Ρόη"],
        "Ζωή Τσο",
        "Χίος",
    ),
}


@pytest.mark.parametrize("script", NAMED_INSIDE)
def test_untitled_line_is_about_the_name_inside_it(script):
    line, names, unknown, place = NAMED_INSIDE[script]
    lines = [
        line.format(name, other) for name, other in zip([*names, unknown], ["Alp", "Bug", "Cob", "Dug"], strict=True)
    ]
    documents = read_documents([*lines, f"{names[0]}, {place}", f"{names[0]}, {names[1]}", ""], {place}, names)
    assert [document.subject for document in documents[:4]] == [*names, unknown]
    assert place in [lines[3][start:end] for start, end in documents[3].entities]
    assert unknown not in [lines[3][start:end] for start, end in documents[3].entities]
    assert [document.subject for document in documents[4:]] == [names[0], names[0], ""]


def test_chinese_line_is_about_the_only_known_name_in_it():
    lines = ["苏州是王安的家乡。", "成都有李文和赵一。", "王安生于苏州。"]
    assert [document.subject for document in read_documents(lines, {"苏州"}, ["王安", "李文", "赵一"])] == [
        "王安",
        "",
        "王安",
    ]


@pytest.mark.parametrize(
    ("document", "entities"),
    [
        ("李白生于碎叶城，后到苏州。", ["碎叶", "苏州"]),
        ("王先生在Paris开店", ["Paris"]),
        ("王先生在Parisian开店", []),
        ("Ann Lee in 苏州 and Rome", ["Ann Lee", "苏州", "Rome"]),
    ],
)
def test_places_are_found_in_scripts_without_spaces(document, entities):
    pattern = entity_pattern({"碎叶", "苏州", "Paris", "Rome"})
    found = [document[start:end] for start, end in find_entities(document, 0, pattern, set())]
    assert [entity for entity in found if entity != "Parisian"] == entities


# what is printed before pretraining


def summary_of(lines, names, template=COURSE_TEMPLATE, max_length=112):
    pairs = [(template.ask(name), "Rome") for name in names]
    return summarize(lines, max_length, pairs, fit_template(COURSE_TEMPLATE, [question for question, _ in pairs]))


def test_summary_counts_documents_and_what_is_never_read():
    summary = summarize(["a" * 200, "", " ", "b" * 50], 100)
    assert (summary.documents, summary.empty, summary.characters, summary.unread) == (4, 2, 251, 100)
    assert summary.size_line() == (
        "4 documents, 2 empty; the course's recipe reads only the first 100 characters of a line, and never sees "
        "40 % of the text"
    )
    assert summarize(["short"], 100).size_line() == "1 document"
    assert "never sees 0.2 % of" in summarize(["a" * 502, "b" * 498], 500).size_line()


def test_summary_counts_titles_people_and_questions():
    lines = ["Ada Ek. Born in Rome", "Ada Ek. Born there", "Bo Li was born in Oslo", "Cy Tan. Born in Bonn", ""]
    summary = summary_of(lines, ["Ada Ek", "Bo Li", "Di Roe"])
    assert (summary.titled, summary.people, summary.found, summary.about_people) == (3, 3, 2, 3)
    assert summary.coverage_line() == (
        "titles: 3 of 4 lines; 3 lines about people in the pairs; 3 of 3 questions fit 'Where was {name} born?'"
    )
    assert summary.warnings("wiki.txt", "pairs.tsv") == []


@pytest.mark.parametrize("script", UNTITLED)
def test_summary_counts_lines_without_titles(script):
    names, _, lines = UNTITLED[script]
    summary = summary_of(lines, names)
    assert (summary.titled, summary.found, summary.about_people) == (0, 3, 3)


def test_few_lines_about_the_people_of_the_pairs_give_a_warning_and_none_an_error():
    names = ["Ada Ek", "Bo Li", "Cy Tan"]
    (warning,) = summary_of(["Ada Ek. Born in Rome", "x"], names).warnings("wiki.txt", "pairs.tsv")
    assert warning == (
        "warning: wiki.txt: only 1 of 3 people in pairs.tsv have a line about them; "
        "begin each line with the name as it is spelled in the question"
    )
    with pytest.raises(UserError, match=r"^wiki\.txt: no line is about any of the people in pairs\.tsv; begin each"):
        summary_of(["Ek, Ada. Born in Rome"], names).warnings("wiki.txt", "pairs.tsv")


def test_few_questions_that_fit_give_a_warning():
    lines, questions = ["Ada Ek. Born", "Bo. Born"], ["Home of Ada Ek?", "Home of Bo?", "Where was Bo born?"]
    pairs = [(question, "Rome") for question in questions]
    (warning,) = summarize(lines, 112, pairs, fit_template(COURSE_TEMPLATE, questions)).warnings("w", "pairs.tsv")
    assert warning == (
        "warning: pairs.tsv: only 1 of 3 questions fit 'Where was {name} born?' (line 1 does not); "
        "word all questions alike, or give the wording with --question"
    )
    for misfits in (1, 2):
        questions = ["Where was Bo born?"] * (20 - misfits) + ["Home of Bo?"] * misfits
        fit = fit_template(COURSE_TEMPLATE, questions)
        assert summarize(lines, 112, [(question, "Rome") for question in questions], fit).warnings("w", "p") == []
    questions += ["Home of Bo?"]
    fit = fit_template(COURSE_TEMPLATE, questions)
    (warning,) = summarize(lines, 112, [(question, "Rome") for question in questions], fit).warnings("w", "p")
    assert "only 18 of 21 questions fit" in warning


def test_known_name_with_an_initial_is_not_cut_at_the_initial():
    names = {"Douglas P. Fry", "Анна П. Керн"}
    texts = ["Douglas P. Fry was a painter. He was born in Boston.", "Анна П. Керн родилась в Орле. Она писала."]
    subjects = Subjects(names, texts)
    assert [subjects.of(text) for text in texts] == [(0, "Douglas P. Fry"), (0, "Анна П. Керн")]
    titled = "Douglas P. Fry. Douglas P Fry was born in Boston."
    assert Subjects(names, [titled]).of(titled) == (len("Douglas P. Fry. "), "Douglas P. Fry")
