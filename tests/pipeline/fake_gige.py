"""Aravis' fake GigE Vision camera as a process of its own: `python fake_gige.py SERIAL [LOST]`.

LOST is how many of 1000 image packets are thrown away. Prints "running" when it answers. Only one
can run on a machine (its UDP port is fixed), so tests take turns by a lock file.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from camera_process import CameraProcess

ADDRESS, PORT = "127.0.0.1", 3956
TICKS_PER_S = 100.0
"""How often the fake camera looks whether it was triggered; two triggers in one tick are one."""


class FakeGige(CameraProcess):
    """Starts, kills, stops and continues the camera."""

    def __init__(self, serial: str = "GV01") -> None:
        super().__init__(__file__, "the fake camera")
        self.serial = serial
        self.uri = f"aravis:{ADDRESS}"

    def start(self, lost_per_mille: int = 0) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # A second one would start too, and nobody could say which of them answers.
            probe.bind((ADDRESS, PORT))
        self.launch(self.serial, lost_per_mille)


@contextlib.contextmanager
def the_only_one(limit_s: float = 90) -> Iterator[FakeGige]:
    """A started camera, while no other test process of this machine has one."""
    with (Path(tempfile.gettempdir()) / "skrd4ad-fake-gige.lock").open("w") as lock:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "another test run keeps the fake camera"
                time.sleep(0.05)
        camera = FakeGige()
        camera.start()
        try:
            yield camera
        finally:
            camera.kill()


def _main(serial: str, lost_per_mille: int) -> None:
    import gi

    gi.require_version("Aravis", "0.8")
    from gi.repository import Aravis

    camera = Aravis.GvFakeCamera(
        interface_name=ADDRESS, serial_number=serial, gvsp_lost_ratio=lost_per_mille / 1000
    )
    if not camera.is_running():
        raise SystemExit("UDP port 3956 of the loopback interface is in use")
    camera.get_fake_camera().set_trigger_frequency(TICKS_PER_S)
    print("running", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
