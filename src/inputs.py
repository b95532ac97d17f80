"""Reads and checks what a run needs, and checks its outputs, before any work begins. Imports no torch."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cli import UserError
from entities import title_of
from files import PARAMS, RECORD, REPORT, TEXT, OutputFiles, check_folder, check_replaceable, check_writable, read_text
from question import (
    COURSE_TEMPLATE,
    QuestionTemplate,
    TemplateFit,
    find_header,
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
    eval_pairs: list[tuple[str, str | None]] | None  # questions and answers; each answer is None if the file has none
    fit: TemplateFit | None  # of the questions of the pairs

    @property
    def eval_questions(self) -> list[str]:
        """The questions to answer."""
        return [question for question, _ in self.eval_pairs or ()]

    @property
    def template(self) -> QuestionTemplate:
        """The wording of the pairs; the course's where there are no pairs."""
        return COURSE_TEMPLATE if self.fit is None else self.fit.template


def read_inputs(run: Run) -> Inputs:
    """Reads every input of the run and checks every output. Raises UserError."""
    if run.reading_params_path is not None and not os.path.exists(run.reading_params_path):
        raise UserError(f"{run.reading_params_path}: no such file; pretrain or finetune writes one")
    check_outputs(run)
    text, pairs, eval_pairs, fit = read_text(run.pretrain_corpus_path), None, None, None
    given = None if run.question is None else QuestionTemplate.parse(run.question)
    if run.finetune_corpus_path is not None and run.uses_pairs:
        pairs = parse_pairs(read_text(run.finetune_corpus_path), run.finetune_corpus_path)
        fit = fit_of(pairs, text, given)
        if run.trains:
            check_fit(fit, run.finetune_corpus_path)
        header = find_header(pairs, fit, text)
        if header is not None:
            raise UserError(f"{run.finetune_corpus_path}, line 1: {header}")
    if run.eval_corpus_path is not None:
        eval_pairs = parse_questions(read_text(run.eval_corpus_path), run.eval_corpus_path)
        if run.report_path is not None and eval_pairs[0][1] is None:
            raise UserError(f"{run.eval_corpus_path}: has no answers; --report_path needs them to compare with")
        eval_fit = fit_of(eval_pairs, text, given if run.trains or run.report_path is not None else None)
        if run.report_path is not None:  # which looks up the names in the text
            check_fit(eval_fit, run.eval_corpus_path)
        header = find_header(eval_pairs, eval_fit, text)
        if header is not None:  # or a question like no other, which may be asked
            print(f"warning: {run.eval_corpus_path}, line 1: {header}", file=sys.stderr)
    return Inputs(text, pairs, eval_pairs, fit)


def check_fit(fit: TemplateFit, path: str) -> None:
    """Raises UserError if no question of the file has the wording, which can only happen with --question."""
    if not fit.fits:
        line, question = fit.first_misfit
        raise UserError(
            f"{path}, line {line}: neither {question!r} nor any other question fits --question '{fit.template}'; "
            "give the wording of the file"
        )


def fit_of(rows: Sequence[tuple[str, str | None]], text: str, given: QuestionTemplate | None) -> TemplateFit:
    """How well the questions of the rows fit a wording: the `given` one, or else the one that most of them share."""
    questions = [question for question, _ in rows]
    if given is not None:
        return fit_template(given, questions)
    lines = text.split("\n")
    return find_template(questions, set(map(title_of, lines)), lines)


def check_outputs(run: Run) -> None:
    """Raises UserError for an output that cannot be written, or that would replace a file of this run or of another
    kind.
    """
    paths = [run.pretrain_corpus_path, run.finetune_corpus_path, run.eval_corpus_path, run.reading_params_path]
    if run.reading_params_path is not None:
        paths.append(OutputFiles(run.reading_params_path).record)
    taken = [path for path in paths if path is not None]
    texts = ((run.outputs_path, TEXT), (run.report_path, REPORT))
    outputs: list[tuple[str, str | None]] = [(path, kind) for path, kind in texts if path is not None]
    if run.writing_params_path is not None:
        files = OutputFiles(run.writing_params_path)
        outputs += [(files.path, PARAMS), (files.record, RECORD), (files.state, None)]  # steps.check_state() says more
        if run.keep_every:
            clash = next(filter(files.is_kept, taken), None)
            if clash is not None:
                raise UserError(f"{clash}: --keep_every may overwrite it; name another output")
            for epoch in range(run.keep_every, run.epochs + 1, run.keep_every):
                kept = OutputFiles(files.kept(epoch))
                check_replaceable(kept.path, PARAMS)
                check_replaceable(kept.record, RECORD)
            outputs.append((kept.record, RECORD))  # the longest name
    for path, kind in outputs:
        check_writable(path, kind, taken)
        taken.append(path)
    if run.writing_params_path is not None or run.report_path is not None:
        check_folder(Path(run.tb_folder) / run.tb_expt_name, "name another with --tb_folder")


def read_names() -> Iterator[str]:
    """The lines of standard input that are not blank: UTF-8, or typed at a prompt until Ctrl-D. Raises UserError."""
    if sys.stdin is None:
        raise UserError("standard input is closed; give the names as arguments")
    source = getattr(sys.stdin, "buffer", sys.stdin)  # bytes: UTF-8 whatever the locale
    for number in count(1):
        if sys.stdin.isatty():
            prompt = "Who? (Ctrl-D to end) " if number == 1 else "Who? "
            print(prompt, end="", file=sys.stderr, flush=True)  # standard output may be a file
        line = source.readline()
        if not line:
            if sys.stdin.isatty():
                print(file=sys.stderr)  # Ctrl-D leaves the cursor behind the prompt
            return
        if isinstance(line, bytes):
            try:
                line = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"standard input, line {number}: not UTF-8; give the names in UTF-8") from None
        if line.strip():
            yield line
