"""Renders the tables of README.md and docs/results.md from the records in results/.

python scripts/leaderboard.py            rewrite the tables
python scripts/leaderboard.py --check    only check that they are up to date; exit code 2 if they are not

A table is between the lines <!-- table: NAME --> and <!-- /table -->. TABLES has an entry for each NAME.
"""

import re
import sys
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import Parser, UserError, exit_on_user_error
from experiment import COURSE_FINETUNING, PAIRS_ALONE
from files import read_text, write_text
from recipe import RECIPES
from records import Record, read_records

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md")

Column = Callable[[list[Record]], str]  # from the records of a row to the text of its cell


@dataclass(frozen=True)
class Table:
    """Which records it shows, which of them share a row, and its columns."""

    file: str  # results/FILE.jsonl
    where: Callable[[Record], bool]
    row: Callable[[Record], Hashable]  # records with the same value share a row
    columns: dict[str, Column]
    order: Callable[[list[Record]], Any] = lambda records: 0  # by default, rows stay in the file's order

    def rows(self, records: list[Record]) -> list[list[Record]]:
        """The records of each row."""
        rows: dict[Hashable, list[Record]] = {}
        for record in filter(self.where, records):
            rows.setdefault(self.row(record), []).append(record)
        return sorted(rows.values(), key=self.order)

    def render(self, records: list[Record]) -> str:
        """The table in Markdown."""
        cells = [list(self.columns), ["---"] * len(self.columns)]
        cells += [[column(row) for column in self.columns.values()] for row in self.rows(records)]
        return "".join(f"| {' | '.join(line)} |\n" for line in cells)


# columns


def value(*names: str, digits: int | None = None) -> Column:
    """A value of the row's last record, found by its key and the keys inside it; with `digits` decimal digits."""

    def cell(records: list[Record]) -> str:
        found: Any = records[-1] if records else None
        for name in names:
            found = None if found is None else found.get(name)
        if found is None or isinstance(found, str):
            return found or ""
        return f"{found:,}" if digits is None else f"{found:,.{digits}f}"

    return cell


def has(record: Record, **values: Any) -> bool:
    """Whether the record has these values."""
    return all(record[name] == wanted for name, wanted in values.items())


def setting(record: Record, name: str) -> Any:
    """A setting of the run; None if the record lacks it, or has no settings at all."""
    return (record["settings"] or {}).get(name)


def only(column: Column, **values: Any) -> Column:
    """The column for those of the row's records that have these values."""
    return lambda records: column([r for r in records if has(r, **values)])


def right(record: Record) -> float:
    """The share of answers that were correct."""
    return record["correct"] / record["asked"]


def percents(records: list[Record]) -> dict[int | None, float]:
    """By seed, how many answers were correct. Of several runs with the same seed, the last counts.

    Raises UserError if the runs are of several recipes, variants or corpora.
    """
    asked = [r for r in records if r["asked"]]
    worlds = dict.fromkeys(f"({r['recipe']}, {r['variant']}, {r['corpus']})" for r in asked)
    if len(worlds) > 1:
        raise UserError(f"a cell mixes {' and '.join(worlds)}; tell them apart in TABLES of scripts/leaderboard.py")
    return {r["seed"]: 100 * right(r) for r in asked}


def mean_percent(records: list[Record]) -> float:
    """How many answers were correct, in the mean over seeds; 0 if none was asked."""
    shares = percents(records).values()
    return sum(shares) / max(1, len(shares))


def percent(records: list[Record]) -> str:
    """How many answers were correct, in the mean over seeds, and over how many."""
    shares = percents(records)
    if not shares:
        return ""
    seeds = f" ({len(shares)} seeds)" if len(shares) > 1 else ""
    return f"{mean_percent(records) + 1e-9:.1f} %{seeds}"  # 24.25 becomes 24.3, not 24.2


def seconds_of(record: Record) -> int | None:
    """How long the whole run took, or its pretraining if only that was timed."""
    return record["seconds"].get("total") or record["seconds"].get("pretrain")


def seconds(records: list[Record]) -> str:
    """The time of the row's last run, if it is known."""
    took = seconds_of(records[-1]) if records else None
    return "" if took is None else f"{took:,}"


def time_range(records: list[Record]) -> str:
    """The shortest and the longest time of the row's runs."""
    times = sorted(took for r in records if (took := seconds_of(r)))
    if not times:
        return ""
    unit, length, digits = ("h", 3600, 1) if times[0] > 3600 else ("min", 60, 0)
    return " to ".join(dict.fromkeys(f"{took / length:.{digits}f}" for took in (times[0], times[-1]))) + f" {unit}"


