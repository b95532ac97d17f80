"""Finds who each document is about, its entities, and which of these are likely answers. Imports no torch."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from cli import UserError
from question import SPACED_LETTER, UNSPACED_LETTER, Names, TemplateFit

WITHIN_WORD = re.compile(rf"{SPACED_LETTER}-?{SPACED_LETTER}")  # as in "nn" or "n-M", but not in "n's"
TOKEN = re.compile(rf" ?(?:{SPACED_LETTER}+|{UNSPACED_LETTER}|[^\w\s])")  # a word or mark, with the space before it
WORD = re.compile(rf"{SPACED_LETTER}+|{UNSPACED_LETTER}")  # in Chinese, one character
CLAUSE = re.compile(rf"{SPACED_LETTER}+(?:[ '’-]{SPACED_LETTER}+)*")  # words joined by a space, hyphen or apostrophe
split_words = WORD.findall
RARE_ONE_IN = 10  # a word is rare if fewer than one text in this many contains it
MOST_WORDS = 4  # of a phrase
SENTENCE_ENDS = (". ", ": ", "? ", "! ", "; ")
Feature = tuple[str | int, ...]  # of an entity in a document: the kind of the feature, and its value


@dataclass(frozen=True, slots=True)
class Document:
    """One line of the text, and what it is about."""

    text: str
    title_length: int  # of "Ada Lovelace. " at its beginning; 0 if it has no title
    subject: str  # "Ada Lovelace", from the title or the names that are asked about; "" if unknown
    entities: tuple[tuple[int, int], ...]  # where each begins and ends
    weights: tuple[float, ...]  # of the entities: how often each is masked, in proportion
    relevance: float = 1.0  # scales question_prefix_prob; 1 for the line most likely to hold the answer


def read_documents(texts: Sequence[str], places: set[str], names: Iterable[str] = ()) -> list[Document]:
    """Finds titles, subjects and entities, all of equal weight.

    `places` are known to be entities; if most of them begin with a small letter, phrases are entities, too. `names` are
    known to be people: a text without a title that begins with one of them is about that person.
    """
    pattern, lowercase = entity_pattern(places), lowercase_words(texts)
    subjects = Subjects(names, texts, places, lowercase)

    def annotated(text: str, body: int, subject: str) -> Document:
        entities = find_entities(text, body, pattern, lowercase, subject)
        return Document(text, body, subject, entities, (1.0,) * len(entities))

    documents = [annotated(text, *subjects.of(text)) for text in texts]
    guesses = guess_subjects(documents, subjects.known.names, places) if subjects.untitled else {}
    for i, guess in guesses.items():
        documents[i] = annotated(texts[i], 0, guess)
    # in Georgian, small letters have no capital form in titles, so islower() would not do
    in_lower_case = 2 * sum(place[:1] != place[:1].title() for place in places) > len(places)
    return with_phrases(documents, places) if in_lower_case else documents


def with_phrases(documents: Sequence[Document], places: set[str]) -> list[Document]:
    """The documents, with phrases such as "playwright and poet" among their entities.

    A phrase is up to MOST_WORDS successive words of a CLAUSE. Its first word is one of the rare_words(), or begins one
    of the `places`; its last word is a rare word, too, or ends one of them.
    """
    rare = rare_words([document.text for document in documents])
    words_of_places = list(filter(None, map(split_words, places)))
    firsts = rare | {words[0] for words in words_of_places}
    lasts = rare | {words[-1] for words in words_of_places}
    found = []
    for document in documents:
        phrases = set()
        for clause in CLAUSE.finditer(document.text, document.title_length):
            words = list(WORD.finditer(document.text, *clause.span()))
            for i, first in enumerate(words):
                if first[0] in firsts:
                    phrases |= {(first.start(), last.end()) for last in words[i : i + MOST_WORDS] if last[0] in lasts}
        phrases = without_repetitions(document.text, phrases, document.title_length, document.subject)
        entities = tuple(sorted({*document.entities, *phrases}))
        found.append(replace(document, entities=entities, weights=(1.0,) * len(entities)))
    return found


class Subjects:
    """Finds who a text is about: the person in its title, else the longest known name that it begins with.

    If most of the texts that begin with known names have no title, the other texts are taken to have none either. Such
    a text is about the only known name in it. Failing that, it is about what comes before a word that follows known
    names at the beginning of other texts, such as the "was" of "Ada Ek was born".
    """

    def __init__(
        self, names: Iterable[str], texts: Sequence[str], places: Collection[str] = (), lowercase: Collection[str] = ()
    ) -> None:
        self.known, self.places, self.lowercase = Names(names), places, lowercase
        self.name_words = set(chain.from_iterable(map(split_words, self.known.names)))

        following: Counter[str] = Counter()  # the words and marks that come after known names
        titled = 0
        for text in texts[:: 1 + len(texts) // 50_000]:  # a sample is enough
            name = self.name_at(text, 0)
            if name and (token := TOKEN.match(text, len(name))):
                titled += text.startswith(". ", len(name))
                following[token[0]] += 1
        self.untitled = 2 * titled < following.total()
        self.after_names = {token for token, times in following.items() if times > max(1, 0.01 * following.total())}

    def of(self, text: str) -> tuple[int, str]:
        """The length of the title of a text, 0 if there is none, and the subject, "" if it is unknown."""
        body, name = title_length(text), self.name_at(text, 0)
        subject = text[: max(0, body - len(". "))]
        following = text[body:]
        if subject in self.known.names:
            return body, subject
        cut_at_initial = name.startswith(subject) and not text.startswith(". ", len(name))  # "Ada P. " of Ada P. Ek
        if name and (not body or cut_at_initial):
            return 0, name
        if name and self.is_sentence(subject[len(name) :], most=1) and subject not in following:
            return 0, name  # "Ada Ek was a poet. " is no title
        if self.untitled and not (body and (subject in following or self.is_like_a_name(subject))):
            return 0, self.only_name_in(text) or self.unknown_name(text)
        return body, subject

    def only_name_in(self, text: str) -> str:
        """The known name in a text, if there is exactly one, else ""."""
        names = {self.name_at(text, word.start()) for word in WORD.finditer(text)} - {""}
        return names.pop() if len(names) == 1 else ""

    def name_at(self, text: str, start: int) -> str:
        """The longest known name at that position that does not end within a word; "" if there is none."""
        whole = (name for name in self.known.at(text, start) if not WITHIN_WORD.match(text, start + len(name) - 1))
        return next(whole, "")

    def unknown_name(self, text: str) -> str:
        """What comes before the first word that follows known names elsewhere; "" unless it looks like a name."""
        end = 0
        while (token := TOKEN.match(text, end)) and end < 60:  # no name is longer
            initial = token[0] == "." and re.search(r"\b\w$", text[:end])
            if end and token[0] in self.after_names and not initial:
                return text[:end] if self.is_like_a_name(text[:end]) else ""
            end = token.end()
        return ""

    def is_like_a_name(self, words: str) -> bool:
        """Whether these words at the beginning of a text can be a name: "In Oslo" and "Birthplace: Oslo" cannot."""
        first = next(iter(split_words(words)), "")
        return (
            first != ""
            and first.lower() not in self.lowercase
            and words not in self.places
            and re.search(r"\d|[^\w\s.,'’-]", words) is None
            and not self.is_sentence(words, most=3)
        )

    def is_sentence(self, text: str, most: int) -> bool:
        """Whether the text looks like more than part of a name: "was a poet", but not "van Gogh".

        The only lower-case words in names are particles, which also occur in the known names. In scripts without case,
        a name has at most `most` words, or that many characters where there are no spaces.
        """
        unknown = [word for word in split_words(text) if word not in self.name_words and not word[0].isupper()]
        return len(unknown) > most or any(word.islower() for word in unknown)


def guess_subjects(documents: Sequence[Document], names: set[str], places: set[str]) -> dict[int, str]:
    """Which entity a document without a subject is likely to be about, by its index.

    Naive Bayes as in weigh_by_answer_odds(): the words before and after the entity, its length in words, and whether it
    is repeated. Counted in the documents about known names. Known places are never the subject.
    """

    def features(text: str, start: int, end: int) -> list[Feature]:
        entity = text[start:end]
        before, after = TOKEN.findall(text[max(0, start - 30) : start])[-1:], TOKEN.findall(text[end : end + 30])[:1]
        return [
            ("before", *before),
            ("after", *after),
            ("words", min(MOST_WORDS, len(entity.split()))),
            ("repeated", text.count(entity) > 1),
        ]

    examples: dict[bool, list[list[Feature]]] = {True: [], False: []}  # by whether it is the subject
    for document in documents:
        if document.subject in names:
            mentions = [found.span() for found in re.finditer(re.escape(document.subject), document.text)]
            examples[True] += [features(document.text, *span) for span in mentions]
            examples[False] += [features(document.text, *span) for span in document.entities]
    odds = feature_odds(examples)

    guesses = {}
    for i, document in enumerate(documents):
        likeliest = (1.0, "")  # a subject has to be more likely than not
        for start, end in document.entities if not document.subject else ():
            if document.text[start:end].endswith(("'s", "’s")):
                end -= 2
            if not is_place(document.text[start:end], places):
                of_entity = posterior_odds(odds, features(document.text, start, end))
                likeliest = max(likeliest, (of_entity, document.text[start:end]))
        if likeliest[1]:
            guesses[i] = likeliest[1]
    return guesses


def feature_odds(examples: dict[bool, list[list[Feature]]]) -> dict[Feature, float]:
    """The odds of True given each feature, smoothed; those of () are the prior, for a feature without examples."""
    counts = {label: Counter(chain.from_iterable(of_label)) for label, of_label in examples.items()}
    prior = (len(examples[True]) + 1) / (len(examples[False]) + 1)
    seen = counts[True] | counts[False]
    return {(): prior} | {f: (counts[True][f] + prior) / (counts[False][f] + 1) for f in seen}


def posterior_odds(odds: dict[Feature, float], features: Iterable[Feature]) -> float:
    """The odds of True given these features, by naive Bayes; `odds` are feature_odds()."""
    prior = odds[()]
    return prior * math.prod(odds.get(feature, prior) / prior for feature in features)


def title_length(text: str) -> int:
    """The length of "J. R. R. Tolkien. " at the beginning of a document; 0 if it has no such title.

    A title ends at the first full stop that is not part of an abbreviation: an initial, "St." or "Dr.".
    If there are stops before it ("Malcolm X. In Omaha ...", "Peter F. Drucker. Peter F Drucker was ..."), the title is
    the longest name before a stop that the document repeats, whatever its stops and commas. If none is repeated, the
    title does not include what reads like a sentence after the name ("Malcolm X. Birthplace: Omaha. ...").
    """
    text = text[:1000]  # the rest takes quadratic time
    ends: list[int] = []
    whole = 0
    for stop in re.finditer(r"\. ", text):
        ends.append(stop.end())
        if not re.search(r"^$|(^|[ .])(\w|St|Dr)$", text[: stop.start()]):
            whole = stop.end()
            break
    if ends == [whole]:
        return whole
    for end in reversed(ends):
        name, rest = (re.sub(r"[.,]", "", part) for part in (text[: end - len(". ")], text[end:]))
        if re.search(r"\w\w", name) and re.search(rf"\b{re.escape(name)}\b", rest):
            return end
    if ends and re.search(r"[^\w ,.'’-]|\d|\b[a-z]{6}", text[ends[0] : whole]):  # not part of a name
        return max((end for end in ends[:-1] if re.search(r"\w\w", text[:end])), default=whole)
    return whole


def title_of(text: str) -> str:
    """The title of a document without its full stop; "" if it has none."""
    return text[: max(0, title_length(text) - len(". "))]


def lowercase_words(texts: Sequence[str]) -> set[str]:
    """The words that some text writes in lower case: "in", but not "grodno"."""
    words = set(chain.from_iterable(map(str.split, texts)))
    return {word for word in words if word.islower()}


def entity_pattern(places: set[str]) -> re.Pattern[str]:
    """Finds the words of a text, and as group 1 these places: "Rio de Janeiro", or the "Paris" of "Paris-born".

    If most places are numbers, such as years, all numbers with as many digits are places. Words are also "Saint-Denis",
    "St. Joseph" and the "Leiden" of "Leiden-born". In scripts without spaces, places are found wherever they occur, and
    every other character is a word.
    """
    rests: dict[str, list[str]] = {}  # by the first two characters, so that no word is compared with all places
    for place in sorted(places, key=len, reverse=True):
        rests.setdefault(place[:2], []).append(re.escape(place[2:]))
    known = [rf"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items()]
    numbers = [place for place in places if place.isdecimal()]
    digits = sorted(set(map(len, numbers))) if 2 * len(numbers) > len(places) else []
    place = "|".join([*known, *(rf"\d{{{n}}}" for n in digits)]) or "(?!)"
    if not any(re.search(UNSPACED_LETTER, place) for place in places):
        return re.compile(rf"(?<!\w)({place})(?!\w)|(?:St\. )?\w+(?:(?!-born\b)['’-]\w*)*")
    bounded = rf"(?<!{SPACED_LETTER})(?:{place})(?!{SPACED_LETTER})"  # in either script
    word = rf"{SPACED_LETTER}+(?:(?!-born\b)['’-]{SPACED_LETTER}*)*"
    return re.compile(rf"({bounded})|(?:St\. )?{word}|{UNSPACED_LETTER}")


def is_place(entity: str, places: set[str]) -> bool:
    """Whether an entity is a place: one of `places`, or a number, since entity_pattern() finds these only as places."""
    return entity in places or entity.isdecimal()


def find_entities(
    text: str, body: int, pattern: re.Pattern[str], lowercase: set[str], subject: str = ""
) -> tuple[tuple[int, int], ...]:
    """Where the entities from position `body` on, after the title, begin and end.

    They are the places of the entity_pattern(), and runs of capitalized words. Two capitalized places with a hyphen
    between them are one: "American-British". One of the `lowercase` words at the beginning of a sentence is not part of
    an entity, and an entity that only repeats words of the title or the subject is left out.
    """
    entities: list[tuple[int, int]] = []
    in_run = False  # whether a capitalized word extends the last entity
    for word in pattern.finditer(text, body):
        if word[1] or (word[0][0].isupper() and not (word[0].lower() in lowercase and begins_sentence(word, body))):
            gap = text[entities[-1][1] : word.start()] if entities else ""
            is_joined = word[1] and word[0][0].isupper() and gap == "-"
            if is_joined or (in_run and not word[1] and gap == " "):
                entities[-1] = entities[-1][0], word.end()
            else:
                entities.append(word.span())
            in_run = not word[1]
    return without_repetitions(text, entities, body, subject)


def without_repetitions(
    text: str, spans: Iterable[tuple[int, int]], body: int, subject: str
) -> tuple[tuple[int, int], ...]:
    """The spans that hold a word which is not in the title, text[:body], nor in the subject if there is no title."""
    known = set(re.findall(r"\w+", text[:body] or subject))  # in Chinese, \w+ is a whole sentence
    return tuple((start, end) for start, end in spans if not known.issuperset(re.findall(r"\w+", text[start:end])))


def find_facts(texts: Sequence[str], word_weight: float) -> list[tuple[int, list[tuple[int, int, float]]]]:
    """For each text, the length of its head, and the spans after it: where each begins and ends, and its weight.

    The head is the title or, without one, the beginning up to the end of the first name. If most of the texts begin
    with a sentence instead of a title, only what is like_a_title() counts as one. Spans are names, numbers and
    dates, of weight 1, and, unless `word_weight` is 0, runs of rare words without a capital letter, of that weight. A
    word is rare if fewer than one text in RARE_ONE_IN contains it.
    """
    pattern, lowercase = entity_pattern(set()), lowercase_words(texts)
    rare = rare_words(texts) if word_weight else set()
    heads = [title_length(text) for text in texts]
    titles = [
        head if like_a_title(text[: max(0, head - len(". "))], text[head:]) else 0
        for text, head in zip(texts, heads, strict=True)
    ]
    if 2 * sum(map(bool, titles)) < sum(map(bool, heads)):
        heads = titles
    found = []
    for text, head in zip(texts, heads, strict=True):
        names = find_entities(text, head, pattern, lowercase)
        if not head and names:
            head = names[0][1]
            names = find_entities(text, head, pattern, lowercase)  # without repetitions of that name
        numbers = [number.span() for number in re.finditer(r"\d+", text)]
        others = [word.span() for word in WORD.finditer(text, head) if word[0] in rare] if rare else []
        spans = [(*span, 1.0) for span in joined(text, {span for span in (*names, *numbers) if span[0] >= head})]
        spans += [(*span, word_weight) for span in joined(text, others)]
        found.append((head, sorted(spans)))
    return found


def like_a_title(beginning: str, rest: str) -> bool:
    """Whether the beginning of a text may be its title: short, without words in small letters, or repeated later."""
    words = split_words(beginning)
    return len(words) <= MOST_WORDS or not any(map(str.islower, words)) or beginning in rest


def rare_words(texts: Sequence[str]) -> set[str]:
    """The words that fewer than one text in RARE_ONE_IN contains, without names and numbers."""
    texts_with = Counter(word for text in texts for word in set(split_words(text)) if not re.match(r"\d", word))
    return {word for word, number in texts_with.items() if not word[0].isupper() and RARE_ONE_IN * number < len(texts)}


def joined(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order; neighbors with at most a space between them become one: "10 May 1815".

    A year, or any number of three or more digits, ends such a run: "10 May 1815 London" is a date and a name.
    """
    runs: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        overlap = runs and start < runs[-1][1]
        is_next = runs and text[runs[-1][1] : start] in ("", " ") and not re.search(r"\d{3}$", text[slice(*runs[-1])])
        if overlap or is_next:
            runs[-1] = runs[-1][0], max(end, runs[-1][1])
        else:
            runs.append((start, end))
    return runs


