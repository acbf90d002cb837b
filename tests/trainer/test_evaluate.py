"""The verb from image files to table, JSON and report, through a real plan."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.trainer.evaluation import evaluate_scored
from skrd4ad.trainer.gallery import GALLERY_SIZE, Gallery
from skrd4ad.trainer.overlays import map_picture, overlay
from skrd4ad.trainer.samples import Sample
from skrd4ad.trainer.scorer import Scored, plan_scorer
from skrd4ad.trainer.training_log import convergence_chart, read_log

GREY = (124, 116, 104)  # the tiny plan's idea of a good part
SIZE = 64


def write_part(path: Path, spot: tuple[int, int, int, int] | None, bright: int = 255) -> None:
    pixels = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    if spot:
        y, x, h, w = spot
        pixels[y : y + h, x : x + w] = bright
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, spot: tuple[int, int, int, int]) -> None:
    y, x, h, w = spot
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + h, x : x + w] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Good parts, clear spots with masks, and a mark so faint that its mask is the only sign."""
    root = tmp_path / "data" / "part"
    for index in range(3):
        write_part(root / f"train/good/{index}.png", None)
        write_part(root / f"test/good/{index}.png", None)
        spot = (8 + 8 * index, 16, 16, 16)
        write_part(root / f"test/spot/{index}.png", spot)
        write_mask(root / f"ground_truth/spot/{index}_mask.png", spot)
    write_part(root / "test/faint/0.png", None)
    write_mask(root / "ground_truth/faint/0_mask.png", (40, 40, 12, 12))
    return root


