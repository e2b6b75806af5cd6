"""Lines of the log, as people and as programs read them."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest

from fairness.log_lines import LineFormatter, show_lines


def line(kind: Any, message: str, fields: dict[str, Any], **about: Any) -> str:
    record = logging.makeLogRecord({"msg": message, "name": "router.app", "levelname": "INFO"})
    record.fields = fields
    return LineFormatter(kind, lambda: about).format(record)


def test_json_has_the_requests_fields_and_the_records_own() -> None:
    told = json.loads(line("json", 'say "hi"\n', {"status": 200}, request_id="a-1"))
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "INFO",
        "logger": "router.app",
        "message": 'say "hi"\n',
        "request_id": "a-1",
        "status": 200,
    }


def test_text_is_one_line_whatever_the_fields_hold() -> None:
    told = line("text", "hello", {"why": "a b\nc", "none": None}, client="é")
    assert told.endswith('INFO router.app hello client=é why="a b\\nc" none=-')


def test_an_exception_is_part_of_it() -> None:
    try:
        raise ValueError("played")
    except ValueError:
        record = logging.makeLogRecord({"msg": "it", "exc_info": sys.exc_info()})
    assert (
        "ValueError: played" in json.loads(LineFormatter("json", dict).format(record))["exception"]
    )


def test_shown_once_and_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", shown)
    logger = logging.getLogger("fairlane-test")
    for _ in range(2):
        show_lines(["fairlane-test"], "text", dict)
    try:
        logging.getLogger("fairlane-test.part").info("once")
    finally:
        logger.handlers.clear()
    assert shown.getvalue().count("once") == 1
    assert not logger.propagate
