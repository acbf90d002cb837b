"""`calibrate threshold` on real image files and a real plan, as the command line runs it."""

import csv
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from skrd4ad.calibration.scoring import file_sha256, score_images
from skrd4ad.calibration.threshold import conformal_rank
from skrd4ad.cli import main
from skrd4ad.engine.backends.base import open_engine
from skrd4ad.engine.images import write_png
from skrd4ad.engine.plan import load_plan, write_plan

GREY = (124, 116, 104)


def write_parts(folder, count, seed=3, side=80):
    """`count` grey parts, each with a random patch a little brighter: scores all differ."""
    generator = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        pixels = np.full((side, side, 3), GREY, np.int16)
        y, x = generator.integers(0, side - 24, 2)
        pixels[y : y + 24, x : x + 24] += generator.integers(2, 60)
        pixels += generator.integers(-3, 4, pixels.shape)
        path = folder / f"part{number:03}.png"
        write_png(path, np.clip(pixels, 0, 255).astype(np.uint8))
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "good"
    return write_parts(folder, 30)


@pytest.fixture
def plan(write_tiny_plan, tmp_path):
    return write_tiny_plan(tmp_path / "part.plan", batch=4)


def write_run(tmp_path, tiny, fit, calibration):
    """A run folder's split.csv and the plan that was compiled from it."""
    run = tmp_path / "runs" / "part"
    run.mkdir(parents=True)
    with (run / "split.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "sha256", "role"])
        rows.writerows([path, file_sha256(path), "fit"] for path in fit)
        rows.writerows([path, file_sha256(path), "calibration"] for path in calibration)
    manifest = tiny.tiny_manifest()
    sha256 = hashlib.sha256((run / "split.csv").read_bytes()).hexdigest()
    origin = msgspec.structs.replace(manifest.run, split_sha256=sha256)
    path = tmp_path / "part.plan"
    write_plan(path, msgspec.structs.replace(manifest, run=origin), tiny.tiny_members())
    return run, path


def test_the_stored_threshold_is_the_conformal_quantile_of_the_plans_own_scores(
    plan, parts, capsys
):
    before = load_plan(plan)
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]
    code = main([*arguments, "--false-reject-rate", "0.1", "--json"])
    facts = json.loads(capsys.readouterr().out)
    after = load_plan(plan)
    with open_engine(after) as engine:
        scores = np.sort(score_images(parts, engine))
    assert code == 0
    assert len(set(scores)) == 30
    assert after.manifest.threshold.value == scores[conformal_rank(30, 0.1) - 1]
    assert facts["threshold"] == after.manifest.threshold.value
    assert facts["rejected_normals"] == 2
    assert facts["attained"] is True
    assert after.manifest.threshold.revision == before.manifest.threshold.revision + 1
    assert after.manifest.threshold.created
    assert after.manifest.threshold.source == "folder good"
    assert after.manifest.members == before.manifest.members
    assert after.digest != before.digest


