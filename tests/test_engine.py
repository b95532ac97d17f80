"""Micro-batches, replicas in threads, precision, compiling: a batch in parts has the gradients of the whole."""

import math

import pytest
import torch
from conftest import PAIRS, VARIANTS, small_model, trainer_config
from torch.utils.flop_counter import FlopCounterMode

import engine
from dataset import NameDataset
from engine import (
    DTYPES,
    STEPS_WORTH_COMPILING,
    Engine,
    Throughput,
    balance,
    can_compile,
    compiled,
    configure_torch,
    data_parallel,
    equal_micro_batches,
    matmul_weights,
    pick_device,
    pick_precision,
    training_flops,
    trimmed_micro_batches,
)
from trainer import Trainer


def test_trimmed_micro_batches_hold_every_target_once(documents):
    x, y = documents.batch(torch.arange(len(documents)))
    parts = list(trimmed_micro_batches(x, y, 3, multiple=8))
    assert [len(part_x) for part_x, _ in parts] == [3, 3, 1]
    rows = [
        tuple((row * (y_row != 0)).tolist() + [0] * (127 - len(row)) for row in (x_row, y_row))
        for part in parts
        for x_row, y_row in zip(*part, strict=True)
    ]
    x[y == 0] = 0  # the end mark as an input comes after the last target
    assert sorted(rows) == sorted((a.tolist(), b.tolist()) for a, b in zip(x, y, strict=True))
    assert all(part_y[:, -8:].any() and part_y.size(1) % 8 == 0 for _, part_y in parts[1:])  # as short as possible
    assert sum(part_x.numel() for part_x, _ in parts) < x.numel()


def test_equal_micro_batches_have_one_shape_and_the_rows_of_the_batch(documents):
    x, y = documents.batch(torch.arange(len(documents)))
    parts = list(equal_micro_batches(x, y, 4))
    assert [(part_x.shape, part_y.shape) for part_x, part_y in parts] == [((4, 127), (4, 127))] * 2
    assert torch.equal(torch.cat([part_x for part_x, _ in parts])[: len(x)], x)
    assert torch.equal(torch.cat([part_y for _, part_y in parts])[: len(x)], y) and not parts[1][1][len(x) - 4 :].any()


def test_micro_batches_on_a_cpu_are_no_larger_than_the_batch(documents):
    on_cpu = engine.Engine(
        small_model(documents.vocab_size), documents, trainer_config(batch_size=7, micro_batch_rows=2**63)
    )
    assert len(on_cpu.micro_batches(*documents.batch(torch.arange(7)), padded=True)) == 1


def test_micro_batches_on_a_gpu_are_no_larger_than_the_batch(documents, monkeypatch):
    monkeypatch.setattr("engine.pick_device", lambda name: torch.device("meta"))  # like a GPU, not a CPU
    on_gpu = engine.Engine(
        small_model(documents.vocab_size), documents, trainer_config(batch_size=7, micro_batch_rows=1024)
    )
    ((x, _, _),) = on_gpu.micro_batches(*documents.batch(torch.arange(7)), padded=True)
    assert x.shape == (7, 127) and on_gpu.micro_batch_rows == 7
    ((x, y, _),) = on_gpu.micro_batches(*documents.batch(torch.arange(5)), padded=True)  # the last batch, same shape
    assert x.shape == (7, 127) and not y[5:].any()
    resumed = engine.Engine(small_model(documents.vocab_size), documents, trainer_config(batch_size=6))
    ((x, _, _),) = resumed.micro_batches(*documents.batch(torch.arange(1)), padded=True)  # may come first on resuming
    assert x.shape == (6, 127)


