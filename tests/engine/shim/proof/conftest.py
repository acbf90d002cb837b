"""Where the fetched packages are. Everything below fails when they are missing; nothing skips."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    if not (folder / "site" / "pycuda").is_dir() or not (folder / "cuda_home").is_file():
        pytest.fail(
            f"{folder} is not complete: run python tests/engine/shim/proof/install.py {folder}"
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def cuda_home(proof_folder: Path) -> Iterator[None]:
    """The toolkit that install.py found or fetched is the one the product's code finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_HOME", (proof_folder / "cuda_home").read_text())
        yield


@pytest.fixture(scope="session")
def proof_environment(proof_folder: Path) -> dict[str, str]:
    """The environment of a process that sees those packages."""
    return os.environ | {"PYTHONPATH": str(proof_folder / "site")}
