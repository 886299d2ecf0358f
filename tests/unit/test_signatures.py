"""Failures of one cause have one signature, those of another cause have another."""

import re
import subprocess
import sys
import sysconfig
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from afterward.engine.executor import failure_of
from afterward.signatures import Place, signature_of, without_what_varies

MAIL = Place("/srv/shop/mail.py", "Mailer.send")
LIBRARY = Place(f"{sysconfig.get_path('purelib')}/requests/api.py", "get")
STANDARD = Place(f"{sysconfig.get_path('stdlib')}/socket.py", "create_connection")

texts = st.text(st.characters(codec="utf-8"), max_size=300)
words = st.from_regex(r"[a-z]{2,12}( [a-z]{2,12}){0,3}", fullmatch=True)
what_varies = (
    st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.uuids().map(str)
    | st.integers(0).map(hex)
    | st.binary(min_size=8, max_size=20).map(bytes.hex)
    | st.from_regex(r"[a-z <>/.0-9]{0,20}", fullmatch=True).map(lambda text: f"'{text}'")
    | st.from_regex(r"[a-z' ]{0,20}", fullmatch=True).map(lambda text: f'"{text}"')
    | st.lists(st.from_regex(r"[a-z0-9_]{1,9}", fullmatch=True), min_size=2, max_size=5).map(
        lambda p: "/" + "/".join(p)
    )
    | st.from_regex(r"https?://[a-z]{1,9}\.test/[a-z0-9?=&]{0,9}", fullmatch=True)
    | st.emails(domains=st.just("mail.test")).filter(lambda text: re.fullmatch(r"[\w.+-]{1,64}@.*", text) is not None)
    | st.datetimes().map(lambda at: at.isoformat(" "))
)


@given(before=words, after=words, one=what_varies, other=what_varies)
def test_a_message_counts_without_what_varies(before: str, after: str, one: str, other: str) -> None:
    signatures = {signature_of("ValueError", f"{before} {value} {after}", [MAIL]) for value in (one, other)}
    assert len(signatures) == 1


@given(before=words, one=st.lists(what_varies, min_size=1, max_size=5), other=st.lists(what_varies, min_size=1))
def test_of_several_that_vary_the_number_does_not_count(before: str, one: list[str], other: list[str]) -> None:
    assert without_what_varies(f"{before}: {', '.join(one)}") == without_what_varies(f"{before}: {' '.join(other)}")


@pytest.mark.parametrize("quote", ["'", '"', "b'"])
def test_a_quoted_text_may_be_longer_than_what_is_looked_at(quote: str) -> None:
    one, other = (f"cannot parse {quote}{letter * 5_000}{quote[-1]}" for letter in "ab")
    assert without_what_varies(one) == without_what_varies(other) == "cannot parse …"


@given(kind=texts, message=texts, path=texts, function=texts, task=texts)
@example("\udcff", "\udcff\0", "\udcff", "\udcff", "\udcff")
def test_any_failure_has_one_that_a_url_need_not_quote(
    kind: str, message: str, path: str, function: str, task: str
) -> None:
    signature = signature_of(kind, message, [Place(path, function)], task)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{12,140}", signature)
    assert signature == signature_of(kind, message, [Place(path, function)], task)


def test_it_begins_with_words_for_people() -> None:
    assert re.fullmatch(r"Timeout-send-[0-9a-f]{12}", signature_of("httpx.Timeout", "too slow", [MAIL]))
    assert re.fullmatch(r"WorkerDied-[0-9a-f]{12}", signature_of("afterward.errors.WorkerDied", "it died"))


DIFFERENT = [
    signature_of("ValueError", "no such order", [MAIL]),
    signature_of("KeyError", "no such order", [MAIL]),
    signature_of("ValueError", "no such customer", [MAIL]),
    signature_of("ValueError", "no such order", [MAIL._replace(function="Mailer.close")]),
    signature_of("ValueError", "no such order", [MAIL._replace(path="/srv/shop/post.py")]),
    signature_of("ValueError", "no such order", [], "shop.mail:send"),
    signature_of("ValueError", "no such order", [], "shop.mail:close"),
    signature_of("ValueError", "no such order", []),
]


