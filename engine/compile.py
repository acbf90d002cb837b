"""Turn a run folder into one proved plan file. Nothing is written unless every check passes.

The network is exported, sealed into a plan, opened again from those very bytes and compared with
the torch network on images that training held out.
"""

from __future__ import annotations

import argparse
import logging
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import ConfigError, EngineError
from .atomic import write_atomically
from .backends.base import BACKEND_CHOICES, open_engine
from .check_set import MEMBER as CHECK_MEMBER
from .check_set import CheckPictures, check_set_bytes, choose_pictures, read_check_set
from .devices import fastest_backend, obstacle, package_version
from .export import OPSET, Exporter, export_model
from .plan import Plan, parse_plan, plan_bytes
from .plan_content import PlanContent
from .preprocess import check_input_spec
from .proof import Examination, Finding, examine, quantisation_text, table_text
from .score_map import combine, cosine_distance
from .spec import (
    Backend,
    InputSpec,
    Manifest,
    Parity,
    Precision,
    Proof,
)

if TYPE_CHECKING:
    from ..trainer.checkpoint import Run
    from ..trainer.map_head import Inspector
    from .int8_difference import JudgedImages

logger = logging.getLogger(__name__)

REFERENCE = "torch float32"
HEAD_TOLERANCE = 1e-5
"""Torch's float32 map head against the float64 reference on the same features."""
_NO_PROOF = Proof(parity=(), negative_controls={}, latency_ms_p50=0.0, latency_ms_p99=0.0)


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """What `compile` was asked for."""

    run: Path
    out: Path
    backend: Backend | None = None
    """None: the fastest that can run here, announced."""
    batch: int = 1
    image_size: tuple[int, int] | None = None
    """Height and width; None: as trained."""
    name: str | None = None
    exporter: Exporter = "legacy"
    precision: Precision | None = None
    """None: float32 on a CPU, FP16 on a GPU."""
    data: Path | None = None
    """Labelled images on which int8 must change no verdict."""
    category: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `skrd4ad compile`."""
    parser.add_argument("--run", type=Path, required=True, help="run folder made by train")
    parser.add_argument("--out", type=Path, required=True, help="plan file to write")
    parser.add_argument(
        "--backend",
        choices=BACKEND_CHOICES,
        default="auto",
        help="where the plan runs; auto takes tensorrt when this machine can, and says so",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", *get_args(Precision)),
        default="auto",
        help="auto: fp32 on a CPU, fp16 on a GPU; int8 (CPU) is refused when it changes a verdict",
    )
    parser.add_argument(
        "--data", type=Path, default=None, help="int8: labelled images to judge it by as well"
    )
    parser.add_argument("--category", default=None, help="category below --data")
    parser.add_argument("--batch", type=int, default=1, help="images per inference, 1 ... 8")
    parser.add_argument(
        "--image-size", type=_size, default=None, help="H,W of the network's input; as trained"
    )
    parser.add_argument("--name", default=None, help="the plan's name; the file's stem")
    parser.add_argument(
        "--exporter", choices=("legacy", "dynamo"), default="legacy", help="torch's ONNX exporter"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compile, print the parity table, write the plan."""
    settings = CompileSettings(
        run=arguments.run,
        out=arguments.out,
        backend=None if arguments.backend == "auto" else arguments.backend,
        batch=arguments.batch,
        image_size=arguments.image_size,
        name=arguments.name,
        exporter=arguments.exporter,
        precision=None if arguments.precision == "auto" else arguments.precision,
        data=arguments.data,
        category=arguments.category,
    )
    plan, examination = compile_plan(settings)
    print(table_text(examination.findings))
    if plan.manifest.quantisation is not None:
        print(quantisation_text(plan.manifest.quantisation))
    print(
        f"latency p50 {examination.latency_ms_p50:.1f} ms, p99 {examination.latency_ms_p99:.1f} ms"
        f" (batch {plan.manifest.batch}, this machine)"
    )
    print(f"wrote {plan.path} ({len(plan.data) / 1e6:.1f} MB, {plan.digest[:19]})")
    print(f"next: skrd4ad calibrate threshold --plan {plan.path} --run {settings.run}")
    return 0


