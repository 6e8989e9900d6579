"""The fast ways through a CSV file give what the plain ones give."""

import csv
import io
import lzma
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emotion_ai.data import loaders
from emotion_ai.data.csv_files import _plain_levels, _Reader

TOKENS = st.sampled_from(["0", "7", "25", "255", "256", "260", "300", "007", "1000", "0012", "10012", "-1", "é", "1.0"])
BLANKS = st.sampled_from([" ", "  ", "\t", ","])


@given(st.lists(TOKENS, max_size=6), BLANKS, st.booleans())
@example(["255", "0"], " ", True)
def test_levels_are_those_of_int(tokens: list[str], blank: str, padded: bool) -> None:
    text = f" {blank.join(tokens)} " if padded else blank.join(tokens)
    found = _plain_levels(text)
    if blank.isspace() and blank != "\t" and all(token.isdecimal() and int(token) <= 255 for token in tokens):
        assert found is not None
        assert found.tolist() == [int(token) for token in tokens]
    elif found is not None:
        assert found.tolist() == [int(token) for token in text.split(" ") if token]


@given(st.text(alphabet='ab,"\n\r ', max_size=40))
def test_rows_are_those_of_the_csv_module(text: str) -> None:
    plain = csv.reader(io.StringIO(text, newline=""))
    fast = _Reader(iter(io.StringIO(text, newline="")), ",")
    for expected in plain:
        assert next(fast) == expected
        assert fast.line_num == plain.line_num
    assert next(fast, None) is None


@pytest.mark.slow
def test_ingest_takes_at_most_twice_the_time_of_decompressing(real_data: Path) -> None:
    path = real_data / "fer2013" / "fer2013.csv.xz"
    ratios = []
    for _ in range(3):
        started = time.process_time()
        with lzma.open(path) as file:
            while file.read(1 << 20):
                pass
        middle = time.process_time()
        loaders._parse_emotion(path)
        ratios.append((time.process_time() - middle) / (middle - started))
    assert np.median(ratios) < 2  # of the CPU's time: on two cores both go on at once, and take hardly longer than one
