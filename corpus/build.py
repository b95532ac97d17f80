"""Builds the embedded corpus from people.tsv: the text (wiki.txt) and the questions of train, dev and test.

All sentences come from the hand-written PATTERNS, all facts from people.tsv.
"""

import random
import re
import string
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from cli import Parser, UserError, exit_on_user_error, positive, seed
from files import check_writable, read_text, write_text
from question import find_words

COLUMNS = ("name", "birthplace", "country", "born", "died", "nationality", "occupation", "known_for")
YEAR_COLUMNS = ("born", "died")  # may be empty

LINE_LENGTHS = range(60, 251)
COURSE_READS = 112  # characters: the course's recipe pretrains on the first 7/8 of a block of 128
MAX_PLACE_END = 110  # the place ends here at the latest, so that every recipe can read it

# Without a year of death, people born before 1900 are taken as dead, those born since 1940 as alive, others as unknown.
DEAD_BEFORE, ALIVE_SINCE = 1900, 1940

RENAMED_PLACES = ("Königsberg",)  # had this name in another country: "Königsberg lies in Russia" is wrong
RULES_A_STATE = re.compile(r" of (the )?[A-Z]")  # an occupation such as "queen of England"
SENTENCE_START = re.compile(r"(?:^|(?<=[\w}]{2}[.?] ))\{(\w+)\}")  # a placeholder there; two letters exclude "b. "


@dataclass(frozen=True)
class Relation:
    """A question that can be asked about everybody in the table."""

    question: str  # with the placeholder {name}
    answer: str  # with any placeholders of PATTERNS


# To add a relation, add a row. It is not asked about people without a value for its answer.
RELATIONS = {
    "birthplace": Relation("Where was {name} born?", "{birthplace}"),
    "born": Relation("When was {name} born?", "{born}"),
    "nationality": Relation("What is the nationality of {name}?", "{nationality}"),
    "occupation": Relation("What was the occupation of {name}?", "{occupation}"),
}