def compile_plan(settings: CompileSettings) -> tuple[Plan, Examination]:
    """Export, prove and write. Raises EngineError, and writes nothing, when a check fails."""
    if not 1 <= settings.batch <= 8:
        raise ConfigError(f"--batch {settings.batch} is not in 1 ... 8")
    backend = _choose_backend(settings.backend)
    precision = _choose_precision(backend, settings.precision)
    if settings.data is not None and precision != "int8":
        raise ConfigError("--data is for judging int8", "add --precision int8, or leave --data out")
    trained = _load(settings.run)
    spec = _input_spec(trained.input, settings.image_size)
    pictures = choose_pictures(_existing(trained), spec)
    inspector = _inspector(trained, spec)
    maps, scores = _reference(inspector, pictures.network_input(spec))

    inputs = pictures.network_input(spec)
    content = _content(settings, backend, precision, trained, spec, inspector, inputs)
    members = content.members | {CHECK_MEMBER: check_set_bytes(pictures, maps, scores)}
    draft = _manifest(settings, trained, spec, backend, precision, content)
    extra = (_head_agrees(inspector, pictures, spec, maps), *content.controls)
    examination = _examine_draft(draft, members, settings.out, content, extra)
    if examination.failed:
        print(table_text(examination.findings))
        failed = ", ".join(finding.name for finding in examination.failed)
        raise EngineError(
            f"the plan was not written: {len(examination.failed)} check(s) failed ({failed})",
            "see the table above; a network that was hardly trained can fail its parity",
        )
    return _write(settings.out, draft, members, examination), examination


def _content(
    settings: CompileSettings,
    backend: Backend,
    precision: Precision,
    trained: Run,
    spec: InputSpec,
    inspector: Inspector,
    inputs: NDArray[np.float32],
) -> PlanContent:
    # First, because the export takes a while and this may refuse.
    judged = _judged(settings, trained, spec) if precision == "int8" else None
    exported = export_model(inspector, settings.batch, "map", settings.exporter)
    if backend != "onnxruntime":
        from .gpu_plan import build_gpu_content

        features = export_model(inspector, settings.batch, "features", settings.exporter)
        return build_gpu_content(features, exported, inputs, backend)
    from .cpu_plan import float_content, int8_content

    if judged is None:
        return float_content(exported, inputs)
    return int8_content(exported, inputs, judged)


def _judged(settings: CompileSettings, trained: Run, spec: InputSpec) -> JudgedImages:
    from .int8_difference import JudgedImages

    labelled: list[tuple[Path, bool]] = []
    if settings.data is not None:
        from ..trainer.datasets import find_dataset

        dataset = find_dataset(settings.data, settings.category)
        labelled = [(sample.path, sample.is_defective) for sample in dataset.test]
        if not any(defective for _, defective in labelled):
            raise ConfigError(f"{dataset.root} has no labelled images of defective parts")
    judged = JudgedImages(spec, trained.fit_paths(), trained.calibration_paths(), labelled)
    judged.check()
    return judged


def _choose_precision(backend: Backend, wanted: Precision | None) -> Precision:
    """float32 on a CPU and FP16 on a GPU unless int8 was asked for; anything else is refused."""
    possible: tuple[Precision, ...] = ("fp32", "int8") if backend == "onnxruntime" else ("fp16",)
    if wanted is None:
        return possible[0]
    if wanted not in possible:
        raise ConfigError(
            f"the precision of a plan for {backend} cannot be {wanted}",
            f"it can have {' or '.join(possible)}",
        )
    return wanted


def _examine_draft(
    draft: Manifest,
    members: dict[str, bytes],
    out: Path,
    content: PlanContent,
    extra: tuple[Finding, ...],
) -> Examination:
    """Seal the draft, open those bytes and examine them through the product path."""
    data = plan_bytes(draft, members)
    plan = parse_plan(data, out)
    wanted = Parity(
        reference=REFERENCE,
        n_images=0,
        map_max_abs=0.0,
        map_tolerance=content.map_tolerance,
        score_max_abs=0.0,
        score_tolerance=content.score_tolerance,
    )
    with open_engine(plan) as engine:
        found = examine(plan, data, engine, read_check_set(plan), wanted)
    controls = {finding.name: finding.found for finding in extra}
    return Examination(
        findings=(*found.findings, *extra),
        parity=found.parity,
        negative_controls=found.negative_controls | controls,
        latency_ms_p50=found.latency_ms_p50,
        latency_ms_p99=found.latency_ms_p99,
    )


