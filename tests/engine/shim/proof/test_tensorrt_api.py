"""Our TensorRT files against the real API: RTX's parser and builder, and three versions' types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine_proof

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[3]
OURS = ("engine.tensorrt_build", "engine.backends.tensorrt_cuda")
VERSIONS = ("10.3", "10.16", "11.4")
PLANTED = """\
import tensorrt as trt
def planted(c: trt.IBuilderConfig, b: trt.Builder, e: trt.ICudaEngine, x: trt.IExecutionContext):
    b.build_engine(None, c)  # gone in 10
    e.get_binding_index("x")  # gone in 10
    x.execute_async_v2([1], 0)  # gone in 10
    trt.BuilderFlag.FP16  # gone in 11
    b.platform_has_fast_fp16  # gone in 11
    b.create_network("one")  # a wrong type
    b.create_network().num_inputs  # None on failure, not checked
    b.create_builder_config().get_timing_cache().serialize()  # the same, twice
    b.reset("now")  # takes nothing
"""
ALWAYS_WRONG = {3, 4, 5, 8, 9, 10, 11}
EXPECTED_LINES = {"10.3": ALWAYS_WRONG, "10.16": ALWAYS_WRONG, "11.4": ALWAYS_WRONG | {6, 7}}


@pytest.mark.parametrize("backbone", ["resnet18", "wide_resnet50_2"])
def test_tensorrt_rtx_parses_and_builds_our_fp16_network(proof_environment, backbone):
    done = subprocess.run(
        [sys.executable, HERE / "on_tensorrt_rtx.py", backbone],
        env=proof_environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("passed"), done.stdout


@pytest.fixture(scope="session", params=VERSIONS)
def stubs(request, proof_folder, tmp_path_factory) -> tuple[str, Path]:
    """Type stubs generated from the real bindings of one version, as package `tensorrt`."""
    version = request.param
    folder = tmp_path_factory.mktemp(f"stubs{version}")
    libraries = folder / "libraries"
    libraries.mkdir()
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        target = libraries / f"lib{name}.so.{version.partition('.')[0]}"
        soname = f"-Wl,-soname,{target.name}"
        source = HERE / "tensorrt_entry_points.c"
        subprocess.run(["gcc", "-shared", "-fPIC", soname, source, "-o", target], check=True)
    paths = [proof_folder / "bindings" / version, proof_folder / "site"]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    command = [sys.executable, "-m", "pybind11_stubgen", "tensorrt_bindings.tensorrt"]
    subprocess.run(
        [*command, "--ignore-all-errors", "-o", folder / "raw"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (folder / "typed" / "tensorrt").mkdir(parents=True)
    raw = next((folder / "raw").rglob("tensorrt.pyi"), None) or next(
        (folder / "raw").rglob("__init__.pyi")
    )
    (folder / "typed" / "tensorrt" / "__init__.pyi").write_text(readable(raw.read_text()))
    (folder / "source").mkdir()
    (folder / "source" / "skrd4ad").symlink_to(REPOSITORY)
    return version, folder


MAY_BE_NONE = (
    *("build_serialized_network", "deserialize_cuda_engine", "create_execution_context"),
    *("create_network", "create_builder_config", "create_timing_cache", "get_timing_cache"),
    *("serialize", "get_output", "get_input", "get_error"),
)
"""What returns None on failure. pybind does not write it; with it a missing check is an error."""


def readable(stub: str) -> str:
    """Mend what the generator writes and no type checker reads; widen what pybind converts.

    Faults that lose no type (of inheritance, of generics without arguments) are left alone: the
    first line keeps mypy from reporting the generated text itself.
    """
    stub = re.sub(r"<[\w.]+: -?\d+>", "...", stub)
    lines = ["# mypy: ignore-errors, implicit-optional", "import builtins"]
    for line in stub.splitlines():
        if line.startswith("from __future__"):
            continue  # stubs need none, and it would have to come first
        if not re.match(r"(__all__|bool\b)", line):
            # `bool` is also the name of a tensor type in this module.
            line = re.sub(r"(?<![\w.'])bool\b", "builtins.bool", line)
        method = re.match(r"(\s*)def (\w+)\(", line)
        if method:
            line = re.sub(r"(: |-> |\[)\.\.\.(?=[,)\]:]|$)", r"\1typing.Any", line)
            if method[2] in MAY_BE_NONE:
                line = re.sub(r"-> (?!typing.Any)([\w.]+):", r"-> \1 | None:", line)
        broken = re.search(r"\b(in|lambda|from|is): ", line) or "<" in line
        if method and (broken or method[2] == "add_scale_nd"):
            body = " ..." if line.rstrip().endswith("...") else ""  # else a docstring follows
            anything = "self, *args: typing.Any, **kwargs: typing.Any"
            line = f"{method[1]}def {method[2]}({anything}) -> typing.Any:{body}"
        lines.append(line)
    text = "\n".join(lines)
    # IHostMemory has the buffer protocol, and bytes() of it is how an engine is read.
    buffer = "    def __buffer__(self, flags: int) -> memoryview: ...\n"
    text = re.sub(r"(class IHostMemory\b[^\n]*\n)", rf"\1{buffer}", text)
    # A Dims is a sequence of numbers to Python (its __getitem__ has no annotations).
    numbers = "    def __iter__(self) -> collections.abc.Iterator[int]: ...\n"
    text = re.sub(r"(class Dims:\n)", rf"\1{numbers}", text)
    return text + "\n__version__: str\n"


def mypy(folder: Path, *targets: str) -> str:
    environment = os.environ | {
        "MYPYPATH": os.pathsep.join((str(folder / "typed"), str(folder / "source")))
    }
    command = [sys.executable, "-m", "mypy", "--config-file", REPOSITORY / "pyproject.toml"]
    done = subprocess.run(
        [*command, "--cache-dir", folder / "cache", *targets],
        env=environment, capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_mypy_accepts_our_files_and_finds_planted_errors(stubs):
    version, folder = stubs
    planted = folder / "planted.py"
    planted.write_text(PLANTED)
    found = mypy(folder, str(planted))
    lines = {int(n) for n in re.findall(r"planted\.py:(\d+): error", found)}
    assert lines - {2} == EXPECTED_LINES[version], found  # line 2 has no return type
    modules = [part for module in OURS for part in ("-m", f"skrd4ad.{module}")]
    report = mypy(folder, *modules)
    assert "Success: no issues found in 2 source files" in report, report
