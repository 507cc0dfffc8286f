"""The modules of the browser example by themselves: heatmap.mjs, as a program of one's own would use it, and the drawing."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from kcompiler.runtime.maps.aggregate import to_pixels

SECONDS = 60
COLOUR = (207.0, 83.0, 59.0)
"""What covers the map that is expected."""
TOLERANCE = 1e-4
"""Largest difference from the driver's map, as a share of its range."""
WEBGPU = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
PRELUDE = """
    const bytes = async (name) => new Uint8Array(await (await fetch("exports/" + name)).arrayBuffer());
    const { open, evaluate, dropOf } = await import("./heatmap.mjs");
    const drawing = await import("./drawing.mjs");
    const files = async (folder) => ({
        model: await bytes(folder + "/map.onnx"), weights: await bytes(folder + "/weights.bin"),
        card: JSON.parse(new TextDecoder().decode(await bytes(folder + "/card.json"))),
    });
    const image = async () => ({
        data: new Float32Array((await bytes("image.bin")).buffer), shape: [1, 3, 224, 224], fill: given.fill,
    });
    const plain = (values) => Array.from(values ?? [], (value) => Number.isFinite(Number(value)) ? Number(value) : null);
    const refusal = (promise) => promise.then(() => "not refused", (error) => error.message);
"""
WASM = 'const ort = await import("./ort/ort.wasm.bundle.min.mjs");'


@pytest.fixture(scope="module")
def images(exports, page_folder):
    """The exports where the page's host finds them, with the picture as an image in raw numbers."""
    (page_folder / "exports").mkdir()
    for folder in (exports.pictures, exports.images):
        (page_folder / "exports" / folder.name).symlink_to(folder)
    exports.image.astype("<f4").tofile(page_folder / "exports" / "image.bin")
    (page_folder / "exports" / "foreign.onnx").symlink_to(exports.model)
    return exports


@pytest.fixture(scope="module")
def calls(browser, isolated_site):
    """Runs JavaScript in the page; it finds the prelude's functions, and ``given``."""
    context = browser.new_context(service_workers="block")
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    page.goto(isolated_site.url)
    yield lambda code, **given: page.evaluate(f"async (given) => {{ {WASM} {PRELUDE} {code} }}", given)
    context.close()


def as_floats(values: list) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.parametrize("with_card", [True, False])
def test_map_and_drop_are_the_drivers(calls, images, with_card):
    found = calls(
        """const { card, ...rest } = await files("images"), parts = [];
        const opened = await open(ort, given.card ? { card, ...rest } : rest);
        const onBatch = ({ done, drop }) => parts.push([done, Boolean(drop)]);
        const whole = await evaluate(opened, await image(), { onBatch });
        const kinds = ["map", "drop", "uncovered", "class"].map((name) => whole[name].constructor.name);
        return { parts, kinds, map: plain(whole.map), drop: plain(whole.drop), class: plain(whole.class), total: whole.total };
        """,
        card=with_card,
        fill=images.fill,
    )
    expected = images.expected
    assert found["kinds"] == ["Float32Array", "Float32Array", "Float32Array", "BigInt64Array"]
    allowed = TOLERANCE * np.ptp(expected.scores)
    assert np.abs(as_floats(found["map"]) - expected.scores.ravel()).max() <= allowed
    drop = expected.unoccluded - expected.upsample()
    assert np.abs(as_floats(found["drop"]) - drop.ravel()).max() <= allowed
    assert found["class"] == [expected.target]
    done, dropped = zip(*found["parts"], strict=True)
    assert list(done) == np.cumsum(images.card["batches"]).tolist()
    assert dropped == ((True,) * len(done) if with_card else (False,) * (len(done) - 1) + (True,))


