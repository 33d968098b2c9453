"""The fixtures that users get: from any kind of test, honest about leaks, and talkative about failures."""

import pytest
from support.interop import MARKS

pytestmark = MARKS

FLAVOURS = """
import asyncio
import urllib.request

import pytest
import trio


def healthy(server):
    return urllib.request.urlopen(server.http_url).read() == b"OK"


def test_sync(lk_server, lk_room, lk_token):
    assert healthy(lk_server)
    assert lk_room in str(lk_server.url) or lk_token("alice").count(".") == 2


def test_asyncio(lk_server, lk_room):
    assert asyncio.run(asyncio.to_thread(healthy, lk_server))


def test_trio(lk_server, lk_room):
    assert trio.run(trio.to_thread.run_sync, healthy, lk_server)


def test_a_trio_test_looks_inside(lk_server, lk_room):
    async def looks():
        assert lk_server.actors() and lk_room not in lk_server.rooms()
        with pytest.raises(LookupError):
            lk_server.crash("nowhere")

    trio.run(looks)


def test_rooms_have_names_of_their_own(lk_room):
    assert "names_of_their_own" in lk_room
"""

LEAK = """
import trio


def test_leaves_a_task_behind(lk_server, lk_room):
    lk_server.call(trio.lowlevel.spawn_system_task, trio.sleep_forever)
"""

FAILURE = """
import urllib.error
import urllib.request

import pytest


def test_is_refused(lk_server, lk_room, lk_token):
    request = f"{lk_server.http_url}/rtc/validate?access_token={lk_token('alice')}"
    assert urllib.request.urlopen(request).status == 200
    lk_server.call(lk_server.node.services.events.record, 0.0, lk_room, "alice", "told.by.the.test")
    raise AssertionError("on purpose")
"""


def run(pytester: pytest.Pytester, text: str) -> pytest.RunResult:
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_the_server_serves_sync_asyncio_and_trio_tests(pytester: pytest.Pytester) -> None:
    run(pytester, FLAVOURS).assert_outcomes(passed=5)


def test_a_leak_fails_the_test_that_made_it(pytester: pytest.Pytester) -> None:
    result = run(pytester, LEAK)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*LeakError: still running: *sleep_forever*"])


def test_a_failure_comes_with_what_happened_in_the_room(pytester: pytest.Pytester) -> None:
    result = run(pytester, FAILURE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*what happened in room test_is_refused-*", "*alice told.by.the.test*"])
