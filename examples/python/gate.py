"""A reject gate in Python: `python gate.py tcp://127.0.0.1:5555 [server.key press3.secret]`.

Passes a part only while the stream is alive, fresh, contiguous and valid (docs/wire.md, section 5).
Replace `pass_part`, `reject_part` and `stop_feeder` with your outputs. For a gate that must answer
within a few milliseconds take examples/c or examples/csharp.
"""

import sys
from pathlib import Path

from skrd4ad.pipeline.security import ClientKeys
from skrd4ad.pipeline.stream_check import StreamStatus
from skrd4ad.pipeline.subscriber import Item, Subscriber
from skrd4ad.pipeline.wire import ResultMessage


def pass_part(seq: int) -> None:
    print(seq, "PASS", flush=True)


def reject_part(seq: int) -> None:
    print(seq, "REJECT", flush=True)


def stop_feeder(status: StreamStatus) -> None:
    print("GO" if status.ok else "STOP", flush=True)


def on_item(item: Item, status: StreamStatus) -> None:
    if isinstance(item, ResultMessage):
        part = item.header
        good = status.ok and part.verdict == "ok" and not part.frame.late
        (pass_part if good else reject_part)(part.seq)


if __name__ == "__main__":
    keys = None
    if len(sys.argv) == 4:
        keys = ClientKeys.read(secret=Path(sys.argv[3]), server=Path(sys.argv[2]))
    with Subscriber(sys.argv[1], keys=keys) as stream:
        stream.run(on_item, stop_feeder)
