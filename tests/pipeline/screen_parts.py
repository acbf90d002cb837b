"""A real box and a real page for the tests of the operator's page, joined over real sockets."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.records import Defect, Latency, Part, Result, Verdict
from skrd4ad.pipeline.screen.access import Access
from skrd4ad.pipeline.screen.api import Site
from skrd4ad.pipeline.screen.boxes import Box, Endpoints
from skrd4ad.pipeline.screen.changes import Changes
from skrd4ad.pipeline.screen.live import LiveView
from skrd4ad.pipeline.screen.region_desk import RegionDesk
from skrd4ad.pipeline.screen.web_server import PageServer
from skrd4ad.pipeline.wire_picture import Picture, encode_jpeg

PATIENCE_S = 60.0
WIDTH, HEIGHT = 96, 64
"""Of the captured images; a map has half of that each way."""
SCORES = {Verdict.OK: 0.25, Verdict.REVIEW: 0.55, Verdict.NG: 0.9, Verdict.ERR: float("nan")}


def result(number: int, verdict: Verdict = Verdict.OK, **changes: Any) -> Result:
    """A part whose map has its peak, the score, over the pixels 8 to 15 each way."""
    score = changes.pop("score", SCORES[verdict])
    values = np.full((HEIGHT // 2, WIDTH // 2), 0.1, np.float32)
    values[8:16, 8:16] = score
    defect = Defect("image", score, 0.5, 256, (16, 16, 16, 16), (18, 18))
    whole = {
        "camera": "cam0",
        "camera_seq": number,
        "frame_id": number,
        "captured_ns": time.time_ns(),
        "captured_mono_ns": time.monotonic_ns(),
        "captured_source": "file",
        "captured_error_ns": 0,
        "part": Part(),
        "name": f"{number}.png",
        "verdict": verdict,
        "reasons": () if verdict is Verdict.OK else ("score",),
        "evaluated": verdict is not Verdict.ERR,
        "score": score,
        "threshold": 0.5,
        "defects": (defect,) if verdict in (Verdict.NG, Verdict.REVIEW) else (),
        "latency": Latency(),
        "anomaly_map": None if verdict is Verdict.ERR else values,
        "map_to_image": (2.0, 0.0, 0.5, 0.0, 2.0, 0.5),
    }
    return Result(**(whole | changes))


def header(number: int, verdict: str = "ok", **changes: Any) -> fields.ResultHeader:
    """A result as it comes from the wire."""
    score = changes.pop("score", SCORES[Verdict(verdict)])
    whole: dict[str, Any] = {
        "v": fields.PROTOCOL,
        "box": "edge07",
        "boot": "0123456789abcdef",
        "seq": number,
        "cam": "cam0",
        "cam_seq": number,
        "part": fields.PartFields(id=None, trigger_seq=None, source="none", match="none"),
        "frame": fields.FrameFields(
            id=number, t_cap=number * 10**9, t_cap_src="file", t_cap_err_ns=0, late=False
        ),
        "t_pub": number * 10**9,
        "mono_cap": number * 10**9,
        "mono_pub": number * 10**9,
        "verdict": verdict,
        "reason": () if verdict == "ok" else ("score",),
        "score": None if verdict == "err" else score,
        "thr": 0.5,
        "evaluated": verdict != "err",
        "regions": (),
        "n_regions": 0,
        "lat_us": fields.LatencyFields(
            cap=0, queue=0, pre=0, infer=0, post=0, pub=0, total=1000 * number
        ),
        "model": fields.ModelFields(thr_rev=changes.pop("revision", 1)),
        "drops": fields.DropFields(since_boot=0, since_last=0),
        "counts": fields.CountFields(ok=number),
        "sim": False,
        "map": fields.MapReference(seq=number, avail=False),
    }
    return fields.ResultHeader(**(whole | changes))


def picture(seq: int, camera: str = "cam0", grey: int = 128) -> Picture:
    """What the camera saw, at half the size."""
    pixels = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
    jpeg, (height, width), scale = encode_jpeg(pixels, WIDTH // 2, 80)
    return Picture(camera, seq, time.time_ns(), jpeg, height, width, scale)


class AskedLine:
    """A line that writes down what it is asked; see control_port.LineControl."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def trigger(self, camera: str, part_id: str | None) -> int:
        raise AssertionError("the page never triggers")

    def set_threshold(self, camera: str, region: str, value: float, who: str) -> int:
        self.asked.append(("threshold", camera, region, value, who))
        return 7

    def reload_plan(self, camera: str, path: str) -> str:
        raise AssertionError("the page never reloads")

    def resync(self, camera: str) -> None:
        raise AssertionError("the page never resyncs")

    def drain(self) -> None:
        raise AssertionError("the page never drains")


class Page:
    """A page being served; `close` ends it."""

    def __init__(
        self,
        endpoints: Sequence[Endpoints],
        access: Access | None = None,
        desk: RegionDesk | None = None,
        listen: str = "127.0.0.1:0",
        tls: Any = None,
    ) -> None:
        self.failures: list[BaseException] = []
        self.changes = Changes()
        self.views = [LiveView(one.events, self.changes) for one in endpoints]
        self.boxes = tuple(
            Box(one, view, self.failures.append)
            for one, view in zip(endpoints, self.views, strict=True)
        )
        site = Site(self.boxes, access or Access(), self.changes, desk)
        self.server = PageServer(listen, site, tls)
        for box in self.boxes:
            box.open()
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        port = int(self.server.server_address[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request(
            method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        return connection.getresponse()

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        return self.ask("GET", path, **headers)

    def json(self, path: str, **headers: str) -> Any:
        answer = self.get(path, **headers)
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())

    def post(self, path: str, value: object, **headers: str) -> tuple[int, Any]:
        """(status, answer) of a POST as the page itself makes it."""
        headers = {"Origin": self.url.rstrip("/"), **headers}
        answer = self.ask("POST", path, json.dumps(value).encode(), **headers)
        return answer.status, json.loads(answer.read())

    def state(self) -> dict[str, Any]:
        """The first box's snapshot."""
        found: dict[str, Any] = self.json("/state.json")["boxes"][0]
        return found

    def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not holds(state := self.state()):
            assert time.monotonic() < deadline, state
            assert not self.failures, self.failures
            time.sleep(0.02)
        return state

    def close(self) -> None:
        self.changes.close()
        for box in self.boxes:
            box.close()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(PATIENCE_S)
