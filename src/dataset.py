"""From text to batches: the vocabulary, span corruption of documents, and question-answer pairs.

python src/dataset.py {namedata,charcorruption} prints a few examples of each.
"""

import math
import sys
import unicodedata

if __name__ == "__main__":  # before the other imports, which would end in a traceback
    if sys.version_info < (3, 10) or __package__:
        advice = "start it as 'python src/dataset.py'" if __package__ else "Python 3.10 or newer is needed"
        print("dataset.py: error: " + advice, file=sys.stderr)
        sys.exit(2)
    import signal
    from importlib.util import find_spec

    missing = next((name for name in ("numpy", "torch") if find_spec(name) is None), None)
    if missing is not None:  # or the virtual environment is not active
        print(f"dataset.py: error: {missing} is not installed; pip install -r requirements.txt", file=sys.stderr)
        sys.exit(2)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and "IPython" not in sys.modules:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until raise_on_interrupt(), Ctrl-C ends the process silently

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cli import Parser, UserError, exit_on_user_error, raise_on_interrupt
from files import read_text
from question import parse_pairs
from recipe import BLOCK_SIZE, MASK, PAD


class BatchDataset(Dataset):
    """A dataset that makes whole batches from tensors that it holds: batch(indices) -> (x, y)."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The rows `indices` (B,): x and y of shape (B, block_size - 1), int64, on the device of `indices`."""
        raise NotImplementedError

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        """Row idx: x and y = x shifted by one, int64 of shape (block_size - 1,)."""
        x, y = self.batch(torch.tensor([range(len(self))[idx]]))  # range takes a negative idx, and raises IndexError
        return x[0], y[0]

    def move_to(self, device: torch.device) -> None:
        """Moves the tensors from which batches are made to that device."""
        for name, value in vars(self).items():
            if isinstance(value, BatchDataset):
                value.move_to(device)
            elif isinstance(value, Tensor) and value.device != device:
                setattr(self, name, value.to(device))


class Spans(NamedTuple):
    """A batch of texts, each with a span that moves to its end. All (B,), int64.

    A text consists of `head_length` ids from position `head` of a tensor of ids (a title or a question), and of those
    from position `body` on (a part of the document).
    """

    head: Tensor  # position in the ids
    head_length: Tensor
    body: Tensor  # position in the ids
    length: Tensor  # of the text, with its head
    start: Tensor  # of the span, counted from the beginning of the text
    span_length: Tensor


