"""The CPU engine against the numpy reference of the tiny network, and its check at the door."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.engine.backends.base import open_engine
from skrd4ad.engine.plan import load_plan, write_plan
from skrd4ad.errors import EngineError, PlanError


def test_engine_agrees_with_the_float64_reference(tiny: ModuleType, tiny_plan: Path) -> None:
    batch = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    with open_engine(load_plan(tiny_plan)) as engine:
        maps, scores = engine.infer(batch)
    expected_maps, expected_scores = tiny.tiny_reference(batch)
    assert maps.shape == (1, 64, 64)
    assert maps.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(maps, expected_maps, atol=1e-6)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_a_short_batch_gives_as_many_results_as_images(
    tiny: ModuleType, tmp_path: Path, write_tiny_plan: Callable[..., Path]
) -> None:
    batch = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    expected = tiny.tiny_reference(batch)[1]
    with open_engine(load_plan(write_tiny_plan(tmp_path / "p", batch=4))) as engine:
        for count in (1, 3, 4):
            maps, scores = engine.infer(batch[:count])
            assert len(maps) == count
            np.testing.assert_allclose(scores, expected[:count], atol=1e-6)


def test_a_nan_input_scores_infinity_and_never_nan(tiny_plan: Path) -> None:
    batch = np.zeros((1, 3, 64, 64), np.float32)
    batch[0, 1, 30, 30] = np.nan
    with open_engine(load_plan(tiny_plan)) as engine:
        maps, scores = engine.infer(batch)
    assert scores[0] == np.inf
    assert not np.isnan(maps).any()


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((2, 3, 64, 64), np.float32),
        np.zeros((0, 3, 64, 64), np.float32),
        np.zeros((1, 3, 64, 32), np.float32),
        np.zeros((3, 64, 64), np.float32),
        np.zeros((1, 3, 64, 64), np.float64),
    ],
)
def test_a_batch_of_another_shape_or_dtype_is_refused(tiny_plan: Path, batch: np.ndarray) -> None:
    with open_engine(load_plan(tiny_plan)) as engine, pytest.raises(EngineError, match="expected"):
        engine.infer(batch)


def test_another_backend_than_the_plans_is_refused_by_name(tiny_plan: Path) -> None:
    with pytest.raises(EngineError, match="compiled for onnxruntime, not for tensorrt"):
        open_engine(load_plan(tiny_plan), "tensorrt")


def test_the_choice_is_announced(tiny_plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "skrd4ad"), open_engine(load_plan(tiny_plan)) as engine:
        assert engine.description in caplog.text
    assert engine.description.startswith("onnxruntime-cpu fp32, ")


def test_a_model_with_other_tensors_than_promised_is_refused(
    tiny: ModuleType, tmp_path: Path
) -> None:
    members = {**tiny.tiny_members(64), "model.onnx": tiny.tiny_model(96)}
    plan = write_plan(tmp_path / "p", tiny.tiny_manifest(64), members)
    with pytest.raises(EngineError, match="expected"):
        open_engine(plan)


def test_a_model_that_is_no_model_is_refused_in_one_sentence(
    tiny: ModuleType, tmp_path: Path
) -> None:
    members = {**tiny.tiny_members(64), "model.onnx": b"not a model"}
    plan = write_plan(tmp_path / "p", tiny.tiny_manifest(64), members)
    with pytest.raises(EngineError, match="refuses the plan's model") as caught:
        open_engine(plan)
    assert "\n" not in caught.value.sentence


def test_a_plan_without_a_model_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", tiny.tiny_manifest(64), {"check.npz": b"x"})
    with pytest.raises(PlanError, match=r"no member 'model\.onnx'"):
        open_engine(plan)
