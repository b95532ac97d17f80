"""corpus/build.py rebuilds the committed corpus, and what it writes is consistent."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from conftest import ROOT

from cli import UserError
from corpus import build
from question import parse_pairs, parse_questions

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
    """The path of a table of 60 made-up people: dead, alive, ancient, and without years."""
    years = ["1867\t1934", "1980\t", "-384\t-322", "\t", "\t1541", "1925\t", "61\t113"]
    places = ["Ulm\tGermany", "Leiden\tNetherlands", "Mexico City\tMexico", "Singapore\tSingapore"]
    return table(
        *(
            f"Person Number {i:02}\t{places[i % 4]}\t{years[i % 7]}\tEnglish\tpoet\twriting poem number {i:02} of many"
            for i in range(60)
        )
    )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(crowd, out):
    """Runs the command, by default on the crowd, and returns the content of each file that is in the folder then."""

    def run(*options: str, path: str = crowd, out: Path = out) -> dict[str, str]:
        build.main(["--people_path", path, "--out", str(out), *options])
        files = (path for path in out.rglob("*") if path.is_file())
        return {path.relative_to(out).as_posix(): path.read_bytes().decode() for path in files}

    return run


def person(**changes) -> build.Person:
    """The person of ROW, with changes."""
    fields = vars(build.parse_person(ROW)) | changes
    return build.Person(**fields)


def lines_about(**changes) -> list[str]:
    """All lines that could be written about the person of ROW, with changes."""
    return list(build.fitting_lines(person(**changes)).values())


# the committed corpus


@pytest.fixture(scope="module")
def committed():
    return build.read_people(str(PEOPLE))


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    out = tmp_path_factory.mktemp("rebuilt")
    build.main(["--out", str(out)])
    return out


@pytest.fixture(scope="module")
def suitable(committed):
    return [build.fitting_lines(row) for row in committed]


@pytest.mark.parametrize("name", FILES)
def test_committed_files_match_a_rebuild(name, rebuilt):
    assert (ROOT / name).read_bytes() == (rebuilt / name).read_bytes()


def test_every_pattern_suits_somebody(suitable):
    used = {pattern for lines in suitable for pattern in lines}
    assert [pattern for patterns in build.PATTERNS.values() for pattern in patterns if pattern not in used] == []


def test_no_pattern_dominates_the_committed_text(committed, suitable):
    written = set((ROOT / "wiki.txt").read_text(encoding="utf-8").split("\n"))
    shares = Counter(pattern for lines in suitable for pattern, line in lines.items() if line in written)
    assert shares.total() == len(committed)
    assert max(shares.values()) < 0.04 * len(committed)


def test_docs_table_of_relations_is_current(committed, suitable, monkeypatch):
    monkeypatch.setattr(build, "fitting_lines", dict(zip(committed, suitable, strict=True)).get)
    corpora = [build.build_corpus(committed, seed=0, lines_per_person=lines) for lines in (1, 4)]
    rows = []
    for name, relation in build.RELATIONS.items():
        answers = Counter(build.find_answers(name, committed).values())
        answer, count = answers.most_common(1)[0]
        shares = [
            f"{build.answer_coverage(corpus, name):.1f} % ({build.answer_coverage(corpus, name, 112):.1f} %)"
            for corpus in corpora
        ]
        frequency = f"{answer}, {100 * count / len(committed):.1f} %"
        rows.append(f"| `{name}` | {relation.question} | {len(answers)} | {frequency} | {' | '.join(shares)} |\n")
    assert "".join(rows) in (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")


# the files


def test_splits_are_disjoint_and_cover_everybody(run, crowd):
    files = run()
    train = parse_pairs(files["birth_places_train.tsv"])
    dev = parse_pairs(files["birth_dev.tsv"])
    test = parse_pairs(files["corpus/birth_test.tsv"])
    asked = parse_questions(files["birth_test_inputs.tsv"])
    assert asked == [(question, None) for question, _ in test]
    people = {f"Where was {row.name} born?": row.birthplace for row in build.read_people(crowd)}
    assert dict(train + dev + test) == people
    assert (len(train), len(dev), len(test)) == build.split_sizes(60) == (41, 10, 9)


def test_every_file_ends_with_one_newline(run):
    files = run()
    assert files.keys() == set(FILES)
    for text in files.values():
        assert text.endswith("\n") and not text.endswith("\n\n") and "\r" not in text


@pytest.mark.parametrize("lines_per_person", [1, 5])
def test_each_line_names_the_person_and_the_place(run, crowd, lines_per_person):
    text = run("--lines_per_person", str(lines_per_person))["wiki.txt"]
    lines = defaultdict(set)
    for line in text.splitlines():
        lines[line.split(". ")[0]].add(line)
        assert 60 <= len(line) <= 250
    people = build.read_people(crowd)
    assert text.count("\n") == lines_per_person * len(people)
    for row in people:
        assert len(lines[row.name]) == lines_per_person
        assert all(row.birthplace in line[:110] for line in lines[row.name])


def test_text_contains_every_character_of_the_questions(run, table):
    files = run()
    assert set("".join(files[name] for name in FILES[1:])) - set(files["wiki.txt"]) == {"\t"}
    wordy = table(*(ROW.replace("Ada", name).replace("examples", "x" * 250) for name in ("Ada", "Bea", "Cleo", "Dora")))
    with pytest.raises(UserError, match=r"4 people are too few: their lines lack the characters \? W of the questions"):
        run(path=wordy)


def test_lines_per_person_does_not_change_the_splits(run, tmp_path):
    once, thrice = run(out=tmp_path / "1"), run("--lines_per_person", "3", out=tmp_path / "3")
    assert [name for name in FILES if once[name] != thrice[name]] == ["wiki.txt"]


def test_seed_determines_every_file(run, tmp_path):
    first, again = run(out=tmp_path / "1"), run(out=tmp_path / "2")
    other = run("--seed", "1", out=tmp_path / "3")
    assert first == again
    assert all(first[name] != other[name] for name in FILES)


def test_people_option_takes_the_first_rows(run, capsys):
    files = run("--people", "40")
    asked = [row.split("\t")[0] for name in FILES[1:4] for row in files[name].splitlines()]
    assert sorted(asked) == [f"Where was Person Number {i:02} born?" for i in range(40)]
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


# relations


@pytest.mark.parametrize(
    ("relation", "question", "answer"),
    [
        ("born", "When was Person Number 02 born?", "384 BC"),
        ("nationality", "What is the nationality of Person Number 02?", "English"),
        ("occupation", "What was the occupation of Person Number 02?", "poet"),
    ],
)
def test_relation_asks_the_same_splits_about_the_same_text(run, relation, question, answer):
    run()
    files = run("--relation", relation)
    names = build.file_names(relation)
    assert files.keys() == {*FILES, *names}
    assert files["wiki.txt"] == run()["wiki.txt"]
    assert f"{question}\t{answer}" in "".join(files[name] for name in names).splitlines()
    before, after = question.split("Person Number 02")
    for name, birthplace_name in zip(names, FILES[1:], strict=True):
        asked = [row.split("\t")[0] for row in files[name].splitlines()]
        people = [row.split("\t")[0][len("Where was ") : -len(" born?")] for row in files[birthplace_name].splitlines()]
        if relation == "born":
            people = [name for name in people if int(name[-2:]) % 7 not in (3, 4)]  # they have no year of birth
        assert asked == [f"{before}{name}{after}" for name in people]


@pytest.fixture
def died(monkeypatch):
    """A relation that the program does not have."""
    monkeypatch.setitem(build.RELATIONS, "died", build.Relation("When did {name} die?", "{died}"))


def test_new_relation_is_one_row(run, died):
    files = run("--relation", "died")
    train, dev, test_inputs, test = "died_train.tsv", "died_dev.tsv", "died_test_inputs.tsv", "corpus/died_test.tsv"
    assert files.keys() == {"wiki.txt", train, dev, test_inputs, test}
    assert parse_questions(files[test_inputs]) == [(question, None) for question, _ in parse_pairs(files[test])]
    pairs = [pair for name in (train, dev, test) for pair in parse_pairs(files[name])]
    years = {0: "1934", 2: "322 BC", 4: "1541", 6: "AD 113"}  # by i % 7; the others have no year of death
    assert sorted(pairs) == [(f"When did Person Number {i:02} die?", years[i % 7]) for i in range(60) if i % 7 in years]


def test_summary_counts_the_answers_that_the_text_contains(run, died, capsys):
    files = run("--relation", "died")
    summary = capsys.readouterr().out
    train, dev, test_inputs, test = (files[name] for name in build.file_names("died"))
    sizes = (rows.count("\n") for rows in (train, dev, test_inputs))
    assert "; train {}, dev {}, test {}; 4 answers, ".format(*sizes) in summary
    answers = {question[len("When did ") : -len(" die?")]: year for question, year in parse_pairs(train + dev + test)}
    contained = sum(answers.get(line.split(". ")[0], "no year") in line for line in files["wiki.txt"].splitlines())
    share = f"{100 * contained / len(answers):.1f}%"
    assert 0 < contained < len(answers)
    assert summary.endswith(
        f"; the text contains {share} of the answers, {share} in the first 112 characters of a line\n"
    )


def test_coverage_counts_whole_words_in_the_lines_about_the_person():
    ada, bea = person(), person(name="Bea Example", born=186)
    lines = {ada: ["Ada Example. Born in Ulm in 1867.", "Ada Example. Poet."], bea: ["Bea Example. Not AD 1867. Poet."]}
    corpus = build.Corpus([ada, bea], lines, [], {})
    assert build.answer_coverage(corpus, "born") == 50
    assert build.answer_coverage(corpus, "born", reach=32) == 50
    assert build.answer_coverage(corpus, "born", reach=31) == 0


def test_relation_without_enough_answers_is_refused(run, table):
    path = table(*(ROW.replace("Ada", f"Ada{i}").replace("1867", "1867" if i < 3 else "") for i in range(60)))
    with pytest.raises(UserError, match="--relation born: too few people have an answer"):
        run("--relation", "born", path=path)


def test_unknown_relation_lists_the_known_ones():
    with pytest.raises(UserError, match=r"--relation: invalid choice: 'spouse' \(choose from '?birthplace'?, '?born"):
        build.main(["--relation", "spouse"])


# wording


def test_patterns_are_well_formed():
    patterns = [pattern for kind in build.PATTERNS.values() for pattern in kind]
    assert len(set(patterns)) == len(patterns) >= 130
    known = build.placeholder_values(person()).keys()
    for pattern in patterns:
        fields = build.placeholders(pattern)
        assert fields <= known, pattern
        assert len(fields & {"place", "word"}) == 1, pattern
        assert pattern.isascii() and pattern.endswith("."), pattern
        assert pattern.split("{known_for}")[1:] in ([], ["."]) or "{known_for}. " in pattern, pattern


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "dead"),
        ({"born": None}, "dead"),
        ({"died": None}, "dead"),
        ({"born": 1925, "died": None}, None),
        ({"born": 1980, "died": None}, "alive"),
        ({"born": None, "died": None}, None),
    ],
)
def test_patterns_suit_the_living_or_the_dead(changes, status):
    row = person(**changes)
    assert build.life_status(row) == status
    lines = build.fitting_lines(row)
    for other in {"dead", "alive"} - {status}:
        assert not lines.keys() & set(build.PATTERNS[other])
    assert not any("None" in line for line in lines.values())


@pytest.mark.parametrize(
    ("place", "country"), [("Singapore", "Singapore"), ("Mexico City", "Mexico"), ("Königsberg", "Russia")]
)
def test_country_is_omitted_when_redundant_or_anachronistic(place, country):
    lines = build.fitting_lines(person(birthplace=place, country=country))
    assert lines and not any("country" in build.placeholders(pattern) for pattern in lines)


def test_countries_and_places_get_their_article():
    assert any("lies in the Netherlands" in line for line in lines_about(birthplace="Leiden", country="Netherlands"))
    assert any("Ada Example. The Bahamas is " in line for line in lines_about(birthplace="Bahamas", country="Bahamas"))


def test_place_of_several_words_is_not_hyphenated():
    assert any("Ulm-born" in line for line in lines_about())
    assert not any("-born" in line for line in lines_about(birthplace="The Hague"))


def test_every_sentence_begins_with_a_capital():
    lines = lines_about(occupation="queen of Spain")
    assert any(line.endswith(". Queen of Spain.") for line in lines)
    assert any("? In Ulm. Queen of Spain, " in line for line in lines)
    lines = lines_about(birthplace="Bahamas", country="Bahamas")
    assert any("Birthplace? The Bahamas. " in line for line in lines)
    assert any("(b. the Bahamas, " in line for line in lines)


@pytest.mark.parametrize(
    ("name", "occupation"),
    [("Pope Example", "pope"), ("The Emperor Example", "Roman emperor"), ("Ada I", "queen of Spain")],
)
def test_title_is_not_repeated_before_the_name(name, occupation):
    lines = lines_about(name=name, occupation=occupation)
    assert lines and not any(f"{occupation} {name}" in line for line in lines)


def test_pattern_with_a_late_place_is_left_out():
    late = "{a_role} known for {known_for}. Native of {place}."
    assert late in build.fitting_lines(person())
    assert late not in build.fitting_lines(person(known_for="k" * 80))


def test_question_mark_of_a_work_ends_the_sentence():
    lines = lines_about(known_for="the novel What Now?")
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
def test_indefinite_article(phrase, article):
    assert build.with_a(phrase) == f"{article} {phrase}"


@pytest.mark.parametrize(("year", "text"), [(-384, "384 BC"), (61, "AD 61"), (1867, "1867")])
def test_year_text(year, text):
    assert build.year_text(year) == text


@pytest.mark.parametrize(
    ("nationality", "occupation", "role"),
    [
        ("English", "poet", "English poet"),
        ("American", "American football player", "American football player"),
        ("Austrian", "emperor of Austria", "emperor of Austria"),
        ("English", "historian of religion", "English historian of religion"),
    ],
)
def test_role_does_not_repeat_the_nationality(nationality, occupation, role):
    assert build.role(person(nationality=nationality, occupation=occupation)) == role


# user errors


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Ada Example\tUlm", "2 columns, expected 8"),
        (ROW + "\t", "9 columns, expected 8"),
        (ROW.replace("Ulm", ""), "birthplace is empty"),
        (ROW.replace("Ulm", "Ulm "), "birthplace 'Ulm ' begins or ends with a space"),
        (ROW.replace("1867", "about 1867"), "born 'about 1867' is not a year"),
        (ROW.replace("1934", "0"), "died '0' is not a year"),
        (ROW.replace("1934", "1834"), "died in 1834, before the birth in 1867"),
        (ROW.replace("Ada", "A\u0301da"), "convert the row to Unicode NFC"),
        (ROW, "Ada Example is also on line 2"),
    ],
)
def test_malformed_row_is_named(table, row, message):
    path = table(ROW, row)
    with pytest.raises(UserError) as error:
        build.read_people(path)
    assert str(error.value).startswith(f"{path}, line 3: ") and message in str(error.value)


def test_wrong_header_is_refused(table):
    with pytest.raises(UserError, match="line 1: the header is not 'name<TAB>birthplace<TAB>"):
        build.read_people(table(ROW, header=ROW))


def test_table_of_people_is_not_replaced(run, crowd, out):
    out.mkdir()
    table = out / "wiki.txt"
    table.write_bytes(Path(crowd).read_bytes())
    with pytest.raises(UserError, match=r"wiki\.txt: would overwrite another file of this run"):
        run(path=str(table))
    assert table.read_bytes() == Path(crowd).read_bytes()


def test_missing_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        build.read_people(str(tmp_path / "people.tsv"))


def test_too_few_people_are_refused(run, table):
    with pytest.raises(UserError, match="1 people are too few"):
        run(path=table(ROW))


def test_people_option_beyond_the_table_is_refused(run):
    with pytest.raises(UserError, match=r"--people 61: .*people.tsv has only 60"):
        run("--people", "61")


def test_more_lines_than_patterns_are_refused(run):
    with pytest.raises(UserError, match=r"--lines_per_person 999: only .* patterns suit Person Number") as error:
        run("--lines_per_person", "999")
    most = str(error.value).split()[-1]
    run("--lines_per_person", most)
    with pytest.raises(UserError):
        run("--lines_per_person", str(int(most) + 1))


def test_nothing_is_written_without_a_folder():
    with pytest.raises(UserError, match="required: --out"):
        build.main([])
    with pytest.raises(UserError, match=r"^--out is empty"):
        build.main(["--out", ""])


def test_out_must_not_be_a_file(run, out):
    out.write_text("in the way")
    with pytest.raises(UserError, match=r"--out .*out: cannot create the folder"):
        run()


def test_nothing_is_written_if_one_file_cannot_be(run, out):
    (out / "birth_dev.tsv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"birth_dev.tsv: is a folder"):
        run()
    assert not (out / "wiki.txt").exists()


@pytest.mark.parametrize("option", ["--people", "--lines_per_person"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_option_must_be_a_positive_number(option, value):
    with pytest.raises(UserError, match=f"invalid positive whole number value: '{value}'"):
        build.main([option, value])
