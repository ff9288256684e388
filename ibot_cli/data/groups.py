"""Groups of rows that are linked, directly or through others; never more links in memory than are given at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class LinkedGroups:
    """Connected components of a graph whose links come in blocks.

    Args:
        num_rows: Rows, at first each in a group of its own.
    """

    def __init__(self, num_rows: int) -> None:
        self._parent = np.arange(num_rows, dtype=np.int64)

    def join(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Unite the groups of each pair; the smallest row stands for its group, and no row points to a larger one.

        Args:
            first: int64 `[m]`, one row of each pair.
            second: int64 `[m]`, the other.
        """
        parent = self._parent
        first, second = self._roots(first), self._roots(second)
        apart = first != second
        members, places = np.unique(np.concatenate([first[apart], second[apart]]), return_inverse=True)
        if len(members) == 0:
            return
        links = len(places) // 2
        ends = (places[:links], places[links:])
        graph = coo_array((np.ones(links, dtype=np.bool_), ends), shape=(len(members), len(members)))
        number, component = connected_components(graph, directed=False)
        smallest = np.full(number, len(parent), dtype=np.int64)
        np.minimum.at(smallest, component, members)
        parent[members] = smallest[component]

    def groups(self) -> list[NDArray[np.int64]]:
        """int64 rows, ascending, of each group of two or more; groups in the order of their first row."""
        roots = self._roots(np.arange(len(self._parent)))
        order = np.argsort(roots, kind="stable")
        ends = np.flatnonzero(np.diff(roots[order])) + 1
        return [group for group in np.split(order, ends) if len(group) > 1]

    def _roots(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row that stands for the group of each of `rows`; their paths are shortened."""
        found = self._parent[rows]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[rows] = found
        return found
