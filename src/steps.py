"""The four functions of the command line: pretrain, finetune, evaluate and ask, over one Run."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from answering import answer, answer_probabilities, likeliest_answers, unanswerable
from checkpoint import TIME, StateKeeper, keep_params, load_params, record_of, save_params
from cli import UserError, dropping_output, one_of_several
from dataset import BatchDataset, CharCorruptionDataset, MixedDataset, NameDataset
from engine import configure_torch, is_out_of_memory, pick_device, pick_precision
from entities import summarize, title_of
from files import OutputFiles, locked, write_text, writing
from inputs import Inputs, read_names
from model import GPT, GPTConfig, evaluating
from optim import final_tokens_of
from question import (
    COURSE_TEMPLATE,
    QUESTION_MARKS,
    QuestionTemplate,
    accuracy_line,
    count_near_misses,
    count_places,
    count_right,
    fit_template,
    near_misses_line,
    without_blanks,
)
from readings import FactDataset, SalientSpanDataset
from recipe import BLOCK_SIZE, Recipe, Run
from report import (
    COLUMNS,
    N_LIKELIEST,
    Evidence,
    Finding,
    Mention,
    TextIndex,
    as_row,
    as_screen,
    as_table,
    attention_picture,
    reliability_diagram,
    report_rows,
    summary,
)
from trainer import Trainer, TrainerConfig
from utils import set_seed


@dataclass
class Setup:
    """What every function needs: the text and its vocabulary, the pairs, the model on its device, and the template."""

    documents: CharCorruptionDataset
    pairs: NameDataset | None  # None where none are trained on
    model: GPT
    template: QuestionTemplate


def execute(run: Run, inputs: Inputs) -> tuple[float, float] | None:
    """Runs the function, in the process group of torchrun if there is one. Raises UserError.

    Returns what evaluate() returns, and None for the other functions.
    """
    function = {"pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "ask": ask}[run.function]
    configure_torch()
    run = resolve(run, inputs)
    try:
        with failed_writes_hidden(), process_group(run.device) as rank, ExitStack() as stack:
            for output in filter(None, (run.output, run.report_path) if rank == 0 else ()):
                stack.enter_context(locked(output))
            if run.trains:
                check_state(run)
                stack.enter_context(dropping_output())
            return function(run, inputs) if run.trains or rank == 0 else None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError("out of memory; close other programs or, on a GPU, give --device cpu") from None


def resolve(run: Run, inputs: Inputs) -> Run:
    """The run with its device and precision decided, and in training also its template. Raises UserError."""
    try:
        device = pick_device(run.device)
    except ValueError as error:
        raise UserError(f"--device {run.device}: {error}; leave the option out") from None
    question = run.question
    if question is None and run.trains:  # the other functions ask as their parameters were trained: see build()
        question = str(inputs.template)
    return replace(run, device=device.type, precision=pick_precision(run.precision, device), question=question)


def check_state(run: Run) -> None:
    """Raises UserError if there is no state to resume, or if a new run would overwrite one. Needs the lock."""
    state = OutputFiles(run.writing_params_path).state
    if run.resume and not os.path.exists(state):
        if os.path.exists(run.writing_params_path):  # without --resume the run would replace it
            raise UserError(
                f"{run.writing_params_path}: already complete (there is no {state}), so there is nothing to resume; "
                "use it, or name another output to train again"
            )
        raise UserError(f"{state}: no such file, so there is no run to resume; leave out --resume")
    if not run.resume and os.path.exists(state):
        raise UserError(f"{state}: the state of an unfinished run; resume it with --resume, or name another output")
    if not run.resume and os.path.exists(run.writing_params_path):
        print(f"warning: {run.writing_params_path} exists and will be replaced when training ends", file=sys.stderr)


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """Joins the processes that torchrun started, and yields the rank of this one: 0 if it is the only one."""
    if not one_of_several():
        yield 0
        return
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UserError(
                f"WORLD_SIZE is set but {name} is not; start the processes with torchrun, or unset WORLD_SIZE"
            )
    if device == "mps":
        raise UserError("torchrun: several processes cannot share this GPU; give --device cpu")
    if device == "cuda":
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            raise UserError(f"torchrun --nproc_per_node: only {torch.cuda.device_count()} GPUs; start fewer processes")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def build(run: Run, inputs: Inputs) -> Setup:
    """Seeds torch; returns datasets, model and template. Warns of what cannot be answered well. Raises UserError."""
    set_seed(run.seed)
    documents = CharCorruptionDataset(inputs.text, BLOCK_SIZE, run.pretrain_corpus_path)
    print(f"data has {documents.num_characters} characters, {documents.vocab_size} unique.")
    pairs = None
    if run.trains and inputs.pairs is not None:  # a report only looks up their places
        pairs = NameDataset(documents, inputs.pairs, run.finetune_corpus_path)
    model = GPT(model_config(run.variant, run.bottleneck_dim, documents, run.recipe.dropout))
    print(f"number of parameters: {model.num_parameters()}")
    record = {}
    if run.reading_params_path is not None:
        record = load_params(model, run.reading_params_path, run.pretrain_corpus_path, documents)
        for warning in warnings_of(run, inputs, record):
            print(f"warning: {warning}", file=sys.stderr)
    elif run.function == "finetune":
        print("without --reading_params_path: finetuning starts from random parameters")
    documents.loss_on_span = run.recipe.loss_on_span  # after load_params(), which uses the loss on all characters
    template = QuestionTemplate.parse(run.question or record.get("question") or str(inputs.template))
    reasons = [(line, unanswerable(documents, question)) for line, question in enumerate(inputs.eval_questions, 1)]
    problems = [f"line {line}: {reason}" for line, reason in reasons if reason is not None]
    if problems:
        cannot = f"{len(problems)} of {len(reasons)} questions cannot be asked; their answers stay empty"
        first = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        print(f"warning: {run.eval_corpus_path}: {cannot}: {first}", file=sys.stderr)
    return Setup(documents, pairs, model.to(run.device), template)


def model_config(variant: str, bottleneck_dim: int, documents: CharCorruptionDataset, dropout: float) -> GPTConfig:
    """The assignment's model, with the vocabulary of the documents."""
    drop = {"embd_pdrop": dropout, "resid_pdrop": dropout, "attn_pdrop": dropout}
    return GPTConfig(documents.vocab_size, documents.block_size, variant=variant, bottleneck_dim=bottleneck_dim, **drop)


