"""`csi:` - a camera on a Jetson's CSI connector, as the pipeline NVIDIA's driver wants. Pure."""

from __future__ import annotations


def csi_pipeline(
    sensor: int, width: int = 1920, height: int = 1080, fps: float = 30.0, flip: int = 0
) -> str:
    """From the sensor through the ISP (in NVMM memory) to BGRx frames in ordinary memory.

    `fps` becomes a fraction: 29.97 is asked for as 2997/100.
    """
    numerator, denominator = round(fps * 100), 100
    if numerator % 100 == 0:
        numerator, denominator = numerator // 100, 1
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},"
        f"framerate={numerator}/{denominator},format=NV12 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx"
    )