class CharCorruptionDataset(BatchDataset):
    """Span corruption: documents, one per line, each with a span moved to its end (Raffel et al. 2020, section 3.1.4).

    `data` is the whole text; error messages call it `name`. A trailing newline makes a last, empty document. Each
    access draws a new truncation and a new span from the global generator of the device. The targets are all
    characters, as in the course's code, or, where loss_on_span is set to True, only the span and the mark that ends it,
    as in T5. Raises UserError if `data` contains PAD_CHAR or MASK_CHAR, ValueError if block_size is too small for a
    document and its marks.
    """

    PAD_CHAR, MASK_CHAR = "\u25a1", "\u2047"  # their ids are PAD and MASK

    def __init__(self, data: str, block_size: int, name: str = "data") -> None:
        self.loss_on_span = False
        self.max_length = int(block_size * 7 / 8)  # of a truncated document; leaves room for its three marks
        if self.max_length < 4 or self.max_length + 3 > block_size:
            raise ValueError(f"block_size {block_size} has no room for a document and its three marks; use 17 or more")
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

        # all documents in one tensor of ids (characters,): document i is ids[starts[i] : starts[i] + lengths[i]]
        id_of_code = np.zeros(sys.maxunicode + 1, dtype=np.int32)
        id_of_code[seen] = np.arange(2, self.vocab_size)
        self.ids = torch.zeros(max(1, len(data)), dtype=torch.int32)
        filled = 0
        for codes in code_points(data):
            self.ids[filled : filled + len(codes)] = torch.from_numpy(id_of_code[codes])
            filled += len(codes)
        self.lengths = torch.tensor([len(document) for document in self.data])
        self.starts = torch.cumsum(self.lengths + 1, 0) - self.lengths - 1

    def __len__(self) -> int:
        return len(self.data)

    def draw(self, indices: Tensor) -> Spans:
        """Draws how much to keep of each document `indices` (B,), and which span of it to mask."""
        truncation, size, rounding, where = torch.rand(4, len(indices), device=indices.device)  # (B,) each
        # truncate to a length that is uniform on 4 .. max_length
        length = 4 + (truncation * (self.max_length - 3)).long()
        length = torch.minimum(length, self.lengths[indices])
        # a real number, uniform on 1 .. length/2 - 1, is rounded up or down at random, so that spans have a mean length
        # of exactly length/4; in documents of fewer than 4 characters, the number is length/4
        shortest = (length / 4).clamp(max=1)
        span_length = (shortest + size * 2 * (length / 4 - shortest) + rounding).long()
        start = (where * (length - span_length + 1)).long()  # uniform on 0 .. length - span_length
        body = self.starts[indices]
        return Spans(body, torch.zeros_like(body), body, length, start, span_length)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Corrupts documents `indices` (B,): x and y (B, block_size - 1), int64, on the device of `indices`."""
        self.move_to(indices.device)
        return self.corrupt(self.ids, self.draw(indices))

    def corrupt(self, ids: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
        """Moves the spans of `ids` to the end: x and y of shape (B, block_size - 1), int64."""
        head, head_length, body, length, start, span_length = (t[:, None] for t in spans)  # (B, 1) each
        position = torch.arange(self.block_size, device=ids.device)  # (block_size,)
        second_mark = length - span_length + 1
        # prefix MASK suffix MASK span MASK PAD...: where in the text each one is copied from, (B, block_size)
        in_text = torch.where(position < start, position, position - 1 + span_length)
        in_text = torch.where(position > second_mark, start + position - second_mark - 1, in_text)
        in_ids = torch.where(in_text < head_length, head + in_text, body + in_text - head_length)
        string = ids[in_ids.clamp(0, ids.numel() - 1)].long()  # what is out of range becomes MASK or PAD below
        is_mark = (position == start) | (position == second_mark) | (position == length + 2)
        string = string.masked_fill(is_mark, MASK).masked_fill(position > length + 2, PAD)
        x, y = inputs_and_targets(string)
        if self.loss_on_span:
            y = y.masked_fill(position[1:] <= second_mark, PAD)
        return x, y

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises ValueError for a character that is a mark or not in the vocabulary."""
        problem = self.missing(text)
        if problem is not None:
            raise ValueError(problem)
        return [self.stoi[character] for character in text]

    def encode_marked(self, text: str) -> list[int]:
        """The ids of the text and a MASK, the end of a question or an answer. Raises ValueError as encode() does."""
        return [*self.encode(text), MASK]

    def missing(self, text: str) -> str | None:
        """Which character of the text is a mark or not in the vocabulary, and what to do; None if there is none."""

        def unknown(text: str) -> str | None:
            return next((character for character in text if self.stoi.get(character, PAD) in (PAD, MASK)), None)

        character = unknown(text)
        if character is None:
            return None
        problem = f"the character {character!r} (U+{ord(character):04X}) is not in the pretraining text"
        for form, description in (("NFC", "one character"), ("NFD", "separate characters")):
            if unknown(unicodedata.normalize(form, text)) is None:
                problem += f"; write the letter and its mark as {description} (Unicode form {form})"
        return problem

    def decode(self, ids: Tensor | list[int]) -> str:
        """The text of ids (T,)."""
        return "".join(self.itos[int(i)] for i in ids)


def inputs_and_targets(string: Tensor) -> tuple[Tensor, Tensor]:
    """Splits strings (B, T) into x and y = x shifted by one, both (B, T - 1)."""
    return string[:, :-1].contiguous(), string[:, 1:].contiguous()


def code_points(text: str) -> Iterator[np.ndarray]:
    """The characters of a text as uint32, in chunks, so that memory never holds three copies of a large text."""
    chunk = 2**22
    for start in range(0, len(text), chunk):
        yield np.frombuffer(text[start : start + chunk].encode("utf-32-le"), dtype=np.uint32)


