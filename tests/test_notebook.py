"""The notebook runs from its first cell to its last, and what it shows is its own output."""

import json
import math

import matplotlib
import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "mingpt-demo" / "play_char.ipynb"


def test_the_notebook_runs_top_to_bottom(monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.setenv("PLAY_CHAR_EPOCHS", "1")
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, object] = {}
    for cell in cells:
        if not cell["source"][0].startswith("%"):  # these need Jupyter
            exec("".join(cell["source"]), namespace)
    losses = [loss for _, loss in namespace["curve"].points["loss"]]
    assert losses[-1] < 3.0 < 4.9 < math.log(namespace["vocabulary"].vocab_size)  # what even guessing costs
    assert len(namespace["continue_from"]("Marie Curie. ", steps=10)) == len("Marie Curie. ") + 10
    with pytest.raises(ValueError, match="not in the pretraining text"):
        namespace["continue_from"]("王")


def test_the_notebook_is_committed_with_its_output():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert cells[-1]["source"] == ["%load_ext tensorboard\n", "%tensorboard --logdir ../expt"]
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