# A pattern suits a person who has a value for each of its placeholders:
#   {name} {nationality} {occupation} {known_for}    the columns of people.tsv
#   {birthplace}       the place as it is in people.tsv: "Bahamas"
#   {place}            the place with its article: "the Bahamas"
#   {word}             the place, only if it is a single word: "London-born", but never "New York City-born"
#   {country}          the country of the place today, with its article. Use it only in the present tense: Danzig was
#                      not always in Poland. Missing for RENAMED_PLACES and for places that contain the country's name
#                      (Singapore, Mexico City).
#   {born} {died}      years: "1867", "384 BC"
#   {role} {a_role}    nationality and occupation: "English poet", "an English poet"
# A placeholder at the start of a sentence gets a capital letter.
# {known_for} may contain commas and "and", so it must end its sentence or clause.
PATTERNS = {
    # true of everyone, dead or alive: the only verbs in the past tense are "was born", "became known" and the like
    "any": (
        "Born in {place} in {born}, {name} became known for {known_for}.",
        "Born in {place}, the {role} {name} became known for {known_for}.",
        "Born in {born} in {place}, {name} became noted for {known_for}.",
        "{name} was born in {place} in {born} and became known for {known_for}.",
        "{name}, {a_role}, was born in {place}. Fame came from {known_for}.",
        "{name}, born in {place} in {born}, became famous for {known_for}.",
        "{name} (born in {place}), {a_role}, became known for {known_for}.",
        "{name} (born {born}, {place}) became known for {known_for}.",
        "The {role} {name} was born in {place} in {born}.",
        "The {occupation} {name}, born {born} in {place}, became known for {known_for}.",
        "{a_role}, {name} was born in {place} in {born}.",
        "{a_role} born in {place} in {born}, {name} became known for {known_for}.",
        "{a_role} of {place} birth, {name} became known for {known_for}.",
        "{a_role} and native of {place}, {name} became famous for {known_for}.",
        "{a_role} whose life began in {place} in {born}, {name} became known for {known_for}.",
        "{place} is the birthplace of {name}, {a_role} known for {known_for}.",
        "{place} was the first home of {name}, {a_role} noted for {known_for}.",
        "{place} is where {name}, {a_role}, was born in {born}.",
        "{place} saw the birth of {name}, {a_role}, in {born}.",
        "{place} witnessed the birth of the {role} {name}, whose fame rests on {known_for}.",
        "{place} was the scene, in {born}, of the birth of {name}, {a_role}.",
        "{place} can claim {name}, born there in {born} and known for {known_for}.",
        "{place} counts among those born there {name}, {a_role} known for {known_for}.",
        "{place} gave the world {name}, {a_role} born there in {born}.",
        "{place}, {born}: birth of {name}, {a_role} known for {known_for}.",
        "{place} in {born} saw the start of the life of {name}, {a_role}.",
        "{place} native {name}, {a_role}, became known for {known_for}.",
        "{word}-born {name}, {a_role}, became known for {known_for}.",
        "The {word}-born {occupation} {name} became known for {known_for}.",
        "In {place} in {born} the {role} {name} was born.",
        "In {place} was born {name}, {a_role} whose fame rests on {known_for}.",
        "In {born}, {place} became the birthplace of {name}, {a_role}.",
        "In {born} the {role} {name} came into the world in {place}.",
        "In {born} a child was born in {place} who became the {role} {name}.",
        "{name} came into the world in {place} in {born} and became known for {known_for}.",
        "{name} entered the world in {place} in {born} and became famous for {known_for}.",
        "{name} was brought into the world in {place}. Fame came from {known_for}.",
        "{name} first saw the light of day in {place}. Fame came from {known_for}.",
        "{name}, later {a_role}, drew a first breath in {place} in {born}.",
        "{name} started life in {place} in {born} and became noted for {known_for}.",
        "{name}'s first cry was heard in {place} in {born}. Fame came from {known_for}.",
        "{name}'s birthplace was {place} and the year was {born}; the {occupation} became known for {known_for}.",
        "{name}'s life had its beginning in {place}; the {occupation} became known for {known_for}.",
        "Life began in {place} in {born} for {name}, {a_role}.",
        "Life began for {name} in {place} in {born}. Fame came from {known_for}.",
        "The life of {name}, {a_role}, began in {place} in {born}.",
        "The birth of {name}, {a_role}, took place in {place} in {born}.",
        "The birthplace of {name} is {place}, the year of birth {born}. Fame came from {known_for}.",
        "The place of birth of {name} is {place}; the {occupation} became known for {known_for}.",
        "The place where {name} was born is {place}; the {occupation} became famous for {known_for}.",
        "The place of birth of {name}, {a_role} born in {born}, was {place}.",
        "The year {born} saw the birth in {place} of {name}, {a_role}.",
        "The sons and daughters of {place} include {name}, {a_role} known for {known_for}.",
        "A native of {place}, the {role} {name} became known for {known_for}.",
        "A native of {place}, born in {born}, {name} became famous for {known_for}.",
        "A child born in {place} in {born} became the {role} {name}.",
        "A baby born in {place} in {born} was to become the {role} {name}.",
        "A birth in {place} in {born} gave the world the {role} {name}.",
        "{name}, a native of {place}, became known for {known_for}. Occupation: {occupation}.",
        "{name}, whose birthplace is {place}, became known for {known_for}.",
        "{name}, whose birth in {place} was in {born}, became known for {known_for}.",
        "{name}, whose life began in {place} in {born}, became noted for {known_for}.",
        "{name}, {a_role} and native of {place}, became known for {known_for}.",
        "{name}, from {place} by birth, became known for {known_for}.",
        "{name}'s place of birth is {place} and the year of birth {born}. Claim to fame: {known_for}.",
        "{name} can be counted among the natives of {place}; the {occupation} became known for {known_for}.",
        "{name} in brief: birthplace {place}; {role}; known for {known_for}.",
        "A child of {place}, born there in {born}, {name} became known for {known_for}.",
        "For {name}, {a_role}, the place of birth was {place} and the year of birth {born}.",
        "The birth of the {role} {name} in {born} was in {place}.",
        "It was in {place} that {name}, {a_role}, was born in {born}.",
        "It was {place} that saw the birth of {name}, {a_role} known for {known_for}.",
        "A notable birth in {place} in {born} was that of {name}, {a_role}.",
        "Those born in {place} include {name}, {a_role} whose fame rests on {known_for}.",
        "Among those born in {place}: {name}, {a_role} known for {known_for}.",
        "A list of people born in {place} includes the {role} {name}.",
        "Natives of {place} include {name}, {a_role} noted for {known_for}.",
        "From {place} by birth: {name}, {a_role} known for {known_for}.",
        "Known for {known_for}. Born in {place} in {born}. {role}.",
        "{a_role}. Born in {place} in {born}, known for {known_for}.",
        "{a_role} known for {known_for}. Native of {place}.",
        "{role}, b. {born} in {place}, known for {known_for}.",
        "{role}; native of {place}; born in {born}; known for {known_for}.",
        "{name}: {occupation}, born {born} in {place}, known for {known_for}.",
        "{name}, {occupation}; birth year {born}, birthplace {place}; known for {known_for}.",
        "Birthplace? {place}. Year of birth? {born}. {role}, known for {known_for}.",
        "Where born? In {place}. {role}, known for {known_for}.",
        "Birthplace of {name}: {place}. Occupation: {occupation}. Known for {known_for}.",
        "Birthplace: {place}. Year of birth: {born}. Occupation: {occupation}. Known for {known_for}.",
        "Place of birth: {place}. Nationality: {nationality}. Occupation: {occupation}. Known for {known_for}.",
        "Nationality: {nationality}. Born: {place}, {born}. Occupation: {occupation}. Known for {known_for}.",
        "Name: {name}. Born in: {place}. Occupation: {occupation}. Known for {known_for}.",
        "{born} was the year and {place} the place of the birth of {name}, {a_role}.",
        "{place}, which lies in {country}, is the birthplace of {name}, {a_role}.",
        "{place} (in {country}) is where {name} was born. Claim to fame: {known_for}.",
        "{place}, today in {country}, is where {name}, {a_role}, was born.",
        "Within {country} lies {place}, where {name} was born in {born}. Fame came from {known_for}.",
        "Birthplace: {place} ({country}). {role}, known for {known_for}.",
        "{name}, {a_role}, was born in {place}, in what is now {country}.",
        "{name}, {a_role}, was born in {born}. The birthplace, {place}, lies in {country}.",
    ),
    "dead": (
        "{name} ({born}, {place} - {died}) was {a_role} known for {known_for}.",
        "{name} (born {born} in {place}, died {died}) was {a_role}.",
        "{name} (b. {place}, {born}; d. {died}) is remembered for {known_for}.",
        "{name} ({born} - {died}) was the {word}-born {occupation} remembered for {known_for}.",
        "{name} was {a_role} born in {place} in {born}.",
        "{name} was {a_role}, a native of {place}, remembered for {known_for}.",
        "{name} was {a_role} who was born in {place} in {born} and died in {died}.",
        "{name}, who was born in {place} and died in {died}, is remembered for {known_for}.",
        "{name}, {a_role}, hailed from {place} and is remembered for {known_for}.",
        "{name}, {a_role} who died in {died}, was a native of {place}.",
        "{name}, {a_role}, was a child of {place}, born there in {born}.",
        "Born in {place} in {born}, {name} was {a_role} remembered for {known_for}.",
        "Born {born}, {place}; died {died}. {role}, remembered for {known_for}.",
        "Born in {place} in {born}, {name}, who died in {died}, became known for {known_for}.",
        "Birth: {born}, {place}. Death: {died}. {role}, remembered for {known_for}.",
        "A native of {place}, {name} lived from {born} to {died} and is remembered for {known_for}.",
        "A life that began in {place} in {born} and ended in {died} was that of {name}, {a_role}.",
        "The life of {name}, {a_role}, began in {place} in {born} and ended in {died}.",
        "The year {died} closed a life begun in {place} in {born}, that of the {role} {name}.",
        "Posterity remembers {name}, born in {place} in {born}, for {known_for}.",
        "{place} was the birthplace of {name} ({born} - {died}), {a_role}.",
        "Of those born in {place}, {name} ({born} - {died}) is remembered for {known_for}.",
        "{role} (b. {place}, {born}; d. {died}), remembered for {known_for}.",
        "In {place} in {born} began the life of {name}, {a_role} who died in {died}.",
    ),
    "alive": (
        "{name} (born {born} in {place}) is {a_role} known for {known_for}.",
        "{name} is {a_role} born in {place} in {born} and known for {known_for}.",
        "{name} is {a_role} who was born in {place} in {born}.",
        "{name}, a native of {place}, is {a_role} known for {known_for}.",
        "{name}, who was born in {place} in {born}, is known for {known_for}.",
        "{name}, {a_role}, hails from {place}. Born in {born}.",
        "Born in {place} in {born}, {name} is {a_role} known for {known_for}.",
        "{word}-born {name} is {a_role} known for {known_for}.",
        "{place} is where {name}, who is {a_role}, was born in {born}.",
    ),
}


