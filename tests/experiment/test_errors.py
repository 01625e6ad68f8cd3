"""Messages of errors."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one\n"), "one"),
        (ValueError(), "ValueError"),
        # As torch's exporter to ONNX says it.
        (ValueError("\x1b[96mThis is step 3/3\x1b[0m of it"), "This is step 3/3 of it"),
        (ValueError("\x1b[0m"), "ValueError"),
    ],
)
def test_the_first_line_says_what_went_wrong_without_colours(error: Exception, line: str) -> None:
    assert first_line(error) == line
