"""What the page is made of, and what its requests are answered."""

from __future__ import annotations

import base64
import io
import re
from importlib.resources import files
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data.formats import heif
from gsfl_tune.export import load_bundle
from gsfl_tune.serve.images import FORMATS
from tests.export.conftest import CLASSES
from tests.serve.conftest import encoded, jpeg


def picture(url: str) -> Image.Image:
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_browser_gets_the_page_and_programs_the_description(looks):
    page = looks.send("GET", "/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    for accept in ("*/*", "application/json"):
        answer = looks.send("GET", "/", Accept=accept)
        assert answer.headers["vary"] == "Accept"
        assert answer.json["threshold"] == 0.35
        assert (answer.json["maps"], answer.json["neighbours"]) == (True, True)
    assert page.headers["vary"] == "Accept"


def test_only_files_of_the_server_may_run_in_the_page(looks):
    page = looks.send("GET", "/", Accept="text/html")
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    text = page.body.decode()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text)
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert sorted(named) == ["data:,", "static/page.css", "static/page.js"]
    assert all(tag == "" for tag in re.findall(r"<script[^>]*>([^<]*)</script>", text))
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        answer = looks.get(f"/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.body == (files("gsfl_tune.serve") / "static" / name).read_bytes()
    assert looks.get("/static/../app.py").status == 404
    assert looks.get("/static/page.html").status == 404


def test_a_map_is_of_the_class_that_is_asked_for(looks):
    data = jpeg(150, 120, seed=2)
    (predicted,) = looks.predict(data, "?top=6").json["predictions"]
    own = looks.send("POST", "/explain", data).json
    assert own["class"] == predicted["classes"][0]
    assert own["probability"] == pytest.approx(predicted["probabilities"][0], abs=1e-4)
    last = predicted["classes"][-1]
    other = looks.send("POST", f"/explain?class={quote(last)}", data).json
    assert (other["class"], own["colours"]) == (last, "inferno")
    first, second = (np.asarray(picture(each["picture"]), int) for each in (own, other))
    assert first.shape == second.shape == (480, 480, 3)
    assert np.abs(first - second).max() > 40
    # Colour comes from the map: where there is no evidence the picture is grey.
    spread = first.max(axis=2) - first.min(axis=2)
    assert (spread < 12).mean() > 0.02
    assert spread.max() > 60


def test_neighbours_are_those_of_the_bundle(looks, whole):
    data = jpeg(150, 120, seed=2)
    found = looks.send("POST", "/neighbours?count=4", data).json["neighbours"]
    (wanted,) = load_bundle(whole, "cpu").neighbours([data], count=4)
    assert [each["class"] for each in found] == [each.label for each in wanted]
    assert [each["name"] for each in found] == [each.name for each in wanted]
    for each, other in zip(found, wanted, strict=True):
        assert each["similarity"] == pytest.approx(other.similarity, abs=1e-4)
        assert picture(each["picture"]).size == (96, 96)
    assert len(looks.send("POST", "/neighbours", data).json["neighbours"]) == 6


def test_what_is_wrong_with_a_map_is_said(looks):
    for path, body, status, error in [
        ("/explain?class=unicorn", jpeg(), 400, "bad_parameter"),
        ("/explain", b"no image", 415, "not_an_image"),
        ("/explain", jpeg()[:700], 422, "damaged_image"),
        ("/explain", b"x" * 300_001, 413, "body_too_large"),
        ("/neighbours", b"", 400, "no_image"),
        ("/neighbours?count=0", jpeg(), 400, "bad_parameter"),
    ]:
        answer = looks.send("POST", path, body)
        assert (answer.status, answer.json["error"]) == (status, error), path
    assert looks.get("/explain").status == 405
    assert looks.metrics()["gsfl_tune_images_in_hand"] == 0


def test_a_bundle_without_maps_and_training_images_says_so(server):
    what = server.get("/").json
    assert (what["maps"], what["neighbours"], what["threshold"]) == (False, False, None)
    answer = server.send("POST", "/explain", jpeg())
    assert (answer.status, answer.json["error"]) == (404, "no_maps")
    assert "one position" in answer.json["reason"]
    answer = server.send("POST", "/neighbours", jpeg())
    assert (answer.status, answer.json["error"]) == (404, "no_neighbours")
    assert "--with-neighbours" in answer.json["reason"]


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "HEIF"])
def test_newer_formats_are_read_as_training_read_them(server, served_bundle, tmp_path, kind):
    if kind == "HEIF" and not heif():
        pytest.skip("needs the extra heic")
    assert kind in FORMATS
    options = {} if kind == "JPEG2000" else {"quality": 90}
    data = encoded(Image.open(io.BytesIO(jpeg(80, 60))), kind, **options)
    (found,) = server.predict(data, "?top=6").json["predictions"]
    file = tmp_path / "image"
    file.write_bytes(data)
    (expected,) = load_bundle(served_bundle).predict([file], top=6)
    assert found["classes"] == expected.classes
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    (plain,) = server.predict(jpeg(80, 60), "?top=6").json["predictions"]
    if kind == "JPEG2000":  # without loss: the same pixels as those of the JPEG file
        assert found["classes"] == plain["classes"]
    half = server.predict(data[: len(data) // 2])
    assert (half.status, half.json["error"]) in [(422, "damaged_image"), (415, "not_an_image")]
    assert set(CLASSES) == set(found["classes"])
