"""What has come is on the disk, once; tasks are due in their order and done once."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.bot.ledger import DAY_S, Ledger
from cassava_leaf_disease.bot.records import Answer, Task
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, PlantPrediction, Prediction
from cassava_leaf_disease.errors import ConfigError, StorageError

ANN, BEN = 1001, 1002


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "state" / "bot.sqlite", 2.0, 3, clock)
    yield ledger
    ledger.close()


def again(ledger: Ledger, tmp_path: Path, clock: Clock) -> Ledger:
    """The ledger after its process has ended."""
    ledger.close()
    return Ledger(tmp_path / "state" / "bot.sqlite", 2.0, 3, clock)


def message(number: int, chat: int = ANN, **content: Any) -> dict[str, Any]:
    person = {"id": chat, "is_bot": False, "first_name": "A"}
    about = {"message_id": number, "date": 1, "chat": {"id": chat, "type": "private"}, "from": person}
    return {"update_id": number, "message": {**about, **(content or {"text": "hi"})}}


def photo(number: int, chat: int = ANN, album: str | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"photo": [{"file_id": f"f{number}"}]}
    return message(number, chat, **content, **({} if album is None else {"media_group_id": album}))


def claimed(ledger: Ledger, *busy: int) -> Task:
    task = ledger.claim(frozenset(busy))
    assert task is not None
    return task


def test_an_update_counts_once_whatever_comes_between(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    assert ledger.record([message(1), message(2)]) == 2
    ledger.finish(claimed(ledger))
    ledger = again(ledger, tmp_path, clock)

    assert ledger.record([message(1), message(2), message(3)]) == 1
    assert ledger.offset() == 4
    assert ledger.open_tasks() == 2
    ledger.close()


def test_an_offset_of_yesterday_is_none(ledger: Ledger, clock: Clock) -> None:
    assert ledger.offset() is None
    ledger.record([message(7)])
    assert ledger.offset() == 8
    clock.now += DAY_S + 1
    assert ledger.offset() is None


def test_what_was_begun_is_begun_again_after_a_restart(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    ledger.record([photo(1)])
    first = claimed(ledger)
    ledger.set_placeholder(first.id, 77)
    assert ledger.claim(frozenset()) is None
    ledger = again(ledger, tmp_path, clock)

    second = claimed(ledger)

    assert (second.id, second.placeholder, second.attempts) == (first.id, 77, 2)
    assert second.updates == first.updates
    ledger.close()


def test_an_album_is_one_task_when_it_has_been_quiet(ledger: Ledger, clock: Clock) -> None:
    ledger.record([photo(1, album="a"), photo(2, album="b"), photo(3, BEN, album="a")])
    clock.now += 1.5
    ledger.record([photo(4, album="a")])
    assert ledger.claim(frozenset()) is None
    assert ledger.seconds_to_next() == pytest.approx(0.5)
    clock.now += 0.6
    assert [each["update_id"] for each in claimed(ledger).updates] == [2]
    assert [each["update_id"] for each in claimed(ledger).updates] == [3]
    clock.now += 1.5
    task = claimed(ledger)
    assert [each["update_id"] for each in task.updates] == [1, 4]
    assert task.photos == 2
    assert ledger.seconds_to_next() is None

    ledger.record([photo(5, album="a")])  # too late: it is being answered
    clock.now += 3
    assert [each["update_id"] for each in claimed(ledger).updates] == [5]


def test_an_album_waits_anew_after_a_restart(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    ledger.record([photo(1, album="a")])
    clock.now += 100
    ledger = again(ledger, tmp_path, clock)

    assert ledger.claim(frozenset()) is None
    ledger.record([photo(2, album="a")])
    clock.now += 2
    assert len(claimed(ledger).updates) == 2
    ledger.close()


def test_chats_that_are_busy_are_passed_over(ledger: Ledger) -> None:
    ledger.record([message(1), message(2), message(3, BEN)])

    assert claimed(ledger).chat == ANN
    assert claimed(ledger, ANN).chat == BEN
    assert ledger.claim(frozenset({ANN, BEN})) is None


def test_a_postponed_task_comes_later_and_only_failures_count(ledger: Ledger, clock: Clock) -> None:
    ledger.record([message(1)])
    ledger.postpone(claimed(ledger).id, 10)
    assert ledger.claim(frozenset()) is None
    clock.now += 10
    task = claimed(ledger)
    assert task.attempts == 1
    ledger.postpone(task.id, 0, counts=True)
    assert claimed(ledger).attempts == 2


def test_more_photos_than_may_wait_are_refused_first(ledger: Ledger) -> None:
    ledger.record([photo(number) for number in range(1, 6)])
    ledger.record([photo(6, BEN), message(7)])

    order = [claimed(ledger) for _ in range(7)]

    assert [(task.updates[0]["update_id"], task.refused) for task in order] == [
        *((4, True), (5, True)),
        *((1, False), (2, False), (3, False), (6, False), (7, False)),
    ]
    assert ledger.photos_before(order[1], 3600) == 4


def an_answer(number: int, at: float, person: int = ANN) -> Answer:
    one = Prediction(
        predicted_class_id=3,
        class_name=CLASS_NAMES[3],
        confidence=1.0,
        probabilities={name: float(name == CLASS_NAMES[3]) for name in CLASS_NAMES},
        top_k=(),
        verdict="diagnosis",
        model=ModelIdentity(name="m", version="1", source="explicit", path="m.onnx"),
    )
    plant = PlantPrediction(**dict(one), counted=(0,), left_out=(), more_leaves=0, photos=(one,))
    return Answer(number, person, person, 50 + number, at, ("f",), 1, plant, "receipt", None, False)


def test_nothing_of_what_was_sent_stays_when_it_has_been_answered(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    ledger.record([message(1, text="my name is a secret word")])
    task = claimed(ledger)
    answer = an_answer(task.id, clock.now)
    ledger.finish(task, answer)
    ledger.finish(task)  # once more changes nothing

    assert ledger.answer(task.id) == answer
    assert ledger.answer_in(ANN, 51) == answer
    assert ledger.latest_answer(ANN, ANN) == answer
    assert ledger.is_done(task.id)
    ledger.close()
    assert all(b"secret word" not in file.read_bytes() for file in (tmp_path / "state").iterdir())
    Ledger(tmp_path / "state" / "bot.sqlite", 2.0, 3, clock)


def test_what_is_old_goes_and_what_is_open_stays(ledger: Ledger, clock: Clock) -> None:
    ledger.record([message(1), message(2)])
    task = claimed(ledger)
    ledger.finish(task, an_answer(task.id, clock.now))
    clock.now += 8 * DAY_S
    ledger.prune(7 * DAY_S)

    assert ledger.answer(task.id) is None
    assert ledger.open_tasks() == 1
    assert ledger.record([message(2)]) == 0


def test_forgetting_leaves_others_alone(ledger: Ledger, clock: Clock) -> None:
    for number, person in ((1, ANN), (2, BEN)):
        ledger.put_answer(an_answer(number, clock.now, person))
        ledger.set_language(person, "sw")
    ledger.forget(ANN)

    assert (ledger.answer(1), ledger.language(ANN)) == (None, None)
    assert ledger.answer(2) is not None
    assert ledger.language(BEN) == "sw"


def test_a_limit_is_told_now_and_then(ledger: Ledger, clock: Clock) -> None:
    told = [ledger.tell_limit(ANN, 60), ledger.tell_limit(ANN, 60), ledger.tell_limit(BEN, 60)]
    clock.now += 61
    assert [*told, ledger.tell_limit(ANN, 60)] == [True, False, True, True]


def test_only_one_process_has_the_file(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another bot works with that file"):
        Ledger(tmp_path / "state" / "bot.sqlite", 2.0, 3)


def test_another_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "bot.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match=r"no state of a bot .*; type bot.state_path=FILE"):
        Ledger(tmp_path / "bot.sqlite", 2.0, 3)
    (tmp_path / "folder.sqlite").mkdir()
    for place in (tmp_path / "folder.sqlite", tmp_path / "bot.sqlite" / "state.sqlite"):
        with pytest.raises(StorageError, match=r"cannot be opened .*; expected a place where files can be made"):
            Ledger(place, 2.0, 3)


def test_a_full_disk_is_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        in_transaction = False

        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def close(self) -> None: ...

    monkeypatch.setattr(ledger._file, "_database", Full())
    with pytest.raises(StorageError, match=r"cannot be written \(database or disk is full\)"):
        ledger.record([message(1)])