def warnings_of(run: Run, inputs: Inputs, record: dict) -> Iterator[str]:
    """Why parameters with this record will do badly at what the run asks of them."""
    path, recipe, question = run.reading_params_path, record.get("recipe"), record.get("question")
    recipe = recipe if isinstance(recipe, dict) else {}
    if run.function == "finetune" and recipe.get("finetune_qa_per_document") and not run.rereads_text:
        name = recipe.get("name")
        yield f"{path} was trained with --recipe {name}; finetune with it, too, to get far more answers right"
    if run.trains:
        return
    if record.get("function") == "pretrain" and not recipe.get("qa_per_document"):
        yield f"{path} was only pretrained, without any question; finetune it first"
    if record.get("function") != "finetune" or question is None:
        return
    if run.function == "ask" and run.question is not None and run.question != question:
        yield f"--question has another wording than '{question}', which {path} was finetuned on"
    if inputs.eval_pairs is not None:
        fit = fit_template(QuestionTemplate.parse(question), inputs.eval_questions)
        if 2 * fit.fits < fit.rows:
            misfits = f"{run.eval_corpus_path}: {fit.rows - fit.fits} of {fit.rows} questions have another wording"
            yield f"{misfits} than '{question}', which {path} was finetuned on; expect few right answers to them"


