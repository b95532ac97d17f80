"""What the text says about a name, and how well probabilities predict right answers. Imports no torch."""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property

import numpy as np

from question import Names, count_near_misses, find_words, folded, is_right, near_misses_line, stands_in

BINS = 10  # of equal width, over probabilities in [0, 1]
N_LIKELIEST = 5  # answers that ask shows


# what the text says


@dataclass(frozen=True)
class Mention:
    """Where a name is in the text. Lines are counted from 1."""

    lines: tuple[int, ...]  # with that title, or else all that contain the name
    form: str  # the name as the first of those lines has it; "" if it is nowhere


@dataclass(frozen=True)
class Evidence:
    """What the text says about a name, and whether it supports an answer."""

    mention: Mention
    supporting: tuple[int, ...]  # those of its lines that contain the answer
    line: int  # the first of them, else the first about the name; 0 if there is none
    text: str  # of that line


class NameIndex:
    """Finds the lines about a name; `titles` has the title of each line, "" if there is none."""

    def __init__(self, lines: Sequence[str], titles: Sequence[str]) -> None:
        self.text = "\n".join(lines)
        self.starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
        self.by_title: dict[str, list[int]] = {}
        for number, title in enumerate(titles, 1):
            if title:
                self.by_title.setdefault(title, []).append(number)

    def find(self, name: str) -> tuple[int, ...]:
        """The numbers, from 1, of all lines with this title, or else of all that contain the name."""
        if name in self.by_title:
            return tuple(self.by_title[name])
        if "\n" in name:  # in no line, although two of them may read like this
            return ()
        return tuple(dict.fromkeys(bisect_right(self.starts, start) for start in find_words(name, self.text)))


class TextIndex:
    """Finds names in the documents of a text; `titles` has the title of each document, "" if there is none."""

    def __init__(self, documents: Sequence[str], titles: Sequence[str]) -> None:
        self.documents, self.titles = documents, titles
        self.exact = NameIndex(documents, titles)

    @cached_property
    def folded(self) -> NameIndex:
        """Built only when a name is not in the text exactly as given."""
        return NameIndex([folded(document) for document in self.documents], [folded(title) for title in self.titles])

    @cached_property
    def names(self) -> Names:
        """The titles, for finding them in questions."""
        return Names(self.exact.by_title)

    def find(self, name: str) -> Mention:
        """All lines about a name: in exactly this form, or else in another case or Unicode form."""
        if lines := self.exact.find(name):
            return Mention(lines, name)
        if lines := self.folded.find(folded(name)):
            return Mention(lines, form_in(self.documents[lines[0] - 1], name))
        return Mention((), "")

    def supporting(self, mention: Mention, answer: str) -> tuple[int, ...]:
        """Those of the lines about a name that contain the answer."""
        return tuple(number for number in mention.lines if stands_in(answer.strip(), self.documents[number - 1]))

    def evidence(self, name: str, answer: str) -> Evidence:
        """What the text says about the name, and where it says the answer."""
        mention = self.find(name)
        supporting = self.supporting(mention, answer)
        line = (*supporting, *mention.lines, 0)[0]
        return Evidence(mention, supporting, line, self.documents[line - 1] if line else "")

    def name_in(self, question: str) -> str | None:
        """The longest title in a question of any wording, the first of several; None if there is none."""
        titles = (title for start in range(len(question)) for title in self.names.at(question, start))
        return max((title for title in titles if stands_in(title, question)), key=len, default=None)


def form_in(line: str, name: str) -> str:
    """The name as the line has it, in whatever case and Unicode form."""
    characters, positions = "", []  # of the folded line, and where in the line each comes from
    for position, character in enumerate(line):
        for part in folded(character) or " ":
            if part != " " or not characters.endswith(" "):
                characters += part
                positions.append(position)
    wanted = folded(name)
    start = next(find_words(wanted, characters), None)
    if start is None:  # the line has the marks of a letter in another order
        return wanted
    return line[positions[start] : positions[start + len(wanted) - 1] + 1]


# ask


@dataclass(frozen=True)
class Finding:
    """What the model and the text say about one name."""

    name: str
    answer: str  # as evaluate gives it, greedily; "" if the question cannot be asked
    probability: float
    likeliest: list[tuple[str, float]]  # answers and their probabilities, likeliest first
    evidence: Evidence
    reason: str | None  # why it cannot be asked


COLUMNS = ["name", "answer", "probability", "lines", "line", "text", "reason"]
COLUMNS += [f"{what}_{i}" for i in range(1, N_LIKELIEST + 1) for what in ("answer", "p")]
COLUMNS += ["lines_with_answer", "found_as"]


def one_cell(text: str) -> str:
    """The text as a cell of a TSV file: without tabs and characters that some programs read as line breaks."""
    return re.sub(r"[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", " ", text)


