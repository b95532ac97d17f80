"""Greedy answers, beam search, and the probabilities of answers."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from dataset import CharCorruptionDataset
from model import GPT, evaluating
from recipe import MASK


def unanswerable(vocabulary: CharCorruptionDataset, question: str) -> str | None:
    """Why the model cannot be asked this question, or None if it can."""
    missing = vocabulary.missing(question)
    if missing is None and len(question) + 2 > vocabulary.block_size:  # room for a MASK and one character of the answer
        return f"the question has {len(question)} characters, at most {vocabulary.block_size - 2} fit into the block"
    return missing


def askable(vocabulary: CharCorruptionDataset, questions: Sequence[str]) -> list[int]:
    """Which of the questions the model can be asked, the shortest first."""
    possible = [i for i, question in enumerate(questions) if unanswerable(vocabulary, question) is None]
    return sorted(possible, key=lambda i: len(questions[i]))


def same_length_batches(
    model: GPT, vocabulary: CharCorruptionDataset, questions: Sequence[str], batch_size: int = 16
) -> Iterator[tuple[list[int], Tensor]]:
    """The askable() questions in batches of one length, whose positions need no padding.

    Yields their indices and, on the model's device, the ids of question MASK: (B, T) int64.
    """
    device = next(model.parameters()).device
    for _, group in groupby(askable(vocabulary, questions), key=lambda i: len(questions[i])):
        rows = list(group)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            yield batch, torch.tensor([vocabulary.encode_marked(questions[i]) for i in batch], device=device)


def next_log_probabilities(vocabulary: CharCorruptionDataset, logits: Tensor) -> Tensor:
    """Logits (N, vocab_size), changed in place, to log probabilities of the next character: no PAD, line end or tab."""
    for excluded in (vocabulary.PAD_CHAR, "\n", "\t"):
        if excluded in vocabulary.stoi:
            logits[:, vocabulary.stoi[excluded]] = -torch.inf
    return F.log_softmax(logits, dim=-1)


def answer(
    model: GPT,
    vocabulary: CharCorruptionDataset,
    questions: Sequence[str],
    batch_size: int = 64,
    longest: int | None = None,
    progress: bool = False,
) -> list[str]:
    """The model's answer to each question, decoded greedily in fp32: the characters after the MASK that ends the
    question, up to the next MASK, `longest` characters, or the end of the block.

    Questions of similar length are answered together; batches of one length would be smaller and take longer. No
    position sees the padding after a shorter question, so an answer does not depend on the other questions, unless
    rounding decides between two characters. A question that is unanswerable() gets the answer "".
    """
    device = next(model.parameters()).device
    rows = askable(vocabulary, questions)
    strings = {i: vocabulary.encode_marked(questions[i]) for i in rows}  # question MASK, and the answer so far
    room = vocabulary.block_size if longest is None else longest
    ends = {i: min(vocabulary.block_size, len(string) + room) for i, string in strings.items()}
    with evaluating(model), tqdm(total=len(questions), unit="question", disable=not progress, delay=2) as bar:
        bar.update(len(questions) - len(rows))
        for start in range(0, len(rows), batch_size):
            going = rows[start : start + batch_size]
            while going:
                x = pad_sequence([torch.tensor(strings[i]) for i in going], batch_first=True).to(device)  # (B, T)
                last = torch.tensor([len(strings[i]) - 1 for i in going], device=device)
                logits = model(x)[0][torch.arange(len(going), device=device), last]  # (B, vocab_size)
                choice = next_log_probabilities(vocabulary, logits).argmax(dim=-1)
                for i, character in zip(going, choice.tolist(), strict=True):
                    strings[i].append(character)
                going = [i for i in going if strings[i][-1] != MASK and len(strings[i]) < ends[i]]
            bar.update(len(rows[start : start + batch_size]))
    written = {i: strings[i][len(questions[i]) + 1 :] for i in rows}
    return [vocabulary.decode(written.get(i, [])).removesuffix(vocabulary.MASK_CHAR) for i in range(len(questions))]


def likeliest_answers(
    model: GPT,
    vocabulary: CharCorruptionDataset,
    questions: Sequence[str],
    n_best: int = 5,
    beams: int = 20,
    progress: bool = False,
) -> list[list[tuple[str, float]]]:
    """For each question the `n_best` likeliest answers that a beam search finds, likeliest first, with probabilities.

    A probability is the product over the characters of the answer, end mark included. A question that is
    unanswerable() has no answers.
    """
    found: list[list[tuple[float, str]]] = [[] for _ in questions]
    with evaluating(model), tqdm(total=len(questions), unit="question", disable=not progress, delay=2) as bar:
        for rows, prompts in same_length_batches(model, vocabulary, questions):
            x = prompts[:, None]  # (B, 1, T); later (B, beams, T)
            score = torch.zeros(x.shape[:2], device=x.device)  # log probabilities
            searched = rows  # B of them
            while searched and x.size(2) < vocabulary.block_size:
                B, _, T = x.shape
                logits = model(x.flatten(0, 1))[0][:, -1]  # (B * beams, vocab_size)
                following = next_log_probabilities(vocabulary, logits).view(B, -1, logits.size(-1))
                total = score[:, :, None] + following  # (B, beams, vocab_size)
                for i, row in enumerate(searched):
                    ended = [vocabulary.decode(ids) for ids in x[i, :, prompts.size(1) :].tolist()]
                    found[row] += zip(total[i, :, MASK].tolist(), ended, strict=True)
                    found[row] = sorted((f for f in found[row] if f[0] > -math.inf), reverse=True)[:n_best]
                total[:, :, MASK] = -torch.inf
                score, choice = total.flatten(1).topk(min(beams, total[0].numel()))  # (B, beams)
                parent, character = choice // following.size(-1), choice % following.size(-1)
                x = torch.cat((x.gather(1, parent[:, :, None].expand(-1, -1, T)), character[:, :, None]), dim=2)
                # a longer answer is never likelier than its beginning
                going = [i for i, row in enumerate(searched) if not is_settled(found[row], n_best, float(score[i, 0]))]
                x, score, searched = x[going], score[going], [searched[i] for i in going]
            bar.update(len(rows))
        bar.update(len(questions) - bar.n)  # those that cannot be asked
    return [[(text, math.exp(log_p)) for log_p, text in answers] for answers in found]


def is_settled(found: list[tuple[float, str]], n_best: int, best_left: float) -> bool:
    """Whether no remaining beam can still get among the `n_best` answers found."""
    return len(found) == n_best and found[-1][0] >= best_left


def answer_probabilities(
    model: GPT, vocabulary: CharCorruptionDataset, questions: Sequence[str], answers: Sequence[str]
) -> list[float]:
    """The probability of each answer to its question, end mark included; 0 if the question is unanswerable()."""
    result = [0.0] * len(questions)
    device = next(model.parameters()).device
    with evaluating(model):
        for row in askable(vocabulary, questions):  # one by one, since answers differ in length
            prompt, answer = (vocabulary.encode_marked(text) for text in (questions[row], answers[row]))
            x = torch.tensor([prompt + answer[:-1]], device=device)  # (1, T)
            logits = model(x)[0][0, len(prompt) - 1 :]  # (len(answer), vocab_size)
            target = torch.tensor(answer, device=device)[:, None]  # (len(answer), 1)
            result[row] = math.exp(next_log_probabilities(vocabulary, logits).gather(1, target).sum())
    return result