def begins_sentence(word: re.Match[str], body: int) -> bool:
    """Whether a word is the first of a sentence in a document whose title ends at `body`."""
    return word.start() == body or word.string.endswith(SENTENCE_ENDS, body, word.start())


def weigh_by_answer_odds(documents: Sequence[Document], answers: dict[str, str], places: set[str]) -> list[Document]:
    """The documents, each entity weighted by the odds that it is what a question asks for.

    Naive Bayes with five features: the last word of the entity ("January" never is an answer), its number of words (up
    to four), the two words before it ("born in" often precede an answer), the word or mark after it, and how many of
    the `places` end before it in the document (none, one or more; people are born before they die). In the words around
    the entity, numbers with the same number of digits count as equal. The examples are all documents about a name of
    `answers`, provided that one of them contains the answer: the learned answer extraction of Lewis et al. 2021 (PAQ).
    The odds also decide the documents' relevances().
    """

    def features(document: Document) -> Iterator[list[Feature]]:
        undated, read, words, first_ends = re.sub(r"\d", "0", document.text), document.title_length, [], []
        for start, end in document.entities:
            words = [*words, *re.findall(r"\w+|[^\w ]", undated[read:start])][-2:]  # words and marks
            read = start
            entity = document.text[start:end]
            yield [
                ("last", entity.split()[-1]),
                ("words", min(MOST_WORDS, len(split_words(entity)))),
                ("before", *words),
                ("after", *TOKEN.findall(undated[end : end + 30])[:1]),
                ("places before", sum(end_of_place <= start for end_of_place in first_ends)),
            ]
            if is_place(entity, places):
                first_ends = sorted([*first_ends, end])[:2]  # of the first two places; phrases overlap

    def holds(document: Document, answer: str | None) -> bool:
        return any(document.text[start:end] == answer for start, end in document.entities)

    answered = {document.subject for document in documents if holds(document, answers.get(document.subject))}
    examples: dict[bool, list[list[Feature]]] = {True: [], False: []}  # by whether the entity is the answer
    for document in documents:
        if document.subject in answered:
            for (start, end), of_entity in zip(document.entities, features(document), strict=True):
                examples[document.text[start:end] == answers[document.subject]].append(of_entity)
    odds = feature_odds(examples)
    weights = [tuple(posterior_odds(odds, of_entity) for of_entity in features(document)) for document in documents]
    relevance = relevances(documents, weights)
    return [replace(d, weights=w, relevance=r) for d, w, r in zip(documents, weights, relevance, strict=True)]


