"""Where the fetched packages are. Everything below fails when they are missing; nothing skips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """These tests run when they are asked for by their marker, and not with the suite."""
    if "engine_proof" in config.getoption("-m"):
        return
    ours = [item for item in items if item.get_closest_marker("engine_proof")]
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="session")
def proof_folder() -> Path:
    """The folder install.py has filled: $SKRD4AD_PROOF, else .proof in the repository."""
    repository = Path(__file__).resolve().parents[4]
    folder = Path(os.environ.get("SKRD4AD_PROOF", repository / ".proof")).resolve()
    if not (folder / "site" / "pycuda").is_dir():
        pytest.fail(
            f"{folder} has no packages: run python tests/engine/shim/proof/install.py {folder}"
        )
    return folder


@pytest.fixture(scope="session")
def proof_environment(proof_folder: Path) -> dict[str, str]:
    """The environment of a process that sees those packages."""
    return os.environ | {"PYTHONPATH": str(proof_folder / "site")}