def at(epoch: int, curve: str = "curve") -> Column:
    """The value of the row's curve at an epoch."""
    number = "{:g}" if curve == "curve" else "{:.2f}"
    return lambda records: "".join(number.format(v) for r in records[-1:] for e, v in r[curve] or [] if e == epoch)


FINETUNINGS = {"the course's finetuning": COURSE_FINETUNING, "two gentle epochs on the pairs": PAIRS_ALONE}


def changes(records: list[Record]) -> str:
    """The settings that differ from the recipe. How often the text is read is not among them."""
    changed = {name: setting for name, setting in records[0]["changed"].items() if name != "pretrain_epochs"}
    words = []
    if not setting(records[0], "finetune_qa_per_document"):  # on pairs alone
        for finetuning, text in FINETUNINGS.items():
            values = {name: float(number) for name, number in (word.split("=") for word in text.split())}
            # the oldest records lack finetune_qa_per_document, which is 0 in theirs
            if values.items() <= ({"finetune_qa_per_document": 0.0} | changed).items():
                words = [finetuning]
                changed = {name: setting for name, setting in changed.items() if name not in values}
    words += [
        f"`{name}={setting:g}`" if isinstance(setting, float) else f"`{name}={setting}`"
        for name, setting in changed.items()
    ]
    return ", ".join(words) or "nothing"


def recipe(records: list[Record]) -> str:
    """The recipe's name, or what was done in place of pretraining."""
    if records[0]["recipe"] is None:
        return "London for everyone"
    return "no pretraining" if records[0]["changed"].get("pretrain_epochs") == 0 else records[0]["recipe"]


def hardware(record: Record) -> str:
    """The kind of machine, without its processor."""
    return (record["machine"] or "").partition(" (")[0]


def machines(records: list[Record]) -> str:
    """The machines of those of the row's runs that were timed, or else of all its runs."""
    timed = [r for r in records if seconds_of(r)] or records
    return " or ".join(dict.fromkeys(r["machine"] for r in timed if r["machine"]))


# tables

FASTER, SLOWER = "2 CPU cores (AMD EPYC, Zen 5)", "2 CPU cores (AMD EPYC, Zen 4)"
SLOWEST = "2 CPU cores (AMD EPYC, Zen 4, without AVX-512)"  # its times are two or three times as long


def stands(record: Record) -> bool:
    """Whether this is a finished run of a recipe as it was then, of finetuning alone, or of London for everyone."""
    unchanged = record["changed"] in ({}, {"pretrain_epochs": 0})
    return record["status"] == "ok" and unchanged and record["asked"] is not None


def is_of_today(record: Record) -> bool:
    """Whether the settings are those of the recipe, with or without pretraining.

    A setting that an old record lacks is that of the course's recipe, in which all additions are off.
    """
    if record["recipe"] is None:
        return True
    today = asdict(RECIPES[record["recipe"]])
    settings = asdict(RECIPES["course"]) | (record["settings"] or {}) | {"name": record["recipe"]}
    if settings["pretrain_epochs"] == 0:
        today["pretrain_epochs"] = 0
    return all(settings[name] == value for name, value in today.items())


def one_change(record: Record) -> bool:
    """Whether this is a row of the ablation: of the small world, or of all the text read 30 times."""
    if record["corpus"] == "course-600":  # at f0d6851, only what 67dd505 does not have
        return record["commit"] == "67dd505" or (record["commit"] == "f0d6851" and record["changed"] != {})
    changed, old = record["changed"], setting(record, "loss_on_span") is None
    return old and changed.get("pretrain_epochs") == 30 and "pretrain_warmup_tokens" not in changed


def rereadings(records: list[Record]) -> str:
    """How often finetuning reads the text."""
    settings = records[0]["settings"]
    return str(settings["finetune_epochs"] if settings["finetune_qa_per_document"] else 0)


def after_readings(*readings: int) -> Column:
    return lambda records: percent([r for r in records if r["measured"]["readings"] in readings])


def step_columns(machine: str, name: str) -> dict[str, Column]:
    columns = {
        "seconds": value("measured", "seconds", digits=3),
        "times its floor": value("measured", "times_floor", digits=2),
        "times as fast as plain": value("measured", "times_as_fast_as_plain", digits=1),
    }
    return {f"{name}: {title}": only(column, machine=machine) for title, column in columns.items()}


def ends_of_parts(records: list[Record]) -> str:
    """Which parts of scripts/gpu.sh did not end well, and how: failed, timed out or not finished."""
    parts = records[0]["measured"]["parts"]
    return ", ".join(f"{name} {end.partition(':')[0]}" for name, end in parts.items() if end != "ok") or "all ok"


def length_columns(variant: str) -> dict[str, Column]:
    return {
        f"{variant}, s": only(value("measured", "seconds", digits=3), variant=variant),
        f"{variant}, MB": only(value("measured", "mb"), variant=variant),
    }


