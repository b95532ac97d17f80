"""The training loop: epochs, callbacks, progress, state. Knows nothing about text; engine.py computes the gradients."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from engine import Engine, Throughput, makes_batches
from optim import learning_rate_multiplier, make_optimizers, scale_learning_rates


@dataclass
class TrainerConfig:
    """How to train. Tokens count padding: each row of a batch (B, T) has T of them.

    Raises AttributeError when an unknown setting is assigned.
    """

    max_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-4
    muon_lr: float = 0.0  # of Muon on model.hidden_matrices(); 0: AdamW trains every parameter
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    decay_all: bool = True  # weight decay on all parameters but biases; else on the matrices of matmuls only
    grad_norm_clip: float = 1.0
    lr_decay: bool = False  # linear warm-up, then a cosine; else a constant rate
    warmup_tokens: int = 512 * 20
    final_tokens: int = 10**9  # where the cosine is lowest
    device: str = "auto"  # auto, cpu, cuda or mps
    precision: str = "auto"  # auto, fp32 or bf16
    micro_batch_rows: int = 0  # micro-batch size, per thread on a CPU; 0: 8 to 16 on a CPU, else the whole batch
    num_workers: int = 0  # of the DataLoader, for datasets without a method batch()
    writer: SummaryWriter | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise AttributeError(f"TrainerConfig has no {name}; choose from {', '.join(self.__dataclass_fields__)}")
        super().__setattr__(name, value)


class Trainer:
    """Trains `model`, called as model(x, y) -> (logits, loss), on a dataset of (x, y) pairs.

    A dataset with a method batch(indices) -> (x, y) makes its batches itself, on the device, padded as Engine asks for;
    any other torch Dataset goes through a DataLoader. `test_dataset` may be None; otherwise its mean loss is reported
    after each epoch. Functions in `on_epoch_end` are called with the trainer and return figures to log, by name; those
    in `on_step_end` are called with the trainer and may raise to stop.

    Call engine.configure_torch() once before. In a process group (torchrun), each process takes its share of every
    batch. Raises ValueError when the last batch of an epoch has fewer rows than there are processes, and
    FloatingPointError when the loss or the gradient is no longer finite.
    """

    def __init__(
        self, model: nn.Module, train_dataset: Dataset, test_dataset: Dataset | None, config: TrainerConfig
    ) -> None:
        self.engine = engine = Engine(model, train_dataset, config)
        self.rank, self.world_size, self.device = engine.rank, engine.world_size, engine.device
        self.model = model
        self.train_dataset = train_dataset
        self.test_dataset = test_dataset
        self.config = config
        self.on_step_end: list[Callable[[Trainer], None]] = []
        self.on_epoch_end: list[Callable[[Trainer], dict[str, float]]] = []
        self.optimizers = make_optimizers(model, config, muon_dtype=engine.dtype)
        self.steps = 0
        self.tokens = 0  # seen so far by all processes, including padding; the schedule depends on it
        self.epoch = 0  # epochs completed
        self.order = torch.empty(0, dtype=torch.int64)  # rows still to come in the current epoch
        self.last = torch.zeros(()), torch.zeros(())  # loss and gradient norm of the last step
        for dataset in filter(None, (train_dataset, test_dataset)):
            last_batch = len(dataset) % config.batch_size or config.batch_size
            if last_batch < self.world_size:
                few = f"the last batch of an epoch has {last_batch} rows for {self.world_size} processes"
                raise ValueError(f"{few}; start fewer (torchrun --nproc_per_node)")

    def train(self) -> None:
        """Runs config.max_epochs epochs, or what is left of them; each visits every row once, in a new order."""
        total = self.config.max_epochs * math.ceil(len(self.train_dataset) / self.config.batch_size)
        with tqdm(total=total, initial=self.steps, unit="step", dynamic_ncols=True, disable=self.rank > 0) as bar:
            self.throughput = Throughput(self.engine)
            while self.epoch < self.config.max_epochs:
                self.model.train()
                bar.set_description(f"epoch {self.epoch + 1}/{self.config.max_epochs}", refresh=False)
                if not len(self.order):
                    new_order = torch.randperm(len(self.train_dataset), device=self.device)
                    self.order = self.engine.from_first_process(new_order)
                for x, y in self.batches(self.train_dataset, self.order):
                    self.step(x, y)
                    self.order = self.order[self.config.batch_size :]  # what a resumed run has yet to read
                    self.throughput.count(x, y)
                    bar.update()
                    if self.throughput.seconds() > 1.0 or self.steps == bar.total:
                        self.report(bar)
                    if not len(self.order) and self.end_epoch(bar):
                        self.throughput.restart()  # end_epoch() took time, too
                    for function in self.on_step_end:
                        function(self)

    def batches(self, dataset: Dataset, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the dataset in this order, on the device; each holds only the rows of this process."""
        batches = [rows[self.rank :: self.world_size] for rows in order.split(self.config.batch_size)]
        if makes_batches(dataset):
            yield from map(dataset.batch, batches)
        else:
            indices = [rows.tolist() for rows in batches]
            for x, y in DataLoader(dataset, batch_sampler=indices, num_workers=self.config.num_workers):
                yield x.to(self.device), y.to(self.device)

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One update of the parameters. Returns the loss and the gradient's norm before clipping, on the device."""
        config = self.config
        self.steps += 1
        self.tokens += int(self.engine.over_processes(torch.tensor(y.numel())))
        if config.lr_decay:
            multiplier = learning_rate_multiplier(self.tokens, config.warmup_tokens, config.final_tokens)
            scale_learning_rates(self.optimizers, multiplier)
        loss = self.engine.backward(x, y, padded=makes_batches(self.train_dataset))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_norm_clip)
        self.last = loss, norm
        if self.device.type == "cpu":
            self.check_finite()  # before the update; on a GPU, the check would have to wait for the result
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return self.last

    def check_finite(self) -> None:
        """Raises FloatingPointError when the last step's loss or gradient norm is infinite or not a number."""
        loss, norm = self.last
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {self.steps}, learning rate {self.learning_rate():.2e}: "
                f"loss {float(loss)}, gradient norm {float(norm)}"
            )

    def learning_rate(self) -> float:
        """The current learning rate of AdamW."""
        return self.optimizers[0].param_groups[0]["lr"]

    def test_loss(self) -> float:
        """The mean loss over the batches of the test dataset, without dropout."""
        self.model.eval()
        order = torch.arange(len(self.test_dataset), device=self.device)
        padded = makes_batches(self.test_dataset)
        losses = [self.engine.share_of_loss(x, y, padded) for x, y in self.batches(self.test_dataset, order)]
        return float(self.engine.over_processes(torch.stack(losses).mean()))

    def end_epoch(self, bar: tqdm) -> bool:
        """Counts the epoch, and reports the test loss and the callbacks' figures. Returns whether there are any."""
        self.epoch += 1
        figures = {} if self.test_dataset is None else {"test loss": self.test_loss()}
        for function in self.on_epoch_end:
            figures |= function(self)
        for name, value in figures.items():
            if self.rank == 0:
                bar.write(f"epoch {self.epoch}: {name} {value:.4g}")
            self.log(name, value)
        return bool(figures)

    def report(self, bar: tqdm) -> None:
        """Shows the state of the run in the progress bar and in TensorBoard. Raises FloatingPointError."""
        self.check_finite()  # a GPU waits here, so this is done seldom
        loss, norm = map(float, self.last)
        tokens_per_second, mfu = self.throughput.read()
        lr = self.learning_rate()
        bar.set_postfix_str(f"loss {loss:.3f}, lr {lr:.2e}, {tokens_per_second / 1000:.1f}k tokens/s, MFU {mfu:.0f} %")
        self.log("loss", loss)
        self.log("learning rate", lr)
        self.log("gradient norm", norm)
        self.log("tokens per second", tokens_per_second)
        self.log("MFU (%)", mfu)

    def log(self, name: str, value: float) -> None:
        """Adds a point to a TensorBoard curve. If it cannot be written, the curves end and training continues."""
        if self.config.writer is not None:
            try:
                self.config.writer.add_scalar(name, value, self.steps)
            except OSError as error:  # a full disk
                message = f"\n{error.strerror or error}: TensorBoard's curves end; training continues"
                print(message, file=sys.stderr)
                self.config.writer = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, for all processes. Every process has to call it.

        Raises FloatingPointError if the loss or the gradient of the last step was not finite.
        """
        self.check_finite()
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "tokens": self.tokens,
            "epoch": self.epoch,
            "order": self.order,
            "random": self.engine.random_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state, so that train() continues as if the run had not been interrupted.

        With a DataLoader, which draws a random number when it starts, this is true only at the end of an epoch.
        """
        self.model.load_state_dict(state["model"])
        for optimizer, optimizer_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        self.steps, self.tokens, self.epoch = state["steps"], state["tokens"], state["epoch"]
        self.order = state["order"].to(self.device)
        self.engine.set_random_state(state["random"])
