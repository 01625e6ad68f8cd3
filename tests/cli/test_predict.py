"""``gsfl-tune predict``."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.export import load_bundle


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
    assert len(answer.err.splitlines()) == 2


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
    assert text.count(f"unknown: no class has {100 * least:.1f} %") == 3
    answer = command("predict", bundle_path, images[0], "--threshold", "auto")
    assert answer.code == 2
    assert "--threshold: found auto, but this bundle has no threshold" in answer.err
    answer = command("predict", bundle_path, images[0], "--threshold", "often")
    assert answer.code == 2
    assert "allowed a probability from 0 to 1, auto, auto:SHARE" in answer.err
