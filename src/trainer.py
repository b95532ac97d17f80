"""The training loop: optimizer groups, schedule, precision, progress. It knows nothing of text."""

import ctypes
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

MICRO_BATCH_ROWS = 16  # on a CPU: small enough that sorted rows share a length, large enough for full-speed matmuls


@dataclass
class TrainerConfig:
    """How to train. Tokens count padding, so an epoch always has len(dataset) * T of them."""

    max_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-4
    muon_lr: float = 0.0  # of Muon on model.hidden_matrices(); 0: AdamW trains every parameter
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # on the weights of matmuls only
    grad_norm_clip: float = 1.0
    lr_decay: bool = False  # linear warm-up, then a cosine; else a constant rate
    warmup_tokens: int = 512 * 20
    final_tokens: int = 10**9  # where the cosine is at its lowest
    device: str = "auto"  # auto, cpu, cuda or mps
    precision: str = "auto"  # auto, fp32 or bf16
    ignore_index: int = 0  # the target on which the model puts no loss
    num_workers: int = 0  # of the DataLoader, for datasets that cannot make whole batches
    writer: SummaryWriter | None = None


def pick_device(name: str) -> torch.device:
    """The device of that name; auto is a CUDA GPU, else MPS, else the CPU. Raises ValueError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in available.items() if here)
    if not available[name]:
        raise ValueError(f"this machine, or this build of torch, has no {name} device")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matmuls while training; auto is bf16 on CUDA GPUs and x86 CPUs that multiply it, else fp32."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        name = "bf16" if fast else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def parameter_groups(model: nn.Module, weight_decay: float, without: set[int] = frozenset()) -> list[dict]:
    """Two optimizer groups: the matrices that inputs are multiplied by, decayed, and all else, which is not.

    Parameters whose id() is in `without` are left to another optimizer.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    parameters = [p for p in model.parameters() if id(p) not in without]
    matrices = [p for p in parameters if p.dim() == 2 and id(p) not in embeddings]
    decayed = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in decayed]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def learning_rate_multiplier(tokens: int, warmup_tokens: int, final_tokens: int) -> float:
    """Linear warm-up, then max(0.1, (1 + cos(pi * progress)) / 2), which rises again when progress passes 1."""
    if tokens < warmup_tokens:
        return tokens / max(1, warmup_tokens)
    progress = (tokens - warmup_tokens) / max(1, final_tokens - warmup_tokens)
    return max(0.1, 0.5 * (1.0 + math.cos(math.pi * progress)))