def _write(out: Path, draft: Manifest, members: dict[str, bytes], examination: Examination) -> Plan:
    """The same members with the proof entered; opened once more before the file appears."""
    proof = Proof(
        parity=(examination.parity,),
        negative_controls=examination.negative_controls,
        latency_ms_p50=examination.latency_ms_p50,
        latency_ms_p99=examination.latency_ms_p99,
    )
    data = plan_bytes(msgspec.structs.replace(draft, proof=proof), members)
    plan = parse_plan(data, out)
    for name, content in members.items():
        if plan.read(name) != content:
            raise EngineError(f"member {name} changed while the plan was sealed")
    write_atomically(out, data)
    return plan


def _choose_backend(wanted: Backend | None) -> Backend:
    chosen = wanted or fastest_backend()
    problem = obstacle(chosen)
    if problem is not None:
        raise EngineError(
            f"a {chosen} plan cannot be made here: {problem}",
            "use --backend onnxruntime here, or compile on the device that will run the plan",
        )
    if wanted is None:
        why = obstacle("tensorrt")
        logger.info("backend %s%s", chosen, f" (tensorrt: {why})" if why else "")
    return chosen


def _load(folder: Path) -> Run:
    from ..trainer.checkpoint import load_run

    return load_run(folder)


def _existing(trained: Run) -> list[Path]:
    """Held-out images first; fitted ones only when fewer than needed are held out."""
    held_out, fitted = trained.calibration_paths(), trained.fit_paths()
    return held_out if len(held_out) >= 8 else [*held_out, *fitted]


def _input_spec(trained: InputSpec, size: tuple[int, int] | None) -> InputSpec:
    if size is None:
        return trained
    spec = msgspec.structs.replace(trained, height=size[0], width=size[1])
    check_input_spec(spec)
    if size != (trained.height, trained.width):
        logger.warning(
            "input %d x %d differs from the %d x %d the network was trained on (height x width)",
            *size,
            trained.height,
            trained.width,
        )
    return spec


def _inspector(trained: Run, spec: InputSpec) -> Inspector:
    from ..trainer.map_head import Inspector

    inspector = Inspector(trained.network, spec, trained.score)
    inspector.eval()
    return inspector


def _reference(
    inspector: Inspector, inputs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps and scores of the torch network, one image at a time."""
    import torch

    maps, scores = [], []
    with torch.inference_mode():
        for image in inputs:
            anomaly_map, score = inspector(torch.from_numpy(image[None]))
            maps.append(anomaly_map.numpy())
            scores.append(score.numpy())
    return np.concatenate(maps), np.concatenate(scores)


def _head_agrees(
    inspector: Inspector, pictures: CheckPictures, spec: InputSpec, maps: NDArray[np.float32]
) -> Finding:
    """The reference itself is checked: float64 map of the torch features, on four images."""
    import torch

    count = 4
    inputs = pictures.network_input(spec)[-count:]  # the patched ones: their maps have a defect
    with torch.inference_mode():
        features = inspector.network(torch.from_numpy(inputs))
    distances = [
        cosine_distance(taught.numpy(), rebuilt.numpy())
        for taught, rebuilt in zip(features.teacher, features.student, strict=True)
    ]
    expected = combine(distances, inspector.head.contract, (spec.height, spec.width))
    difference = float(np.abs(expected - maps[-count:]).max())
    return Finding(
        "torch map against float64",
        f"{difference:.1e}",
        f"<= {HEAD_TOLERANCE:.1e}",
        difference <= HEAD_TOLERANCE,
    )


def _manifest(
    settings: CompileSettings,
    trained: Run,
    spec: InputSpec,
    backend: Backend,
    precision: Precision,
    content: PlanContent,
) -> Manifest:
    packages = ("torch", "onnx", "numpy", "pillow")
    return Manifest(
        name=settings.name or settings.out.stem,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        product_version=__version__,
        network=trained.spec,
        teacher=trained.teacher,
        input=spec,
        score=trained.score,
        backend=backend,
        precision=precision,
        batch=settings.batch,
        tensors=content.tensors,
        build={
            "exporter": settings.exporter,
            "opset": str(OPSET),
            **{name: package_version(name) or "unknown" for name in packages},
            "python": platform.python_version(),
            "machine": platform.machine(),
            **content.build,
        },
        run=trained.origin,
        proof=_NO_PROOF,
        members={},
        quantisation=content.quantisation,
    )


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.partition(",")
    if not separator or not height.strip().isdecimal() or not width.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not H,W such as 256,256")
    return int(height), int(width)
