"""What must never be shown: user and password in an address, secret keys, tokens.

Every log line and error passes through `redacted`. It rather hides too much than too little.
"""

from __future__ import annotations

import re

HIDDEN = "***"
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^\s'\"<>]*@")
"""Up to the last "@" of the word: a password may hold "@", "/" and ":" though it should not."""
_NAMED = re.compile(
    r"(?i)\b(pass(?:word|wd)?|pwd|pw|token|secret|api[_-]?key)(['\"]?\s*[=:]\s*['\"]?)"
    r"(?!\*)[^\s&'\",;})\]]+"
)
_SHORTEST_SECRET = 6
_kept: set[str] = set()


def keep_secret(text: str) -> None:
    """Hide this very text from now on, wherever it turns up: the secret half of a key."""
    if len(text) >= _SHORTEST_SECRET:
        _kept.add(text)


def redacted(text: str) -> str:
    """`text` with every secret in it replaced by ***."""
    for secret in _kept:
        text = text.replace(secret, HIDDEN)
    if "@" in text:
        text = _USER_AND_PASSWORD.sub(f"{HIDDEN}@", text)
    return _NAMED.sub(rf"\1\2{HIDDEN}", text)