def relevances(documents: Sequence[Document], weights: Sequence[tuple[float, ...]]) -> list[float]:
    """For each document, the probability that it holds the answer, relative to the likeliest about the same subject.

    `weights` are the odds of its entities. A document without a title has relevance 1: only the question names its
    subject.
    """
    holds_answer = [sum(odds) / (1 + sum(odds)) for odds in weights]  # probabilities
    likeliest: dict[str, float] = defaultdict(float)  # by subject
    for document, probability in zip(documents, holds_answer, strict=True):
        likeliest[document.subject] = max(likeliest[document.subject], probability)
    return [
        probability / likeliest[document.subject] if document.title_length and odds else 1.0
        for document, odds, probability in zip(documents, weights, holds_answer, strict=True)
    ]


@dataclass(frozen=True)
class TextSummary:
    """Counts of what is in a text."""

    documents: int
    empty: int
    max_length: float  # of a document, as far as it is read
    characters: int  # of all documents
    unread: int  # of these, how many lie beyond max_length
    titled: int  # documents with a title
    people: int  # named in the questions
    found: int  # of these, how many have a document about them
    about_people: int  # documents about these people
    fit: TemplateFit | None  # of the questions about them; None if there are none

    def size_line(self) -> str:
        """How many documents there are, and how much of them span corruption never reads."""
        empty = f", {self.empty:,} empty" if self.empty else ""
        line = f"{count(self.documents, 'document')}{empty}"
        if not self.unread:
            return line
        return (
            f"{line}; the course's recipe reads only the first {self.max_length} characters of a line, and never sees "
            f"{percent(self.unread, self.characters)} of the text"
        )

    def coverage_line(self) -> str:
        """How many documents have a title, how many are about the people of the pairs, and how many questions fit."""
        return (
            f"titles: {self.titled:,} of {count(self.documents - self.empty, 'line')}; "
            f"{count(self.about_people, 'line')} about people in the pairs; "
            f"{self.fit.fits:,} of {count(self.fit.rows, 'question')} fit '{self.fit.template}'"
        )

    def warnings(self, text: str, pairs: str) -> list[str]:
        """A line if more than a tenth of the questions do not fit the wording, and one if less than half of the people
        are found.

        `text` and `pairs` are the names of the files. Raises UserError if no one is found.
        """
        lines = []
        if not self.found:
            raise UserError(
                f"{text}: no line is about any of the people in {pairs}; begin each line with the name as it is "
                f"spelled in the question, or check the wording '{self.fit.template}' (--question)"
            )
        if self.fit.fits < 0.9 * self.fit.rows:
            lines.append(
                f"warning: {pairs}: only {self.fit.fits:,} of {count(self.fit.rows, 'question')} fit "
                f"'{self.fit.template}' (line {self.fit.first_misfit[0]} does not); "
                "word all questions alike, or give the wording with --question"
            )
        if 2 * self.found < self.people:
            lines.append(
                f"warning: {text}: only {self.found:,} of {self.people:,} people in {pairs} have a line about them; "
                "begin each line with the name as it is spelled in the question"
            )
        return lines


def summarize(
    texts: Sequence[str], max_length: float, pairs: Sequence[tuple[str, str]] = (), fit: TemplateFit | None = None
) -> TextSummary:
    """Counts what is in the texts; `fit` is that of the questions in the `pairs`."""
    names = {fit.template.name_in(question) for question, _ in pairs} - {None}
    subjects = Subjects(names, texts, {place for _, place in pairs}, lowercase_words(texts) if names else ())
    found: Counter[str] = Counter()
    titled = 0
    for text in texts:
        body, subject = subjects.of(text)
        titled += body > 0
        if subject in names:
            found[subject] += 1
    lengths = [len(text) for text in texts]
    return TextSummary(
        documents=len(texts),
        empty=sum(not text.strip() for text in texts),
        max_length=max_length,
        characters=sum(lengths),
        unread=sum(length - max_length for length in lengths if length > max_length),
        titled=titled,
        people=len(names),
        found=len(found),
        about_people=found.total(),
        fit=fit,
    )


def count(number: int, noun: str) -> str:
    """ "1 line" or "2,938 lines"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """A share, "26 %" or "0.4 %"."""
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"
