"""Trains a model for each row of an experiment, and asks it. Appends records to experiments/results.jsonl.

python scripts/experiment.py run context_chars=12         one row, with settings of src/recipe.py changed
python scripts/experiment.py ablation --people 600        fast, or open, without each ingredient, and with some alone
python scripts/experiment.py sweep                        more people, more lines about each, more readings
python scripts/experiment.py exposures --recipe course    accuracy by how often pretraining read the text
python scripts/experiment.py variants                     every kind of attention
python scripts/experiment.py wordings                     other wordings of the question, and lines without titles
python scripts/experiment.py each_relation                four questions, with a pretraining for each
python scripts/experiment.py relations --recipe open      the same questions, all after one pretraining

For each row, a model is pretrained, finetuned and asked about people who are not in its pairs: those of birth_dev.tsv
or, with --people or --held_out, some of the training people, so that the final test plays no part in choosing settings.
There is a record for each row, and in `relations` for each question.
"""

import argparse
import hashlib
import io
import math
import os
import random
import re
import shlex
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, dropping_output, exit_on_user_error, positive, seed
from corpus import build
from entities import title_length, title_of
from files import OutputFiles, check_folder, locked, read_text, write_text
from inputs import fit_of, read_inputs
from question import parse_pairs
from recipe import BLOCK_SIZE, RECIPES, VARIANTS, Recipe, Run, with_settings
from records import append_record, commit_and_note, corpus_name, machine, sha256_of

if TYPE_CHECKING:
    from model import GPT

Pairs = list[tuple[str, str]]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("experiments")
RESULTS = FOLDER / "results.jsonl"
LINES, FIRST = 64, 20  # of largest_attention()
READINGS = 20  # of each line, in masked_answers()
POINTS = 13  # of the curve of `exposures`
MARKS = (10, 25, 85)  # percent right; a record has the time at which a run reaches each
PAIRS_ALONE = "finetune_lr=1.5e-4 finetune_epochs=2 finetune_batch_size=32 finetune_qa_per_document=0"
COURSE_FINETUNING = "finetune_lr=6e-4 finetune_epochs=10 finetune_batch_size=256 finetune_qa_per_document=0"


@dataclass(frozen=True)
class Row:
    """One run of an experiment."""

    settings: str = ""  # NAME=VALUE ... of src/recipe.py
    variant: str = ""  # empty: the one of the command line
    people: int = 0  # if not 0: a text of our own about this many people, with `lines` lines about each
    lines: int = 0
    relations: tuple[str, ...] = ("birthplace",)  # of a text of our own: what is asked, each after the same pretraining
    question: str = ""  # another wording, such as "Birthplace of {name}?"
    titles: bool = True  # whether lines begin with "Name. "


EXPERIMENTS = {
    "run": [Row()],
    "exposures": [Row()],
    "wordings": [
        Row(people=600, lines=4),
        Row(people=600, lines=4, question="Birthplace of {name}?"),
        Row(people=600, lines=4, question="Где родился {name}?"),
        Row(people=600, lines=4, titles=False),
    ],
    "each_relation": [Row(people=600, lines=4, relations=(name,)) for name in build.RELATIONS],
    "relations": [Row(people=600, lines=4, relations=tuple(build.RELATIONS))],
    "variants": [Row(variant=variant) for variant in VARIANTS],
    "sweep": [
        *(
            Row(f"pretrain_epochs={epochs} {PAIRS_ALONE}", variant, people, 4)
            for epochs in (4, 15)  # 16 and 60 readings of each person
            for variant, people in (*((variant, 600) for variant in VARIANTS), ("vanilla", 300), ("vanilla", 1200))
        ),
        *(Row(f"pretrain_epochs={epochs} {PAIRS_ALONE}", "vanilla", 600, 1) for epochs in (16, 60)),
        *(Row(f"pretrain_epochs={epochs} {PAIRS_ALONE}", "vanilla", 600, 8) for epochs in (2, 8)),
        Row(f"pretrain_epochs=8 {PAIRS_ALONE}", "vanilla", 600, 4),  # 32 readings
    ],
}

