"""Finds the wording of questions, reads the files that hold them, and scores answers. Imports no torch."""

import re
import sys
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from cli import UserError
from files import decode, read_bytes, unix_lines

# a letter of a script that does not separate words, or, as Korean does, joins particles to a name
UNSPACED = (
    "\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7ff"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
SPACED_LETTER = rf"[^\W{UNSPACED}]"
UNSPACED_LETTER = rf"[{UNSPACED}]"


def find_words(words: str, text: str) -> Iterator[int]:
    """Where the text contains the words as words: "Adams" does not contain "Ada".

    In scripts without spaces, such as Han or Thai, anything may come before and after them.
    """
    start = text.find(words) if words else -1
    while start >= 0:
        end = start + len(words)
        if not in_same_word(text[start - 1 : start], words[0]) and not in_same_word(words[-1], text[end : end + 1]):
            yield start
        start = text.find(words, start + 1)


def stands_in(words: str, text: str) -> bool:
    """Whether the text contains the words as words."""
    return next(find_words(words, text), None) is not None


def in_same_word(left: str, right: str) -> bool:
    """Whether two neighboring characters belong to one word; "" stands for an end of the text."""
    return bool(left and right) and (continues_letter(right) or (is_spaced_letter(left) and is_spaced_letter(right)))


def continues_letter(character: str) -> bool:
    """Whether this is an accent, a vowel sign or the like, or a decomposed Korean vowel or final consonant."""
    return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff"


def is_spaced_letter(character: str) -> bool:
    """Whether this belongs to a word in a script that separates words."""
    if continues_letter(character):
        return re.match(UNSPACED_LETTER, character) is None
    return re.match(SPACED_LETTER, character) is not None


@dataclass(frozen=True)
class QuestionTemplate:
    """The wording of a question: what comes before and after the name, "Where was " and " born?"."""

    before: str
    after: str

    @classmethod
    def parse(cls, text: str) -> "QuestionTemplate":
        """Reads "Where was {name} born?". Raises UserError unless there is exactly one {name}."""
        parts = text.strip().split("{name}")
        if len(parts) != 2:
            raise UserError(
                f"--question {text!r}: holds {{name}} {len(parts) - 1} times; write it once, as in '{COURSE_TEMPLATE}'"
            )
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.before}{{name}}{self.after}"

    def ask(self, name: str) -> str:
        """The question about this name."""
        return f"{self.before}{name.strip()}{self.after}"

    def name_in(self, question: str) -> str | None:
        """The name that this question asks about; None if it is worded differently."""
        if not (question.startswith(self.before) and question.endswith(self.after)):
            return None
        return question[len(self.before) : len(question) - len(self.after)].strip() or None

    def resembles(self, text: str) -> bool:
        """Whether a text looks like a question: it begins like this one, in any case, or ends with a question mark."""
        begins_alike = self.before.strip() != "" and text.casefold().startswith(self.before.casefold())
        return begins_alike or text.endswith(tuple(QUESTION_MARKS))


COURSE_TEMPLATE = QuestionTemplate("Where was ", " born?")
QUESTION_MARKS = "?？؟\u037e՞"  # Latin, Chinese and Japanese, Arabic, Greek (not the semicolon), Armenian


@dataclass(frozen=True)
class TemplateFit:
    """A template and how many questions of a file have its wording."""

    template: QuestionTemplate
    fits: int
    rows: int
    first_misfit: tuple[int, str] | None  # line, from 1, and question


def fit_template(template: QuestionTemplate, questions: Sequence[str]) -> TemplateFit:
    """Counts the questions with this wording."""
    misfits = [(line, question) for line, question in enumerate(questions, 1) if template.name_in(question) is None]
    return TemplateFit(template, len(questions) - len(misfits), len(questions), misfits[0] if misfits else None)


def find_template(questions: Sequence[str], titles: Collection[str], lines: Sequence[str] = ()) -> TemplateFit:
    """The wording that most of the questions share, in any language, with the name anywhere in it.

    `titles` are names that the text is about: the words around them in the questions are one candidate. The others are
    the course's wording, and what more than half of the questions begin and end with. For the latter, the `lines` of
    the text, which begin with names, show where a name begins.
    """
    distinct = list(dict.fromkeys(questions))

    def fits(template: QuestionTemplate) -> int:
        return sum(template.name_in(question) is not None for question in distinct)

    names = Names(titles)
    around_titles = Counter(t for question in distinct for t in templates_around(question, names))
    # a tie goes to the fewest words around the name: "Anna" rather than "Ann" and an "a"
    ranked = sorted(around_titles.most_common(100), key=lambda item: (-item[1], len(item[0].before + item[0].after)))
    likeliest, support = max(ranked[:20], key=lambda item: (item[1], fits(item[0])), default=(COURSE_TEMPLATE, 0))
    template = next((t for t in (likeliest, COURSE_TEMPLATE) if 2 * fits(t) >= len(distinct)), None)
    if template is None:
        template = likeliest if support > max(1, len(distinct) / 20) else shared_wording(distinct, lines)
    return fit_template(template, questions)


