"""Optimizer groups, schedule, micro-batches, and the loop on our datasets and on any other."""

import math
from contextlib import nullcontext

import pytest
import torch
from conftest import PAIRS, VARIANTS, WIKI, Regression
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from dataset import CharCorruptionDataset, MixedDataset, NameDataset, SalientSpanDataset
from model import GPT, GPTConfig
from trainer import (
    STEPS_WORTH_COMPILING,
    Trainer,
    TrainerConfig,
    can_compile,
    compiled,
    equal_parts,
    evenly,
    learning_rate_multiplier,
    matmul_weights,
    micro_batches,
    parameter_groups,
    pick_device,
    pick_precision,
    training_flops,
)


def small_model(vocab_size: int, variant: str = "vanilla", dropout: float = 0.1) -> GPT:
    sizes = {"n_layer": 3, "n_head": 2, "n_embd": 32, "bottleneck_dim": 16}
    drop = {"embd_pdrop": dropout, "resid_pdrop": dropout, "attn_pdrop": dropout}
    return GPT(GPTConfig(vocab_size, 128, variant=variant, **sizes, **drop))


def config(**wanted) -> TrainerConfig:
    return TrainerConfig(**({"max_epochs": 1, "batch_size": 4, "device": "cpu", "precision": "fp32"} | wanted))


@pytest.mark.parametrize(
    ("tokens", "multiplier"),
    [
        (0, 0.0),
        (50, 0.5),
        (100, 1.0),
        (600, 0.5),  # half way from warm-up to final_tokens
        (350, 0.5 * (1 + math.cos(math.pi / 4))),
        (1100, 0.1),  # the cosine is 0 here, the floor holds
        (1600, 0.5),  # past final_tokens it rises again
        (2100, 1.0),
    ],
)
def test_schedule(tokens, multiplier):
    assert learning_rate_multiplier(tokens, 100, 1100) == pytest.approx(multiplier)


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_weight_decay_falls_on_matmul_weights_or_on_all_but_biases(variant, decay_all):
    model = small_model(20, variant)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, rest = parameter_groups(model, 0.1, decay_all)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    decayed, rest = ({names[id(p)] for p in group["params"]} for group in (decayed, rest))
    assert decayed | rest == set(names.values()) and not decayed & rest
    matmuls = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    matmuls |= {name for name in names.values() if name.endswith(".w2")}
    biases = {f"{n}.bias" for n, m in model.named_modules() if getattr(m, "bias", None) is not None}
    assert decayed == (set(names.values()) - biases if decay_all else matmuls)


def test_micro_batches_hold_every_target_once(documents):
    x, y = documents.batch(torch.arange(len(documents)))
    parts = list(micro_batches(x, y, 3, ignore_index=0, multiple=8))
    assert [len(part_x) for part_x, _ in parts] == [3, 3, 1]
    rows = [
        tuple((row * (y_row != 0)).tolist() + [0] * (127 - len(row)) for row in (x_row, y_row))
        for part in parts
        for x_row, y_row in zip(*part, strict=True)
    ]
    x[y == 0] = 0  # the end mark as an input, which stands behind the last target
    assert sorted(rows) == sorted((a.tolist(), b.tolist()) for a, b in zip(x, y, strict=True))
    assert all(part_y[:, -8:].any() and part_y.size(1) % 8 == 0 for _, part_y in parts[1:])  # as short as it can be
    assert sum(part_x.numel() for part_x, _ in parts) < x.numel()


@pytest.mark.parametrize("variant", VARIANTS)
def test_muon_trains_the_matrices_inside_the_blocks_and_adamw_the_rest(documents, variant):
    model = small_model(documents.vocab_size, variant)
    trainer = Trainer(model, documents, None, config(muon_lr=0.02, learning_rate=1e-3, lr_decay=True))
    adamw, muon = trainer.optimizers
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    names = {id(p): name for name, p in model.named_parameters()}
    by_adamw, by_muon = ([names[id(p)] for g in o.param_groups for p in g["params"]] for o in trainer.optimizers)
    assert sorted(by_adamw + by_muon) == sorted(names.values())
    assert {"tok_emb.weight", "head.weight"} <= set(by_adamw)
    assert all("block" in name and name.endswith(("weight", "w2")) and "ln" not in name for name in by_muon)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.step(*documents.batch(torch.arange(7)))
    multiplier = learning_rate_multiplier(7 * 127, 512 * 20, 10**9)
    assert (adamw.param_groups[0]["lr"], muon.param_groups[0]["lr"]) == pytest.approx(
        (1e-3 * multiplier, 0.02 * multiplier)
    )
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == set(before)


