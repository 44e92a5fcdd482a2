"""Asking a real tritonserver: the answers and the errors of the local predictor, and what happens when it is gone."""

import asyncio
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import (
    CassavaError,
    CheckpointError,
    ConfigError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageError,
    MissingDependencyError,
)
from cassava_leaf_disease.inference.aggregate import combine_photos, pooling_for
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines import triton
from cassava_leaf_disease.inference.engines.triton import (
    BlockingTritonClient,
    TritonClient,
    parse_address,
    require_client,
)
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.inference.served import ServedModel
from triton_server import TritonServer

Config = Callable[..., AppConfig]
NOBODY = "grpc://127.0.0.1:9"  # the discard port, where nobody listens


@pytest.fixture(scope="module")
def local(served_models: tuple[Path, Path]) -> AnyPredictor:
    """The same two models in this process."""
    return load_found(FoundModel(served_models[0], "explicit", served_models), "cpu")


@pytest.fixture
def photos(shared_data: Path) -> list[bytes]:
    """64 real photos."""
    paths = sorted((shared_data / "cassava" / "train_images").glob("*.jpg"))
    return [path.read_bytes() for path in paths[:: len(paths) // 64][:64]]


def asked(server: TritonServer, work: Callable[[TritonClient], Any]) -> Any:
    """What `work` gives with a client of that server."""

    async def run() -> Any:
        client = TritonClient(f"grpc://{server.grpc_address}", timeout_s=60)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def probabilities_of(answer: Prediction) -> list[float]:
    return list(answer.probabilities.values())


def saved(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def assert_same_verdict(answer: Prediction, here: Prediction) -> None:
    """All but the numbers' last digits and the model's place."""
    assert (answer.verdict, answer.predicted_class_id, answer.image) == (
        here.verdict,
        here.predicted_class_id,
        here.image,
    )
    assert [check.name for check in answer.checks] == [check.name for check in here.checks]
    np.testing.assert_allclose(
        [check.value for check in answer.checks], [check.value for check in here.checks], rtol=1e-4, atol=1e-4
    )
    assert len(answer.top_k) == len(here.top_k)
    assert set(answer.model_dump()) == set(here.model_dump())


def test_real_photos_get_the_answers_of_the_local_predictor(
    triton_server: TritonServer, local: AnyPredictor, photos: list[bytes]
) -> None:
    async def ask_about_all(client: TritonClient) -> list[Prediction]:
        return await asyncio.gather(*(client.predict_bytes(photo, name="leaf") for photo in photos))

    answers = asked(triton_server, ask_about_all)
    expected = [local.predict_bytes(photo, name="leaf") for photo in photos]
    difference = np.abs(np.array(list(map(probabilities_of, answers))) - list(map(probabilities_of, expected))).max()
    assert difference <= 1e-4
    for answer, here in zip(answers, expected, strict=True):
        assert_same_verdict(answer, here)
    assert {check.name for check in answers[0].checks} >= {"sharpness", "foreign", "confidence"}


def test_photos_that_are_none_of_a_leaf_get_the_local_verdict(triton_server: TritonServer, local: AnyPredictor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    pictures = [saved(noise), saved(np.zeros((100, 100, 3), np.uint8)), saved(draw_leaf(1, 1, 150))]

    async def ask_about_all(client: TritonClient) -> list[Prediction]:
        return await asyncio.gather(*(client.predict_bytes(each, name="a", top_k=2) for each in pictures))

    answers = asked(triton_server, ask_about_all)
    for answer, picture in zip(answers, pictures, strict=True):
        assert_same_verdict(answer, local.predict_bytes(picture, name="a", top_k=2))
    assert [answer.verdict for answer in answers[:2]] == ["not_cassava", "poor_photo"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_anyone_may_ask_by_http_and_grpc(
    protocol: str, triton_server: TritonServer, local: AnyPredictor, photo_bytes: bytes
) -> None:
    library: Any = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    address = {"http": triton_server.http_address, "grpc": triton_server.grpc_address}[protocol]
    client = library.InferenceServerClient(address)
    photo = library.InferInput("IMAGE", [2, 1], "BYTES")
    photo.set_data_from_numpy(np.array([[photo_bytes], [photo_bytes]], np.object_))
    answer = client.infer("cassava", [photo]).as_numpy("PROBABILITIES")
    expected = probabilities_of(local.predict_bytes(photo_bytes, name="leaf"))
    np.testing.assert_allclose(answer, [expected, expected], atol=1e-4)
    photo.set_data_from_numpy(np.array([[photo_bytes], [photo_bytes[:500]]], np.object_))
    with pytest.raises(InferenceServerException, match="CorruptImageError: photo 2 of 2: a truncated or damaged JPEG"):
        client.infer("cassava", [photo])
    client.close()


def test_bad_photos_get_the_local_errors_and_leave_their_neighbours_alone(
    triton_server: TritonServer, local: AnyPredictor, photo_bytes: bytes
) -> None:
    bad = [b"", b"GIF89a", photo_bytes[:900], b"\x89PNG\r\n\x1a\n"]

    async def ask_about_all(client: TritonClient) -> list[Prediction | BaseException]:
        mixed = [photo for each in bad for photo in (photo_bytes, each, photo_bytes)]
        return await asyncio.gather(
            *(client.predict_bytes(photo, name="a: b.jpg") for photo in mixed), return_exceptions=True
        )

    answers = asked(triton_server, ask_about_all)
    for index, photo in enumerate(bad):
        before, failed, after = answers[3 * index : 3 * index + 3]
        with pytest.raises(ImageError) as here:
            local.predict_bytes(photo, name="a: b.jpg")
        assert type(failed) is type(here.value)
        assert str(failed) == str(here.value)
        assert isinstance(before, Prediction)
        assert isinstance(after, Prediction)


def test_answer_names_the_model_that_the_server_serves(
    triton_server: TritonServer, triton_repository: Path, photo_bytes: bytes
) -> None:
    address = f"grpc://{triton_server.grpc_address}"
    with BlockingTritonClient(address, timeout_s=60) as client:
        assert client.is_ready()
        model = client.predict_bytes(photo_bytes, name="leaf", top_k=2).model
        described = client.describe()
    client.close()  # once more is no mistake
    assert described == ServedModel.model_validate_json((triton_repository / "cassava.json").read_bytes())
    assert (model.name, model.source, model.path) == ("1 x test_resnet + 1 x larger", "triton", f"{address}/cassava")
    assert model.members == (
        "member_0: test_resnet 0.1.0+20260101T0000",
        "member_1: larger 0.1.0+20260101T0000",
    )


def test_infer_asks_the_server(
    triton_server: TritonServer,
    local: AnyPredictor,
    photo_bytes: bytes,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "leaf.jpg").write_bytes(photo_bytes)
    words = ["infer", "infer.engine=triton", f"infer.triton_url=grpc://{triton_server.grpc_address}"]
    assert cli.main([*words, "infer.triton_timeout_s=60", "infer.image_path=leaf.jpg", "infer.top_k=1"]) == 0
    answer = json.loads(capfd.readouterr().out)
    expected = local.predict_bytes(photo_bytes, name="leaf.jpg", top_k=1)
    assert answer["class_name"] == expected.class_name
    assert answer["model"]["source"] == "triton"
    assert cli.main([*words, "infer.triton_timeout_s=60", "infer.image_path=[leaf.jpg,leaf.jpg]"]) == 0
    assert len(json.loads(capfd.readouterr().out)) == 2
    plant = [*words, "infer.triton_timeout_s=60", "infer.image_path=[leaf.jpg,leaf.jpg]", "infer.plant=true"]
    assert cli.main(plant) == 0
    both = combine_photos([expected, expected], local.min_confidence, pooling_for(local))
    assert json.loads(capfd.readouterr().out)["confidence"] == pytest.approx(both.confidence, abs=1e-4)
    assert cli.main(["infer", "infer.engine=triton", f"infer.triton_url={NOBODY}", "infer.image_path=leaf.jpg"]) == 1
    assert "error: grpc://127.0.0.1:9/cassava: no answer (" in capfd.readouterr().err


def test_other_models_of_the_server_are_not_ours(triton_server: TritonServer, photo_bytes: bytes) -> None:
    address = f"grpc://{triton_server.grpc_address}"
    with BlockingTritonClient(f"{address}/nothing", timeout_s=60) as client:
        assert not client.is_ready()
        with pytest.raises(CheckpointError, match=r"/nothing: .*not found; serve a repository"):
            client.predict_bytes(photo_bytes, name="leaf")
    with (
        BlockingTritonClient(f"{address}/vote", timeout_s=60) as client,
        pytest.raises(CheckpointError, match=r"/vote: not a CassavaVision model"),
    ):
        client.describe()
    with (
        BlockingTritonClient(f"{address}/member_0", timeout_s=60) as client,
        pytest.raises(EngineError, match=r"/member_0: the server failed \(INVALID_ARGUMENT: "),
    ):
        client.predict_bytes(photo_bytes, name="leaf")


def test_answer_that_comes_too_late_is_an_error_in_time(triton_server: TritonServer, photo_bytes: bytes) -> None:
    with (
        BlockingTritonClient(triton_server.grpc_address, timeout_s=0.001) as client,
        pytest.raises(EngineTimeoutError, match=r"no answer within 0.001 s") as caught,
    ):
        client.predict_bytes(photo_bytes, name="leaf")
    assert caught.value.http_status == 504


@pytest.mark.slow
def test_server_killed_under_load_is_told_in_time_and_found_again(
    triton_server: TritonServer, photo_bytes: bytes
) -> None:
    limit_s = 5.0
    told: list[tuple[CassavaError, float]] = []

    async def keep_asking(client: TritonClient, stop: asyncio.Event) -> int:
        answered = 0
        while not stop.is_set():
            started = time.monotonic()
            try:
                await client.predict_bytes(photo_bytes, name="leaf")
                answered += 1
            except CassavaError as error:
                told.append((error, time.monotonic() - started))
                await asyncio.sleep(0.1)
        return answered

    async def run() -> None:
        client = TritonClient(triton_server.grpc_address, timeout_s=limit_s)
        stop = asyncio.Event()
        load = [asyncio.create_task(keep_asking(client, stop)) for _ in range(8)]
        await asyncio.sleep(3)
        await asyncio.to_thread(triton_server.kill)
        await asyncio.sleep(3)
        stop.set()
        assert sum(await asyncio.gather(*load)) > 0
        assert not await client.is_ready()
        await asyncio.to_thread(triton_server.start)
        assert await client.is_ready()
        assert (await client.predict_bytes(photo_bytes, name="leaf")).class_name
        await client.close()

    asyncio.run(run())
    assert told
    assert all(isinstance(error, EngineUnavailableError) for error, _ in told)
    assert {error.http_status for error, _ in told} <= {503, 504}
    assert max(seconds for _, seconds in told) < limit_s + 1


# Without a server.


@pytest.mark.parametrize(
    ("url", "target", "secure", "model"),
    [
        ("grpc://127.0.0.1:8001", "127.0.0.1:8001", False, "cassava"),
        ("triton:8001", "triton:8001", False, "cassava"),
        ("grpcs://triton.example:443/leaves", "triton.example:443", True, "leaves"),
        ("grpc://[::1]:8001/", "[::1]:8001", False, "cassava"),
    ],
)
def test_address_names_host_port_and_model(url: str, target: str, secure: bool, model: str) -> None:
    address = parse_address(url)
    assert (address.target, address.secure, address.model) == (target, secure, model)
    assert str(address) == f"grpc{'s' * secure}://{target}/{model}"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "grpc://127.0.0.1", "grpc://a:b", "", "grpc://a:1/b/c"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected grpc://HOST:PORT"):
        parse_address(url)


@pytest.mark.parametrize(
    "typed", ["infer.checkpoint_path=a.ckpt", "infer.device=cpu", "infer.tta=flips", "infer.explain=true"]
)
def test_what_the_server_decides_cannot_be_typed(typed: str, small_config: Config) -> None:
    with pytest.raises(ConfigError, match=f"infer.engine=triton {typed.partition('=')[0]}: the server's model"):
        small_config("infer.engine=triton", typed)


def test_client_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_client()
    monkeypatch.setitem(__import__("sys").modules, "tritonclient.grpc", None)
    with pytest.raises(MissingDependencyError, match=r"cassava-leaf-disease\[triton\]"):
        require_client()


class FakeResult:
    """An answer with the digest of some description."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def as_numpy(self, name: str) -> Any:
        answer = {"MODEL": np.array([[self._digest.encode()]], np.object_), "PROBABILITIES": np.full((1, 5), 0.2)}
        return answer.get(name)


class FakeConnection:
    """In place of Triton's client: each call takes the next of `outcomes`, raised or returned."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.timeouts: list[float] = []

    async def _next(self, client_timeout: float) -> Any:
        self.timeouts.append(client_timeout)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def infer(self, model: str, inputs: Any, client_timeout: float) -> Any:
        return await self._next(client_timeout)

    async def get_model_config(self, model: str, *, as_json: bool, client_timeout: float) -> Any:
        return await self._next(client_timeout)

    async def close(self) -> None:
        """Nothing to close."""


def failure(status: str, text: str = "why") -> InferenceServerException:
    return InferenceServerException(text, f"StatusCode.{status}")


@pytest.fixture
def described(metadata: Any) -> Callable[[str], ServedModel]:
    def describe(name: str) -> ServedModel:
        member = {"model": "member_0", "sha256": "0" * 64, "weight": 1.0, "metadata": metadata}
        return ServedModel.model_validate(
            {
                "name": name,
                "version": "1",
                "members": [member],
                "combine": "probabilities",
                "tta": "none",
                "views": ["identity"],
                "thresholds": {"min_confidence": 0.1},
                "quality_limits": None,
                "package_version": "0.1.0",
                "max_image_bytes": 1,
                "max_image_pixels": 1,
            }
        )

    return describe


def config_of(model: ServedModel) -> dict[str, Any]:
    return {"config": {"parameters": {"cassava_description": {"string_value": model.model_dump_json()}}}}


def connected(monkeypatch: pytest.MonkeyPatch, *outcomes: Any, timeout_s: float = 10) -> tuple[TritonClient, Any]:
    monkeypatch.setattr(triton, "_pauses", lambda: iter([0.0] * (triton.ATTEMPTS - 1)))
    client, connection = TritonClient(NOBODY, timeout_s=timeout_s), FakeConnection(*outcomes)
    monkeypatch.setattr(client, "_connected", connection)
    return client, connection


def test_identity_follows_the_server_when_it_gets_another_model(
    monkeypatch: pytest.MonkeyPatch, described: Callable[[str], ServedModel]
) -> None:
    old, new = described("old"), described("new")
    client, connection = connected(
        monkeypatch,
        *(FakeResult(old.digest), config_of(old), FakeResult(old.digest)),
        *(FakeResult(new.digest), config_of(new), FakeResult(old.digest), config_of(new)),
    )

    async def names(count: int) -> list[str]:
        return [(await client.predict_bytes(b"", name="a")).model.name for _ in range(count)]

    assert asyncio.run(names(3)) == ["old", "old", "new"]
    with pytest.raises(EngineUnavailableError, match="its model is being replaced; ask again"):
        asyncio.run(names(1))
    assert not connection.outcomes


def test_only_what_is_safe_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, described: Callable[[str], ServedModel]
) -> None:
    model = described("a")
    client, connection = connected(
        monkeypatch, failure("UNAVAILABLE"), failure("UNAVAILABLE"), FakeResult(model.digest), config_of(model)
    )
    assert asyncio.run(client.predict_bytes(b"", name="a")).model.name == "a"
    assert connection.timeouts == sorted(connection.timeouts, reverse=True)
    for status, kind in (("INTERNAL", EngineError), ("DEADLINE_EXCEEDED", EngineTimeoutError)):
        client, connection = connected(monkeypatch, failure(status), "never reached")
        with pytest.raises(kind):
            asyncio.run(client.predict_bytes(b"", name="a"))
        assert connection.outcomes == ["never reached"]
    client, connection = connected(monkeypatch, *[failure("UNAVAILABLE")] * triton.ATTEMPTS)
    with pytest.raises(EngineUnavailableError, match=r"no answer \(why\); start a Triton server there"):
        asyncio.run(client.predict_bytes(b"", name="a"))
    assert not connection.outcomes


def test_attempts_end_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    client, connection = connected(monkeypatch, failure("UNAVAILABLE"), "never reached", timeout_s=0.1)
    monkeypatch.setattr(triton, "_pauses", lambda: iter([10.0]))
    with pytest.raises(EngineUnavailableError):
        asyncio.run(client.predict_bytes(b"", name="a"))
    client, connection = connected(monkeypatch, "never reached", timeout_s=-1)
    with pytest.raises(EngineTimeoutError):
        asyncio.run(client.predict_bytes(b"", name="a"))
    assert connection.outcomes == ["never reached"]


def test_errors_of_the_served_steps_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, kind, message in (
        ("in ensemble 'cassava', ImageTooLargeError: image: a strip", ImageError, "image: a strip"),
        ("in ensemble 'cassava', CheckpointError: the served model: NaN", CheckpointError, "the served model: NaN"),
    ):
        client, _ = connected(monkeypatch, failure("INTERNAL", text))
        with pytest.raises(kind) as caught:
            asyncio.run(client.predict_bytes(b"", name="leaf.jpg"))
        assert str(caught.value) == message


def test_description_of_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = connected(
        monkeypatch, {"config": {"parameters": {"cassava_description": {"string_value": '{"format_version": 9}'}}}}
    )
    with pytest.raises(CheckpointError, match=r"its self-description is wrong \(format_version: "):
        asyncio.run(client.describe())


def test_closed_client_answers_no_more() -> None:
    async def run() -> None:
        client = TritonClient(NOBODY)
        await client.close()
        assert not await client.is_ready()
        with pytest.raises(EngineUnavailableError, match="this client is closed"):
            await client.predict_bytes(b"", name="a")

    asyncio.run(run())


def test_pauses_are_random_and_grow() -> None:
    drawn = [list(triton._pauses()) for _ in range(200)]
    most = [max(pauses) for pauses in zip(*drawn, strict=True)]
    assert len(most) == triton.ATTEMPTS - 1
    assert most == sorted(most)
    assert most[-1] <= 0.1 * 2 ** (triton.ATTEMPTS - 2)


def test_tls_address_opens_a_channel_of_its_own() -> None:
    async def run() -> bool:
        client = TritonClient("grpcs://127.0.0.1:9", timeout_s=1)
        ready = await client.is_ready()
        await client.close()
        return ready

    assert asyncio.run(run()) is False
