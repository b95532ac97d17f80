"""Writes the embedded corpus from people.tsv: wiki.txt, and who is asked about in training, dev and test.

The sentences are made from hand-written patterns, the facts from people.tsv alone.
"""

import random
import re
import string
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from cli import Parser, UserError, exit_on_user_error, positive, seed
from files import check_writable, read_text, write_text

COLUMNS = ("name", "birthplace", "country", "born", "died", "nationality", "occupation", "known_for")
YEARS = ("born", "died")  # the columns that may be empty

LINE_LENGTHS = range(60, 251)
LAST_OF_PLACE = 110  # a window of 128 characters shows pretraining at most 112 of a line
DEAD_BEFORE, ALIVE_SINCE = 1900, 1940  # born then and without a year of death; between them nobody can tell

RENAMED = ("Königsberg",)  # called otherwise since another country holds it: "Königsberg lies in Russia" is wrong
OF_A_STATE = re.compile(r" of (the )?[A-Z]")  # in the occupation: "queen of England"
SENTENCE_START = re.compile(r"(?:^|(?<=[\w}]{2}[.?] ))\{(\w+)\}")  # what is filled in there; not after "b. "

# What a pattern may name. A person who lacks one of these (no year of birth, say) is not written of with the pattern.
#   {name} {place} {nationality} {occupation} {known_for}
#   {born} {died}                the years, "384 BC"
#   {word}                       the place, where it is one plain word: "London-born" but never "New York City-born"
#   {country}                    where the place lies today, with its article: only in the present tense, as Danzig was
#                                not always in Poland, and neither for Singapore and Mexico City, which tell it
#                                themselves, nor for RENAMED
#   {poet} {a_poet}              nationality and occupation: "English poet", "an English poet"
# Whatever begins a sentence gets a capital.
# {known_for} may hold commas and "and": nothing that needs it to have ended may follow in the same sentence.
PATTERNS = {
    # true of everyone: no tense but "was born" and "became known"
    "any": (
        "Born in {place} in {born}, {name} became known for {known_for}.",
        "Born in {place}, the {poet} {name} became known for {known_for}.",
        "Born in {born} in {place}, {name} became noted for {known_for}.",
        "{name} was born in {place} in {born} and became known for {known_for}.",
        "{name}, {a_poet}, was born in {place}. Fame came from {known_for}.",
        "{name}, born in {place} in {born}, became famous for {known_for}.",
        "{name} (born in {place}), {a_poet}, became known for {known_for}.",
        "{name} (born {born}, {place}) became known for {known_for}.",
        "The {poet} {name} was born in {place} in {born}.",
        "The {occupation} {name}, born {born} in {place}, became known for {known_for}.",
        "{a_poet}, {name} was born in {place} in {born}.",
        "{a_poet} born in {place} in {born}, {name} became known for {known_for}.",
        "{a_poet} of {place} birth, {name} became known for {known_for}.",
        "{a_poet} and native of {place}, {name} became famous for {known_for}.",
        "{a_poet} whose life began in {place} in {born}, {name} became known for {known_for}.",
        "{place} is the birthplace of {name}, {a_poet} known for {known_for}.",
        "{place} was the first home of {name}, {a_poet} noted for {known_for}.",
        "{place} is where {name}, {a_poet}, was born in {born}.",
        "{place} saw the birth of {name}, {a_poet}, in {born}.",
        "{place} witnessed the birth of the {poet} {name}, whose fame rests on {known_for}.",
        "{place} was the scene, in {born}, of the birth of {name}, {a_poet}.",
        "{place} can claim {name}, born there in {born} and known for {known_for}.",
        "{place} counts among those born there {name}, {a_poet} known for {known_for}.",
        "{place} gave the world {name}, {a_poet} born there in {born}.",
        "{place}, {born}: birth of {name}, {a_poet} known for {known_for}.",
        "{place} in {born} saw the start of the life of {name}, {a_poet}.",
        "{place} native {name}, {a_poet}, became known for {known_for}.",
        "{word}-born {name}, {a_poet}, became known for {known_for}.",
        "The {word}-born {occupation} {name} became known for {known_for}.",
        "In {place} in {born} the {poet} {name} was born.",
        "In {place} was born {name}, {a_poet} whose fame rests on {known_for}.",
        "In {born}, {place} became the birthplace of {name}, {a_poet}.",
        "In {born} the {poet} {name} came into the world in {place}.",
        "In {born} a child was born in {place} who became the {poet} {name}.",
        "{name} came into the world in {place} in {born} and became known for {known_for}.",
        "{name} entered the world in {place} in {born} and became famous for {known_for}.",
        "{name} was brought into the world in {place}. Fame came from {known_for}.",
        "{name} first saw the light of day in {place}. Fame came from {known_for}.",
        "{name}, later {a_poet}, drew a first breath in {place} in {born}.",
        "{name} started life in {place} in {born} and became noted for {known_for}.",
        "{name}'s first cry was heard in {place} in {born}. Fame came from {known_for}.",
        "{name}'s birthplace was {place} and the year was {born}; the {occupation} became known for {known_for}.",
        "{name}'s life had its beginning in {place}; the {occupation} became known for {known_for}.",
        "Life began in {place} in {born} for {name}, {a_poet}.",
        "Life began for {name} in {place} in {born}. Fame came from {known_for}.",
        "The life of {name}, {a_poet}, began in {place} in {born}.",
        "The birth of {name}, {a_poet}, took place in {place} in {born}.",
        "The birthplace of {name} is {place}, the year of birth {born}. Fame came from {known_for}.",
        "The place of birth of {name} is {place}; the {occupation} became known for {known_for}.",
        "The place where {name} was born is {place}; the {occupation} became famous for {known_for}.",
        "The place of birth of {name}, {a_poet} born in {born}, was {place}.",
        "The year {born} saw the birth in {place} of {name}, {a_poet}.",
        "The sons and daughters of {place} include {name}, {a_poet} known for {known_for}.",
        "A native of {place}, the {poet} {name} became known for {known_for}.",
        "A native of {place}, born in {born}, {name} became famous for {known_for}.",
        "A child born in {place} in {born} became the {poet} {name}.",
        "A baby born in {place} in {born} was to become the {poet} {name}.",
        "A birth in {place} in {born} gave the world the {poet} {name}.",
        "{name}, a native of {place}, became known for {known_for}. Occupation: {occupation}.",
        "{name}, whose birthplace is {place}, became known for {known_for}.",
        "{name}, whose birth in {place} was in {born}, became known for {known_for}.",
        "{name}, whose life began in {place} in {born}, became noted for {known_for}.",
        "{name}, {a_poet} and native of {place}, became known for {known_for}.",
        "{name}, from {place} by birth, became known for {known_for}.",
        "{name}'s place of birth is {place} and the year of birth {born}. Claim to fame: {known_for}.",
        "{name} can be counted among the natives of {place}; the {occupation} became known for {known_for}.",
        "{name} in brief: birthplace {place}; {poet}; known for {known_for}.",
        "A child of {place}, born there in {born}, {name} became known for {known_for}.",
        "For {name}, {a_poet}, the place of birth was {place} and the year of birth {born}.",
        "The birth of the {poet} {name} in {born} was in {place}.",
        "It was in {place} that {name}, {a_poet}, was born in {born}.",
        "It was {place} that saw the birth of {name}, {a_poet} known for {known_for}.",
        "A notable birth in {place} in {born} was that of {name}, {a_poet}.",
        "Those born in {place} include {name}, {a_poet} whose fame rests on {known_for}.",
        "Among those born in {place}: {name}, {a_poet} known for {known_for}.",
        "A list of people born in {place} includes the {poet} {name}.",
        "Natives of {place} include {name}, {a_poet} noted for {known_for}.",
        "From {place} by birth: {name}, {a_poet} known for {known_for}.",
        "Known for {known_for}. Born in {place} in {born}. {poet}.",
        "{a_poet}. Born in {place} in {born}, known for {known_for}.",
        "{a_poet} known for {known_for}. Native of {place}.",
        "{poet}, b. {born} in {place}, known for {known_for}.",
        "{poet}; native of {place}; born in {born}; known for {known_for}.",
        "{name}: {occupation}, born {born} in {place}, known for {known_for}.",
        "{name}, {occupation}; birth year {born}, birthplace {place}; known for {known_for}.",
        "Birthplace? {place}. Year of birth? {born}. {poet}, known for {known_for}.",
        "Where born? In {place}. {poet}, known for {known_for}.",
        "Birthplace of {name}: {place}. Occupation: {occupation}. Known for {known_for}.",
        "Birthplace: {place}. Year of birth: {born}. Occupation: {occupation}. Known for {known_for}.",
        "Place of birth: {place}. Nationality: {nationality}. Occupation: {occupation}. Known for {known_for}.",
        "Nationality: {nationality}. Born: {place}, {born}. Occupation: {occupation}. Known for {known_for}.",
        "Name: {name}. Born in: {place}. Occupation: {occupation}. Known for {known_for}.",
        "{born} was the year and {place} the place of the birth of {name}, {a_poet}.",
        "{place}, which lies in {country}, is the birthplace of {name}, {a_poet}.",
        "{place} (in {country}) is where {name} was born. Claim to fame: {known_for}.",
        "{place}, today in {country}, is where {name}, {a_poet}, was born.",
        "Within {country} lies {place}, where {name} was born in {born}. Fame came from {known_for}.",
        "Birthplace: {place} ({country}). {poet}, known for {known_for}.",
        "{name}, {a_poet}, was born in {place}, in what is now {country}.",
        "{name}, {a_poet}, was born in {born}. The birthplace, {place}, lies in {country}.",
    ),
    # people who have died
    "dead": (
        "{name} ({born}, {place} - {died}) was {a_poet} known for {known_for}.",
        "{name} (born {born} in {place}, died {died}) was {a_poet}.",
        "{name} (b. {place}, {born}; d. {died}) is remembered for {known_for}.",
        "{name} ({born} - {died}) was the {word}-born {occupation} remembered for {known_for}.",
        "{name} was {a_poet} born in {place} in {born}.",
        "{name} was {a_poet}, a native of {place}, remembered for {known_for}.",
        "{name} was {a_poet} who was born in {place} in {born} and died in {died}.",
        "{name}, who was born in {place} and died in {died}, is remembered for {known_for}.",
        "{name}, {a_poet}, hailed from {place} and is remembered for {known_for}.",
        "{name}, {a_poet} who died in {died}, was a native of {place}.",
        "{name}, {a_poet}, was a child of {place}, born there in {born}.",
        "Born in {place} in {born}, {name} was {a_poet} remembered for {known_for}.",
        "Born {born}, {place}; died {died}. {poet}, remembered for {known_for}.",
        "Born in {place} in {born}, {name}, who died in {died}, became known for {known_for}.",
        "Birth: {born}, {place}. Death: {died}. {poet}, remembered for {known_for}.",
        "A native of {place}, {name} lived from {born} to {died} and is remembered for {known_for}.",
        "A life that began in {place} in {born} and ended in {died} was that of {name}, {a_poet}.",
        "The life of {name}, {a_poet}, began in {place} in {born} and ended in {died}.",
        "The year {died} closed a life begun in {place} in {born}, that of the {poet} {name}.",
        "Posterity remembers {name}, born in {place} in {born}, for {known_for}.",
        "{place} was the birthplace of {name} ({born} - {died}), {a_poet}.",
        "Of those born in {place}, {name} ({born} - {died}) is remembered for {known_for}.",
        "{poet} (b. {place}, {born}; d. {died}), remembered for {known_for}.",
        "In {place} in {born} began the life of {name}, {a_poet} who died in {died}.",
    ),
    # people who live
    "alive": (
        "{name} (born {born} in {place}) is {a_poet} known for {known_for}.",
        "{name} is {a_poet} born in {place} in {born} and known for {known_for}.",
        "{name} is {a_poet} who was born in {place} in {born}.",
        "{name}, a native of {place}, is {a_poet} known for {known_for}.",
        "{name}, who was born in {place} in {born}, is known for {known_for}.",
        "{name}, {a_poet}, hails from {place}. Born in {born}.",
        "Born in {place} in {born}, {name} is {a_poet} known for {known_for}.",
        "{word}-born {name} is {a_poet} known for {known_for}.",
        "{place} is where {name}, who is {a_poet}, was born in {born}.",
    ),
}