@pytest.mark.parametrize(("as_on_a_gpu", "rows"), [(False, 3), (True, 4)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches_have_the_gradients_of_the_batch(documents, variant, as_on_a_gpu, rows, threads, monkeypatch):
    """The optimized step against the plain one: fp32, no dropout, one padded batch."""
    if as_on_a_gpu:
        monkeypatch.setattr("engine.trimmed_micro_batches", lambda *args: equal_micro_batches(*args[:3]))
    model = small_model(documents.vocab_size, variant, dropout=0.0)
    names = NameDataset(documents, PAIRS)
    for dataset in (documents, names):
        x, y = dataset.batch(torch.arange(len(dataset)))
        _, loss = model(x, y)
        plain = torch.autograd.grad(loss, list(model.parameters()))
        trainer = Trainer(model, dataset, None, trainer_config(batch_size=7, grad_norm_clip=1e9, micro_batch_rows=rows))
        trainer.optimizers = []  # so that the gradients stay
        assert len(trainer.engine.replicas) == min(threads, math.ceil(7 / rows)) - 1
        total, _ = trainer.step(x, y)
        assert total.item() == pytest.approx(loss.item(), abs=1e-6)
        for expected, p in zip(plain, model.parameters(), strict=True):
            torch.testing.assert_close(p.grad, expected, atol=1e-6, rtol=1e-4)
        model.zero_grad()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_replicas_train_the_parameters_as_one_model_does(documents, variant, precision):
    x, y = documents.batch(torch.arange(len(documents)))
    trained = []
    for replicas in (0, 2):
        torch.manual_seed(0)
        model = small_model(documents.vocab_size, variant, dropout=0.0)
        trainer = Trainer(model, documents, None, trainer_config(precision=precision, micro_batch_rows=2))
        trainer.engine.replicas = [model.replica() for _ in range(replicas)]
        trainer.optimizers = [torch.optim.SGD(model.parameters(), lr=0.5)]  # which does not amplify rounding
        for _ in range(3):
            trainer.step(x, y)
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*trained, atol=1e-5 if precision == "fp32" else 1e-3, rtol=0)


def test_dropout_in_replicas_does_not_bias_the_gradient(documents):
    """The mean over many draws with replicas against that without, in standard errors of their difference."""
    x, y = documents.batch(torch.arange(len(documents)))
    model = small_model(documents.vocab_size)
    means, errors = [], []
    for replicas in (0, 2):
        trainer = Trainer(model, documents, None, trainer_config(grad_norm_clip=1e9, micro_batch_rows=2))
        trainer.engine.replicas = [model.replica() for _ in range(replicas)]
        trainer.optimizers = []
        gradients = []
        for _ in range(60):
            trainer.step(x, y)
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            model.zero_grad()
        means.append(torch.stack(gradients).mean(0))
        errors.append(torch.stack(gradients).var(0) / len(gradients))
    scores = (means[0] - means[1])[errors[0] > 0] / (errors[0] + errors[1])[errors[0] > 0].sqrt()
    assert 0.8 < scores.square().mean() < 1.2  # 1 if the difference is chance alone


def test_threads_draw_their_own_dropout_reproducibly(documents, threads):
    x, y = documents.batch(torch.zeros(threads, dtype=torch.int64))
    x, y = x[:1].expand(threads, -1), y[:1].expand(threads, -1)  # the same row for each thread

    def losses(seed: int) -> list[float]:
        torch.manual_seed(0)
        model = small_model(documents.vocab_size).eval()  # as answering questions leaves it
        trainer = Trainer(model, documents, None, trainer_config(micro_batch_rows=1))
        trainer.model.train()
        of_threads: list[float] = []
        accumulate = trainer.engine.accumulate
        trainer.engine.accumulate = lambda *work: of_threads.append(accumulate(*work)) or of_threads[-1]
        torch.manual_seed(seed)
        trainer.step(x, y)
        trainer.step(x, y)
        return sorted(float(loss) for loss in of_threads)

    assert len(set(losses(1))) == 2 * threads
    assert losses(1) == losses(1) != losses(2)


def test_threads_get_similar_numbers_of_tokens():
    parts = [(torch.zeros(2, T), T) for T in (8, 16, 24, 40, 48)]
    assert [[T for _, T in part] for part in balance(parts, 2)] == [[48, 16, 8], [40, 24]]
    assert balance(parts[:1], 2) == [parts[:1], []]


@pytest.mark.parametrize(
    ("threads", "batch_size", "precision", "replicas", "rows"),
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
def test_cpu_threads_decide_replicas_and_micro_batch_size(documents, threads, batch_size, precision, replicas, rows):
    settings = trainer_config(batch_size=batch_size, precision=precision)
    trainer = Trainer(small_model(documents.vocab_size), documents, None, settings)
    assert (len(trainer.engine.replicas), trainer.engine.micro_batch_rows) == (replicas, rows)


@pytest.mark.parametrize(("variant", "T"), [("vanilla", 100), ("perceiver", 100), ("perceiver", 5)])
def test_flops_of_a_step_are_those_of_its_matmuls(documents, variant, T):
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


@pytest.mark.parametrize("variant", ["vanilla", "perceiver"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_throughput_counts_no_flops_that_a_position_without_target_skips(documents, variant, dropout):
    model = small_model(documents.vocab_size, variant, dropout)
    throughput = Throughput(Engine(model, documents, trainer_config()))
    x = torch.randint(1, documents.vocab_size, (3, 100))
    y = x * (torch.rand(3, 100) < 0.2)
    with FlopCounterMode(display=False) as counter:
        model.loss_at_targets(x, y).backward()
    counted = counter.get_flop_counts()["Global"]
    products = counted[torch.ops.aten.mm] + counted[torch.ops.aten.addmm]
    if variant == "perceiver":
        products -= 6 * 16 * model.down_block.attn.query.weight.numel()
    throughput.count(x, y)
    assert throughput.done.tolist() == [300, products]


@pytest.mark.parametrize(("precision", "multiple"), [("fp32", 1), ("bf16", 128)])
def test_on_a_cpu_the_number_of_positions_with_a_target_is_rounded_up_in_bf16(documents, precision, multiple):
    model = small_model(documents.vocab_size, dropout=0.0)
    on_cpu = Engine(model, documents, trainer_config(precision=precision))
    numbers = []
    model.head.register_forward_hook(lambda _, inputs, __: numbers.append(len(inputs[0])))
    x, y = torch.ones(2, 8, 100, dtype=torch.long)
    for targets in (1, 17, 50):
        y[:, targets:] = 0
        with on_cpu.autocast():
            on_cpu.loss_of(model, x, y)
        y[:] = 1
    assert numbers == [multiple * math.ceil(8 * targets / multiple) for targets in (1, 17, 50)]


@pytest.mark.parametrize(("cuda", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_device_is_a_cuda_gpu_or_the_cpu_unless_mps_is_asked_for(monkeypatch, cuda, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == chosen and pick_device("mps").type == "mps"


def test_bf16_is_chosen_if_the_cpu_is_faster_in_it(monkeypatch):
    for capabilities, expected in (
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "Neoverse", "bf16": True}, "fp32"),
        ({"avx512_bf16": True}, "fp32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known, raising=False)
        assert pick_precision("auto", torch.device("cpu")) == expected
        trainer = Trainer(torch.nn.Linear(1, 1), range(4), None, trainer_config(precision="auto"))
        assert trainer.engine.dtype == DTYPES[expected]
        assert pick_precision("auto", torch.device("mps")) == "fp32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert pick_precision("auto", torch.device("cpu")) == "fp32"


def test_bf16_is_chosen_if_the_gpu_multiplies_in_it(monkeypatch):
    for fast, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, fast=fast: fast)
        assert pick_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_muon_computes_in_the_precision_of_the_run(documents, precision):
    settings = trainer_config(muon_lr=0.02, precision=precision)
    _, muon = Trainer(small_model(documents.vocab_size), documents, None, settings).optimizers
    assert muon.dtype == DTYPES[precision]


def test_missing_devices_are_named():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_precision("fp32", torch.device("cpu")) == "fp32"
    assert pick_precision("bf16", torch.device("cpu")) == "bf16"
    with pytest.raises(ValueError, match="no cuda"):  # conftest.py hides it
        pick_device("cuda")


def test_missing_compiler_is_reported_in_one_line(monkeypatch, capsys):
    model, gpu = torch.nn.Linear(1, 1), torch.device("cuda")
    monkeypatch.setattr("engine.has_triton", lambda: True)
    monkeypatch.setattr("os.path.exists", lambda path: True)  # Python.h
    for path, variable, expected in (
        ("gcc", "", True),
        ("clang", "", True),
        ("cc", "", False),  # Triton does not look for it
        ("gcc", "mycc", False),  # CC takes precedence over gcc
        ("mycc", "mycc", True),
    ):
        monkeypatch.setattr("shutil.which", lambda name, path=path: name if name == path else None)
        monkeypatch.setenv("CC", variable)
        assert can_compile() is expected
    with monkeypatch.context() as patched:
        patched.setattr("os.path.exists", lambda path: False)  # no Python.h
        assert not can_compile()
    monkeypatch.setattr("engine.has_triton", lambda: False)
    assert not can_compile()
    assert compiled(model, gpu, STEPS_WORTH_COMPILING - 1, False) is model and capsys.readouterr().out == ""
    assert compiled(model, gpu, STEPS_WORTH_COMPILING, False) is model
    assert capsys.readouterr().out.count("\n") == 1


def test_cuda_graphs_are_not_used_when_gradients_accumulate(monkeypatch):
    monkeypatch.setattr("engine.can_compile", lambda: True)
    monkeypatch.setattr("torch.compile", lambda model, mode, dynamic: mode)
    model, gpu = torch.nn.Linear(1, 1), torch.device("cuda")
    assert compiled(model, gpu, STEPS_WORTH_COMPILING, False) == "reduce-overhead"
    assert compiled(model, gpu, STEPS_WORTH_COMPILING, True) is None


@pytest.fixture
def configured_as_on_a_gpu(monkeypatch):
    """What configure_torch() sets where there is a GPU, for one test."""
    import torch._inductor.config as inductor

    dynamo, functorch = torch._dynamo.config, torch._functorch.config
    with (
        dynamo.patch(suppress_errors=False, optimize_ddp=True),
        functorch.patch(force_non_lazy_backward_lowering=False),
        inductor.patch(force_disable_caches=True),
    ):
        with monkeypatch.context() as patched:
            patched.setattr("torch.cuda.is_available", lambda: True)
            configure_torch()
        yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:dynamo_pgo", "ignore:.*torch.jit")
@pytest.mark.parametrize("backward", [False, True])
def test_model_that_does_not_compile_runs_uncompiled(configured_as_on_a_gpu, monkeypatch, backward):
    from torch._inductor.graph import GraphLowering  # takes a second

    run, failed = GraphLowering.run, []

    def fails(graph, *args):
        if graph.is_backward == backward:
            failed.append(graph)
            raise OSError("no libcuda.so")
        return run(graph, *args)

    monkeypatch.setattr(GraphLowering, "run", fails)
    monkeypatch.setattr("engine.can_compile", lambda: True)
    model, x = torch.nn.Linear(2, 1), torch.randn(3, 2)
    anyhow = compiled(model, torch.device("cuda"), STEPS_WORTH_COMPILING, False)
    out = anyhow(x)
    out.sum().backward()
    assert anyhow is not model and failed
    assert torch.equal(out, model(x)) and torch.allclose(model.weight.grad, x.sum(0))


@pytest.mark.parametrize("option", ["broadcast_buffers", "forward_sync_buffers"])
def test_buffers_are_not_synchronized_on_any_supported_torch(monkeypatch, option):
    """torch 2.13 deprecated broadcast_buffers, the only name that 2.9 knows."""

    class Before213:
        def __init__(self, module, init_sync=True, broadcast_buffers=True):
            self.synchronizes = {"broadcast_buffers": broadcast_buffers}

    class From213:
        def __init__(self, module, broadcast_buffers=None, init_sync=True, *, forward_sync_buffers=None):
            assert broadcast_buffers is None  # otherwise it prints a FutureWarning
            self.synchronizes = {"forward_sync_buffers": forward_sync_buffers}

    wrapper = Before213 if option == "broadcast_buffers" else From213
    monkeypatch.setattr("engine.DistributedDataParallel", wrapper)
    assert data_parallel(torch.nn.Linear(1, 1)).synchronizes == {option: False}
