"""What others chose is printed so that it moves no cursor and makes no line of its own."""

from __future__ import annotations

import argparse

import pytest
from livekit.protocol import models

from lkactor.cli import operate, participants

EVIL = "x\n\x1b[2Jkey accepted"
HARMLESS = "x\\n\\u001b[2Jkey accepted"


def test_a_participant(capsys: pytest.CaptureFixture[str]) -> None:
    track = models.TrackInfo(sid="TR_x", name=EVIL)
    info = models.ParticipantInfo(identity=EVIL, name=EVIL, metadata=EVIL, attributes={EVIL: EVIL}, tracks=[track])
    participants._print(info, False)
    said = capsys.readouterr().out
    assert "\x1b" not in said and len(said.splitlines()) == 6
    assert f"metadata: {HARMLESS}" in said
    assert f"attribute {HARMLESS}: {HARMLESS}" in said


def test_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    step = {"name": "token", "status": "failed", "ms": 1.0, "detail": EVIL}
    verdict = {"identity": EVIL, "room": EVIL, "outcome": "failed", "cause": EVIL, "fix": "", "steps": [step]}
    arguments = argparse.Namespace(command="explain")
    assert operate._show(arguments, {"joins": [verdict]}) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == f"{HARMLESS} in {HARMLESS}: failed ({HARMLESS})"
    assert "\x1b" not in said and len(said.splitlines()) == 2