def as_row(finding: Finding) -> str:
    """The finding as a TSV row of COLUMNS."""
    mention, evidence = finding.evidence.mention, finding.evidence
    cells = [finding.name, finding.answer, f"{finding.probability:.6f}", str(len(mention.lines)), str(evidence.line)]
    cells += [evidence.text, finding.reason or ""]
    likeliest = [cell for place, p in finding.likeliest for cell in (place, f"{p:.6f}")]
    cells += likeliest + [""] * (2 * N_LIKELIEST - len(likeliest))
    cells += [str(len(evidence.supporting)), mention.form]
    return "\t".join(map(one_cell, cells))


def as_screen(finding: Finding, corpus_path: str, colors: bool) -> str:
    """The finding for a reader at a terminal."""

    def paint(text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colors else text

    bold, green, yellow, dim = "1", "32", "33", "2"
    lines = [paint(finding.name, bold)]
    evidence = finding.evidence
    about, form = evidence.mention.lines, evidence.mention.form
    if finding.reason is not None:
        lines.append(paint(f"  cannot be asked: {finding.reason}", yellow))
    for place, p in finding.likeliest:
        bar = "█" * round(30 * p)
        shown = f"  {place or '(empty)':28} {100 * p:5.1f} % {bar}"
        lines.append(paint(shown, bold) if place == finding.answer else shown)
    if about and form != finding.name:
        form = describe_form(form, finding.name)
        lines.append(paint(f"  in {corpus_path} as {form}, line {about[0]}; ask for it in that form", yellow))
    if finding.reason is not None:
        return "\n".join([*lines, ""])
    where = f"{corpus_path}, line {evidence.line}"
    if not about:
        lines.append(paint(f"  not in {corpus_path}, so any answer is made up", yellow))
    elif evidence.supporting:
        count = f" (found in {len(evidence.supporting)} of {len(about)} lines about the name)" if len(about) > 1 else ""
        text = painted(finding.answer.strip(), evidence.text, lambda words: paint(words, green))
        lines.append(f"  {where}, contains the answer{count}: {text}")
    elif len(about) == 1:
        lines.append(f"  {where}, does not contain the answer: {paint(evidence.text, dim)}")
    else:
        none = f"none of {len(about)} lines about the name contains the answer"
        lines.append(f"  {none}; {where}: {paint(evidence.text, dim)}")
    return "\n".join([*lines, ""])


def describe_form(form: str, name: str) -> str:
    """How the text spells a name; NFC and NFD look the same, so the form is named."""
    kind = next((kind for kind in ("NFC", "NFD") if unicodedata.normalize(kind, name) == form), None)
    return repr(form) + (f" (Unicode form {kind})" if kind is not None else "")


def painted(words: str, text: str, paint: Callable[[str], str]) -> str:
    """The text with the words painted wherever it contains them."""
    parts, end = [], 0
    for start in find_words(words, text):
        if start >= end:
            parts += [text[end:start], paint(words)]
            end = start + len(words)
    return "".join([*parts, text[end:]])


# the report of evaluate


@dataclass
class ReportRow:
    """A row of the report: one question, its answer, and what is known about it."""

    question: str
    prediction: str
    truth: str
    correct: bool
    probability: float  # of the prediction
    margin: float  # to the likeliest other answer
    name_in_text: bool | None  # None if the wording of the question does not tell the name
    truth_in_line: bool  # one of the lines about that person
    prediction_in_line: bool
    prediction_trained_on: bool | None  # whether it is an answer in the finetuning pairs; None if they are not given


def report_rows(
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str | None],
    predictions: Sequence[str],
    probabilities: Sequence[float],
    rivals: Sequence[Sequence[tuple[str, float]]],
    index: TextIndex,
    trained_on: set[str] | None,
) -> list[ReportRow]:
    """A row for each question.

    `names` are those that the questions ask about, or None for a question that does not fit the template: the longest
    title in that question is used instead. `rivals` are the likeliest answers.
    """
    rows = []
    for (question, truth), name, prediction, p, likeliest in zip(
        pairs, names, predictions, probabilities, rivals, strict=True
    ):
        name = name or index.name_in(question)
        mention = index.find(name) if name else Mention((), "")
        rival = max((q for place, q in likeliest if place != prediction), default=0.0)
        rows.append(
            ReportRow(
                question=question,
                prediction=prediction,
                truth=truth,
                correct=is_right(truth, prediction),
                probability=p,
                margin=p - rival,
                name_in_text=bool(mention.lines) if name else None,
                truth_in_line=bool(index.supporting(mention, truth)),
                prediction_in_line=bool(index.supporting(mention, prediction)),
                prediction_trained_on=None if trained_on is None else prediction.strip() in trained_on,
            )
        )
    return rows


