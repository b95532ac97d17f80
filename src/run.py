"""Pretrain and finetune a small GPT on birthplaces, evaluate it, and ask it questions: the command line."""

import sys

if __name__ == "__main__":  # before the other imports, which would end in a traceback
    if sys.version_info < (3, 10) or __package__:
        advice = "start it as 'python src/run.py'" if __package__ else "Python 3.10 or newer is needed"
        print("run.py: error: " + advice, file=sys.stderr)
        sys.exit(2)
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and "IPython" not in sys.modules:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until raise_on_interrupt(), Ctrl-C ends the process silently

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from cli import Parser, UserError, exit_on_user_error, positive, raise_on_interrupt, seed
from inputs import read_inputs
from recipe import RECIPES, TRAINING, VARIANTS, Run

FUNCTIONS = {
    "pretrain": "read the text with spans masked out, and write the parameters",
    "finetune": "train on question<TAB>answer pairs; with --reading_params_path, fast and open read the text, too",
    "evaluate": "answer the questions of a file, and count the right answers",
    "ask": "ask about people by name, and show what the model and the text say",
}


def by_recipe(*settings: str) -> str:
    """How the help shows a default that depends on the recipe."""
    values = (
        f"{recipe.name}: {' or '.join(f'{getattr(recipe, s):g}' for s in settings)}" for recipe in RECIPES.values()
    )
    return f" (default by recipe: {', '.join(values)})"


class Option(NamedTuple):
    """An option of some of the functions."""

    functions: tuple[str, ...]
    warns: bool  # whether the other functions only warn that it has no effect; else they refuse it
    kwargs: dict[str, Any]  # for argparse; the default is that of Run, unless it is given here


def option(*functions: str, warns: bool = False, **kwargs: Any) -> Option:
    return Option(functions, warns, kwargs)


OPTIONS = {
    "reading_params_path": option(*FUNCTIONS, help="parameters to start from, or to answer with"),
    "writing_params_path": option(*TRAINING, help="where to write the parameters"),
    "finetune_corpus_path": option(
        *TRAINING,
        "evaluate",
        warns=True,
        help="question<TAB>answer pairs: finetune trains on them; pretrain uses them only with --recipe fast, and "
        "evaluate only with --report_path, which says whether an answer occurs in them",
    ),
    "eval_corpus_path": option(
        *TRAINING,
        "evaluate",
        help="questions to answer; if they have answers, evaluate counts the right ones, and training reports its "
        "accuracy on them up to twenty times",
    ),
    "outputs_path": option("evaluate", help="where to write the predictions, one per line"),
    "report_path": option("evaluate", help="per-question report: probability, margin, whether the text has the answer"),
    "question": option(
        *FUNCTIONS,
        metavar="TEMPLATE",
        help="template of the questions, such as 'Where was {name} born?' (default: found in the pairs, or the one "
        "that the parameters were trained with)",
    ),
    "recipe": option(
        *TRAINING,
        warns=True,
        choices=RECIPES,
        default="course",
        help="training settings; README.md compares the recipes",
    ),
    "pretrain_lr": option("pretrain", type=positive(float), help="peak learning rate of AdamW"),
    "finetune_lr": option("finetune", type=positive(float), help="peak learning rate"),
    "pretrain_epochs": option("pretrain", type=positive(int), help="epochs over the text"),
    "finetune_epochs": option(
        "finetune",
        type=positive(int),
        help="epochs over the pairs; with fast or open and --reading_params_path, over the text. The first of two "
        "defaults applies without --reading_params_path",
    ),
    "bottleneck_dim": option(*FUNCTIONS, type=positive(int), help="length of the perceiver's inner sequence"),
    "seed": option(*TRAINING, warns=True, type=seed, help="random seed"),
    "device": option(
        *FUNCTIONS,
        choices=["auto", "cpu", "cuda", "mps"],
        help="auto: a CUDA GPU if there is one, otherwise the CPU",
    ),
    "precision": option(
        *TRAINING,
        warns=True,
        choices=["auto", "fp32", "bf16"],
        help="precision of matmuls; auto: bf16 on GPUs from Ampere on, and on CPUs where it is faster (AMX, or AMD's "
        "AVX-512 BF16), otherwise fp32",
    ),
    "micro_batch_rows": option(
        *TRAINING,
        warns=True,
        type=positive(int),
        default=None,
        help="rows per micro-batch (on a CPU, per thread); lower it to save memory. The batch size stays the same",
    ),
    "checkpoint_minutes": option(*TRAINING, warns=True, type=positive(float), help="minutes between checkpoints"),
    "resume": option(*TRAINING, action="store_true", help="resume a run that was stopped or killed"),
    "keep_every": option(
        *TRAINING,
        type=positive(int),
        default=None,
        help="save the parameters every N epochs, as WRITING_PARAMS_PATH.EPOCH",
    ),
    "tb_folder": option(*TRAINING, "evaluate", warns=True, help="where TensorBoard's files go"),
    "tb_expt_name": option(
        *TRAINING,
        "evaluate",
        warns=True,
        help="name of the run in TensorBoard, a folder in --tb_folder",
    ),
}
# the options that change the recipe, and which of its settings
RECIPE_OPTIONS = {
    "pretrain_lr": ("pretrain_lr",),
    "finetune_lr": ("finetune_lr",),
    "pretrain_epochs": ("pretrain_epochs",),
    "finetune_epochs": ("scratch_epochs", "finetune_epochs"),  # without and with --reading_params_path
}
REQUIRED = {
    "pretrain": ["writing_params_path"],
    "finetune": ["writing_params_path", "finetune_corpus_path"],
    "evaluate": ["reading_params_path", "eval_corpus_path", "outputs_path"],
    "ask": ["reading_params_path"],
}


