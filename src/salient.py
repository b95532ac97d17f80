"""Salient span masking: reads documents for the facts that questions will ask for."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from cli import UserError
from dataset import BatchDataset, CharCorruptionDataset, Spans
from entities import read_documents, weigh_by_answer_odds
from question import QuestionTemplate

MILLION = 10**6


class SalientSpanDataset(BatchDataset):
    """Salient span masking: with probability entity_mask_prob, the masked span is an entity of the document, such as
    "Warsaw" or "Royal Academy" (Guu et al. 2020, REALM, section 3.4); otherwise it is random, as in
    CharCorruptionDataset.

    A text with a masked entity consists of a head, at most context_chars characters before the entity, the entity, and
    at most as many characters after it. The head is the document's title, "Ada Lovelace. ", or, with probability
    question_prefix_prob, the question about its subject, "Where was Ada Lovelace born? ": each fact is learned under
    the phrasing used at test time. If the document has no title or subject, the head is empty. Entities are drawn
    uniformly or, with weight_by_answer_odds, by how likely they are to be answers: entities.weigh_by_answer_odds().
    Raises UserError if the text lacks characters of the question.
    """

    def __init__(
        self,
        documents: CharCorruptionDataset,
        pairs: Sequence[tuple[str, str]],
        template: QuestionTemplate,
        *,
        entity_mask_prob: float,
        context_chars: int,
        question_prefix_prob: float,
        weight_by_answer_odds: bool,
    ) -> None:
        self.documents, self.block_size = documents, documents.block_size
        self.entity_mask_prob, self.context_chars = entity_mask_prob, context_chars
        self.question_prefix_prob = question_prefix_prob
        places = {place for _, place in pairs}
        answers = {name: place for question, place in pairs if (name := template.name_in(question)) is not None}
        annotated = read_documents(documents.data, places, answers)
        if weight_by_answer_odds:
            annotated = weigh_by_answer_odds(annotated, answers, places)

        self._titles = torch.tensor([document.title_length for document in annotated])
        self._entities = torch.tensor([span for document in annotated for span in document.entities] or [(0, 0)])
        self._has_entities = torch.tensor([len(document.entities) > 0 for document in annotated])
        # the entities of document i divide the interval [i, i + 1) * MILLION among them by weight: where each part ends
        ends: list[int] = []
        for i, document in enumerate(annotated):
            sums = list(accumulate(document.weights))
            ends += [i * MILLION + round(MILLION * so_far / sums[-1]) for so_far in sums]
        self._ends = torch.tensor(ends, dtype=torch.int64)

        # the questions about all subjects follow the documents in one tensor of ids
        questions = [f"{template.ask(document.subject)} " if document.subject else "" for document in annotated]
        self._question_lengths = torch.tensor([len(question) for question in questions])
        ends_of_questions = torch.cumsum(self._question_lengths, 0)
        self._questions = len(documents._ids) + ends_of_questions - self._question_lengths
        try:
            ids = torch.tensor(documents.encode("".join(questions)), dtype=torch.int32)
        except ValueError as error:
            raise UserError(f"'{template}': {error}; word the question in characters of the text") from None
        self._ids = torch.cat((documents._ids, ids))

    def __len__(self) -> int:
        return len(self.documents)

    def draw(self, indices: Tensor) -> Spans:
        """Draws what to read of each document `indices` (B,), and which span of it to mask."""
        kind, prefix, which, left, right = torch.rand(5, len(indices), device=indices.device)  # (B,) each
        asks = prefix < self.question_prefix_prob
        document, title = self.documents._starts[indices], self._titles[indices]
        head = torch.where(asks, self._questions[indices], document)
        head_length = torch.where(asks, self._question_lengths[indices], title)

        entity = torch.searchsorted(self._ends, indices * MILLION + (which * MILLION).long(), right=True)
        start, end = self._entities[entity.clamp(max=len(self._entities) - 1)].unbind(1)  # (B,), in the document
        first = torch.maximum(title, start - (left * (self.context_chars + 1)).long())
        last = torch.minimum(self.documents._lengths[indices], end + (right * (self.context_chars + 1)).long())
        last = torch.minimum(last, first + self.documents.max_length - head_length)
        moved = head_length - first  # offset from positions in the document to positions in the text that is read
        salient = Spans(head, head_length, document + first, last + moved, start + moved, end - start)

        is_salient = (kind < self.entity_mask_prob) & self._has_entities[indices] & (end <= last)
        plain = self.documents.draw(indices)
        return Spans(*(torch.where(is_salient, a, b) for a, b in zip(salient, plain, strict=True)))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Reads documents `indices` (B,): x and y of shape (B, block_size - 1), int64, on the device of `indices`."""
        self.move_to(indices.device)
        self.documents.move_to(indices.device)
        return self.documents.corrupt(self._ids, self.draw(indices))
