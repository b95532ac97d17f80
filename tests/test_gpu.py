"""What only a GPU can show: it computes what the CPU does, compiled or not, and stops, resumes and fails as promised.

bash scripts/gpu.sh or pytest -m gpu runs these on the GPU.
"""

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PAIRS, VARIANTS, WIKI, Enough, fact_dataset, salient_dataset, small_model
from torch import Tensor
from torch.utils.data import Dataset

import run
import steps
from checkpoint import StateKeeper, record_of
from cli import UserError
from dataset import CharCorruptionDataset, MixedDataset, NameDataset
from engine import STEPS_WORTH_COMPILING, can_compile, configure_torch, pick_precision
from inputs import read_inputs
from recipe import with_settings
from trainer import Trainer, TrainerConfig

pytestmark = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or not run as pytest -m gpu")
GPU = "cuda" if torch.cuda.is_available() else "cpu"  # on a CPU, the others at least show that they still work


def read_as(reads: str, documents: CharCorruptionDataset) -> Dataset:
    """The documents as a recipe reads them: in random spans or salient ones, mixed with questions, or fact by fact."""
    names = NameDataset(documents, PAIRS)
    if reads == "facts":
        return fact_dataset(documents)
    return MixedDataset(salient_dataset(documents) if reads == "salient" else documents, names, 0.2)


def trainer_on(device: str, variant: str = "vanilla", reads: str = "documents", **wanted) -> Trainer:
    """A trainer of a small model on readings of the documents, the same on every device."""
    configure_torch()  # chooses the kernels of attention that the commands use
    torch.manual_seed(0)
    documents = CharCorruptionDataset(WIKI, 128)
    dropout = wanted.pop("dropout", 0.0)
    model = small_model(documents.vocab_size, variant, dropout, n_layer=2, n_embd=64)
    dataset = read_as(reads, documents)
    settings = {"max_epochs": 4, "batch_size": 4, "learning_rate": 3e-3, "precision": "fp32", "grad_norm_clip": 1e9}
    trainer = Trainer(model, dataset, None, TrainerConfig(device=device, **(settings | wanted)))
    trainer.model.train()
    return trainer


def batch() -> tuple[Tensor, Tensor]:
    """A batch of documents, on the CPU."""
    torch.manual_seed(1)
    return CharCorruptionDataset(WIKI, 128).batch(torch.arange(6))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().float() - expected).norm() / expected.norm())


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_are_those_of_the_cpu(variant, precision, tolerance):
    x, y = batch()
    on_cpu, on_gpu = trainer_on("cpu", variant), trainer_on(GPU, variant, precision=precision, batch_size=6)
    gpu_x, gpu_y = x.to(GPU), y.to(GPU)
    with torch.no_grad():
        expected = on_cpu.model(x)[0]
        with on_gpu.engine.autocast():
            assert relative_error(on_gpu.model(gpu_x)[0], expected) < tolerance
    loss, gpu_loss = on_cpu.engine.backward(x, y, padded=True), on_gpu.engine.backward(gpu_x, gpu_y, padded=True)
    assert float(gpu_loss) == pytest.approx(float(loss), rel=tolerance / 5)
    gradients = {name: p.grad for name, p in on_cpu.model.named_parameters()}
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    for name, p in on_gpu.model.named_parameters():
        error = (p.grad.cpu() - gradients[name]).norm()
        # softmax ignores the keys' bias: its gradient is rounding alone
        assert error <= tolerance * (gradients[name].norm() + 0.02 * total), name


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_gpu)])  # test_resume.py has a CPU's
@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
@pytest.mark.parametrize("reads", ["documents", "salient", "facts"])
def test_resumed_run_has_the_losses_of_one_that_was_not_stopped(world, muon_lr, precision, reads):
    """Draws and dropout continue where they stopped; otherwise the losses would differ by far more than rounding."""
    this = run.parse(["pretrain", "vanilla", "wiki.txt", "--writing_params_path", "a.params"])
    documents = CharCorruptionDataset(WIKI, 128)
    record = record_of(this, read_inputs(this), documents, small_model(documents.vocab_size).config, 1)
    keeper = StateKeeper("a.state", 0, record, "")
    settings = {"reads": reads, "muon_lr": muon_lr, "precision": precision, "dropout": 0.1}

    def losses(stop_after: int, resume: bool = False) -> list[float]:
        """Those of a run's steps up to one, after which its state is written."""
        trainer = trainer_on(GPU, **settings)
        if resume:
            torch.manual_seed(2)
            keeper.read(trainer)
        seen: list[float] = []

        def note(trainer: Trainer) -> None:
            seen.append(float(trainer.last[0]))
            if trainer.steps == stop_after:
                keeper.write(trainer)
                raise Enough

        trainer.on_step_end.append(note)
        with pytest.raises(Enough):
            trainer.train()
        return seen

    undisturbed = losses(7)
    tolerance = 1e-3 if precision == "fp32" else 5e-3
    assert losses(3) + losses(7, resume=True) == pytest.approx(undisturbed, rel=tolerance)