@dataclass(frozen=True)
class Person:
    """A row of people.tsv."""

    name: str
    birthplace: str
    country: str
    born: int | None
    died: int | None
    nationality: str
    occupation: str
    known_for: str


def read_people(path: str) -> list[Person]:
    """The rows of a people.tsv. Raises UserError, naming the line, for a row that breaks a rule."""
    header, *rows = read_text(path).rstrip("\n").split("\n")
    if tuple(header.split("\t")) != COLUMNS:
        raise UserError(f"{path}, line 1: the header is not '{'<TAB>'.join(COLUMNS)}'")
    people: list[Person] = []
    lines: dict[str, int] = {}  # of each name
    for line, row in enumerate(rows, 2):
        try:
            person = parse_person(row)
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        if person.name in lines:
            raise UserError(f"{path}, line {line}: {person.name} also stands in line {lines[person.name]}; keep one")
        lines[person.name] = line
        people.append(person)
    return people


def parse_person(row: str) -> Person:
    """The person of a row. Raises ValueError that says what is wrong with it."""
    if not unicodedata.is_normalized("NFC", row):
        raise ValueError("a letter and its accent are two characters; write the row in Unicode's NFC")
    fields = row.split("\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns, {len(COLUMNS)} are needed")
    values: dict[str, str | int | None] = dict(zip(COLUMNS, fields, strict=True))
    for column, text in zip(COLUMNS, fields, strict=True):
        if text != text.strip():
            raise ValueError(f"{column} {text!r} begins or ends with a space")
        if column in YEARS:
            if text and not re.fullmatch(r"-?[1-9][0-9]*", text):
                raise ValueError(f"{column} {text!r} is no year; write 1867, -384 for 384 BC, or nothing")
            values[column] = int(text) if text else None
        elif not text:
            raise ValueError(f"{column} is empty")
    person = Person(**values)
    if person.born is not None and person.died is not None and person.died < person.born:
        raise ValueError(f"died {person.died}, before being born in {person.born}")
    return person


