"""An IP camera as a process of its own: `python rtsp_camera.py PORT FPS [jpeg]`.

GStreamer's RTSP server sends H.264 (or motion JPEG) whose every frame carries the barcode clock,
by time.monotonic, at rtsp://127.0.0.1:PORT/cam. Prints "running" when it can be asked.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from types import TracebackType

from camera_process import CameraProcess
from free_ports import free_port

SIZE = (320, 240)


class RtspCamera(CameraProcess):
    """Starts, kills, stops and continues it."""

    def __init__(self, fps: float, kind: str = "h264") -> None:
        super().__init__(__file__, "the RTSP server")
        self.fps, self._kind = fps, kind
        self.period_ms = 1000 / fps
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        self.launch(self.port, self.fps, self._kind)

    def __enter__(self) -> RtspCamera:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        self.kill()


class SlowNetwork:
    """A TCP connection to `port` that can hold back what comes, as a network does."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = threading.Event()
        self._flows.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, seconds: float) -> None:
        """Nothing passes towards the client; then all of it comes at once."""
        self._flows.clear()
        threading.Timer(seconds, self._flows.set).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                camera = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                return
            for source, sink, held in ((client, camera, False), (camera, client, True)):
                arguments = (source, sink, held)
                threading.Thread(target=self._carry, args=arguments, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, held: bool) -> None:
        source.settimeout(None)
        try:
            while data := source.recv(65536):
                if held:
                    self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            one.close()


def _main(port: str, fps: float, kind: str) -> None:
    import gi
    import numpy as np
    from skrd4ad.pipeline.capture import barcode

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    width, height = SIZE
    encoder = {
        "h264": f"x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=3000 "
        f"key-int-max={round(fps)} ! rtph264pay name=pay0 pt=96 config-interval=1",
        "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
    }[kind]
    launch = (
        f"( appsrc name=frames is-live=true format=time do-timestamp=true caps=video/x-raw,"
        f"format=GRAY8,width={width},height={height},framerate={round(fps)}/1 ! videoconvert ! "
        f"video/x-raw,format=I420 ! {encoder} )"
    )
    began = time.monotonic()

    def need(source: object, length: int) -> None:
        period = 1 / fps
        time.sleep(period - (time.monotonic() - began) % period)
        now = time.monotonic()
        # Not the grey of the code: a decoder's rounding must not decide.
        image = np.full((height, width), 128, np.uint8)
        barcode.draw(image, int(now * 1000), round((now - began) * fps))
        source.emit("push-buffer", Gst.Buffer.new_wrapped(image.tobytes()))

    def configure(factory: object, media: object) -> None:
        media.get_element().get_by_name("frames").connect("need-data", need)

    server = GstRtspServer.RTSPServer()
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    print("running", flush=True)
    loop.run()


if __name__ == "__main__":
    _main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
