"""`skrd4ad feedback` on a real journal: the line's parts and the operators' marks in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from skrd4ad.cli import main
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.wire_messages import ModelFields

FREE = "tcp://127.0.0.1:0"


@pytest.fixture
def journal(tmp_path: Path, box_parts: ModuleType) -> Iterator[Path]:
    """The journal of a box that is still running: 60 parts of one plan, 3 of an older one.

    Part n scores n / 100; the line rejects above 0.5. Operators called 51 and 52 good, 60 defective
    and the passed 45 defective; the others above 0.5 nobody looked at.
    """
    path = tmp_path / "events.db"
    settings = PublishSettings(
        events=FREE, maps=FREE, map_policy="none", journal=JournalSettings(path=str(path))
    )
    seqs = {}
    with Publisher(settings, "edge07", model=ModelFields(name="old", plan="sha256:1")) as old:
        for _ in range(3):
            old.send_result(box_parts.result(1))
    model = ModelFields(name="transistor", plan="sha256:2")
    with Publisher(settings, "edge07", model=model) as publisher:
        for number in range(1, 61):
            verdict = Verdict.NG if number > 50 else Verdict.OK
            part = dataclasses.replace(
                box_parts.result(number, verdict), score=number / 100, threshold=0.5
            )
            seqs[number] = publisher.send_result(part)
        keeper = publisher._services.journal
        assert keeper is not None
        marks = [(51, "ng"), (51, "ok"), (52, "ok"), (60, "ng"), (45, "ng")]
        for number, truth in marks:  # the newest word on a part counts
            keeper.note_feedback(seqs[number], truth, "eva", "")
        reader = keeper.reader()
        box_parts.wait_for(lambda: len(reader.feedback()) == 4, "the journal thread to commit")
        reader.close()
        yield path


def test_a_running_lines_journal_becomes_a_proposal(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["feedback", "--journal", str(journal), "--false-reject-rate", "0.05"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_parts"], found["other"], found["model"]) == (60, 3, "transistor")
    assert (found["n_good"], found["n_good_marked"]) == (51, 2)
    assert (found["n_bad"], found["n_unseen_rejects"]) == (2, 7)
    now, proposed, no_escape = found["outcomes"]
    assert (now["threshold"], now["false_rejects"], now["escapes"]) == (0.5, 2, 1)
    assert proposed["threshold"] == pytest.approx(0.51)  # the 50th of 51 good scores
    assert (proposed["false_rejects"], proposed["escapes"]) == (1, 1)
    assert no_escape["threshold"] == pytest.approx(0.45)
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "Nothing was changed." in text
    assert "skrd4ad control threshold 0.51" in text
    assert "The 7 rejected parts that nobody looked at are left out" in text
    assert "would be 15.52% now and 13.79% with the proposal" in text  # 9 and 8 of 58


def test_what_cannot_be_answered_is_one_sentence(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["feedback", "--journal", str(journal), "--camera", "cam9"]) == 5
    assert "holds no inspected parts" in capsys.readouterr().err
    assert main(["feedback", "--journal", str(journal), "--since", "yesterday"]) == 2
    assert "--since yesterday is not a time" in capsys.readouterr().err
    assert main(["feedback", "--journal", str(tmp_path / "none.db")]) == 2
    assert "there is no journal" in capsys.readouterr().err
    foreign = tmp_path / "foreign.db"
    foreign.write_bytes(b"not a journal at all" * 100)
    assert main(["feedback", "--journal", str(foreign)]) == 2
    assert "cannot be read as a journal" in capsys.readouterr().err
    assert foreign.read_bytes() == b"not a journal at all" * 100
