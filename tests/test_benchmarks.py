"""The plain loop of benchmarks/ as an independent reference for the model and the step."""

import torch
from plain import PlainGPT, PlainTrainer

from engine import CPU_MICRO_BATCH_ROWS
from model import GPT, GPTConfig
from trainer import Trainer, TrainerConfig


def test_loss_and_gradients_are_those_of_the_plain_loop(documents, monkeypatch):
    monkeypatch.setitem(CPU_MICRO_BATCH_ROWS, torch.float32, (3, 3))
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPTConfig(documents.vocab_size, 128, **sizes)
    ours, plain = GPT(config), PlainGPT(config)
    plain.load_state_dict(ours.state_dict())
    settings = TrainerConfig(batch_size=7, learning_rate=1e-2, decay_all=True, device="cpu", precision="fp32")
    trainer, plain_trainer = Trainer(ours, documents, None, settings), PlainTrainer(plain, 1e-2, decay_all=True)
    trainer.model.train()
    for _ in range(5):  # equal gradients keep the parameters equal
        x, y = documents.batch(torch.arange(7))
        (loss, norm), (plain_loss, plain_norm) = trainer.step(x, y), plain_trainer.step(x, y)
        torch.testing.assert_close(loss, plain_loss, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(norm, plain_norm, atol=1e-5, rtol=1e-4)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], atol=2e-4, rtol=1e-3)