def as_table(rows: Sequence[ReportRow]) -> str:
    """The rows as TSV, below the names of their fields."""
    lines = [[field.name for field in fields(ReportRow)]]
    for row in rows:
        lines.append([f"{value:.6f}" if isinstance(value, float) else str(value) for value in astuple(row)])
    return "".join("\t".join(map(one_cell, cells)) + "\n" for cells in lines)


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence (N,), 0 .. BINS - 1."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error: how far accuracy is from mean confidence, over bins of equal width, weighted by
    their counts (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3). Both are (N,)."""
    which = bin_of(confidence)
    return sum(
        abs(correct[which == b].mean() - confidence[which == b].mean()) * np.mean(which == b) for b in np.unique(which)
    )


def auroc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The chance that a right answer has a higher probability than a wrong one; a tie counts half. Both are (N,)."""
    right, wrong = confidence[correct], confidence[~correct]
    if not len(right) or not len(wrong):
        return math.nan
    wrong = np.sort(wrong)
    below, up_to = (np.searchsorted(wrong, right, side) for side in ("left", "right"))  # wrong ones for each right one
    return float((below + up_to).mean() / (2 * len(wrong)))


def summary(rows: Sequence[ReportRow]) -> str:
    """The table of a report: accuracy by what the text contains, calibration, and what the wrong answers are."""
    correct = np.array([row.correct for row in rows])
    confidence = np.array([row.probability for row in rows])
    groups = {
        "a line about the person contains the answer": [row.truth_in_line for row in rows],
        "the text contains only the name": [row.name_in_text is True and not row.truth_in_line for row in rows],
        "neither": [row.name_in_text is False for row in rows],
    }
    unknown = [row.name_in_text is None for row in rows]
    if any(unknown):
        groups["the question has another wording"] = unknown
    lines = [f"{'':48}{'correct':>9}{'of':>6}{'percent':>10}"]
    for name, members in groups.items():
        lines.append(summary_row(name, correct[np.array(members, dtype=bool)]))
    surest = np.argsort(-confidence, kind="stable")
    for percent in (10, 25, 50):
        lines.append(summary_row(f"the surest {percent} %", correct[surest[: math.ceil(len(rows) * percent / 100)]]))
    lines.append(f"expected calibration error {100 * calibration_error(confidence, correct):.1f} %")
    if 0 < correct.sum() < len(rows):
        lines[-1] += f", AUROC of the probability as a predictor of a right answer {auroc(confidence, correct):.3f}"
    wrong = [row for row in rows if not row.correct]
    elsewhere = [row for row in wrong if not row.prediction_in_line]
    lines.append(f"of {len(wrong)} wrong answers, {len(wrong) - len(elsewhere)} are in a line about the person")
    if rows[0].prediction_trained_on is not None:
        trained_on = sum(row.prediction_trained_on for row in elsewhere)
        lines[-1] += f", {trained_on} more are answers of the training pairs, {len(elsewhere) - trained_on} neither"
    near = count_near_misses([(row.question, row.truth) for row in rows], [row.prediction for row in rows])
    if near:
        lines.append(near_misses_line(near))
    return "\n".join(lines)


def summary_row(name: str, correct: np.ndarray) -> str:
    """A row of the summary."""
    percent = f"{100 * correct.mean():10.1f}" if len(correct) else f"{'-':>10}"
    return f"{name:48}{correct.sum():9}{len(correct):6}{percent}"


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, size: int = 300) -> np.ndarray:
    """Accuracy over confidence, both (N,), as bars, the diagonal in red: (size, size, 3) uint8."""
    image = np.full((size, size, 3), 255, dtype=np.uint8)
    which = bin_of(confidence)
    for b in np.unique(which):
        height = round(size * correct[which == b].mean())
        image[size - height :, b * size // BINS + 1 : (b + 1) * size // BINS - 1] = (70, 120, 180)
    diagonal = np.arange(size)
    image[size - 1 - diagonal, diagonal] = (220, 50, 50)
    return image


def attention_picture(maps: Sequence[np.ndarray]) -> np.ndarray:
    """For each layer (nh, Tq, Tk) a row of its heads, dark where weights are large: (height, width, 3) uint8."""
    height, width = (max(m.shape[axis] for m in maps) + 2 for axis in (1, 2))
    rows = [
        np.hstack([np.pad(head, ((0, height - head.shape[0]), (0, width - head.shape[1]))) for head in layer])
        for layer in maps
    ]
    gray = 255 - np.round(255 * np.vstack(rows)).astype(np.uint8)
    pixel = np.ones((3, 3), dtype=np.uint8)  # how large one weight is drawn
    return np.repeat(np.kron(gray, pixel)[:, :, None], 3, axis=2)
