"""Draws a picture from what is computed or measured: python scripts/pictures.py WHAT [--out FOLDER]

ablation    docs/ablation.png: the recipe open without each ingredient, from results/ablations.jsonl
attention   docs/attention.png: where one head and two heads look when a key varies in length (claims 5 and 6)
exposures   docs/exposures.png: accuracy by how often the text was read, from results/runs.jsonl
lengths     docs/lengths.png: the time of a step by block_size, from results/speed.jsonl
knowledge   docs/knowledge.png: accuracy by the probability of an answer, from a report of run.py evaluate, piped in
play_char   docs/play_char.png: the picture of the loss in mingpt-demo/play_char.ipynb, as it was last run
"""

import base64
import io
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

try:
    import matplotlib
except ImportError:  # not one of the project's requirements
    print("pictures.py: error: matplotlib is not installed; pip install matplotlib", file=sys.stderr)
    sys.exit(2)

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from cli import Parser, UserError, exit_on_user_error
from files import atomic_write, check_writable
from leaderboard import TABLES, changes, mean_percent
from records import Record, read_records
from report import bin_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DPI = 110


def softmax(scores: np.ndarray) -> np.ndarray:
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def attention() -> plt.Figure:
    """Histograms of the weight on value a over samples of a key of varying length, as docs/attention.md derives it."""
    rng = np.random.default_rng(0)
    n, t, samples = 8, 30.0, 4000
    keys = np.repeat(np.eye(n)[None], samples, axis=0)  # orthonormal means; 0 is a, 1 is b
    keys[:, 0] *= 1 + np.sqrt(0.5) * rng.normal(size=(samples, 1))
    one = softmax(keys @ (t * (np.eye(n)[0] + np.eye(n)[1])))[:, 0]
    two = (softmax(keys @ (t * np.eye(n)[0])) + softmax(keys @ (t * np.eye(n)[1])))[:, 0] / 2
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    for axis, weights, title in zip(axes, (one, two), ("one head", "the mean of two heads"), strict=True):
        axis.hist(weights, bins=40, range=(0, 1), weights=np.full(samples, 100 / samples))
        axis.set(title=title, xlabel="weight on value a")
    axes[0].set_ylabel("% of 4,000 samples")
    return figure


def measured(file: str, experiment: str) -> list[Record]:
    """The valid records of an experiment in results/."""
    records = read_records(str(ROOT / "results" / f"{file}.jsonl"))
    return [r for r in records if r["experiment"] == experiment and r["status"] == "ok"]


def lengths() -> plt.Figure:
    """The seconds of a step over block_size, one curve per variant, on logarithmic axes."""
    figure, axis = plt.subplots(figsize=(6, 3.5))
    curves: dict[str, dict[int, float]] = {}  # seconds by block_size; the latest record counts
    for record in measured("speed", "lengths"):
        figures = record["measured"]
        curves.setdefault(record["variant"], {})[figures["block_size"]] = figures["seconds"]
    for variant, points in curves.items():
        axis.plot(*zip(*sorted(points.items()), strict=True), marker="o", label=variant)
    axis.set(xscale="log", yscale="log", xlabel="block_size (characters)", ylabel="seconds a step of 4 blocks")
    ticks = sorted({length for points in curves.values() for length in points})
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.legend()
    return figure


def knowledge() -> plt.Figure:
    """How often answers of each probability, and the surest answers, are right. Raises UserError without a report."""
    try:
        header, *rows = (line.rstrip("\n").split("\t") for line in sys.stdin or ())  # None: closed
        of_column = dict(zip(header, zip(*rows, strict=True), strict=True))
        confidence = np.array(of_column["probability"], dtype=float)
        correct = np.array(of_column["correct"]) == "True"
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError
    except (ValueError, KeyError):  # also for bytes that are not UTF-8
        raise UserError("standard input: no report; pipe in what run.py evaluate wrote to --report_path") from None
    which = bin_of(confidence)
    filled = np.unique(which)
    figure, (bars, curve) = plt.subplots(1, 2, figsize=(8, 3.2))
    heights = [100 * correct[which == b].mean() for b in filled]
    drawn = bars.bar(10 * filled + 5, heights, width=9)
    bars.bar_label(drawn, [str((which == b).sum()) for b in filled])
    bars.plot([0, 100], [0, 100], color="gray", linewidth=1)
    bars.set(xlabel="probability of the answer (%)", ylabel="right (%)", ylim=(0, 109), title="answers by probability")
    surest = correct[np.argsort(-confidence, kind="stable")]
    share = np.arange(1, len(surest) + 1) / len(surest)
    curve.plot(100 * share, 100 * np.cumsum(surest) / np.arange(1, len(surest) + 1))
    curve.set(xlabel="the surest answers (%)", ylim=(0, 109), title="right among the surest (%)")
    return figure


def exposures() -> plt.Figure:
    """Accuracy over epochs on the course's text: the latest curve of each recipe and variant."""
    figure, axis = plt.subplots(figsize=(6, 3.5))
    latest = {}
    for record in measured("runs", "exposures"):
        if record["corpus"] == "course" and record["curve"] and not record["changed"]:
            latest[f"{record['recipe']}, {record['variant']}"] = record["curve"]
    for name, curve in latest.items():
        axis.plot(*zip(*curve, strict=True), marker=".", label=name)
    axis.set(xscale="log", xlabel="times each line was read in pretraining", ylabel="right (%)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda epoch, _: f"{epoch:.0f}")
    axis.minorticks_off()
    axis.legend()
    return figure


def ablation() -> plt.Figure:
    """Accuracy of the recipe open, and of the rows of its ablation, as bars."""
    rows = sorted(TABLES["open-ablation"].rows(measured("ablations", "ablation")), key=mean_percent)
    figure, axis = plt.subplots(figsize=(8, 4))
    bars = axis.barh([changes(row).replace("`", "") for row in rows], [mean_percent(row) for row in rows])
    axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set(xlabel="right (%)", ylabel="changed")
    axis.margins(x=0.12)
    return figure


def play_char() -> plt.Figure:
    """The first picture among the outputs of the notebook. Raises UserError if it was saved without one."""
    cells = json.loads((DOCS.parent / "mingpt-demo" / "play_char.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    png = next((data["image/png"] for data in outputs if "image/png" in data), None)
    if png is None:
        raise UserError("mingpt-demo/play_char.ipynb: saved without its picture; run it first")
    image = plt.imread(io.BytesIO(base64.b64decode(png)))
    figure = plt.figure(figsize=(image.shape[1] / DPI, image.shape[0] / DPI))
    figure.figimage(image)
    return figure


def main() -> None:
    parser = Parser(__doc__)
    pictures = [ablation, attention, lengths, knowledge, exposures, play_char]
    drawn = {picture.__name__: picture for picture in pictures}
    parser.add_argument("what", choices=list(drawn))
    parser.add_argument("--out", default=str(DOCS), help="the folder for the picture")
    arguments = parser.parse_args()
    path = f"{arguments.out}/{arguments.what}.png"
    check_writable(path, None)
    figure = drawn[arguments.what]()
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, dpi=DPI, metadata={"Software": None})
    print(f"Written: {path}")


if __name__ == "__main__":
    exit_on_user_error(main)
