"""The recipes: every setting of training that a name on the command line stands for, in one table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to pretrain and finetune."""

    pretrain_epochs: int
    pretrain_batch_size: int  # documents
    pretrain_lr: float
    pretrain_warmup_tokens: int  # in which the rates rise linearly to these; padding counts
    muon_lr: float  # of Muon on the matrices inside the blocks while pretraining; 0: AdamW trains all
    decay_all: bool  # weight decay on all parameters but biases; else on the matrices of matmuls only
    dropout: float
    salient: float  # share of the readings whose masked span is a name in the document, read with little else
    window: int  # characters before and behind such a name, at most
    framed: float  # share of them that are read behind the question about the document's title
    by_odds: bool  # names are drawn as the finetuning pairs make them likely to be an answer; else all alike
    questions: float  # finetuning pairs mixed into pretraining, for each document
    decay_within_run: bool  # to a tenth at the end of the run; else towards 200 epochs' worth of text, and up again
    scratch_epochs: int  # finetuning without --reading_params_path
    finetune_epochs: int
    finetune_batch_size: int
    finetune_lr: float

    @property
    def reading(self) -> tuple[float, int, float, bool]:
        """What SalientSpanDataset is told."""
        return self.salient, self.window, self.framed, self.by_odds

    @property
    def pretrains_on_pairs(self) -> bool:
        """Whether pretraining needs the finetuning pairs: their questions, or how a question is worded."""
        return self.questions > 0 or self.salient > 0


RECIPES = {
    "course": Recipe(
        pretrain_epochs=650,
        pretrain_batch_size=128,
        pretrain_lr=6e-3,
        pretrain_warmup_tokens=512 * 20,
        muon_lr=0.0,
        decay_all=True,  # else it hardly learns at this rate: docs/results.md
        dropout=0.1,
        salient=0.0,
        window=0,
        framed=0.0,
        by_odds=False,
        questions=0.0,
        decay_within_run=False,
        scratch_epochs=75,
        finetune_epochs=10,
        finetune_batch_size=256,
        finetune_lr=6e-4,
    ),
    # Muon: Jordan et al. 2024; salient spans: Guu et al. 2020; likely answers: Lewis et al. 2021;
    # questions among the text: Allen-Zhu and Li 2023
    "fast": Recipe(
        pretrain_epochs=60,
        pretrain_batch_size=64,
        pretrain_lr=3e-3,
        pretrain_warmup_tokens=512 * 20,
        muon_lr=0.02,
        decay_all=False,
        dropout=0.0,
        salient=0.9,
        window=12,
        framed=1.0,
        by_odds=True,
        questions=0.02,
        decay_within_run=True,
        scratch_epochs=75,
        finetune_epochs=2,
        finetune_batch_size=32,
        finetune_lr=1.5e-4,
    ),
}
