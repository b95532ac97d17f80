"""Pretrain, finetune and evaluate a small GPT on birth places: the command line."""

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from files import (
    UserError,
    atomic_write,
    check_writable,
    exit_on_user_error,
    parse_pairs,
    parse_questions,
    read_text,
)
from recipe import RECIPES

# torch is imported where work begins, so that --help and mistakes are answered at once

BLOCK_SIZE = 128
VARIANTS = ["vanilla", "perceiver", "synthesizer", "rope"]


@dataclass
class Corpora:
    """The files of a run, read and checked."""

    text: str
    pairs: str | None
    questions: list[tuple[str, str | None]] | None


def positive(kind: type) -> "callable":
    """An argparse type: a finite number above zero."""

    def parse(text: str) -> float:
        value = kind(text)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError
        return value

    parse.__name__ = f"positive {'whole number' if kind is int else 'number'}"  # for argparse's message
    return parse


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Pretrain a small GPT by span corruption, finetune it on birth places, and ask it about others.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("function", choices=["pretrain", "finetune", "evaluate"], help="what to do")
    option("variant", choices=VARIANTS, help="which model")
    option("pretrain_corpus_path", help="the pretraining text, one document a line; it defines the vocabulary")
    option("--reading_params_path", help="parameters to start from (finetune) or to ask (evaluate)")
    option("--writing_params_path", help="where pretrain and finetune write the parameters")
    option("--finetune_corpus_path", help="question<TAB>place rows to finetune on")
    option("--eval_corpus_path", help="questions to answer (evaluate), or to measure after each epoch (finetune)")
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
    option("--seed", type=int, default=0, help="seed of everything random")
    option("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    option("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of the matmuls while training")
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
        parser.error(f"{arguments.function} with the recipe {arguments.recipe} needs {' and '.join(missing)}")
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
    return arguments


def read_corpora(arguments: argparse.Namespace) -> Corpora:
    """Reads every input and checks every output of the run, before any work. Raises UserError."""
    params_path = arguments.reading_params_path
    if params_path is not None and not Path(params_path).exists():
        raise UserError(f"{params_path}: no such file; pretrain or finetune writes one")
    for path in (arguments.writing_params_path, arguments.outputs_path):
        if path is not None:
            check_writable(path)
    text, pairs, questions = read_text(arguments.pretrain_corpus_path), None, None
    trains_on_pairs = {"finetune": True, "pretrain": RECIPES[arguments.recipe].questions > 0, "evaluate": False}
    if trains_on_pairs[arguments.function]:
        path = arguments.finetune_corpus_path
        pairs = read_text(path)
        parse_pairs(pairs, path)
    if arguments.function != "pretrain" and arguments.eval_corpus_path is not None:
        questions = parse_questions(read_text(arguments.eval_corpus_path), arguments.eval_corpus_path)
    return Corpora(text, pairs, questions)


def train(model, train_dataset, arguments: argparse.Namespace, course_tokens: int, on_epoch_end=None) -> None:
    """Trains with the recipe's settings for the function at hand, logs to expt/, and writes the parameters.

    `course_tokens` is where the course's recipe has the end of its cosine.
    """
    from torch.utils.tensorboard import SummaryWriter

    from checkpoint import save_params
    from trainer import Trainer, TrainerConfig

    pretraining, recipe = arguments.function == "pretrain", RECIPES[arguments.recipe]
    epochs = arguments.pretrain_epochs if pretraining else arguments.finetune_epochs
    rows_an_epoch = len(train_dataset) * (1 + recipe.questions if pretraining else 1)
    name = f"{arguments.function}-{arguments.variant}-{time.strftime('%Y%m%d-%H%M%S')}"
    writer = SummaryWriter(Path("expt") / arguments.tb_expt_name / name)
    config = TrainerConfig(
        max_epochs=epochs,
        batch_size=recipe.pretrain_batch_size if pretraining else recipe.finetune_batch_size,
        learning_rate=arguments.pretrain_lr if pretraining else arguments.finetune_lr,
        muon_lr=recipe.muon_lr if pretraining else 0.0,
        lr_decay=True,
        warmup_tokens=512 * 20,
        final_tokens=int(epochs * rows_an_epoch * (BLOCK_SIZE - 1)) if recipe.decay_within_run else course_tokens,
        device=arguments.device,
        precision=arguments.precision,
        writer=writer,
    )
    trainer = Trainer(model, train_dataset, None, config)
    if on_epoch_end is not None:
        trainer.on_epoch_end.append(on_epoch_end)
    trainer.train()
    writer.close()
    save_params(model, arguments.writing_params_path)
    print(f"Parameters written to {arguments.writing_params_path}")


def ask(model, documents, questions: list[tuple[str, str | None]], path: str) -> list[str]:
    """One prediction a question, in order; empty, with a line on stderr, where the question cannot be asked."""
    from utils import answer, unanswerable

    reasons = [unanswerable(documents, question) for question, _ in questions]
    for line, reason in enumerate(reasons, 1):
        if reason is not None:
            print(f"{path}, line {line}: {reason}; its prediction is left empty", file=sys.stderr)
    askable = [question for (question, _), reason in zip(questions, reasons, strict=True) if reason is None]
    answered = iter(answer(model, documents, askable))
    return ["" if reason is not None else next(answered) for reason in reasons]


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    corpora = read_corpora(arguments)

    from checkpoint import load_params
    from dataset import CharCorruptionDataset, MixedDataset, NameDataset
    from model import GPT, GPTConfig
    from trainer import pick_device
    from utils import accuracy_line, evaluate_places, set_seed

    try:
        device = pick_device(arguments.device)
    except ValueError as error:
        raise UserError(f"--device {arguments.device}: {error}; leave the option out") from None
    set_seed(arguments.seed)
    recipe = RECIPES[arguments.recipe]
    documents = CharCorruptionDataset(corpora.text, BLOCK_SIZE, arguments.pretrain_corpus_path, recipe.anchored)
    print(f"data has {documents.num_characters} characters, {documents.vocab_size} unique.")
    names = None
    if corpora.pairs is not None:
        names = NameDataset(documents, corpora.pairs, arguments.finetune_corpus_path)
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
    if arguments.function != "pretrain" and arguments.reading_params_path is not None:
        load_params(model, arguments.reading_params_path, config, arguments.pretrain_corpus_path)
    model.to(device)

    course_tokens = 200 * len(documents) * BLOCK_SIZE
    if arguments.function == "pretrain":
        dataset = MixedDataset(documents, names, recipe.questions) if recipe.questions else documents
        train(model, dataset, arguments, course_tokens)
    elif arguments.function == "finetune":
        on_epoch_end = None
        if corpora.questions is not None and corpora.questions[0][1] is not None:
            asked = [(q, place) for q, place in corpora.questions]

            def on_epoch_end(trainer) -> dict[str, float]:
                predictions = ask(model, documents, asked, arguments.eval_corpus_path)
                right = sum(p == place for p, (_, place) in zip(predictions, asked, strict=True))
                return {"dev accuracy (%)": 100 * right / len(asked)}

        train(model, names, arguments, course_tokens, on_epoch_end)
    else:
        predictions = ask(model, documents, corpora.questions, arguments.eval_corpus_path)
        with atomic_write(arguments.outputs_path) as file:
            file.write("".join(f"{prediction}\n" for prediction in predictions).encode())
        total, correct = evaluate_places(arguments.eval_corpus_path, predictions)
        if total:
            print(accuracy_line(total, correct))
            print(f"Predictions written to {arguments.outputs_path}")
        else:
            print(f"Predictions written to {arguments.outputs_path}; no targets provided")


if __name__ == "__main__":
    exit_on_user_error(main)
