"""Regions: disjoint masks, their own thresholds, a joint guarantee, and files that are refused."""

import json
import math

import cv2
import msgspec
import numpy as np
import pytest
from skrd4ad.calibration.regions import (
    Region,
    Regions,
    check_regions,
    load_regions,
    polygon_mask,
    region_masks,
    region_scores,
    region_thresholds,
    store_regions,
)
from skrd4ad.cli import main
from skrd4ad.engine.images import read_rgb, write_png
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.preprocess import map_to_image
from skrd4ad.engine.spec import InputSpec, Roi, ScoreContract
from skrd4ad.errors import CalibrationError, ConfigError

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LEFT = Region(name="left", polygon=((-0.5, -0.5), (31.5, -0.5), (31.5, 63.5), (-0.5, 63.5)))
HOLE = ((10.0, 10.0), (20.0, 10.0), (20.0, 20.0), (10.0, 20.0))


def drawn(*regions, ignore=(), side=64):
    return Regions(image_width=side, image_height=side, regions=regions, ignore=ignore)


def test_a_polygon_covers_exactly_the_pixel_centres_inside():
    triangle = ((2.5, 3.5), (30.2, 8.1), (11.7, 40.9))
    mask = polygon_mask(triangle, IDENTITY, (48, 48))
    contour = np.array(triangle, np.float32)
    for y in range(48):
        for x in range(48):
            assert mask[y, x] == (cv2.pointPolygonTest(contour, (x, y), False) > 0)


def test_a_polygon_follows_the_input_region_and_resize():
    spec = InputSpec(height=64, width=64, roi=Roi(x=100, y=50, width=256, height=128))
    mask = polygon_mask(
        ((99.5, 49.5), (227.5, 49.5), (227.5, 113.5), (99.5, 113.5)),
        map_to_image(spec, (400, 600)),
        (64, 64),
    )
    expected = np.zeros((64, 64), bool)
    expected[:32, :32] = True  # the left half by the upper half of the region of interest
    assert np.array_equal(mask, expected)


def test_masks_are_disjoint_and_leave_out_only_what_is_ignored():
    second = Region(name="all", polygon=((-0.5, -0.5), (63.5, -0.5), (63.5, 63.5), (-0.5, 30.0)))
    masks = region_masks(drawn(LEFT, second, ignore=(HOLE,)), IDENTITY, (64, 64), (64, 64))
    assert [mask.name for mask in masks] == ["left", "all", "image"]
    total = sum(mask.mask.astype(int) for mask in masks)
    assert total.max() == 1
    assert np.array_equal(total == 0, polygon_mask(HOLE, IDENTITY, (64, 64)))


def test_a_defect_counts_only_in_its_region_and_never_when_ignored():
    masks = region_masks(drawn(LEFT, ignore=(HOLE,)), IDENTITY, (64, 64), (64, 64))
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[15, 15] = 9.0  # ignored
    anomaly_map[40, 8] = 2.0  # left
    anomaly_map[5, 50] = 3.0  # the rest
    assert region_scores(anomaly_map, masks, ScoreContract()).tolist() == [2.0, 3.0]
    anomaly_map[41, 8] = math.nan
    assert region_scores(anomaly_map, masks, ScoreContract()).tolist() == [math.inf, 3.0]


def test_the_top_mean_rule_applies_inside_the_region():
    masks = region_masks(drawn(LEFT), IDENTITY, (64, 64), (64, 64))
    anomaly_map = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    contract = ScoreContract(score="top-mean", top_fraction=0.01)
    left = np.sort(anomaly_map[:, :32].ravel())[-20:].mean()
    assert region_scores(anomaly_map, masks, contract)[0] == pytest.approx(left)


def test_all_regions_together_keep_the_target_rate():
    generator = np.random.default_rng(8)
    rates = []
    for _ in range(400):
        scores = generator.exponential(size=(150, 3))
        thresholds = region_thresholds(scores, ("a", "b", "c"), 0.1)
        passes = math.prod(1 - math.exp(-value) for value in thresholds.values())
        rates.append(1 - passes)
    assert np.mean(rates) <= 0.1 + 4 * np.std(rates) / 20
    assert np.mean(rates) > 0.08  # and not by being needlessly strict