# the rows of `ablation`: the recipe without each ingredient, and with some alone
ABLATIONS = {
    "fast": [  # what is masked is the same in pretraining and in the readings of finetuning
        Row(),
        Row("weight_by_answer_odds=False"),
        Row("question_prefix_prob=0"),
        Row("entity_mask_prob=0"),
        Row("qa_per_document=0"),
        Row("muon_lr=0"),
        Row("muon_lr=0 pretrain_lr=1e-3"),
        Row(PAIRS_ALONE),
        Row(COURSE_FINETUNING),
        # each ingredient alone
        Row(f"{COURSE_FINETUNING} qa_per_document=0 entity_mask_prob=0"),  # Muon
        Row(f"{COURSE_FINETUNING} muon_lr=0 qa_per_document=0 question_prefix_prob=0 weight_by_answer_odds=False"),
        Row(f"{COURSE_FINETUNING} muon_lr=0 qa_per_document=0 weight_by_answer_odds=False"),
        Row(f"{COURSE_FINETUNING} muon_lr=0 qa_per_document=0 question_prefix_prob=0"),
        Row(f"{COURSE_FINETUNING} muon_lr=0 entity_mask_prob=0"),
        Row(f"{PAIRS_ALONE} muon_lr=0 qa_per_document=0 entity_mask_prob=0"),  # the gentle finetuning
    ],
    "open": [
        Row(),
        Row("prefix_words=0"),
        Row("word_weight=0"),
        Row("context_chars=12"),
        Row("loss_on_span=False"),
        Row("reads_facts=False entity_mask_prob=0"),  # random spans; finetuning masks no likely answers either
        Row("muon_lr=0"),
        Row("muon_lr=0 pretrain_lr=1e-3"),
        # of finetuning alone
        Row("weight_by_answer_odds=False"),
        Row("question_prefix_prob=0"),
        Row(PAIRS_ALONE),
        Row(COURSE_FINETUNING),
        # each ingredient of pretraining alone
        Row(f"{COURSE_FINETUNING} muon_lr=0"),  # facts
        Row(f"{COURSE_FINETUNING} reads_facts=False entity_mask_prob=0"),  # Muon
    ],
}


class Watch(io.TextIOBase):
    """Passes on what a run prints, and notes the accuracies: (epoch, percent, seconds since the start)."""

    def __init__(self) -> None:
        self.out = sys.stdout or io.StringIO()  # closed, as by >&-
        self.started = time.perf_counter()
        self.accuracies: list[tuple[int, float, float]] = []

    def write(self, text: str) -> int:
        if found := re.match(r"epoch (\d+): dev accuracy \(%\) (\S+)", text):
            self.accuracies.append((int(found[1]), float(found[2]), time.perf_counter() - self.started))
        return self.out.write(text)

    def flush(self) -> None:
        self.out.flush()

    def fileno(self) -> int:
        return self.out.fileno()  # of the output that cli.discard_unwritable() replaces


