"""``gsfl-tune predict``."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gsfl_tune.data.formats import heif
from gsfl_tune.export import load_bundle
from tests import warm
from tests.export.conftest import CLASSES
from tests.http_server import Server


def test_predicts_in_a_process(process, bundle_path, images):
    answer = process("predict", bundle_path, *images[:3], "--json", "--top", 2)
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    expected = load_bundle(bundle_path).predict(images[:3], top=2)
    assert [each["classes"] for each in found] == [each.classes for each in expected]
    assert found[0]["path"] == str(images[0])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["probabilities"] == pytest.approx(theirs.probabilities, abs=1e-6)


def test_text_has_a_line_a_class(command, bundle_path, images):
    answer = command("predict", bundle_path, images[0], images[1], "--top", 3)
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert (lines[0], lines[4], lines[5]) == (str(images[0]), "", str(images[1]))
    shares = [float(line.split("%")[0]) for line in lines[1:4]]
    assert shares == sorted(shares, reverse=True)


def test_an_unreadable_image_does_not_keep_the_others(command, bundle_path, images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    answer = command("predict", bundle_path, broken, images[0], tmp_path / "absent.jpg", "--json")
    assert answer.code == 1
    assert [each["path"] for each in json.loads(answer.out)] == [str(images[0])]
    assert "broken.jpg: cannot be read as an image" in answer.err
    assert "absent.jpg: no such file" in answer.err
    assert command("predict", bundle_path, broken).code == 1


def test_only_missing_images_are_bad_input(command, bundle_path, tmp_path):
    answer = command("predict", bundle_path, tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert [line.rsplit("/", 1)[-1] for line in lines[:2]] == [
        "a.jpg: no such file",
        "b.jpg: no such file",
    ]
    assert lines[2:] == ["2 of 2 could not be read"]


def test_a_missing_bundle_and_a_senseless_top_are_bad_input(command, bundle_path, images, tmp_path):
    answer = command("predict", tmp_path / "nothing", images[0])
    assert answer.code == 2
    assert "no such bundle" in answer.err
    with pytest.raises(SystemExit) as stopped:
        command("predict", bundle_path, images[0], "--top", "0")
    assert stopped.value.code == 2


def test_below_the_threshold_the_answer_is_unknown(command, bundle_path, images):
    expected = load_bundle(bundle_path).predict(images, top=1)
    least = sorted(each.probabilities[0] for each in expected)[3]
    answer = command("predict", bundle_path, *images, "--json", "--threshold", least)
    found = json.loads(answer.out)
    assert [each["unknown"] for each in found] == [
        each.probabilities[0] < least for each in expected
    ]
    assert sum(each["unknown"] for each in found) == 3
    assert all(each["probabilities"][0] > 0 for each in found)
    text = command("predict", bundle_path, *images, "--top", 1, "--threshold", least).out
    assert text.count(f"unknown: no class reaches {100 * least:.1f} %") == 3
    answer = command("predict", bundle_path, images[0], "--threshold", "auto")
    assert answer.code == 2
    assert "--threshold: found auto, but this bundle has no threshold" in answer.err
    answer = command("predict", bundle_path, images[0], "--threshold", "often")
    assert answer.code == 2
    assert "allowed a probability from 0 to 1, auto, auto:SHARE" in answer.err


@pytest.fixture
def album(tmp_path, images) -> Path:
    """Three images at different depths, and what is none."""
    root = tmp_path / "album"
    for place, source in {"a.png": 1, "deep/er/b.jpg": 0, "deep/c.png": 2}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images[source], root / place)
    (root / "notes.txt").touch()
    (root / ".hidden.png").touch()
    (root / "@eaDir").mkdir()
    (root / "@eaDir" / "a.png").touch()
    return root


def paths(answer) -> list[str]:
    return [each["path"] for each in json.loads(answer.out)]


def test_folders_and_patterns_give_their_images(command, bundle_path, album, images):
    answer = command("predict", bundle_path, album, images[3], "--json", "--top", 1)
    everything = ["a.png", "deep/c.png", "deep/er/b.jpg"]
    assert answer.code == 0
    assert paths(answer) == [*(str(album / name) for name in everything), str(images[3])]
    assert answer.err == "left out: 3 files: .txt 1, hidden 1, in @eaDir/ 1\n"
    for pattern, names in {
        "**/*.png": ["a.png", "deep/c.png"],
        "*": ["a.png", "deep/c.png", "deep/er/b.jpg"],
        "deep/**": ["deep/c.png", "deep/er/b.jpg"],
        "d*/e[a-r]": ["deep/er/b.jpg"],
    }.items():
        answer = command("predict", bundle_path, f"{album}/{pattern}", "--json")
        assert answer.code == 0, answer.err
        assert sorted(paths(answer)) == [str(album / name) for name in names]
        if pattern.startswith("*"):
            assert "in @eaDir/ 1" in answer.err
    # What exists is a file, whatever characters its name has.
    strange = album / "[1].png"
    shutil.copy(images[1], strange)
    assert paths(command("predict", bundle_path, strange, "--json")) == [str(strange)]


@pytest.mark.parametrize(
    ("kind", "suffix"), [("AVIF", "avif"), ("JPEG2000", "jp2"), ("HEIF", "heic")]
)
def test_newer_formats_are_found_and_read(command, bundle_path, images, tmp_path, kind, suffix):
    if kind == "HEIF" and not heif():
        pytest.skip("needs the extra heic")
    folder = tmp_path / "album"
    folder.mkdir()
    # Without loss these are the pixels of the PNG file: so are the answers.
    options = {"JPEG2000": {}, "AVIF": {"quality": 100}, "HEIF": {"quality": -1, "chroma": 444}}
    Image.open(images[1]).save(folder / f"one.{suffix}", kind, **options[kind])
    answer = command("predict", bundle_path, folder, "--json", "--top", 6)
    assert (answer.code, answer.err) == (0, "")
    (found,) = json.loads(answer.out)
    (wanted,) = load_bundle(bundle_path).predict([images[1]], top=6)
    assert found["classes"][0] == wanted.classes[0]
    near = dict(zip(wanted.classes, wanted.probabilities, strict=True))
    difference = [
        abs(probability - near[name])
        for name, probability in zip(found["classes"], found["probabilities"], strict=True)
    ]
    assert max(difference) < (1e-6 if kind == "JPEG2000" else 0.05)


def test_names_that_are_not_utf_8_are_predicted(process, bundle_path, album, tmp_path):
    """Of an archive in Latin-1; the name in the middle of a folder does not end it."""
    odd = os.fsdecode(b"b\xfccher.png")
    shutil.copy(album / "a.png", album / odd)
    (album / os.fsdecode(b"c\xfc.png")).write_bytes(b"no image")
    answer = process("predict", bundle_path, album, "--json", "--csv", tmp_path / "t.csv")
    expected = [str(album / name) for name in ("a.png", "b\ufffdcher.png")]
    assert paths(answer)[:2] == expected
    assert len(paths(answer)) == 4
    assert answer.code == 1
    assert "c\\udcfc.png: cannot be read as an image" in answer.err
    assert list(pd.read_csv(tmp_path / "t.csv")["path"])[:2] == expected
    answer = process("predict", bundle_path, album)
    assert [line for line in answer.out.splitlines() if line.startswith("/")][:2] == expected
    assert "deep/er/b.jpg" in answer.out
    assert "Traceback" not in answer.err


def test_what_gives_no_image_is_named(command, bundle_path, album, images):
    (album / "empty").mkdir()
    wrong = [album / "empty", album / "*.gif", album / "nothing"]
    answer = command("predict", bundle_path, *wrong, "http://127.0.0.1:1/a.jpg")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"{album / 'empty'}: no image in this folder",
        f"{album / '*.gif'}: no image matches this pattern",
        f"{album / 'nothing'}: no such file",
        "http://127.0.0.1:1/a.jpg: a URL, fetched with --allow-url only",
        "4 of 4 could not be read",
    ]
    answer = command("predict", bundle_path, *wrong, images[0], "--json")
    assert (answer.code, paths(answer)) == (1, [str(images[0])])
    assert answer.err.endswith("3 of 4 could not be read\n")
    answer = command("predict", bundle_path)
    assert (answer.code, "no image is named" in answer.err) == (2, True)


def test_lists_and_standard_input(command, bundle_path, album, images, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text(f"\ufeff{images[0]}\r\n\n{album}\n{images[1]}", encoding="utf-8")
    expected = [str(images[0]), *map(str, sorted(album.rglob("[abc].*g"))), str(images[1])]
    expected.remove(str(album / "@eaDir" / "a.png"))
    answer = command("predict", bundle_path, "--files-from", listing, "--json", "--top", 1)
    assert answer.code == 0, answer.err
    assert sorted(paths(answer)) == sorted(expected)
    command_line = ["predict", str(bundle_path), "--files-from", "-", "--json", "--top", "1"]
    done = warm.run(
        command_line, input="\n".join(expected), env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert [each["path"] for each in json.loads(done.stdout)] == expected
    answer = command("predict", bundle_path, "--files-from", tmp_path / "none")
    assert answer.code == 2
    assert (
        answer.err
        == f"--files-from {tmp_path / 'none'}: cannot be read (No such file or directory)\n"
    )


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_a_list_is_answered_while_it_is_written(bundle_path, images, tmp_path, output):
    """Who writes it may wait for an answer before the next name."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    process = listening(bundle_path, *output)
    printed = b""
    for named in ([images[0]], [images[1], broken, images[2]], [images[0]]):
        process.stdin.write("".join(f"{each}\n" for each in named))
        process.stdin.flush()
        answers = printed.count(b"/image ") + sum(each != broken for each in named)
        while printed.count(b"/image ") < answers:
            block = os.read(process.stdout.fileno(), 4096)
            assert block, process.stderr.read()
            printed += block
    out, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1] == "1 of 5 could not be read"
    text = printed.decode() + out
    expected = [str(images[place]) for place in (0, 1, 2, 0)]
    if output:
        assert [each["path"] for each in json.loads(text)] == expected
    else:
        assert [line for line in text.splitlines() if "/image " in line] == expected


