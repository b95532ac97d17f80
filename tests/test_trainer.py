"""The training loop: order, schedule, clipping, progress, on our datasets and on any other."""

from contextlib import nullcontext
from itertools import accumulate, chain

import pytest
import torch
from conftest import PAIRS, VARIANTS, WIKI, Regression, fact_dataset, salient_dataset, small_model, trainer_config
from torch.utils.data import TensorDataset

from dataset import CharCorruptionDataset, MixedDataset, NameDataset
from engine import matmul_ceiling
from optim import learning_rate_multiplier
from trainer import Trainer


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_updates_every_parameter_at_the_rates_of_the_schedule(documents, variant):
    model = small_model(documents.vocab_size, variant)
    trainer = Trainer(model, documents, None, trainer_config(muon_lr=0.02, learning_rate=1e-3, lr_decay=True))
    adamw, muon = trainer.optimizers
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.step(*documents.batch(torch.arange(7)))
    multiplier = learning_rate_multiplier(7 * 127, 512 * 20, 10**9)
    assert (adamw.param_groups[0]["lr"], muon.param_groups[0]["lr"]) == pytest.approx(
        (1e-3 * multiplier, 0.02 * multiplier)
    )
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == set(before)


def test_an_epoch_visits_every_document_once_in_a_new_order(documents):
    trainer = Trainer(small_model(documents.vocab_size), documents, None, trainer_config(max_epochs=3))
    seen: list[int] = []
    batch = documents.batch
    documents.batch = lambda indices: (seen.extend(indices.tolist()), batch(indices))[1]
    trainer.train()
    epochs = [seen[i : i + len(documents)] for i in range(0, len(seen), len(documents))]
    assert len(epochs) == 3 and all(sorted(epoch) == list(range(len(documents))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert trainer.tokens == 3 * len(documents) * 127 and trainer.steps == 6


def test_learning_rate_follows_the_tokens(documents):
    trainer = Trainer(
        small_model(documents.vocab_size),
        documents,
        None,
        trainer_config(learning_rate=1e-3, lr_decay=True, warmup_tokens=127, final_tokens=100 * 127),
    )
    x, y = documents.batch(torch.arange(4))
    for steps in range(1, 60):
        trainer.step(x, y)
        expected = 1e-3 * learning_rate_multiplier(steps * 4 * 127, 127, 100 * 127)
        assert all(group["lr"] == pytest.approx(expected) for group in trainer.optimizers[0].param_groups)


class Writer:
    """Keeps what TensorBoard would get."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.setdefault(name, []).append((step, value))


def test_bar_and_curves_show_the_run(documents, capsys):
    writer = Writer()
    trainer = Trainer(small_model(documents.vocab_size), documents, None, trainer_config(max_epochs=2, writer=writer))
    trainer.on_epoch_end.append(lambda trainer: {"dev accuracy (%)": 50.0})
    trainer.train()
    assert writer.points["dev accuracy (%)"] == [(2, 50.0), (4, 50.0)]
    for name in ("loss", "learning rate", "gradient norm", "tokens per second", "MFU (%)"):
        step, value = writer.points[name][-1]
        assert step == 4 and value > 0
    bar = capsys.readouterr().err
    for shown in ("epoch 2/2", "4/4", "loss ", "lr 3.00e-04", "tokens/s", "MFU "):
        assert shown in bar
    matmul_weights = sum(m.weight.numel() for m in trainer.model.modules() if isinstance(m, torch.nn.Linear))
    flops = 6 * matmul_weights * writer.points["tokens per second"][-1][1]
    assert writer.points["MFU (%)"][-1][1] == pytest.approx(100 * flops / trainer.throughput.ceiling)


def test_epochs_may_be_set_after_the_trainer_is_made(documents, capsys):
    trainer = Trainer(small_model(documents.vocab_size), documents, None, trainer_config(max_epochs=9))
    trainer.config.max_epochs = 1
    trainer.train()
    assert "2/2" in capsys.readouterr().err and trainer.epoch == 1


def test_ceiling_is_the_speed_of_a_matmul(monkeypatch):
    clock = accumulate(chain.from_iterable((0, seconds) for seconds in (3, 0.5, 2, 1)))  # the fastest counts
    monkeypatch.setattr("engine.time.perf_counter", lambda: next(clock))
    multiplied = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: multiplied.append((a, b)) or product(a, b))
    ceiling = matmul_ceiling(torch.device("cpu"), torch.float32)
    (n, k), m = multiplied[0][0].shape, multiplied[0][1].size(1)
    assert ceiling == 2 * n * k * m / 0.5 and n * k * m == 2048**3


def test_gradients_are_clipped(documents):
    model = small_model(documents.vocab_size)
    trainer = Trainer(model, documents, None, trainer_config(grad_norm_clip=1e-3))
    norms = []
    trainer.optimizers[0].step = lambda: norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    _, norm = trainer.step(*documents.batch(torch.arange(7)))
    assert norm > 1e-3 and norms[0] == pytest.approx(1e-3, rel=1e-3)


def train_pairs(seed: int, precision: str = "fp32") -> tuple[dict[str, torch.Tensor], float]:
    torch.manual_seed(seed)
    documents = CharCorruptionDataset(WIKI, 128)
    names = NameDataset(documents, PAIRS)
    model = small_model(documents.vocab_size)
    trainer = Trainer(model, names, names, trainer_config(max_epochs=40, learning_rate=3e-3, precision=precision))
    trainer.train()
    return model.state_dict(), trainer.test_loss()


def test_training_learns_and_the_same_seed_gives_the_same_parameters():
    first, loss = train_pairs(1)
    again, _ = train_pairs(1)
    other, _ = train_pairs(2)
    assert loss < 1.0  # of ln(49) = 3.9 at the start
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_bf16_learns_too_and_keeps_fp32_parameters():
    state, loss = train_pairs(1, "bf16")
    assert loss < 1.0
    assert all(value.dtype == torch.float32 for value in state.values())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_any_dataset_of_pairs_and_any_model_train(num_workers, capsys):
    x = torch.randn(64, 3)
    dataset = TensorDataset(x, x @ torch.tensor([[1.0], [-2.0], [0.5]]))
    model = Regression()
    trainer = Trainer(
        model,
        dataset,
        dataset,
        trainer_config(max_epochs=3 if num_workers else 60, batch_size=16, learning_rate=0.05, num_workers=num_workers),
    )
    logged = []
    trainer.on_epoch_end.append(lambda t: logged.append(t.steps) or {"answer": 42.0})
    trainer.train()
    assert logged == [4 * (i + 1) for i in range(trainer.config.max_epochs)]
    assert "answer 42" in capsys.readouterr().out
    if not num_workers:
        assert trainer.test_loss() < 0.01


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reads", ["documents", "salient", "facts"])
def test_training_on_a_gpu_reads_nothing_back_and_mixes_no_devices(documents, monkeypatch, variant, reads):
    """On the meta device: as with a GPU, plain tensors are made elsewhere; and its values cannot be read."""
    monkeypatch.setattr("engine.pick_device", lambda name: torch.device("meta"))
    monkeypatch.setattr("engine.Engine.autocast", nullcontext)  # the device has none, nor a fused AdamW
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *groups, fused, **settings: adamw(*groups, **settings))
    monkeypatch.setattr("engine.time.perf_counter", lambda: 0.0)  # no report is due but the last
    reported = []
    monkeypatch.setattr(Trainer, "report", lambda trainer, bar: reported.append(trainer.steps))  # it reads values
    dataset, names = documents, NameDataset(documents, PAIRS)
    if reads == "salient":
        dataset = MixedDataset(salient_dataset(documents), names, 0.5)
    elif reads == "facts":
        dataset = fact_dataset(documents)
    muon = {"muon_lr": 0.02, "micro_batch_rows": 3} if reads == "salient" else {}
    wanted = trainer_config(max_epochs=2, lr_decay=True, **muon)
    trainer = Trainer(small_model(documents.vocab_size, variant), dataset, None, wanted)
    trainer.train()
    assert trainer.steps == 4 and reported == [4]


def test_unknown_settings_are_refused():
    settings = trainer_config()
    settings.max_epochs = 3
    assert settings.max_epochs == 3
    with pytest.raises(AttributeError, match="TrainerConfig has no ckpt_path; choose from max_epochs, batch_size, "):
        settings.ckpt_path = "model.params"
    with pytest.raises(TypeError, match="ckpt_path"):
        trainer_config(ckpt_path="model.params")


def test_test_loss_is_that_of_whole_batches_without_dropout(documents):
    names, model = NameDataset(documents, PAIRS), small_model(documents.vocab_size)
    trainer, training = Trainer(model, documents, names, trainer_config(max_epochs=2, micro_batch_rows=1)), []
    trainer.on_step_end.append(lambda _: training.append(model.training))
    trainer.train()
    assert training[0] and training[2]  # the first step of each epoch
    with torch.no_grad():
        losses = [model.eval()(*names.batch(rows))[1].item() for rows in torch.arange(6).split(4)]
    model.train()
    assert trainer.test_loss() == pytest.approx(sum(losses) / 2, rel=1e-4)
