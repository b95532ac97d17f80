"""Several processes: the gradients of one, every document once an epoch, and only the first writes and prints."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import PAIRS, VARIANTS, WIKI, Regression, send, small_model
from torch.utils.data import TensorDataset

from dataset import CharCorruptionDataset, NameDataset
from trainer import Trainer, TrainerConfig

ROOT = Path(__file__).parents[1]


def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def trainer_of(variant: str, rows: int) -> Trainer:
    torch.manual_seed(0)
    names = NameDataset(CharCorruptionDataset(WIKI, 128), PAIRS)
    model = small_model(names.vocabulary.vocab_size, variant, dropout=0.0)
    config = TrainerConfig(max_epochs=3, batch_size=3, device="cpu", precision="fp32", micro_batch_rows=rows)
    return Trainer(model, names, None, config)


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


def one_of_two(rank: int, at: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)  # DistributedDataParallel's options change with versions of torch
    dist.init_process_group("gloo", f"tcp://localhost:{at}", rank=rank, world_size=2)
    for variant in VARIANTS:
        torch.save(gradients(trainer_of(variant, rows=1)), f"{folder}/{variant}.{rank}")
    torch.save(gradients(regression_trainer()), f"{folder}/regression.{rank}")
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
    at = port()
    processes = [context.Process(target=one_of_two, args=(rank, at, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for name in (*VARIANTS, "regression"):
        expected = gradients(regression_trainer() if name == "regression" else trainer_of(name, rows=3))
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


def torchrun(folder: Path, *words: str) -> subprocess.Popen:
    """run.py in two processes, whose messages go to the file `messages`."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port()}", ROOT / "src" / "run.py"]
    with open(folder / "messages", "w") as messages:
        return subprocess.Popen([sys.executable, *launch, *words], stderr=messages, stdout=messages, cwd=folder)


def test_torchrun_trains_stops_and_resumes(tmp_path):
    (tmp_path / "wiki.txt").write_text(WIKI, encoding="utf-8")
    words = [
        "pretrain",
        "vanilla",
        "wiki.txt",
        "--writing_params_path",
        "a.params",
        "--device",
        "cpu",
        "--pretrain_epochs",
        "40",
    ]
    process = torchrun(tmp_path, *words)
    while "step/s" not in (tmp_path / "messages").read_text():
        assert process.poll() is None, (tmp_path / "messages").read_text()
        time.sleep(0.05)
    send(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    said = (tmp_path / "messages").read_text()
    assert said.count("number of parameters") == 1  # the second process is silent
    assert said.count("its state is kept in a.params.state. To resume: torchrun") == 1
    assert os.path.exists(tmp_path / "a.params.state") and not os.path.exists(tmp_path / "a.params")
    states = torch.load(tmp_path / "a.params.state")["trainer"]["random"]
    seeds = {torch.Generator().set_state(state["cpu"]).initial_seed() % 2**32 for state in states}
    assert len(seeds) == 2  # in the 32 bits that count: each process draws its own spans
    resumed = torchrun(tmp_path, *words, "--resume")
    assert resumed.wait(120) == 0
    said = (tmp_path / "messages").read_text()
    assert "FutureWarning" not in said
    assert said.count("Resuming after step ") == 1 and said.count("Parameters written to a.params") == 1
    undisturbed = torchrun(tmp_path, *words[:4], "b.params", *words[5:])
    assert undisturbed.wait(120) == 0
    a, b = (torch.load(tmp_path / name) for name in ("a.params", "b.params"))
    assert all(torch.equal(a[name], b[name]) for name in a)