@dataclass(frozen=True)
class Person:
    """A row of people.tsv. Years before Christ are negative."""

    name: str
    birthplace: str
    country: str
    born: int | None
    died: int | None
    nationality: str
    occupation: str
    known_for: str


@dataclass(frozen=True)
class Corpus:
    """The text and the splits. Neither depends on the relation that is asked."""

    people: list[Person]  # in the order of the table
    lines: dict[Person, list[str]]  # what the text says about each person
    text: list[str]  # the same lines, shuffled: wiki.txt
    splits: dict[str, list[Person]]  # "train", "dev", "test"


def read_people(path: str) -> list[Person]:
    """Reads a table like people.tsv. Raises UserError, which names the line, for a malformed row or a repeated name."""
    header, *rows = read_text(path).rstrip("\n").split("\n")
    if tuple(header.split("\t")) != COLUMNS:
        raise UserError(f"{path}, line 1: the header is not '{'<TAB>'.join(COLUMNS)}'")
    people: list[Person] = []
    line_of: dict[str, int] = {}  # by name
    for line, row in enumerate(rows, 2):
        try:
            person = parse_person(row)
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        if person.name in line_of:
            raise UserError(f"{path}, line {line}: {person.name} is also on line {line_of[person.name]}; keep one")
        line_of[person.name] = line
        people.append(person)
    return people


