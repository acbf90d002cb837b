"""What a plan promises: network, input, score rule, threshold, proof. All of it in the manifest.

These records are the ground floor. Trainer, engine, calibration and pipeline exchange nothing else
about a model, so a run folder, a plan and a published event can never mean different things.
"""

from __future__ import annotations

from typing import Literal

import msgspec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LEVEL_STRIDES = (4, 8, 16)
"""Teacher levels E1, E2, E3 lie at 1/4, 1/8 and 1/16 of the input."""

Backbone = Literal["resnet18", "resnet34", "resnet50", "wide_resnet50_2"]
Backend = Literal["onnxruntime", "tensorrt", "torch-cuda"]
Precision = Literal["fp32", "fp16", "int8"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record that refuses unknown keys when decoded."""


class NetworkSpec(Record, frozen=True, kw_only=True):
    """The graph of teacher, bottleneck and student (algorithm notes: docs/method.md).

    `fusion` says how E^{k+1} enters the stage that makes D^k: "poster" is
    ReLU(Conv1x1(D^{k+1})) + E^{k+1}, "official" the same with the identity for the Conv1x1,
    "none" is RD4AD, "corresponding" adds E^k through a stride-2 Conv1x1.
    `additional_skip` adds E4 to the bottleneck output; `bottleneck=False` decodes from E4 alone.
    """

    backbone: Backbone = "resnet18"
    fusion: Literal["poster", "official", "none", "corresponding"] = "poster"
    additional_skip: bool = False
    bottleneck: bool = True
    skip_gate: Literal["none", "cosine"] = "none"


RANDOM_LAYER4 = " + random layer4"
"""Said in a teacher's detail where an ablation reads E4 and the weights file has no layer4."""


class TeacherOrigin(Record, frozen=True, kw_only=True):
    """Where the frozen teacher's weights came from; announced wherever a result is shown."""

    kind: Literal["file", "torchvision", "random"]
    detail: str
    sha256: str


class Roi(Record, frozen=True, kw_only=True):
    """A rectangle of the captured image, in pixels, that the network sees."""

    x: int
    y: int
    width: int
    height: int


class InputSpec(Record, frozen=True, kw_only=True):
    """How a captured image becomes the network's input.

    uint8 RGB -> optional ROI crop -> Pillow's antialiased bilinear resize in uint8 ->
    (v/255 - mean)/std as float32 NCHW. Height and width are multiples of 32.
    """

    height: int = 256
    width: int = 256
    resize: Literal["pillow-bilinear-u8"] = "pillow-bilinear-u8"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    roi: Roi | None = None


class ScoreContract(Record, frozen=True, kw_only=True):
    """How teacher and student features become a map and a score. An unknown contract is refused.

    map = sum over levels of R_l A_l R_l^T with A_l = 1 - cosine per pixel (two zero vectors: 0,
    one: 1) and R_l = Gaussian(sigma_px, radius_px, half-sample symmetric) x
    bilinear(align_corners=True).
    score = max of the map, or the mean of its `top_fraction` largest pixels. NaN scores +inf.
    """

    name: Literal["skrd4ad-map/1"] = "skrd4ad-map/1"
    levels: Literal["sum"] = "sum"
    upsample: Literal["bilinear-align-corners"] = "bilinear-align-corners"
    border: Literal["half-sample-symmetric"] = "half-sample-symmetric"
    sigma_px: float = 4.0
    radius_px: int = 16
    score: Literal["max", "top-mean"] = "max"
    top_fraction: float = 0.0


class ImageBaseline(Record, frozen=True, kw_only=True):
    """How the calibration's pictures looked: medians. The measures are in calibration/look.py."""

    brightness: float
    """Mean grey, 0 to 255."""
    sharpness: float
    n_images: int
    saturated: float = 0.0
    """Share of pixels with a channel at its upper end, 0 to 1."""


class Threshold(Record, frozen=True, kw_only=True):
    """The decision rule: score > value is a reject.

    Chosen as a conformal quantile of held-out normal scores (docs/calibration.md):
    P(false reject of a new normal part) <= target_false_reject_rate when attainable, otherwise
    `attainable_rate` = 1/(n_normals + 1) is what the number of images allows, and `value` is the
    largest normal score. `review_value` opens a band [value, review_value] reported as `review`.
    """

    value: float
    method: Literal["conformal", "cross-conformal", "manual", "escape"] = "conformal"
    """"cross-conformal": scores of folds, each part by a network that did not learn it; "escape":
    the largest value that bounds the escape rate of labelled defects; "manual": by a person."""
    target_false_reject_rate: float
    attainable_rate: float
    n_normals: int
    score_quantiles: tuple[float, ...] = ()
    """Held-out normal scores at 0, 5, 25, 50, 75, 95, 100 %: the baseline of drift."""
    images: ImageBaseline | None = None
    """How those images looked: the other baseline of drift."""
    review_value: float | None = None
    revision: int = 1
    created: str = ""
    source: str = ""
    camera: str = ""
    """Identity of the camera whose pictures it was chosen on; empty means any."""


class Region(Record, frozen=True, kw_only=True):
    """A named part of the picture. `polygon` is x, y in pixels of it, whole = pixel centre.

    score > threshold inside it is a reject; None means the plan's threshold. Scores up to and
    including `review_value` are for review. A defect grows from above `threshold` over what is
    above `grow_threshold`, and counts only when its area reaches both minima.
    """

    name: str
    polygon: tuple[tuple[float, float], ...]
    threshold: float | None = None
    review_value: float | None = None
    grow_threshold: float | None = None
    min_area_px: float = 0
    min_area_mm2: float = 0.0


class Regions(Record, frozen=True, kw_only=True):
    """Where to look in one camera's pictures. Drawn on one of `image_width` x `image_height`.

    A map pixel belongs to the first that covers it of: an ignore polygon, the regions in order,
    the rest of the image. The rest is judged with the plan's own threshold and with
    `grow_threshold`, `min_area_px` and `min_area_mm2` of this record.
    """

    schema: str = "skrd4ad-regions/1"
    image_width: int
    image_height: int
    ignore: tuple[tuple[tuple[float, float], ...], ...] = ()
    regions: tuple[Region, ...] = ()
    camera: str = ""
    """Identity of the camera they were drawn for; empty means any."""
    grow_threshold: float | None = None
    min_area_px: float = 0
    min_area_mm2: float = 0.0


class TensorInfo(Record, frozen=True, kw_only=True):
    """One input or output as read back from the built engine."""

    name: str
    direction: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]
    format: str = "linear"


