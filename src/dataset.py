"""From text to batches: the vocabulary, span corruption of documents, and question-place pairs.

python src/dataset.py {namedata,charcorruption} prints a few examples of each.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cli import Parser, UserError, exit_on_user_error
from files import name_in, parse_pairs, read_text

words_in = re.compile(r"\w+").findall
SENTENCE_ENDS = (". ", ": ", "? ", "! ", "; ")
MILLION = 10**6
Feature = tuple[str | int, ...]  # of a name in a document: of which kind, and what it is


class BatchDataset(Dataset):
    """A dataset of strings in one row of ids, which makes whole batches: batch(indices) -> (x, y)."""

    _ids: Tensor

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        """Row idx: x and y = x shifted by one, int64 of shape (block_size - 1,)."""
        x, y = self.batch(torch.tensor([range(len(self))[idx]]))
        return x[0], y[0]

    def move_to(self, device: torch.device) -> None:
        """Keeps what batches are made from on that device."""
        if self._ids.device != device:
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value.to(device))


class Reading(NamedTuple):
    """What the rows of a batch read, all (B,), int64: the ids from `head` on, `head_length` of them, then those from
    `body` on, `length` in all; of which `masked` from `start` on are moved to the end."""

    head: Tensor
    head_length: Tensor
    body: Tensor
    length: Tensor
    start: Tensor
    masked: Tensor


class CharCorruptionDataset(BatchDataset):
    """Documents, one a line, with one span of each moved to its end (Raffel et al. 2020, section 3.1.4, one span).

    `data` is the whole text, `name` what errors call it; a trailing newline makes a last, empty document. Each access
    draws anew from the global generator of the device: which beginning of the document, and which span of it. Raises
    UserError when `data` holds PAD_CHAR or MASK_CHAR, ValueError when block_size has no room for a document.
    """

    PAD_CHAR = "\u25a1"  # id 0
    MASK_CHAR = "\u2047"  # id 1

    def __init__(self, data: str, block_size: int, name: str = "data") -> None:
        self.max_length = int(block_size * 7 / 8)  # of a truncated document; with its three marks it fits the block
        if self.max_length < 4 or self.max_length + 3 > block_size:
            raise ValueError(f"block_size {block_size} has no room for a document and its three marks; take 17 or more")
        for mark in (self.PAD_CHAR, self.MASK_CHAR):
            if mark in data:
                line = data[: data.index(mark)].count("\n") + 1
                raise UserError(
                    f"{name}, line {line}: holds {mark!r}, a mark of the vocabulary; take it out of the text"
                )

        seen = np.zeros(sys.maxunicode + 1, dtype=bool)
        for codes in code_points(data):
            seen[codes] = True
        characters = [chr(code) for code in np.flatnonzero(seen)]
        self.itos = dict(enumerate([self.PAD_CHAR, self.MASK_CHAR, *characters]))
        self.stoi = {character: i for i, character in self.itos.items()}
        self.vocab_size = len(self.itos)
        self.num_characters = len(data)
        self.block_size = block_size
        self.data = data.split("\n")

        # all documents in one row of ids; document i is ids[starts[i] : starts[i] + lengths[i]]
        id_of_code = np.zeros(sys.maxunicode + 1, dtype=np.int32)
        id_of_code[seen] = np.arange(2, self.vocab_size)
        self._ids = torch.zeros(max(1, len(data)), dtype=torch.int32)
        filled = 0
        for codes in code_points(data):
            self._ids[filled : filled + len(codes)] = torch.from_numpy(id_of_code[codes])
            filled += len(codes)
        self._lengths = torch.tensor([len(document) for document in self.data])
        self._starts = torch.cumsum(self._lengths + 1, 0) - self._lengths - 1

    def __len__(self) -> int:
        return len(self.data)

    def draw(self, indices: Tensor) -> Reading:
        """What to read of the documents `indices` (B,), and which span of it to mask."""
        truncation, first, second, third = torch.rand(4, len(indices), device=indices.device)
        # truncate to a length that is uniform on 4 .. max_length
        length = 4 + (truncation * (self.max_length - 3)).long()
        length = torch.minimum(length, self._lengths[indices])
        # a masked length that is uniform on 1 .. length/2 - 1; where that is no integer, or nothing, rounding at
        # random keeps the mean at exactly length/4
        shortest = (length / 4).clamp(max=1)
        masked = (shortest + first * 2 * (length / 4 - shortest) + second).long()
        start = (third * (length - masked + 1)).long()  # of the span, uniform on 0 .. length - masked
        body = self._starts[indices]
        return Reading(body, torch.zeros_like(body), body, length, start, masked)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The documents `indices` (B,), corrupted: x and y of shape (B, block_size - 1), int64, where `indices` are."""
        self.move_to(indices.device)
        return self.corrupt(self._ids, self.draw(indices))

    def corrupt(self, ids: Tensor, reading: Reading) -> tuple[Tensor, Tensor]:
        """The readings of `ids` with their spans moved to the end: x and y of shape (B, block_size - 1), int64."""
        head, head_length, body, length, start, masked = (t[:, None] for t in reading)  # (B, 1)

        # prefix MASK suffix MASK masked_content MASK PAD...: for each position, where in the reading it comes from
        position = torch.arange(self.block_size, device=ids.device)  # (block_size,)
        second_mark = length - masked + 1
        source = torch.where(position < start, position, position - 1 + masked)
        source = torch.where(position > second_mark, start + position - second_mark - 1, source)
        source = torch.where(source < head_length, head + source, body + source - head_length)
        string = ids[source.clamp(0, ids.numel() - 1)].long()  # (B, block_size)
        is_mark = (position == start) | (position == second_mark) | (position == length + 2)
        string = string.masked_fill(is_mark, self.stoi[self.MASK_CHAR])
        return inputs_and_targets(string.masked_fill(position > length + 2, self.stoi[self.PAD_CHAR]))

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises ValueError that names a character which the vocabulary has not, or as a mark."""
        for character in text:
            if self.stoi.get(character, 0) < 2:
                raise ValueError(f"the character {character!r} is not in the pretraining text")
        return [self.stoi[character] for character in text]

    def decode(self, ids: Tensor | list[int]) -> str:
        """The text of ids (T,)."""
        return "".join(self.itos[int(i)] for i in ids)


def inputs_and_targets(string: Tensor) -> tuple[Tensor, Tensor]:
    """x and y = x shifted by one, (B, T - 1), of strings (B, T)."""
    return string[:, :-1].contiguous(), string[:, 1:].contiguous()


def code_points(text: str) -> Iterator[np.ndarray]:
    """The characters of a text as uint32, a piece at a time, so that a text of gigabytes is not held thrice."""
    piece = 2**22
    for start in range(0, len(text), piece):
        yield np.frombuffer(text[start : start + piece].encode("utf-32-le"), dtype=np.uint32)


def title_length(document: str) -> int:
    """The length of "J. R. R. Tolkien. " at the beginning of a document; 0 where there is no such title.

    A title ends at the first full stop that does not abbreviate: one behind a word that is no initial, "St" or "Dr".
    Where others come before it ("Malcolm X. In Omaha ...", "Peter F. Drucker. Peter F Drucker was ..."), it is the
    longest of the names before a stop that comes again, whatever stops and commas are in it; where none does, what
    reads like a sentence behind the name ("Malcolm X. Birthplace: Omaha. ...") is none of it.
    """
    document = document[:1000]  # what follows takes quadratic time
    ends: list[int] = []
    whole = 0
    for stop in re.finditer(r"\. ", document):
        ends.append(stop.end())
        if not re.search(r"^$|(^|[ .])(\w|St|Dr)$", document[: stop.start()]):
            whole = stop.end()
            break
    if ends == [whole]:
        return whole
    for end in reversed(ends):
        name, rest = (re.sub(r"[.,]", "", part) for part in (document[: end - len(". ")], document[end:]))
        if re.search(r"\w\w", name) and re.search(rf"\b{re.escape(name)}\b", rest):
            return end
    if ends and re.search(r"[^\w ,.'’-]|\d|\b[a-z]{6}", document[ends[0] : whole]):  # no part of a name
        return max((end for end in ends[:-1] if re.search(r"\w\w", document[:end])), default=whole)
    return whole


def subject_of(title: int, document: str) -> str:
    """Whom a document with a title of that length is about: the title without its full stop; "" where there is none."""
    return document[: max(0, title - len(". "))]


def is_about(document: str, name: str) -> bool:
    """Whether the document's title is this name: "J. R. R. Tolkien. " is that of no "J"."""
    return document.startswith(f"{name}. ") and subject_of(title_length(document), document) == name