def micro_batches(x: Tensor, y: Tensor, rows: int, ignore_index: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Splits a batch (B, T) into parts of `rows` rows of similar length, without the columns that hold no target.

    For a causal model the columns behind the last target change nothing, so the parts have the batch's loss and
    gradients at about half the arithmetic. Lengths are multiples of 8: torch prepares its matmuls anew for each shape.
    """
    columns = torch.arange(1, y.size(1) + 1, device=y.device)
    lengths = ((y != ignore_index) * columns).amax(dim=1)  # (B,)
    for part in lengths.argsort(stable=True).split(rows):
        T = min(y.size(1), -(-int(lengths[part[-1]]) // 8) * 8)
        yield x[part, :T], y[part, :T]


def keep_freed_memory() -> None:
    """Has glibc, where that is the C library, keep the memory that a step frees for the next one.

    Given back to the system, it would come back as thousands of page faults a step, a tenth of a step's time.
    """
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


class Trainer:
    """Trains `model`, called as model(x, y) -> (logits, loss), on a dataset of (x, y) pairs.

    A dataset with a method batch(indices) -> (x, y) makes its batches itself, on the device, as padded int64 (B, T)
    whose targets end in `ignore_index`; on a CPU they are cut into micro-batches, which suits a causal model whose
    loss is the mean over all other targets. Any other torch Dataset goes through a DataLoader. `test_dataset` may be
    None; otherwise its mean loss is reported after each epoch. Functions in `on_epoch_end` are called with the trainer
    and return figures to log, name to value.
    """

    def __init__(
        self, model: nn.Module, train_dataset: Dataset, test_dataset: Dataset | None, config: TrainerConfig
    ) -> None:
        keep_freed_memory()
        self.device = pick_device(config.device)
        self.dtype = pick_precision(config.precision, self.device)
        self.model = model.to(self.device)
        self.train_dataset = train_dataset
        self.test_dataset = test_dataset
        self.config = config
        self.on_epoch_end: list[Callable[[Trainer], dict[str, float]]] = []
        self.optimizers = self.make_optimizers()
        self.steps = 0
        self.tokens = 0  # seen so far, padding counted: what the schedule goes by

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW (Loshchilov and Hutter 2019); with a muon_lr, Muon (Jordan et al. 2024) for the hidden matrices."""
        config = self.config
        hidden = self.model.hidden_matrices() if config.muon_lr else []
        groups = parameter_groups(self.model, config.weight_decay, {id(p) for p in hidden})
        fused = self.device.type != "mps"
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)
        ]
        if hidden:
            optimizers.append(torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["highest_lr"] = group["lr"]  # what the schedule multiplies
        return optimizers

    def batches(self, dataset: Dataset, shuffle: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """All pairs of the dataset once, in batches on the device."""
        if hasattr(dataset, "batch"):
            n = len(dataset)
            order = torch.randperm(n, device=self.device) if shuffle else torch.arange(n, device=self.device)
            for indices in order.split(self.config.batch_size):
                yield dataset.batch(indices)
        else:
            loader = DataLoader(
                dataset, batch_size=self.config.batch_size, shuffle=shuffle, num_workers=self.config.num_workers
            )
            for x, y in loader:
                yield x.to(self.device), y.to(self.device)

    def parts(self, x: Tensor, y: Tensor, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor, Tensor | float]]:
        """The batch in micro-batches, each with its share of the batch's targets; whole where that is faster."""
        if self.device.type == "cpu" and hasattr(dataset, "batch"):
            targets = (y != self.config.ignore_index).sum()
            for part_x, part_y in micro_batches(x, y, MICRO_BATCH_ROWS, self.config.ignore_index):
                if part_x.size(1):  # else it has no target
                    yield part_x, part_y, (part_y != self.config.ignore_index).sum() / targets
        else:
            yield x, y, 1.0

    def autocast(self) -> torch.autocast:
        """A context in which matmuls have the precision of this run; weights are cast once in each."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One update of the parameters. Returns the loss and the gradient's norm before clipping, on the device."""
        config = self.config
        self.tokens += y.numel()
        if config.lr_decay:
            multiplier = learning_rate_multiplier(self.tokens, config.warmup_tokens, config.final_tokens)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["highest_lr"] * multiplier
        total = torch.zeros((), device=self.device)
        with self.autocast():
            for part_x, part_y, share in self.parts(x, y, self.train_dataset):
                loss = self.model(part_x, part_y)[1] * share
                loss.backward()
                total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_norm_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        return total, norm

    @torch.no_grad()
    def test_loss(self) -> float:
        """The mean loss over the batches of the test dataset, without dropout."""
        self.model.eval()
        losses = []
        for x, y in self.batches(self.test_dataset, shuffle=False):
            with self.autocast():
                parts = self.parts(x, y, self.test_dataset)
                losses.append(sum(self.model(part_x, part_y)[1] * share for part_x, part_y, share in parts))
        return float(torch.stack(losses).mean())

    def train(self) -> None:
        """Runs config.max_epochs epochs, each over every pair once in a new order."""
        steps_an_epoch = math.ceil(len(self.train_dataset) / self.config.batch_size)
        bar = tqdm(total=self.config.max_epochs * steps_an_epoch, unit="step", dynamic_ncols=True)
        shown_at, seen = time.perf_counter(), torch.zeros((), dtype=torch.int64, device=self.device)
        for epoch in range(1, self.config.max_epochs + 1):
            self.model.train()
            bar.set_description(f"epoch {epoch}/{self.config.max_epochs}", refresh=False)
            for x, y in self.batches(self.train_dataset, shuffle=True):
                loss, norm = self.step(x, y)
                seen += x.count_nonzero()  # without padding
                bar.update()
                now = time.perf_counter()
                if now - shown_at > 1.0 or self.steps == bar.total:  # reading the loss makes a GPU wait, so seldom
                    self.report(bar, float(loss), float(norm), int(seen) / (now - shown_at))
                    shown_at, seen = now, torch.zeros_like(seen)
            figures = {} if self.test_dataset is None else {"test loss": self.test_loss()}
            for function in self.on_epoch_end:
                figures |= function(self)
            for name, value in figures.items():
                bar.write(f"epoch {epoch}: {name} {value:.4g}")
                self.log(name, value)
            if figures:  # what they took is no training time
                shown_at, seen = time.perf_counter(), torch.zeros_like(seen)
        bar.close()

    def report(self, bar: tqdm, loss: float, norm: float, tokens_per_second: float) -> None:
        """Shows the state of the run in the bar and in TensorBoard."""
        lr = self.optimizers[0].param_groups[0]["lr"]
        bar.set_postfix_str(f"loss {loss:.3f}, lr {lr:.2e}, {tokens_per_second / 1000:.1f}k tokens/s")
        figures = {"loss": loss, "learning rate": lr, "gradient norm": norm, "tokens per second": tokens_per_second}
        for name, value in figures.items():
            self.log(name, value)

    def log(self, name: str, value: float) -> None:
        """One point of a TensorBoard curve."""
        if self.config.writer is not None:
            self.config.writer.add_scalar(name, value, self.steps)