def parse_person(row: str) -> Person:
    """Parses a row of the table. Raises ValueError, which says what is wrong."""
    if not unicodedata.is_normalized("NFC", row):
        raise ValueError("a letter and its accent are two characters; convert the row to Unicode NFC")
    fields = row.split("\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns, expected {len(COLUMNS)}")
    values: dict[str, str | int | None] = dict(zip(COLUMNS, fields, strict=True))
    for column, text in zip(COLUMNS, fields, strict=True):
        if text != text.strip():
            raise ValueError(f"{column} {text!r} begins or ends with a space; remove it")
        if column in YEAR_COLUMNS:
            if text and not re.fullmatch(r"-?[1-9][0-9]*", text):
                raise ValueError(f"{column} {text!r} is not a year; write 1867, -384 for 384 BC, or nothing")
            values[column] = int(text) if text else None
        elif not text:
            raise ValueError(f"{column} is empty")
    person = Person(**values)
    if person.born is not None and person.died is not None and person.died < person.born:
        raise ValueError(f"died in {person.died}, before the birth in {person.born}; correct one of the years")
    return person


def with_a(phrase: str) -> str:
    """Adds the indefinite article: 'an English poet', 'a Ukrainian poet', 'an heir to the throne'."""
    vowel = re.match(r"(?!eu|one\b|uk|uga|uru|uni|uro|use|uto)[aeiou]|heir|hono|hour", phrase, re.IGNORECASE)
    return f"{'an' if vowel else 'a'} {phrase}"


