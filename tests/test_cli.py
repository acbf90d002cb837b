"""The command line: every verb has help, errors are one sentence with the documented exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from skrd4ad import __version__, cli
from skrd4ad.cli import VERBS, main


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"skrd4ad {__version__}"


def test_help_names_every_verb_without_importing_one() -> None:
    program = (
        "import sys; from skrd4ad.cli import build_parser; text = build_parser().format_help();"
        "print(text); assert not {'numpy', 'cv2', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert all(f"  {verb.name} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: skrd4ad {verb}")
    assert "exit codes" in shown


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["strem"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: argument VERB: there is no verb 'strem'; did you mean 'stream'?\n"
        "try:   skrd4ad --help has the options\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["stream", "--count", "0"], "argument --count: must be at least 1"),
        (["calibrate", "sea"], "invalid choice: 'sea'"),
        (["listen", "--conect", "tcp://127.0.0.1:5555"], "--conect"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_a_hint(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error
    assert hint.startswith(f"try:   skrd4ad {arguments[0]}")


def test_a_missing_extra_is_named() -> None:
    """An interpreter that cannot see torch, as on an edge box without the train extra."""
    program = (
        "import sys; sys.modules['torch'] = None; from skrd4ad.cli import main;"
        "sys.exit(main(['train', '--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "needs the package 'torch'" in done.stderr
    assert "skrd4ad[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_before_the_verb_is_known_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_parser", interrupted)
    assert main(["stream"]) == cli.EXIT_INTERRUPTED
