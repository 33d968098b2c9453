"""The matrix SDK x scenario x signalling generation, and docs/compatibility.md from it (`--write-matrix`).

Each cell is one test: "sam" is the SDK of the column, "pat" always the Python SDK, in a fresh room of one server that
all cells share. What sam does must be seen by pat, and the other way round. Rows and columns: support/matrix.py.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import matrix
from support.browser import Browser, missing
from support.guests import Guest, NodeGuest, PageGuest, PythonGuest, node_missing
from support.interop import MARKS, party, run
from support.matrix import NODE, PAGE_SDK, PYTHON, Cell
from support.scenarios import SCENARIOS, Scene
from support.turn import turn_server

pytestmark = MARKS

HERE = Path(__file__).parent


# what all cells share


@pytest.fixture(scope="module")
def lk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for the whole matrix, with TURN over TLS for the one scenario that needs it."""
    with turn_server(tmp_path_factory.mktemp("turn"), udp=False) as server:
        yield server


class Results:
    """What came of each cell."""

    def __init__(self) -> None:
        self.cells: dict[Cell, str] = {}

    @contextmanager
    def of(self, cell: Cell) -> Iterator[None]:
        self.cells[cell] = matrix.FAILS
        yield
        self.cells[cell] = matrix.PASSES


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """Afterwards, with --write-matrix, the page. Fails if not every cell was run: half a matrix is none."""
    found = Results()
    yield found
    if request.config.getoption("--write-matrix", default=False):
        unknown = [cell for cell in matrix.cells() if cell not in found.cells]
        assert not unknown, f"docs/compatibility.md not written, these did not run: {unknown}"
        matrix.write(found.cells)


class Crew:
    """One browser and one Node process for all cells, started when the first of theirs comes."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self._browser: Browser | None = None
        self._node: NodeGuest | None = None

    @asynccontextmanager
    async def guest(self, sdk: str, server: Any) -> AsyncIterator[Guest]:
        if sdk == PYTHON:
            yield PythonGuest(server)
        elif sdk == NODE:
            yield self.node()
        else:
            async with self.browser().pages() as (page,):
                yield PageGuest(page)

    def browser(self) -> Browser:
        if self._browser is None:
            # takes the test's certificate for TURN over TLS
            self._browser = self.stack.enter_context(
                Browser(HERE / "web", extra_flags=("--ignore-certificate-errors",))
            )
        return self._browser

    def node(self) -> NodeGuest:
        if self._node is None:
            self._node = self.stack.enter_context(NodeGuest(HERE / "node"))
        return self._node


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    made = Crew()
    with made.stack:
        yield made


@pytest.mark.parametrize("cell", matrix.cells(), ids=lambda cell: f"{cell[1]}-{cell[2]}-{cell[0]}")
def test_cell(lk_server: Any, lk_room: str, crew: Crew, results: Results, cell: Cell) -> None:
    name, sdk, generation = cell
    reason = {PAGE_SDK: missing(HERE / "web"), NODE: node_missing(HERE / "node")}.get(sdk)
    if reason:
        pytest.skip(reason)
    single = generation == "one-connection"

    async def play() -> None:
        async with crew.guest(sdk, lk_server) as sam, party(lk_server, lk_room, single) as guests:
            grants: dict[str, Any] = {"can_update_own_metadata": True}
            token = lk_server.token(identity="sam", room=lk_room, **grants)
            join = sam.call("connect", lk_server.url, token, {"singlePeerConnection": single})
            pat, _ = await asyncio.gather(guests.join("pat", **grants), join)
            try:
                await SCENARIOS[name](Scene(lk_server, lk_room, single, sam, pat))
            finally:
                await sam.call("disconnect")

    with results.of(cell):
        run(play)


def test_every_row_has_its_scenario() -> None:
    assert set(SCENARIOS) == set(matrix.BY_NAME)


@pytest.mark.parametrize("sdk", [PYTHON, NODE])
def test_every_kind_that_the_sdk_offers_is_driven(lk_server: Any, crew: Crew, sdk: str) -> None:
    """What the Rust core can simulate is what its columns show; a new kind in a new version turns up here."""

    async def ask() -> None:
        async with crew.guest(sdk, lk_server) as guest:
            kinds = await guest.call("scenarios")
            assert kinds["offered"] == sorted(kinds["sent"])

    if sdk == NODE and node_missing(HERE / "node"):
        pytest.skip("no Node guest")
    run(ask)
