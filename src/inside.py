"""Looking inside: how sure the model is, what else it might have said, and where it can know it from."""

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset import CharCorruptionDataset, is_about
from files import name_in
from model import GPT
from utils import answer, answer_log_probabilities, askable, evaluating, unanswerable

ROWS = 16  # questions asked at once
BINS = 10  # of equal width, over probabilities in [0, 1]


def likeliest_answers(
    model: GPT,
    vocabulary: CharCorruptionDataset,
    questions: Sequence[str],
    width: int = 5,
    beams: int = 20,
    progress: bool = False,
) -> list[list[tuple[str, float]]]:
    """For each question the `width` likeliest answers that a search over `beams` beginnings at a time finds, likeliest
    first, with probabilities: the product over the characters of the answer, end mark included.

    A question that cannot be asked has no answers.
    """
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    found: list[list[tuple[float, str]]] = [[] for _ in questions]
    n_askable = len(askable(vocabulary, questions))
    with evaluating(model), tqdm(total=n_askable, unit="question", disable=not progress, delay=2) as bar:
        for rows, asked in askable_batches(model, vocabulary, questions):
            x = asked[:, None]  # (n, beginnings, T)
            score = torch.zeros(x.shape[:2], device=x.device)  # log probabilities
            searched = rows  # n of them
            while searched and x.size(2) < vocabulary.block_size:
                n, beginnings, T = x.shape
                logits = model(x.flatten(0, 1))[0][:, -1]
                following = answer_log_probabilities(vocabulary, logits).view(n, beginnings, -1)
                total = score[:, :, None] + following  # (n, beginnings, vocab_size)
                for i, row in enumerate(searched):
                    ended = [vocabulary.decode(ids) for ids in x[i, :, asked.size(1) :].tolist()]
                    found[row] += zip(total[i, :, mask].tolist(), ended, strict=True)
                    found[row] = sorted((f for f in found[row] if f[0] > -math.inf), reverse=True)[:width]
                total[:, :, mask] = -torch.inf
                score, choice = total.flatten(1).topk(min(beams, total[0].numel()))  # (n, beams)
                parent, character = choice // following.size(-1), choice % following.size(-1)
                x = torch.cat((x.gather(1, parent[:, :, None].expand(-1, -1, T)), character[:, :, None]), dim=2)
                # a longer answer is never likelier than its beginning
                going = [i for i, row in enumerate(searched) if not full(found[row], width, float(score[i, 0]))]
                x, score, searched = x[going], score[going], [searched[i] for i in going]
            bar.update(len(rows))
    return [[(answer, math.exp(log_p)) for log_p, answer in answers] for answers in found]


def askable_batches(
    model: GPT, vocabulary: CharCorruptionDataset, questions: Sequence[str]
) -> Iterator[tuple[list[int], Tensor]]:
    """The questions that can be asked, those of one length together: their indices, and question MASK as ids (B, T)."""
    device = next(model.parameters()).device
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    by_length = askable(vocabulary, questions)
    while by_length:
        length = len(questions[by_length[0]])
        rows = [i for i in by_length[:ROWS] if len(questions[i]) == length]
        by_length = by_length[len(rows) :]
        yield rows, torch.tensor([[*vocabulary.encode(questions[i]), mask] for i in rows], device=device)


def full(found: list[tuple[float, str]], width: int, best_left: float) -> bool:
    """Whether nothing that is left to a beam search can enter the `width` answers found."""
    return len(found) == width and found[-1][0] >= best_left


def probabilities(
    model: GPT, vocabulary: CharCorruptionDataset, questions: Sequence[str], answers: Sequence[str]
) -> list[float]:
    """The probability of each answer to its question, end mark included; 0 where the question cannot be asked."""
    result = [0.0] * len(questions)
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    with evaluating(model):
        for rows, asked in askable_batches(model, vocabulary, questions):
            for row, x in zip(rows, asked, strict=True):
                said = torch.tensor([*vocabulary.encode(answers[row]), mask], device=x.device)
                logits = model(torch.cat((x, said[:-1]))[None])[0][0, len(x) - 1 :]  # (len(said), vocab_size)
                log_p = answer_log_probabilities(vocabulary, logits).gather(1, said[:, None])
                result[row] = math.exp(log_p.sum())
    return result


def stands_in(words: str, text: str) -> bool:
    """Whether the words stand in the text as words: "Ada" does not stand in "Adams"."""
    return words != "" and words in text and bool(re.search(as_words(words), text))


def as_words(words: str) -> str:
    """A regular expression that finds the words where no word goes on before or behind them."""
    return rf"(?<!\w){re.escape(words)}(?!\w)"


def one_cell(text: str) -> str:
    """The text without what would end a cell or a row of a TSV file."""
    return re.sub(r"[\t\r\n]", " ", text)