def test_too_few_images_for_so_many_regions_are_refused():
    with pytest.raises(CalibrationError, match=r"20 good images cannot support 10\.00% over 3"):
        region_thresholds(np.zeros((20, 3)), ("a", "b", "c"), 0.1)
    assert region_thresholds(np.ones((29, 3)), ("a", "b", "c"), 0.1) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("regions", "sentence"),
    [
        (drawn(LEFT, LEFT), "there 2 times"),
        (drawn(Region(name="image", polygon=LEFT.polygon)), "not a usable region name"),
        (drawn(Region(name="Ä", polygon=LEFT.polygon)), "not a usable region name"),
        (drawn(Region(name="a", polygon=((0, 0), (1, 1)))), "has 2 corners"),
        (drawn(Region(name="a", polygon=((0, 0), (1, 1), (2, 2)))), "has no area"),
        (drawn(Region(name="a", polygon=((0, 0), (99, 1), (2, 2)))), "outside the 64 x 64"),
        (drawn(Region(name="a", polygon=((0, 0), (math.nan, 1), (2, 2)))), "outside the"),
        (drawn(ignore=(HOLE[:2],)), "ignore polygon 1 has 2 corners"),
        (drawn(Region(name="a", polygon=HOLE, threshold=math.inf)), "not a finite number"),
        (drawn(Region(name="a", polygon=HOLE, min_area_px=-1)), "negative"),
        (drawn(Region(name="a", polygon=HOLE, threshold=1, grow_threshold=2)), "above its thresh"),
        (drawn(Region(name="a", polygon=HOLE, threshold=1, review_value=0.5)), "below its thresh"),
        (drawn(Region(name="a", polygon=HOLE, grow_threshold=math.nan)), "not a finite number"),
        (Regions(image_width=4, image_height=4, min_area_mm2=-1.0), "the picture: min_area_mm2"),
        (Regions(schema="other/1", image_width=4, image_height=4), "is not skrd4ad-regions/1"),
    ],
)
def test_impossible_regions_are_refused(regions, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_regions(regions)


def test_a_region_that_inspects_nothing_is_refused():
    tiny = Region(name="dot", polygon=((5.1, 5.1), (5.4, 5.1), (5.2, 5.4)))
    with pytest.raises(ConfigError, match="'dot' covers no pixel"):
        region_masks(drawn(tiny), IDENTITY, (64, 64), (64, 64))
    with pytest.raises(ConfigError, match="nothing would be inspected"):
        region_masks(drawn(ignore=(((-0.5, -0.5), (63.5, -0.5), (63.5, 63.5), (-0.5, 63.5)),)),
                     IDENTITY, (64, 64), (64, 64))  # fmt: skip


def test_another_picture_size_is_refused():
    with pytest.raises(ConfigError, match="drawn on 64 x 64 pixels, but the picture has 640 x 480"):
        region_masks(drawn(LEFT), IDENTITY, (64, 64), (480, 640))


def test_a_file_survives_and_unknown_keys_are_named(tmp_path):
    path = tmp_path / "regions.yaml"
    store_regions(path, drawn(LEFT, ignore=(HOLE,)))
    assert load_regions(path) == drawn(LEFT, ignore=(HOLE,))
    path.write_text(path.read_text() + "colour: red\n")
    with pytest.raises(ConfigError, match=r"regions\.yaml.*colour"):
        load_regions(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"regions\.yaml"):
        load_regions(path)


def test_the_verb_writes_thresholds_that_the_good_parts_keep(tmp_path, tiny_plan, capsys):
    generator = np.random.default_rng(4)
    for number in range(30):
        pixels = np.full((64, 64, 3), (124, 116, 104), np.uint8)
        pixels[8:24, 4:20] = generator.integers(90, 160, 3)
        pixels[8:24, 40:56] = generator.integers(120, 130, 3)
        write_png(tmp_path / "good" / f"{number:02}.png", pixels)
    path = tmp_path / "regions.yaml"
    store_regions(path, drawn(LEFT))
    arguments = ["calibrate", "regions", "--plan", str(tiny_plan), "--regions", str(path)]
    arguments += ["--images", str(tmp_path / "good")]
    untouched = path.read_bytes()
    assert main([*arguments]) == 5  # 1 % over two regions needs 199 images
    assert path.read_bytes() == untouched
    assert main([*arguments, "--false-reject-rate", "0.1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    stored = load_regions(path)
    assert stored.regions[0].threshold == facts["thresholds"]["left"]
    assert facts["thresholds"]["left"] > facts["thresholds"]["image"] > 0
    assert msgspec.structs.replace(stored, regions=(LEFT,)) == drawn(LEFT)


def test_regions_go_into_the_plan_for_their_camera(tmp_path, tiny_plan, capsys):
    plan = tmp_path / "part.plan"
    plan.write_bytes(tiny_plan.read_bytes())
    generator = np.random.default_rng(4)
    for number in range(30):
        pixels = np.full((64, 64, 3), (124, 116, 104), np.uint8)
        pixels[8:24, 4:20] = generator.integers(90, 160, 3)
        write_png(tmp_path / "good" / f"{number:02}.png", pixels)
    path = tmp_path / "regions.yaml"
    store_regions(path, msgspec.structs.replace(drawn(LEFT), min_area_px=7))
    arguments = ["calibrate", "regions", "--plan", str(plan), "--regions", str(path)]
    arguments += ["--images", str(tmp_path / "good"), "--false-reject-rate", "0.1", "--into-plan"]
    for camera in ("left", "right", "left"):
        assert main([*arguments, "--camera", camera]) == 0
    stored = load_plan(plan).manifest.regions
    assert [one.camera for one in stored] == ["right", "left"]
    assert stored[1] == load_regions(path)
    assert stored[1].regions[0].threshold is not None
    assert stored[1].min_area_px == 7
    assert load_plan(plan).read("model.onnx") == load_plan(tiny_plan).read("model.onnx")
    # A band that would end below the threshold is refused, and nothing is written.
    band = msgspec.structs.replace(LEFT, review_value=1e-6)
    store_regions(path, drawn(band))
    before = plan.read_bytes(), path.read_bytes()
    assert main(arguments) == 2
    assert "review_value 1e-06 is below its threshold" in capsys.readouterr().err
    assert (plan.read_bytes(), path.read_bytes()) == before


def test_the_preview_draws_and_changes_nothing_else(tmp_path, capsys):
    image, out, path = tmp_path / "part.png", tmp_path / "preview.png", tmp_path / "r.yaml"
    write_png(image, np.zeros((64, 64, 3), np.uint8))
    store_regions(path, drawn(LEFT, ignore=(HOLE,)))
    assert (
        main(["calibrate", "regions", "--regions", str(path), "--preview", str(image), str(out)])
        == 0
    )
    pixels = read_rgb(out)
    assert pixels[15, 15].any()  # the cross over the ignored area
    assert pixels[40, 31].any()  # the region's right edge
    assert not pixels[40, 50].any()
