"""The pages in a real browser, under live load: what they show, to eyes, keys and screen readers.

Log in, look at each page in both themes and on a phone, and have axe-core look for what it knows of
accessibility. The browser's own word (console, policy) counts: it must have nothing to complain of.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from router.clients import Client
from router.directory.records import Actor
from tests.browser.chrome import Page
from tests.browser.played import ACME, ADMIN, FLOODS, POOL, Flood, Played, played

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

WHO = Actor("0123456789ab", "127.0.0.1")
HOSTILE = "<img src=x onerror=alert(1)>&quot;'\"`${1}"
CROWD = 10_000
EXPECTED = ("/dashboard/session", "/dashboard/admin/requests", "/me")  # 401, 404: no faults
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
PAGES = {
    "overview": "#/",
    "clients": "#/clients",
    "client": "#/clients/alice",
    "groups": "#/groups",
    "what if": "#/what-if?client=alice",
}


@pytest_asyncio.fixture
async def stage(store_url: str) -> AsyncIterator[Played]:
    async with played(store_url, (*FLOODS, Flood(Client(HOSTILE), 4)), interval_s=1) as stage:
        stage.flood((*FLOODS, Flood(Client(HOSTILE), 4)))
        yield stage


async def enter(page: Page, stage: Played) -> None:
    """Log in by keyboard and see the first numbers."""
    await page.screen(1440, 1000)
    await page.goto(f"{stage.url}/dashboard")
    await page.until("location.pathname === '/dashboard/login' && document.querySelector('#key')")
    await page.type("#key", ADMIN)
    await page.key("Enter")
    await page.until("location.pathname === '/dashboard'")
    await page.until("document.querySelectorAll('.card tbody tr').length > 5")
    await page.until("document.querySelector('.uplot canvas')")


async def go(page: Page, hash_: str) -> None:
    if await page.js(f"(location.hash || '#/') !== {json.dumps(hash_)}"):
        await page.js("document.querySelector('main').firstChild.classList.add('before')")
        await page.js(f"location.hash = {json.dumps(hash_)}")
        await page.until("!document.querySelector('main > .before')")
    await page.until("document.querySelectorAll('main tbody tr').length > 0")
    await page.until("![...document.querySelectorAll('.none')].some(e => e.textContent === '…')")


def complaints(page: Page) -> list[str]:
    return [
        told for told in page.problems if not told.endswith(EXPECTED) and "requests?" not in told
    ]


async def inspect(page: Page, axe: str) -> list[str]:
    """What axe-core finds wrong. (Injected past the policy, as a debugger may.)"""
    await page.send("Runtime.evaluate", expression=axe)
    found: Any = await page.js(f"axe.run(document, {json.dumps(RULES)})")
    assert len(found["passes"]) > 10  # it has looked
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for rule in found["violations"]
        for node in rule["nodes"][:3]
    ]


async def test_every_page_in_both_themes_and_on_a_phone(
    page: Page, stage: Played, axe: str
) -> None:
    await page.goto(f"{stage.url}/dashboard/login")
    await page.until("document.querySelector('#key')")
    assert await inspect(page, axe) == []
    await enter(page, stage)
    for name, hash_ in PAGES.items():
        await go(page, hash_)
        for theme in ("light", "dark"):
            await page.theme(theme)
            await page.screen(1440, 1000)
            assert await inspect(page, axe) == [], (name, theme)
        await page.screen(390, 844, phone=True)
        assert await page.js("document.documentElement.scrollWidth") == 390, name
        assert await inspect(page, axe) == [], (name, "phone")
        await page.screen(1440, 1000)
    assert complaints(page) == []
    assert {url.split("/")[2] for url in page.requests if url.startswith("http")} == {
        stage.url.removeprefix("http://")
    }


async def test_numbers_move_while_one_looks(page: Page, stage: Played) -> None:
    await enter(page, stage)
    service = (
        "[...document.querySelectorAll('tbody tr td:last-child')].map(c => c.textContent).join()"
    )
    before = await page.js(service)
    await page.until(f"{service} !== {json.dumps(before)}")
    headline = await page.js("document.querySelector('.headline .big').textContent")
    assert headline in ("Fair", "Free")
    assert await page.js("document.querySelector('#pulse').dataset.state") == "live"
    values = "[...document.querySelectorAll('.legend .value')].map(v => v.textContent).join()"
    legends = await page.js(values)
    await page.until(f"{values} !== {json.dumps(legends)}")
    shares = await page.js("document.querySelector('.plot').getAttribute('aria-label')")
    assert "alice" in shares  # the chart, in words
    await page.click("details summary")
    await page.until("document.querySelectorAll('details[open] tbody tr').length > 1")
    async with asyncio.timeout(60):
        await stage.directory.store.note(WHO, "queue.policy", "policy", {"policy": "fcfs"})
        stage.turns.set_policy("fcfs", "test")
        await page.until("document.querySelector('.headline .big').textContent === 'Not fair'")
    said = await page.js("document.querySelector('#said').textContent")
    assert said == "Not fair: the policy is fcfs"
    assert complaints(page) == []


async def test_names_are_only_ever_text(page: Page, stage: Played) -> None:
    await enter(page, stage)
    texts = "[...document.querySelectorAll('main *')].map(one => one.textContent)"
    await page.until(f"{texts}.includes({json.dumps(HOSTILE)})")
    await go(page, "#/clients/" + HOSTILE.replace("%", "%25").replace("#", "%23"))
    await page.until(f"document.querySelector('h1').textContent === {json.dumps(HOSTILE)}")
    await page.js(
        f"location.hash = '#/what-if?client=' + encodeURIComponent({json.dumps(HOSTILE)})"
    )
    await page.until("document.querySelectorAll('tr.target').length === 1")
    assert await page.js("document.querySelectorAll('main img').length") == 0
    assert complaints(page) == []


async def test_ten_thousand_clients_come_in_pages(page: Page, stage: Played) -> None:
    store = stage.directory.store
    await store.create_group(WHO, "crowd", 1.0, "", fixed=False)
    for first in range(0, CROWD, 200):
        await asyncio.gather(
            *(
                store.create_client(
                    WHO, f"c-{n:05}", 1.0, "crowd" if n % 2 else "", enabled=True, fixed=False
                )
                for n in range(first, first + 200)
            )
        )
    await enter(page, stage)
    await go(page, "#/clients")
    rows = "[...document.querySelectorAll('main tbody th')].map(cell => cell.textContent)"
    assert await page.js(f"{rows}.length") == 50
    first = await page.js(rows)
    await page.js("document.querySelectorAll('.pages button')[1].click()")
    await page.until(f"{rows}[0] !== {json.dumps(first[0])}")
    assert not set(first) & set(await page.js(rows))
    await page.js("document.querySelectorAll('.pages button')[0].click()")
    await page.until(f"{rows}[0] === {json.dumps(first[0])}")
    await page.type("#search", "-0999")
    await page.until(f"{rows}.length === 10 && {rows}[0] === 'c-09990'")
    await page.type("#in-group", "crowd")
    await page.until(f"{rows}.join() === 'c-09991,c-09993,c-09995,c-09997,c-09999'")
    asked = [url for url in page.requests if "/live/clients" in url]
    assert max(url.count("client=") for url in asked) <= 50
    assert complaints(page) == []


async def test_a_weight_is_tried_and_then_set(page: Page, stage: Played) -> None:
    await stage.directory.store.create_client(WHO, "dave", 1.0, "", enabled=True, fixed=False)
    stage.flood([Flood(Client("dave"), 30)])
    await enter(page, stage)
    await page.until(
        "[...document.querySelectorAll('main th a')].some(a => a.textContent === 'dave')"
    )
    await go(page, "#/what-if?client=dave")
    await page.until("document.querySelector('tr.target th')?.textContent === 'dave'")
    assert await page.js("document.querySelector('#weight').value") == "2"
    await page.until(
        "document.querySelector('tr.target td:last-child').textContent.startsWith('+')"
    )
    await page.click("form button[type=submit]")
    await page.until("document.querySelector('dialog').open")
    assert await page.js("document.activeElement.textContent") == "Set it"
    await page.key("Enter")
    await page.until("document.querySelector('#now').textContent.includes('is 2, from now on')")
    assert (await stage.directory.store.clients(["dave"]))["dave"].weight == 2
    assert complaints(page) == []


async def test_by_keyboard_alone(page: Page, stage: Played) -> None:
    await enter(page, stage)
    focused = "document.activeElement.textContent.trim() || document.activeElement.id"
    await page.js("document.activeElement.blur()")
    order = []
    for _ in range(9):
        await page.key("Tab")
        order.append(await page.js(focused))
    assert order[:6] == [
        "Skip to the content",
        "Fairlane",
        "Overview",
        "Clients",
        "Groups",
        "What if",
    ]
    assert order[6:8] == ["Theme: system", "Log out"]
    await page.js("document.querySelector('#theme').focus()")
    await page.key("Enter")
    assert await page.js("document.documentElement.dataset.theme") == "light"
    await page.js("document.querySelector('.picker input').focus()")
    await page.key("ArrowRight")
    assert await page.js("document.querySelector('.picker :checked').value") == "service"
    await page.js("document.querySelector('.sort').focus()")
    await page.key("Tab")
    await page.key("Enter")
    column = "document.querySelector('th[aria-sort]').textContent"
    assert await page.js(column) == "Waiting"


async def test_logging_out_ends_it_in_every_tab(page: Page, stage: Played) -> None:
    await enter(page, stage)
    await page.click("#logout")
    await page.until("location.pathname === '/dashboard/login'")
    await page.goto(f"{stage.url}/dashboard")
    await page.until("location.pathname === '/dashboard/login'")
    await page.type("#key", "sk-alice")
    await page.key("Enter")
    await page.until("document.querySelector('#why').textContent.includes('not an admin key')")


async def test_my_own_page(page: Page, stage: Played, axe: str) -> None:
    await page.screen(390, 844, phone=True)
    await page.goto(f"{stage.url}/me")
    await page.until("document.querySelector('#key')")
    assert await inspect(page, axe) == []
    await page.type("#key", "sk-wrong")
    await page.key("Enter")
    await page.until("document.querySelector('#why').textContent.includes('not known')")
    await page.js("document.querySelector('#key').value = ''")
    await page.type("#key", "sk-alice")
    await page.key("Enter")
    await page.until("document.querySelector('h1:not(#ask h1)')?.textContent === 'alice'")
    await page.until(f"document.querySelector('#mine').textContent.includes({json.dumps(POOL)})")
    assert await page.js("document.documentElement.scrollWidth") == 390
    assert await inspect(page, axe) == []
    text = await page.js("document.body.textContent")
    for name in ("bob", "crawler", ACME.name):
        assert name not in text
    assert await page.js("JSON.stringify(localStorage)") == "{}"
    assert await page.js("document.cookie") == ""
    await page.click("#forget")
    assert await page.js("sessionStorage.length") == 0