def line_about(name: str, documents: Sequence[str]) -> tuple[int, str]:
    """The line, from 1, and the text of the first document with the title `name`, else of the first that holds it.

    (0, "") where none does.
    """
    for wanted in (lambda document: is_about(document, name), lambda document: stands_in(name, document)):
        for number, document in enumerate(documents, 1):
            if wanted(document):
                return number, document
    return 0, ""


@dataclass
class Finding:
    """What there is to say about one name."""

    name: str
    answer: str  # as evaluate gives it, greedily; "" where the question cannot be asked
    probability: float
    likeliest: list[tuple[str, float]]
    line: int  # of the pretraining text, from 1; 0 where the name is not in it
    text: str
    unanswerable: str | None


def look_up(model: GPT, vocabulary: CharCorruptionDataset, name: str) -> Finding:
    """Asks the model where `name` was born, and the text whether it says so."""
    question = f"Where was {name} born?"
    reason = unanswerable(vocabulary, question)
    greedy = answer(model, vocabulary, [question])[0]
    (probability,) = probabilities(model, vocabulary, [question], [greedy])
    (likeliest,) = likeliest_answers(model, vocabulary, [question])
    return Finding(name, greedy, probability, likeliest, *line_about(name, vocabulary.data), reason)


COLUMNS = ["name", "answer", "probability", "line", "text", *(f"{w}_{i}" for i in range(1, 6) for w in ("answer", "p"))]


def as_row(finding: Finding) -> str:
    """The finding as a TSV row of COLUMNS."""
    likeliest = [cell for place, p in finding.likeliest for cell in (place, f"{p:.6f}")]
    likeliest += [""] * (10 - len(likeliest))
    cells = [finding.name, finding.answer, f"{finding.probability:.6f}", str(finding.line), finding.text, *likeliest]
    return "\t".join(map(one_cell, cells))