class References(html.parser.HTMLParser):
    """Collects what a page would fetch, and checks that tags are balanced."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        assert tag != "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_plan_is_judged_at_its_own_threshold(
    parts: Path, tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, report = tmp_path / "figures.json", tmp_path / "out" / "report.html"
    arguments = ["evaluate", "--plan", str(tiny_plan), "--data", str(parts.parent)]
    arguments += ["--category", "part", "--json", str(figures), "--report", str(report)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    document = json.loads(figures.read_text(encoding="utf-8"))

    assert (document["n_good"], document["n_defective"]) == (3, 4)
    assert document["deployed"]["false_reject"]["count"] == 0
    assert document["deployed"]["escape"]["count"] == 1  # the faint one
    assert document["deployed"]["escape"]["low"] > 0
    by_defect = {row["defect"]: row for row in document["by_defect"]}
    assert by_defect["spot"]["image_auroc"] == 1.0
    assert by_defect["spot"]["escape"]["count"] == 0
    assert by_defect["faint"]["escape"]["count"] == 1
    assert by_defect["faint"]["image_auroc"] == 0.5  # no different from a good part
    assert by_defect["spot"]["pixel"]["auroc"] > 0.99
    assert document["image"]["auroc"] == pytest.approx(3.5 / 4)
    assert len(document["scores"]) == 7
    assert re.search(r"^spot +3 +1\.0000", text, re.MULTILINE)
    assert "escapes 1/4 (25.0 %" in text

    page = report.read_text(encoding="utf-8")
    references = References()
    references.feed(page)
    assert not references.open
    assert references.fetched, "the report has no pictures"
    assert all(r.startswith("data:image/png;base64,") for r in references.fetched)
    # Scores, scores by type, ROC, PR, PRO; a plan has no training log.
    assert page.count("<svg") == 5
    assert "Worst escapes" in page
    assert "faint/0.png" in page


def test_teachers_that_never_saw_imagenet_are_announced(
    parts: Path, tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with plan_scorer(tiny_plan) as scorer:
        kind = scorer.teacher.kind
    assert kind == "random"
    report = tmp_path / "report.html"
    main(["evaluate", "--plan", str(tiny_plan), "--data", str(parts), "--report", str(report)])
    assert f"teacher {kind}: " in capsys.readouterr().out
    assert f"<b>{kind} teacher.</b>" in report.read_text(encoding="utf-8")


def test_a_vanished_mask_keeps_its_label_and_is_reported(
    parts: Path, tiny_plan: Path, tmp_path: Path
) -> None:
    write_mask(parts / "ground_truth/spot/0_mask.png", (8, 16, 0, 0))
    figures = tmp_path / "figures.json"
    main(["evaluate", "--plan", str(tiny_plan), "--data", str(parts), "--json", str(figures)])
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["n_defective"] == 4
    assert {row["defect"]: row for row in document["by_defect"]}["spot"]["image_auroc"] == 1.0
    assert document["pixel"]["n_images"] == 6
    assert any("1 masks vanish" in problem for problem in document["problems"])


def test_vad_s_seen_and_unseen_defects_are_told_apart(
    tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, spot = tmp_path / "vad", (16, 16, 16, 16)
    write_part(root / "train/good/0.png", None)
    write_part(root / "train/bad/0.png", spot)
    write_part(root / "test/good/0.png", None)
    write_part(root / "test/bad/0.png", spot)
    write_part(root / "test/bad_unseen_defects/0.png", None)  # as invisible as unseen
    figures = tmp_path / "figures.json"
    arguments = ["evaluate", "--plan", str(tiny_plan), "--data", str(root), "--json", str(figures)]
    assert main([*arguments, "--report", str(tmp_path / "report.html")]) == 0
    rows = {r["group"]: r for r in json.loads(figures.read_text())["by_defect"]}
    assert (rows["seen"]["defect"], rows["seen"]["image_auroc"]) == ("bad", 1.0)
    assert rows["unseen"]["image_auroc"] == 0.5
    text = capsys.readouterr().out
    assert "bad (seen)" in text
    assert "bad_unseen_defects (unseen)" in text
    assert "bad_unseen_defects (unseen)" in (tmp_path / "report.html").read_text()


def test_images_without_masks_give_image_figures_alone(
    parts: Path, tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (parts / "ground_truth").rglob("*.png"):
        mask.unlink()
    figures = tmp_path / "figures.json"
    report = tmp_path / "report.html"
    arguments = ["evaluate", "--plan", str(tiny_plan), "--data", str(parts)]
    assert main([*arguments, "--json", str(figures), "--report", str(report)]) == 0
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["pixel"] is None
    assert document["image"]["auroc"] == pytest.approx(3.5 / 4)
    assert "no pixel figures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "DATA"], "nothing to evaluate"),
        (["--plan", "PLAN", "--data", "EMPTY"], "has no test images"),
        (["--plan", "PLAN", "--data", "nowhere"], "no data folder"),
        (["--run", "nowhere", "--data", "DATA"], "not a run folder"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    parts: Path,
    tiny_plan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_part(tmp_path / "empty/0.png", None)
    known = {"DATA": parts, "PLAN": tiny_plan, "EMPTY": tmp_path / "empty"}
    assert main(["evaluate", *(str(known.get(a, a)) for a in arguments)]) == 2
    assert sentence in capsys.readouterr().err


def test_the_scale_is_fixed_and_anchored() -> None:
    """A map value has one colour, whatever else is in the picture."""
    grey = np.full((40, 40, 3), 100, np.uint8)
    quiet, loud = np.zeros((40, 40), np.float32), np.zeros((40, 40), np.float32)
    quiet[5:10, 5:10] = loud[5:10, 5:10] = 0.9
    loud[20:30, 20:30] = 50.0
    a, b = overlay(grey, quiet, anchor=1.0), overlay(grey, loud, anchor=1.0)
    np.testing.assert_array_equal(a[:15, :15], b[:15, :15])
    assert (overlay(grey, np.full((40, 40), 0.79, np.float32), 1.0) == grey).all()
    uninspected = overlay(grey, np.full((40, 40), np.nan, np.float32), 1.0)
    assert (uninspected[10, 10].astype(int) - grey[10, 10])[0] > 50


def test_the_map_alone_shows_what_stays_below_the_anchor_on_the_same_scale() -> None:
    scores = np.array([[0.0, 1.0, 1.9, 2.0, 3.0, np.nan]], np.float32)
    dark, half, near, at, red, uninspected = map_picture(scores, anchor=2.0)[0].tolist()
    assert dark == [0, 0, 0]
    assert half == [128, 128, 128]
    assert 230 < near[0] < at[0] == 255
    assert at == [255, 255, 255]
    assert red == uninspected == [214, 0, 28]


def test_the_gallery_is_bounded_and_keeps_the_extremes() -> None:
    gallery = Gallery()
    nothing = np.zeros((2, 2), np.float32)
    for index in range(100):
        score = float((index * 37) % 100)
        gallery.offer(Scored(Sample(Path(f"g{index}"), "test"), nothing, score, (2, 2)))
        gallery.offer(Scored(Sample(Path(f"d{index}"), "test", "dent"), nothing, score, (2, 2)))
    chosen = gallery.chosen()
    assert len(chosen) <= 2 * GALLERY_SIZE + 1
    good = sorted(s.score for s in chosen if not s.sample.is_defective)
    bad = sorted(s.score for s in chosen if s.sample.is_defective)
    assert good == [94, 95, 96, 97, 98, 99]
    assert bad == [0, 1, 2, 3, 4, 5, 99]


def test_one_pass_agrees_with_the_metric_functions(parts: Path, tiny_plan: Path) -> None:
    from skrd4ad.engine.spec import InputSpec
    from skrd4ad.trainer import metrics
    from skrd4ad.trainer.datasets import find_dataset, read_mask
    from skrd4ad.trainer.scorer import score_samples

    dataset = find_dataset(parts)
    with plan_scorer(tiny_plan) as scorer:
        scored = list(score_samples(scorer, dataset.test))
    spec = InputSpec(height=SIZE, width=SIZE)
    evaluation = evaluate_scored(scored, spec, None, "half")
    masks = [
        read_mask(s.sample.mask) if s.sample.mask else np.zeros((SIZE, SIZE), bool) for s in scored
    ]
    maps = [s.map for s in scored]
    assert evaluation.deployed is None
    assert evaluation.pixel is not None
    assert evaluation.pixel.aupro_30 == pytest.approx(metrics.aupro(masks, maps), abs=1e-12)
    assert evaluation.pixel.auroc == pytest.approx(metrics.pixel_auroc(masks, maps), abs=1e-12)
    assert evaluation.pixel.aupro_rd4ad == pytest.approx(
        metrics.aupro_rd4ad(masks, maps), nan_ok=True
    )


def test_the_convergence_curve_reads_the_training_log(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("epoch,learning_rate,loss,cosine,seconds\n1,.1,2.0,1.5,3\n2,.1,1.0,,3\n")
    columns = read_log(log)
    assert columns["loss"] == [2.0, 1.0]
    chart = convergence_chart(columns)
    assert chart is not None
    assert chart.count("<polyline") == 2
    assert "learning_rate" not in chart
    assert convergence_chart({"epoch": [1.0], "seconds": [2.0]}) is None