def pretrain(run: Run, inputs: Inputs) -> None:
    """Pretrains on the text by the recipe, and writes the parameters."""
    setup, recipe = build(run, inputs), run.recipe
    check_text(run, setup)
    print_summary(run, inputs, setup.documents)
    train(run, inputs, setup, pretraining_data(setup, recipe), pretraining_config(recipe))


def check_text(run: Run, setup: Setup) -> None:
    """Warns about a text whose model could not be asked, or that holds questions. Raises UserError for --question.

    If pretraining uses no pairs, what the text lacks would otherwise be noticed only in finetuning.
    """
    path, documents, template = run.pretrain_corpus_path, setup.documents, setup.template
    if setup.pairs is None:
        missing = documents.missing(f"{template.before}{template.after}")
        cannot = f"{path}: '{template}' cannot be asked: {missing}; add a line that has it"
        if missing is not None and template != COURSE_TEMPLATE:  # given with --question
            raise UserError(cannot)
        if not any(mark in documents.stoi for mark in QUESTION_MARKS):
            print(f"warning: {path}: has no question mark, so no question may have one, either", file=sys.stderr)
        elif missing is not None:
            print(f"warning: {cannot}, or ask in other words", file=sys.stderr)
    if 2 * sum("\t" in document for document in documents.data) > len(documents):
        print(f"warning: {path}: most lines have tabs; is it a file of questions?", file=sys.stderr)


def pretraining_config(recipe: Recipe) -> TrainerConfig:
    """What the recipe says of the training loop of pretraining."""
    return TrainerConfig(
        batch_size=recipe.pretrain_batch_size,
        learning_rate=recipe.pretrain_lr,
        muon_lr=recipe.muon_lr,
        warmup_tokens=recipe.pretrain_warmup_tokens,
        decay_all=recipe.decay_all,
    )


def pretraining_data(setup: Setup, recipe: Recipe) -> BatchDataset | MixedDataset:
    """What pretraining reads: corrupted documents, facts, or salient spans with pairs mixed in."""
    if recipe.reads_facts:
        return FactDataset(setup.documents, recipe)
    return text_and_pairs(setup, recipe, recipe.qa_per_document) if recipe.pretrains_on_pairs else setup.documents


def text_and_pairs(setup: Setup, recipe: Recipe, qa_per_document: float) -> MixedDataset:
    """The documents as SalientSpanDataset reads them, with pairs mixed in."""
    spans = SalientSpanDataset(setup.documents, setup.pairs.data, setup.template, recipe)
    return MixedDataset(spans, setup.pairs, qa_per_document)


def print_summary(run: Run, inputs: Inputs, documents: CharCorruptionDataset) -> None:
    """Says how much text there is, and how well the pairs fit it. Raises UserError if no one is found."""
    max_length = math.inf if run.recipe.reads_whole_lines else documents.max_length
    summary_of_text = summarize(documents.data, max_length, inputs.pairs or (), inputs.fit)
    print(summary_of_text.size_line())
    if inputs.fit is not None:
        print(summary_of_text.coverage_line())
        for warning in summary_of_text.warnings(run.pretrain_corpus_path, run.finetune_corpus_path):
            print(warning, file=sys.stderr)


def finetune(run: Run, inputs: Inputs) -> None:
    """Finetunes on the pairs, in some recipes along with the text, and writes the parameters."""
    setup = build(run, inputs)
    recipe, dataset = run.recipe, setup.pairs
    if run.rereads_text:
        print_summary(run, inputs, setup.documents)
        dataset = text_and_pairs(setup, recipe, recipe.finetune_qa_per_document)
    config = TrainerConfig(
        batch_size=recipe.finetune_batch_size, learning_rate=recipe.finetune_lr, decay_all=recipe.decay_all
    )
    train(run, inputs, setup, dataset, config)


