"""Correction, regions and scale of a camera: in the line and in `inspect`, through one path."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import msgspec
import numpy as np
import pytest
import yaml
from skrd4ad import cli
from skrd4ad.calibration.board import Board
from skrd4ad.calibration.camera import (
    CameraModel,
    Plane,
    scale_at,
    store_camera,
    undistort_points,
)
from skrd4ad.calibration.correction import Correction
from skrd4ad.calibration.flatfield import estimate_flat_field, store_flat_field
from skrd4ad.calibration.part import part_template, store_part
from skrd4ad.calibration.regions import Region, Regions, store_regions
from skrd4ad.engine.backends.base import open_engine
from skrd4ad.engine.images import write_png
from skrd4ad.engine.plan import load_plan, replace_regions, replace_threshold
from skrd4ad.engine.spec import Roi
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline import stream
from skrd4ad.pipeline.admission import Ticket
from skrd4ad.pipeline.capture.base import Shot, frame_of
from skrd4ad.pipeline.clock import SYSTEM_CLOCK as CLOCK
from skrd4ad.pipeline.judge import judge, result_of
from skrd4ad.pipeline.records import Result, Verdict
from skrd4ad.pipeline.rulebook import Rulebook
from skrd4ad.pipeline.view import View, check_view
from skrd4ad.pipeline.wire_messages import ModelFields

HEIGHT, WIDTH = 240, 320
GREY = (124, 116, 104)
MM_PER_PX = 0.25
THRESHOLD = 0.7
BOX = Roi(x=84, y=54, width=70, height=132)
"""A part of the picture without the defect."""
Optics = Callable[[np.ndarray], np.ndarray]


def scene(defect: int = 22) -> np.ndarray:
    """A part with some structure on ImageNet's grey, which scores little, and a bright defect."""
    dice = np.random.default_rng(3)
    coarse = dice.integers(-22, 23, (12, 16, 1)) + np.zeros((12, 16, 3))
    texture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(np.array(GREY) + texture, 0, 255).astype(np.uint8)
    cv2.rectangle(picture, (100, 70), (220, 170), (78, 74, 66), 3)
    if defect:
        cv2.circle(picture, (180, 130), defect, (215, 205, 195), -1, cv2.LINE_AA)
    return picture


LENS = CameraModel(
    image_width=WIDTH,
    image_height=HEIGHT,
    focal_px=(300.0, 300.0),
    focal_sd_px=(0.1, 0.1),
    centre_px=((WIDTH - 1) / 2, (HEIGHT - 1) / 2),
    distortion=(-0.28, 0.06, 0.0, 0.0),
    rms_px=0.1,
    n_views=10,
    board=Board(kind="charuco", columns=9, rows=7, square_mm=20.0, marker_mm=15.0),
    plane=Plane(
        homography=(MM_PER_PX, 0.0, 0.0, 0.0, MM_PER_PX, 0.0, 0.0, 0.0, 1.0),
        mm_per_px=MM_PER_PX,
        residual_mm=0.0,
    ),
)


def through_lens(picture: np.ndarray) -> np.ndarray:
    """What a camera with this lens would take of the scene."""
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1).astype(np.float64)
    seen = undistort_points(grid.reshape(-1, 2), LENS).reshape(HEIGHT, WIDTH, 2)
    return cv2.remap(
        picture, seen.astype(np.float32), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def vignette() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - WIDTH / 2, y - HEIGHT / 2) / math.hypot(WIDTH / 2, HEIGHT / 2)
    # Redder to the left, darker to the rim.
    tint = np.stack([1.1 - 0.2 * x / WIDTH, np.ones_like(distance), np.ones_like(distance)], -1)
    falloff = (1 - 0.45 * distance**2)[..., None] * tint
    # The middle keeps its exposure, as a flat field keeps it.
    middle = falloff[HEIGHT // 4 : -(HEIGHT // 4), WIDTH // 4 : -(WIDTH // 4), 1]
    return falloff / np.median(middle)


def in_the_dark(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture * vignette()), 0, 255).astype(np.uint8)