def parser_of(function: str) -> Parser:
    """The parser of one function. It takes every option, and its help shows those that apply."""
    parser = Parser(FUNCTIONS[function], prog=f"run.py {function}")
    parser.add_argument("variant", choices=VARIANTS, help="model variant")
    parser.add_argument("pretrain_corpus_path", help="the text, one document per line; it defines the vocabulary")
    if function == "ask":
        parser.add_argument(
            "names",
            nargs="*",
            default=[],
            metavar="NAME",
            help="whom to ask about; without names, reads one per line from standard input",
        )
    for name, (functions, _, kwargs) in OPTIONS.items():
        kwargs = {"default": getattr(Run, name, None)} | kwargs
        if name in RECIPE_OPTIONS:
            kwargs["help"] += by_recipe(*RECIPE_OPTIONS[name])
        if name in REQUIRED[function]:
            kwargs["help"] += " (required)"
        if function not in functions:
            kwargs["help"] = argparse.SUPPRESS
        parser.add_argument(f"--{name}", **kwargs)
    return parser


def parse(argv: list[str]) -> Run:
    """The run that a command line asks for. Raises UserError."""
    function = function_of(argv)
    parser = parser_of(function)
    given = vars(parser.parse_intermixed_args(argv[1:]))
    check_options(parser, function, given)
    recipe = RECIPES[given.pop("recipe")]
    changes = {name: value for name in RECIPE_OPTIONS if (value := given.pop(name)) is not None}
    if "finetune_epochs" in changes and not given["reading_params_path"]:
        changes["scratch_epochs"] = changes.pop("finetune_epochs")
    run = Run(
        function=function,
        recipe=replace(recipe, **changes),
        names=tuple(given.pop("names", ())),
        micro_batch_rows=given.pop("micro_batch_rows") or 0,
        keep_every=given.pop("keep_every") or 0,
        **given,
    )
    for warning in unused_options(run):
        print(f"warning: {warning}", file=sys.stderr)
    return run


def function_of(argv: list[str]) -> str:
    """The function that a command line begins with. Otherwise ends with the help, or raises UserError."""
    function = argv[0] if argv else ""
    if function not in FUNCTIONS:
        overview = Parser(f"{__doc__}\n\nFor the options of a function: run.py FUNCTION --help", prog="run.py")
        functions = "; ".join(f"{name}: {text}" for name, text in FUNCTIONS.items())
        overview.add_argument("function", choices=FUNCTIONS, help=functions)
        misplaced = function in VARIANTS or (function[:1] == "-" and function not in ("-h", "--help"))
        if misplaced and FUNCTIONS.keys() & set(argv):
            overview.error("the function comes first: run.py FUNCTION VARIANT TEXT OPTIONS")
        overview.parse_args(argv[:1])  # always ends here
    return function


def check_options(parser: Parser, function: str, given: dict[str, Any]) -> None:
    """Raises UserError for an option that is missing or does not apply; some only get a warning instead."""
    for name, (functions, warns, _) in OPTIONS.items():
        if function in functions or given[name] == parser.get_default(name):
            continue
        if not warns:
            parser.error(f"--{name} does not apply to {function}")
        print(f"warning: --{name} has no effect in {function}", file=sys.stderr)
    recipe = RECIPES[given["recipe"]]
    required = REQUIRED[function] + ["finetune_corpus_path"] * (function == "pretrain" and recipe.pretrains_on_pairs)
    missing = [f"--{name}" for name in required if not given[name]]
    if missing:
        with_recipe = f" --recipe {recipe.name}" if recipe.name != "course" else ""
        parser.error(f"{function}{with_recipe} needs {' and '.join(missing)}")
    if any(not name.strip() for name in given.get("names", [])):
        raise UserError("NAME: a name is empty; give one, as in ask ... 'Marie Curie'")


def unused_options(run: Run) -> Iterator[str]:
    """Which of the options that were given have no effect."""
    if run.bottleneck_dim != Run.bottleneck_dim and not VARIANTS[run.variant].bottleneck:
        yield f"--bottleneck_dim has no effect on {run.variant}"
    if run.finetune_corpus_path is not None and not run.uses_pairs and run.function in ("pretrain", "evaluate"):
        without = f"--recipe {run.recipe.name}" if run.trains else "without --report_path"
        yield f"--finetune_corpus_path has no effect in {run.function} {without}"
    if run.function == "evaluate" and run.report_path is None:
        for name in ("question", "tb_folder", "tb_expt_name"):
            if getattr(run, name) != getattr(Run, name):
                yield f"--{name} has no effect in evaluate without --report_path"


def main(argv: list[str] | None = None) -> None:
    run = parse(sys.argv[1:] if argv is None else argv)
    inputs = read_inputs(run)
    import steps  # imports torch, so it comes late: --help and error messages appear at once

    raise_on_interrupt()
    steps.execute(run, inputs)


if __name__ == "__main__":
    exit_on_user_error(main)