def end_of_decay(run: Run, setup: Setup, rows: float, warmup_tokens: int) -> int:
    """The final_tokens of a run: where the cosine of its learning rate is lowest."""
    if run.recipe.decay_to_end_of_run:
        return final_tokens_of(run.epochs * rows * (BLOCK_SIZE - 1), warmup_tokens)
    # the course counts block_size tokens per document of the text, in finetuning, too, though a row of x has one fewer
    cosine_epochs = 200  # far more tokens than finetuning reads, so its rate hardly falls
    if run.function == "pretrain":
        cosine_epochs = run.recipe.pretrain_cosine_epochs or run.epochs
    return cosine_epochs * len(setup.documents) * BLOCK_SIZE


def make_trainer(run: Run, setup: Setup, dataset: Dataset, config: TrainerConfig) -> Trainer:
    """The trainer of a run. Raises UserError."""
    rows = getattr(dataset, "mean_rows", len(dataset))  # of an epoch
    config = replace(
        config,
        max_epochs=run.epochs,
        lr_decay=True,
        final_tokens=end_of_decay(run, setup, rows, config.warmup_tokens),
        device=run.device,
        precision=run.precision,
        micro_batch_rows=run.micro_batch_rows,
    )
    try:
        trainer = Trainer(setup.model, dataset, None, config)
    except ValueError as error:
        raise UserError(str(error)) from None
    if trainer.rank:
        # each process draws its own spans and dropout; the CPU generator uses 32 bits of a seed
        set_seed(int(torch.randint(2**32, (trainer.rank,))[-1]))
    return trainer


def train(run: Run, inputs: Inputs, setup: Setup, dataset: Dataset, config: TrainerConfig) -> None:
    """Trains, logs to TensorBoard, keeps the state, and writes the parameters with their record."""
    trainer = make_trainer(run, setup, dataset, config)
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups if group["weight_decay"]]
    decayed = sum(p.numel() for group in groups for p in group["params"])
    print(f"weight decay on {decayed} parameters: {'all but biases' if config.decay_all else 'matrices of matmuls'}")
    files = OutputFiles(run.writing_params_path)
    record = record_of(run, inputs, setup.documents, setup.model.config, trainer.world_size)
    resume_command = record["command"] if run.resume else f"{record['command']} --resume"
    keeper = StateKeeper(files.state, run.checkpoint_minutes, record, resume_command)
    if run.resume:
        record["started"] = keeper.read(trainer)["started"]
        print(f"Resuming after step {trainer.steps}")
    else:
        keeper.write(trainer)
    trainer.on_step_end.append(keeper)
    if inputs.eval_pairs is not None:
        trainer.on_epoch_end += accuracy_callbacks(run, inputs.eval_pairs, setup.documents)
    if run.keep_every:
        trainer.on_epoch_end.append(keep_params(files.path, run.keep_every, record))
    if trainer.rank == 0:
        trainer.config.writer = tensorboard_writer(run, record["started"], trainer.steps + 1)
    try:
        with advice_on_failure(run, trainer, keeper.path), keeper.listening():
            trainer.train()
    finally:
        if trainer.config.writer is not None:
            with suppress(OSError):  # a full disk
                trainer.config.writer.close()
    if trainer.rank == 0:
        try:
            save_params(setup.model, files.path, record)
        except UserError as error:
            raise UserError(f"{error}; {keeper.path} keeps the state. To resume: {resume_command}") from None
        keeper.remove()
        print(f"Parameters written to {files.path}")


@contextmanager
def advice_on_failure(run: Run, trainer: Trainer, state_path: str) -> Iterator[None]:
    """Raises UserError where training fails because of the learning rate or a lack of memory."""
    try:
        yield
    except FloatingPointError as error:
        lower = f"--{run.function}_lr" + (" and muon_lr in src/recipe.py" if trainer.config.muon_lr else "")
        raise UserError(
            f"{error}; start again with a lower {lower} and another --writing_params_path; "
            f"{state_path} keeps the last good state"
        ) from None
    except (RuntimeError, MemoryError) as error:
        micro_batch_rows = min(trainer.engine.micro_batch_rows, trainer.config.batch_size, len(trainer.train_dataset))
        if not is_out_of_memory(error) or micro_batch_rows == 1:
            raise  # execute() reports it
        fewer = f"--micro_batch_rows below {micro_batch_rows}"
        raise UserError(f"out of memory; resume with --resume and a {fewer}") from None


