"""Who may import whom, checked on the source text, and that no folder is left out of the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("engine", "calibration", "trainer", "pipeline")
GROUND_FLOOR = {"errors", "logs", "redaction", "built_types", "__init__"}
LONGEST_FILE_LINES = 400

# Package -> the packages of ours it may import. A value of one file names the only exceptions.
ALLOWED = {
    "engine": set(),
    "calibration": {"engine"},
    "pipeline": {"engine", "calibration"},
    "trainer": {"engine"},
}
EXCEPTIONS = {
    # compile and verify compare the plan with the torch network it came from.
    ("engine/export.py", "trainer"),
    ("engine/compile.py", "trainer"),
    ("engine/verify.py", "trainer"),
    # `bench --untrained` makes a network to time it.
    ("engine/untrained.py", "trainer"),
    # The test camera shows rendered parts; the renderer needs numpy and OpenCV only.
    ("pipeline/capture/pattern.py", "trainer"),
    # evaluate reports at the threshold that the plan or a fresh calibration gives.
    ("trainer/evaluate.py", "calibration"),
    # One definition of the Clopper-Pearson interval for shipped thresholds and for test figures.
    # The file in which a fold leaves its scores for the threshold.
    ("trainer/crossfit.py", "calibration"),
    ("trainer/metrics.py", "calibration"),
    ("trainer/bootstrap.py", "calibration"),
    ("trainer/evaluation.py", "calibration"),
}
ONLY_IMPORTERS = {
    "tensorrt": {"engine/tensorrt_build.py", "engine/backends/tensorrt_cuda.py"},
    "pycuda": {"engine/cuda.py"},
    "zmq": {"pipeline/publish.py", "pipeline/replay.py", "pipeline/control.py"}
    | {"pipeline/subscriber.py", "pipeline/security.py", "pipeline/fan_out.py"}
    | {"pipeline/control_client.py", "pipeline/services.py", "pipeline/link.py"},
    "paho": {"pipeline/bridges/mqtt.py"},
    "asyncua": {"pipeline/bridges/opcua.py", "pipeline/bridges/opcua_values.py"},
    "pymodbus": {"pipeline/bridges/modbus.py", "pipeline/gate/modbus.py"},
}


def sources() -> list[str]:
    return sorted(
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    )


def imported_modules(name: str) -> set[str]:
    """Dotted names, ours as `package.module`, everything else as its top-level name."""
    here = name.removesuffix(".py").split("/")
    found: set[str] = set()
    for node in ast.walk(ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level]
            module = [*base, *(node.module.split(".") if node.module else [])]
            found |= {".".join(["skrd4ad", *module, alias.name]) for alias in node.names}
    return found


@pytest.mark.parametrize("name", sources())
def test_each_file_imports_only_what_its_package_may(name: str) -> None:
    package = name.split("/")[0]
    for module in imported_modules(name):
        top = module.split(".")[0]
        assert top in ("", "skrd4ad") or name in ONLY_IMPORTERS.get(top, {name}), (
            f"{name} imports {top}; only {ONLY_IMPORTERS[top]} may"
        )
        if top != "skrd4ad":
            continue
        target = module.split(".")[1]
        if target in GROUND_FLOOR or target == package or target == "__version__":
            continue
        assert target in ALLOWED[package] or (name, target) in EXCEPTIONS, (
            f"{name} imports skrd4ad.{target}, which {package} may not"
        )


@pytest.mark.parametrize("name", [*sources(), "cli.py", "demo.py"])
def test_one_idea_per_file(name: str) -> None:
    lines = len((REPOSITORY / name).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE_LINES, f"{name} has {lines} lines"


def test_every_folder_with_code_is_in_the_wheel() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for folder in sorted({Path(name).parent.as_posix() for name in sources()}):
        assert f'"skrd4ad.{folder.replace("/", ".")}"' in text, f"{folder} is not in `packages`"


def test_the_edge_runtime_starts_light() -> None:
    """`import skrd4ad.pipeline` and the stream verb pull neither torch nor tensorrt."""
    program = (
        "import sys, time; start = time.perf_counter(); import skrd4ad.pipeline;"
        "seconds = time.perf_counter() - start; import skrd4ad.pipeline.stream;"
        "heavy = {'torch', 'tensorrt', 'torchvision', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy; print(seconds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5


@pytest.mark.parametrize("name", sources())
def test_types_go_to_msgspec_through_built_types(name: str) -> None:
    """msgspec builds a type on first use, and two threads that do it at once end the process."""
    tree = ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        asked = ast.unparse(call.func)
        assert not asked.startswith("msgspec.msgpack"), f"{name}: not guarded here"
        if asked in {"msgspec.json.decode", "msgspec.yaml.decode"}:
            types = [word.value for word in call.keywords if word.arg == "type"]
        elif asked == "msgspec.convert":
            types = call.args[1:2]
        elif asked == "msgspec.json.Decoder":
            types = call.args[:1]
        else:
            continue
        for one in map(ast.unparse, types):
            known = one.startswith(("built(", "dict[", "str"))
            assert known, f"{name}:{call.lineno}: {one} is not built()"