def test_how_the_good_images_look_is_stored_with_the_threshold(plan, parts, capsys):
    assert main(["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]) == 0
    images = load_plan(plan).manifest.threshold.images
    assert images.n_images == len(parts)
    assert images.brightness == pytest.approx(117, abs=8)
    assert images.saturated == 0.0
    assert main(["calibrate", "threshold", "--plan", str(plan), "--value", "0.5"]) == 0
    assert load_plan(plan).manifest.threshold.images is None


def test_an_uncalibrated_plan_gets_revision_1_and_too_few_images_are_said(
    write_tiny_plan, tmp_path, parts, capsys
):
    plan = write_tiny_plan(tmp_path / "new.plan", threshold=None)
    assert main(["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]) == 0
    table = capsys.readouterr().out
    threshold = load_plan(plan).manifest.threshold
    assert threshold.revision == 1
    assert threshold.attainable_rate == pytest.approx(1 / 31)
    assert "3.23%  NOT the target: that needs 99 images" in table
    assert "score > threshold is a reject" in table


def test_the_run_folder_supplies_the_calibration_images(tmp_path, tiny, parts, capsys):
    run, plan = write_run(tmp_path, tiny, fit=parts[:18], calibration=parts[18:])
    code = main(["calibrate", "threshold", "--plan", str(plan), "--run", str(run), "--json"])
    assert code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["n_normals"] == 12
    with open_engine(load_plan(plan)) as engine:
        assert facts["threshold"] == score_images(parts[18:], engine).max()


def test_images_that_were_fitted_are_refused_even_when_renamed(tmp_path, tiny, parts, capsys):
    run, plan = write_run(tmp_path, tiny, fit=parts[:10], calibration=parts[10:])
    untouched = plan.read_bytes()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, path in enumerate(parts[9:25]):
        (mixed / f"renamed{number:02}.png").write_bytes(path.read_bytes())
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--run", str(run)]
    assert main([*arguments, "--images", str(mixed)]) == 5
    error = capsys.readouterr().err
    assert "renamed00.png was used to fit the network" in error
    assert plan.read_bytes() == untouched


def test_a_calibration_image_that_changed_is_refused(tmp_path, tiny, capsys):
    parts = write_parts(tmp_path / "good", 12)
    run, plan = write_run(tmp_path, tiny, fit=[], calibration=parts)
    parts[3].write_bytes(parts[4].read_bytes())
    assert main(["calibrate", "threshold", "--plan", str(plan), "--run", str(run)]) == 2
    assert "part003.png has changed since the run was trained" in capsys.readouterr().err


def test_another_run_is_refused(tmp_path, tiny, parts, plan, capsys):
    run, _ = write_run(tmp_path, tiny, fit=[], calibration=parts)
    other = tmp_path / "other.plan"
    write_plan(other, tiny.tiny_manifest(), tiny.tiny_members())
    assert main(["calibrate", "threshold", "--plan", str(other), "--run", str(run)]) == 5
    assert "is not the run that this plan was compiled from" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:200]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"not an image"), id="foreign"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: write_png(path, np.zeros((1, 1, 3), np.uint8)), id="one pixel"),
    ],
)
def test_an_unreadable_image_is_one_sentence_and_leaves_the_plan(tmp_path, plan, spoil, capsys):
    parts = write_parts(tmp_path / "good", 11)
    spoil(parts[6])
    untouched = plan.read_bytes()
    assert main(["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "part006.png" in next(line for line in lines if line.startswith("error: "))
    assert not any("Traceback" in line for line in lines)
    assert plan.read_bytes() == untouched
    assert sorted(path.name for path in plan.parent.iterdir()) == ["good", "part.plan"]


def test_fewer_images_than_the_minimum_are_refused(tmp_path, plan, capsys):
    parts = write_parts(tmp_path / "good", 9)
    assert main(["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]) == 5
    assert "9 good images are too few" in capsys.readouterr().err


def test_no_source_of_images_is_refused(plan, capsys):
    assert main(["calibrate", "threshold", "--plan", str(plan)]) == 2
    assert "give --run DIR" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "1", "nan"])
def test_a_rate_that_is_none_is_refused_before_anything_is_scored(plan, parts, rate, capsys):
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]
    assert main([*arguments, "--false-reject-rate", rate]) == 2
    assert "false-reject rate" in capsys.readouterr().err


def test_a_value_chosen_by_hand_is_stored_with_what_the_images_say(plan, parts, capsys):
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--value", "0.05"]
    assert main([*arguments, "--images", _folder(parts), "--review-band", "0.2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    stored = load_plan(plan).manifest.threshold
    assert stored.method == "manual"
    assert stored.value == 0.05
    assert stored.review_value == pytest.approx(0.06)
    assert stored.attainable_rate == pytest.approx((facts["rejected_normals"] + 1) / 31)
    assert main([*arguments]) == 0
    assert load_plan(plan).manifest.threshold.n_normals == 0
    assert load_plan(plan).manifest.threshold.revision == stored.revision + 1


def test_labelled_defects_report_an_escape_rate_and_do_not_move_the_threshold(
    tmp_path, plan, parts, capsys
):
    bad = tmp_path / "bad"
    for number, level in enumerate((124, 255, 255, 255)):
        write_png(bad / f"{number}.png", np.full((80, 80, 3), level, np.uint8))
    write_png(bad / "0.png", np.full((80, 80, 3), GREY, np.uint8))  # looks perfectly good
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]
    assert main([*arguments, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--defects", str(bad), "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["threshold"] == alone["threshold"]
    assert both["escape_rate"] == 0.25
    assert both["escape_interval"][0] < 0.25 < both["escape_interval"][1]


def test_the_report_is_one_page_that_shows_every_part(tmp_path, plan, parts, capsys):
    bad = tmp_path / "bad"
    write_png(bad / "1.png", np.full((80, 80, 3), 255, np.uint8))
    page = tmp_path / "report.html"
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]
    arguments += ["--defects", str(bad), "--review-band", "0.1", "--report", str(page)]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    text = page.read_text()
    root = ElementTree.fromstring(re.search(r"<svg.*</svg>", text, re.DOTALL)[0])
    counts = [int(bar.find("title").text) for bar in root.iter("rect")]
    assert sum(counts) == 31
    lines = [label.text for label in root.iter("text")]
    value = load_plan(plan).manifest.threshold.value
    assert f"threshold {value:.4g}" in lines
    assert f"review {1.1 * value:.4g}" in lines
    for row in table.splitlines()[1:]:
        assert html.escape(row[25:].strip()) in text
    assert "http" not in text
    untouched = plan.read_bytes()
    assert main([*arguments[:-1], str(plan / "report.html")]) == 2
    assert plan.read_bytes() == untouched


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,sha256,role\n", "names no images with the role calibration"),
        ("path,sha256,role\na.png,00,neither\n", "line 2 is not a path"),
        ("file\na.png\n", "line 2 is not a path"),
    ],
)
def test_a_malformed_split_is_refused(tmp_path, text, sentence):
    from skrd4ad.calibration.scoring import read_split
    from skrd4ad.errors import DataError

    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_split(tmp_path)


def test_calibrate_needs_neither_torch_nor_the_trainer():
    program = (
        "import sys, skrd4ad.calibration.calibrate;"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('skrd4ad.trainer')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def _folder(paths):
    return str(paths[0].parent)


def test_an_escape_rate_lowers_the_threshold_only_where_it_must(plan, parts, tmp_path, capsys):
    bad = tmp_path / "bad"
    bad_parts = write_parts(bad, 24, seed=8)
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]
    arguments += ["--defects", str(bad), "--json", "--false-reject-rate", "0.1"]
    assert main(arguments) == 0
    conformal = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--escape-rate", "0.99"]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == conformal["threshold"]
    assert main([*arguments, "--escape-rate", "0.2"]) == 0
    lowered = json.loads(capsys.readouterr().out)
    with open_engine(load_plan(plan)) as engine:
        scores = np.sort(score_images(bad_parts, engine))
    assert lowered["method"] == "escape"
    assert lowered["threshold"] == np.nextafter(scores[4], -np.inf)  # floor(25 * 0.2) = 5
    assert lowered["escape_rate"] == 4 / 24
    assert lowered["attained"] is False
    assert main([word for word in arguments if word != "--json"] + ["--escape-rate", "0.2"]) == 0
    assert "NOT the target: the escape rate asks for a lower threshold" in capsys.readouterr().out
    assert main([*arguments, "--escape-rate", "0.01"]) == 5
    assert "24 labelled defects cannot bound" in capsys.readouterr().err
    assert main([*arguments[:6], "--escape-rate", "0.2"]) == 2
    assert "--escape-rate needs --defects" in capsys.readouterr().err


def test_good_parts_among_the_defects_are_refused(plan, parts, tmp_path, capsys):
    """`--defects test/` of the MVTec layout: its good/ would pull the threshold down."""
    before = plan.read_bytes()
    for name in ("good", "scratch"):
        shutil.copytree(parts[0].parent, tmp_path / "test" / name)
    arguments = ["calibrate", "threshold", "--plan", str(plan), "--images", _folder(parts)]
    arguments += ["--defects", str(tmp_path / "test"), "--escape-rate", "0.2"]
    assert main(arguments) == 2
    assert "holds good parts too" in capsys.readouterr().err
    assert plan.read_bytes() == before
