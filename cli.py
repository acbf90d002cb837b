"""One program, one verb per job: this table is the command line, each verb lives by its code.

A verb module has `add_arguments(parser)` and `run(arguments) -> int`. It is imported only when its
verb is used, so that `stream` starts without torch and `--help` starts at once.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from . import __version__, logs
from .errors import ConfigError, MissingExtra, SkrdError, nearest
from .redaction import redacted

EXIT_INTERRUPTED = 130
EXIT_CODES = """exit codes: 0 fine, 2 usage or configuration, 3 camera, 4 plan or engine,
5 calibration, 6 network or security, 130 interrupted"""


EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "onnx", "onnxscript", "safetensors"), "train"),
    **dict.fromkeys(("sklearn", "scipy", "matplotlib", "tensorboard", "tqdm"), "train"),
    **dict.fromkeys(("tensorrt", "pycuda"), "tensorrt"),
    **dict.fromkeys(("paho", "asyncua", "pymodbus"), "bridges"),
}
"""Optional packages and the extra that brings each."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default only where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default in ([], ""):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A wrong option is one sentence and a hint like any other mistake, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(_say(ConfigError(message, f"{self.prog} --help has the options")))


class Verb(NamedTuple):
    name: str
    module: str
    job: str


VERBS = (
    Verb("data", "trainer.data_report", "look at a data set: found, refused, and why"),
    Verb("train", "trainer.train", "images of good parts -> run folder"),
    Verb("bench-train", "trainer.benchmark", "a training step beside the released recipe's"),
    Verb("evaluate", "trainer.evaluate", "run or plan + labelled images -> metrics and report"),
    Verb("compile", "engine.compile", "run folder -> proved plan"),
    Verb("verify", "engine.verify", "plan -> parity and health table"),
    Verb("bench", "pipeline.bench", "plan -> latency per stage; --stages: of the whole line"),
    Verb("doctor", "engine.doctor", "what is installed, which backends can run, what to do"),
    Verb("calibrate", "calibration.calibrate", "good images -> threshold stored in the plan"),
    Verb("stream", "pipeline.stream", "the line: camera -> verdicts over ZeroMQ"),
    Verb("inspect", "pipeline.inspection", "a folder or files through the same path, offline"),
    Verb("listen", "pipeline.listen", "subscribe, show, record; is it camera, box or network?"),
    Verb("serve", "pipeline.serve", "the operator's page in a browser, its own process"),
    Verb("ablate", "trainer.ablation", "every row of the ablation table, trained and compared"),
    Verb("reproduce", "trainer.reproduce", "the poster's tables beside ours"),
    Verb("replay", "pipeline.fetch", "past events from a box's journal"),
    Verb("bridge", "pipeline.bridges.bridge", "a box's results to MQTT, OPC UA or Modbus TCP"),
    Verb("control", "pipeline.control_command", "ask a running line: trigger, threshold, reload"),
    Verb("feedback", "pipeline.feedback_command", "what operators found -> a proposed threshold"),
    Verb("keys", "pipeline.keys", "keys and roles of the clients of a box"),
    Verb("render", "trainer.synthetic", "render a synthetic data set or belt video"),
    Verb("demo", "demo", "all of the above on rendered parts"),
)


def build_parser() -> argparse.ArgumentParser:
    """The top level: the verb table and nothing else (no verb is imported)."""
    table = "\n".join(f"  {verb.name:11} {verb.job}" for verb in VERBS)
    parser = Parser(
        prog="skrd4ad",
        usage="skrd4ad VERB [options]      (skrd4ad VERB --help for the options)",
        description=f"Real-time visual inspection, SK-RD4AD.\n\nverbs:\n{table}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skrd4ad {__version__}")
    parser.add_argument("verb", type=_verb, metavar="VERB")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _verb(name: str) -> Verb:
    for verb in VERBS:
        if verb.name == name:
            return verb
    meant = nearest(name, [verb.name for verb in VERBS])
    raise argparse.ArgumentTypeError(f"there is no verb '{name}'" + (f"; {meant}" if meant else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Errors of the world become one sentence, one hint and an exit code."""
    try:
        arguments = build_parser().parse_args(argv)
        verb: Verb = arguments.verb
        module = importlib.import_module(f".{verb.module}", __package__)
        parser = Parser(
            prog=f"skrd4ad {verb.name}",
            description=(module.__doc__ or verb.job).partition("\n\n")[0],
            epilog=EXIT_CODES,
            formatter_class=HelpFormatter,
        )
        module.add_arguments(parser)
        logs.configure()
        code = module.run(parser.parse_args(arguments.rest))
        sys.stdout.flush()
        return int(code)
    except SkrdError as error:
        return _say(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        return _say(MissingExtra(package, EXTRA_OF[package], f"skrd4ad {verb.name}"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `skrd4ad listen | head`: the reader has left. Point stdout elsewhere so that the
        # interpreter's own flush at exit does not raise a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _say(error: SkrdError) -> int:
    if logs.is_json():
        fields = logs.with_fields(hint=error.hint, exit_code=error.exit_code)
        logging.getLogger(__package__).error("%s", error.sentence, extra=fields)
        return error.exit_code
    print(f"error: {redacted(error.sentence)}", file=sys.stderr)
    if error.hint:
        print(f"try:   {redacted(error.hint)}", file=sys.stderr)
    return error.exit_code


def command() -> None:
    """The program `skrd4ad`: `main`, then the end of the process."""
    code = main()
    if sys.argv[1:2] == ["stream"]:
        _leave_line(code)
    sys.exit(code)


def main_stream() -> None:
    """`skrd4ad-stream ...` is `skrd4ad stream ...`."""
    _leave_line(main(["stream", *sys.argv[1:]]))


def _leave_line(code: int) -> NoReturn:
    """End the line's process with `code`, also past a camera or engine that has not returned.

    Python unwinds daemon threads as it ends. Inside C++ (OpenCV, a camera's SDK) that is an abort:
    134 instead of our exit code, and a core dump. Where one is left the process ends at once;
    the line has closed its files and sockets by then.
    """
    if not any(thread.daemon for thread in threading.enumerate()):
        sys.exit(code)
    logging.shutdown()
    try:
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
