"""What the table of turned pictures counts."""

import numpy as np

from emotion_ai.benchmarks.roll import TurnedFace, results_table

NAN = float("nan")


def test_wrong_points_and_named_wrong_points_are_counted_by_angle() -> None:
    results = [
        TurnedFace(0, True, 0.01, 1.0, True, True, 0, 0.1),
        TurnedFace(90, True, 0.2, -40.0, True, False, 1, 0.2),
        TurnedFace(270, True, 0.3, 50.0, False, False, 0, 0.2),
        TurnedFace(180, False, NAN, NAN, False, False, 2, 0.3),
        TurnedFace(350, True, NAN, 1.0, True, True, 0, 0.1),
    ]
    rows = {str(row[0]): row[1:] for row in results_table(results).rows}
    assert list(rows) == ["0 to 14", "75 to 104", "165 to 180", "all"]
    assert rows["0 to 14"][:4] == (2, 2, 1, 1), "unknown points count as wrong"
    assert rows["75 to 104"][:4] == (2, 2, 2, 1)
    assert rows["75 to 104"][6:10] == (45.0, 1, 0, 1)
    assert rows["165 to 180"][:4] == (1, 0, 0, 0)
    assert np.isnan(float(rows["165 to 180"][4]))  # type: ignore[arg-type]
    assert rows["all"][:4] == (5, 4, 3, 2)
