"""Fetch past events of a box from its journal: all of them, a range, or the results of one part.

Prints one line per event, or with --json one JSON header per line and nothing else; --record keeps
them as `listen` does.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import ConfigError
from .listen_view import TABLE_HEAD, event_line
from .recording import Recording
from .replay import ReplayClient, replay_client
from .security import add_key_arguments, client_keys
from .wire import Message

_LAST = 2**63 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect", default="tcp://127.0.0.1:5557", metavar="URL", help="the replay endpoint"
    )
    parser.add_argument("--from", dest="first", type=int, metavar="SEQ", help="first number")
    parser.add_argument("--to", dest="last", type=int, metavar="SEQ", help="last number")
    parser.add_argument("--part", metavar="ID", help="only the results of this part")
    parser.add_argument("--json", action="store_true", help="one JSON header per event on stdout")
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep the events in a folder")
    parser.add_argument(
        "--wait-s", type=float, default=5.0, metavar="S", help="how long to wait for an answer"
    )
    add_key_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    first = 0 if arguments.first is None else arguments.first
    last = _LAST if arguments.last is None else arguments.last
    if not 0 <= first <= last:
        raise ConfigError(f"--from {first} --to {last}: an empty range", "swap the two numbers")
    if arguments.part is not None and (arguments.first, arguments.last) != (None, None):
        raise ConfigError("--part goes without --from and --to", "leave them out")
    keys = client_keys(arguments.key, arguments.server_key)
    count = 0
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(replay_client(arguments.connect, keys))
        state, _ = client.snapshot(arguments.wait_s)
        recording = None
        if arguments.record is not None:
            recording = stack.enter_context(Recording(arguments.record))
        if not arguments.json:
            print(TABLE_HEAD)
        for message in _events(client, arguments, first, last):
            count += 1
            if arguments.json:
                sys.stdout.buffer.write(msgspec.json.encode(message.header) + b"\n")
            else:
                print(event_line(message))
            if recording is not None:
                recording.add(message)
    print(
        f"{count} events of {state.box}; its journal has {state.oldest} to {state.newest}",
        file=sys.stderr,
    )
    return 0


def _events(
    client: ReplayClient, arguments: argparse.Namespace, first: int, last: int
) -> Iterator[Message]:
    if arguments.part is not None:
        return iter(client.of_part(arguments.part, arguments.wait_s))
    return client.events(first, last, arguments.wait_s)
