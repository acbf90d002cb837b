"""IP cameras: OpenCV's real FFmpeg reader against a motion-JPEG server that stalls and dies.

The grey level of a frame is its number, so a frame of the past gives itself away.
"""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.capture.network import NetworkSource
from skrd4ad.redaction import redacted

PERIOD_S = 0.04


class MotionJpeg:
    """A camera of 25 frames a second; `stall_s` holds frames back as a network does: they are
    made in time and arrive late, all at once."""

    def __init__(self) -> None:
        camera = self
        self.closing = threading.Event()
        self.made = 0
        self.stall_at: int | None = None
        self.stall_s = 0.0
        self.connections = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=x")
                self.end_headers()
                try:
                    camera.play(self.wfile)
                except OSError:
                    return

            def log_message(self, *arguments: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://user:secret@127.0.0.1:{self.server.server_port}/video.mjpg"

    def play(self, out: object) -> None:
        began, sent = time.monotonic(), 0
        held_until = 0.0
        while not self.closing.is_set():
            due = int((time.monotonic() - began) / PERIOD_S)
            if self.stall_at is not None and due >= self.stall_at:
                self.stall_at, held_until = None, time.monotonic() + self.stall_s
            if time.monotonic() < held_until or due <= sent:
                time.sleep(0.005)
                continue
            sent += 1
            self.made = sent
            ok, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), sent % 256, np.uint8))
            assert ok
            head = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            out.write(head.encode() + jpeg.tobytes() + b"\r\n")  # type: ignore[attr-defined]

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def camera() -> Iterator[MotionJpeg]:
    made = MotionJpeg()
    yield made
    made.close()


def frames(source: NetworkSource, count: int) -> list[int]:
    levels = []
    deadline = time.monotonic() + 60
    while len(levels) < count and time.monotonic() < deadline:
        shot = source.grab(0.1)
        if shot is not None:
            assert shot.pixels is not None
            assert shot.pixels.shape == (48, 64, 3)
            levels.append(round(float(shot.pixels.mean())))
    return levels


def test_frames_arrive_in_order_and_in_time(camera: MotionJpeg) -> None:
    source = NetworkSource(camera.url)
    source.open()
    source.configure()
    levels = frames(source, 10)
    source.close()
    assert len(levels) == 10
    assert levels == sorted(set(levels))


def test_what_a_stall_held_back_is_thrown_away(camera: MotionJpeg) -> None:
    camera.stall_at, camera.stall_s = 30, 1.2
    source = NetworkSource(camera.url, read_timeout_ms=5000)
    source.open()
    source.configure()
    ages = []
    deadline = time.monotonic() + 60
    while source.flushed < 10 and time.monotonic() < deadline:
        source.grab(0.1)
    for _ in range(5):
        levels = frames(source, 1)
        ages.append(camera.made - levels[0])
    source.close()
    # 1.2 s of stall hold 30 frames back. None of them comes through; what comes is live.
    assert source.flushed >= 10
    assert sorted(ages)[len(ages) // 2] <= 5


def test_a_silent_stream_is_an_error_after_the_time_limit_and_opens_again(
    camera: MotionJpeg,
) -> None:
    camera.stall_at, camera.stall_s = 10, 30.0
    source = NetworkSource(camera.url, open_timeout_ms=20_000, read_timeout_ms=500)
    source.open()
    source.configure()
    began = time.monotonic()
    with pytest.raises(CameraError, match="no frame within 500 ms") as caught:
        frames(source, 1000)
    assert time.monotonic() - began < 10
    assert "secret" not in str(caught.value)
    source.close()
    source.open()
    source.configure()
    assert len(frames(source, 3)) == 3
    source.close()
    assert camera.connections == 2


def test_a_camera_that_is_off_is_an_error_without_its_password(camera: MotionJpeg) -> None:
    camera.close()
    source = NetworkSource(camera.url, open_timeout_ms=1000)
    with pytest.raises(CameraError, match="cannot be opened") as caught:
        source.open()
    assert "secret" not in caught.value.sentence
    assert "***@127.0.0.1" in caught.value.sentence


def test_passwords_are_taken_out_of_any_address() -> None:
    assert redacted("rtsp://user:p4ss@host:554/x") == "rtsp://***@host:554/x"
    assert redacted("http://host/x") == "http://host/x"
