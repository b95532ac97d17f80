"""corpus/build.py: the committed corpus is what it writes, and what it writes keeps its promises."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from corpus import build

from cli import UserError
from files import name_in, parse_pairs, parse_questions

ROOT = Path(__file__).parent.parent
PEOPLE = ROOT / "corpus" / "people.tsv"
FILES = ("wiki.txt", "birth_places_train.tsv", "birth_dev.tsv", "birth_test_inputs.tsv", "corpus/birth_test.tsv")
HEADER = "\t".join(build.COLUMNS)
ROW = "Ada Example\tUlm\tGermany\t1867\t1934\tGerman\tphysicist and chemist\tthe theory of examples"


@pytest.fixture
def table(tmp_path):
    """Writes rows as a people.tsv and returns its path."""

    def write(*rows: str, header: str = HEADER) -> str:
        path = tmp_path / "people.tsv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def crowd(table):
    """The path of a table of 60 made-up people: dead, living, ancient, and without years."""
    years = ["1867\t1934", "1980\t", "-384\t-322", "\t", "\t1541", "1925\t", "61\t113"]
    places = ["Ulm\tGermany", "Leiden\tNetherlands", "Mexico City\tMexico", "Singapore\tSingapore"]
    return table(
        *(
            f"Person Number {i:02}\t{places[i % 4]}\t{years[i % 7]}\tEnglish\tpoet\twriting poem number {i:02} of many"
            for i in range(60)
        )
    )


def run(path, out, *options: str) -> dict[str, str]:
    """What the command writes, by file."""
    build.main(["--people_path", str(path), "--out", str(out), *options])
    return {name: (out / name).read_bytes().decode() for name in FILES}


def person(**changes) -> build.Person:
    """The person of ROW, with changes."""
    fields = vars(build.parse_person(ROW)) | changes
    return build.Person(**fields)


# the committed corpus


@pytest.fixture(scope="module")
def committed():
    return build.read_people(str(PEOPLE))


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    out = tmp_path_factory.mktemp("rebuilt")
    build.main(["--out", str(out)])
    return out


@pytest.mark.parametrize("name", FILES)
def test_committed_file_is_a_rebuild(name, rebuilt):
    assert (ROOT / name).read_bytes() == (rebuilt / name).read_bytes()


@pytest.fixture(scope="module")
def suiting(committed):
    return [build.fitting_lines(row) for row in committed]


def test_every_pattern_is_used(suiting):
    used = {pattern for lines in suiting for pattern in lines}
    assert [pattern for patterns in build.PATTERNS.values() for pattern in patterns if pattern not in used] == []


def test_committed_wordings_vary(committed, suiting):
    written = set((ROOT / "wiki.txt").read_text(encoding="utf-8").split("\n"))
    shares = Counter(pattern for lines in suiting for pattern, line in lines.items() if line in written)
    assert shares.total() == len(committed)
    assert max(shares.values()) < 0.04 * len(committed)


# what is written


def test_splits_are_disjoint_and_cover(crowd, tmp_path):
    files = run(crowd, tmp_path / "out")
    train = parse_pairs(files["birth_places_train.tsv"])
    dev = parse_pairs(files["birth_dev.tsv"])
    test = parse_pairs(files["corpus/birth_test.tsv"])
    asked = parse_questions(files["birth_test_inputs.tsv"])
    assert asked == [(question, None) for question, _ in test]
    people = {f"Where was {row.name} born?": row.birthplace for row in build.read_people(crowd)}
    assert dict(train + dev + test) == people
    assert (len(train), len(dev), len(test)) == build.split_sizes(60) == (41, 10, 9)


def test_every_file_ends_in_one_lf(crowd, tmp_path):
    for text in run(crowd, tmp_path / "out").values():
        assert text.endswith("\n") and not text.endswith("\n\n") and "\r" not in text


@pytest.mark.parametrize("lines_per_person", [1, 5])
def test_lines_name_the_person_and_the_place(crowd, tmp_path, lines_per_person):
    files = run(crowd, tmp_path / "out", "--lines_per_person", str(lines_per_person))
    lines = defaultdict(set)
    for line in files["wiki.txt"].splitlines():
        lines[line.split(". ")[0]].add(line)
        assert 60 <= len(line) <= 250
    people = build.read_people(crowd)
    assert files["wiki.txt"].count("\n") == lines_per_person * len(people)
    for row in people:
        assert len(lines[row.name]) == lines_per_person
        assert all(row.birthplace in line[:110] for line in lines[row.name])


def test_questions_are_written_in_the_characters_of_the_text(crowd, table, tmp_path):
    files = run(crowd, tmp_path / "out")
    assert set("".join(files[name] for name in FILES[1:])) - set(files["wiki.txt"]) == {"\t"}
    wordy = table(*(ROW.replace("Ada", name).replace("examples", "x" * 250) for name in ("Ada", "Bea", "Cleo", "Dora")))
    with pytest.raises(UserError, match=r"4 people are too few: their lines lack the characters \? W of the questions"):
        run(wordy, tmp_path / "4")


def test_more_lines_leave_the_splits_alone(crowd, tmp_path):
    once, thrice = run(crowd, tmp_path / "1"), run(crowd, tmp_path / "3", "--lines_per_person", "3")
    assert [name for name in FILES if once[name] != thrice[name]] == ["wiki.txt"]


def test_seed_decides(crowd, tmp_path):
    first, again = run(crowd, tmp_path / "1"), run(crowd, tmp_path / "2")
    other = run(crowd, tmp_path / "3", "--seed", "1")
    assert first == again
    assert all(first[name] != other[name] for name in FILES)


def test_people_uses_the_first_rows(crowd, tmp_path, capsys):
    files = run(crowd, tmp_path / "out", "--people", "40")
    asked = parse_questions(
        "".join(line.split("\t")[0] + "\n" for name in FILES[1:4] for line in files[name].splitlines())
    )
    assert sorted(name_in(question) for question, _ in asked) == [f"Person Number {i:02}" for i in range(40)]
    summary = capsys.readouterr().out
    assert summary.count("\n") == 1
    assert (
        summary.startswith("40 people in 40 lines, ") and "train 27, dev 7, test 6; 4 places, 25.0% born in" in summary
    )


@pytest.mark.parametrize(
    ("total", "sizes"), [(2940, (2000, 500, 440)), (600, (408, 102, 90)), (5880, (4000, 1000, 880)), (4, (2, 1, 1))]
)
def test_split_sizes(total, sizes):
    assert build.split_sizes(total) == sizes


# wording


def test_patterns_are_well_formed():
    patterns = [pattern for kind in build.PATTERNS.values() for pattern in kind]
    assert len(set(patterns)) == len(patterns) >= 130
    known = build.blanks(person()).keys()
    for pattern in patterns:
        fields = build.placeholders(pattern)
        assert fields <= known, pattern
        assert len(fields & {"place", "word"}) == 1, pattern
        assert pattern.isascii() and pattern.endswith("."), pattern
        assert pattern.split("{known_for}")[1:] in ([], ["."]) or "{known_for}. " in pattern, pattern


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "dead"),
        ({"born": None}, "dead"),
        ({"died": None}, "dead"),
        ({"born": 1925, "died": None}, None),
        ({"born": 1980, "died": None}, "alive"),
        ({"born": None, "died": None}, None),
    ],
)
def test_tense(changes, kind):
    row = person(**changes)
    assert build.tense(row) == kind
    lines = build.fitting_lines(row)
    for other in {"dead", "alive"} - {kind}:
        assert not lines.keys() & set(build.PATTERNS[other])
    assert not any("None" in line for line in lines.values())


@pytest.mark.parametrize(
    ("place", "country"), [("Singapore", "Singapore"), ("Mexico City", "Mexico"), ("Königsberg", "Russia")]
)
def test_country_is_not_told(place, country):
    lines = build.fitting_lines(person(birthplace=place, country=country))
    assert lines and not any("country" in build.placeholders(pattern) for pattern in lines)


def test_articles_of_countries():
    lines = build.fitting_lines(person(birthplace="Leiden", country="Netherlands"))
    assert any("lies in the Netherlands" in line for line in lines.values())
    lines = build.fitting_lines(person(birthplace="Bahamas", country="Bahamas"))
    assert any("Ada Example. The Bahamas is " in line for line in lines.values())


def test_place_of_several_words_is_not_hyphenated():
    assert any("Ulm-born" in line for line in build.fitting_lines(person()).values())
    assert not any("-born" in line for line in build.fitting_lines(person(birthplace="The Hague")).values())


def test_every_sentence_begins_with_a_capital():
    lines = build.fitting_lines(person(occupation="queen of Spain")).values()
    assert any(line.endswith(". Queen of Spain.") for line in lines)
    assert any("? In Ulm. Queen of Spain, " in line for line in lines)
    lines = build.fitting_lines(person(birthplace="Bahamas", country="Bahamas")).values()
    assert any("Birthplace? The Bahamas. " in line for line in lines) and any(
        "(b. the Bahamas, " in line for line in lines
    )


@pytest.mark.parametrize(
    ("name", "occupation"),
    [("Pope Example", "pope"), ("The Emperor Example", "Roman emperor"), ("Ada I", "queen of Spain")],
)
def test_title_does_not_stand_before_the_name(name, occupation):
    lines = build.fitting_lines(person(name=name, occupation=occupation)).values()
    assert lines and not any(f"{occupation} {name}" in line for line in lines)


def test_a_place_too_late_in_the_line_is_avoided():
    late = "{a_poet} known for {known_for}. Native of {place}."
    assert late in build.fitting_lines(person())
    assert late not in build.fitting_lines(person(known_for="k" * 80))


def test_a_title_may_end_the_sentence():
    lines = build.fitting_lines(person(known_for="the novel What Now?")).values()
    assert any(line.endswith("What Now?") for line in lines) and not any("?." in line for line in lines)


@pytest.mark.parametrize(
    ("phrase", "article"),
    [
        ("English poet", "an"),
        ("Ukrainian poet", "a"),
        ("Uzbek poet", "an"),
        ("European poet", "a"),
        ("heir to the throne", "an"),
        ("Hungarian poet", "a"),
    ],
)
def test_indefinite(phrase, article):
    assert build.indefinite(phrase) == f"{article} {phrase}"


@pytest.mark.parametrize(("year", "text"), [(-384, "384 BC"), (61, "AD 61"), (1867, "1867")])
def test_year_text(year, text):
    assert build.year_text(year) == text


@pytest.mark.parametrize(
    ("nationality", "occupation", "description"),
    [
        ("English", "poet", "English poet"),
        ("American", "American football player", "American football player"),
        ("Austrian", "emperor of Austria", "emperor of Austria"),
        ("English", "historian of religion", "English historian of religion"),
    ],
)
def test_described(nationality, occupation, description):
    assert build.described(person(nationality=nationality, occupation=occupation)) == description


# mistakes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Ada Example\tUlm", "2 columns, 8 are needed"),
        (ROW + "\t", "9 columns, 8 are needed"),
        (ROW.replace("Ulm", ""), "birthplace is empty"),
        (ROW.replace("Ulm", "Ulm "), "birthplace 'Ulm ' begins or ends with a space"),
        (ROW.replace("1867", "about 1867"), "born 'about 1867' is no year"),
        (ROW.replace("1934", "0"), "died '0' is no year"),
        (ROW.replace("1934", "1834"), "died 1834, before being born in 1867"),
        (ROW.replace("Ada", "A\u0301da"), "write the row in Unicode's NFC"),
        (ROW, "Ada Example also stands in line 2"),
    ],
)
def test_bad_row(table, row, message):
    path = table(ROW, row)
    with pytest.raises(UserError) as error:
        build.read_people(path)
    assert str(error.value).startswith(f"{path}, line 3: ") and message in str(error.value)


def test_bad_header(table):
    with pytest.raises(UserError, match="line 1: the header is not 'name<TAB>birthplace<TAB>"):
        build.read_people(table(ROW, header=ROW))


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        build.read_people(str(tmp_path / "people.tsv"))


def test_too_few_people(table, tmp_path):
    with pytest.raises(UserError, match="1 people are too few"):
        run(table(ROW), tmp_path / "out")


def test_more_people_than_rows(crowd, tmp_path):
    with pytest.raises(UserError, match=r"--people 61: .*people.tsv has 60"):
        run(crowd, tmp_path / "out", "--people", "61")


def test_more_lines_than_patterns(crowd, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"--lines_per_person 999: only .* patterns suit Person Number") as error:
        run(crowd, out, "--lines_per_person", "999")
    most = str(error.value).split()[-1]
    run(crowd, out, "--lines_per_person", most)
    with pytest.raises(UserError):
        run(crowd, out, "--lines_per_person", str(int(most) + 1))


def test_out_is_a_file(crowd, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UserError, match=r"--out .*out: the folder cannot be made"):
        run(crowd, tmp_path / "out")


def test_a_file_cannot_be_written(crowd, tmp_path):
    (tmp_path / "out" / "birth_dev.tsv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"birth_dev.tsv: is a folder"):
        run(crowd, tmp_path / "out")
    assert not (tmp_path / "out" / "wiki.txt").exists()


@pytest.mark.parametrize("option", ["--people", "--lines_per_person"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_no_positive_number(option, value):
    with pytest.raises(UserError, match=f"invalid positive whole number value: '{value}'"):
        build.main([option, value])
