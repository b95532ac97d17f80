"""The datasets of fast and open: salient span masking (SalientSpanDataset), and reading fact by fact (FactDataset)."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from cli import UserError
from dataset import BatchDataset, CharCorruptionDataset, Spans, inputs_and_targets
from entities import find_facts, read_documents, weigh_by_answer_odds
from question import QuestionTemplate
from recipe import MASK, PAD, Recipe

SHARES = 10**6  # integer shares of a document, since float32 cannot resolve i + 0.1 for a large i
MOST_FACTS = 64  # in a row; of a document with more, this many neighboring ones are drawn
FRONT_PIECES = 3  # of a row of facts: words from anywhere, the title, a space
FACT_PIECES = 6  # of a fact: what comes before the span, MASK, what comes after it, MASK, the span, MASK


class SalientSpanDataset(BatchDataset):
    """Salient span masking (Guu et al. 2020, REALM, section 3.4): with probability entity_mask_prob, the masked span is
    an entity of the document, such as "Warsaw" or "Royal Academy"; otherwise it is random, as in CharCorruptionDataset.

    Of a document with a masked entity, a row holds a head, the entity, and at most context_chars characters on either
    side of it. The head is the title, "Ada Lovelace. ", or, with probability question_prefix_prob, the question about
    the subject, "Where was Ada Lovelace born? ": each fact is learned under the phrasing used at test time. The head is
    empty where the title or the subject is missing.

    With weight_by_answer_odds, entities are drawn in proportion to the odds that they are answers instead of uniformly
    (entities.weigh_by_answer_odds()), and question_prefix_prob is multiplied by the document's relevance, which is low
    if other documents about the subject are likelier to hold the answer. Raises UserError if the text lacks characters
    of the question.
    """

    def __init__(
        self,
        documents: CharCorruptionDataset,
        pairs: Sequence[tuple[str, str]],
        template: QuestionTemplate,
        recipe: Recipe,
    ) -> None:
        self.documents = documents
        self.entity_mask_prob, self.context_chars = recipe.entity_mask_prob, recipe.context_chars
        self.question_prefix_prob = recipe.question_prefix_prob
        places = {place for _, place in pairs}
        answers = {name: place for question, place in pairs if (name := template.name_in(question)) is not None}
        annotated = read_documents(documents.data, places, answers)
        if recipe.weight_by_answer_odds:
            annotated = weigh_by_answer_odds(annotated, answers, places)

        self._title_lengths = torch.tensor([document.title_length for document in annotated])
        self._relevance = torch.tensor([document.relevance for document in annotated])
        self._entities = torch.tensor([span for document in annotated for span in document.entities] or [(0, 0)])
        self._has_entities = torch.tensor([len(document.entities) > 0 for document in annotated])
        # the entities of document i share the interval [i, i + 1) * SHARES in proportion to their weights:
        # each share ends at one of these
        ends: list[int] = []
        for i, document in enumerate(annotated):
            sums = list(accumulate(document.weights))
            ends += [i * SHARES + round(SHARES * so_far / sums[-1]) for so_far in sums]
        self._share_ends = torch.tensor(ends, dtype=torch.int64)

        self.append_questions(template, [document.subject for document in annotated])

    def append_questions(self, template: QuestionTemplate, subjects: list[str]) -> None:
        """Appends the questions about all subjects to the documents, in one tensor of ids. Raises UserError."""
        gap = " " if " " in self.documents.stoi else ""  # scripts such as Chinese do without spaces
        questions = [f"{template.ask(subject)}{gap}" if subject else "" for subject in subjects]
        self._question_lengths = torch.tensor([len(question) for question in questions])
        ends_of_questions = torch.cumsum(self._question_lengths, 0)
        self._question_starts = len(self.documents.ids) + ends_of_questions - self._question_lengths
        try:
            ids = torch.tensor(self.documents.encode("".join(questions)), dtype=torch.int32)
        except ValueError as error:
            raise UserError(f"'{template}': {error}; word the question in characters of the text") from None
        self._ids = torch.cat((self.documents.ids, ids))

    def __len__(self) -> int:
        return len(self.documents)

    def draw(self, indices: Tensor) -> Spans:
        """Draws what to read of each document `indices` (B,), and which span of it to mask."""
        kind, prefix, which, left, right = torch.rand(5, len(indices), device=indices.device)  # (B,) each
        asks = prefix < self.question_prefix_prob * self._relevance[indices]
        document, body = self.documents.starts[indices], self._title_lengths[indices]
        head = torch.where(asks, self._question_starts[indices], document)
        head_length = torch.where(asks, self._question_lengths[indices], body)

        entity = torch.searchsorted(self._share_ends, indices * SHARES + (which * SHARES).long(), right=True)
        start, end = self._entities[entity.clamp(max=len(self._entities) - 1)].unbind(1)  # (B,), in the document
        # the window around the entity begins after the title, and ends where the text would exceed max_length
        first = torch.maximum(body, start - (left * (self.context_chars + 1)).long())
        last = torch.minimum(self.documents.lengths[indices], end + (right * (self.context_chars + 1)).long())
        last = torch.minimum(last, first + self.documents.max_length - head_length)
        shift = head_length - first  # offset from positions in the document to positions in the text that is read
        salient = Spans(head, head_length, document + first, last + shift, start + shift, end - start)

        # a document whose entity does not fit gets a random span
        is_salient = (kind < self.entity_mask_prob) & self._has_entities[indices] & (end <= last)
        plain = self.documents.draw(indices)
        return Spans(*(torch.where(is_salient, a, b) for a, b in zip(salient, plain, strict=True)))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Reads documents `indices` (B,): x and y of shape (B, block_size - 1), int64, on the device of `indices`."""
        self.move_to(indices.device)
        return self.documents.corrupt(self._ids, self.draw(indices))