def indefinite(phrase: str) -> str:
    """The phrase with its article: 'an English poet', 'a Ukrainian poet', 'an heir to the throne'."""
    vowel = re.match(r"(?!eu|one\b|uk|uga|uru|uni|uro|use|uto)[aeiou]|heir|hono|hour", phrase, re.IGNORECASE)
    return f"{'an' if vowel else 'a'} {phrase}"


def definite(place: str) -> str:
    """The country or place with the article that some need: 'the Netherlands', 'the Isle of Man', but 'France'."""
    articled = re.fullmatch(
        r"(DR|Republic|Isle) .+|.+ (Islands|Republic|States|Kingdom|Emirates)"
        r"|Bahamas|Comoros|Gambia|Maldives|Netherlands|Philippines",
        place,
    )
    return f"the {place}" if articled else place


def year_text(year: int) -> str:
    """The year as encyclopedias write it: '384 BC', 'AD 61', '1867'."""
    if year < 0:
        return f"{-year} BC"
    return f"AD {year}" if year < 500 else str(year)


def described(person: Person) -> str:
    """Nationality and occupation, 'English poet'; without the nationality that the occupation itself tells.

    An American football player, an emperor of Austria: neither is called American or Austrian once more.
    """
    told = person.occupation.startswith(person.nationality) or OF_A_STATE.search(person.occupation)
    return person.occupation if told else f"{person.nationality} {person.occupation}"


