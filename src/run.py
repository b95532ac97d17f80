"""Pretrain, finetune and evaluate a small GPT on birth places: the command line."""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import Parser, UserError, exit_on_user_error, positive, seed
from files import atomic_write, check_folder, check_writable, count_right, parse_pairs, parse_questions, read_text
from recipe import RECIPES

# torch, and what needs it, is imported where work begins, so that --help and mistakes are answered at once
if TYPE_CHECKING:
    from dataset import CharCorruptionDataset, NameDataset
    from model import GPT

BLOCK_SIZE = 128
TENSORBOARD_FOLDER = Path("expt")
PRECISION_HELP = "of the matmuls while training; auto: bf16 on CUDA GPUs and x86 CPUs that multiply it, else fp32"
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
    option("function", choices=["pretrain", "finetune", "evaluate"], help="what to do")
    option("variant", choices=VARIANTS, help="which model")
    option("pretrain_corpus_path", help="the pretraining text, one document a line; it defines the vocabulary")
    option("--reading_params_path", help="parameters to start from, or to ask (evaluate)")
    option("--writing_params_path", help="where pretrain and finetune write the parameters")
    option(
        "--finetune_corpus_path",
        help="question<TAB>place rows to finetune on; the fast recipe also mixes them into pretraining",
    )
    option(
        "--eval_corpus_path",
        help="questions to answer; in training, with places, their accuracy after each epoch",
    )
    option("--outputs_path", help="where evaluate writes its predictions, one a line")
    option("--recipe", choices=list(RECIPES), default="course", help="the settings of training; see the README")

    def by_recipe(name: str, kind: type, help: str, *settings: str) -> None:
        defaults = (f"{n}: {' or '.join(f'{getattr(r, s):g}' for s in settings)}" for n, r in RECIPES.items())
        help = f"{help} (default by recipe: {', '.join(defaults)})"
        option(f"--{name}", type=positive(kind), default=argparse.SUPPRESS, help=help)

    by_recipe("pretrain_lr", float, "highest learning rate of AdamW in pretraining", "pretrain_lr")
    by_recipe("finetune_lr", float, "highest learning rate of finetuning", "finetune_lr")
    by_recipe("pretrain_epochs", int, "times that pretraining reads the text", "pretrain_epochs")
    finetune_help = "times that finetuning reads the pairs, from scratch or from --reading_params_path"
    by_recipe("finetune_epochs", int, finetune_help, "scratch_epochs", "finetune_epochs")
    option("--bottleneck_dim", type=positive(int), default=32, help="length of the perceiver's inner sequence")
    option("--seed", type=seed, default=0, help="seed of everything random")
    option("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="auto: a GPU if there is one")
    option("--precision", choices=["auto", "fp32", "bf16"], default="auto", help=PRECISION_HELP)
    option("--tb_expt_name", default="run", help="TensorBoard shows the run as expt/NAME/...")
    arguments = parser.parse_args(argv)

    recipe = RECIPES[arguments.recipe]
    needed = {
        "pretrain": ["writing_params_path", *(["finetune_corpus_path"] if recipe.questions else [])],
        "finetune": ["writing_params_path", "finetune_corpus_path"],
        "evaluate": ["reading_params_path", "eval_corpus_path", "outputs_path"],
    }[arguments.function]
    missing = [f"--{name}" for name in needed if getattr(arguments, name) is None]
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
        setattr(arguments, name, getattr(arguments, name, default))
    if arguments.bottleneck_dim > BLOCK_SIZE:
        parser.error(f"--bottleneck_dim {arguments.bottleneck_dim} is longer than the block of {BLOCK_SIZE}")
    unused = "writing_params_path" if arguments.function == "evaluate" else "outputs_path"
    if getattr(arguments, unused) is not None:
        parser.error(f"{arguments.function} writes nothing to --{unused}")
    return arguments


def read_corpora(arguments: argparse.Namespace) -> Corpora:
    """Reads every input and checks every output of the run, before any work. Raises UserError."""
    params_path = arguments.reading_params_path
    if params_path is not None and not os.path.exists(params_path):
        raise UserError(f"{params_path}: no such file; pretrain or finetune writes one")
    inputs = (arguments.pretrain_corpus_path, arguments.finetune_corpus_path, arguments.eval_corpus_path)
    for path in (arguments.writing_params_path, arguments.outputs_path):
        if path is not None:
            if any(other is not None and os.path.realpath(path) == os.path.realpath(other) for other in inputs):
                raise UserError(f"{path}: would be overwritten, and is read; name another output")
            check_writable(path)
    if arguments.function != "evaluate":
        check_folder(TENSORBOARD_FOLDER / arguments.tb_expt_name)
    text, pairs, questions = read_text(arguments.pretrain_corpus_path), None, None
    mixes = arguments.function == "pretrain" and RECIPES[arguments.recipe].questions > 0
    if arguments.function == "finetune" or mixes:
        pairs = read_text(arguments.finetune_corpus_path)
        parse_pairs(pairs, arguments.finetune_corpus_path)
    if arguments.eval_corpus_path is not None:
        questions = parse_questions(read_text(arguments.eval_corpus_path), arguments.eval_corpus_path)
    return Corpora(text, pairs, questions)


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
    documents = CharCorruptionDataset(corpora.text, BLOCK_SIZE, arguments.pretrain_corpus_path, recipe.anchored)
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
        load_params(model, arguments.reading_params_path, config, arguments.pretrain_corpus_path)
    for line, (question, _) in enumerate(corpora.questions or [], 1):
        reason = unanswerable(documents, question)
        if reason is not None:
            print(f"{arguments.eval_corpus_path}, line {line}: {reason}; its answer stays empty", file=sys.stderr)
    return documents, names, model.to(device)


def train(arguments: argparse.Namespace, corpora: Corpora) -> None:
    """Pretrains or finetunes by the recipe, logs to expt/, and writes the parameters."""
    from torch.utils.tensorboard import SummaryWriter

    from checkpoint import save_params
    from dataset import MixedDataset
    from trainer import Trainer, TrainerConfig
    from utils import answer

    documents, names, model = build(arguments, corpora)
    recipe = RECIPES[arguments.recipe]
    if arguments.function == "pretrain":
        dataset = documents if names is None else MixedDataset(documents, names, recipe.questions)
        epochs, batch_size = arguments.pretrain_epochs, recipe.pretrain_batch_size
        learning_rate, muon_lr = arguments.pretrain_lr, recipe.muon_lr
        rows = len(documents) * (1 + recipe.questions)
    else:
        dataset, rows = names, len(names)
        epochs, batch_size = arguments.finetune_epochs, recipe.finetune_batch_size
        learning_rate, muon_lr = arguments.finetune_lr, 0.0
    course_tokens = 200 * len(documents) * BLOCK_SIZE
    run_tokens = int(epochs * rows * (BLOCK_SIZE - 1))

    name = f"{arguments.function}-{arguments.variant}-{time.strftime('%Y%m%d-%H%M%S')}"
    writer = SummaryWriter(TENSORBOARD_FOLDER / arguments.tb_expt_name / name)
    config = TrainerConfig(
        max_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        muon_lr=muon_lr,
        lr_decay=True,
        warmup_tokens=512 * 20,
        final_tokens=run_tokens if recipe.decay_within_run else course_tokens,
        device=arguments.device,
        precision=arguments.precision,
        writer=writer,
    )
    trainer = Trainer(model, dataset, None, config)
    if corpora.questions and corpora.questions[0][1] is not None:
        questions = [question for question, _ in corpora.questions]

        def dev_accuracy(trainer: Trainer) -> dict[str, float]:
            right = count_right(corpora.questions, answer(model, documents, questions))
            return {"dev accuracy (%)": 100 * right / len(questions)}

        trainer.on_epoch_end.append(dev_accuracy)
    trainer.train()
    writer.close()
    save_params(model, arguments.writing_params_path)
    print(f"Parameters written to {arguments.writing_params_path}")


def evaluate(arguments: argparse.Namespace, corpora: Corpora) -> None:
    """Answers every question, writes the answers, and counts the right ones where places are given."""
    from utils import accuracy_line, answer, evaluate_places

    documents, _, model = build(arguments, corpora)
    predictions = answer(model, documents, [question for question, _ in corpora.questions])
    with atomic_write(arguments.outputs_path) as file:
        file.write("".join(f"{prediction}\n" for prediction in predictions).encode())
    total, correct = evaluate_places(arguments.eval_corpus_path, predictions)
    if total:
        print(accuracy_line(total, correct))
    print(f"Predictions written to {arguments.outputs_path}" + ("" if total else "; no targets provided"))


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    corpora = read_corpora(arguments)
    if arguments.function == "evaluate":
        evaluate(arguments, corpora)
    else:
        train(arguments, corpora)


if __name__ == "__main__":
    exit_on_user_error(main)
