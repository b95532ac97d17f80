#!/usr/bin/env bash
# One flipped byte in an event file hides all points after it in that file; EventAccumulator says nothing.
#
# Versions    tensorboard 2.21.0
# Prediction  written before the run: "one byte flipped in the middle of 1,000 points: that point is lost, all others
#             are read", because each record has its own length and checksums, so the next record can be found
# Output      steps 0 to 498 of 0 to 999 are read; 501 points are lost. Points of a second file (a resumed run) are
#             read.
#             TensorBoard's page shows the same; its data server prints a warning in the terminal.
# Cause       A wrong checksum is treated like the end of a file that is still being written: the reader waits there.
# Remedy      The records after the damage are intact: skip the bad one by its length (8 bytes, then 4 of checksum, the
#             data, 4).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet tensorboard==2.21.0 numpy==2.4.6 setuptools==80.9.0
"$dir/venv/bin/python" - "$dir/run" <<'PY'
import struct
import sys
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

folder = Path(sys.argv[1])


def write(steps):
    writer = EventFileWriter(str(folder))
    for step in steps:
        loss = Summary(value=[Summary.Value(tag="loss", simple_value=1)])
        writer.add_event(Event(step=step, wall_time=step, summary=loss))
    writer.close()


def read():
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return [event.step for event in reader.Scalars("loss")]


write(range(1000))
assert read() == list(range(1000))
file = next(folder.iterdir())
data, start = bytearray(file.read_bytes()), 0
for _ in range(500):  # records: length (8 bytes), checksum (4), data, checksum (4); the first one holds the version
    start += 16 + struct.unpack("<Q", data[start : start + 8])[0]
data[start + 12] ^= 1  # in the data of the point of step 499
file.write_bytes(data)
time.sleep(1.1)  # so that the second file's name, which holds the second, comes later
write(range(1000, 1200))
steps = read()
first = [step for step in steps if step < 1000]
print(f"of steps 0 to 999, one damaged, {len(first)} points are read, the last of step {first[-1]}")
print(f"of the second file's 200 points {len(steps) - len(first)} are read")
sys.exit(0 if steps == [*range(499), *range(1000, 1200)] else "the behavior has changed")
PY
