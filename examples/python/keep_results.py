"""Every result into a CSV file, also those that were lost on the way.

`python keep_results.py tcp://HOST:5555 tcp://HOST:5557 results.csv`
"""

import csv
import sys

from skrd4ad.pipeline.subscriber import Gone, Replayed, Subscriber
from skrd4ad.pipeline.wire import ResultMessage

events, replay, path = sys.argv[1:]
with open(path, "a", newline="") as file, Subscriber(events, replay=replay) as stream:
    rows = csv.writer(file)
    for item in stream.items():
        message = item.message if isinstance(item, Replayed) else item
        if isinstance(message, ResultMessage):
            part = message.header
            rows.writerow([part.seq, part.frame.t_cap, part.cam, part.part.id, part.verdict])
            file.flush()
        elif isinstance(item, Gone):
            print(f"events {item.gap.first} to {item.gap.last} are gone", file=sys.stderr)
