"""Several processes: the gradients of one, every document once an epoch, and only the first writes and prints."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import PAIRS, ROOT, TRIED, VARIANTS, WIKI, Regression, small_model
from torch.utils.data import TensorDataset

from dataset import CharCorruptionDataset, NameDataset
from recipe import PAD
from trainer import Trainer, TrainerConfig

# run.py, of which the first process sends torchrun a signal in its third step, and waits until torchrun passes it on
SIGNALLED = f"""
import os, runpy, signal, sys, time
sys.argv[0] = {str(ROOT / "src" / "run.py")!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import trainer
step = trainer.Trainer.step

def signalled(self, x, y):
    if self.steps == 2 and self.rank == 0:
        os.kill(os.getppid(), signal.SIGTERM)
        while not self.on_step_end[0].signal_number:
            time.sleep(0.01)
    return step(self, x, y)

trainer.Trainer.step = signalled
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def trainer_of(variant: str, rows: int) -> Trainer:
    torch.manual_seed(0)
    names = NameDataset(CharCorruptionDataset(WIKI, 128), PAIRS)
    model = small_model(names.vocabulary.vocab_size, variant, dropout=0.0)
    config = TrainerConfig(max_epochs=3, batch_size=3, device="cpu", precision="fp32", micro_batch_rows=rows)
    return Trainer(model, names, None, config)


def half_targeted_trainer() -> Trainer:
    """In its first batch, the row that goes to the second of two processes has no target."""
    trainer = trainer_of("vanilla", rows=3)
    batch = trainer.train_dataset.batch

    def without_second(indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = batch(indices)
        return x, torch.where(indices[:, None] == 1, PAD, y)

    trainer.train_dataset.batch = without_second
    return trainer


def regression_trainer() -> Trainer:
    torch.manual_seed(0)
    dataset = TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
    return Trainer(Regression(), dataset, None, TrainerConfig(batch_size=3, device="cpu", precision="fp32"))


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    """The loss and the gradients of the first batch; it holds three questions of different lengths."""
    trainer.optimizers = []  # so that the gradients stay
    trainer.config.grad_norm_clip = 1e9
    total, _ = trainer.step(*next(trainer.batches(trainer.train_dataset, torch.arange(trainer.config.batch_size))))
    return [total, *(p.grad for p in trainer.model.parameters())]


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)  # DistributedDataParallel's options change with versions of torch
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    for variant in VARIANTS:
        torch.save(gradients(trainer_of(variant, rows=1)), f"{folder}/{variant}.{rank}")
    torch.save(gradients(regression_trainer()), f"{folder}/regression.{rank}")
    torch.save(gradients(half_targeted_trainer()), f"{folder}/half targeted.{rank}")
    trainer = trainer_of("vanilla", rows=2)
    seen: list[int] = []
    batch = trainer.train_dataset.batch
    trainer.train_dataset.batch = lambda indices: (seen.extend(indices.tolist()), batch(indices))[1]
    torch.manual_seed(rank)  # the processes draw their own spans, but visit the documents in one order
    trainer.train()
    torch.save((seen, trainer.tokens, trainer.model.state_dict()), f"{folder}/trained.{rank}")
    with pytest.raises(ValueError, match="the last batch of an epoch has 1 rows for 2 processes"):
        Trainer(trainer.model, trainer.train_dataset, None, TrainerConfig(batch_size=5))
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=one_of_two, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(3600)  # only against hanging
        assert process.exitcode == 0
    trainers = {name: trainer_of(name, rows=3) for name in VARIANTS}
    trainers |= {"regression": regression_trainer(), "half targeted": half_targeted_trainer()}
    for name, trainer in trainers.items():
        expected = gradients(trainer)
        for rank in range(2):
            for a, b in zip(expected, torch.load(tmp_path / f"{name}.{rank}"), strict=True):
                torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-4)
    (seen, tokens, state), (others, others_tokens, others_state) = (
        torch.load(tmp_path / f"trained.{rank}") for rank in range(2)
    )
    assert tokens == others_tokens == 3 * 6 * 127
    assert len(seen) + len(others) == 18
    for epoch in range(3):  # of each batch of three, two rows in the first process and one in the second
        assert sorted(seen[epoch * 4 : epoch * 4 + 4] + others[epoch * 2 : epoch * 2 + 2]) == list(range(6))
    assert all(torch.equal(state[name], others_state[name]) for name in state)


TORCHRUN = ["--standalone", "--local_addr=127.0.0.1", "--nproc_per_node=2"]


def torchrun(folder: Path, script: Path, *words: str) -> tuple[int, str]:
    """The script in two processes: their exit code, and what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", *TORCHRUN, script, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder) as process:
        try:
            said, _ = process.communicate(timeout=3600)  # only against hanging
        finally:
            process.terminate()  # which torchrun passes on, if it still runs
    return process.returncode, said


def test_torchrun_trains_stops_and_resumes(tmp_path):
    (tmp_path / "wiki.txt").write_text(WIKI, encoding="utf-8")
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    script, common = ROOT / "src" / "run.py", "pretrain vanilla wiki.txt --device cpu --pretrain_epochs 6"
    words = [*common.split(), "--writing_params_path"]
    TRIED["signals"] += 1
    code, said = torchrun(tmp_path, tmp_path / "signalled.py", *words, "a.params")
    assert code != 0 and "stopped after step 3; " in said
    assert said.count("number of parameters") == 1  # the second process is silent
    assert said.count("its state is kept in a.params.state. To resume: torchrun") == 1
    assert os.path.exists(tmp_path / "a.params.state") and not os.path.exists(tmp_path / "a.params")
    states = torch.load(tmp_path / "a.params.state")["trainer"]["random"]
    seeds = {torch.Generator().set_state(state["cpu"]).initial_seed() % 2**32 for state in states}
    assert len(seeds) == 2  # in the 32 bits that count: each process draws its own spans
    code, said = torchrun(tmp_path, script, *words, "a.params", "--resume")
    assert code == 0 and "FutureWarning" not in said
    assert said.count("Resuming after step 3") == 1 and said.count("Parameters written to a.params") == 1
    assert torchrun(tmp_path, script, *words, "b.params")[0] == 0
    a, b = (torch.load(tmp_path / name) for name in ("a.params", "b.params"))
    assert all(torch.equal(a[name], b[name]) for name in a)
