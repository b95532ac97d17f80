#!/usr/bin/env bash
# A run that is resumed keeps the points it was told to purge if the file names sort the other way round.
#
# Versions    tensorboard 2.21.0 (event files as torch.utils.tensorboard.SummaryWriter names them, too)
# Prediction  written before the run: "second with purge_step=500 where the first went to 700: points 500..699 appear
#             once, from the second file, also when the second file was begun in the same second as the first"
# Output      processes 1000 and 2000: 800 points, in order. Processes 9999 and 10000: 1,000 points; steps 500 to 799 of
#             the resumed run come first, then 0 to 699 of the first run, so 500 to 699 are there twice.
#             TensorBoard's page (with its data server) shows 700 points: none of the resumed run, steps 700 to 799
#             missing.
# Cause       Files are read in the order of their names, as text: events.out.tfevents.SECOND.HOST.PID.NUMBER. "10000"
#             sorts before "9999". The same happens if the second machine's clock is behind the first one's.
# Remedy      Start the resumed run's file in a later second than every file in the folder.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet tensorboard==2.21.0 numpy==2.4.6 setuptools==80.9.0
"$dir/venv/bin/python" - "$dir" <<'PY'
import logging
import sys
from unittest.mock import patch

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

logging.disable(logging.WARNING)


def write(folder, pid, steps, purge_step=None):
    """Points of one process, all processes in the same second."""
    with patch("os.getpid", return_value=pid), patch("time.time", return_value=1.8e9):
        writer = EventFileWriter(folder)
    if purge_step is not None:  # as SummaryWriter(purge_step=...) does
        writer.add_event(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
    for step in steps:
        loss = Summary(value=[Summary.Value(tag="loss", simple_value=1)])
        writer.add_event(Event(step=step, wall_time=step, summary=loss))
    writer.close()


def resumed(first, second):
    """The steps that are shown when process `second` resumes at step 500 what process `first` brought to 700."""
    folder = f"{sys.argv[1]}/{first}"
    write(folder, first, range(700))
    write(folder, second, range(500, 800), purge_step=500)
    reader = EventAccumulator(folder)
    reader.Reload()
    return [event.step for event in reader.Scalars("loss")]


expected, swapped = resumed(1000, 2000), resumed(9999, 10000)
for name, steps in (("1000, then 2000", expected), ("9999, then 10000", swapped)):
    print(f"processes {name}: {len(steps)} points, in order: {steps == sorted(steps)}, first step {steps[0]}")
sys.exit(0 if expected == [*range(800)] and swapped == [*range(500, 800), *range(700)] else "the behavior has changed")
PY
