"""Which parts a policy chooses: for maps, for pictures and for the archive. Pure."""

from __future__ import annotations

import re

from .records import Verdict

POLICY_PATTERN = r"^(ng|all|none|every:[1-9][0-9]{0,8})$"
"""ng: all but ok; every:N: all but ok, and each N-th part."""


def is_policy(text: str) -> bool:
    """Whether `text` is one of ng, all, none and every:N."""
    return re.match(POLICY_PATTERN, text) is not None


def chosen(policy: str, verdict: Verdict, number: int) -> bool:
    """Whether the `number`-th part (from 1) with this verdict is chosen."""
    if policy in ("all", "none"):
        return policy == "all"
    if verdict is not Verdict.OK:
        return True
    if policy == "ng":
        return False
    return number % int(policy.partition(":")[2]) == 0