def as_screen(finding: Finding, corpus_path: str, colours: bool) -> str:
    """The finding for a reader at a terminal."""

    def paint(text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colours else text

    bold, green, yellow, dim = "1", "32", "33", "2"
    lines = [paint(finding.name, bold)]
    if finding.unanswerable is not None:
        return "\n".join([*lines, paint(f"  cannot be asked: {finding.unanswerable}", yellow), ""])
    for place, p in finding.likeliest:
        bar = "█" * round(30 * p)
        shown = f"  {place:28} {100 * p:5.1f} % {bar}"
        lines.append(paint(shown, bold) if place == finding.answer else shown)
    if not finding.line:
        lines.append(paint(f"  not in {corpus_path}: whatever the answer, it is made up", yellow))
    elif stands_in(finding.answer, finding.text):
        text = re.sub(as_words(finding.answer), lambda found: paint(found[0], green), finding.text)
        lines.append(f"  {corpus_path}, line {finding.line}, holds the answer: {text}")
    else:
        lines.append(f"  {corpus_path}, line {finding.line}, does not hold the answer: {paint(finding.text, dim)}")
    return "\n".join([*lines, ""])


@dataclass
class Asked:
    """A row of the report: one question, what was answered, and what can be known of it."""

    question: str
    prediction: str
    truth: str
    correct: bool
    probability: float  # of the prediction
    margin: float  # to the likeliest other answer
    name_in_text: bool
    truth_in_line: bool  # of the text about that person
    prediction_in_line: bool
    prediction_trained_on: bool | None  # as an answer of the finetuning pairs; None where those are not given


def examine(
    model: GPT,
    vocabulary: CharCorruptionDataset,
    pairs: Sequence[tuple[str, str]],
    predictions: Sequence[str],
    trained_on: set[str] | None,
) -> list[Asked]:
    """What can be known of each prediction; searches for its rivals with a progress bar."""
    questions = [question for question, _ in pairs]
    chances = probabilities(model, vocabulary, questions, predictions)
    rivals = likeliest_answers(model, vocabulary, questions, width=2, beams=5, progress=True)
    rows = []
    for (question, truth), prediction, p, likeliest in zip(pairs, predictions, chances, rivals, strict=True):
        line, text = line_about(name_in(question), vocabulary.data)
        rival = max((q for place, q in likeliest if place != prediction), default=0.0)
        in_line = stands_in(prediction, text)
        known = None if trained_on is None else prediction in trained_on
        rows.append(
            Asked(
                question,
                prediction,
                truth,
                prediction == truth,
                p,
                p - rival,
                line > 0,
                stands_in(truth, text),
                in_line,
                known,
            )
        )
    return rows


def as_table(rows: Sequence[Asked]) -> str:
    """The rows as TSV, below the names of their fields."""
    lines = [[field.name for field in fields(Asked)]]
    for row in rows:
        lines.append([f"{value:.6f}" if isinstance(value, float) else str(value) for value in astuple(row)])
    return "".join("\t".join(map(one_cell, cells)) + "\n" for cells in lines)


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Which of the BINS each confidence falls into."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error: how far accuracy is from mean confidence, over bins of equal width, weighted by
    their counts (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3)."""
    which = bin_of(confidence)
    return sum(
        abs(correct[which == b].mean() - confidence[which == b].mean()) * np.mean(which == b) for b in np.unique(which)
    )


def auroc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The chance that a right answer is more probable than a wrong one, a tie counting half."""
    right, wrong = confidence[correct], confidence[~correct]
    if not len(right) or not len(wrong):
        return math.nan
    above = (right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    return float(above)


def summary(rows: Sequence[Asked]) -> str:
    """The table of a report: accuracy by what the text holds, and whether the probability tells."""
    correct = np.array([row.correct for row in rows])
    confidence = np.array([row.probability for row in rows])
    groups = {
        "the place stands in the line about the person": [row.truth_in_line for row in rows],
        "only the name stands in the text": [row.name_in_text and not row.truth_in_line for row in rows],
        "neither": [not row.name_in_text for row in rows],
    }
    lines = [f"{'':48}{'correct':>9}{'of':>6}{'percent':>10}"]
    for name, members in groups.items():
        lines.append(share(name, correct[np.array(members, dtype=bool)]))
    surest = np.argsort(-confidence, kind="stable")
    for percent in (10, 25, 50):
        lines.append(share(f"the surest {percent} %", correct[surest[: math.ceil(len(rows) * percent / 100)]]))
    lines.append(f"expected calibration error {100 * calibration_error(confidence, correct):.1f} %, ")
    lines[-1] += f"AUROC of the probability as a sign of a right answer {auroc(confidence, correct):.3f}"
    wrong = [row for row in rows if not row.correct]
    elsewhere = [row for row in wrong if not row.prediction_in_line]
    lines.append(f"of {len(wrong)} wrong answers {len(wrong) - len(elsewhere)} stand in the line about the person")
    if rows[0].prediction_trained_on is not None:
        trained_on = sum(row.prediction_trained_on for row in elsewhere)
        lines[-1] += f", {trained_on} more are places of the training pairs, {len(elsewhere) - trained_on} neither"
    return "\n".join(lines)


def share(name: str, correct: np.ndarray) -> str:
    """A row of the summary."""
    percent = f"{100 * correct.mean():10.1f}" if len(correct) else f"{'-':>10}"
    return f"{name:48}{correct.sum():9}{len(correct):6}{percent}"


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, size: int = 300) -> np.ndarray:
    """Accuracy over confidence as bars, the diagonal in red: (size, size, 3) uint8."""
    image = np.full((size, size, 3), 255, dtype=np.uint8)
    which = bin_of(confidence)
    for b in np.unique(which):
        height = round(size * correct[which == b].mean())
        image[size - height :, b * size // BINS + 1 : (b + 1) * size // BINS - 1] = (70, 120, 180)
    diagonal = np.arange(size)
    image[size - 1 - diagonal, diagonal] = (220, 50, 50)
    return image


def attention_maps(model: GPT, vocabulary: CharCorruptionDataset, question: str, prediction: str) -> list[np.ndarray]:
    """What each layer's heads look at while they answer: for each attention layer (n_head, Tq, Tk) weights."""
    on_cpu = copy.deepcopy(model).cpu()  # where the weights are computed one by one, not inside a fused kernel
    maps: list[np.ndarray] = []
    n_head = next(module.n_head for module in on_cpu.modules() if hasattr(module, "n_head"))

    def keep(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        weights = inputs[0]
        maps.append(weights.reshape(n_head, *weights.shape[-2:]).numpy())

    for name, module in on_cpu.named_modules():
        if name.endswith("attn_drop"):
            module.register_forward_hook(keep)
    mask = vocabulary.stoi[vocabulary.MASK_CHAR]
    with evaluating(on_cpu):
        on_cpu(torch.tensor([[*vocabulary.encode(question), mask, *vocabulary.encode(prediction)]]))
    return maps


def attention_picture(maps: Sequence[np.ndarray]) -> np.ndarray:
    """A row of heads for each layer, dark where a head looks: (height, width, 3) uint8."""
    height, width = (max(m.shape[axis] for m in maps) + 2 for axis in (1, 2))
    rows = [
        np.hstack([np.pad(head, ((0, height - head.shape[0]), (0, width - head.shape[1]))) for head in layer])
        for layer in maps
    ]
    grey = 255 - np.round(255 * np.vstack(rows)).astype(np.uint8)
    pixel = np.ones((3, 3), dtype=np.uint8)  # of the picture for one weight
    return np.repeat(np.kron(grey, pixel)[:, :, None], 3, axis=2)
