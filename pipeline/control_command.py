"""Ask a running line for something: trigger, threshold, reload, rollback, resync, drain, feedback,
audit.

What each role may ask is in docs/wire.md; everything that is asked is kept in the audit list.
"""

from __future__ import annotations

import argparse
import getpass
import json
import time

import msgspec

from .control_client import ControlClient
from .control_wire import AuditEntry
from .security import add_key_arguments, client_keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect", default="tcp://127.0.0.1:5558", metavar="URL", help="the control endpoint"
    )
    parser.add_argument("--wait-s", type=float, default=5.0, metavar="S", help="for an answer")
    parser.add_argument("--json", action="store_true", help="the answer as one JSON line")
    add_key_arguments(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    trigger = actions.add_parser("trigger", help="take a picture now")
    trigger.add_argument("--part", metavar="ID", help="which part this is")
    threshold = actions.add_parser("threshold", help="judge by another value from the next part on")
    threshold.add_argument("value", type=float)
    threshold.add_argument("--region", default="", help="a named region instead of the image")
    reload = actions.add_parser("reload", help="change to another plan between two parts")
    reload.add_argument("plan", help="the file, as the box sees it")
    rollback = actions.add_parser("rollback", help="back to the plan before the last change")
    resync = actions.add_parser("resync", help="pair triggers and frames anew (alarm 1004)")
    for one in (trigger, threshold, reload, rollback, resync):
        one.add_argument("--camera", default="", help="its name, where there are several")
    feedback = actions.add_parser("feedback", help="say what a part really was")
    feedback.add_argument("seq", type=int, help="the number of its event")
    feedback.add_argument("truth", choices=("ok", "ng"))
    feedback.add_argument("--note", default="", help="a few words")
    for one in (threshold, feedback):
        one.add_argument("--who", default=_user(), help="your name (default: the login)")
    actions.add_parser("drain", help="finish, say BYE and end")
    audit = actions.add_parser("audit", help="what was asked of this line, newest first")
    audit.add_argument("--limit", type=int, default=50)


def run(arguments: argparse.Namespace) -> int:
    keys = client_keys(arguments.key, arguments.server_key)
    with ControlClient(arguments.connect, keys, patience_s=arguments.wait_s) as client:
        text, found = _ask(client, arguments)
    print(json.dumps(found) if arguments.json else text)
    return 0


def _ask(client: ControlClient, arguments: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """(what to print, the same for programs)."""
    action = arguments.action
    if action == "trigger":
        number = client.trigger(arguments.part, arguments.camera)
        return f"trigger {number}", {"trigger_seq": number}
    if action == "threshold":
        revision = client.set_threshold(
            arguments.value, arguments.camera, arguments.region, arguments.who
        )
        text = f"threshold {arguments.value:g} from the next part on, revision {revision}; the plan"
        return f"{text} file is unchanged", {"revision": revision}
    if action == "reload":
        digest = client.reload_plan(str(arguments.plan), arguments.camera)
        return f"now on {arguments.plan} ({digest[:19]})", {"plan": digest}
    if action == "rollback":
        digest = client.rollback_plan(arguments.camera)
        return f"back on the plan before ({digest[:19]})", {"plan": digest}
    if action == "resync":
        client.resync(arguments.camera)
        return "triggers and frames are paired anew", {}
    if action == "feedback":
        client.feedback(arguments.seq, arguments.truth, arguments.who, arguments.note)
        return f"event {arguments.seq}: {arguments.truth}, noted", {}
    if action == "drain":
        client.drain()
        return "the line finishes and ends", {}
    entries = client.audit(arguments.limit)
    lines = [_line(entry) for entry in entries] or ["nothing was asked yet"]
    return "\n".join(lines), {"audit": msgspec.to_builtins(entries)}


def _line(entry: AuditEntry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.t / 1e9))
    who = f"{entry.who} ({entry.role})"
    return f"{when}Z  {who:24} {entry.op:9} {entry.arguments}  {entry.outcome}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without this user in its list
        return ""
