"""Scoring, what the text says about a name, and how well probabilities predict right answers. numpy only."""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from question import as_words

BINS = 10  # of equal width, over probabilities in [0, 1]
LIKELIEST = 5  # answers that ask shows


# scoring


def count_right(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> int:
    """How many predictions equal the place of their pair, ignoring blanks around both."""
    return sum(is_right(place, prediction) for (_, place), prediction in zip(pairs, predictions, strict=True))


def is_right(place: str | None, prediction: str) -> bool:
    return place is not None and place.strip() == prediction.strip()


def count_near_misses(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> int:
    """How many wrong predictions differ from their place only in case, Unicode form or blanks inside."""
    return sum(
        place is not None and not is_right(place, prediction) and folded(place) == folded(prediction)
        for (_, place), prediction in zip(pairs, predictions, strict=True)
    )


def near_misses_line(count: int) -> str:
    """The line that reports near misses."""
    return f"{count} wrong answers differ from the place only in case, Unicode form or blanks"


def folded(text: str) -> str:
    """The text in a form without differences of case, Unicode form (NFC, NFD) or blanks."""
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFD", text).casefold().split()))


def count_places(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> tuple[float, float]:
    """(total, correct) of predictions, one per pair. If the pairs have no places, prints so and returns (0, 0).

    Raises ValueError if the counts differ.
    """
    if pairs[0][1] is None:
        print("No gold birth places provided; returning (0,0)")
        return 0.0, 0.0
    if len(pairs) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(pairs)} questions")
    return float(len(pairs)), float(count_right(pairs, predictions))


def accuracy_line(total: float, correct: float) -> str:
    """The line that reports an accuracy, as the course's code prints it."""
    return f"Correct: {correct} out of {total}: {round(100 * correct / total, 2)}%"


# what the text says


def stands_in(words: str, text: str) -> bool:
    """Whether the text contains the words as words: "Adams" does not contain "Ada"."""
    return words != "" and words in text and re.search(as_words(words), text) is not None


@dataclass(frozen=True)
class Mention:
    """Where a name is in the text. Lines are counted from 1."""

    lines: tuple[int, ...]  # with that title, or else all that contain the name
    form: str  # the name as those lines have it; "" if it is nowhere


class TextIndex:
    """Finds names in the documents of a text; `titles` has the title of each document, "" if there is none."""

    def __init__(self, documents: Sequence[str], titles: Sequence[str]) -> None:
        self.documents = documents
        self.by_title: dict[str, list[int]] = {}
        for number, title in enumerate(titles, 1):
            if title:
                self.by_title.setdefault(title, []).append(number)
        self.text = "\n".join(documents)
        self.starts = np.cumsum([0, *(len(document) + 1 for document in documents)]).tolist()
        self.folded_text = ""  # made when it is first needed
        self.folded_starts: list[int] = []

    def find(self, name: str) -> Mention:
        """All lines about a name: with that title, else with the name anywhere, else with another form of it."""
        if name in self.by_title:
            return Mention(tuple(self.by_title[name]), name)
        lines = self.lines_with(name, self.text, self.starts)
        if lines:
            return Mention(lines, name)
        if not self.folded_starts:
            lines_folded = [folded(document) for document in self.documents]
            self.folded_text = "\n".join(lines_folded)
            self.folded_starts = np.cumsum([0, *(len(line) + 1 for line in lines_folded)]).tolist()
        lines = self.lines_with(folded(name), self.folded_text, self.folded_starts)
        return Mention(lines, self.form_in(self.documents[lines[0] - 1], name) if lines else "")

    @staticmethod
    def lines_with(name: str, text: str, starts: list[int]) -> tuple[int, ...]:
        """The lines of the text that contain the name as words."""
        if not name or name not in text:
            return ()
        found = re.finditer(as_words(name), text)
        return tuple(dict.fromkeys(bisect_right(starts, match.start()) for match in found))

    @staticmethod
    def form_in(line: str, name: str) -> str:
        """The name as the line has it: the shortest run of words that folds to the name."""
        wanted, words = folded(name), list(re.finditer(r"\S+", line))
        for first in words:
            for last in words[words.index(first) :]:
                candidate = line[first.start() : last.end()].rstrip(".,;:!?)")
                if folded(candidate) == wanted:
                    return candidate
        return name


# ask


@dataclass(frozen=True)
class Finding:
    """What the model and the text say about one name."""

    name: str
    answer: str  # as evaluate gives it, greedily; "" if the question cannot be asked
    probability: float
    likeliest: list[tuple[str, float]]
    mention: Mention
    line: int  # of those about the name, the first that contains the answer, else the first; 0 if there is none
    text: str  # of that line
    reason: str | None  # why it cannot be asked


def pick_line(mention: Mention, documents: Sequence[str], answer: str) -> tuple[int, str]:
    """The first line about a name that contains the answer, else the first line: its number and text."""
    lines = [(number, documents[number - 1]) for number in mention.lines]
    return next((line for line in lines if stands_in(answer, line[1])), lines[0] if lines else (0, ""))


COLUMNS = ["name", "answer", "probability", "lines", "line", "text", "reason"]
COLUMNS += [f"{what}_{i}" for i in range(1, LIKELIEST + 1) for what in ("answer", "p")]


def one_cell(text: str) -> str:
    """The text with tabs and line ends replaced, which would end a cell or a row of a TSV file."""
    return re.sub(r"[\t\r\n]", " ", text)


def as_row(finding: Finding) -> str:
    """The finding as a TSV row of COLUMNS."""
    likeliest = [cell for place, p in finding.likeliest for cell in (place, f"{p:.6f}")]
    likeliest += [""] * (2 * LIKELIEST - len(likeliest))
    counts = [f"{finding.probability:.6f}", str(len(finding.mention.lines)), str(finding.line)]
    return "\t".join(
        map(one_cell, [finding.name, finding.answer, *counts, finding.text, finding.reason or "", *likeliest])
    )


def as_screen(finding: Finding, corpus_path: str, colours: bool) -> str:
    """The finding for a reader at a terminal."""

    def paint(text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colours else text

    bold, green, yellow, dim = "1", "32", "33", "2"
    lines = [paint(finding.name, bold)]
    if finding.reason is not None:
        return "\n".join([*lines, paint(f"  cannot be asked: {finding.reason}", yellow), ""])
    for place, p in finding.likeliest:
        bar = "█" * round(30 * p)
        shown = f"  {place:28} {100 * p:5.1f} % {bar}"
        lines.append(paint(shown, bold) if place == finding.answer else shown)
    mention = finding.mention
    where = f"{corpus_path}, line {finding.line}"
    if len(mention.lines) > 1:
        where += f" (of {len(mention.lines)} about the name)"
    if not mention.lines:
        lines.append(paint(f"  not in {corpus_path}: whatever the answer, it is made up", yellow))
    elif mention.form != finding.name:
        lines.append(paint(f"  {where}, has the name as {mention.form!r}; ask for that", yellow))
    elif stands_in(finding.answer, finding.text):
        text = re.sub(as_words(finding.answer), lambda found: paint(found[0], green), finding.text)
        lines.append(f"  {where}, contains the answer: {text}")
    else:
        lines.append(f"  {where}, does not contain the answer: {paint(finding.text, dim)}")
    return "\n".join([*lines, ""])


# the report of evaluate


@dataclass
class Asked:
    """A row of the report: one question, its answer, and what is known about it."""

    question: str
    prediction: str
    truth: str
    correct: bool
    probability: float  # of the prediction
    margin: float  # to the likeliest other answer
    name_in_text: bool
    truth_in_line: bool  # of the text about that person
    prediction_in_line: bool
    prediction_trained_on: bool | None  # whether it is an answer in the finetuning pairs; None if they are not given


def examine(
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str | None],
    predictions: Sequence[str],
    probabilities: Sequence[float],
    rivals: Sequence[Sequence[tuple[str, float]]],
    index: TextIndex,
    trained_on: set[str] | None,
) -> list[Asked]:
    """A row for each question: `names` are those that the questions ask about, `rivals` the likeliest answers."""
    rows = []
    for (question, truth), name, prediction, p, likeliest in zip(
        pairs, names, predictions, probabilities, rivals, strict=True
    ):
        mention = index.find(name) if name else Mention((), "")
        documents = [index.documents[line - 1] for line in mention.lines]
        rival = max((q for place, q in likeliest if place != prediction), default=0.0)
        rows.append(
            Asked(
                question,
                prediction,
                truth,
                is_right(truth, prediction),
                p,
                p - rival,
                bool(mention.lines),
                any(stands_in(truth, document) for document in documents),
                any(stands_in(prediction, document) for document in documents),
                None if trained_on is None else prediction in trained_on,
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
    """The bin of each confidence, 0 .. BINS - 1."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error: how far accuracy is from mean confidence, over bins of equal width, weighted by
    their counts (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3)."""
    which = bin_of(confidence)
    return sum(
        abs(correct[which == b].mean() - confidence[which == b].mean()) * np.mean(which == b) for b in np.unique(which)
    )


def auroc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The chance that a right answer has a higher probability than a wrong one; a tie counts half."""
    right, wrong = confidence[correct], confidence[~correct]
    if not len(right) or not len(wrong):
        return math.nan
    above = (right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    return float(above)


def summary(rows: Sequence[Asked]) -> str:
    """The table of a report: accuracy by what the text contains, calibration, and what the wrong answers are."""
    correct = np.array([row.correct for row in rows])
    confidence = np.array([row.probability for row in rows])
    groups = {
        "a line about the person contains the place": [row.truth_in_line for row in rows],
        "the text contains only the name": [row.name_in_text and not row.truth_in_line for row in rows],
        "neither": [not row.name_in_text for row in rows],
    }
    lines = [f"{'':48}{'correct':>9}{'of':>6}{'percent':>10}"]
    for name, members in groups.items():
        lines.append(share(name, correct[np.array(members, dtype=bool)]))
    surest = np.argsort(-confidence, kind="stable")
    for percent in (10, 25, 50):
        lines.append(share(f"the surest {percent} %", correct[surest[: math.ceil(len(rows) * percent / 100)]]))
    lines.append(f"expected calibration error {100 * calibration_error(confidence, correct):.1f} %, ")
    lines[-1] += f"AUROC of the probability as a predictor of a right answer {auroc(confidence, correct):.3f}"
    wrong = [row for row in rows if not row.correct]
    elsewhere = [row for row in wrong if not row.prediction_in_line]
    lines.append(f"of {len(wrong)} wrong answers, {len(wrong) - len(elsewhere)} are in a line about the person")
    if rows[0].prediction_trained_on is not None:
        trained_on = sum(row.prediction_trained_on for row in elsewhere)
        lines[-1] += f", {trained_on} more are places of the training pairs, {len(elsewhere) - trained_on} neither"
    near = count_near_misses([(row.question, row.truth) for row in rows], [row.prediction for row in rows])
    if near:
        lines.append(near_misses_line(near))
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


def attention_picture(maps: Sequence[np.ndarray]) -> np.ndarray:
    """A row of heads for each layer, dark where the weights are large: (height, width, 3) uint8."""
    height, width = (max(m.shape[axis] for m in maps) + 2 for axis in (1, 2))
    rows = [
        np.hstack([np.pad(head, ((0, height - head.shape[0]), (0, width - head.shape[1]))) for head in layer])
        for layer in maps
    ]
    grey = 255 - np.round(255 * np.vstack(rows)).astype(np.uint8)
    pixel = np.ones((3, 3), dtype=np.uint8)  # how large one weight is drawn
    return np.repeat(np.kron(grey, pixel)[:, :, None], 3, axis=2)
