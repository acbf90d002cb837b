"""Two threads meet a type for the first time at once, in a process of its own: it may end it."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_MEETINGS = r"""
import sys, threading, types
import msgspec
from skrd4ad.built_types import built

sys.setswitchinterval(1e-6)
INNER = "".join(f"    a{at}: Annotated[int, Meta(ge=0)] = 0\n" for at in range(20))
OUTER = "".join(f"    b{at}: list[Inner] | None = None\n" for at in range(10))
SOURCE = f'''
from __future__ import annotations
from typing import Annotated
from msgspec import Meta, Struct
class Inner(Struct):
{INNER}
class Outer(Struct):
{OUTER}
'''
for turn in range(int(sys.argv[1])):
    module = types.ModuleType(f"turn{turn}")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    start, seen = threading.Barrier(4), []

    def meet(raw, kind):
        start.wait()
        seen.append(msgspec.json.decode(raw, type=built(kind)))

    pairs = [(b'{"a1": 1}', module.Inner), (b'{"b1": [{"a2": 4}]}', module.Outer)] * 2
    threads = [threading.Thread(target=meet, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert {one.a1 for one in seen if isinstance(one, module.Inner)} == {1}
    assert {one.b1[0].a2 for one in seen if isinstance(one, module.Outer)} == {4}
print("all met")
"""


@pytest.mark.parametrize("run", range(3))
def test_threads_that_meet_a_type_at_once_all_decode_it(run: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_MEETINGS, "200"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all met\n"), done.stderr
