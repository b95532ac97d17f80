"""Reads and checks the inputs of a run, and checks its outputs, before any work begins. Imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli import UserError
from entities import subject_of
from files import OutputFiles, check_folder, check_writable, is_record, read_bytes, read_text
from question import (
    COURSE_TEMPLATE,
    QuestionTemplate,
    TemplateFit,
    check_header,
    find_template,
    fit_template,
    parse_pairs,
    parse_questions,
)
from recipe import Run


@dataclass(frozen=True)
class Inputs:
    """The files of a run, read and checked; None for a file that the run does not read."""

    text: str
    pairs: list[tuple[str, str]] | None
    questions: list[tuple[str, str | None]] | None
    fit: TemplateFit | None  # of the questions of the pairs

    @property
    def template(self) -> QuestionTemplate:
        """The wording of the pairs; the course's where there are no pairs."""
        return COURSE_TEMPLATE if self.fit is None else self.fit.template


def read_inputs(run: Run) -> Inputs:
    """Reads every input of the run and checks every output. Raises UserError."""
    if run.reading_params_path is not None and not os.path.exists(run.reading_params_path):
        raise UserError(f"{run.reading_params_path}: no such file; pretrain or finetune writes one")
    check_outputs(run)
    text, pairs, questions, fit = read_text(run.pretrain_corpus_path), None, None, None
    given = None if run.question is None else QuestionTemplate.parse(run.question)
    if run.finetune_corpus_path is not None and run.uses_pairs:
        pairs = parse_pairs(read_text(run.finetune_corpus_path), run.finetune_corpus_path)
        fit = wording_of(pairs, text, given)
        if run.trains:
            check_fit(fit, run.finetune_corpus_path)
        check_header(pairs, fit, text, run.finetune_corpus_path)
    if run.eval_corpus_path is not None:
        questions = parse_questions(read_text(run.eval_corpus_path), run.eval_corpus_path)
        if run.report_path is not None and questions[0][1] is None:
            raise UserError(f"{run.eval_corpus_path}: has no answers; --report_path needs them to compare with")
        wording = wording_of(questions, text, given)
        if run.report_path is not None:  # which looks up the names in the text
            check_fit(wording, run.eval_corpus_path)
        check_header(questions, wording, text, run.eval_corpus_path)
    return Inputs(text, pairs, questions, fit)


def check_fit(fit: TemplateFit, path: str) -> None:
    """Raises UserError if no question of the file has the wording, which can only happen with --question."""
    if not fit.fits:
        line, question = fit.first_misfit
        raise UserError(
            f"{path}, line {line}: neither {question!r} nor any other question fits --question '{fit.template}'; "
            "give the wording of the file"
        )


def wording_of(rows: Sequence[tuple[str, str | None]], text: str, given: QuestionTemplate | None) -> TemplateFit:
    """The wording of the questions in the rows: `given`, or else the one that most of them share."""
    questions = [question for question, _ in rows]
    if given is not None:
        return fit_template(given, questions)
    lines = text.split("\n")
    return find_template(questions, set(map(subject_of, lines)), lines)


def check_outputs(run: Run) -> None:
    """Raises UserError for an output that cannot be written, or that would replace a file of this run."""
    paths = [run.pretrain_corpus_path, run.finetune_corpus_path, run.eval_corpus_path, run.reading_params_path]
    if run.reading_params_path is not None:
        paths.append(OutputFiles(run.reading_params_path).record)
    taken = {os.path.realpath(path) for path in paths if path is not None}
    outputs = [path for path in (run.writing_params_path, run.outputs_path, run.report_path) if path is not None]
    beside = []  # files written next to the parameters
    if run.writing_params_path is not None:
        files = OutputFiles(run.writing_params_path)
        outputs.append(files.record)
        beside = [files.state]
        if run.keep_every:
            clash = next(filter(files.is_kept, sorted(taken)), None)
            if clash is not None:
                raise UserError(f"{clash}: --keep_every may overwrite it; name another output")
            beside.append(OutputFiles(files.kept(run.epochs)).record)
    for path in outputs:
        if os.path.realpath(path) in taken:
            raise UserError(f"{path}: would overwrite another file of this run; name another output")
        taken.add(os.path.realpath(path))
        check_writable(path)
        check_replaceable(path, run)
    for path in beside:
        check_writable(path)
    if run.writing_params_path is not None or run.report_path is not None:
        check_folder(Path(run.tb_folder) / run.tb_expt_name, "name another with --tb_folder")


def check_replaceable(path: str, run: Run) -> None:
    """Raises UserError if the output would replace a text by parameters, or parameters or their record by a text."""
    content = read_bytes(path) if os.path.exists(path) else b""
    holds_params = b"\0" in content[:1000]  # no text has that character
    if path == run.writing_params_path:
        if content and not holds_params:
            raise UserError(f"{path}: is no params file, and would be overwritten; name another output")
    elif holds_params or (path in (run.outputs_path, run.report_path) and is_record(path)):
        raise UserError(f"{path}: holds parameters or their record, and would be overwritten; name another output")
