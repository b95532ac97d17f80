"""From text to batches: the vocabulary, span corruption of documents, and question-place pairs.

python src/dataset.py {namedata,charcorruption} prints a few examples of each.
"""

import re
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cli import Parser, UserError, exit_on_user_error
from files import parse_pairs, read_text


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


class CharCorruptionDataset(BatchDataset):
    """Documents, one a line, with one span of each moved to its end (Raffel et al. 2020, section 3.1.4, one span).

    `data` is the whole text, `name` what errors call it; a trailing newline makes a last, empty document. Each access
    draws anew from the global generator of the device: which beginning of the document, and which span of it. Where
    the document has a title, "Ada Lovelace. ", and reaches past it, the share `anchored` of the spans begins right
    behind and has any length, so that the title alone must tell what follows. Raises UserError when `data` holds
    PAD_CHAR or MASK_CHAR, ValueError when block_size has no room for a document.
    """

    PAD_CHAR = "\u25a1"  # id 0
    MASK_CHAR = "\u2047"  # id 1

    def __init__(self, data: str, block_size: int, name: str = "data", anchored: float = 0.0) -> None:
        self.max_length = int(block_size * 7 / 8)  # of a truncated document; with its three marks it fits the block
        if self.max_length < 4 or self.max_length + 3 > block_size:
            raise ValueError(f"block_size {block_size} has no room for a document and its three marks; take 24")
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
        self.anchored = anchored

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
        self._titles = torch.tensor([title_length(document[:1000]) for document in self.data] if anchored else [])

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The documents `indices` (B,), corrupted: x and y of shape (B, block_size - 1), int64, where `indices` are."""
        self.move_to(indices.device)
        truncation, first, second, third = torch.rand(4, len(indices), device=indices.device)

        # truncate to a length that is uniform on 4 .. max_length
        length = 4 + (truncation * (self.max_length - 3)).long()
        length = torch.minimum(length, self._lengths[indices])
        # a masked length that is uniform on 1 .. length/2 - 1; where that is no integer, or nothing, rounding at
        # random keeps the mean at exactly length/4
        shortest = (length / 4).clamp(max=1)
        masked = (shortest + first * 2 * (length / 4 - shortest) + second).long()
        start = (third * (length - masked + 1)).long()  # of the span, uniform on 0 .. length - masked
        if self.anchored:
            title = self._titles[indices]
            behind = (torch.rand(len(indices), device=indices.device) < self.anchored) & (title > 0) & (title < length)
            masked = torch.where(behind, 1 + (first * (length - title)).long(), masked)
            start = torch.where(behind, title, start)

        # prefix MASK suffix MASK masked_content MASK PAD...: for each position, where in the document it comes from
        length, masked, start = length[:, None], masked[:, None], start[:, None]  # (B, 1)
        position = torch.arange(self.block_size, device=indices.device)  # (block_size,)
        second_mark = length - masked + 1
        source = torch.where(position < start, position, position - 1 + masked)
        source = torch.where(position > second_mark, start + position - second_mark - 1, source)
        source = (self._starts[indices][:, None] + source).clamp(0, self._ids.numel() - 1)
        string = self._ids[source].long()  # (B, block_size)
        is_mark = (position == start) | (position == second_mark) | (position == length + 2)
        string = string.masked_fill(is_mark, self.stoi[self.MASK_CHAR])
        string = string.masked_fill(position > length + 2, self.stoi[self.PAD_CHAR])
        return string[:, :-1].contiguous(), string[:, 1:].contiguous()

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises ValueError that names a character which the vocabulary has not, or as a mark."""
        for character in text:
            if self.stoi.get(character, 0) < 2:
                raise ValueError(f"the character {character!r} is not in the pretraining text")
        return [self.stoi[character] for character in text]

    def decode(self, ids: Tensor | list[int]) -> str:
        """The text of ids (T,)."""
        return "".join(self.itos[int(i)] for i in ids)


def code_points(text: str) -> Iterator[np.ndarray]:
    """The characters of a text as uint32, a piece at a time, so that a text of gigabytes is not held thrice."""
    piece = 2**22
    for start in range(0, len(text), piece):
        yield np.frombuffer(text[start : start + piece].encode("utf-32-le"), dtype=np.uint32)


def title_length(document: str) -> int:
    """The length of "J. R. R. Tolkien. " at the beginning of a document; 0 where there is no such title.

    A title ends at its first full stop that does not abbreviate: behind a word that is no initial, "St" or "Dr", or
    where the name comes again without it ("Malcolm X. Malcolm X was ...").
    """
    for stop in re.finditer(r"\. ", document):
        name = document[: stop.start()]
        abbreviated = re.search(r"(^|[ .])(\w|St|Dr)$", name)
        if name and (not abbreviated or f"{name} " in document[stop.end() :]):
            return stop.end()
    return 0


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
        x, y = string[:, :-1], string[:, 1:]
        return x.contiguous(), y.masked_fill(position[1:] < self._asked[indices][:, None], pad)


class MixedDataset(Dataset):
    """Documents with questions among them: each document of a batch brings `questions` pairs, drawn at random.

    Pretraining on both lets the model learn what a question asks for while it stores the facts (Allen-Zhu and Li 2023,
    Physics of Language Models 3.1, mixed training).
    """

    def __init__(self, documents: CharCorruptionDataset, names: NameDataset, questions: float) -> None:
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
