"""Pretrain, finetune and evaluate a small GPT on birth places: the command line."""

import argparse
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import Parser, UserError, exit_on_user_error, positive, seed
from files import (
    check_folder,
    check_writable,
    locked,
    parse_pairs,
    parse_questions,
    read_text,
    write_text,
    writing,
)
from recipe import RECIPES

# torch, and what needs it, is imported where work begins, so that --help and mistakes are answered at once
if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from dataset import CharCorruptionDataset, NameDataset
    from model import GPT
    from trainer import Trainer

BLOCK_SIZE = 128
TENSORBOARD_FOLDER = Path("expt")
TIME = "%Y%m%d-%H%M%S"
PRECISION_HELP = "of the matmuls while training; auto: bf16 on CUDA GPUs and x86 CPUs that have it, else fp32"
VARIANTS = ["vanilla", "perceiver", "synthesizer", "rope"]


@dataclass
class Corpora:
    """The files of a run, read and checked."""

    text: str
    pairs: str | None
    questions: list[tuple[str, str | None]] | None


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("Pretrain a small GPT by span corruption, finetune it on birth places, and ask it about others.")
    option = parser.add_argument
    option("function", choices=["pretrain", "finetune", "evaluate", "ask"], help="what to do")
    option("variant", choices=VARIANTS, help="which model")
    option("pretrain_corpus_path", help="the pretraining text, one document a line; it defines the vocabulary")
    option(
        "names",
        nargs="*",
        default=[],
        metavar="NAME",
        help="ask: whom to ask about; without any, one a line of the input",
    )
    option("--reading_params_path", help="parameters to start from, or to ask (evaluate, ask)")
    option("--writing_params_path", help="where pretrain and finetune write the parameters")
    option(
        "--finetune_corpus_path",
        help="question<TAB>place rows to finetune on; the fast recipe's pretraining needs them too",
    )
    option(
        "--eval_corpus_path",
        help="questions to answer; in training, with places, their accuracy about twenty times on the way",
    )
    option("--outputs_path", help="where evaluate writes its predictions, one a line")
    option(
        "--report_path",
        help="where evaluate writes a row for each question: how sure the answer is, and where it can be known from",
    )
    option("--recipe", choices=list(RECIPES), default="course", help="the settings of training; see the README")

    def by_recipe(name: str, kind: type, help: str, *settings: str) -> None:
        defaults = (f"{n}: {' or '.join(f'{getattr(r, s):g}' for s in settings)}" for n, r in RECIPES.items())
        help = f"{help} (default by recipe: {', '.join(defaults)})"
        option(f"--{name}", type=positive(kind), help=help)

    by_recipe("pretrain_lr", float, "highest learning rate of AdamW in pretraining", "pretrain_lr")
    by_recipe("finetune_lr", float, "highest learning rate of finetuning", "finetune_lr")
    by_recipe("pretrain_epochs", int, "times that pretraining reads the text", "pretrain_epochs")
    finetune_help = "times that finetuning reads the pairs, from scratch or from --reading_params_path"
    by_recipe("finetune_epochs", int, finetune_help, "scratch_epochs", "finetune_epochs")
    option("--bottleneck_dim", type=positive(int), default=32, help="length of the perceiver's inner sequence")
    option("--seed", type=seed, default=0, help="seed of everything random")
    option("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="auto: a GPU if there is one")
    option("--precision", choices=["auto", "fp32", "bf16"], default="auto", help=PRECISION_HELP)
    option(
        "--micro_batch_rows",
        type=positive(int),
        help="rows computed at once, on a CPU by each thread, for less memory; the batch stays the recipe's",
    )
    option(
        "--checkpoint_minutes",
        type=positive(float),
        default=5.0,
        help="how often training writes its state, beside the parameters to be",
    )
    option("--resume", action="store_true", help="go on with the run that was stopped or killed")
    option("--keep_every", type=positive(int), help="keep the parameters every so many epochs, as OUTPUT.EPOCH")
    option("--tb_expt_name", default="run", help="TensorBoard shows the run as expt/NAME/...")
    arguments = parser.parse_intermixed_args(argv)
    complete(parser, arguments)
    return arguments


def complete(parser: Parser, arguments: argparse.Namespace) -> None:
    """Fills in what the recipe decides. Raises UserError for what is missing, and for options that change nothing."""
    recipe = RECIPES[arguments.recipe]
    needed = {
        "pretrain": ["writing_params_path", *(["finetune_corpus_path"] if recipe.pretrains_on_pairs else [])],
        "finetune": ["writing_params_path", "finetune_corpus_path"],
        "evaluate": ["reading_params_path", "eval_corpus_path", "outputs_path"],
        "ask": ["reading_params_path"],
    }[arguments.function]
    missing = [f"--{name}" for name in needed if not getattr(arguments, name)]
    if missing:
        recipe_named = "" if arguments.recipe == "course" else f" --recipe {arguments.recipe}"
        parser.error(f"{arguments.function}{recipe_named} needs {' and '.join(missing)}")
    scratch = arguments.reading_params_path is None
    for name, default in {
        "pretrain_lr": recipe.pretrain_lr,
        "pretrain_epochs": recipe.pretrain_epochs,
        "finetune_lr": recipe.finetune_lr,
        "finetune_epochs": recipe.scratch_epochs if scratch else recipe.finetune_epochs,
    }.items():
        given = getattr(arguments, name)
        if given is not None and not name.startswith(arguments.function):  # scripts give all steps the same
            print(f"--{name} changes nothing here: this is {arguments.function}", file=sys.stderr)
        setattr(arguments, name, given or default)
    if arguments.finetune_corpus_path is not None and not uses_pairs(arguments):
        without = {"pretrain": f" --recipe {arguments.recipe}", "evaluate": " without --report_path", "ask": ""}
        here = arguments.function + without[arguments.function]
        print(f"--finetune_corpus_path changes nothing here: this is {here}", file=sys.stderr)
    if arguments.eval_corpus_path is not None and arguments.function == "ask":
        parser.error("ask takes names, not --eval_corpus_path; evaluate answers the questions of a file")
    epochs = getattr(arguments, f"{arguments.function}_epochs", None)
    if epochs is not None and (arguments.keep_every or 0) > epochs:
        parser.error(
            f"--keep_every {arguments.keep_every} is more than the {epochs} epochs of this {arguments.function}"
        )
    if arguments.bottleneck_dim > BLOCK_SIZE:
        parser.error(f"--bottleneck_dim {arguments.bottleneck_dim} is longer than the block of {BLOCK_SIZE}")
    trains = arguments.function in ("pretrain", "finetune")
    for name, used in {
        "writing_params_path": trains,
        "outputs_path": arguments.function == "evaluate",
        "report_path": arguments.function == "evaluate",
    }.items():
        if getattr(arguments, name) is not None and not used:
            parser.error(f"{arguments.function} writes nothing to --{name}")
    for name in ("resume", "keep_every"):
        if getattr(arguments, name) and not trains:
            parser.error(f"{arguments.function} has nothing to --{name}")
    if arguments.names and arguments.function != "ask":
        parser.error(f"{arguments.function} takes no names, but was given {arguments.names[0]!r}")


def uses_pairs(arguments: argparse.Namespace) -> bool:
    """Whether this run reads the pairs of --finetune_corpus_path, if they are given."""
    return {
        "pretrain": RECIPES[arguments.recipe].pretrains_on_pairs,
        "finetune": True,
        "evaluate": arguments.report_path is not None,
        "ask": False,
    }[arguments.function]


def state_path(arguments: argparse.Namespace) -> str:
    """Where a training keeps its state until it is complete."""
    return f"{arguments.writing_params_path}.state"


def read_corpora(arguments: argparse.Namespace) -> Corpora:
    """Reads every input and checks every output of the run, before any work. Raises UserError."""
    params_path = arguments.reading_params_path
    if params_path is not None and not os.path.exists(params_path):
        raise UserError(f"{params_path}: no such file; pretrain or finetune writes one")
    outputs = [arguments.writing_params_path, arguments.outputs_path, arguments.report_path]
    if arguments.writing_params_path is not None:
        outputs.append(f"{arguments.writing_params_path}.json")
    inputs = [arguments.pretrain_corpus_path, arguments.finetune_corpus_path, arguments.eval_corpus_path, params_path]
    taken = {os.path.realpath(path) for path in inputs if path is not None}
    if arguments.keep_every:
        kept = re.compile(re.escape(os.path.realpath(arguments.writing_params_path)) + r"\.\d+(\.json)?")
        for path in filter(kept.fullmatch, taken):
            raise UserError(f"{path}: --keep_every may overwrite it; name another output")
    for path in outputs:
        if path is not None:
            if os.path.realpath(path) in taken:
                raise UserError(f"{path}: would overwrite another file of this run; name another output")
            taken.add(os.path.realpath(path))
            check_writable(path)
    if arguments.writing_params_path is not None or arguments.report_path is not None:
        check_folder(TENSORBOARD_FOLDER / arguments.tb_expt_name)
    if arguments.writing_params_path is not None:
        check_writable(state_path(arguments))
    text, pairs, questions = read_text(arguments.pretrain_corpus_path), None, None
    if arguments.finetune_corpus_path is not None and uses_pairs(arguments):
        pairs = read_text(arguments.finetune_corpus_path)
        parse_pairs(pairs, arguments.finetune_corpus_path)
    if arguments.eval_corpus_path is not None:
        questions = parse_questions(read_text(arguments.eval_corpus_path), arguments.eval_corpus_path)
        if arguments.report_path is not None and questions[0][1] is None:
            raise UserError(f"{arguments.eval_corpus_path}: has no places, which --report_path compares with")
    return Corpora(text, pairs, questions)


def check_state(arguments: argparse.Namespace) -> None:
    """Raises UserError unless a state is there to be taken up, or none where a run begins: for once it is locked."""
    state = state_path(arguments)
    if arguments.resume and not os.path.exists(state):
        raise UserError(f"{state}: no such file, so there is no run to go on with; leave out --resume")
    if not arguments.resume and os.path.exists(state):
        raise UserError(f"{state}: the state of an unfinished run; go on with --resume, or remove it to begin anew")


def digest(text: str) -> str:
    """A hash that tells texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()


def vocabulary_of(documents: "CharCorruptionDataset") -> str:
    """A hash of the characters that the vocabulary is made of."""
    return digest("".join(documents.itos[i] for i in range(2, documents.vocab_size)))


def build(arguments: argparse.Namespace, corpora: Corpora) -> "tuple[CharCorruptionDataset, NameDataset | None, GPT]":
    """The datasets and the model, on its device, with its parameters loaded. Raises UserError."""
    from checkpoint import load_params
    from dataset import CharCorruptionDataset, NameDataset
    from model import GPT, GPTConfig
    from trainer import pick_device
    from utils import set_seed, unanswerable

    try:
        device = pick_device(arguments.device)
    except ValueError as error:
        raise UserError(f"--device {arguments.device}: {error}; leave the option out") from None
    set_seed(arguments.seed)
    recipe = RECIPES[arguments.recipe]
    documents = CharCorruptionDataset(corpora.text, BLOCK_SIZE, arguments.pretrain_corpus_path)
    print(f"data has {documents.num_characters} characters, {documents.vocab_size} unique.")
    names = NameDataset(documents, corpora.pairs, arguments.finetune_corpus_path) if corpora.pairs else None
    config = GPTConfig(
        documents.vocab_size,
        BLOCK_SIZE,
        variant=arguments.variant,
        bottleneck_dim=arguments.bottleneck_dim,
        embd_pdrop=recipe.dropout,
        resid_pdrop=recipe.dropout,
        attn_pdrop=recipe.dropout,
    )
    model = GPT(config)
    print(f"number of parameters: {model.num_parameters()}")
    if arguments.reading_params_path is not None:
        load_params(
            model, arguments.reading_params_path, config, arguments.pretrain_corpus_path, vocabulary_of(documents)
        )
    for line, (question, _) in enumerate(corpora.questions or [], 1):
        reason = unanswerable(documents, question)
        if reason is not None:
            print(f"{arguments.eval_corpus_path}, line {line}: {reason}; its answer stays empty", file=sys.stderr)
    return documents, names, model.to(device)


def describe(
    arguments: argparse.Namespace, corpora: Corpora, documents: "CharCorruptionDataset", trainer: "Trainer"
) -> dict[str, Any]:
    """What this training is: all that decides its outcome, then what it ran with."""
    import torch

    source = Path(__file__).parent
    git = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    processes = int(os.environ.get("WORLD_SIZE", 1))
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    nodes = [f"--nnodes={processes // per_node}", "..."] if processes > per_node else []
    launcher = [sys.executable] if processes == 1 else ["torchrun", *nodes, f"--nproc_per_node={per_node}"]
    return {
        "function": arguments.function,
        "variant": arguments.variant,
        "bottleneck_dim": arguments.bottleneck_dim if arguments.variant == "perceiver" else None,
        "vocabulary": vocabulary_of(documents),
        "text": digest(corpora.text),
        "pairs": None if corpora.pairs is None else digest(corpora.pairs),
        "reading_params_path": arguments.reading_params_path,
        "recipe": arguments.recipe,
        **{f"recipe.{name}": value for name, value in asdict(RECIPES[arguments.recipe]).items()},
        "seed": arguments.seed,
        "epochs": trainer.config.max_epochs,
        "learning_rate": trainer.config.learning_rate,
        "device": trainer.device.type,
        "precision": "bf16" if trainer.dtype == torch.bfloat16 else "fp32",
        "micro_batch_rows": arguments.micro_batch_rows,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "commit": commit,
        "command": shlex.join([*launcher, *sys.argv]),
        "started": time.strftime(TIME),
    }


def make_trainer(
    arguments: argparse.Namespace, documents: "CharCorruptionDataset", names: "NameDataset | None", model: "GPT"
) -> "Trainer":
    """The trainer of this function by the recipe. Raises UserError."""
    import torch

    from dataset import MixedDataset, SalientSpanDataset
    from trainer import Trainer, TrainerConfig, final_tokens_of
    from utils import set_seed

    recipe = RECIPES[arguments.recipe]
    if arguments.function == "pretrain":
        dataset = documents
        if names is not None:
            dataset = SalientSpanDataset(documents, names.data, *recipe.reading)
            dataset = MixedDataset(dataset, names, recipe.questions)
        epochs, batch_size = arguments.pretrain_epochs, recipe.pretrain_batch_size
        learning_rate, muon_lr = arguments.pretrain_lr, recipe.muon_lr
        warmup_tokens = recipe.pretrain_warmup_tokens
        rows = len(documents) * (1 + recipe.questions)
    else:
        dataset, rows = names, len(names)
        epochs, batch_size = arguments.finetune_epochs, recipe.finetune_batch_size
        learning_rate, muon_lr = arguments.finetune_lr, 0.0
        warmup_tokens = TrainerConfig.warmup_tokens
    course_tokens = 200 * len(documents) * BLOCK_SIZE
    run_tokens = epochs * rows * (BLOCK_SIZE - 1)
    config = TrainerConfig(
        max_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        muon_lr=muon_lr,
        decay_all=recipe.decay_all,
        lr_decay=True,
        warmup_tokens=warmup_tokens,
        final_tokens=final_tokens_of(run_tokens, warmup_tokens) if recipe.decay_within_run else course_tokens,
        device=arguments.device,
        precision=arguments.precision,
        micro_batch_rows=arguments.micro_batch_rows or 0,
    )
    try:
        trainer = Trainer(model, dataset, None, config)
    except ValueError as error:
        raise UserError(str(error)) from None
    if trainer.rank:
        # other spans and dropout than the other processes draw; of a seed, a CPU takes 32 bits
        set_seed(int(torch.randint(2**32, (trainer.rank,))[-1]))
    return trainer


def hide_failed_writes(failed: threading.ExceptHookArgs) -> None:
    """Keeps TensorBoard's thread from printing a traceback for a full disk, of which Trainer.log() tells in a line."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def tensorboard_writer(arguments: argparse.Namespace, started: str, purge_step: int | None = None) -> "SummaryWriter":
    """Where TensorBoard shows the run that began at that time; points there from purge_step on are hidden."""
    from torch.utils.tensorboard import SummaryWriter

    output = Path(arguments.writing_params_path or arguments.outputs_path).name  # runs may begin in the same second
    run = f"{arguments.function}-{arguments.variant}-{output}-{started}"
    folder = TENSORBOARD_FOLDER / arguments.tb_expt_name / run
    threading.excepthook = hide_failed_writes
    with writing(f"{folder}:"):
        return SummaryWriter(folder, purge_step=purge_step)


def train(arguments: argparse.Namespace, corpora: Corpora) -> None:
    """Pretrains or finetunes by the recipe, logs to expt/, keeps the state, and writes the parameters."""
    from checkpoint import StateKeeper, keep_params, save_params
    from utils import dev_accuracy

    documents, names, model = build(arguments, corpora)
    trainer = make_trainer(arguments, documents, names, model)
    run = describe(arguments, corpora, documents, trainer)
    go_on = run["command"] if arguments.resume else f"{run['command']} --resume"
    keeper = StateKeeper(state_path(arguments), arguments.checkpoint_minutes, run, go_on)
    if arguments.resume:
        run["started"] = keeper.read(trainer).get("started", run["started"])
        print(f"Going on after step {trainer.steps}")
    else:
        keeper.write(trainer)
    trainer.on_step_end.append(keeper)
    if corpora.questions and corpora.questions[0][1] is not None:
        trainer.on_epoch_end.append(dev_accuracy(corpora.questions, documents))
    elif corpora.questions:
        print(f"{arguments.eval_corpus_path}: has no places, so no accuracy is reported", file=sys.stderr)
    if arguments.keep_every:
        trainer.on_epoch_end.append(keep_params(arguments.writing_params_path, arguments.keep_every, run))
    if trainer.rank == 0:
        trainer.config.writer = tensorboard_writer(arguments, run["started"], trainer.steps + 1)
    try:
        with keeper.listening():
            trainer.train()
    except FloatingPointError as error:
        lower = f"--{arguments.function}_lr" + (" and muon_lr in src/recipe.py" if trainer.config.muon_lr else "")
        raise UserError(f"{error}; begin anew with a lower {lower}; {keeper.path} has the last state kept") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        rows = trainer.rows_at_once()
        if rows == 1:
            raise  # main() says what is left to do
        raise UserError(f"out of memory; go on with --resume and a --micro_batch_rows below {rows}") from None
    finally:
        if trainer.config.writer is not None:
            with suppress(OSError):  # a full disk
                trainer.config.writer.close()
    if trainer.rank == 0:
        save_params(model, arguments.writing_params_path, run)
        keeper.remove()
        print(f"Parameters written to {arguments.writing_params_path}")


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether this is what torch raises where memory, of any device, is used up."""
    said = ("out of memory", "allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def evaluate(arguments: argparse.Namespace, corpora: Corpora) -> None:
    """Answers every question, writes the answers, and counts the right ones where places are given."""
    from utils import accuracy_line, answer, count_places

    documents, names, model = build(arguments, corpora)
    predictions = answer(model, documents, [question for question, _ in corpora.questions], progress=True)
    write_text(arguments.outputs_path, "".join(f"{prediction}\n" for prediction in predictions))
    total, correct = count_places(corpora.questions, predictions)
    if total:
        print(accuracy_line(total, correct))
    print(f"Predictions written to {arguments.outputs_path}" + ("" if total else "; no targets provided"))
    if arguments.report_path is not None:
        report(arguments, corpora, documents, names, model, predictions)


def report(
    arguments: argparse.Namespace,
    corpora: Corpora,
    documents: "CharCorruptionDataset",
    names: "NameDataset | None",
    model: "GPT",
    predictions: list[str],
) -> None:
    """Writes what can be known of each answer, prints its summary, and gives TensorBoard the pictures."""
    import numpy as np

    from inside import as_table, attention_maps, attention_picture, examine, reliability_diagram, summary

    trained_on = None if names is None else {place for _, place in names.data}
    rows = examine(model, documents, corpora.questions, predictions, trained_on)
    write_text(arguments.report_path, as_table(rows))
    print(summary(rows))
    print(f"Report written to {arguments.report_path}")
    confidence, correct = np.array([row.probability for row in rows]), np.array([row.correct for row in rows])
    surest = max(rows, key=lambda row: row.probability)
    with writing(f"{TENSORBOARD_FOLDER}: the pictures"), tensorboard_writer(arguments, time.strftime(TIME)) as writer:
        writer.add_image("reliability", reliability_diagram(confidence, correct), dataformats="HWC")
        if surest.probability:  # else no question could be asked
            maps = attention_maps(model, documents, surest.question, surest.prediction)
            writer.add_image("attention, a row a layer", attention_picture(maps), dataformats="HWC")
            writer.add_text("attention, a row a layer", f"{surest.question} {surest.prediction}")


def ask(arguments: argparse.Namespace, corpora: Corpora) -> None:
    """Asks about names, from the command line or typed, and shows what the model and the text say: TSV in a pipe."""
    from inside import COLUMNS, as_row, as_screen, look_up

    with redirect_stdout(sys.stderr):
        documents, _, model = build(arguments, corpora)
    at_terminal = sys.stdout.isatty()
    if not at_terminal:
        with suppress(AttributeError):  # in a notebook
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # as all files here are
        print("\t".join(COLUMNS))
    for name in arguments.names or typed_names():
        finding = look_up(model, documents, name)
        if at_terminal:
            print(as_screen(finding, arguments.pretrain_corpus_path, colours="NO_COLOR" not in os.environ))
        else:
            print(as_row(finding), flush=True)


def typed_names() -> Iterator[str]:
    """The lines of the standard input that are not blank; at a terminal, after a prompt, until Ctrl-D. UserError."""
    prompts = sys.stdin.isatty()
    while True:
        if prompts:
            print("Who? ", end="", file=sys.stderr, flush=True)  # the output may be a file
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise UserError(f"standard input: not {error.encoding}; give the names in that encoding") from None
        if not line:
            return
        if line.strip():
            yield line.strip()


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """Joins the processes that torchrun started, and gives the rank of this one; 0 where it is the only one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    import torch
    import torch.distributed as dist

    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UserError(f"WORLD_SIZE is set, {name} is not; start several processes with torchrun, or unset it")
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        raise UserError("torchrun: several processes cannot share this GPU; give --device cpu")
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        if int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
            raise UserError(f"torchrun --nproc_per_node: there are {torch.cuda.device_count()} GPUs here; start fewer")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    corpora = read_corpora(arguments)
    try:
        with process_group(arguments.device) as rank, ExitStack() as stack:
            output = arguments.writing_params_path or arguments.outputs_path
            if rank == 0 and output is not None:
                stack.enter_context(locked(output))
            if arguments.writing_params_path is not None:
                check_state(arguments)
                train(arguments, corpora)
            elif rank == 0:
                {"evaluate": evaluate, "ask": ask}[arguments.function](arguments, corpora)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError("out of memory; end what else uses it or, on a GPU, give --device cpu") from None


if __name__ == "__main__":
    exit_on_user_error(main)