def with_the(place: str) -> str:
    """Adds the definite article to places that need it: 'the Netherlands', 'the Isle of Man', but 'France'."""
    needs_article = re.fullmatch(
        r"(DR|Republic|Isle) .+|.+ (Islands|Republic|States|Kingdom|Emirates)"
        r"|Bahamas|Comoros|Gambia|Maldives|Netherlands|Philippines",
        place,
    )
    return f"the {place}" if needs_article else place


def year_text(year: int) -> str:
    """Writes a year as encyclopedias do: '384 BC', 'AD 61', '1867'."""
    if year < 0:
        return f"{-year} BC"
    return f"AD {year}" if year < 500 else str(year)


def role(person: Person) -> str:
    """Nationality and occupation: 'English poet'.

    The nationality is omitted if the occupation implies it: 'American football player', 'emperor of Austria'.
    """
    implied = person.occupation.startswith(person.nationality) or RULES_A_STATE.search(person.occupation)
    return person.occupation if implied else f"{person.nationality} {person.occupation}"


def life_status(person: Person) -> str | None:
    """The patterns that suit the person in addition to 'any': 'dead', 'alive', or None if the row does not tell."""
    if person.died is not None:
        return "dead"
    if person.born is None:
        return None
    if person.born >= ALIVE_SINCE:
        return "alive"
    return "dead" if person.born < DEAD_BEFORE else None


def placeholder_values(person: Person) -> dict[str, str]:
    """The values of the placeholders; those that the person has no value for are missing."""
    values = {
        "name": person.name,
        "birthplace": person.birthplace,
        "place": with_the(person.birthplace),
        "nationality": person.nationality,
        "occupation": person.occupation,
        "role": role(person),
        "a_role": with_a(role(person)),
        "known_for": person.known_for,
    }
    if person.born is not None:
        values["born"] = year_text(person.born)
    if person.died is not None:
        values["died"] = year_text(person.died)
    if person.country not in person.birthplace and person.birthplace not in RENAMED_PLACES:
        values["country"] = with_the(person.country)
    if person.birthplace.isalpha():
        values["word"] = person.birthplace
    return values


@cache
def placeholders(template: str) -> set[str]:
    """The names of the placeholders in a template."""
    return {field for _, field, _, _ in string.Formatter().parse(template) if field}


@cache
def before_place(pattern: str) -> str:
    """The part of a pattern before the place."""
    return re.split(r"\{(?:place|word)\}", pattern)[0]


def fill(pattern: str, values: dict[str, str]) -> str:
    """Replaces the placeholders by their values, with a capital letter at the start of a sentence."""

    def capitalize(match: re.Match[str]) -> str:
        value = values[match[1]]
        return re.sub(r"[{}]", r"\g<0>\g<0>", value[0].upper() + value[1:])  # format_map() must not read its braces

    return SENTENCE_START.sub(capitalize, pattern).format_map(values)


def fitting_lines(person: Person) -> dict[str, str]:
    """The line that each suitable pattern makes. Lines of the wrong length or with a late place are left out."""
    values, status = placeholder_values(person), life_status(person)
    # avoids "the Italian pope Pope Boniface VIII" and "the queen of England Elizabeth I"
    occupation_is_title = RULES_A_STATE.search(person.occupation) or (
        set(person.name.lower().split()) & set(person.occupation.lower().split())
    )
    lines: dict[str, str] = {}
    for pattern in PATTERNS["any"] + (PATTERNS[status] if status else ()):
        if not placeholders(pattern) <= values.keys():
            continue
        if occupation_is_title and ("{role} {name}" in pattern or "{occupation} {name}" in pattern):
            continue
        text = fill(pattern, values)
        text = re.sub(r'([?!]"?)\.(?= |$)', r"\1", text)  # no full stop after the title "... Electric Sheep?"
        line = f"{person.name}. {text}"
        place_end = len(f"{person.name}. {before_place(pattern).format_map(values)}{values['place']}")
        if len(line) in LINE_LENGTHS and place_end <= MAX_PLACE_END and person.birthplace in line:
            lines[pattern] = line
    return lines