def test_a_list_that_goes_on_is_left_when_asked(bundle_path, images):
    process = listening(bundle_path)
    process.stdin.write(f"{images[0]}\n")
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    # Python ignores what is raised in `__del__`, an interrupt too: a person asks again as well.
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
    assert process.stderr.read().splitlines() == ["interrupted"]


def listening(bundle_path, *arguments) -> warm.Started:
    """A process that predicts what its standard input names."""
    words = ["predict", bundle_path, "--files-from", "-", "--top", 1, *arguments]
    return warm.start(words, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_tables_have_a_row_an_image(command, bundle_path, images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"<html><body>not found</body></html>")
    expected = load_bundle(bundle_path).predict(images, top=2)
    least = float(np.mean(sorted(each.probabilities[0] for each in expected)[2:4]))
    csv, parquet = tmp_path / "new" / "p.csv", tmp_path / "p.parquet"
    answer = command(
        *("predict", bundle_path, broken, *images, "--top", 2, "--threshold", least),
        *("--csv", csv, "--parquet", parquet),
    )
    assert answer.code == 1
    assert answer.out == f"wrote 8 predictions to {csv}\nwrote 8 predictions to {parquet}\n"
    assert answer.err.splitlines() == [
        f"{broken}: cannot be read as an image (a web page, not an image)",
        "1 of 9 could not be read",
    ]
    for table in (pd.read_csv(csv), pq.read_table(parquet).to_pandas()):
        assert table.columns.tolist() == [
            *("path", "class_1", "probability_1", "class_2", "probability_2", "rejected")
        ]
        assert table["path"].tolist() == [str(image) for image in images]
        assert table["class_1"].tolist() == [each.classes[0] for each in expected]
        assert table["class_2"].tolist() == [each.classes[1] for each in expected]
        assert table["probability_1"].tolist() == pytest.approx(
            [each.probabilities[0] for each in expected], abs=1e-6
        )
        assert table["rejected"].tolist() == [each.probabilities[0] < least for each in expected]
    assert [file.name for file in csv.parent.iterdir()] == ["p.csv"]
    answer = command("predict", bundle_path, *images, "--top", 99, "--csv", csv, "--json")
    assert len(json.loads(answer.out)) == 8
    assert len(pd.read_csv(csv).columns) == 1 + 2 * len(CLASSES)


def test_a_table_that_cannot_be_written_is_bad_input(command, bundle_path, images, tmp_path):
    answer = command("predict", bundle_path, images[0], "--csv", tmp_path)
    assert (answer.code, answer.err) == (
        2,
        f"{tmp_path}: is a directory, allowed is the name of a file\n",
    )
    (tmp_path / "file").touch()
    answer = command("predict", bundle_path, images[0], "--parquet", tmp_path / "file" / "x")
    assert (answer.code, "cannot be written" in answer.err) == (2, True)
    # What ends early leaves the table that was there.
    old = tmp_path / "old.csv"
    old.write_text("old")
    answer = command("predict", bundle_path, "--files-from", tmp_path / "none", "--csv", old)
    assert (answer.code, old.read_text()) == (2, "old")


def shown_on_a_terminal(bundle_path, *arguments) -> str:
    """Everything that standard error shows while it is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "gsfl_tune", "predict", str(bundle_path), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        shown = b""
        # Reading fails when the other side is closed.
        with contextlib.suppress(OSError):
            while block := os.read(ours, 4096):
                shown += block
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


@pytest.mark.slow
def test_a_terminal_shows_how_much_is_done(bundle_path, images, tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(500):
        os.link(images[1], tmp_path / "many" / f"{number}.png")
    shown = shown_on_a_terminal(bundle_path, tmp_path / "many")
    found = re.findall(r"predicting: ([\d,]+)/500 images", shown)
    done = [int(each.replace(",", "")) for each in found]
    assert done == sorted(done)
    assert any(0 < each < 500 for each in done)
    # How long a list is, is not known before its end.
    (tmp_path / "names").write_text("\n".join(map(str, (tmp_path / "many").iterdir())))
    shown = shown_on_a_terminal(bundle_path, "--files-from", tmp_path / "names")
    assert re.search(r"predicting, [\d,]+ images so far", shown)


def test_images_of_a_server(command, bundle_path, images):
    with Server() as server:
        server.files["/a.png"] = images[1].read_bytes()
        server.files["/page"] = b"<!doctype html><p>no image"
        server.redirects["/moved"] = "/a.png"
        urls = [server.url(name) for name in ("/a.png", "/moved", "/page", "/none")]
        answer = command("predict", bundle_path, *urls, images[1], "--allow-url", "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert [each["path"] for each in found] == [*urls[:2], str(images[1])]
    # The same bytes are the same image, wherever they come from.
    assert found[0]["probabilities"] == pytest.approx(found[2]["probabilities"], abs=1e-6)
    assert answer.err.splitlines() == [
        f"{urls[2]}: cannot be read as an image (a web page, not an image)",
        f"{urls[3]}: the server answers 404 Not Found",
        "2 of 5 could not be read",
    ]


def test_predictions_come_while_images_are_still_found(bundle_path, images):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield images[taken % len(images)]

    stream = load_bundle(bundle_path).stream(endless(), top=1, batch_size=4)
    first = [next(stream) for _ in range(40)]
    assert [each.path for each in first] == [
        str(images[number % len(images)]) for number in range(1, 41)
    ]
    assert taken < 40 + 4 + 8 * (os.cpu_count() or 1) + 1