def tense(person: Person) -> str | None:
    """Which of the patterns besides 'any' suit the person; None where nobody can tell from the row."""
    if person.died is not None:
        return "dead"
    if person.born is None:
        return None
    if person.born >= ALIVE_SINCE:
        return "alive"
    return "dead" if person.born < DEAD_BEFORE else None


def blanks(person: Person) -> dict[str, str]:
    """What fills the placeholders of the patterns, without those that this person cannot fill."""
    poet, place = described(person), definite(person.birthplace)
    filled = {
        "name": person.name,
        "place": place,
        "nationality": person.nationality,
        "occupation": person.occupation,
        "poet": poet,
        "a_poet": indefinite(poet),
        "known_for": person.known_for,
    }
    if person.born is not None:
        filled["born"] = year_text(person.born)
    if person.died is not None:
        filled["died"] = year_text(person.died)
    if person.country not in person.birthplace and person.birthplace not in RENAMED:
        filled["country"] = definite(person.country)
    if person.birthplace.isalpha():
        filled["word"] = person.birthplace
    return filled


@cache
def placeholders(pattern: str) -> set[str]:
    """The names that a pattern must have filled."""
    return {field for _, field, _, _ in string.Formatter().parse(pattern) if field}


@cache
def before_place(pattern: str) -> str:
    """The part of a pattern that stands before the place."""
    return re.split(r"\{(?:place|word)\}", pattern)[0]