@pytest.mark.parametrize(("as_on_a_gpu", "rows"), [(False, 3), (True, 4)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_in_parts_has_the_gradients_of_the_plain_batch(
    documents, variant, as_on_a_gpu, rows, threads, monkeypatch
):
    """The optimised step against the plain one of equation and textbook: fp32, no dropout, one padded batch."""
    if as_on_a_gpu:
        monkeypatch.setattr("trainer.micro_batches", lambda *args: equal_parts(*args[:4]))
    model = small_model(documents.vocab_size, variant, dropout=0.0)
    names = NameDataset(documents, PAIRS)
    for dataset in (documents, names):
        x, y = dataset.batch(torch.arange(len(dataset)))
        _, loss = model(x, y)
        plain = torch.autograd.grad(loss, list(model.parameters()))
        trainer = Trainer(model, dataset, None, config(batch_size=7, grad_norm_clip=1e9, micro_batch_rows=rows))
        trainer.optimizers = []  # so that the gradients stay
        assert len(trainer.twins) == min(threads, math.ceil(7 / rows)) - 1
        total, _ = trainer.step(x, y)
        assert total.item() == pytest.approx(loss.item(), abs=1e-6)
        for expected, p in zip(plain, model.parameters(), strict=True):
            torch.testing.assert_close(p.grad, expected, atol=1e-6, rtol=1e-4)
        model.zero_grad()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_twins_train_the_parameters_as_one_model_does(documents, variant, precision):
    x, y = documents.batch(torch.arange(len(documents)))
    trained = []
    for twins in (0, 2):
        torch.manual_seed(0)
        model = small_model(documents.vocab_size, variant, dropout=0.0)
        trainer = Trainer(model, documents, None, config(precision=precision, micro_batch_rows=2))
        trainer.twins = [model.twin() for _ in range(twins)]
        trainer.optimizers = [torch.optim.SGD(model.parameters(), lr=0.5)]  # which does not amplify rounding
        for _ in range(3):
            trainer.step(x, y)
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*trained, atol=1e-5 if precision == "fp32" else 1e-3, rtol=0)


def test_dropout_in_twins_leaves_the_expected_gradient_alone(documents):
    """The mean over many draws with twins against that without, in standard errors of their difference."""
    x, y = documents.batch(torch.arange(len(documents)))
    model = small_model(documents.vocab_size)
    means, errors = [], []
    for twins in (0, 2):
        trainer = Trainer(model, documents, None, config(grad_norm_clip=1e9, micro_batch_rows=2))
        trainer.twins = [model.twin() for _ in range(twins)]
        trainer.optimizers = []
        gradients = []
        for _ in range(60):
            trainer.step(x, y)
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            model.zero_grad()
        means.append(torch.stack(gradients).mean(0))
        errors.append(torch.stack(gradients).var(0) / len(gradients))
    scores = (means[0] - means[1])[errors[0] > 0] / (errors[0] + errors[1])[errors[0] > 0].sqrt()
    assert 0.8 < scores.square().mean() < 1.2  # 1 where nothing but chance makes the difference


def test_threads_draw_their_own_dropout_and_the_same_each_time(documents, threads):
    x, y = documents.batch(torch.zeros(threads, dtype=torch.int64))
    x, y = x[:1].expand(threads, -1), y[:1].expand(threads, -1)  # a row, the same, for each thread

    def losses(seed: int) -> list[float]:
        torch.manual_seed(0)
        model = small_model(documents.vocab_size).eval()  # as one that has been asked is
        trainer = Trainer(model, documents, None, config(micro_batch_rows=1))
        trainer.model.train()
        of_threads: list[float] = []
        backward_of = trainer.backward_of
        trainer.backward_of = lambda *work: of_threads.append(backward_of(*work)) or of_threads[-1]
        torch.manual_seed(seed)
        trainer.step(x, y)
        trainer.step(x, y)
        return sorted(float(loss) for loss in of_threads)

    assert len(set(losses(1))) == 2 * threads
    assert losses(1) == losses(1) != losses(2)


def test_threads_get_about_as_many_tokens_each():
    parts = [(torch.zeros(2, T), T) for T in (8, 16, 24, 40, 48)]
    assert [[T for _, T in part] for part in evenly(parts, 2)] == [[48, 16, 8], [40, 24]]
    assert evenly(parts[:1], 2) == [parts[:1], []]


@pytest.mark.parametrize(
    ("threads", "batch_size", "precision", "twins", "rows"),
    [
        (1, 128, "bf16", 0, 16),
        (3, 128, "bf16", 2, 16),
        (3, 64, "bf16", 2, 11),
        (40, 128, "bf16", 15, 8),
        (3, 4, "bf16", 0, 8),
        (1, 128, "fp32", 0, 8),
        (3, 64, "fp32", 2, 8),
        (40, 128, "fp32", 15, 8),
    ],
    indirect=["threads"],
)
def test_a_batch_on_a_cpu_has_twins_and_rows_for_its_threads(documents, threads, batch_size, precision, twins, rows):
    settings = config(batch_size=batch_size, precision=precision)
    trainer = Trainer(small_model(documents.vocab_size), documents, None, settings)
    assert (len(trainer.twins), trainer.micro_batch_rows) == (twins, rows)


def test_equal_parts_have_one_shape_and_the_rows_of_the_batch(documents):
    x, y = documents.batch(torch.arange(len(documents)))
    parts = list(equal_parts(x, y, 4, 0))
    assert [(part_x.shape, part_y.shape) for part_x, part_y in parts] == [((4, 127), (4, 127))] * 2
    assert torch.equal(torch.cat([part_x for part_x, _ in parts])[: len(x)], x)
    assert torch.equal(torch.cat([part_y for _, part_y in parts])[: len(x)], y) and not parts[1][1][len(x) - 4 :].any()


def test_parts_beside_a_cpu_are_no_larger_than_the_batch(documents):
    trainer = Trainer(small_model(documents.vocab_size), documents, None, config(micro_batch_rows=1024))
    trainer.device = torch.device("cuda")
    ((x, _, _),) = trainer.parts(*documents.batch(torch.arange(7)), documents)
    assert x.shape == (7, 127)
    ((x, y, _),) = trainer.parts(*documents.batch(torch.arange(5)), documents)  # the last, in the shape of the others
    assert x.shape == (7, 127) and not y[5:].any()
    resumed = Trainer(trainer.model, documents, None, config(batch_size=6))
    resumed.device = trainer.device
    ((x, _, _),) = resumed.parts(*documents.batch(torch.arange(1)), documents)  # as it may be where a run goes on
    assert x.shape == (6, 127)


def test_an_epoch_visits_every_document_once_in_a_new_order(documents):
    trainer = Trainer(small_model(documents.vocab_size), documents, None, config(max_epochs=3))
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
        config(learning_rate=1e-3, lr_decay=True, warmup_tokens=127, final_tokens=100 * 127),
    )
    x, y = documents.batch(torch.arange(4))
    for steps in range(1, 60):
        trainer.step(x, y)
        expected = 1e-3 * learning_rate_multiplier(steps * 4 * 127, 127, 100 * 127)
        assert all(group["lr"] == pytest.approx(expected) for group in trainer.optimizers[0].param_groups)


