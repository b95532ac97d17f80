"""The records in results/: one JSON object per line, one line per run, oldest first. RUN and TIMING name the keys."""

import errno
import json
import os
import platform
import re
import sys
from datetime import date, datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cli import UserError
from files import file_hash, read_bytes, read_text, writing
from recipe import RECIPES, VARIANTS

Record = dict[str, Any]

STATUSES = ("ok", "superseded", "stopped", "failed")

# keys that every record has, with the types of their values; None stands for what is not known or does not apply
COMMON = {
    "date": str,  # YYYY-MM-DD
    "commit": str | None,
    "machine": str | None,  # its kind, then its processor: "2 CPU cores (AMD EPYC, Zen 5)"
    "experiment": str,  # the script or command that measured it
    "command": str | None,  # as it was run at that commit; COURSE is the folder of the course's files
    "variant": str | None,
    "bottleneck_dim": int | None,
    "precision": str | None,
    "corpus": str | None,  # docs/results.md lists them
    "measured": dict,  # whatever has no key of its own
    "status": str,
    "note": str | None,
}
# a training, in runs.jsonl, ablations.jsonl and sweep.jsonl
RUN = COMMON | {
    "recipe": str | None,
    "changed": dict,  # settings that differ from the recipe of that name
    "settings": dict | None,  # all settings of the recipe, with the changed ones
    "seed": int | None,
    "sha256": dict | None,  # of each data file, the first 12 digits
    "seconds": dict,  # those timed: pretrain, finetune, evaluate, total, to_10_percent, to_25_percent, to_85_percent
    "correct": int | None,
    "asked": int | None,
    "curve": list | None,  # [epoch, percent correct] during pretraining
    "loss_curve": list | None,  # [epoch, loss]
}
# a measurement of benchmarks/speed.py or scripts/gpu.py, in speed.jsonl
TIMING = COMMON | {"implementation": str}  # ours, plain, or that of a library


def fields_of(path: str) -> dict[str, Any]:
    """The keys of the records in that file, with their types."""
    return TIMING if Path(path).stem == "speed" else RUN


def problem_with(record: Any, fields: dict[str, Any]) -> str | None:
    """What is wrong with a record, or None."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if missing := [name for name in fields if name not in record]:
        return f"{missing[0]} is missing"
    for name, value in record.items():
        if name not in fields:
            return f"{name} is not a key of these records; put it into measured"
        if not isinstance(value, fields[name]) or isinstance(value, bool):
            return f"{name} has the wrong type"
    if not is_date(record["date"]):
        return "date is not YYYY-MM-DD"
    if not re.fullmatch(r"[0-9a-f]{7,40}", record["commit"] or "0000000"):
        return "commit is not the hash of a commit"
    known = {"status": STATUSES, "variant": (*VARIANTS, None), "recipe": (*RECIPES, None)}
    for name, values in known.items():
        if record.get(name) not in values:
            return f"{name} is {record[name]}, which is not known"
    return problem_with_run(record) if fields is RUN else None


def problem_with_run(record: Record) -> str | None:
    """What is wrong with values of a run that depend on each other, or None."""
    correct, asked = record["correct"], record["asked"]
    if (correct is None) != (asked is None) or not 0 <= (correct or 0) <= (asked or 0):
        return "correct and asked do not fit together"
    if not (record["settings"] or {}).items() >= record["changed"].items():
        return "changed is not part of settings"
    for name in ("curve", "loss_curve"):
        if not is_curve(record[name] or []):
            return f"{name} is not [[epoch, value], ...] with rising epochs"
    return None


def is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def is_curve(points: list) -> bool:
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(v, int | float) for v in p) for p in points):
        return False
    return all(earlier[0] < later[0] for earlier, later in pairwise(points))


def read_records(path: str) -> list[Record]:
    """The records of a file, in its order. Raises UserError, which names the line."""
    records = []
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg}); correct or remove the line") from None
        if problem := problem_with(record, fields_of(path)):
            raise UserError(f"{path}, line {number}: {problem}")
        records.append(record)
    return records


def append_record(path: str, record: Record) -> None:
    """Adds a record as the last line of a file, which is created if it does not exist. Raises UserError.

    `record` may leave out what is not known. Without a date it gets today's, without a status "ok". The line is written
    in one piece, so lines of scripts that run at the same time are not mixed.
    """
    fields = fields_of(path)
    empty = {name: {} if kind is dict else None for name, kind in fields.items()}
    known = {"date": datetime.now(timezone.utc).date().isoformat(), "status": "ok"}
    record = empty | known | record
    if problem := problem_with(record, fields):
        raise UserError(f"{path}: the record was not added: {problem}")
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise UserError(f"{path}: the record was not added: a number is not finite; give null") from None
    if os.path.exists(path) and read_bytes(path)[-1:] not in (b"", b"\n"):
        line = "\n" + line  # the last line was edited by hand, or cut off by a full disk
    with writing(f"{path}:"), open(path, "ab", buffering=0) as file:
        data = line.encode(errors="backslashreplace")  # bytes of the command that are not UTF-8: \udce9
        if file.write(data) < len(data):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


def sha256_of(*paths: str) -> dict[str, str]:
    """The value of `sha256`: for the name of each data file the first 12 digits of its hash. Raises UserError."""
    return {Path(path).name: file_hash(path)[:12] for path in paths}


def commit_and_note(commit: str, *notes: str) -> dict[str, str | None]:
    """These two values of a record, from what checkpoint.current_commit() said and what else is to be noted."""
    if commit.endswith("-dirty"):
        notes = ("with changes that were not committed", *notes)
    known = commit.removesuffix("-dirty") if commit != "unknown" else None
    return {"commit": known, "note": "; ".join(notes) or None}


def corpus_name(folder: Path) -> str:
    """What records call the text in this folder: that of the project is "embedded"."""
    folder = folder.resolve()
    return "embedded" if folder == Path(__file__).resolve().parents[1] else folder.name


def machine(device: Any = None) -> str:
    """The kind of this machine, or of this torch.device, then its processor: "2 CPU cores (AMD EPYC)"."""
    import torch

    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        return f"{torch.cuda.device_count()} GPU ({torch.cuda.get_device_name()})"
    return f"{torch.get_num_threads()} CPU cores ({processor()})"


def processor() -> str:
    """The name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