def held_out_world(text: str, pairs: Pairs, people: int) -> tuple[str, Pairs, Pairs]:
    """The text, the pairs to train on, and those to ask: a third of `people` people, or a fifth of all (people=0).

    With `people`, the text is cut to the lines about them. A question that occurs twice in the pairs is asked, but not
    trained on. Raises UserError if there are too few pairs.
    """
    if people > len(pairs):
        raise UserError(f"--people {people} is more than the {len(pairs)} pairs")
    template = fit_of(pairs, text, None).template
    pairs = list(pairs)
    random.Random(0).shuffle(pairs)
    if people:
        pairs = pairs[:people]
        names = {template.name_in(question) for question, _ in pairs}
        kept = [document for document in text.split("\n") if title_of(document) in names]
        text = "\n".join([*kept, "".join(sorted(set(text) - {"\n"}))])  # the same vocabulary
    share = 3 if people else 5
    if len(pairs) < share:
        raise UserError(f"{len(pairs)} people are too few to ask about one in {share}; give more pairs")
    asked = pairs[: len(pairs) // share]
    questions = {question for question, _ in asked}
    return text, [pair for pair in pairs if pair[0] not in questions], asked


def write_world(folder: Path, text: str, trained_on: Pairs, asked: Pairs) -> None:
    """Writes wiki.txt, trained_on.tsv and asked.tsv into the folder, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(f"{folder}/wiki.txt", text)
    for name, pairs in (("trained_on", trained_on), ("asked", asked)):
        write_text(f"{folder}/{name}.tsv", "".join(f"{question}\t{answer}\n" for question, answer in pairs))


def make_world(arguments: argparse.Namespace, row: Row, folder: Path, relation: str) -> str:
    """write_world() for the row. Returns the name of this corpus in records."""
    if row.people:
        source, name = folder / "built", f"embedded-{row.people}x{row.lines}"
        words = ["--people", str(row.people), "--lines_per_person", str(row.lines), "--relation", relation]
        words += ["--seed", str(arguments.seed)] if len(row.relations) > 1 else []  # the quickstart's data of that seed
        build.main([*words, "--out", str(source)])
    else:
        source = Path(arguments.folder or ROOT)
        name = corpus_name(source)
    pairs_path, asked_path = (f"{source}/{file}" for file in build.file_names(relation)[:2])
    text, pairs = read_text(f"{source}/wiki.txt"), parse_pairs(read_text(pairs_path), pairs_path)
    if arguments.people or arguments.held_out:
        text, pairs, asked = held_out_world(text, pairs, arguments.people or 0)
        name += f"-{arguments.people or 'training'}"
    else:
        asked = parse_pairs(read_text(asked_path), asked_path)
    if not row.titles:
        text = "".join(line[title_length(line) :] for line in text.splitlines(keepends=True))
    if row.question:
        template = fit_of(pairs, text, None).template
        pairs, asked = (
            [(row.question.format(name=template.name_in(question)), answer) for question, answer in rows]
            for rows in (pairs, asked)
        )
        text += "".join(sorted(set(row.question) - set(text)))  # the vocabulary is that of the text
    write_world(folder, text, pairs, asked)
    return name


def masked_answers(recipe: Recipe, folder: Path) -> dict[str, float]:
    """How often, in %, pretraining masks the answer in lines about the people asked, and in how many of these lines it
    is the span that is masked most often. Empty if there are no such lines.
    """
    import torch

    from dataset import CharCorruptionDataset
    from readings import SalientSpanDataset

    documents = CharCorruptionDataset(read_text(f"{folder}/wiki.txt"), BLOCK_SIZE)
    pairs, asked = (parse_pairs(read_text(f"{folder}/{name}.tsv")) for name in ("trained_on", "asked"))
    titles = [title_of(document) for document in documents.data]
    template = fit_of(pairs, "\n".join(documents.data), None).template
    dataset = SalientSpanDataset(documents, pairs, template, recipe)
    answers = {template.name_in(question): answer for question, answer in asked}
    lines = [i for i, title in enumerate(titles) if answers.get(title)]
    if not lines:
        return {}
    masked = most_often = 0
    for i in lines:
        x, _ = dataset.batch(torch.full((READINGS,), i))
        spans = Counter(documents.decode(row).split(documents.MASK_CHAR)[2] for row in x)
        answer = answers[titles[i]]
        masked += spans[answer]
        most_often += spans.most_common(1)[0][0] == answer
    return {
        "percent_answer_masked": 100 * masked / (READINGS * len(lines)),
        "percent_answer_masked_most": 100 * most_often / len(lines),
    }


def folder_name(words: list[str]) -> str:
    """The words as the name of a folder; a long name, which file systems refuse, is cut and ends in a hash of all."""
    name = re.sub(r"\W*,\W*|\s+", ",", " ".join(filter(None, words)))
    in_bytes = os.fsencode(name)
    if len(in_bytes) <= 200:
        return name
    return f"{in_bytes[:190].decode(errors='ignore')}-{hashlib.sha256(in_bytes).hexdigest()[:8]}"


class Measurement:
    """One row in a folder of its own: pretrained once, then finetuned and asked for each relation."""

    def __init__(self, arguments: argparse.Namespace, row: Row) -> None:
        self.arguments, self.row = arguments, row
        self.recipe = with_settings(RECIPES[arguments.recipe], [*row.settings.split(), *arguments.settings])
        epochs = self.recipe.pretrain_epochs
        self.every = arguments.every or (math.ceil(epochs / POINTS) if arguments.experiment == "exposures" else 0)
        if self.every > epochs:
            raise UserError(f"--every {self.every} is more than the {epochs} epochs of pretraining")
        variant = row.variant or arguments.variant or "vanilla"
        words = [arguments.experiment, arguments.recipe, variant, str(arguments.seed)]
        words += ["-".join(Path(arguments.folder).resolve().parts[1:])] if arguments.folder else []
        words += [f"people={arguments.people}"] if arguments.people else []
        words += ["held_out"] if arguments.held_out else []
        words += [f"every={arguments.every}"] if arguments.every else []
        words += [row.settings, *arguments.settings]
        words += [f"{row.people}x{row.lines}", *row.relations] if row.people else []
        words += [row.question, "" if row.titles else "untitled"]
        self.folder = FOLDER / folder_name(words)
        self.text_path = f"{self.folder}/wiki.txt"
        self.pairs_path, self.asked_path = f"{self.folder}/trained_on.tsv", f"{self.folder}/asked.tsv"
        self.pretrained = OutputFiles(f"{self.folder}/pretrain.params")
        self.pretrain_seconds = 0.0
        self.recorded_path = self.folder / "recorded"  # recorded_relations() reads it
        self.common = Run(
            function="evaluate",
            variant=variant,
            pretrain_corpus_path=self.text_path,
            recipe=self.recipe,
            bottleneck_dim=VARIANTS[variant].bottleneck_dim,
            seed=arguments.seed,
            tb_expt_name="experiments",
        )

    def can_resume(self) -> bool:
        """Whether the row was begun: with --resume it continues, or is skipped if it is complete."""
        return any(map(os.path.exists, (self.pretrained.state, self.pretrained.path)))

    def recorded_relations(self) -> list[str]:
        """The relations whose records have been written, in the order of the row."""
        return self.recorded_path.read_text().split() if self.recorded_path.exists() else []

    def check_complete(self) -> None:
        """Raises UserError if the row was begun, and not all of its records were written."""
        if self.can_resume() and len(self.recorded_relations()) < len(self.row.relations):
            raise UserError(f"{self.folder}: is an unfinished run; continue it with --resume, or remove the folder")

    def forget(self) -> None:
        """Removes what an earlier run of this row left, so that --resume does not take it for a part of this run."""
        for path in (self.recorded_path, self.pretrained.path, self.pretrained.state):
            Path(path).unlink(missing_ok=True)

    def execute(self, **settings: object) -> object:
        """Runs a function of steps.py, from its beginning unless resume=True."""
        import steps

        run = replace(self.common, **settings)
        if run.trains and not run.resume:
            files = OutputFiles(run.writing_params_path)
            for path in (files.path, files.state):  # of a row that was stopped, or of another point of the curve
                Path(path).unlink(missing_ok=True)
        return steps.execute(run, read_inputs(run))

    def pretrain(self) -> None:
        """Pretrains, or resumes; does nothing if that was complete when the row was stopped."""
        resume = self.arguments.resume and os.path.exists(self.pretrained.state)
        if self.arguments.resume and not resume and os.path.exists(self.pretrained.path):
            self.check_pretrained()
            return
        self.execute(**self.pretraining(), resume=resume)

    def pretraining(self) -> dict:
        """What pretraining adds to the settings of the row."""
        pairs = self.pairs_path if self.recipe.pretrains_on_pairs else None
        return {
            "function": "pretrain",
            "writing_params_path": self.pretrained.path,
            "finetune_corpus_path": pairs,
            "eval_corpus_path": self.asked_path if pairs else None,  # a model that saw no question cannot answer any
            "keep_every": self.every,
        }

    def check_pretrained(self) -> None:
        """Raises UserError if the pretrained parameters are of another text, other pairs or other settings."""
        from checkpoint import WITHOUT_EFFECT, read_record, text_hash

        path, written = self.pretrained.path, read_record(self.pretrained.path)
        inputs = read_inputs(replace(self.common, **self.pretraining()))
        if written.get("text") != text_hash(inputs.text):
            raise UserError(f"{path}: was pretrained on another text; leave out --resume")
        advice = f"or remove {self.folder}, and leave out --resume"
        if written["pairs"] != (None if inputs.pairs is None else text_hash(repr(inputs.pairs))):
            raise UserError(f"{path}: was pretrained on other pairs; give those, {advice}")
        for name, value in asdict(self.recipe).items():
            before = written["recipe"].get(name)
            if value != before and not name.startswith(WITHOUT_EFFECT["pretrain"]):
                raise UserError(f"{path}: was pretrained with {name}={before}; set that in src/recipe.py, {advice}")

    def answer(self, params_path: str, questions_path: str) -> tuple[float, float]:
        """How many questions there are, and how many answers are right. The answers are kept beside the parameters."""
        predictions = f"{params_path}.{Path(questions_path).stem}.predictions"
        paths = {"eval_corpus_path": questions_path, "outputs_path": predictions}
        return self.execute(function="evaluate", reading_params_path=params_path, **paths)

    def finetune_and_answer(self, params_path: str, name: str = "finetune") -> tuple[float, float]:
        """answer(), after finetuning these parameters into NAME.params."""
        finetuned = f"{self.folder}/{name}.params"
        paths = {"reading_params_path": params_path, "writing_params_path": finetuned}
        self.execute(function="finetune", finetune_corpus_path=self.pairs_path, **paths)
        return self.answer(finetuned, self.asked_path)

    def run(self) -> None:
        """Trains and asks, and appends a record for each relation."""
        relations, resume = self.row.relations, self.arguments.resume
        recorded = self.recorded_relations() if resume else []
        if len(recorded) == len(relations):
            print(f"{self.folder}: already recorded; --resume skips it")
            return
        resumed = resume and self.can_resume()
        notes = ["resumed, so its times are not known"] if resumed else []
        for relation in relations[len(recorded) :]:
            corpus = make_world(self.arguments, self.row, self.folder, relation)
            values = self.pretrain_and_ask() if relation == relations[0] else {"measured": {}} | self.ask()
            if resumed:  # what came before it was stopped is not known
                values["seconds"] = {}
                if not self.every:
                    values["curve"] = None
            if self.arguments.experiment == "wordings":
                form = self.row.question or ("as they are" if self.row.titles else "lines without titles")
                values["measured"]["form"] = form
            if self.arguments.experiment in ("relations", "each_relation"):
                values["measured"]["relation"] = relation
            record(self.common_record(corpus, notes) | values)
            recorded.append(relation)
            write_text(str(self.recorded_path), "\n".join(recorded))

    def pretrain_and_ask(self) -> dict:
        """Pretrains, finetunes and answers, and looks into the model. Returns what the record says of that."""
        watch = Watch()
        with redirect_stdout(watch):
            self.pretrain()
            self.pretrain_seconds = time.perf_counter() - watch.started
            values = self.ask()
            if self.every:
                curve = self.curve(values)
            else:
                curve = [[epoch, percent] for epoch, percent, _ in watch.accuracies]
            measured = self.measured()
        finetuned = 100 * values["correct"] / values["asked"], values["seconds"]["total"]
        accuracies = [*((percent, at) for _, percent, at in watch.accuracies), finetuned]
        for mark in MARKS:
            passed = [at for percent, at in accuracies if percent >= mark]
            if passed:
                values["seconds"][f"to_{mark}_percent"] = round(passed[0])
        return values | {"curve": curve or None, "measured": measured}

    def ask(self) -> dict:
        """Finetunes the pretrained parameters and answers. Returns what the record says of that."""
        started = time.perf_counter()
        asked, correct = self.finetune_and_answer(self.pretrained.path)
        total = self.pretrain_seconds + time.perf_counter() - started
        return {
            "sha256": sha256_of(self.text_path, self.pairs_path, self.asked_path),
            "seconds": {"pretrain": round(self.pretrain_seconds), "total": round(total)},
            "correct": int(correct),
            "asked": int(asked),
        }

    def curve(self, result: dict) -> list[list[float]]:
        """[epoch, percent right] of the parameters that were kept, each finetuned, and of the final ones."""
        epochs, points = self.recipe.pretrain_epochs, []
        for epoch in range(self.every, epochs, self.every):
            asked, correct = self.finetune_and_answer(self.pretrained.kept(epoch), "kept")
            points.append([epoch, 100 * correct / asked])
        return [*points, [epochs, 100 * result["correct"] / result["asked"]]]

    def measured(self) -> dict:
        """What else a record says of the model."""
        knows_pairs = self.recipe.pretrains_on_pairs and self.recipe.entity_mask_prob
        percents = masked_answers(self.recipe, self.folder) if knows_pairs else {}
        for name, params_path, questions_path in (
            ("pretrained", self.pretrained.path, self.asked_path),
            ("trained_on", f"{self.folder}/finetune.params", self.pairs_path),
        ):
            asked, correct = self.answer(params_path, questions_path)
            percents[f"percent_{name}"] = 100 * correct / asked
        sharpness = [round(w, 3) for w in largest_attention(self.pretrained.path, self.folder)]
        return percents | {"largest_attention": sharpness}

    def common_record(self, corpus: str, notes: list[str]) -> dict:
        """What all records of the row share."""
        from checkpoint import read_record

        written = read_record(self.pretrained.path)
        base, settings = asdict(RECIPES[self.arguments.recipe]), asdict(self.recipe)
        del settings["name"]
        return commit_and_note(written["commit"], *notes) | {
            "machine": machine(),
            "experiment": self.arguments.experiment,
            "command": shlex.join(["python", *sys.argv]),
            "variant": self.common.variant,
            "bottleneck_dim": written["bottleneck_dim"],
            "precision": written["precision"],
            "corpus": corpus,
            "recipe": self.recipe.name,
            "settings": settings,
            "changed": {name: value for name, value in settings.items() if value != base[name]},
            "seed": self.arguments.seed,
        }


def record(values: dict) -> None:
    """Appends a record and prints it as one line."""
    append_record(str(RESULTS), values)
    changed = " ".join(f"{name}={value}" for name, value in values["changed"].items()) or "nothing changed"
    took = f" after {values['seconds']['total']} s" if values["seconds"] else ""
    marks = "".join(
        f", {name.split('_')[1]} % after {at} s" for name, at in values["seconds"].items() if name.startswith("to_")
    )
    percent = 100 * values["correct"] / values["asked"]
    relation = f", {values['measured']['relation']}" if "relation" in values["measured"] else ""
    print(
        f"{values['variant']}, seed {values['seed']}, {values['corpus']}{relation}, {changed}: {values['correct']} of "
        f"{values['asked']} right ({percent:.2f} %){took}{marks}"
    )


def largest_attention(params_path: str, folder: Path) -> list[float]:
    """How sharp attention is: the largest weight of a position, as a mean over heads and LINES lines, for each layer.

    Positions before FIRST are left out, since they have few to choose from; a layer with fewer positions is represented
    by its last one. If it is near 1, each head copies one character. Such a sharp softmax passes hardly any gradient,
    so the layer no longer learns where to look.
    """
    from checkpoint import load_params, read_record
    from dataset import CharCorruptionDataset
    from model import GPT, GPTConfig

    documents = CharCorruptionDataset(read_text(f"{folder}/wiki.txt"), BLOCK_SIZE)
    written = read_record(params_path)
    sizes = {"variant": written["variant"], "bottleneck_dim": written["bottleneck_dim"] or 32}
    model = GPT(GPTConfig(documents.vocab_size, BLOCK_SIZE, **sizes)).eval()
    load_params(model, params_path, f"{folder}/wiki.txt", documents)
    long = [line[:BLOCK_SIZE] for line in documents.data if len(line) > FIRST]
    return largest_weights(model, [documents.encode(line) for line in long[:: max(1, len(long) // LINES)][:LINES]])


def largest_weights(model: "GPT", lines: list[list[int]]) -> list[float]:
    """For each layer, the largest weight of a position from FIRST on (or the last), as a mean over heads and lines."""
    import torch

    with torch.no_grad():
        of_lines = [model.attention_weights(torch.tensor([line])) for line in lines]
    return [
        float(
            torch.cat([weights[0, :, min(FIRST, weights.size(2) - 1) :].amax(-1).flatten() for weights in layer]).mean()
        )
        for layer in zip(*of_lines, strict=True)  # each weights (1, nh, Tq, Tk)
    ]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("experiment", choices=sorted((*EXPERIMENTS, "ablation")))
    parser.add_argument("settings", nargs="*", default=[], metavar="NAME=VALUE", help="settings of src/recipe.py")
    parser.add_argument("--variant", choices=VARIANTS, help="default: vanilla")
    parser.add_argument("--recipe", choices=RECIPES, default="fast", help="the settings to begin with")
    parser.add_argument("--seed", type=seed, default=0, help="random seed")
    parser.add_argument(
        "--folder", help="holds wiki.txt, birth_places_train.tsv and birth_dev.tsv (default: those of the project)"
    )
    parser.add_argument(
        "--people", type=positive(int), help="a small world: this many training people, a third of them asked about"
    )
    parser.add_argument("--held_out", action="store_true", help="ask about a fifth of the training people")
    parser.add_argument(
        "--every", type=positive(int), help="epochs between points of a curve, each finetuned by itself"
    )
    parser.add_argument("--resume", action="store_true", help="continue an experiment that was stopped")
    arguments = parser.parse_intermixed_args()
    if arguments.experiment == "ablation" and arguments.recipe not in ABLATIONS:
        parser.error(f"ablation takes --recipe {' or '.join(ABLATIONS)}")
    rows = ABLATIONS[arguments.recipe] if arguments.experiment == "ablation" else EXPERIMENTS[arguments.experiment]
    if rows[0].people and (arguments.folder or arguments.people or arguments.held_out):
        parser.error(f"{arguments.experiment} makes its own text; leave out --folder, --people and --held_out")
    if rows[0].variant and arguments.variant:
        parser.error(f"{arguments.experiment} chooses its variants; leave out --variant")
    if arguments.people and arguments.held_out:
        parser.error("--people holds out a third of them; leave out --held_out")
    measurements = [Measurement(arguments, row) for row in rows]  # raises UserError for a wrong setting
    if arguments.resume and not any(measurement.can_resume() for measurement in measurements):
        raise UserError("--resume: this experiment has not been started here; leave it out")
    check_folder(FOLDER, "start from another folder")
    FOLDER.mkdir(exist_ok=True)
    # the same experiment twice would share folders; a closed terminal must not cost the records
    with locked(str(RESULTS)), dropping_output():
        if not arguments.resume:
            for measurement in measurements:
                measurement.check_complete()
            for measurement in measurements:
                measurement.forget()
        for measurement in measurements:
            measurement.run()


if __name__ == "__main__":
    exit_on_user_error(main)