def test_pictures_are_explained_without_listening(calls, images):
    with Image.open(images.picture) as picture:
        pixels = np.asarray(picture)
    found = calls(
        """const opened = await open(ort, await files("pictures"));
        const whole = await evaluate(opened, { data: Uint8Array.from(given.pixels), shape: given.shape, fill: given.colour });
        return [plain(whole.map), plain(whole.seen)];
        """,
        pixels=pixels.ravel().tolist(),
        shape=list(pixels.shape),
        colour=COLOUR,
    )
    expected = images.expected.scores
    assert np.abs(as_floats(found[0]) - expected.ravel()).max() <= TOLERANCE * np.ptp(expected)
    assert found[1] == [0, 0, *pixels.shape[:2]]


def test_a_signal_stops_between_batches(calls, images):
    found = calls(
        """const opened = await open(ort, await files("images")), controller = new AbortController();
        let batches = 0;
        const stop = () => { batches++; controller.abort(); };
        const evaluating = evaluate(opened, await image(), { onBatch: stop, signal: controller.signal });
        const name = await evaluating.catch((error) => error.name);
        return [batches, name];
        """,
        fill=images.fill,
    )
    assert found == [1, "AbortError"]


def test_damaged_and_foreign_models_are_refused_without_a_card(calls, images):
    found = calls(
        """const { model, weights } = await files("images"), foreign = await bytes("foreign.onnx");
        const half = (values) => values.slice(0, values.length >> 1);
        return {
            "a cut model": await refusal(open(ort, { model: half(model), weights })),
            "no model": await refusal(open(ort, { model: new Uint8Array(1000).fill(7), weights })),
            "cut weights": await refusal(open(ort, { model, weights: half(weights) })),
            "no weights": await refusal(open(ort, { model })),
            "a classifier": await refusal(open(ort, { model: foreign })),
        };
        """
    )
    assert found.pop("a classifier").startswith("map.onnx: has inputs image, expected picture or image, fill,target,batches")
    for case, message in found.items():
        assert message.startswith("map.onnx: ONNX Runtime cannot open it"), case
        assert message.endswith("copy the files of the export again"), case


def test_images_and_settings_that_do_not_fit_are_refused(calls, images):
    found = calls(
        """const opened = await open(ort, await files("images")), good = await image();
        const pictures = await open(ort, await files("pictures"));
        const rgb = { data: new Uint8Array(48), shape: [4, 4, 3], fill: [0, 0, 0] };
        const tries = [
            [opened, { ...good, data: good.data.subarray(1) }], [opened, { ...good, shape: [1, 224, 224, 3] }],
            [opened, { ...good, data: new Float64Array(good.data) }], [opened, { ...good, fill: [0] }],
            [opened, { ...good, target: 3 }], [opened, { ...good, target: 0.5 }],
            [pictures, { ...rgb, data: new Uint8Array(64), shape: [4, 4, 4] }], [pictures, { ...rgb, shape: [0, 4, 3] }],
            [pictures, { ...rgb, data: new Float32Array(48) }], [pictures, { ...rgb, shape: [1, 4, 4, 3] }],
        ];
        return Promise.all(tries.map(([model, one]) => refusal(evaluate(model, one))));
        """,
        fill=images.fill,
    )
    image = re.compile(r"image: Float(32|64)Array of (150527|150528) as \[.*\], expected float32 \[1,3,224,224\]")
    assert all(image.fullmatch(message) for message in found[:3]), found
    assert found[3] == "fill: 1 numbers, expected one for each of 3 channels"
    assert found[4:6] == ["target: 3, expected -1 to 2", "target: 0.5, expected -1 to 2"]
    assert all(re.fullmatch(r"picture: \w+ of \d+ as \[.*\], expected uint8 \[.*,.*,3\]", message) for message in found[6:])