TABLES = {
    "leaderboard": Table(
        "runs",
        where=lambda r: (
            stands(r)
            and is_of_today(r)
            and r["corpus"] in ("course", "embedded")
            and not (r["machine"] == SLOWEST and r["seconds"])
        ),
        row=lambda r: (recipe([r]), r["variant"], hardware(r)),
        columns={
            "recipe": recipe,
            "attention": value("variant"),
            "machine": machines,
            "training time": time_range,
            "400 of the course's people": only(percent, corpus="course"),
            "500 of our people": only(percent, corpus="embedded"),
        },
        order=lambda records: -mean_percent([r for r in records if r["corpus"] == "course"]),
    ),
    "quickstart": Table(
        "runs",
        where=lambda r: has(r, status="ok", experiment="quickstart", seed=0, commit="ef732ff"),
        row=id,  # one for each record
        columns={
            "question": value("measured", "question"),
            "answers": value("measured", "answers"),
            "correct": value("correct"),
            "total": value("asked"),
            "percent": percent,
            "seconds": value("seconds", "finetune"),
        },
    ),
    "quickstart-seeds": Table(
        "runs",
        where=lambda r: (
            has(r, status="ok", corpus="embedded-600x4") and (r["experiment"] == "baseline" or r["commit"] == "94406da")
        ),
        row=lambda r: r["seed"],
        columns={
            "seed": value("seed"),
            "London for everyone": only(percent, recipe=None),
            "without pretraining": only(percent, recipe="course"),
            "with pretraining": only(percent, recipe="fast"),
            "seconds without": only(seconds, recipe="course"),
            "seconds with": only(seconds, recipe="fast"),
        },
    ),
    "fast": Table(
        "runs",
        where=lambda r: (
            stands(r)
            and r["recipe"] == "fast"
            and setting(r, "pretrain_epochs") == 60
            and r["experiment"] in ("speedrun", "run")
            and r["curve"] is not None
        ),
        row=lambda r: (r["variant"], r["seed"], r["commit"]),
        columns={"attention": value("variant"), "seed": value("seed")}
        | {f"{epoch}": at(epoch) for epoch in range(12, 61, 6)}
        | {"after finetuning": percent, "seconds": seconds, "commit": value("commit")},
        order=lambda records: (records[0]["variant"], records[0]["seed"]),
    ),
    "wordings": Table(
        "runs",
        where=lambda r: has(r, status="ok", experiment="wordings", recipe="fast", variant="vanilla", commit="23a7bbc"),
        row=lambda r: r["measured"]["form"],
        columns={"questions and lines": value("measured", "form"), "right": percent},
    ),
    "relations": Table(
        "runs",
        where=lambda r: has(r, status="ok", experiment="relations", variant="vanilla", changed={}),
        row=lambda r: r["measured"]["relation"],
        columns={
            "what is asked": value("measured", "relation"),
            "`open`": only(percent, recipe="open"),
            "`fast`, pretrained for birthplaces": only(percent, recipe="fast"),
        },
    ),
    "course": Table(
        "runs",
        where=lambda r: (
            has(r, status="ok", corpus="course")
            and r["recipe"] in ("course", "course2024")
            and r["asked"] is not None
            and setting(r, "pretrain_epochs") == 650
        ),
        row=lambda r: (r["variant"], r["seed"], r["commit"]),
        columns={"recipe": recipe, "attention": value("variant"), "changed": changes, "seed": value("seed")}
        | {f"{epoch}": at(epoch) for epoch in range(130, 650, 130)}
        | {"650": percent, "loss": at(650, "loss_curve")},
        order=lambda records: -records[0]["correct"],
    ),
    "loss": Table(
        "runs",
        where=lambda r: at(245, "loss_curve")([r]) != "",
        row=lambda r: r["commit"],
        columns={"recipe": recipe, "changed": changes}
        | {f"{epoch}": at(epoch, "loss_curve") for epoch in (10, 20, 40, 60, 80, 100, 160, 200, 300, 400, 500, 650)},
    ),
    "ablation": Table(
        "ablations",
        where=lambda r: r["status"] == "ok" and one_change(r),
        row=lambda r: changes([r]),
        columns={
            "changed": changes,
            "answer masked, %": only(value("measured", "percent_answer_masked"), corpus="course-600"),
            "small world": only(percent, corpus="course-600"),
            "whole text": only(percent, corpus="course-training"),
        },
    ),
    "open-ablation": Table(
        "ablations",
        where=lambda r: (
            has(r, status="ok", experiment="ablation", recipe="open", variant="vanilla")
            and has(r, corpus="course-600", commit="31708a0")
        ),
        row=lambda r: changes([r]),
        columns={"changed": changes, "right": percent, "seconds": value("seconds", "total")},
    ),
    "spans": Table(
        "ablations",
        where=lambda r: has(r, status="ok", recipe="fast", commit="959f542"),
        row=id,  # one for each record
        columns={
            "changed": lambda records: changes(records) + (f"; {note}" if (note := records[0]["note"]) else ""),
            "epochs": value("settings", "pretrain_epochs"),
            "small world": only(percent, corpus="course-600"),
            "whole text": only(percent, corpus="course-training"),
            "seconds": value("seconds", "total"),
        },
        order=lambda records: (-records[0]["settings"]["pretrain_epochs"], -right(records[0])),
    ),
    "rereading": Table(
        "ablations",
        where=lambda r: (
            has(r, status="ok", corpus="course-training", commit="e009054") and r["settings"]["pretrain_epochs"] < 60
        ),
        row=id,  # one for each record
        columns={
            "recipe": value("recipe"),
            "attention": value("variant"),
            "epochs of pretraining": value("settings", "pretrain_epochs"),
            "in finetuning": rereadings,
            "pairs per document": lambda records: f"{records[0]['settings']['finetune_qa_per_document']:g}",
            "rate": lambda records: f"{records[0]['settings']['finetune_lr']:g}",
            "right": percent,
            "seconds": value("seconds", "total"),
        },
        order=lambda records: (
            records[0]["recipe"],
            records[0]["settings"]["pretrain_epochs"],
            records[0]["settings"]["finetune_qa_per_document"] > 0,
            right(records[0]),
        ),
    ),
    "sweep": Table(
        "sweep",
        where=lambda r: has(r, status="ok", recipe="fast", commit="be31ab5"),
        row=lambda r: (r["corpus"], r["variant"]),
        columns={
            "people": value("measured", "people"),
            "lines each": value("measured", "lines_per_person"),
            "attention": value("variant"),
            "16 readings": after_readings(16),
            "32": after_readings(32),
            "60 or 64": after_readings(60, 64),
        },
    ),
    "step": Table(
        "speed",
        where=lambda r: has(r, status="ok", experiment="step"),
        row=lambda r: (r["implementation"], r["variant"], r["precision"]),
        columns={"code": value("implementation"), "attention": value("variant"), "precision": value("precision")}
        | step_columns(FASTER, "Zen 5")
        | step_columns(SLOWER, "Zen 4"),
    ),
    "gpu": Table(
        "speed",
        where=lambda r: r["experiment"] == "gpu",
        row=id,  # one for each record
        columns={
            "date": value("date"),
            "commit": value("commit"),
            "machine": value("machine"),
            "parts": ends_of_parts,
            "step, ms": value("measured", "step", "vanilla, not compiled", "milliseconds", digits=1),
            "compiled, ms": value("measured", "step", "vanilla, compiled", "milliseconds", digits=1),
            "% of a matmul's speed": value("measured", "step", "vanilla, compiled", "percent_of_ceiling", digits=1),
            "peak MB": value("measured", "step", "vanilla, compiled", "peak_mb"),
            "fast recipe, s": value("measured", "fast", "total"),
            "right, %": value("measured", "fast", "percent", digits=1),
            "650 epochs, min": value("measured", "course", "minutes_of_all_epochs", digits=1),
        },
    ),
    "lengths": Table(
        "speed",
        where=lambda r: has(r, status="ok", experiment="lengths"),
        row=lambda r: r["measured"]["block_size"],
        columns={"block_size": value("measured", "block_size")}
        | length_columns("vanilla")
        | length_columns("synthesizer")
        | length_columns("perceiver"),
    ),
}


# pages


def rendered(page: str, name: str) -> str:
    """The text of a page with its tables as the records have them now. `name` is what errors call the page."""

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise UserError(f"{name}: no table is called {match[2]}; there are {', '.join(TABLES)}")
        records = read_records(str(ROOT / "results" / f"{TABLES[match[2]].file}.jsonl"))
        return match[1] + TABLES[match[2]].render(records) + match[3]

    begun = len(re.findall(r"^<!-- table: ", page, re.MULTILINE))
    page, found = re.subn(r"^(<!-- table: (\S+) -->\n)(?s:.*?)^(<!-- /table -->)$", table, page, flags=re.MULTILINE)
    if found != begun:
        raise UserError(f"{name}: {begun} tables begin, {found} end; close each with <!-- /table -->")
    return page


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is not up to date")
    check = parser.parse_args().check
    for name in PAGES:
        path = str(ROOT / name)
        page = read_text(path)
        new = rendered(page, name)
        if new != page and check:
            raise UserError(f"{name}: its tables differ from results/; run python scripts/leaderboard.py")
        if new != page:
            write_text(path, new)
            print(f"Written: {name}")


if __name__ == "__main__":
    exit_on_user_error(main)