def accuracy_callbacks(
    run: Run, pairs: list[tuple[str, str | None]], documents: CharCorruptionDataset
) -> list[Callable[[Trainer], dict[str, float]]]:
    """What reports the accuracy on --eval_corpus_path during training; prints a warning where it means nothing."""
    if pairs[0][1] is None:
        print(f"warning: {run.eval_corpus_path} has no answers, so no accuracy is reported", file=sys.stderr)
        return []
    if run.function == "pretrain" and not run.recipe.pretrains_on_pairs:
        no_question = f"--recipe {run.recipe.name} pretrains without questions"
        print(f"warning: {no_question}, so the accuracy stays near 0 until finetuning", file=sys.stderr)
    return [dev_accuracy(pairs, documents)]


def dev_accuracy(
    pairs: list[tuple[str, str]], documents: CharCorruptionDataset
) -> Callable[[Trainer], dict[str, float]]:
    """A callback for the end of an epoch that measures the accuracy up to twenty times per run."""
    questions, places = zip(*pairs, strict=True)
    longest = 1 + max(map(len, places))  # an untrained model does not stop by itself

    def measure(trainer: Trainer) -> dict[str, float]:
        every = math.ceil(trainer.config.max_epochs / 20)  # epochs; measuring more often is not worth the time
        if trainer.epoch % every and trainer.epoch != trainer.config.max_epochs:
            return {}
        right = count_right(pairs, answer(trainer.model, documents, questions, longest=longest))
        return {"dev accuracy (%)": 100 * right / len(pairs)}

    return measure


@contextmanager
def failed_writes_hidden() -> Iterator[None]:
    """Keeps TensorBoard's thread from printing a traceback: Trainer.log() already reports the full disk."""
    previous = threading.excepthook

    def hide_failed_writes(failed: threading.ExceptHookArgs) -> None:
        if not isinstance(failed.exc_value, OSError):
            previous(failed)

    threading.excepthook = hide_failed_writes
    try:
        yield
    finally:
        threading.excepthook = previous


def tensorboard_writer(run: Run, started: str, purge_step: int | None = None) -> SummaryWriter:
    """The log of the run that began at that time. TensorBoard hides an earlier part's points from purge_step on."""
    output = os.fsencode(Path(run.output).name)[-100:].decode(errors="ignore")  # file systems limit a name to 255 bytes
    name = f"{run.function}-{run.variant}-{output}-{started}"  # with the output: two runs may start in one second
    folder = Path(run.tb_folder) / run.tb_expt_name / name
    with writing(f"{folder}:"):
        return SummaryWriter(folder, purge_step=purge_step)


def evaluate(run: Run, inputs: Inputs) -> tuple[float, float]:
    """Answers every question, writes the answers, and counts the right ones. Returns (total, correct)."""
    with dropping_output():  # a closed terminal must not cost the answers
        setup = build(run, inputs)
        predictions = answer(setup.model, setup.documents, inputs.eval_questions, progress=True)
    write_text(run.outputs_path, "".join(f"{prediction}\n" for prediction in predictions))
    total, correct = count_places(inputs.eval_pairs, predictions)
    try:
        if total:
            print(accuracy_line(total, correct))
            near_misses = count_near_misses(inputs.eval_pairs, predictions)
            if near_misses:
                print(near_misses_line(near_misses))
        print(f"Predictions written to {run.outputs_path}" + ("" if total else "; no targets provided"))
    finally:
        if run.report_path is not None:
            with dropping_output():  # nor the report
                report = write_report(run, inputs, setup, predictions)
    if run.report_path is not None:
        print(report)
        print(f"Report written to {run.report_path}")
    return total, correct