class RunOrigin(Record, frozen=True, kw_only=True):
    """The training run that a plan was compiled from."""

    name: str
    weights_sha256: str
    split_sha256: str
    seed: int
    epochs: int
    n_fit: int
    n_calibration: int
    preset: str = ""
    loss: str = ""
    """The weights of the loss in words; runs of before it was kept have none."""
    product_version: str = ""


class Parity(Record, frozen=True, kw_only=True):
    """Measured agreement of the shipped bytes with the reference on the check images."""

    reference: str
    n_images: int
    map_max_abs: float
    map_tolerance: float
    score_max_abs: float
    score_tolerance: float


class Proof(Record, frozen=True, kw_only=True):
    """What `compile` established before it wrote the plan; `verify` establishes it again."""

    parity: tuple[Parity, ...]
    negative_controls: dict[str, str]
    latency_ms_p50: float
    latency_ms_p99: float


class Quantisation(Record, frozen=True, kw_only=True):
    """What int8 changed, measured by `compile` against float32 on the same pictures.

    Each precision has its own threshold, the largest score of every second held-out good part; the
    other good parts and the labelled images were judged by both (engine/int8_difference.py).
    """

    range_images: int
    """Good parts that fixed the ranges of the activations."""
    threshold_images: int
    judged_good: int
    judged_defective: int
    map_max_abs: float
    score_max_abs: float
    verdict_flips: int
    """Always 0 in a plan that was written."""
    float32_threshold: float
    int8_threshold: float
    float32_auroc: float | None
    """Image AUROC on labelled images; None when `compile` was given none."""
    int8_auroc: float | None
    speed_ratio: float
    """Time of float32 over time of int8 where the plan was made."""


class Member(Record, frozen=True, kw_only=True):
    """One file inside the plan."""

    sha256: str
    size: int


class Manifest(Record, frozen=True, kw_only=True):
    """`manifest.json` of a plan."""

    schema: Literal["skrd4ad-plan/1"] = "skrd4ad-plan/1"
    name: str
    created: str
    product_version: str
    network: NetworkSpec
    teacher: TeacherOrigin
    input: InputSpec
    score: ScoreContract
    backend: Backend
    precision: Precision
    batch: int
    tensors: tuple[TensorInfo, ...]
    build: dict[str, str]
    """Versions and device: onnxruntime, torch, and for TensorRT gpu, sm, tensorrt, cuda, driver."""
    run: RunOrigin
    proof: Proof
    members: dict[str, Member]
    threshold: Threshold | None = None
    regions: tuple[Regions, ...] = ()
    """One set for each camera at most; a station's own regions take their place."""
    quantisation: Quantisation | None = None