class NameDataset(BatchDataset):
    """Questions with their places, `question MASK place MASK PAD...`, without loss on the question.

    `data` holds the pairs, or is the text of a TSV file; error messages call it `name`. The vocabulary is that of the
    pretraining dataset. Raises UserError for a malformed row, one outside the vocabulary, or one too long for
    the block.
    """

    PAD_CHAR, MASK_CHAR = CharCorruptionDataset.PAD_CHAR, CharCorruptionDataset.MASK_CHAR

    def __init__(
        self, pretraining_dataset: CharCorruptionDataset, data: str | list[tuple[str, str]], name: str = "data"
    ) -> None:
        self.vocabulary = pretraining_dataset
        self.stoi, self.itos = pretraining_dataset.stoi, pretraining_dataset.itos  # the course's names
        self.block_size = pretraining_dataset.block_size
        self.data = parse_pairs(data, name) if isinstance(data, str) else data
        ids: list[int] = []  # of all rows
        question_lengths: list[int] = []
        lengths: list[int] = []  # of the rows, marks included
        for row, (question, place) in enumerate(self.data, 1):
            try:
                ids += self.vocabulary.encode_marked(question) + self.vocabulary.encode_marked(place)
            except ValueError as error:
                advice = "reword it, or add the character to the text and pretrain again"
                raise UserError(f"{name}, line {row}: {error}; {advice}") from None
            question_lengths.append(len(question))
            lengths.append(len(question) + len(place) + 2)
            if lengths[-1] > self.block_size:
                raise UserError(
                    f"{name}, line {row}: question and answer take {lengths[-1]} characters; {self.block_size} fit; "
                    "shorten them, or leave the line out"
                )
        self._ids = torch.tensor(ids, dtype=torch.int32)
        self._question_lengths, self._lengths = torch.tensor(question_lengths), torch.tensor(lengths)
        self._starts = torch.cumsum(self._lengths, 0) - self._lengths

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `indices` (B,): x and y of shape (B, block_size - 1), int64, on the device of `indices`."""
        self.move_to(indices.device)
        position = torch.arange(self.block_size, device=indices.device)  # (block_size,)
        source = (self._starts[indices][:, None] + position).clamp(max=self._ids.numel() - 1)  # (B, block_size)
        string = self._ids[source].long().masked_fill(position >= self._lengths[indices][:, None], PAD)
        x, y = inputs_and_targets(string)
        return x, y.masked_fill(position[1:] < self._question_lengths[indices][:, None], PAD)


class MixedDataset(Dataset):
    """Documents mixed with questions: a batch of B documents also gets qa_per_document * B pairs, drawn at random.

    The model thus learns what a question asks for while it stores the facts (mixed training: Allen-Zhu and Li 2023,
    Physics of Language Models 3.1). mean_rows and most_rows() tell the schedule and the engine how many rows there are.
    """

    def __init__(self, documents: BatchDataset, names: NameDataset, qa_per_document: float) -> None:
        self.documents, self.names, self.qa_per_document = documents, names, qa_per_document
        self.mean_rows = len(documents) * (1 + qa_per_document)  # of an epoch, questions included

    def __len__(self) -> int:
        return len(self.documents)

    def most_rows(self, documents: int) -> int:
        """The largest number of rows in a batch of this many documents, questions included."""
        return documents + math.ceil(self.qa_per_document * documents)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Documents `indices` (B,), then about qa_per_document * B pairs: x and y, int64 (rows, block_size - 1)."""
        pairs = int(self.qa_per_document * len(indices) + torch.rand(()).item())  # rounded so that the mean is exact
        drawn = torch.randint(len(self.names), (pairs,), device=indices.device)
        x, y = self.documents.batch(indices)
        x_pairs, y_pairs = self.names.batch(drawn)
        return torch.cat((x, x_pairs)), torch.cat((y, y_pairs))


def main(argv: list[str] | None = None) -> None:
    parser = Parser("Print examples of what the model is trained on.")
    parser.add_argument(
        "dataset_type",
        choices=["namedata", "charcorruption"],
        help="namedata: pairs of birth_places_train.tsv; charcorruption: corrupted documents of wiki.txt",
    )
    arguments = parser.parse_args(argv)
    raise_on_interrupt()
    documents = CharCorruptionDataset(read_text("wiki.txt"), BLOCK_SIZE, "wiki.txt")
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
