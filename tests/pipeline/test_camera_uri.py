"""Camera URIs: what is understood, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline.capture.base import Source
from skrd4ad.pipeline.capture.uri import CameraUri, open_source, parse_uri, values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", CameraUri("device", "0")),
        ("/dev/video2", CameraUri("device", "/dev/video2")),
        (
            "/dev/v4l/by-id/usb-X?width=1280&fps=30",
            CameraUri("device", "/dev/v4l/by-id/usb-X", {"width": "1280", "fps": "30"}),
        ),
        ("file:a,b=c.mp4?pace=true", CameraUri("file", "a,b=c.mp4", {"pace": "true"})),
        ("dir:/x=y/parts", CameraUri("dir", "/x=y/parts")),
        ("test:", CameraUri("test", "")),
        (
            "test:seed=1,defect=0.1",
            CameraUri("test", "", {"seed": "1", "defect": "0.1"}),
        ),
        ("rtsp://u:p@h:554/a?b=c", CameraUri("rtsp", "rtsp://u:p@h:554/a?b=c")),
        ("side=http://h/v.mjpg", CameraUri("http", "http://h/v.mjpg", {}, "side")),
        ("top=0", CameraUri("device", "0", {}, "top")),
        ("left-1=dir:p?pace_hz=5", CameraUri("dir", "p", {"pace_hz": "5"}, "left-1")),
    ],
)
def test_uris_are_taken_apart(text: str, expected: CameraUri) -> None:
    assert parse_uri(text) == expected
    assert isinstance(open_source(parse_uri(text)), Source)


def test_option_values_become_numbers() -> None:
    assert values(parse_uri("test:seed=3,defect=0.25,rate=12.5,count=9,size=128,bank=4")) == {
        "seed": 3,
        "defect": 0.25,
        "rate": 12.5,
        "count": 9,
        "size": 128,
        "bank": 4,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("tset:seed=1", "scheme 'tset:' is not known"),
        ("test:sed=1", "key 'sed' is not known"),
        ("test:defect=2", "'2' is not a possible value of 'defect'"),
        ("test:count=0", "'0' is not a possible value of 'count'"),
        ("test:rate=nan", "'nan' is not a possible value of 'rate'"),
        ("test:seed=1,seed=2", "given twice"),
        ("test:seed", "not of the form key=value"),
        ("dir:", "names no path"),
        ("file:a.mp4?pace=perhaps", "'perhaps' is not a possible value of 'pace'"),
        ("device:0", "scheme 'device:' is not known"),
        ("parts", "has no scheme"),
        ("rtsp:host", "names no host"),
    ],
)
def test_a_wrong_uri_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_uri(text)
    assert "\n" not in caught.value.sentence


def test_the_nearest_known_word_is_named() -> None:
    with pytest.raises(ConfigError) as scheme:
        parse_uri("tset:seed=1")
    assert "did you mean 'test:'?" in scheme.value.hint
    with pytest.raises(ConfigError) as key:
        parse_uri("test:defct=0.1")
    assert "did you mean 'defect='?" in key.value.hint


def test_a_bare_folder_is_told_its_scheme(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri(str(tmp_path))
    assert f"dir:{tmp_path}" in caught.value.hint
