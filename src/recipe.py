"""All settings: the variants, the recipes, and the frozen Run that describes one command.

Does not import torch, so that --help and error messages appear at once.
"""

import math
from dataclasses import dataclass, fields, replace

from cli import UserError

BLOCK_SIZE = 128  # characters
PAD, MASK = 0, 1  # the ids of the marks; the loss ignores targets that are PAD


@dataclass(frozen=True)
class Variant:
    """How one kind of model differs from the others; its parts are classes of attention.py and model.py."""

    attention: str  # the class of attention.py inside an ordinary block
    learned_positions: bool = True
    bottleneck: bool = False  # the body: one block down to bottleneck_dim positions, blocks on those, one block up
    bottleneck_dim: int = 32  # what scripts/ and benchmarks/ use; on the command line, the default is always 32


VARIANTS = {
    "vanilla": Variant("CausalSelfAttention"),
    "perceiver": Variant("CausalSelfAttention", bottleneck=True, bottleneck_dim=64),
    "synthesizer": Variant("SynthesizerAttention"),
    "rope": Variant("RotarySelfAttention", learned_positions=False),
}


@dataclass(frozen=True)
class Recipe:
    """How to pretrain and finetune. Probabilities and shares are in [0, 1]; tokens count padding."""

    name: str
    pretrain_epochs: int
    pretrain_batch_size: int  # documents
    pretrain_lr: float  # peak rate of AdamW
    pretrain_warmup_tokens: int  # linear warm-up of both optimizers
    muon_lr: float  # peak rate of Muon on the matrices inside the blocks, in pretraining; 0: AdamW trains all
    decay_all: bool  # weight decay on all parameters but biases; else on the matrices of matmuls only
    dropout: float
    loss_on_span: bool  # only masked spans, and the marks that end them, are targets; else all characters
    # salient spans: how finetuning reads the text again, and how pretraining reads it unless reads_facts is set
    entity_mask_prob: float  # probability that the masked span is a named entity, read with little context
    context_chars: int  # at most this many characters are read on each side of such an entity or fact
    question_prefix_prob: float  # highest probability that the question about the subject replaces its title
    weight_by_answer_odds: bool  # mask likely answers more often, and ask less often before unlikely lines
    reads_facts: bool  # pretraining reads each document fact by fact, as many as fit in a row, and uses no pairs
    prefix_words: int  # at most this many words from anywhere in the text begin a row of facts
    word_weight: float  # how often a run of rare words is read as a fact, compared with a name
    qa_per_document: float  # finetuning pairs mixed into pretraining, per document
    finetune_qa_per_document: float  # pairs per document where finetuning reads the text, too; 0: it reads pairs alone
    decay_to_end_of_run: bool  # the rate is lowest exactly at the end; else as in the course's code
    pretrain_cosine_epochs: int  # epochs until the course's cosine is lowest, after which it rises; 0: those of the run
    scratch_epochs: int  # of the pairs, in finetuning without pretrained parameters
    finetune_epochs: int  # of the text, if finetuning reads it, else of the pairs
    finetune_batch_size: int  # documents, or pairs
    finetune_lr: float

    def __post_init__(self) -> None:
        if self.reads_facts and self.qa_per_document > 0:
            raise UserError("qa_per_document: a recipe with reads_facts pretrains on the text alone; set it to 0")

    @property
    def pretrains_on_pairs(self) -> bool:
        """Whether pretraining needs the pairs: to mix them in, or for the question's wording and likely answers."""
        return not self.reads_facts and (self.qa_per_document > 0 or self.entity_mask_prob > 0)

    @property
    def reads_whole_lines(self) -> bool:
        """Whether the end of a long line is read, too: random spans are drawn from its beginning."""
        return self.reads_facts or self.entity_mask_prob == 1


# the assignment of 2021 to 2023
COURSE = Recipe(
    name="course",
    pretrain_epochs=650,
    pretrain_batch_size=128,
    pretrain_lr=6e-3,
    pretrain_warmup_tokens=512 * 20,  # the course's, though it is less than a step of 128 documents
    muon_lr=0.0,
    decay_all=True,  # otherwise it hardly learns at this rate: docs/results.md#a-longer-warm-up
    dropout=0.1,
    loss_on_span=False,
    entity_mask_prob=0.0,
    context_chars=0,
    question_prefix_prob=0.0,
    weight_by_answer_odds=False,
    reads_facts=False,
    prefix_words=0,
    word_weight=0.0,
    qa_per_document=0.0,
    finetune_qa_per_document=0.0,
    decay_to_end_of_run=False,
    pretrain_cosine_epochs=200,
    scratch_epochs=75,
    finetune_epochs=10,
    finetune_batch_size=256,
    finetune_lr=6e-4,
)

