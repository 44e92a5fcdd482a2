"""Updates that Telegram brings: with the secret only, recorded before they are acknowledged, each once."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.receive import SECRET_HEADER, webhook_app
from fake_telegram import FakeTelegram, answered

StartBot = Callable[..., Any]
SECRET = "a-secret-of-the-tests"  # noqa: S105  of nobody
ANN = 1001


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path / "bot.sqlite", 0.5, 20)
    yield ledger
    ledger.close()


@pytest.fixture
def received() -> list[bool]:
    return []


@pytest.fixture
def app(ledger: Ledger, received: list[bool]) -> FastAPI:
    return webhook_app(ledger, "/telegram", SECRET, lambda: received.append(True))


def update(number: int) -> dict[str, Any]:
    person = {"id": ANN, "is_bot": False, "first_name": "A"}
    chat = {"id": ANN, "type": "private"}
    return {"update_id": number, "message": {"message_id": 1, "date": 1, "chat": chat, "from": person, "text": "hi"}}


def test_what_is_acknowledged_has_been_recorded_and_counts_once(
    telegram: FakeTelegram, running_bot: StartBot, monkeypatch: pytest.MonkeyPatch, leaves: list[bytes], caplog: Any
) -> None:
    monkeypatch.setenv("CASSAVA_BOT_WEBHOOK_URL", "https://bot.example.org/telegram")
    monkeypatch.setenv("CASSAVA_BOT_WEBHOOK_SECRET", SECRET)
    caplog.set_level("INFO", logger="cassava_leaf_disease")
    telegram.send_photo(ANN, leaves[0])
    [brought] = telegram.updates.values()
    with running_bot("bot.port=0") as bot:
        address = telegram.wait(lambda: re.search(r"http://127\.0\.0\.1:\d+", caplog.text))[0]
        with httpx.Client(base_url=address) as calling:
            told = {SECRET_HEADER: SECRET}
            replies = [calling.post("/telegram", json=brought, headers=told).status_code for _ in range(2)]
            replies += [calling.post("/telegram", json=brought).status_code]
            assert calling.get("/health").status_code == 200
        [answer] = answered(telegram, ANN)
        webhook = telegram.wait(lambda: telegram.webhook)

    assert replies == [200, 200, 403]
    assert answer.picture
    assert bot.result.answers == 1
    assert (webhook["url"], webhook["secret_token"]) == ("https://bot.example.org/telegram", SECRET)
    assert webhook["allowed_updates"] == ["message", "callback_query"]
    assert not telegram.called("getUpdates")


def call(app: FastAPI, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (), path: str = "/telegram") -> int:
    """The status that a call gets, in this thread, whose ledger it is."""

    async def post() -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bot") as calling:
            return (await calling.post(path, content=body, headers=list(headers))).status_code

    return asyncio.run(post())


TOLD = ((SECRET_HEADER.encode(), SECRET.encode()),)


@pytest.mark.parametrize("shown", [None, b"", b"wrong", "schlüssel".encode()])
def test_strangers_are_refused(app: FastAPI, ledger: Ledger, received: list[bool], shown: bytes | None) -> None:
    headers = [] if shown is None else [(SECRET_HEADER.encode(), shown)]

    assert call(app, json.dumps(update(1)).encode(), headers) == 403
    assert call(app, b"", headers, "/docs") == 404
    assert ledger.open_tasks() == 0
    assert received == []


@pytest.mark.parametrize(
    ("body", "status"), [(b"no json", 400), (b"[1]", 400), (b'{"update_id": "x"}', 400), (b"x" * 1_000_001, 413)]
)
def test_what_is_no_update_is_refused(app: FastAPI, ledger: Ledger, body: bytes, status: int) -> None:
    assert call(app, body, TOLD) == status
    assert ledger.open_tasks() == 0


def test_an_update_that_nobody_can_be_answered_for_is_taken_and_dropped(
    app: FastAPI, ledger: Ledger, received: list[bool]
) -> None:
    odd: list[dict[str, object]] = [
        {"my_chat_member": {"chat": {"id": 1}}},
        {"message": "what?"},
        {"message": {"from": {"id": 1}}},
    ]

    for number, each in enumerate(odd):
        assert call(app, json.dumps({"update_id": number, **each}).encode(), TOLD) == 200
    assert ledger.open_tasks() == 0
    assert received == [True] * 3