class SalientSpanDataset(BatchDataset):
    """Documents read for their facts: in the share `salient` of the readings, the masked span is a name in it,
    "Warsaw" or "Royal Academy" (salient span masking: Guu et al. 2020, REALM, section 3.4).

    Such a reading is a head, up to `window` characters before the name, the name, and as many behind it. The head is
    the document's title, "Ada Lovelace. ", or, in the share `framed`, a question about it: "Where was Ada Lovelace
    born? ", worded as in `pairs`. So what the text says of everybody is looked up in the form in which it will be asked
    for. With `by_odds`, names are drawn as they are likely to be an answer (answer_odds), else all alike. The other
    readings are those of CharCorruptionDataset.
    """

    def __init__(
        self,
        documents: CharCorruptionDataset,
        pairs: list[tuple[str, str]],
        salient: float,
        window: int,
        framed: float,
        by_odds: bool,
    ) -> None:
        self.documents, self.block_size = documents, documents.block_size
        self.salient, self.window, self.framed = salient, window, framed
        titles = [title_length(document) for document in documents.data]
        self._titles = torch.tensor(titles)

        pattern = name_pattern({place for _, place in pairs})
        common = common_words(documents.data)
        names = [
            names_behind(title, document, pattern, common)
            for title, document in zip(titles, documents.data, strict=True)
        ]
        self._names = torch.tensor([name for names_of_one in names for name in names_of_one] or [(0, 0)])
        self._has_names = torch.tensor([len(names_of_one) > 0 for names_of_one in names])
        if by_odds:
            weights = answer_odds(documents.data, titles, names, pairs)
        else:
            weights = [[1.0] * len(names_of_one) for names_of_one in names]
        # the names of document i share the million from i * MILLION on; where the part of each ends
        ends: list[int] = []
        for i, weights_of_one in enumerate(weights):
            sums = list(accumulate(weights_of_one))
            ends += [i * MILLION + round(MILLION * so_far / sums[-1]) for so_far in sums]
        self._ends = torch.tensor(ends, dtype=torch.int64)

        question, _ = pairs[0]
        before, _, behind = question.rpartition(name_in(question))  # the last "W" of "Where was W born?"
        frames = [
            f"{before}{subject_of(title, document)}{behind} " if title else ""
            for document, title in zip(documents.data, titles, strict=True)
        ]
        self._frame_lengths = torch.tensor([len(frame) for frame in frames])
        self._frames = len(documents._ids) + torch.cumsum(self._frame_lengths, 0) - self._frame_lengths
        self._ids = torch.cat((documents._ids, torch.tensor(documents.encode("".join(frames)), dtype=torch.int32)))

    def __len__(self) -> int:
        return len(self.documents)

    def draw(self, indices: Tensor) -> Reading:
        """What to read of the documents `indices` (B,), and which span of it to mask."""
        kind, frame, which, left, right = torch.rand(5, len(indices), device=indices.device)
        framed = frame < self.framed
        document, title = self.documents._starts[indices], self._titles[indices]
        head = torch.where(framed, self._frames[indices], document)
        head_length = torch.where(framed, self._frame_lengths[indices], title)

        name = torch.searchsorted(self._ends, indices * MILLION + (which * MILLION).long(), right=True)
        start, end = self._names[name.clamp(max=len(self._names) - 1)].unbind(1)  # (B,), in the document
        first = torch.maximum(title, start - (left * (self.window + 1)).long())
        last = torch.minimum(self.documents._lengths[indices], end + (right * (self.window + 1)).long())
        last = torch.minimum(last, first + self.documents.max_length - head_length)
        moved = head_length - first  # from a place in the document to the same in the reading
        reading = Reading(head, head_length, document + first, last + moved, start + moved, end - start)

        salient = (kind < self.salient) & self._has_names[indices] & (end <= last)
        plain = self.documents.draw(indices)
        return Reading(*(torch.where(salient, a, b) for a, b in zip(reading, plain, strict=True)))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The documents `indices` (B,), read: x and y of shape (B, block_size - 1), int64, where `indices` are."""
        self.move_to(indices.device)
        self.documents.move_to(indices.device)
        return self.documents.corrupt(self._ids, self.draw(indices))


def common_words(documents: list[str]) -> set[str]:
    """The words that stand somewhere in small letters: "in" is one of them, "grodno" is none."""
    words = set(chain.from_iterable(map(str.split, documents)))
    return {word for word in words if word.islower()}


def name_pattern(places: set[str]) -> re.Pattern[str]:
    """Finds the words of a text, and as group 1 these places: "Rio de Janeiro", or the "Paris" of "Paris-born".

    Words are "Saint-Denis", "St. Joseph" and the "Leiden" of "Leiden-born".
    """
    rests: dict[str, list[str]] = {}  # by the first two characters: no word is tried with all places
    for place in sorted(places, key=len, reverse=True):
        rests.setdefault(place[:2], []).append(re.escape(place[2:]))
    place = "|".join(rf"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items())
    return re.compile(rf"(?<!\w)({place})(?!\w)|(?:St\. )?\w+(?:(?!-born\b)['’-]\w*)*")


def names_behind(title: int, document: str, pattern: re.Pattern[str], common: set[str]) -> list[tuple[int, int]]:
    """Where the names behind a title of that length begin and end: the places of the name_pattern(), and elsewhere
    capitalised words in a row; but none that only repeats the title, nor a common word that begins a sentence."""
    names: list[tuple[int, int]] = []
    goes_on = False  # the name found last, if a capitalised word follows
    for word in pattern.finditer(document, title):
        if word[1] or (word[0][0].isupper() and not (word[0].lower() in common and begins_sentence(word, title))):
            if goes_on and not word[1] and document[names[-1][1] : word.start()] == " ":
                names[-1] = names[-1][0], word.end()
            else:
                names.append(word.span())
            goes_on = not word[1]
    known = set(words_in(document[:title]))
    return [(start, end) for start, end in names if not known.issuperset(words_in(document[start:end]))]


def begins_sentence(word: re.Match[str], title: int) -> bool:
    """Whether a word found in a document with a title of that length is the first of a sentence."""
    return word.start() == title or word.string.endswith(SENTENCE_ENDS, title, word.start())


def answer_odds(
    documents: list[str], titles: list[int], names: list[list[tuple[int, int]]], pairs: list[tuple[str, str]]
) -> list[list[float]]:
    """For each name of each document, the odds that it is what a question asks for, up to a constant factor.

    Naive Bayes with three features: the name ("January" never is), the two words before it ("born in" often are; all
    years are alike), and how many places of the pairs come before it in the document (people are born before they
    die). Counted where the pairs tell which name is the answer: the learned answer extraction of Lewis et al. 2021
    (PAQ).
    """
    place_of = {name_in(question): place for question, place in pairs}
    places = set(place_of.values())
    tokens_in = re.compile(r"\w+|[^\w ]").findall

    def features(document: str, title: int, names_of_one: list[tuple[int, int]]) -> Iterator[list[Feature]]:
        undated, read, words, places_before = re.sub(r"\d", "0", document), title, [], 0
        for start, end in names_of_one:
            words = [*words, *tokens_in(undated[read:start])][-2:]
            read = start
            name = document[start:end]
            yield [("name", name), ("behind", *words), ("places before", min(places_before, 2))]
            places_before += name in places

    counts: dict[bool, Counter[Feature]] = {True: Counter(), False: Counter()}  # by is-an-answer
    totals = {True: 1, False: 1}
    for document, title, names_of_one in zip(documents, titles, names, strict=True):
        place = place_of.get(subject_of(title, document))
        if place is None or all(document[start:end] != place for start, end in names_of_one):
            continue
        for of_name in features(document, title, names_of_one):
            is_answer = ("name", place) in of_name
            counts[is_answer].update(of_name)
            totals[is_answer] += 1
    prior = totals[True] / totals[False]  # the odds of what was never seen
    seen = counts[True] | counts[False]
    odds = {feature: (counts[True][feature] + prior) / (counts[False][feature] + 1) for feature in seen}

    def weight(of_name: list[Feature]) -> float:
        return math.prod([odds.get(feature, prior) for feature in of_name])

    return [
        list(map(weight, features(document, title, names_of_one)))
        for document, title, names_of_one in zip(documents, titles, names, strict=True)
    ]


class NameDataset(BatchDataset):
    """Questions and their places, `question MASK place MASK PAD...`, without loss on the question.

    `data` is the text of a TSV file, `name` what errors call it; the vocabulary is the pretraining dataset's. Raises
    UserError for a row of the wrong form, outside the vocabulary, or too long for block_size.
    """

    def __init__(self, pretraining_dataset: CharCorruptionDataset, data: str, name: str = "data") -> None:
        self.vocabulary = pretraining_dataset
        self.block_size = pretraining_dataset.block_size
        self.data = parse_pairs(data, name)
        mark = self.vocabulary.MASK_CHAR
        ids: list[int] = []  # of all rows
        asked: list[int] = []  # the lengths of the questions
        lengths: list[int] = []  # of the rows, marks included
        for row, (question, place) in enumerate(self.data, 1):
            try:
                ids += self.vocabulary.encode(question)
                asked.append(len(question))
                ids += [self.vocabulary.stoi[mark], *self.vocabulary.encode(place), self.vocabulary.stoi[mark]]
            except ValueError as error:
                raise UserError(f"{name}, line {row}: {error}") from None
            lengths.append(len(question) + len(place) + 2)
            if lengths[-1] > self.block_size:
                raise UserError(
                    f"{name}, line {row}: question and place take {lengths[-1]} characters of {self.block_size}"
                )
        self._ids = torch.tensor(ids, dtype=torch.int32)
        self._asked, self._lengths = torch.tensor(asked), torch.tensor(lengths)
        self._starts = torch.cumsum(self._lengths, 0) - self._lengths

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The rows `indices` (B,): x and y of shape (B, block_size - 1), int64, where `indices` are."""
        self.move_to(indices.device)
        position = torch.arange(self.block_size, device=indices.device)  # (block_size,)
        source = (self._starts[indices][:, None] + position).clamp(max=self._ids.numel() - 1)
        pad = self.vocabulary.stoi[self.vocabulary.PAD_CHAR]
        string = self._ids[source].long().masked_fill(position >= self._lengths[indices][:, None], pad)
        x, y = inputs_and_targets(string)
        return x, y.masked_fill(position[1:] < self._asked[indices][:, None], pad)