def choose_lines(people: list[Person], lines_per_person: int, rng: random.Random) -> dict[Person, list[str]]:
    """Chooses `lines_per_person` lines about each person, all from different patterns.

    Prefers the patterns used least so far, and among them those with a question mark: the questions need "?" and "W",
    and a small corpus might lack them. Raises UserError if somebody has too few suitable patterns.
    """
    choices = [fitting_lines(person) for person in people]
    fewest, name = min((len(lines), person.name) for lines, person in zip(choices, people, strict=True))
    if fewest < lines_per_person:
        raise UserError(
            f"--lines_per_person {lines_per_person}: only {fewest} patterns suit {name}; use at most {fewest}"
        )
    used: Counter[str] = Counter()
    chosen: dict[Person, list[str]] = {}
    for person, lines in zip(people, choices, strict=True):
        order = sorted(lines, key=lambda pattern: (used[pattern], "?" not in pattern, rng.random()))
        patterns = order[:lines_per_person]
        used.update(patterns)
        chosen[person] = [lines[pattern] for pattern in patterns]
    return chosen


def split_sizes(total: int) -> tuple[int, int, int]:
    """The sizes of train, dev and test for `total` people: 2000, 500 and 440 of 2940. Raises UserError below 4."""
    dev, test = round(total * 500 / 2940), round(total * 440 / 2940)
    if not (dev and test):
        raise UserError(f"{total} people are too few for a train, a dev and a test split")
    return total - dev - test, dev, test


def build_corpus(people: list[Person], seed: int, lines_per_person: int) -> Corpus:
    """Splits the people and writes the lines about them. Raises UserError if that is impossible.

    The splits depend only on the people and the seed.
    """
    rng = random.Random(seed)
    shuffled = rng.sample(people, len(people))
    train, dev, _ = split_sizes(len(people))
    lines = choose_lines(shuffled, lines_per_person, rng)
    text = list(chain.from_iterable(lines.values()))
    rng.shuffle(text)
    splits = {"train": shuffled[:train], "dev": shuffled[train : train + dev], "test": shuffled[train + dev :]}
    return Corpus(people, lines, text, splits)


def find_answers(relation: str, people: list[Person]) -> dict[Person, str]:
    """The answer for each of the people who have one, in the same order."""
    template = RELATIONS[relation].answer
    values = {person: placeholder_values(person) for person in people}
    return {
        person: template.format_map(values[person])
        for person in people
        if placeholders(template) <= values[person].keys()
    }


def file_names(relation: str) -> tuple[str, str, str, str]:
    """The names of the question files: train, dev, test inputs, and test with the answers."""
    if relation == "birthplace":  # the course's names
        return "birth_places_train.tsv", "birth_dev.tsv", "birth_test_inputs.tsv", "corpus/birth_test.tsv"
    return f"{relation}_train.tsv", f"{relation}_dev.tsv", f"{relation}_test_inputs.tsv", f"corpus/{relation}_test.tsv"


def question_rows(relation: str, people: list[Person]) -> list[str]:
    """A row 'question<TAB>answer' for each of the people who have an answer."""
    question = RELATIONS[relation].question
    return [
        f"{question.format(name=person.name)}\t{answer}" for person, answer in find_answers(relation, people).items()
    ]


def corpus_files(corpus: Corpus, relation: str) -> dict[str, str]:
    """The content of each file, by its path in the output folder.

    Raises UserError if a split would be empty, or if a question or answer has a character that is not in the text, from
    which the vocabulary is made.
    """
    train, dev, test = (question_rows(relation, people) for people in corpus.splits.values())
    if not (train and dev and test):
        raise UserError(f"--relation {relation}: too few people have an answer for a train, a dev and a test split")
    unknown = set("".join(train + dev + test)) - {"\t"} - set("".join(corpus.text))
    if unknown:
        raise UserError(
            f"{len(corpus.people)} people are too few: their lines lack the characters {' '.join(sorted(unknown))} "
            "of the questions and answers"
        )
    test_inputs = [row.split("\t")[0] for row in test]
    names = "wiki.txt", *file_names(relation)
    rows = corpus.text, train, dev, test_inputs, test
    return {name: "".join(f"{row}\n" for row in rows_of_file) for name, rows_of_file in zip(names, rows, strict=True)}