@pytest.mark.parametrize("seed", range(5))
def test_drops_are_interpolated_as_the_driver_does(calls, seed):
    rng = np.random.default_rng(seed)
    image, patch = rng.integers(20, 40, 2), rng.integers(1, 9, 2)
    ys, xs = (np.sort(rng.choice(np.arange(-2, size), rng.integers(1, 9), replace=False)) for size in image)
    scores = rng.standard_normal((len(ys), len(xs))).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    found = calls(
        "return plain(dropOf(Float32Array.from(given.map, (one) => one ?? NaN), 2.5, given.card, given.image));",
        map=[None if np.isnan(score) else float(score) for score in scores.ravel()],
        card={"ys": ys.tolist(), "xs": xs.tolist(), "patch": patch.tolist()},
        image=image.tolist(),
    )
    found = as_floats(found).reshape(image)
    for filled in (0.0, 1.0):  # where the answer depends on a score that is missing, there is none
        known = to_pixels(np.nan_to_num(scores, nan=filled), ys, xs, tuple(patch.tolist()), tuple(image.tolist()), "linear")
        assert np.abs(found - (2.5 - known))[~np.isnan(found)].max(initial=0) < 1e-5
    missing = to_pixels(np.isnan(scores).astype(np.float32), ys, xs, tuple(patch.tolist()), tuple(image.tolist()), "linear")
    assert np.array_equal(np.isnan(found), missing > 0)


def test_colours_are_matplotlibs(calls):
    values = np.linspace(-1, 1, 41)
    found = np.array(calls("return given.values.map(drawing.colourOf);", values=values.tolist()))
    expected = matplotlib.colormaps["RdBu_r"].resampled(len(values))(np.arange(len(values)))[:, :3] * 255
    assert np.abs(found - expected).max() < 0.01
    beyond = calls("return [drawing.colourOf(-7), drawing.colourOf(7)];")
    assert np.array_equal(beyond, found[[0, -1]])


def test_the_overlay_lies_in_the_box_and_is_clear_where_there_is_no_number(calls):
    found = calls(
        """const picture = new OffscreenCanvas(40, 30), canvas = new OffscreenCanvas(40, 30);
        const paint = picture.getContext("2d"), context = canvas.getContext("2d");
        paint.fillStyle = "rgb(200, 40, 90)";
        paint.fillRect(0, 0, 40, 30);
        const drop = Float32Array.from({ length: 100 }, (_, index) => index % 10 < 5 ? NaN : index < 50 ? 3 : -3);
        drawing.drawOverlay(context, picture, drop, [10, 10], [5, 10, 25, 30], drawing.limitOf(drop));
        return Array.from(context.getImageData(0, 0, 40, 30).data);
        """
    )
    pixels = np.array(found).reshape(30, 40, 4)[..., :3]
    gray = pixels[0, 0]
    assert np.ptp(gray) <= 1
    assert gray[0] == pytest.approx(0.3 * 200 + 0.59 * 40 + 0.11 * 90, abs=2)
    heated = np.zeros((30, 40), bool)
    heated[5:25, 20:30] = True
    moved = (np.abs(pixels - gray) > 1).any(axis=-1)
    assert not moved[:, :19].any()
    assert not moved[~heated].any()
    red, blue = pixels[8, 25] - gray, pixels[22, 25] - gray
    assert red[0] > 0 > red[2] or red[0] - red[2] > 50
    assert blue[2] - blue[0] > 50


@pytest.mark.slow
def test_webgpu_gives_the_drivers_map(playwright, chromium, isolated_site, images):
    """By Chromium's own adapter in software: exactness, not speed."""
    with playwright.chromium.launch(executable_path=chromium, args=WEBGPU) as browser:
        page = browser.new_context(service_workers="block").new_page()
        page.goto(isolated_site.url)
        code = """const { card, ...rest } = await files("images");
            const opened = await open(ort, { ...rest, card, providers: ["webgpu", "wasm"] });
            const whole = await evaluate(opened, await image());
            return [plain(whole.map), plain(whole.class), Boolean(await ort.env.webgpu.device)];"""
        ort = 'const ort = await import("./node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs");'
        found, chosen, used = page.evaluate(f"async (given) => {{ {ort} {PRELUDE} {code} }}", {"fill": images.fill})
    expected = images.expected
    assert used
    assert chosen == [expected.target]
    assert np.abs(as_floats(found) - expected.scores.ravel()).max() <= TOLERANCE * np.ptp(expected.scores)