# Muon: Jordan et al. 2024; salient spans: Guu et al. 2020; likely answers: Lewis et al. 2021;
# questions among the documents: Allen-Zhu and Li 2023
FAST = replace(
    COURSE,
    name="fast",
    pretrain_epochs=20,
    pretrain_batch_size=64,
    pretrain_lr=3e-3,
    muon_lr=0.02,
    decay_all=False,
    dropout=0.0,
    loss_on_span=True,
    entity_mask_prob=1.0,
    context_chars=6,
    question_prefix_prob=1.0,
    weight_by_answer_odds=True,
    qa_per_document=0.02,
    finetune_qa_per_document=1.0,
    decay_to_end_of_run=True,
    pretrain_cosine_epochs=0,
    finetune_epochs=6,
    finetune_batch_size=64,
    finetune_lr=3e-4,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        COURSE,
        # the assignment of 2024 and 2025: the rate falls once
        replace(COURSE, name="course2024", pretrain_cosine_epochs=0),
        FAST,
        replace(
            FAST,
            name="open",
            pretrain_epochs=24,
            qa_per_document=0.0,
            reads_facts=True,
            prefix_words=3,
            word_weight=0.3,
        ),
    )
}


HIGHEST = {"dropout": 0.99, "entity_mask_prob": 1, "question_prefix_prob": 1}


def with_settings(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with NAME=VALUE settings changed. Raises UserError."""
    kinds = {field.name: field.type for field in fields(Recipe) if field.name != "name"}
    changes = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in kinds:
            raise UserError(f"{setting}: not NAME=VALUE of a setting in src/recipe.py")
        try:
            value = {"True": True, "False": False}[text] if kinds[name] is bool else kinds[name](text)
        except (ValueError, KeyError):
            wanted = {bool: "True or False", int: "a whole number", float: "a number"}[kinds[name]]
            raise UserError(f"{setting}: {name} must be {wanted}") from None
        if name.endswith(("_epochs", "_size")) and value < 1 and name != "pretrain_cosine_epochs":
            raise UserError(f"{setting}: must be at least 1")
        if not 0 <= value < math.inf:
            raise UserError(f"{setting}: must be 0 or more")
        if value > HIGHEST.get(name, math.inf):
            raise UserError(f"{setting}: must be at most {HIGHEST[name]}")
        changes[name] = value
    return replace(recipe, **changes)


TRAINING = ("pretrain", "finetune")  # the functions that train


@dataclass(frozen=True)
class Run:
    """One command with every setting decided: recorded beside the parameters, and compared by --resume."""

    function: str  # pretrain, finetune, evaluate or ask
    variant: str
    pretrain_corpus_path: str
    recipe: Recipe  # with the changes of the command line
    bottleneck_dim: int = 32
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    micro_batch_rows: int = 0  # 0: chosen by the engine
    question: str | None = None  # the template, "Where was {name} born?"; None: found in the pairs or the record
    reading_params_path: str | None = None
    finetune_corpus_path: str | None = None
    eval_corpus_path: str | None = None
    names: tuple[str, ...] = ()
    writing_params_path: str | None = None
    outputs_path: str | None = None
    report_path: str | None = None
    resume: bool = False
    keep_every: int = 0  # epochs; 0: keep only the final parameters
    checkpoint_minutes: float = 5.0
    tb_folder: str = "expt"
    tb_expt_name: str = "run"

    def __post_init__(self) -> None:
        if self.keep_every > self.epochs > 0:
            raise UserError(
                f"--keep_every {self.keep_every} is more than the {self.epochs} epochs of this {self.function}"
            )
        if VARIANTS[self.variant].bottleneck and self.bottleneck_dim > BLOCK_SIZE:
            raise UserError(f"--bottleneck_dim {self.bottleneck_dim} is longer than the block of {BLOCK_SIZE}")

    @property
    def trains(self) -> bool:
        """Whether this run writes parameters."""
        return self.function in TRAINING

    @property
    def uses_pairs(self) -> bool:
        """Whether this run reads the pairs of --finetune_corpus_path, if they are given."""
        return {
            "pretrain": self.recipe.pretrains_on_pairs,
            "finetune": True,
            "evaluate": self.report_path is not None,
            "ask": False,
        }[self.function]

    @property
    def rereads_text(self) -> bool:
        """Whether this finetuning reads the text along with the pairs. From scratch, it reads the pairs alone."""
        return self.reading_params_path is not None and self.recipe.finetune_qa_per_document > 0

    @property
    def output(self) -> str | None:
        """The file that this run produces; None for ask, which prints."""
        return self.writing_params_path or self.outputs_path

    @property
    def epochs(self) -> int:
        """How often the data is read; 0 if nothing is trained."""
        from_scratch = self.reading_params_path is None
        return {
            "pretrain": self.recipe.pretrain_epochs,
            "finetune": self.recipe.scratch_epochs if from_scratch else self.recipe.finetune_epochs,
        }.get(self.function, 0)
