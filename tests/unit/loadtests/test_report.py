"""Reports: what is marked, what is escaped, and that a page needs nothing from elsewhere."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtests.outcome import Outcome, Run
from loadtests.report import figures
from loadtests.report.document import Cell, Column, Figure, Panel, Report, Row, Section, Table
from loadtests.report.page import page, save
from loadtests.workloads.workload import Request, Workload

VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use"}


class Checker(HTMLParser):
    """Notes unclosed elements, repeated ids, and whatever would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.fetched.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.fetched == []
    assert "<script" not in html
    assert "@import" not in html
    return checker


def table(best: str | None = "low") -> Table:
    return Table(
        "policy",
        (Column("difference", 1, best=best, unit="service/s"), Column("remark")),
        (
            Row("FCFS", (Cell(433.53, beside=433.5, spread=(400.0, 450.0)), "slow <b>")),
            Row("VTC", (Cell(251.66), None)),
            Row("also VTC", (251.7, None)),
            Row("refuses", (83.58, "cheats"), ranks=False),
        ),
        note="lower is fairer",
        beside="paper",
    )


def report(*blocks: str | Table | Figure) -> Report:
    return Report(
        "A & B", "What was <found>", (Section("First", blocks),), ("simulated",), {"x": 1.5}
    )


def crowd(system: str, wait: float, clients: int = 3) -> Run:
    outcomes = []
    for number in range(60 * clients):
        at, name = number / clients, f"client{number % clients:02}"
        first = at + wait * (1 + number % clients)
        request = Request(at, name, 100, 50)
        outcomes.append(Outcome(request, "done", first + 5, 100, 50, first, first + 5))
    load = Workload("crowd", tuple(outcome.request for outcome in outcomes))
    return Run(load, system, 1, tuple(outcomes), 120.0)


def test_the_best_is_marked_as_it_is_shown_and_only_among_those_that_rank() -> None:
    html = page(report(table()))
    checked(html)
    # 251.66 and 251.7 are shown as one number, so both are best; 83.58 is no contest.
    assert html.count("<strong>251.7</strong>") == 2
    assert html.count("(best)") == 2
    assert "<strong>83.6" not in html
    assert "paper 433.5" in html
    assert "400.0 to 450.0" in html


@pytest.mark.parametrize(("best", "expected"), [("high", 433.5), ("low", 251.7), (None, None)])
def test_which_end_is_good(best: str | None, expected: float | None) -> None:
    assert table(best).best(0) == expected


def test_text_is_escaped() -> None:
    html = page(report("1 < 2 & so on", table()))
    checked(html)
    assert "1 &lt; 2 &amp; so on" in html
    assert "slow &lt;b&gt;" in html
    assert "What was &lt;found&gt;" in html


def test_a_row_needs_a_value_for_each_column() -> None:
    with pytest.raises(ValueError, match="VTC"):
        Table("policy", (Column("a"), Column("b")), (Row("VTC", (1.0,)),))


def test_pictures_of_runs_stand_in_the_page_in_its_colours() -> None:
    runs = [crowd("fcfs", 2.0), crowd("vtc", 1.0)]
    drawn = [
        figures.service_over_time(runs),
        figures.difference_over_time(runs),
        figures.gap_over_time(runs, ["client00", "client01"], bound=5000.0),
        figures.ttft_of_clients(runs),
    ]
    html = page(report(*drawn))
    ids = checked(html).ids
    assert any(name.startswith("f") for name in ids)
    assert len(drawn[0].panels) == 2  # one per run
    assert html.count("<svg") == 5
    assert "var(--c1)" in html
    assert not re.search("#0[1-4]0[0-9a-f]0[0-9a-f]\\b", html)  # none of the stand-in colours
    assert "bound 5,000" in html
    assert "<text" in html  # text stays text
    says = [panel.says for figure in drawn for panel in figure.panels]
    assert "Service received over time under fcfs. At the end: client00 12,000" in says[0]


def test_many_clients_are_cut_to_those_that_ask_for_most() -> None:
    figure = figures.service_over_time([crowd("vtc", 1.0, clients=12)], most=4)
    assert figure.panels[0].says.count("client") == 4
    assert "The 4 clients" in figure.caption


def test_a_report_is_saved_as_html_and_json(tmp_path: Path) -> None:
    figure = Figure((Panel("<svg></svg>", "nothing"),))
    html, data = save(report("Words.", table(), figure), tmp_path / "new", "try")
    assert html.read_text().startswith("<!doctype html>")
    numbers = json.loads(data.read_text())
    assert numbers["numbers"] == {"x": 1.5}
    section = numbers["sections"][0]
    assert section["text"] == ["Words."]
    assert section["tables"][0]["rows"][0] == {
        "policy": "FCFS",
        "difference": {"value": 433.53, "beside": 433.5, "spread": [400.0, 450.0]},
        "remark": "slow <b>",
    }
