"""The server answers as `predict` does, whoever asks beside, and refuses what it must."""

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lightning_ad import load_detector
from lightning_ad.cli import main
from lightning_ad.commands import serve
from lightning_ad.deployment.server.app import Options, application
from lightning_ad.deployment.server.batches import Batches, BusyError
from tests.fakes import defective
from tests.reports.browser import browser, needs_browser
from tests.shrunk import QUIET, checkpoint_of

pytestmark = pytest.mark.whole

CONFORMS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, autoencoder):
    return checkpoint_of("PatchCore", tmp_path_factory.mktemp("server"), autoencoder)


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load_detector(checkpoint)


@pytest.fixture(scope="module")
def client(detector):
    with TestClient(application(detector, Options(largest=200_000))) as client:
        yield client


def encoded(pixels, suffix=".png"):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def photographs(count):
    """Encoded photographs, no two alike, none of one size."""
    return [encoded(defective(i, 30 + i % 7, 40 + i % 5)[0]) for i in range(count)]


def ask(client, *contents, **query):
    files = [("files", (f"{i}.png", content)) for i, content in enumerate(contents)]
    return client.post("/predict", files=files, params=query)


def predicted(detector, content):
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return detector.predict(pixels[..., ::-1])


def assert_as_predicted(image, finding):
    assert image["score"] == pytest.approx(finding.score, rel=1e-5)
    assert image["threshold"] == finding.threshold
    assert image["verdict"] == finding.verdict
    assert [tuple(each["box"]) for each in image["regions"]] == [r.box for r in finding.regions]


