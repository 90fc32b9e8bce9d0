"""The event file that client/src/training/tensorboard.rs is compared with, byte for byte, made by
TensorBoard's own record writer and messages.

Run from the top of the repository:

    python -m venv oracle && oracle/bin/pip install tensorboard
    oracle/bin/python examples/oracle/tensorboard_events.py            # writes the golden file
    oracle/bin/python examples/oracle/tensorboard_events.py FOLDER     # reads a folder of ours back
"""

import sys
from pathlib import Path

import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "client/tests/golden/events.out.tfevents.golden"


def scalars(values):
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])


def main():
    if len(sys.argv) > 1:
        events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            points = events.Scalars(tag)
            print(f"{tag}: {len(points)} values, step {points[0].step} {points[0].value:.6f} "
                  f"to step {points[-1].step} {points[-1].value:.6f}")
        return
    start = 1_700_000_000.25
    written = [
        Event(wall_time=start, file_version="brain.Event:2"),
        Event(wall_time=start + 1.5, step=1, summary=scalars([("train/loss", 2.5), ("train/learning_rate", 2e-4)])),
        Event(wall_time=start + 2.0, step=300, summary=scalars([("eval/loss", 1 / 3)])),
        Event(wall_time=start + 1e6, step=70_000, summary=scalars([("train/loss", -1e-30), ("train/grad_norm", 1e30)])),
    ]
    with open(GOLDEN, "wb") as file:
        writer = RecordWriter(file)
        for event in written:
            writer.write(event.SerializeToString())
        writer.flush()
    read = EventAccumulator(str(GOLDEN)).Reload()
    print(f"tensorboard {tensorboard.__version__}: {GOLDEN.stat().st_size} bytes, {read.Tags()['scalars']}")


if __name__ == "__main__":
    main()
