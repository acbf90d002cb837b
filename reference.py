"""The reference pages, written from the code: `python -m skrd4ad.reference docs/reference`.

A test compares the pages with what this writes, so that neither can change alone.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from . import errors
from .cli import EXIT_CODES, VERBS, HelpFormatter
from .engine.atomic import write_atomically
from .pipeline.field_docs import field_docs

_HEAD = "<!-- Written by `make reference` from the code; change the code, not this page. -->\n"


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    return {
        "commands.md": commands_page(),
        "station.md": station_page(),
        "training.md": training_page(),
        "codes.md": codes_page(),
    }


def commands_page() -> str:
    """Every verb with its options."""
    lines = [_HEAD, "# Commands\n", f"`skrd4ad VERB [options]`; {EXIT_CODES}.\n"]
    lines += [f"- [`{verb.name}`](#{verb.name}): {verb.job}" for verb in VERBS]
    for verb in VERBS:
        module = importlib.import_module(f".{verb.module}", __package__)
        parser = argparse.ArgumentParser(
            prog=f"skrd4ad {verb.name}", formatter_class=HelpFormatter, add_help=False
        )
        module.add_arguments(parser)
        lines += [f"\n## {verb.name}\n", _first_paragraph(module.__doc__ or verb.job), ""]
        lines += _parser_lines(parser, verb.name)
    return _joined(lines)


def station_page() -> str:
    """Every key of the station file."""
    from .pipeline.station import Station

    lines = [
        _HEAD,
        "# The station file\n",
        "`skrd4ad stream --station station.yaml`; `--check-config` prints what would run. An",
        "unknown key is an error that names the nearest known one. configs/station.yaml is one to",
        "start from, configs/schema/station.schema.json its JSON Schema for editors.\n",
        "| key | default | meaning |",
        "|---|---|---|",
        *(_row(*row) for row in _keys(Station, "")),
    ]
    return _joined(lines)


def training_page() -> str:
    """Every key of the training configuration."""
    from .trainer.config import TrainConfig

    lines = [
        _HEAD,
        "# The training configuration\n",
        "`skrd4ad train --config F` (configs/transistor.yaml is one); options win over the file.\n",
        "| key | default | meaning |",
        "|---|---|---|",
        *(_row(*row) for row in _keys(TrainConfig, "")),
    ]
    return _joined(lines)


def codes_page() -> str:
    """Topics, alarms and exit codes: what other programs may be written against."""
    from .pipeline.alarms import ALARMS
    from .pipeline.topics import KINDS

    kinds = [
        (f"`{info.shape}`", info.socket, "yes" if info.takes_seq else "no", info.sent)
        for info in KINDS.values()
    ]
    alarms = [(str(one.code), f"`{one.name}`", one.severity, one.meaning) for one in ALARMS]
    exits = sorted(
        (str(kind.exit_code), f"`{name}`", _first_paragraph(kind.__doc__ or ""))
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.SkrdError)
    )
    lines = [
        _HEAD,
        "# Topics, alarms, exit codes\n",
        "What other programs may be written against; the messages themselves are in",
        "[wire.md](../wire.md).\n",
        "## Topics\n",
        "| topic | socket | uses up a number | sent |",
        "|---|---|---|---|",
        *(_row(*row) for row in kinds),
        "\n## Alarms\n",
        "| code | name | severity | meaning |",
        "|---|---|---|---|",
        *(_row(*row) for row in alarms),
        "\n## Exit codes\n",
        "0 fine, 130 interrupted, and one for each kind of error:\n",
        "| code | error | what it means |",
        "|---|---|---|",
        *(_row(*row) for row in exits),
    ]
    return _joined(lines)


def _parser_lines(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    """A table of the options, then one for each job of a verb that has several."""
    rows, jobs = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            jobs += [(f"{name} {job}", child) for job, child in action.choices.items()]
        elif action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
            rows.append(_row(_option(action), _help(action)))
    if rows:
        yield from ("| option | |", "|---|---|", *rows)
    for job, child in jobs:
        yield f"\n### {job}\n"
        if child.description:
            yield _first_paragraph(child.description) + "\n"
        yield from _parser_lines(child, job)


def _option(action: argparse.Action) -> str:
    words = ", ".join(action.option_strings) or action.dest
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    if action.nargs == 0:
        return f"`{words}`"
    if action.choices is not None and action.metavar is None:
        value: Any = "|".join(str(choice) for choice in action.choices)
    else:
        value = action.metavar or action.dest.upper()
    shown = " ".join(value) if isinstance(value, tuple) else value
    return f"`{words} {shown}`"


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%")
    shows = isinstance(action.default, (int, float, str)) and action.default not in (False, "", 0)
    # Where the text itself speaks of the default it may depend on the machine.
    if action.required:
        return f"{text} (required)".strip()
    return f"{text} (default: {action.default})" if shows and "default" not in text else text


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of a record's fields, those of records inside it after their own."""
    meanings = field_docs(kind)
    types_of = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        inner = _record_in(types_of[field.name])
        many = "[]" if inner is not None and "tuple" in str(types_of[field.name]) else ""
        default = _default(field) if inner is None else ""
        meaning = meanings.get(field.name) or _choices(types_of[field.name])
        yield f"`{prefix}{field.encode_name}{many}`", default, meaning
        if inner is not None:
            yield from _keys(inner, f"{prefix}{field.encode_name}{many}.")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else ""
    if value is None or value == () or value == "":
        return ""
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(hint: Any) -> str:
    """The values of a Literal, for a key that nobody explained."""
    inner = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is Literal]
    return " or ".join(f"`{value}`" for value in typing.get_args(inner[0])) if inner else ""


def _record_in(hint: Any) -> type[msgspec.Struct] | None:
    """The record behind `X`, `X | None` or `tuple[X, ...]`; None where there is no single one."""
    if inspect.isclass(hint) and not isinstance(hint, types.GenericAlias):
        return hint if issubclass(hint, msgspec.Struct) else None
    found = [inner for inner in map(_record_in, typing.get_args(hint)) if inner is not None]
    return found[0] if len(found) == 1 else None


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split())


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Write all pages into `folder`."""
    for name, text in pages().items():
        write_atomically(folder / name, text.encode("utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