class MixedDataset(Dataset):
    """Documents with questions among them: each document of a batch brings `questions` pairs, drawn at random.

    Pretraining on both lets the model learn what a question asks for while it stores the facts (Allen-Zhu and Li 2023,
    Physics of Language Models 3.1, mixed training).
    """

    def __init__(self, documents: BatchDataset, names: NameDataset, questions: float) -> None:
        self.documents, self.names, self.questions = documents, names, questions

    def __len__(self) -> int:
        return len(self.documents)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The documents `indices` (B,), then about questions * B pairs: x and y, int64 (rows, block_size - 1)."""
        pairs = int(self.questions * len(indices) + torch.rand(()).item())  # right on average
        drawn = torch.randint(len(self.names), (pairs,), device=indices.device)
        parts = self.documents.batch(indices), self.names.batch(drawn)
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def main(argv: list[str] | None = None) -> None:
    parser = Parser("Print examples of what the model is trained on.")
    parser.add_argument(
        "dataset_type",
        choices=["namedata", "charcorruption"],
        help="namedata: pairs of birth_places_train.tsv; charcorruption: corrupted documents of wiki.txt",
    )
    arguments = parser.parse_args(argv)
    documents = CharCorruptionDataset(read_text("wiki.txt"), block_size=128, name="wiki.txt")
    print(f"data has {documents.num_characters} characters, {documents.vocab_size} unique.")
    if arguments.dataset_type == "namedata":
        shown: Dataset = NameDataset(documents, read_text("birth_places_train.tsv"), "birth_places_train.tsv")
    else:
        shown = documents
    for idx in range(min(4, len(shown))):
        x, y = shown[idx]
        print("x:", documents.decode(x))
        print("y:", documents.decode(y))


if __name__ == "__main__":
    exit_on_user_error(main)