def test_another_kind_function_file_message_or_task_is_another() -> None:
    assert len(set(DIFFERENT)) == len(DIFFERENT)


ALIKE = [
    [MAIL],
    [Place("/srv/shop/main.py", "send_all"), MAIL],
    [MAIL, LIBRARY, STANDARD],
    [STANDARD, Place("<string>", "__init__"), MAIL, Place("<frozen runpy>", "run")],
    [Place("/somewhere/else/shop/mail.py", "Mailer.send")],
    [Place(r"C:\deployed\shop\mail.py", "Mailer.send")],
    [Place("/srv/shop/mail.py", "Mailer.send.<locals>.<listcomp>")],
]


@pytest.mark.parametrize("places", ALIKE)
def test_the_innermost_function_of_the_user_counts_wherever_it_is_deployed(places: list[Place]) -> None:
    assert signature_of("ValueError", "oops", places) == signature_of("ValueError", "oops", [MAIL])


def test_a_folder_that_is_named_anew_with_each_deployment_does_not_count() -> None:
    [one, other] = [Place(f"/srv/{folder}/mail.py", "send") for folder in ("release-20250101", "release-20250203")]
    assert signature_of("ValueError", "oops", [one]) == signature_of("ValueError", "oops", [other])


def test_an_application_may_be_an_installed_package() -> None:
    """Then its functions are told from those of other packages by the first one: that of the task."""
    inside = Place(f"{sysconfig.get_path('purelib')}/shop/mail.py", "send")
    assert signature_of("ValueError", "oops", [inside, LIBRARY]) == signature_of("ValueError", "oops", [inside])
    assert signature_of("ValueError", "oops", [inside]) != signature_of("ValueError", "oops", [])


def test_it_is_the_same_in_every_process() -> None:
    """Written down: a version that makes others of them would show each failure that it knows already as a new one."""
    call = (
        "from afterward.signatures import *; print(signature_of('ValueError', 'no order 7', [Place('/a/b.py', 'c')]))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", call], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {"ValueError-c-6187194aa3a2"}


@pytest.mark.parametrize(
    "message",
    ["'\\" * 2_000, "\u2018" * 9_000, "a" * 9_000, "1a" * 9_000, "/a" * 9_000, "a.@" * 9_000],
    ids=lambda message: message[:2],
)
def test_no_message_takes_long(message: str) -> None:
    began = time.process_time()
    without_what_varies(message)
    assert time.process_time() - began < 0.1


def test_of_a_group_the_first_error_counts() -> None:
    """Every failed task group has the same message, and is raised at the end of its block."""

    def failure(*errors: Exception) -> str:
        return failure_of(ExceptionGroup("unhandled errors in a TaskGroup", list(errors))).signature

    assert failure(ValueError("order 1")) == failure(ValueError("order 2"), KeyError("x"))
    assert failure(ValueError("order 1")) != failure(KeyError("order 1"))
    assert failure(ExceptionGroup("inside", [ValueError("order 1")])) == failure(ValueError("order 1"))


def test_an_error_raised_in_a_library_counts_as_one_of_the_function_that_called_it() -> None:
    def fetch() -> None:
        int("no number")

    def parse() -> None:
        re.compile("(")

    def failure(call: object) -> str:
        try:
            call()  # type: ignore[operator]
        except Exception as error:
            return failure_of(error).signature
        raise AssertionError

    assert failure(parse).startswith("PatternError-parse-") or failure(parse).startswith("error-parse-")
    assert failure(fetch).startswith("ValueError-fetch-")


def test_where_no_frame_is_the_users_the_task_counts() -> None:
    late = TimeoutError("the attempt took longer than its timeout of 5 s")
    assert failure_of(late, "shop:send").signature == failure_of(late, "shop:send").signature
    assert failure_of(late, "shop:send").signature != failure_of(late, "shop:ship").signature
