"""The assignment problem: which rows and columns to pair, each at most once, at the least total cost."""

import numpy as np
from numpy.typing import NDArray


def assign(costs: NDArray[np.float64], unpaired: float) -> dict[int, int]:
    """The column of each row that is paired, at the least total cost.

    Shortest augmenting paths (Jonker and Volgenant 1987, doi:10.1007/BF02278710), in O(rows^2 * columns): for some
    dozens of faces, where SciPy, which has the same, is not installed with a client.

    Args:
        costs: float (R, C); inf forbids a pair.
        unpaired: cost of a row without a column; dearer pairs are never made.
    """
    rows, columns = costs.shape
    own = np.where(np.eye(rows, dtype=bool), unpaired, np.inf)  # a column for each row to stay alone
    padded = np.concatenate([np.where(costs <= unpaired, costs, np.inf), own], 1)
    row_of = np.full(columns + rows, -1)
    u, v = np.zeros(rows), np.zeros(columns + rows)
    for row in range(rows):
        distance = np.full(columns + rows, np.inf)
        before = np.full(columns + rows, -1)
        done = np.zeros(columns + rows, bool)
        at, last, shortest = row, -1, 0.0
        while at >= 0:
            through = shortest + padded[at] - u[at] - v
            closer = ~done & (through < distance)
            distance[closer], before[closer] = through[closer], last
            last = int(np.where(done, np.inf, distance).argmin())
            shortest, done[last] = distance[last], True
            at = int(row_of[last])
        paired = np.flatnonzero(done & (row_of >= 0))
        u[row] += shortest
        u[row_of[paired]] += shortest - distance[paired]
        v[done] -= shortest - distance[done]
        while last >= 0:
            row_of[last] = row if before[last] < 0 else row_of[before[last]]
            last = int(before[last])
    return {int(row_of[column]): column for column in range(columns) if row_of[column] >= 0}