def fill(pattern: str, filled: dict[str, str]) -> str:
    """The pattern with its placeholders filled, those that begin a sentence with a capital."""

    def capital(match: re.Match[str]) -> str:
        text = filled[match[1]]
        return re.sub(r"[{}]", r"\g<0>\g<0>", text[0].upper() + text[1:])  # braces in it are no placeholders

    return SENTENCE_START.sub(capital, pattern).format_map(filled)


def fitting_lines(person: Person) -> dict[str, str]:
    """For each pattern that suits the person and makes a line of the right length, that line."""
    filled, kind = blanks(person), tense(person)
    # nobody is "the Italian pope Pope Boniface VIII" or "the queen of England Elizabeth I"
    titled = OF_A_STATE.search(person.occupation) or (
        set(person.name.lower().split()) & set(person.occupation.lower().split())
    )
    lines: dict[str, str] = {}
    for pattern in PATTERNS["any"] + (PATTERNS[kind] if kind else ()):
        if not placeholders(pattern) <= filled.keys():
            continue
        if titled and ("{poet} {name}" in pattern or "{occupation} {name}" in pattern):
            continue
        text = fill(pattern, filled)
        text = re.sub(r'([?!]"?)\.(?= |$)', r"\1", text)  # the title "... Electric Sheep?" ends a sentence by itself
        line = f"{person.name}. {text}"
        place_end = len(f"{person.name}. {before_place(pattern).format_map(filled)}{filled['place']}")
        if len(line) in LINE_LENGTHS and place_end <= LAST_OF_PLACE and person.birthplace in line:
            lines[pattern] = line
    return lines


def write_lines(people: list[Person], lines_per_person: int, rng: random.Random) -> list[str]:
    """So many lines of each person, each from another pattern; all patterns are used as evenly as the people allow.

    Those with a question mark come first: questions need it and a W, so even a small corpus should have both.
    Raises UserError when fewer patterns than that suit somebody.
    """
    choices = [fitting_lines(person) for person in people]
    fewest, who = min((len(lines), person.name) for lines, person in zip(choices, people, strict=True))
    if fewest < lines_per_person:
        raise UserError(
            f"--lines_per_person {lines_per_person}: only {fewest} patterns suit {who}; ask for at most {fewest}"
        )
    used: Counter[str] = Counter()
    written: list[str] = []
    for lines in choices:
        chosen = sorted(lines, key=lambda pattern: (used[pattern], "?" not in pattern, rng.random()))[:lines_per_person]
        used.update(chosen)
        written += [lines[pattern] for pattern in chosen]
    return written