def write_report(run: Run, inputs: Inputs, setup: Setup, predictions: list[str]) -> str:
    """Writes a report on each answer, adds pictures to TensorBoard, and returns a summary."""
    questions = inputs.eval_questions
    # the prediction and its closest rival
    rivals = likeliest_answers(setup.model, setup.documents, questions, n_best=2, beams=5, progress=True)
    rows = report_rows(
        pairs=inputs.eval_pairs,
        names=[setup.template.name_in(question) for question in questions],
        predictions=predictions,
        probabilities=answer_probabilities(setup.model, setup.documents, questions, predictions),
        rivals=rivals,
        index=text_index(setup.documents),
        trained_on=None if inputs.pairs is None else {place for _, place in inputs.pairs},
    )
    write_text(run.report_path, as_table(rows))
    confidence, correct = np.array([row.probability for row in rows]), np.array([row.correct for row in rows])
    surest = max(rows, key=lambda row: row.probability)
    with writing(f"{run.tb_folder}: the pictures"), tensorboard_writer(run, time.strftime(TIME)) as writer:
        writer.add_image("reliability", reliability_diagram(confidence, correct), dataformats="HWC")
        if surest.probability:  # otherwise no question could be asked
            maps = attention_while_answering(setup, surest.question, surest.prediction)
            writer.add_image("attention, a row per layer", attention_picture(maps), dataformats="HWC")
            writer.add_text("attention, a row per layer", f"{surest.question} {surest.prediction}")
    return summary(rows)


def text_index(documents: CharCorruptionDataset) -> TextIndex:
    """Finds names in the documents, by title or anywhere."""
    return TextIndex(documents.data, [title_of(document) for document in documents.data])


def attention_while_answering(setup: Setup, question: str, prediction: str) -> list[np.ndarray]:
    """The attention weights during the answer: (nh, Tq, Tk) for each attention layer."""
    ids = [*setup.documents.encode_marked(question), *setup.documents.encode(prediction)]
    with evaluating(setup.model):
        layers = setup.model.attention_weights(torch.tensor([ids], device=next(setup.model.parameters()).device))
    return [weights[0].float().cpu().numpy() for weights in layers]


def ask(run: Run, inputs: Inputs) -> None:
    """Asks about names and shows what the model and the text say: formatted for a terminal, or as TSV in a pipe."""
    with redirect_stdout(sys.stderr):
        setup = build(run, inputs)
    index = text_index(setup.documents)
    at_terminal = sys.stdout is not None and sys.stdout.isatty()
    if not at_terminal:
        with suppress(AttributeError):  # in a notebook
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # like all files here
        print("\t".join(COLUMNS))
    for asked in run.names or read_names():
        finding = look_up(setup, index, asked.strip())
        if at_terminal:
            print(as_screen(finding, run.pretrain_corpus_path, colors="NO_COLOR" not in os.environ))
        else:
            print(as_row(finding), flush=True)


def look_up(setup: Setup, index: TextIndex, asked: str) -> Finding:
    """Asks the model about a name (or a whole question, as it is) and looks up the name in the text."""
    template, reason = setup.template, None
    name = template.name_in(asked)
    if without_blanks(asked) == without_blanks(template.ask("")):
        reason = "the question has no name"
    elif name is None and template.resembles(asked) and not index.find(asked).lines:
        reason = f"worded differently from '{template}'; ask in those words, or give the name alone"
    if reason is not None:
        return Finding(asked, "", 0.0, [], Evidence(Mention((), ""), (), 0, ""), reason)
    question = asked if name is not None else template.ask(asked)
    name = name or asked
    (greedy,) = answer(setup.model, setup.documents, [question])
    (probability,) = answer_probabilities(setup.model, setup.documents, [question], [greedy])
    (likeliest,) = likeliest_answers(setup.model, setup.documents, [question], n_best=N_LIKELIEST)
    evidence = index.evidence(name, greedy)
    return Finding(name, greedy, probability, likeliest, evidence, unanswerable(setup.documents, question))