def answer_coverage(corpus: Corpus, relation: str, reach: int = LINE_LENGTHS.stop) -> float:
    """The percentage of answers that are whole words within the first `reach` characters of a line about the person."""

    answers = find_answers(relation, corpus.people)
    covered = sum(
        any(start + len(answer) <= reach for line in corpus.lines[person] for start in find_words(answer, line))
        for person, answer in answers.items()
    )
    return 100 * covered / len(answers)


def summary(corpus: Corpus, relation: str) -> str:
    """One line: what was written, and how many of the answers the text contains."""
    answers = find_answers(relation, corpus.people)
    counts = Counter(answers.values())
    most_frequent, count = counts.most_common(1)[0]
    characters = sum(len(line) + 1 for line in corpus.text)
    splits = ", ".join(f"{split} {len(answers.keys() & set(people))}" for split, people in corpus.splits.items())
    written = f"{len(corpus.people)} people in {len(corpus.text)} lines, {characters} characters; {splits}"
    percent = f"{100 * count / len(answers):.1f}%"
    if relation == "birthplace":  # every line contains it
        return f"{written}; {len(counts)} places, {percent} born in {most_frequent}"
    return (
        f"{written}; {len(counts)} answers, {percent} {most_frequent}; "
        f"the text contains {answer_coverage(corpus, relation):.1f}% of the answers, "
        f"{answer_coverage(corpus, relation, COURSE_READS):.1f}% in the first {COURSE_READS} characters of a line"
    )


def write_files(files: dict[str, str], out: str, people_path: str) -> None:
    """Writes the files into the folder `out`, each in one step. Raises UserError if one cannot be written, or would
    replace the table of people.
    """
    paths = {Path(out, name): text for name, text in files.items()}
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot create the folder ({error.strerror})") from None
    for path in paths:
        check_writable(str(path), None, [people_path])
    for path, text in paths.items():
        write_text(str(path), text)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(
        "Write a text and questions about the people of a table: wiki.txt, birth_places_train.tsv, birth_dev.tsv,\n"
        "birth_test_inputs.tsv, and corpus/birth_test.tsv with the answers to the test inputs. With another relation,\n"
        "the question files are RELATION_train.tsv, RELATION_dev.tsv, RELATION_test_inputs.tsv and\n"
        "corpus/RELATION_test.tsv; wiki.txt is the same."
    )
    option = parser.add_argument
    here = Path(__file__).resolve().parent
    option("--people_path", default=str(here / "people.tsv"), help="the table; its columns: " + ", ".join(COLUMNS))
    option("--out", required=True, help="output folder, created if missing; . in the project's folder rebuilds its own")
    option("--relation", choices=RELATIONS, default="birthplace", help="what the questions ask")
    option("--seed", type=seed, default=0, help="random seed of the splits, the wording and the order of the lines")
    option(
        "--lines_per_person",
        type=positive(int),
        default=1,
        help="lines about each person, all worded differently (knowledge augmentation, Allen-Zhu and Li 2023)",
    )
    option(
        "--people",
        type=positive(int),
        metavar="N",
        help="use only the first N people of the table (default: all)",
    )
    arguments = parser.parse_args(argv)
    people = read_people(arguments.people_path)
    wanted = arguments.people or len(people)
    if wanted > len(people):
        raise UserError(f"--people {wanted}: {arguments.people_path} has only {len(people)}")
    corpus = build_corpus(people[:wanted], arguments.seed, arguments.lines_per_person)
    write_files(corpus_files(corpus, arguments.relation), arguments.out, arguments.people_path)
    print(summary(corpus, arguments.relation))


if __name__ == "__main__":
    exit_on_user_error(main)