class Writer:
    """Stands for TensorBoard's."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.setdefault(name, []).append((step, value))


def test_bar_and_curves_show_the_run(documents, capsys):
    writer = Writer()
    trainer = Trainer(small_model(documents.vocab_size), documents, None, config(max_epochs=2, writer=writer))
    trainer.on_epoch_end.append(lambda trainer: {"dev accuracy (%)": 50.0})
    trainer.train()
    assert writer.points["dev accuracy (%)"] == [(2, 50.0), (4, 50.0)]
    for name in ("loss", "learning rate", "gradient norm", "tokens per second", "MFU (%)"):
        step, value = writer.points[name][-1]
        assert step == 4 and value > 0
    bar = capsys.readouterr().err
    for shown in ("epoch 2/2", "4/4", "loss ", "lr 3.00e-04", "tokens/s", "% of the ceiling"):
        assert shown in bar
    matmul_weights = sum(m.weight.numel() for m in trainer.model.modules() if isinstance(m, torch.nn.Linear))
    flops = 6 * matmul_weights * writer.points["tokens per second"][-1][1]
    assert writer.points["MFU (%)"][-1][1] == pytest.approx(100 * flops / trainer.ceiling)
    assert 1e9 < trainer.ceiling < 1e15


@pytest.mark.parametrize(("variant", "T"), [("vanilla", 100), ("perceiver", 100), ("perceiver", 5)])
def test_the_arithmetic_of_a_step_is_that_of_its_matmuls(documents, variant, T):
    model = small_model(documents.vocab_size, variant)
    x = torch.randint(1, documents.vocab_size, (3, T))
    with FlopCounterMode(display=False) as counter:
        model(x, x)[1].backward()
    counted = counter.get_flop_counts()["Global"]
    products = counted[torch.ops.aten.mm] + counted[torch.ops.aten.addmm]  # attention's own are bmm and baddbmm
    if variant == "perceiver":
        products -= 6 * min(T, 16) * model.down_block.attn.query.weight.numel()  # of the basis, once
    assert int(training_flops(matmul_weights(model), x.count_nonzero(dim=1))) == products
    padded = torch.cat((x, torch.zeros(3, 7, dtype=torch.int64)), dim=1)
    assert int(training_flops(matmul_weights(model), padded.count_nonzero(dim=1))) == products


def test_gradients_are_clipped(documents):
    model = small_model(documents.vocab_size)
    trainer = Trainer(model, documents, None, config(grad_norm_clip=1e-3))
    norms = []
    trainer.optimizers[0].step = lambda: norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    _, norm = trainer.step(*documents.batch(torch.arange(7)))
    assert norm > 1e-3 and norms[0] == pytest.approx(1e-3, rel=1e-3)


def train_pairs(seed: int, precision: str = "fp32") -> tuple[dict[str, torch.Tensor], float]:
    torch.manual_seed(seed)
    documents = CharCorruptionDataset(WIKI, 128)
    names = NameDataset(documents, PAIRS)
    model = small_model(documents.vocab_size)
    trainer = Trainer(model, names, names, config(max_epochs=40, learning_rate=3e-3, precision=precision))
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
        config(max_epochs=3 if num_workers else 60, batch_size=16, learning_rate=0.05, num_workers=num_workers),
    )
    logged = []
    trainer.on_epoch_end.append(lambda t: logged.append(t.steps) or {"answer": 42.0})
    trainer.train()
    assert logged == [4 * (i + 1) for i in range(trainer.config.max_epochs)]
    assert "answer 42" in capsys.readouterr().out
    if not num_workers:
        assert trainer.test_loss() < 0.01


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reads_names", [False, True])
def test_training_beside_a_cpu_reads_nothing_back_and_mixes_no_devices(documents, monkeypatch, variant, reads_names):
    """On the meta device, which like a GPU is not where plain tensors are made, and whose values cannot be read."""
    monkeypatch.setattr("trainer.pick_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(Trainer, "autocast", nullcontext)  # there is none on that device, nor a fused AdamW
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *groups, fused, **settings: adamw(*groups, **settings))
    monkeypatch.setattr("trainer.time.perf_counter", lambda: 0.0)  # no report falls due
    dataset, names = documents, NameDataset(documents, PAIRS)
    if reads_names:
        dataset = MixedDataset(SalientSpanDataset(documents, names.data, 0.9, 12, 1.0, True), names, 0.5)
    wanted = config(
        max_epochs=2, muon_lr=0.02 if reads_names else 0.0, lr_decay=True, micro_batch_rows=3 if reads_names else 0
    )
    trainer = Trainer(small_model(documents.vocab_size, variant), dataset, None, wanted)
    with tqdm(disable=True) as bar:
        trainer.run_epochs(bar, len(dataset))
    assert trainer.steps == 4


def test_bf16_is_taken_where_the_cpu_multiplies_it(monkeypatch):
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast, raising=False)
        assert pick_precision("auto", torch.device("cpu")) == expected


def test_a_machine_without_a_compiler_is_told_in_one_line(monkeypatch, capsys):
    model, gpu = torch.nn.Linear(1, 1), torch.device("cuda")
    monkeypatch.setattr("trainer.has_triton", lambda: True)
    monkeypatch.setattr("os.path.exists", lambda path: True)  # Python.h
    for path, variable, expected in (
        ("gcc", "", True),
        ("clang", "", True),
        ("cc", "", False),  # by which Triton does not look
        ("gcc", "mycc", False),  # which goes before gcc
        ("mycc", "mycc", True),
    ):
        monkeypatch.setattr("shutil.which", lambda name, path=path: name if name == path else None)
        monkeypatch.setenv("CC", variable)
        assert can_compile() is expected
    monkeypatch.setattr("trainer.has_triton", lambda: False)
    assert not can_compile()
    assert compiled(model, gpu, STEPS_WORTH_COMPILING - 1, False) is model and capsys.readouterr().out == ""
    assert compiled(model, gpu, STEPS_WORTH_COMPILING, False) is model
    assert capsys.readouterr().out.count("\n") == 1


def test_cuda_graphs_are_left_out_where_gradients_accumulate(monkeypatch):
    monkeypatch.setattr("trainer.can_compile", lambda: True)
    monkeypatch.setattr("torch.compile", lambda model, mode, dynamic: mode)
    model, gpu = torch.nn.Linear(1, 1), torch.device("cuda")
    assert compiled(model, gpu, STEPS_WORTH_COMPILING, False) == "reduce-overhead"
    assert compiled(model, gpu, STEPS_WORTH_COMPILING, True) is None


def test_what_does_not_compile_runs_as_it_is(monkeypatch):
    def fails(*_, **__):
        raise OSError("no libcuda.so")

    monkeypatch.setattr("trainer.can_compile", lambda: True)
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fails)
    model, x = torch.nn.Linear(2, 1), torch.randn(3, 2)
    anyhow = compiled(model, torch.device("cuda"), STEPS_WORTH_COMPILING, False)
    assert anyhow is not model and torch.equal(anyhow(x), model(x))


def test_devices_and_precisions_that_are_not_there_are_named():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_precision("fp32", torch.device("cpu")) == torch.float32
    assert pick_precision("bf16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(ValueError, match="no cuda"):  # conftest.py hides it
        pick_device("cuda")
