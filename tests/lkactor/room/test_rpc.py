"""RPC of the server: what is asked, what counts as an answer (livekit-surface 3.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models

from lkactor.api.room_service import RPC_CODES, rpc_error
from lkactor.room.rpc import MAX_PAYLOAD, TEXTS, RpcAck, RpcAnswer, RpcFailed, read_answer, request_packet


def test_the_request_names_its_id_as_the_caller():
    packet = models.DataPacket.FromString(request_packet("id-1", "greet", "hello", 5000))
    request = packet.rpc_request
    assert packet.participant_identity == "id-1"
    assert (request.id, request.method, request.payload, request.response_timeout_ms) == (
        "id-1",
        "greet",
        "hello",
        5000,
    )
    assert request.version == 1


def test_answers():
    ack = models.DataPacket(rpc_ack=models.RpcAck(request_id="a"))
    assert read_answer(ack.SerializeToString()) == RpcAck("a")
    good = models.DataPacket(rpc_response=models.RpcResponse(request_id="a", payload="yes"))
    assert read_answer(good.SerializeToString()) == RpcAnswer("a", "yes")
    error = models.RpcError(code=1700, message="no", data="why")
    bad = models.DataPacket(rpc_response=models.RpcResponse(request_id="a", error=error))
    assert read_answer(bad.SerializeToString()) == RpcAnswer("a", RpcFailed(1700, "no", "why"))
    large = models.DataPacket(rpc_response=models.RpcResponse(request_id="a", payload="x" * (MAX_PAYLOAD + 1)))
    assert read_answer(large.SerializeToString()) == RpcAnswer("a", RpcFailed.of(1504))
    assert read_answer(models.DataPacket(user=models.UserPacket(payload=b"x")).SerializeToString()) is None


@given(st.binary(max_size=200))
def test_any_bytes(payload):
    read_answer(payload)


@pytest.mark.parametrize("code", TEXTS)
def test_every_code_has_its_place_in_twirp(code):
    error = rpc_error(RpcFailed.of(code))
    assert error.code == RPC_CODES[code]
    assert error.message == f"twirp error unknown: RpcError {code}: {TEXTS[code]}"


def test_application_errors_keep_their_words():
    error = rpc_error(RpcFailed(2001, "out of tea", "milk"))
    assert (error.code, error.message) == ("unknown", "twirp error unknown: RpcError 2001: out of tea: milk")