class FactDataset(BatchDataset):
    """Reads a document fact by fact, without knowing what will be asked.

    A row consists of up to prefix_words words from anywhere in the text, the document's title, and then as many of its
    facts as fit, in random order. A fact is "context MASK context MASK span MASK", as in CharCorruptionDataset, with at
    most context_chars characters on either side of the span, or, half of the time, "context MASK span MASK". Half of
    the titles lose their full stop. Facts that are read in several forms are easier to ask for in a new form.

    Spans are names (runs of capitalized words), numbers, dates and, with a word_weight above 0, runs of rare words;
    word_weight is how likely a run of rare words is to be read next, compared with a name: entities.find_facts(). In a
    document without a title, the beginning up to the end of the first name takes its place. A document without spans,
    or whose first span does not fit, is read by span corruption.
    """

    def __init__(self, documents: CharCorruptionDataset, recipe: Recipe) -> None:
        self.documents, self.block_size = documents, documents.block_size
        self.context_chars, self.prefix_words = recipe.context_chars, recipe.prefix_words
        facts = find_facts(documents.data, recipe.word_weight)
        self._head_lengths = torch.tensor([head for head, _ in facts])
        self._has_title = torch.tensor(
            [text.endswith(". ", 0, head) for text, (head, _) in zip(documents.data, facts, strict=True)]
        )
        self._counts = torch.tensor([len(of_document) for _, of_document in facts])
        self._first_facts = torch.cumsum(self._counts, 0) - self._counts
        flat = [fact for _, of_document in facts for fact in of_document] or [(0, 0, 1.0)]
        self._facts = torch.tensor([(start, end) for start, end, _ in flat])  # (facts, 2), in the document
        self._weights = torch.tensor([weight for _, _, weight in flat])
        self.most_facts = min(MOST_FACTS, max(1, int(self._counts.max())))

        mark = torch.tensor([MASK], dtype=torch.int32)
        self._mark = len(documents.ids)  # where MASK is in _ids
        self._ids = torch.cat((documents.ids, mark))
        is_space = (documents.ids == documents.stoi.get(" ", -1)) | (documents.ids == documents.stoi.get("\n", -1))
        starts = torch.ones(len(documents.ids), dtype=torch.bool)
        starts[1:] = is_space[:-1] & ~is_space[1:]
        self._word_starts = starts.nonzero()[:, 0]  # where words begin

    def __len__(self) -> int:
        return len(self.documents)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Reads documents `indices` (B,): x and y of shape (B, block_size - 1), int64, on the device of `indices`."""
        self.move_to(indices.device)
        starts, lengths = self.pieces(indices)  # (B, P)
        ends = torch.cumsum(lengths, 1)  # (B, P), in the row
        position = torch.arange(self.block_size, device=indices.device).expand(len(indices), -1).contiguous()
        piece = torch.searchsorted(ends, position, right=True).clamp(max=ends.size(1) - 1)  # both (B, block_size)
        source = starts.gather(1, piece) + position - (ends - lengths).gather(1, piece)  # (B, block_size)
        string = self._ids[source.clamp(0, len(self._ids) - 1)].long()
        x, y = inputs_and_targets(string.masked_fill(position >= ends[:, -1:], PAD))
        if self.documents.loss_on_span:
            is_target = (piece >= FRONT_PIECES) & ((piece - FRONT_PIECES) % FACT_PIECES >= FACT_PIECES - 2)
            y = y.masked_fill(~is_target[:, 1:], PAD)
        has_facts = ((starts == self._mark) & (lengths > 0)).any(1, keepdim=True)
        plain_x, plain_y = self.documents.batch(indices)
        return torch.where(has_facts, x, plain_x), torch.where(has_facts, y, plain_y)

    def pieces(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The pieces of _ids that make up the rows for documents `indices` (B,).

        Returns where they start and their lengths, 0 for what is left out: both (B, P), where
        P = FRONT_PIECES + FACT_PIECES * K.
        """
        words, n_words = self.random_words(len(indices), indices.device)
        document, head = self.documents.starts[indices], self._head_lengths[indices]  # (B,)
        no_stop = self._has_title[indices] * torch.randint(2, head.shape, device=indices.device)
        starts, lengths = self.facts(indices)  # (B, K, FACT_PIECES)
        row_lengths = (n_words + head)[:, None] + torch.cumsum(lengths.sum(-1), 1)  # (B, K)
        lengths = lengths * (row_lengths <= self.block_size)[..., None]
        # the title in two pieces: "Ada Lovelace." or "Ada Lovelace", and " "
        front = torch.stack((words, document, document + head - 1), 1)
        front_lengths = torch.stack((n_words, (head - 1 - no_stop).clamp(min=0), head.clamp(max=1)), 1)
        return torch.cat((front, starts.flatten(1)), 1), torch.cat((front_lengths, lengths.flatten(1)), 1)

    def random_words(self, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Up to prefix_words consecutive words for each row: where they start in _ids, and their length (rows,)."""
        wanted = torch.randint(self.prefix_words + 1, (rows,), device=device)
        first = (torch.rand(rows, device=device) * (len(self._word_starts) - self.prefix_words)).long().clamp(min=0)
        start, end = self._word_starts[first], self._word_starts[(first + wanted).clamp(max=len(self._word_starts) - 1)]
        length = end - start
        in_one_document = torch.searchsorted(self.documents.starts, torch.stack((start, end)), right=True)
        return start, length * ((in_one_document[0] == in_one_document[1]) & (length < self.block_size // 4))

    def facts(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The facts of documents `indices` (B,) in random order, each as FACT_PIECES pieces of _ids.

        Returns where the pieces start and their lengths, both (B, K, FACT_PIECES), where K is most_facts.
        """
        counts = self._counts[indices][:, None]  # (B, 1)
        K, device = self.most_facts, indices.device
        skipped = (torch.rand(len(indices), 1, device=device) * (counts - K + 1).clamp(min=1)).long()
        numbers = torch.arange(K, device=device)  # (K,)
        exists = numbers < counts  # (B, K)
        facts = (self._first_facts[indices][:, None] + skipped + numbers).clamp(max=len(self._facts) - 1)
        # weighted sampling without replacement (Efraimidis and Spirakis 2006) as a race of exponential clocks: the next
        # to ring is drawn by weight from those that have not rung
        rings = torch.empty(exists.shape, device=device).exponential_() / self._weights[facts]
        order = rings.masked_fill(~exists, torch.inf).argsort(1)
        facts, exists = facts.gather(1, order), exists.gather(1, order)

        start, end = self._facts[facts].unbind(-1)  # (B, K), in the document
        left, right = (torch.rand(2, *start.shape, device=device) * (self.context_chars + 1)).long()
        document, length = self.documents.starts[indices][:, None], self.documents.lengths[indices][:, None]  # (B, 1)
        first = torch.maximum(self._head_lengths[indices][:, None], start - left)
        last = torch.minimum(length, end + right)
        mark, one = torch.full_like(start, self._mark), torch.ones_like(start)
        reads_after = torch.randint(2, start.shape, device=device)  # 0 or 1
        pieces = (  # FACT_PIECES: where they start, and their lengths
            (document + first, start - first),
            (mark, one),
            (document + end, reads_after * (last - end)),
            (mark, reads_after),
            (document + start, end - start),
            (mark, one),
        )
        starts, lengths = (torch.stack(parts, -1) for parts in zip(*pieces, strict=True))
        return starts, lengths * exists[..., None]
