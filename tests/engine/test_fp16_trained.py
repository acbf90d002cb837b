"""FP16 on a network trained on real images: the deviation a GPU plan will be held to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="trains a network")

from skrd4ad import cli  # noqa: E402
from skrd4ad.engine.export import export_model  # noqa: E402
from skrd4ad.engine.fp16 import check_activations, measure_deviation, to_fp16  # noqa: E402
from skrd4ad.engine.gpu_plan import FEATURE_REL_RMS_LIMIT, MAP_LIMIT  # noqa: E402
from skrd4ad.engine.images import read_rgb  # noqa: E402
from skrd4ad.engine.preprocess import to_network_input  # noqa: E402
from skrd4ad.trainer.checkpoint import load_run  # noqa: E402
from skrd4ad.trainer.map_head import Inspector  # noqa: E402


@pytest.mark.soak
@pytest.mark.shared
def test_fp16_of_a_trained_network_keeps_features_maps_and_verdicts(
    shared_data: Path, tmp_path: Path
) -> None:
    """ResNet-18, real teacher and parts. The threshold is the largest held-out good score."""
    torch.set_num_threads(2)
    weights = next((shared_data / "weights").glob("resnet18*.pth"))
    code = cli.main(
        [
            *("train", "--data", str(shared_data), "--category", "mvtec_transistor"),
            *("--backbone-weights", str(weights), "--epochs", "4", "--image-size", "128"),
            *("--out", str(tmp_path / "run")),
        ]
    )
    assert code == 0
    run = load_run(tmp_path / "run")
    inspector = Inspector(run.network, run.input, run.score).eval()
    features, maps = (export_model(inspector, 1, form).model for form in ("features", "map"))
    held_out = load(run.calibration_paths(), run.input)
    with torch.inference_mode():
        threshold = float(inspector(torch.from_numpy(held_out))[1].max())
    tests = shared_data / "mvtec_transistor" / "test"
    images = load(sorted(tests.rglob("*.png"))[::2], run.input)

    largest = check_activations(features, images)
    deviation = measure_deviation(
        (features, to_fp16(features)), (maps, to_fp16(maps)), images, threshold
    )
    print(f"{len(images)} images, largest activation {largest:.3g}, {deviation}")
    assert max(deviation.feature_rel_rms) <= FEATURE_REL_RMS_LIMIT
    assert deviation.map_max_abs <= MAP_LIMIT
    assert deviation.verdict_flips == 0


def load(paths: list[Path], spec: object) -> np.ndarray:
    return np.stack([to_network_input(read_rgb(path), spec) for path in paths])
