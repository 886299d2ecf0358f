"""What an `Idempotency-Key` may be, which requests are the same, and what is kept of an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.errors import ConfigurationError
from afterward.idempotency import Fingerprint, KeptAnswer, KeyRefused, key_of, scope_of
from afterward.keeping import Keeping

FORM = "multipart/form-data; boundary="


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        (["8e03978e-40d5-43e8-bc93-6894a57f9324"], "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        (['"8e03978e-40d5-43e8-bc93-6894a57f9324"'], "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ([r'"a\"b\\c"'], r'a"b\c'),
        ([r'"\\""'], r"\""),
        (["  a "], "a"),
        (['"'], '"'),
        (["a" * 255], "a" * 255),
        (["!~"], "!~"),
    ],
)
def test_a_key_is_the_value_of_the_header_or_what_is_in_its_quotes(values: list[str], key: str | None) -> None:
    assert key_of(values) == key


@pytest.mark.parametrize("values", [[""], ['""'], ["a b"], ["a\x7f"], ["ä"], ["a\x1f"], ["a" * 256], ["a", "a"]])
def test_what_is_no_key_is_refused(values: list[str]) -> None:
    with pytest.raises(KeyRefused, match="send"):
        key_of(values)


def test_the_same_key_of_another_or_for_something_else_is_another_key() -> None:
    ways = [("", "POST", "/a"), ("ada", "POST", "/a"), ("", "PATCH", "/a"), ("", "POST", "/b"), ("P", "OST", "/a")]
    assert len({scope_of(*way) for way in ways}) == len(ways)
    assert scope_of("ada", "POST", "/a") == scope_of("ada", "POST", "/a")
    assert len(scope_of("a" * 10_000, "POST", "/ä" * 10_000)) == 64


def printed(*pieces: bytes, query: bytes = b"", content_type: str = "application/json") -> str:
    """The fingerprint of a request to one path."""
    fingerprint = Fingerprint("POST", "/reports", query, content_type)
    for piece in pieces:
        fingerprint.take(piece)
    return fingerprint.text()


def test_requests_that_differ_in_anything_have_another_fingerprint() -> None:
    prints = [
        printed(),
        printed(b"{}"),
        printed(b"{} "),
        printed(query=b"n=1"),
        printed(query=b"n=2"),
        printed(query=b"\xff"),
        printed(content_type="text/plain"),
        Fingerprint("PATCH", "/reports", b"", "application/json").text(),
        Fingerprint("POST", "/report", b"", "application/json").text(),
    ]
    assert len(set(prints)) == len(prints)


def form(boundary: bytes, *parts: bytes) -> bytes:
    return b"".join(b"--" + boundary + b"\r\n\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def test_a_form_that_is_sent_again_has_the_same_fingerprint_though_its_boundary_is_another() -> None:
    first = printed(form(b"b1", b"a", b"b"), content_type=f"{FORM}b1")
    assert printed(form(b"-----2", b"a", b"b"), content_type=f'{FORM}"-----2"') == first
    assert printed(form(b"b1", b"a", b"c"), content_type=f"{FORM}b1") != first
    assert printed(form(b"b1", b"ab"), content_type=f"{FORM}b1") != first
    assert printed(form(b"b1", b"a", b"b"), content_type="application/octet-stream") != first
    assert printed(form(b"b1", b"a", b"b"), content_type="multipart/mixed; boundary=b1") != first


def test_a_type_that_nobody_can_make_out_is_as_it_stands() -> None:
    """It is for the endpoint to refuse."""
    broken = "multipart/form-data; boundary*1*=;boundary*0=;boundary*=us-ascii'en'b"
    assert printed(b"a", content_type=broken) == printed(b"a", content_type=broken)
    assert printed(b"a", content_type=broken) != printed(b"b", content_type=broken)


@given(st.lists(st.binary(max_size=8)), st.sampled_from(["text/plain", f"{FORM}aa", f"{FORM}aba"]))
def test_a_fingerprint_does_not_depend_on_the_pieces_that_the_body_comes_in(pieces: list[bytes], kind: str) -> None:
    assert printed(*pieces, content_type=kind) == printed(b"".join(pieces), content_type=kind)


@given(st.text("ab", max_size=40), st.integers(1, 5))
def test_nor_where_boundaries_overlap(text: str, size: int) -> None:
    body, kind = text.encode(), f"{FORM}aba"
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert printed(*pieces, content_type=kind) == printed(body, content_type=kind)


def test_what_is_kept_of_an_answer_reads_back_without_what_was_of_one_connection_or_secret() -> None:
    headers = [
        (b"Content-Type", b"image/png"), (b"content-length", b"3"), (b"Location", b"/jobs/1"), (b"x-a", b"\xe4"),
        (b"set-cookie", b"session=secret"), (b"date", b"now"), (b"link", b"</a>"), (b"link", b"</b>"),
    ]  # fmt: skip
    kept = KeptAnswer.of(202, headers, b"\x00\xff!")
    assert KeptAnswer.read(kept.written()) == kept
    assert kept.headers == [
        ("content-type", "image/png"), ("location", "/jobs/1"), ("x-a", "ä"), ("link", "</a>"), ("link", "</b>")
    ]  # fmt: skip
    assert (kept.status, kept.body) == (202, b"\x00\xff!")
    assert kept.written().isascii()


def test_what_a_newer_version_has_written_can_be_read() -> None:
    """It may say more: both versions serve requests in the middle of a deployment."""
    kept = KeptAnswer(202, [("a", "b")], b"body")
    assert KeptAnswer.read(json.dumps([*json.loads(kept.written()), {"more": 1}])) == kept


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
def test_an_answer_that_the_server_takes_from_a_file_cannot_be_kept(kind: str) -> None:
    """Nobody sees what it is."""
    keeping = Keeping("1", is_anybodys=True)
    keeping.hear({"type": "http.response.start", "status": 200})
    with pytest.raises(ConfigurationError, match="sent by the server from a file"):
        keeping.hear({"type": kind})
