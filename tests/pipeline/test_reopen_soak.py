"""The way of a failing camera is the one that leaks: opened and closed again and again."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import psutil
import pytest
from skrd4ad.pipeline.capture.uri import open_source, parse_uri

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def check_reopens(
    uri: str, times: int, before_close: Callable[[object], None] = lambda source: None
) -> None:
    """Descriptors, threads and memory after a few rounds and after all of them."""
    source, process = open_source(parse_uri(uri)), psutil.Process()
    seen = []
    for _ in range(times):
        source.open()
        source.configure()
        for _ in range(100):
            if source.grab(0.1) is not None:
                break
        before_close(source)
        source.close()
        rss_mb = process.memory_info().rss / 1e6
        seen.append((process.num_fds(), process.num_threads(), rss_mb))
    early, late = seen[5], seen[-1]
    print(f"\n{uri.partition(':')[0]}: {early} -> {late} after {times} reopens")
    # A handle that winds up in the background may be there or not; ten must not be.
    assert late[0] <= early[0] + 6
    assert late[1] <= early[1] + 4
    assert late[2] <= early[2] + 8


def test_a_gige_camera(gige: ModuleType) -> None:
    with gige.the_only_one() as fake:
        uri = f"{fake.uri}?fps=100&width=512&height=512"
        check_reopens(uri, 100)
        check_reopens(uri, 20, lambda source: source._lost.set())


def test_gstreamer(gstreamer: None) -> None:
    check_reopens("gst:videotestsrc is-live=true ! video/x-raw,width=640,height=480", 200)


@pytest.mark.parametrize("kind", ["jpeg", "h264"])
def test_an_ip_camera(rtsp: ModuleType, kind: str) -> None:
    with rtsp.RtspCamera(20, kind) as camera:
        check_reopens(camera.url, 30)