def displaced(picture: np.ndarray) -> np.ndarray:
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 4.0, 1.0)
    turn[:, 2] += (9.3, -6.6)
    size = (WIDTH, HEIGHT)
    return cv2.warpAffine(
        picture, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


FIELD = estimate_flat_field([in_the_dark(np.full((HEIGHT, WIDTH, 3), 190, np.uint8))] * 3)


def part():  # type: ignore[no-untyped-def]
    return part_template(scene(defect=0), BOX)


@pytest.fixture(scope="module")
def plan(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan for which the scene without a defect is good. Copy it before changing it."""
    threshold = msgspec.structs.replace(tiny.THRESHOLD, value=THRESHOLD)
    path = tmp_path_factory.mktemp("plan") / "part.plan"
    return tiny.write_tiny_plan(path, size=128, threshold=threshold)


def inspected(plan_path: Path, view: View, picture: np.ndarray) -> Result:
    plan = load_plan(plan_path)
    assert plan.manifest.threshold is not None
    frame = frame_of(Shot(picture, 1, 1, "device"), "top", 1)
    with open_engine(plan) as engine:
        rulebook = Rulebook(plan.manifest.threshold, ModelFields())
        (one,) = judge(engine, rulebook, lambda camera: view, [Ticket(frame, 1)], CLOCK)
    return result_of(one, one.decision, 1)


@pytest.mark.parametrize("name", ["flat", "lens", "part", "all"])
def test_a_corrected_picture_scores_as_the_clean_one(plan: Path, name: str) -> None:
    optics: dict[str, tuple[Optics, Correction]] = {
        "flat": (in_the_dark, Correction(flat_field=FIELD)),
        "lens": (through_lens, Correction(lens=LENS)),
        "part": (displaced, Correction(part=part())),
        "all": (
            lambda picture: in_the_dark(through_lens(displaced(picture))),
            Correction(flat_field=FIELD, lens=LENS, part=part()),
        ),
    }
    spoil, correction = optics[name]
    # The network sees the part's surroundings; the very rim is not known to lens and shift.
    spec = msgspec.structs.replace(
        load_plan(plan).manifest.input, roi=Roi(x=60, y=40, width=200, height=160)
    )
    clean = inspected(plan, View(spec), scene())
    spoiled = spoil(scene())
    raw = inspected(plan, View(spec), spoiled)
    corrected = inspected(plan, View(spec, correction), spoiled)
    assert clean.anomaly_map is not None
    assert raw.anomaly_map is not None
    assert corrected.anomaly_map is not None

    def away(result: Result) -> float:
        return float(np.abs(result.anomaly_map - clean.anomaly_map).max())  # type: ignore[operator]

    assert corrected.score == pytest.approx(clean.score, abs=0.01)
    assert away(corrected) < 0.02 < 0.1 < away(raw), (away(corrected), away(raw))
    assert corrected.verdict is clean.verdict is Verdict.NG
    # The picture that goes on to archive and screen is the corrected one.
    inner = slice(60, 180), slice(80, 240)
    assert corrected.pixels is not None
    assert np.abs(corrected.pixels[inner].astype(int) - scene()[inner]).mean() < 2
    assert np.abs(spoiled[inner].astype(int) - scene()[inner]).mean() > 2


def test_an_area_in_mm2_is_the_one_of_the_part(plan: Path) -> None:
    spec = load_plan(plan).manifest.input
    straight = inspected(plan, View(spec, Correction(mm_per_px=MM_PER_PX)), scene())
    (defect,) = straight.defects
    assert defect.threshold == THRESHOLD
    assert defect.area_mm2 == pytest.approx(defect.area_px * MM_PER_PX**2, rel=1e-2)
    correction = Correction(flat_field=FIELD, lens=LENS, part=part())
    spoiled = in_the_dark(through_lens(displaced(scene())))
    (same,) = inspected(plan, View(spec, correction), spoiled).defects
    assert same.area_mm2 == pytest.approx(defect.area_mm2, rel=0.1)


def test_a_tilted_plane_gives_the_area_where_the_defect_lies(plan: Path) -> None:
    tilted = (0.25, 0.0, 0.0, 0.0, 0.25, 0.0, 8e-4, 0.0, 1.0)
    matrix = np.array(tilted).reshape(3, 3)
    plane = Plane(homography=tilted, mm_per_px=scale_at(matrix, WIDTH, HEIGHT), residual_mm=0.0)
    lens = msgspec.structs.replace(LENS, distortion=(0.0, 0.0, 0.0, 0.0), plane=plane)
    spec = load_plan(plan).manifest.input
    areas = []
    for x in (60, 260):
        picture = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
        cv2.circle(picture, (x, 120), 16, (235, 225, 215), -1)
        (defect,) = inspected(plan, View(spec, Correction(lens=lens)), picture).defects
        to_there = np.array([[1, 0, x - (WIDTH - 1) / 2], [0, 1, 0], [0, 0, 1]])
        scale = scale_at(matrix @ to_there, WIDTH, HEIGHT)
        assert defect.area_mm2 == pytest.approx(defect.area_px * scale**2, rel=0.02)
        areas.append(defect.area_mm2)
    assert areas[0] > 1.3 * areas[1]


def test_a_part_that_is_not_there_is_err(plan: Path) -> None:
    view = View(load_plan(plan).manifest.input, Correction(part=part()))
    nothing = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    result = inspected(plan, view, nothing)
    assert (result.verdict, result.reasons) == (Verdict.ERR, ("part_not_found",))
    assert "correlation" in result.detail
    small = inspected(plan, view, nothing[:100])
    assert (small.verdict, small.reasons) == (Verdict.ERR, ("wrong_image",))


def test_steps_that_contradict_each_other_are_refused(plan: Path) -> None:
    with pytest.raises(ConfigError, match="different picture sizes: the flat field 320 x 240, the"):
        Correction(flat_field=FIELD, lens=msgspec.structs.replace(LENS, image_width=640))
    with pytest.raises(ConfigError, match="knows the scale"):
        Correction(lens=LENS, mm_per_px=0.1)
    spec = load_plan(plan).manifest.input
    regions = Regions(image_width=640, image_height=480)
    with pytest.raises(ConfigError, match="drawn on 640 x 480 pixels, but the flat field is for"):
        check_view(View(spec, Correction(flat_field=FIELD), regions))
    in_mm2 = Regions(image_width=WIDTH, image_height=HEIGHT, min_area_mm2=2.0)
    with pytest.raises(ConfigError, match="scale is not known"):
        check_view(View(spec, Correction(flat_field=FIELD), in_mm2))
    check_view(View(spec, Correction(lens=LENS), in_mm2))


# ---- the verbs: one station for `stream` and `inspect` ---------------------------------------


def box(x: float, y: float, side: float) -> tuple[tuple[float, float], ...]:
    return ((x, y), (x + side, y), (x + side, y + side), (x, y + side))


@pytest.fixture
def plant(tmp_path: Path, plan: Path) -> Path:
    """A folder with a plan, all calibration of camera "top", and spoiled and clean pictures."""
    shutil.copy(plan, tmp_path / "part.plan")
    store_flat_field(tmp_path / "flat.npz", FIELD)
    store_camera(tmp_path / "lens.yaml", LENS)
    store_part(tmp_path / "part.npz", part())
    for number, defect in enumerate((0, 22, 12)):
        clean = scene(defect)
        write_png(tmp_path / "clean" / f"{number}.png", clean)
        spoiled = in_the_dark(through_lens(displaced(clean)))
        write_png(tmp_path / "raw" / f"{number}.png", spoiled)
    return tmp_path


def station(plant: Path, **camera: object) -> Path:
    path = plant / "station.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "box": "b7",
                "plan": str(plant / "part.plan"),
                "publish": {"events": "tcp://127.0.0.1:0", "maps": "tcp://127.0.0.1:0"},
                "cameras": [{"name": "top", "uri": f"dir:{plant / 'raw'}", **camera}],
            }
        )
    )
    return path


def verb(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main([str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_stream_and_inspect_correct_alike(
    plant: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    roi = {"x": 60, "y": 40, "width": 200, "height": 160}
    plain = station(plant, roi=roi)
    _, out, _ = verb(capsys, "inspect", "--station", plain, "--json", plant / "clean")
    clean = [json.loads(line) for line in out.splitlines()]
    file = station(
        plant,
        flat_field=str(plant / "flat.npz"),
        lens=str(plant / "lens.yaml"),
        part_template=str(plant / "part.npz"),
        roi=roi,
        regions={
            "image_width": WIDTH,
            "image_height": HEIGHT,
            "ignore": [box(62, 42, 20)],
            "regions": [{"name": "lead", "polygon": box(150, 100, 60), "threshold": 0.9}],
        },
    )
    code, out, _ = verb(capsys, "inspect", "--station", file, "--json", plant / "raw")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    for row, ideal in zip(rows, clean, strict=True):
        assert row["score"] == pytest.approx(ideal["score"], abs=0.05)
    assert [row["verdict"] for row in rows] == ["ok", "ng", "ng"]
    assert rows[1]["defects"][0]["region"] == "lead"
    assert rows[1]["threshold"] == 0.9
    assert rows[1]["defects"][0]["area_mm2"] > 0
    # What was corrected already is not corrected again, but regions hold.
    options = ("--station", file, "--corrected", "--json", plant / "clean")
    _, out, _ = verb(capsys, "inspect", *options)
    again = [json.loads(line) for line in out.splitlines()]
    assert [row["defects"][0]["region"] for row in again[1:]] == ["lead", "lead"]

    published: list[Result] = []

    class Listening(stream.Publisher):
        def send_result(self, result: Result, dropped_since_boot: int = 0) -> int:
            published.append(result)
            return super().send_result(result, dropped_since_boot)

    monkeypatch.setattr(stream, "Publisher", Listening)
    assert verb(capsys, "stream", "--station", file)[0] == 0
    assert [result.score for result in published] == pytest.approx([row["score"] for row in rows])
    assert [result.verdict.value for result in published] == [row["verdict"] for row in rows]
    assert [d.contour_px for r in published for d in r.defects] == [
        tuple(map(tuple, defect["contour_px"])) for row in rows for defect in row["defects"]
    ]


@pytest.mark.parametrize(
    ("camera", "code", "said"),
    [
        ({"flat_field": "none.npz"}, 5, "none.npz is not a flat field"),
        ({"flat_field": "other.npz"}, 5, "calibrated on camera 'left', but this is 'top'"),
        ({"flat_field": "other.npz", "identity": "left"}, 0, ""),
        ({"regions": "drawn.yaml"}, 5, "drawn.yaml was calibrated on camera 'left'"),
        ({"regions": "drawn.yaml", "identity": "left"}, 0, ""),
        ({"regions": {"image_width": 64, "image_height": 64}}, 2, "drawn on 64 x 64 pixels"),
        (
            {"regions": {"image_width": 64, "image_height": 64}, "flat_field": "flat.npz"},
            2,
            "camera top: the regions were drawn on 64 x 64",
        ),
        ({"regions": {"image_width": WIDTH, "image_height": HEIGHT, "x": 1}}, 2, "[0].regions.x"),
        ({"mm_per_px": 0.1, "lens": "lens.yaml"}, 2, "knows the scale"),
        ({"roi": {"x": 0, "y": 0, "width": 0, "height": 5}}, 2, "is empty or negative"),
        ({"plan": "caps"}, 2, "has no plan called 'caps'"),
    ],
)
def test_what_does_not_belong_together_is_refused_at_the_start(
    plant: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    camera: dict[str, object],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(plant)
    store_flat_field(plant / "other.npz", _of_camera("left"))
    store_regions(
        plant / "drawn.yaml",
        Regions(image_width=WIDTH, image_height=HEIGHT, camera="left",
                regions=(Region(name="lead", polygon=box(100, 100, 50)),)),
    )  # fmt: skip
    found, _, errors = verb(capsys, "stream", "--station", station(plant, **camera))
    assert said in errors
    assert found == code


def test_a_password_in_a_camera_address_is_not_in_the_refusal(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_flat_field(plant / "other.npz", _of_camera("left"))
    file = station(plant, uri="rtsp://me:secret@10.0.0.9/1", flat_field=str(plant / "other.npz"))
    code, _, errors = verb(capsys, "stream", "--station", file)
    assert code == 5
    assert "this is 'top' or 'rtsp://***@10.0.0.9/1'" in errors
    assert "secret" not in errors


def _of_camera(name: str):  # type: ignore[no-untyped-def]
    card = in_the_dark(np.full((HEIGHT, WIDTH, 3), 190, np.uint8))
    return estimate_flat_field([card] * 3, camera=name)


def test_a_plan_calibrated_on_another_camera_is_refused(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plant / "part.plan"
    threshold = load_plan(path).manifest.threshold
    assert threshold is not None
    replace_threshold(path, msgspec.structs.replace(threshold, camera="serial-12"))
    code, _, errors = verb(capsys, "stream", "--station", station(plant))
    assert code == 5
    assert "was calibrated on camera 'serial-12', but this is 'top'" in errors
    assert "identity: serial-12" in errors
    assert verb(capsys, "stream", "--station", station(plant, identity="serial-12"))[0] == 0
    assert verb(capsys, "inspect", "--station", station(plant), plant / "raw")[0] == 5
    # Files alone name no camera: they are taken for those of the plan's only one.
    assert verb(capsys, "inspect", "--plan", path, plant / "raw")[0] == 0
    replace_regions(path, Regions(image_width=WIDTH, image_height=HEIGHT, camera="left"))
    code, _, errors = verb(capsys, "inspect", "--plan", path, plant / "raw")
    assert code == 2
    assert "several cameras" in errors
    assert "--camera, one of left, serial-12" in errors


def test_regions_come_from_the_station_the_screen_or_the_plan(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def regions(name: str, camera: str = "") -> Regions:
        lead = Region(name=name, polygon=box(100, 60, 120), threshold=0.5)
        return Regions(image_width=WIDTH, image_height=HEIGHT, regions=(lead,), camera=camera)

    def judged_by(*options: object, **camera: object) -> str:
        file = station(plant, **camera)
        if options:
            document = yaml.safe_load(file.read_text()) | {"regions_folder": str(options[0])}
            file.write_text(yaml.safe_dump(document))
        code, out, errors = verb(capsys, "inspect", "--station", file, "--json", plant / "clean")
        assert code in (0, 2), errors
        return json.loads(out.splitlines()[1])["defects"][0]["region"]

    assert judged_by() == "image"
    replace_regions(plant / "part.plan", regions("any"))
    assert judged_by() == "any"
    replace_regions(plant / "part.plan", regions("own", camera="top"))
    assert judged_by() == "own"
    (plant / "drawn" / "b7").mkdir(parents=True)
    assert judged_by(plant / "drawn") == "own", "nothing was drawn for this camera yet"
    store_regions(plant / "drawn" / "b7" / "top.yaml", regions("screen"))
    assert judged_by(plant / "drawn") == "screen"
    store_regions(plant / "r.yaml", regions("station"))
    assert judged_by(plant / "drawn", regions=str(plant / "r.yaml")) == "station"
    assert judged_by(plant / "drawn", regions="none") == "image"


def test_regions_of_other_cameras_only_are_not_taken_for_none(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lead = Region(name="lead", polygon=box(100, 60, 120))
    replace_regions(
        plant / "part.plan",
        Regions(image_width=WIDTH, image_height=HEIGHT, regions=(lead,), camera="left"),
    )
    code, _, errors = verb(capsys, "stream", "--station", station(plant))
    assert code == 5
    assert "has regions for camera 'left', but none for 'top'" in errors
    code, out, _ = verb(
        capsys, "inspect", "--plan", plant / "part.plan", "--camera", "left", plant / "clean"
    )
    assert code == 0
    assert "2 ng" in out
    assert verb(capsys, "stream", "--station", station(plant, regions="none"))[0] == 0


def test_growth_and_minimum_area_of_a_regions_file_decide(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def verdicts(**rest: object) -> list[str]:
        drawn = {"image_width": WIDTH, "image_height": HEIGHT, **rest}
        _, out, errors = verb(
            capsys, "inspect", "--station", station(plant, regions=drawn, mm_per_px=MM_PER_PX),
            "--json", plant / "clean",
        )  # fmt: skip
        assert not errors.startswith("error"), errors
        return [json.loads(line)["verdict"] for line in out.splitlines()]

    # Above the threshold the small defect has 350 pixels, above 0.45 it has 1040.
    assert verdicts() == ["ok", "ng", "ng"]
    assert verdicts(min_area_px=800) == ["ok", "ng", "ok"]
    assert verdicts(min_area_mm2=800 * MM_PER_PX**2) == ["ok", "ng", "ok"]
    assert verdicts(min_area_px=800, grow_threshold=0.45) == ["ok", "ng", "ng"]