@needs_gpu
def test_out_of_memory_says_what_to_lower_and_that_is_enough(world):
    (world / "wiki.txt").write_text(WIKI * 1000, encoding="utf-8")
    this = run.parse(f"pretrain vanilla wiki.txt --device {GPU} --writing_params_path a.params".split())
    recipe = with_settings(this.recipe, ["pretrain_epochs=1", "pretrain_batch_size=4096"])
    this = replace(this, recipe=recipe)
    inputs = read_inputs(this)
    torch.cuda.empty_cache()
    most = 2e9 / torch.cuda.get_device_properties(GPU).total_memory  # such a step needs ten times as much
    torch.cuda.set_per_process_memory_fraction(most)
    try:
        with pytest.raises(
            UserError, match=r"^out of memory; resume with --resume and a --micro_batch_rows below 4096$"
        ):
            steps.execute(this, inputs)
        gc.collect()  # the error holds what there was in memory
        steps.execute(replace(this, resume=True, micro_batch_rows=64), inputs)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert Path("a.params").exists()


@needs_gpu
def test_params_file_of_the_gpu_gives_the_same_predictions_on_the_cpu(world):
    files = "--writing_params_path a.params --finetune_corpus_path pairs.tsv"
    run.main(f"finetune vanilla wiki.txt {files} --finetune_epochs 40 --device {GPU}".split())
    predictions = []
    for device in (GPU, "cpu"):
        files = f"--reading_params_path a.params --eval_corpus_path birth_dev.tsv --outputs_path {device}.predictions"
        files += f" --report_path {device}.report.tsv"  # with beam search, probabilities and attention maps
        run.main(f"evaluate vanilla wiki.txt {files} --device {device}".split())
        assert Path(f"{device}.report.tsv").exists()
        predictions.append(Path(f"{device}.predictions").read_text(encoding="utf-8"))
    assert predictions[0] == predictions[1] and predictions[0].strip()


# the last test: compiling takes minutes on some machines


@needs_gpu
@pytest.mark.parametrize(("variant", "precision"), [*((variant, "auto") for variant in VARIANTS), ("vanilla", "fp32")])
def test_compiled_step_agrees_with_one_that_is_not(variant, precision, monkeypatch):
    if not can_compile():
        pytest.skip("no Triton, C compiler or Python.h")
    precision = pick_precision(precision, torch.device(GPU))
    tolerance = 1e-2 if precision == "bf16" else 1e-3
    compiled = trainer_on(GPU, variant, precision=precision, max_epochs=STEPS_WORTH_COMPILING)
    plain = trainer_on(GPU, variant, precision=precision)
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)
    assert compiled.engine.wrapped is not compiled.model and plain.engine.wrapped is plain.model
    for _ in range(4):  # compiled, recorded as a CUDA graph, and replayed twice
        x, y = (part[:4].to(GPU) for part in batch())
        (loss, norm), (plain_loss, plain_norm) = compiled.step(x, y), plain.step(x, y)
        assert float(loss) == pytest.approx(float(plain_loss), rel=tolerance)
        assert float(norm) == pytest.approx(float(plain_norm), rel=5 * tolerance)