class Names:
    """A set of names that finds those at a position of a text."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names) - {""}
        self.lengths: dict[str, list[int]] = {}  # longest first, by the first two characters of a name
        for length, start in sorted({(len(name), name[:2]) for name in self.names}, reverse=True):
            self.lengths.setdefault(start, []).append(length)

    def at(self, text: str, start: int) -> Iterator[str]:
        """The names that begin at that position, longest first."""
        two = text[start : start + 2]
        for length in (*self.lengths.get(two, ()), *self.lengths.get(two[:1], ())):  # also names of one character
            if (name := text[start : start + length]) in self.names:
                yield name


def templates_around(question: str, names: Names) -> Iterator[QuestionTemplate]:
    """The templates of the question if it asks about one of the names."""
    for start in range(len(question)):
        for name in names.at(question, start):
            yield QuestionTemplate(question[:start], question[start + len(name) :])


def shared_wording(questions: Sequence[str], lines: Sequence[str]) -> QuestionTemplate:
    """What more than half of the questions begin with and what most of those end with, cut where names begin and end.

    What they share may include part of the names, such as a common surname. The `lines` of the text, which begin with
    whole names, show where a name starts and ends.
    """
    if len(questions) < 2:
        return QuestionTemplate("", "")
    beginning = shared_beginning(questions)
    rests = [question[len(beginning) :] for question in questions if question.startswith(beginning)]
    ending = shared_beginning([rest[::-1] for rest in rests])[::-1]
    after = re.sub(rf"^{SPACED_LETTER}+", "", ending)

    in_order = sorted(lines)
    sample = [beginning + rest.removesuffix(after) for rest in rests[:200]]  # the questions up to the end of the name

    def begin_lines(start: int, more: str = "") -> int:
        return sum(begins_a_line(question[start:] + more, in_order) for question in sample)

    starts = [i for i in range(len(beginning) + 1) if not ends_with_letter(beginning[:i])]
    start = max(starts, key=lambda i: (begin_lines(i), i))
    words_after = re.findall(r"\s\w+", re.match(r"(?:\s\w+)*", after)[0])
    surname = "".join(takewhile(lambda word: word[1].isupper(), words_after))
    if surname and begin_lines(start, surname) == begin_lines(start) > 0:
        after = after.removeprefix(surname)
    return QuestionTemplate(beginning[:start], after)


def ends_with_letter(text: str) -> bool:
    """Whether the text ends within or after a word, in a script that separates words."""
    return re.match(SPACED_LETTER, text[-1:]) is not None


def begins_a_line(words: str, lines: Sequence[str]) -> bool:
    """Whether one of the sorted lines begins with these words, and not only with part of a longer one."""
    i = bisect_left(lines, words)
    while words and i < len(lines) and lines[i].startswith(words):
        following = lines[i][len(words) : len(words) + 1]
        if not (ends_with_letter(words) and ends_with_letter(following)):
            return True
        i = bisect_left(lines, words + following + chr(sys.maxunicode))
    return False


def shared_beginning(texts: Sequence[str]) -> str:
    """What more than half of the texts begin with, without the letters that only some of their names share."""
    texts = sorted(texts)
    middle = texts[len(texts) // 2]  # begins with whatever more than half of them do

    def count(length: int) -> int:
        beginning = middle[:length]
        return bisect_left(texts, beginning + chr(sys.maxunicode)) - bisect_left(texts, beginning)

    length = 0
    while length < len(middle) and 2 * count(length + 1) > len(texts):
        length += 1
    while length and count(length) < 0.9 * count(length - 1):
        length -= 1
    return middle[:length]


def find_header(rows: Sequence[tuple[str, str | None]], fit: TemplateFit, text: str) -> str | None:
    """What to do about the first row if it looks like the header of a table; None if it does not.

    A header has a wording of its own, and its place does not occur in the pretraining text; or it is too short for a
    question, and no line of the text begins with it. If the questions are bare names, a header is a row whose name and
    place both do not occur in the text. `fit` is that of the questions of all rows.
    """
    question, place = rows[0]
    before, after = fit.template.before, fit.template.after
    alike = fit.template.name_in(question) is not None or any(shares_wording(question, other) for other, _ in rows[1:])
    if len(rows) == 1 or (alike and before + after):
        return None
    ends_otherwise = re.search(r"[^\w\s]$", after) is not None and question[-1:] != after[-1]  # not with "?"
    too_short = len(question) < max(len(before + after), 12 * ends_otherwise)
    no_place = place is not None and not stands_in(place, text)
    no_name = not any(text[start - 1 : start] in ("", "\n") for start in find_words(question, text))
    if (too_short and no_name) or (no_place and (no_name or before + after)):
        return f"{question!r} looks like a header row; remove it, or word it as '{fit.template}'"
    return None


def shares_wording(question: str, other: str) -> bool:
    """Whether the questions begin and end alike, over at least half the length of the other one."""

    def common(a: str, b: str) -> int:
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    return 2 * (common(question, other) + common(question[::-1], other[::-1])) >= len(other)


def parse_questions(text: str, name: str = "data") -> list[tuple[str, str | None]]:
    """The (question, place) pairs of a TSV text, stripped of whitespace; place is None if the text has no places.

    `name` is what error messages call the text. Blank lines at the end are ignored. Raises UserError.
    """
    lines = unix_lines(text).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    with_places = "\t" in lines[0] if lines else False
    pairs: list[tuple[str, str | None]] = []
    for number, line in enumerate(lines, 1):
        question, *places = (cell.strip() for cell in line.split("\t"))
        if not question:
            raise UserError(f"{name}, line {number}: no question; remove the line, or write one")
        if len(places) > 1:
            raise UserError(f"{name}, line {number}: {len(places) + 1} columns; 'question<TAB>answer' has 2")
        if with_places != bool(places):
            found, first = ("a", "none") if places else ("no", "one")
            raise UserError(
                f"{name}, line {number}: {found} tab, but line 1 has {first}; give an answer in every line or in none"
            )
        if places == [""]:
            raise UserError(f"{name}, line {number}: no answer after the tab")
        pairs.append((question, places[0] if places else None))
    return pairs


def parse_pairs(text: str, name: str = "data") -> list[tuple[str, str]]:
    """The (question, place) pairs of a TSV text in which every row has a place. Raises UserError."""
    pairs = parse_questions(text, name)
    if not pairs or pairs[0][1] is None:
        raise UserError(f"{name}, line 1: no tab; training needs 'question<TAB>answer' rows")
    return pairs  # all rows have a place, or none has


def read_predictions(path: str, pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    """The predictions in a file, one per line, stripped of whitespace. Raises UserError for a wrong number."""
    lines = decode(read_bytes(path), path).removesuffix("\n").split("\n")
    if len(lines) != len(pairs):
        raise UserError(f"{path}: {len(lines)} predictions for {len(pairs)} questions; evaluate again")
    return [line.strip() for line in lines]


def count_right(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> int:
    """How many predictions equal the place of their pair, ignoring whitespace around both."""
    return sum(is_right(place, prediction) for (_, place), prediction in zip(pairs, predictions, strict=True))


def is_right(place: str | None, prediction: str) -> bool:
    return place is not None and place.strip() == prediction.strip()


def count_near_misses(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> int:
    """How many wrong predictions differ from their place only in case, Unicode form or whitespace."""
    return sum(
        place is not None
        and not is_right(place, prediction)
        and without_blanks(folded(place)) == without_blanks(folded(prediction))
        for (_, place), prediction in zip(pairs, predictions, strict=True)
    )


def near_misses_line(count: int) -> str:
    """The line that reports near misses."""
    wrong = "1 wrong answer differs" if count == 1 else f"{count} wrong answers differ"
    return f"{wrong} from the right answer only in case, Unicode form or blanks"


def without_blanks(text: str) -> str:
    return "".join(text.split())


def folded(text: str) -> str:
    """The text without differences of case, Unicode form or amount of whitespace."""
    if text.isascii():
        text = text.lower()
    else:
        # again, since casefold() can undo the first
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return " ".join(text.split())


def count_places(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> tuple[float, float]:
    """(total, correct) of predictions, one per pair. If the pairs have no places, prints so and returns (0, 0).

    Raises ValueError if the counts differ.
    """
    if len(pairs) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(pairs)} questions")
    if pairs[0][1] is None:
        print("No gold birth places provided; returning (0,0)")
        return 0.0, 0.0
    return float(len(pairs)), float(count_right(pairs, predictions))


def accuracy_line(total: float, correct: float) -> str:
    """The line that reports an accuracy, as the course's code prints it, with two decimals at most."""
    return f"Correct: {correct} out of {total}: {round(100 * correct / total, 2)}%"