def test_an_answer_is_what_predictions_json_says(client, checkpoint, tmp_path):
    contents = photographs(3)
    for i, content in enumerate(contents):
        (tmp_path / f"photos/{i}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"photos/{i}.png").write_bytes(content)
    data = ["--data=Folder", f"--data.root={tmp_path / 'photos'}", f"--run_dir={tmp_path}"]
    main(["predict", f"--ckpt_path={checkpoint}", *data, *QUIET])
    expected = json.loads((tmp_path / "predictions/predictions.json").read_text())
    found = ask(client, *contents).json()
    assert list(found) == list(expected)
    for name in ("format", "method", "fingerprint", "false_alarm_rate", "threshold_from"):
        assert found[name] == expected[name], name
    for one, other in zip(found["images"], expected["images"], strict=True):
        assert one.keys() == other.keys()
        assert one.pop("score") == pytest.approx(other.pop("score"), rel=1e-5)
        for image in (one, other):
            del image["seconds"], image["category"]  # predict takes the folder's name
            for region in image["regions"]:
                region["peak"]["value"] = pytest.approx(region["peak"]["value"], rel=1e-5)
        assert one == other


def test_callers_at_once_get_their_own_answers(client, detector):
    contents = photographs(24)
    expected = [predicted(detector, content) for content in contents]
    with ThreadPoolExecutor(96) as pool:
        answers = list(pool.map(lambda content: ask(client, content), contents * 4))
    for answer, finding in zip(answers, expected * 4, strict=True):
        assert answer.status_code == 200
        assert_as_predicted(answer.json()["images"][0], finding)


def test_heat_is_drawn_if_asked_for(client):
    image = ask(client, photographs(1)[0], picture=True).json()["images"][0]
    content = base64.b64decode(image["picture"])
    drawn = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape[:2] == tuple(image["size"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "0.png is not a complete and plain image"),
        (b"", "0.png is not a complete and plain image"),
        (photographs(1)[0][:-40], "0.png is not a complete and plain image"),
        (encoded(np.zeros((5, 5, 3), np.float32), ".tiff"), "0.png is not a complete and plain"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(client, content, reason):
    answer = ask(client, content)
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]


def test_an_unknown_category_and_no_file_are_refused(client):
    answer = ask(client, photographs(1)[0], category="bottle")
    assert answer.status_code == 400
    assert "'bottle' is none of the detector's" in answer.json()["detail"]
    assert client.post("/predict").status_code == 422


def test_too_many_pixels_are_refused_before_they_are_decoded(client):
    header = bytearray(encoded(np.zeros((4, 4), np.uint8)))
    header[16:24] = (20_000).to_bytes(4) * 2
    assert ask(client, bytes(header)).status_code == 413


def test_a_body_that_is_too_large_is_refused_from_its_header_and_while_it_comes(client):
    promised = client.post("/predict", content=b"", headers={"content-length": "2000000000"})
    assert promised.status_code == 413
    assert promised.json() == {"detail": "a request may have 0.2 MB"}
    read = 0

    def endless():
        nonlocal read
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(20):
            read += 100_000
            yield b"\0" * 100_000

    form = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/predict", content=endless(), headers=form).status_code == 413


def test_a_token_and_a_rate_are_kept(detector):
    with TestClient(application(detector, Options(token="secret", rate=2))) as client:
        content = photographs(1)[0]
        assert ask(client, content).status_code == 401
        assert client.get("/health").status_code == 200
        client.headers["authorization"] = "Bearer secret"
        answers = [ask(client, content) for _ in range(4)]
        codes = [answer.status_code for answer in answers]
        assert 200 in codes and 429 in codes
        assert int(answers[codes.index(429)].headers["retry-after"]) >= 1


class Gate:
    """A detector that scores when it is let."""

    def __init__(self):
        self.open = threading.Event()
        self.batches = []

    def predict_all(self, photographs, categories, interests):
        self.open.wait(10)
        self.batches.append(len(photographs))
        if "bad" in categories:
            raise RuntimeError("no memory")
        return [f"finding of {photograph}" for photograph in photographs]


def test_what_waits_is_scored_together_and_a_full_queue_refuses():
    gate = Gate()
    batches = Batches(gate, most=4, limit=6)
    first = batches.submit(["a"], None)
    while batches._waiting:
        time.sleep(0.01)
    others = batches.submit([f"b{i}" for i in range(6)], None)
    with pytest.raises(BusyError, match="6 photographs wait, 6 may"):
        batches.submit(["c"], None)
    others[0].cancel()
    gate.open.set()
    batches.close()
    assert first[0].result().finding == "finding of a"
    found = [each.result().finding for each in others[1:]]
    assert found == [f"finding of b{i}" for i in range(1, 6)]
    assert gate.batches == [1, 3, 2]
    with pytest.raises(BusyError):
        batches.submit(["d"], None)


def test_a_batch_that_fails_ends_nothing_else():
    gate = Gate()
    gate.open.set()
    batches = Batches(gate, most=4, limit=6)
    with pytest.raises(RuntimeError, match="no memory"):
        batches.submit(["a"], "bad")[0].result(10)
    assert batches.submit(["b"], None)[0].result(10).finding == "finding of b"
    batches.close()


def test_the_interface_is_what_its_schema_says(client):
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} == {"/", "/health", "/predict"}
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        def conforms(case):
            case.call_and_validate(checks=CONFORMS)

        conforms()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(checkpoint):
    """`lightning serve` as a process of its own, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "lightning_ad", "serve", f"--ckpt_path={checkpoint}"]
    process = subprocess.Popen([*command, f"--port={port}"])
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            httpx.get(f"{address}/health")
            break
        except httpx.ConnectError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
    yield process, address
    process.kill()
    process.wait()


def test_a_signal_lets_what_is_in_flight_finish(server):
    process, address = server
    contents = photographs(40)
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=address, timeout=60) as client:
        answers = [pool.submit(ask, client, *contents) for _ in range(8)]
        while not any(answer.done() for answer in answers):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        codes = [answer.result().status_code for answer in answers if not answer.exception()]
    assert process.wait(60) == 0
    assert set(codes) <= {200, 503} and 200 in codes


def test_it_keeps_freed_memory_as_predict_does(checkpoint, monkeypatch):
    done = []
    monkeypatch.setattr(serve, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: done.append("served"))
    before = signal.getsignal(signal.SIGTERM)
    try:
        main(["serve", f"--ckpt_path={checkpoint}"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["kept", "served"]


@needs_browser
def test_the_page_shows_verdicts_and_moves_the_threshold(server, detector, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file, content in zip(files, [*photographs(3), b"no image"], strict=True):
        file.write_bytes(content)
    scores = sorted(detector.predict(file).score for file in files[:3])
    with browser(tmp_path) as page:
        page.driver.get(server[1])
        page.one("#files").send_keys("\n".join(map(str, files)))
        deadline = time.monotonic() + 60
        while len(page.all(".drop img")) < 3 or not page.all(".refused"):
            assert time.monotonic() < deadline, "the photographs are not scored"
            time.sleep(0.1)
        assert "3.png is not a complete and plain image" in page.text(".refused")
        page.put("#threshold", (scores[0] + scores[1]) / 2, "change")
        assert page.text("#flagged") == "2 of 3 flagged at this threshold."
        assert sorted(badge.text.lower() for badge in page.all(".badge")) == [
            *["anomalous"] * 2,
            "normal",
        ]
        page.one("#calibrated").click()
        flagged = sum(score > detector.predict(files[0]).threshold for score in scores)
        assert page.text("#flagged") == f"{flagged} of 3 flagged at the calibrated threshold."
        assert all("400 (Bad Request)" in problem for problem in page.problems())
        page.resize(400)
        assert page.widest() <= 400