def split_sizes(total: int) -> tuple[int, int, int]:
    """How many of `total` people go to train, dev and test: 2000, 500 and 440 of 2940. Raises UserError below 4."""
    dev, test = round(total * 500 / 2940), round(total * 440 / 2940)
    if not (dev and test):
        raise UserError(f"{total} people are too few for a train, a dev and a test split")
    return total - dev - test, dev, test


def build_corpus(people: list[Person], seed: int, lines_per_person: int) -> dict[str, str]:
    """The text of each file of the corpus, by its path below the output folder. Raises UserError.

    Who is in which split depends on the people and the seed alone, not on the lines.
    """
    rng = random.Random(seed)
    people = rng.sample(people, len(people))
    train, dev, _ = split_sizes(len(people))
    lines = write_lines(people, lines_per_person, rng)
    rng.shuffle(lines)
    questions = [f"Where was {person.name} born?" for person in people]
    lacking = set("".join(questions)) - set("".join(lines))
    if lacking:  # the vocabulary is made from the lines
        characters = " ".join(sorted(lacking))
        raise UserError(
            f"{len(people)} people are too few: their lines lack the characters {characters} of the questions"
        )
    answered = [f"{question}\t{person.birthplace}" for question, person in zip(questions, people, strict=True)]
    files = {
        "wiki.txt": lines,
        "birth_places_train.tsv": answered[:train],
        "birth_dev.tsv": answered[train : train + dev],
        "birth_test_inputs.tsv": questions[train + dev :],
        "corpus/birth_test.tsv": answered[train + dev :],
    }
    return {name: "".join(f"{row}\n" for row in rows) for name, rows in files.items()}


def write_corpus(files: dict[str, str], out: str) -> None:
    """Writes the files below the folder `out`, each in one step. Raises UserError where that is impossible."""
    paths = {Path(out, name): text for name, text in files.items()}
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: the folder cannot be made ({error.strerror})") from None
    for path in paths:
        check_writable(str(path))
    for path, text in paths.items():
        write_text(str(path), text)


def summary(people: list[Person], files: dict[str, str]) -> str:
    """What was written, in one line."""
    train, dev, test = split_sizes(len(people))
    places = Counter(person.birthplace for person in people)
    place, count = places.most_common(1)[0]
    wiki = files["wiki.txt"]
    return (
        f"{len(people)} people in {wiki.count(chr(10))} lines, {len(wiki)} characters; train {train}, dev {dev}, "
        f"test {test}; {len(places)} places, {100 * count / len(people):.1f}% born in {place}"
    )


def main(argv: list[str] | None = None) -> None:
    parser = Parser(
        "Write wiki.txt, birth_places_train.tsv, birth_dev.tsv, birth_test_inputs.tsv and "
        "corpus/birth_test.tsv, the answers to the test inputs, from a table of people."
    )
    option = parser.add_argument
    here = Path(__file__).resolve().parent
    option("--people_path", default=str(here / "people.tsv"), help="the table: " + ", ".join(COLUMNS))
    option("--out", default=str(here.parent), help="the folder to write to; it is made if need be")
    option("--seed", type=seed, default=0, help="seed of the splits, of the wordings and of the order of the lines")
    option(
        "--lines_per_person",
        type=positive(int),
        default=1,
        help="differently worded lines about each person (knowledge augmentation, Allen-Zhu and Li 2023)",
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
        raise UserError(f"--people {wanted}: {arguments.people_path} has {len(people)}")
    people = people[:wanted]
    files = build_corpus(people, arguments.seed, arguments.lines_per_person)
    write_corpus(files, arguments.out)
    print(summary(people, files))


if __name__ == "__main__":
    exit_on_user_error(main)
