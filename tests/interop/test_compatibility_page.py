"""docs/compatibility.md says what the tests of the matrix say: the same rows, columns and n/a."""

import re

from support import matrix


def rows(table: str) -> str:
    """Without the versions: the page names those it was run with, and a release of an SDK makes no page wrong."""
    return re.sub(r"\b\d+\.\d+\.\d+\b", "x", table)


def test_the_committed_page_is_of_these_tests() -> None:
    """Rows, n/a, notes. If not: `pytest tests/interop/test_compatibility.py --write-matrix`."""
    page = matrix.committed()
    for found in (matrix.FAILS, matrix.UNKNOWN):
        page = page.replace(f"| {found} ", f"| {matrix.PASSES} ")
    assert rows(page) == rows(matrix.table(dict.fromkeys(matrix.cells(), matrix.PASSES)))


def test_what_was_not_run_is_not_shown_as_passed() -> None:
    assert matrix.PASSES not in matrix.table({}).partition("passed means")[0]


def test_a_failure_shows_in_its_own_cell() -> None:
    results = dict.fromkeys(matrix.cells(), matrix.PASSES)
    results["rpc", matrix.NODE, "two-connections"] = matrix.FAILS
    (row,) = (line for line in matrix.table(results).splitlines() if line.startswith("| RPC | passes"))
    assert row.split(" | ")[1:] == ["passes"] * 5 + ["**fails** |"]


def test_what_an_sdk_cannot_do_is_not_run() -> None:
    run = matrix.cells()
    assert not [cell for cell in run if cell[1] in matrix.BY_NAME[cell[0]].without]
    assert len(set(run)) == len(run)
