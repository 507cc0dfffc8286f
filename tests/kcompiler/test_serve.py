"""The page's server: who may ask, what it takes, and that its maps are the driver's."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import SECONDS, Page, page_of, scores_of

import kcompiler
from kcompiler.runtime.inputs.fills import NAMED
from kcompiler.serving import pictures, refining
from kcompiler.serving.files import OWN

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
PICTURE = DEMO / "picture.png"
STRIDE = 16
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    compiled = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json")
    return compiled.save(tmp_path_factory.mktemp("bundle") / "demo.kc")


@pytest.fixture(scope="module")
def explainer(bundle) -> kcompiler.Explainer:
    return kcompiler.load(bundle, providers=["cpu"])


@pytest.fixture(scope="module")
def page(explainer, tmp_path_factory):
    with page_of(explainer, tmp_path_factory.mktemp("pictures")) as served:
        yield served


@pytest.fixture(scope="module")
def given(page) -> str:
    return page.give(PICTURE)


def idle(page: Page) -> bool:
    """Whether no map is being made any more, soon."""
    end = time.monotonic() + SECONDS
    while page.service.desk.jobs and time.monotonic() < end:
        time.sleep(0.01)
    return page.service.desk.jobs == 0


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é"}])
@pytest.mark.parametrize("path", ["/api/model", "/api/pictures/x/whole.png", "/api/maps", "/api/nothing"])
def test_nothing_is_told_without_the_token(page, path, headers):
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(page.client.headers, "Authorization")
        for method in ("GET", "POST"):
            assert page.client.request(method, path, headers=raw).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example"]
)
@pytest.mark.parametrize("path", ["/", "/page.mjs", "/api/model"])
def test_other_names_of_this_machine_are_refused(page, host, path):
    port = page.root.rpartition(":")[2]
    assert page.client.get(path, headers={"Host": host.format(port=port)}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_other_sites_are_refused(page, origin):
    port = page.root.rpartition(":")[2]
    assert page.client.get("/api/model", headers={"Origin": origin.format(port=port)}).status_code == 403
    assert page.client.get("/api/model", headers={"Origin": page.root}).status_code == 200


def test_the_page_is_confined_and_sets_no_cookies(page):
    for path in ("/", "/api/model", "/nothing"):
        answer = page.client.get(path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer.headers
        assert "Server" not in answer.headers


def test_only_the_page_s_own_files_are_given(page):
    assert {page.client.get(f"/{name}").status_code for name in OWN} == {200}
    folder = ROOT / "kcompiler" / "serving" / "page"
    assert {path.name for path in folder.iterdir()} == set(OWN)
    for path in ("/../app.py", "/%2e%2e/app.py", "/..%2f..%2fapp.py", "//etc/passwd", "/page/page.mjs", "/index.html/", "/api"):
        answer = page.client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": "There is nothing at this address."})


def test_drawing_is_that_of_the_browser_example():
    shared = ROOT / "examples" / "browser" / "drawing.mjs"
    assert (ROOT / "kcompiler" / "serving" / "page" / "drawing.mjs").read_bytes() == shared.read_bytes()


def test_the_bundle_is_told(page, explainer):
    told = page.client.get("/api/model").json()
    assert told["classes"] == list(explainer.labels)
    assert (told["image"], told["patch"]) == ([3, 224, 224], [16, 16])
    assert told["fills"] == list(NAMED)
    assert str(explainer.folder) not in json.dumps(told)


def upload(page: Page, content: bytes, name: str = "scan.png", kind: str = "image/png"):
    return page.client.post("/api/pictures", params={"name": name}, content=content, headers={"Content-Type": kind})


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, format="PNG")
    return file.getvalue()


def test_pictures_within_bounds_are_taken(page, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 224 * 224)
    assert upload(page, PICTURE.read_bytes()).status_code == 201
    answer = upload(page, png(np.zeros((225, 224, 3), np.uint8)))
    assert (answer.status_code, "pixels" in answer.json()["error"]) == (413, True)
    monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
    assert upload(page, PICTURE.read_bytes()).status_code == 413
    chunks = (b"x" * 100 for _ in range(11))  # no length is announced
    answer = page.client.post("/api/pictures", content=chunks, headers={"Content-Type": "image/png"})
    assert answer.status_code == 413


def test_a_picture_s_box_is_told(page):
    answer = upload(page, png(np.zeros((300, 500, 3), np.uint8)), name="..\\..\\wide scan.png").json()
    assert (answer["file"], answer["size"], answer["box"]) == ("wide scan.png", [300, 500], [0, 0, 1, 1])
    whole = page.client.get(f"/api/pictures/{answer['picture']}/whole.png")
    assert Image.open(io.BytesIO(whole.content)).size == (500, 300)


@pytest.mark.parametrize("kind", ["text/html", "multipart/form-data", "application/x-www-form-urlencoded", ""])
def test_other_content_is_refused(page, kind):
    assert upload(page, PICTURE.read_bytes(), kind=kind).status_code == 415
    assert page.client.post("/api/maps", content=b"{}", headers={"Content-Type": kind}).status_code == 415


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", "not a readable picture"),
        (PICTURE.read_bytes()[:4000], "not a readable picture"),
        (b"", "not a readable picture"),
        (png(np.full((8, 8, 4), 100, np.uint8)), "transparent"),
    ],
    ids=["text", "cut", "empty", "transparent"],
)
def test_bad_pictures_are_refused_with_a_reason(page, content, reason):
    before = set(page.service.folder.iterdir())
    answer = upload(page, content)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("scan.png: ")
    assert reason in answer.json()["error"]
    assert set(page.service.folder.iterdir()) == before


def test_arrays_are_taken(page, explainer, tmp_path):
    tensor = explainer.read_image(PICTURE).tensor
    np.save(tmp_path / "scan.npy", tensor)
    *_, last = page.states(picture=page.give(tmp_path / "scan.npy"), stride=32)
    assert np.array_equal(scores_of(last), explainer.explain(tensor, stride=32, budget=SECONDS).scores)
    assert upload(page, b"no array", "scan.npy", "application/octet-stream").status_code == 400


BAD = [
    ({"stride": 0}, "stride"), ({"stride": 1.5}, "stride"), ({"stride": "4"}, "stride"), ({"fill": "nothing"}, "nothing"),
    ({"fill": [1, 2]}, "fill"), ({"fill": [300]}, "fill"), ({"fill": "/etc/passwd"}, "/etc/passwd"), ({"score": "x"}, "score"),
    ({"region": [0, 0, 8, 8]}, "smaller than the patch"), ({"region": [0, 0, 999, 8]}, "no (top, left, bottom, right) box"),
    ({"budget": -1}, "budget"), ({"budget": 1e999}, "budget"), ({"quality": 2}, "quality"), ({"more": 1}, "more"),
    ({"patch": [8, 8]}, "compiled for 16x16"), ({"patch": [16]}, "patch"), ({"patch": [-1, 16]}, "patch"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "named"), BAD)
def test_bad_settings_are_refused_by_name(page, given, settings, named):
    answer = page.client.post("/api/maps", content=json.dumps({"picture": given, **settings}), headers=JSON)
    assert answer.status_code in (400, 422)
    assert named in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_what_is_not_kept_is_named(page):
    answers = [
        page.client.post("/api/maps", json={"picture": "unknown"}), page.client.post("/api/save", json={"maps": ["unknown"]}),
        page.client.get("/api/pictures/unknown/whole.png"),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [404] * 3
    assert all("choose the picture again" in answer.json()["error"] for answer in answers)


def test_settings_that_only_the_run_refuses_end_the_stream(page, given):
    states = list(page.states(picture=given, stride=STRIDE, target=7))
    assert states == [{"error": "target is 7, expected 0 to 2"}]
    assert "tuned for nothing" in next(page.states(picture=given, stride=STRIDE, quality=0.9))["error"]


@pytest.mark.parametrize(
    "settings", [{}, {"target": 2}, {"fill": [10, 20, 30]}, {"fill": "blur"}, {"region": (32, 48, 100, 120)}]
)
def test_the_final_map_is_the_driver_s(page, explainer, given, settings):
    *_, last = page.states(picture=given, stride=STRIDE, **settings)
    tensor = explainer.read_image(PICTURE).tensor
    fill = settings.get("fill", 0.0)
    wanted = {**settings, "fill": explainer.manifest.preprocessing.fill(tuple(fill)) if isinstance(fill, list) else fill}
    expected = explainer.explain(tensor, stride=STRIDE, budget=SECONDS, **wanted)
    assert last["final"]
    assert last["exact"]
    assert np.array_equal(scores_of(last), expected.scores), "the order of --budget, so the same bits"
    whole = explainer.explain(tensor, stride=STRIDE, **wanted)
    assert np.abs(scores_of(last) - whole.scores).max() <= 2**-18 * np.abs(whole.scores).max()
    assert (last["target"], last["label"], last["unoccluded"]) == (whole.target, whole.label, whole.unoccluded)
    assert (last["ys"], last["xs"]) == (whole.ys.tolist(), whole.xs.tolist())


def test_a_map_gets_better(page, given):
    states = list(page.states(picture=given, stride=4))
    evaluated = [state["evaluated"] for state in states]
    assert len(states) > 2
    assert evaluated == sorted(evaluated)
    assert (evaluated[-1], states[0]["most"]) == (53 * 53, 53 * 53)
    assert [state["final"] for state in states] == [False] * (len(states) - 1) + [True]
    assert states[0]["remaining"] > 0


def test_large_grids_get_coarse_first_and_then_all_positions(page, explainer, given):
    region = (20, 30, 130, 140)
    states = list(page.states(picture=given, stride=1, region=region))
    expected = explainer.explain(explainer.read_image(PICTURE).tensor, stride=1, region=region)
    assert expected.scores.size > refining.MOST_MODELLED
    first, last = states[0], states[-1]
    assert scores_of(first).shape == expected.scores.shape
    assert np.isfinite(scores_of(first)).all()
    assert (last["exact"], last["evaluated"], last["most"]) == (True, expected.scores.size, expected.scores.size)
    assert np.abs(scores_of(last) - expected.scores).max() <= 2**-18 * np.abs(expected.scores).max()


def test_a_budget_ends_a_map(page, given):
    *_, last = page.states(picture=given, stride=1, budget=0.2)
    assert last["final"]
    assert not last["complete"]
    assert 0 < last["evaluated"] < 209 * 209


def test_a_closed_tab_ends_its_map(page, given):
    states = page.states(picture=given, stride=1)
    first = next(states)
    assert page.service.desk.jobs == 1
    states.close()
    assert idle(page)
    assert first["evaluated"] < 209 * 209


def test_two_maps_advance_together(page, given):
    slow = page.states(picture=given, stride=1)
    next(slow)
    with ThreadPoolExecutor(2) as threads:
        quick = [threads.submit(lambda: list(page.states(picture=given, stride=32))[-1]) for _ in range(2)]
        finals = [scores_of(one.result()) for one in quick]
    assert page.service.desk.jobs == 1, "the slow map is still being made"
    assert np.array_equal(*finals)
    assert not next(slow)["final"]
    slow.close()
    assert idle(page)


def test_too_many_maps_at_once_are_refused(page, given, monkeypatch):
    monkeypatch.setattr("kcompiler.serving.app.MOST_JOBS", 0)
    assert page.client.post("/api/maps", json={"picture": given}).status_code == 429


@pytest.mark.parametrize("fill", [None, [10.0, 20.0, 30.0], "blur", "patch-mean", "marginal"])
def test_outputs_at_a_place_are_the_driver_s(page, explainer, given, fill):
    tensor = explainer.read_image(PICTURE).tensor
    wanted = 0.0 if fill is None else explainer.manifest.preprocessing.fill(tuple(fill)) if isinstance(fill, list) else fill
    answer = page.client.post("/api/outputs", json={"picture": given, "y": 60, "x": 101, "fill": fill}).json()
    expected = explainer.outputs(tensor, [(60, 101)], wanted)[0]
    assert np.array_equal(np.float32(answer["covered"]), expected)
    assert answer["score"] == "output"
    assert np.abs(np.array(answer["uncovered"]) - explainer.explain(tensor, stride=64, target=1).unoccluded).min() < 1e-4


def test_outputs_outside_the_image_are_refused(page, given):
    answer = page.client.post("/api/outputs", json={"picture": given, "y": 60, "x": 224})
    assert (answer.status_code, "covers nothing" in answer.json()["error"]) == (400, True)


def test_the_covering_picture_is_shown_in_pixels(page, given):
    answer = page.client.post("/api/fill", json={"picture": given, "fill": [10, 20, 30]})
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert shown.shape == (224, 224, 3)
    assert (shown == (10, 20, 30)).all()
    assert page.client.post("/api/fill", json={"picture": given, "fill": "patch-mean"}).status_code == 204


def test_what_is_saved_is_what_explain_saves(page, bundle, given, tmp_path):
    *_, whole = page.states(picture=given, stride=STRIDE)
    *_, box = page.states(picture=given, stride=4, region=(32, 32, 96, 96))
    answer = page.client.post("/api/save", json={"maps": [whole["name"], box["name"]]})
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        packed.extractall(tmp_path / "saved")
    stems = ("picture", "picture.box")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        stem + end for stem in stems for end in (".npy", ".png", ".json")
    }
    command = [sys.executable, "-m", "kcompiler.cli", "explain", str(bundle), str(PICTURE), "-o", str(tmp_path / "own")]
    subprocess.run([*command, "--stride", str(STRIDE), "--budget", "600"], check=True, capture_output=True)
    records = [json.loads((tmp_path / folder / "picture.json").read_text()) for folder in ("saved", "own")]
    for record in records:
        del record["seconds"]
    assert records[0] == records[1]
    assert (tmp_path / "saved" / "picture.npy").read_bytes() == (tmp_path / "own" / "picture.npy").read_bytes()
    assert (tmp_path / "saved" / "picture.png").read_bytes() == (tmp_path / "own" / "picture.png").read_bytes()


def test_pictures_seen_longest_ago_are_forgotten(explainer, tmp_path):
    with page_of(explainer, tmp_path) as page:
        names = [page.give(PICTURE) for _ in range(pictures.KEPT + 1)]
        assert page.client.get(f"/api/pictures/{names[0]}/model.png").status_code == 404
        assert page.client.get(f"/api/pictures/{names[1]}/model.png").status_code == 200
        assert len(list(tmp_path.iterdir())) == pictures.KEPT


def test_failures_of_our_own_show_no_traceback(page, given, monkeypatch):
    monkeypatch.setattr("kcompiler.serving.app.outputs_at", lambda *_: 1 / 0)
    answer = page.client.post("/api/outputs", json={"picture": given, "y": 0, "x": 0})
    assert (answer.status_code, "Zero" in answer.text) == (500, False)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly_while_a_map_is_made(bundle, ending):
    import httpx

    command = [sys.executable, "-u", "-m", "kcompiler.cli", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        root, token = re.search(r"(http://127.0.0.1:\d+)/#([\w-]{32})", served.stdout.readline()).groups()
        with httpx.Client(base_url=root, headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS) as client:
            page = Page(root, token, None, client)
            states = page.states(picture=page.give(PICTURE), stride=1)
            next(states)
            served.send_signal(ending)
            states.close()
        _, complaints = served.communicate(timeout=SECONDS)
    assert (served.returncode, complaints) == (0, "")


def test_a_port_that_is_taken_is_named(bundle, page):
    port = page.root.rpartition(":")[2]
    command = [sys.executable, "-m", "kcompiler.cli", "serve", str(bundle), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith(f"error: port {port} of 127.0.0.1 cannot be had")) == (2, True)
