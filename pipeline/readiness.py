"""What must hold of a plan before a verdict may rest on it."""

from __future__ import annotations

from ..engine.plan import Plan
from ..engine.spec import Manifest, Threshold
from ..errors import CalibrationError


def plan_threshold(plan: Plan) -> Threshold:
    """The plan's threshold. Raises CalibrationError, with the command that makes one."""
    if plan.manifest.threshold is None:
        raise CalibrationError(
            f"{plan.path} has no threshold, so no part could be judged",
            f"skrd4ad calibrate threshold --plan {plan.path} --run RUN_FOLDER",
        )
    return plan.manifest.threshold


def teacher_warning(manifest: Manifest) -> str:
    """What to tell whoever reads results of a teacher that never saw real pictures; else ""."""
    if manifest.teacher.kind == "random":
        return (
            "the teacher's weights are random, not trained on photographs: fit for demonstration, "
            "not for production"
        )
    return ""
