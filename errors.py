"""The errors a user can cause or meet. Each is one sentence, one hint and one exit code.

Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SkrdError(Exception):
    """A condition of the world (not a bug) that ends the command.

    `sentence` says what was wrong, `hint` what to do about it; `exit_code` is part of the
    documented command-line contract.
    """

    exit_code = 1

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class ConfigError(SkrdError):
    """A wrong option, configuration key, or input folder (exit code 2)."""

    exit_code = 2


class DataError(ConfigError):
    """Images that are missing, unreadable or labelled in a way we cannot use (exit code 2)."""


class CameraError(SkrdError):
    """A camera that is missing, unreadable, or was lost for good (exit code 3)."""

    exit_code = 3


class EngineError(SkrdError):
    """A backend that cannot run here or failed while running (exit code 4)."""

    exit_code = 4


class PlanError(EngineError):
    """A plan file that is damaged, foreign, unproved, or built for another device (exit code 4)."""


class CalibrationError(SkrdError):
    """A threshold or geometry that is missing or cannot be computed (exit code 5)."""

    exit_code = 5


class NetworkError(SkrdError):
    """A socket that cannot be bound or reached, or a peer that is not allowed (exit code 6)."""

    exit_code = 6


class MissingExtra(ConfigError):
    """An optional package is not installed; names the extra that brings it (exit code 2)."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            f"install it with: pip install 'skrd4ad[{extra}]'",
        )


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint at the known word that is most like `word`; `otherwise` where none is like it."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else otherwise
