"""What the line and its archive process say to each other over a socket pair. Lengths, then bytes.

    line -> process    hello (limits), then parts, each answered; at the end finish(n) and n parts
    process -> line    one Answer to every message

Both ends are our own code on one computer, of one version; a broken stream means a dead peer.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from ..built_types import built
from .archive_store import ArchivedPart, Limits

_LENGTH = struct.Struct("<IQQQ")
"""Bytes of the head, the event, the pixels and the map."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first piece of every message of the line."""

    kind: Literal["hello", "part", "finish"]
    root: str = ""
    limits: Limits | None = None
    camera: str = ""
    seq: int = 0
    boot: str = ""
    captured_ns: int = 0
    pixels_shape: tuple[int, ...] | None = None
    map_shape: tuple[int, ...] | None = None
    map_to_image: tuple[float, float, float, float, float, float] | None = None
    count: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message; `error` is "" when it was done."""

    error: str = ""
    written_bytes: int = 0
    removed_parts: int = 0


def send_head(link: socket.socket, head: Head) -> None:
    """Send a message without a part."""
    _send(link, head, ())


def send_part(link: socket.socket, part: ArchivedPart) -> None:
    """Send a part; the arrays go out as they lie in memory. Raises OSError for a dead peer."""
    pixels = None if part.pixels is None else np.ascontiguousarray(part.pixels)
    values = None if part.anomaly_map is None else np.ascontiguousarray(part.anomaly_map)
    head = Head(
        kind="part",
        camera=part.camera,
        seq=part.seq,
        boot=part.boot,
        captured_ns=part.captured_ns,
        pixels_shape=None if pixels is None else pixels.shape,
        map_shape=None if values is None else values.shape,
        map_to_image=part.map_to_image,
    )
    arrays = [b"" if array is None else array.data.cast("B") for array in (pixels, values)]
    _send(link, head, (part.event, *arrays))


def receive(link: socket.socket) -> tuple[Head, ArchivedPart | None]:
    """The next message, with its part if it is one. Raises EOFError at the end of the stream."""
    head_bytes, *lengths = _LENGTH.unpack(_exactly(link, _LENGTH.size))
    head = msgspec.json.decode(_exactly(link, head_bytes), type=built(Head))
    event, pixels, values = (_exactly(link, length) for length in lengths)
    if head.kind != "part":
        return head, None
    return head, ArchivedPart(
        camera=head.camera,
        seq=head.seq,
        boot=head.boot,
        captured_ns=head.captured_ns,
        event=bytes(event),
        pixels=(
            None
            if head.pixels_shape is None
            else np.frombuffer(pixels, np.uint8).reshape(head.pixels_shape)
        ),
        anomaly_map=(
            None
            if head.map_shape is None
            else np.frombuffer(values, np.float32).reshape(head.map_shape)
        ),
        map_to_image=head.map_to_image,
    )


def send_answer(link: socket.socket, answer: Answer) -> None:
    """Answer the last message."""
    raw = msgspec.json.encode(answer)
    link.sendall(struct.pack("<I", len(raw)) + raw)


def receive_answer(link: socket.socket) -> Answer:
    """The answer to the last message. Raises EOFError or OSError (TimeoutError) for a dead peer."""
    (length,) = struct.unpack("<I", _exactly(link, 4))
    return msgspec.json.decode(_exactly(link, length), type=built(Answer))


def _send(link: socket.socket, head: Head, blobs: Sequence[bytes | memoryview]) -> None:
    raw = msgspec.json.encode(head)
    lengths = [len(blob) for blob in blobs] or [0, 0, 0]
    link.sendall(_LENGTH.pack(len(raw), *lengths) + raw)
    for blob in blobs:
        link.sendall(blob)


def _exactly(link: socket.socket, count: int) -> bytearray:
    buffer = bytearray(count)
    view, got = memoryview(buffer), 0
    while got < count:
        received = link.recv_into(view[got:])
        if received == 0:
            raise EOFError("the other end is gone")
        got += received
    return buffer
