"""`afterward enqueue`: a call of a task, typed."""

import asyncio
import json
import signal

import pytest

from afterward.job import Ruling, Status
from afterward.stores.sqlite import SQLiteStore
from tests.cli.conftest import World


def test_a_job_is_stored_and_its_id_is_all_that_is_printed(world: World) -> None:
    """So that a script can have it."""
    world.enqueue_all()  # the store is made
    run = world.run("enqueue", "shop:app", "shop:add", "n=3")

    assert (run.returncode, run.stderr) == (0, "")
    job = world.job(run.stdout.strip())
    assert run.stdout == f"{job.id}\n"
    assert (job.task, job.arguments, job.status) == ("shop:add", '{"n":3}', "queued")


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        (["text=hello"], {"text": "hello"}),
        (["text=", "n=0"], {"text": "", "n": 0}),
        (["text=a=b", "tags=[\"x\", \"y\"]"], {"text": "a=b", "tags": ["x", "y"]}),
        (["text=123", "n=null"], {"text": "123", "n": None}),
        (['text="123"', "n=7"], {"text": "123", "n": 7}),
        (["text=NaN"], {"text": "NaN"}),
        (["--args-json", '{"text": "t", "n": 4}'], {"text": "t", "n": 4}),
        (["n=5", "--args-json", '{"text": "t"}'], {"text": "t", "n": 5}),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_json_where_they_fit_and_text_else(
    world: World, typed: list[str], stored: dict[str, object]
) -> None:
    """By what the function wants: a number typed for a text is that text."""
    run = world.run("enqueue", "shop:app", "note", *typed)

    assert run.returncode == 0, run.stderr
    assert json.loads(world.job(run.stdout.strip()).arguments) == stored


WRONG = [
    (["note"], "task shop:note cannot be called so: text: Field required"),
    (["note", "text=a", "m=1"], "task shop:note cannot be called so: m: Extra inputs are not permitted"),
    (["note", "text=a", "n=many"], "task shop:note cannot be called so: n: Input should be a valid integer"),
    (["note", "text=a", "text=b"], "argument text is given twice"),
    (["note", "text=a", "--args-json", '{"text": "b"}'], "argument text is given twice: once in --args-json"),
    (["note", "text"], "'text' is no argument; write NAME=VALUE, for one n=3 or 'to=ada@example.com'"),
    (["note", "--args-json", "{"], "--args-json is no JSON: "),
    (["note", "--args-json", "[" * 100_000], "--args-json is nested too deeply"),
    (["note", "--args-json", '{"text": "a", "n": NaN}'], "--args-json is no JSON: NaN"),
    (["note", "--args-json", '{"text": "a", "n": 1, "text": "b"}'], "--args-json says text twice"),
    (["note", "--args-json", "[1]"], "--args-json must be a JSON object, by the names of the arguments"),
    (["notes", "text=a"], "there is no task notes; did you mean shop:note"),
    (["zzz"], "there is no task zzz; there are one:send, shop:add, "),
    (["ote", "text=a"], "there is no task ote; did you mean shop:note"),
    (["send"], "several tasks are named send: one:send, two:send"),
    (["note", "text=a", "--unique", "", "--on-duplicate", "keep"], "unique='' must have 1 to 500 characters"),
    (["note", "text=a", "--on-duplicate", "refuse"], "on_duplicate='refuse' needs a unique= key to go by"),
    (["note", "text=a", "--delay", "soon"], "'soon' is no span of time; write 90, 90s, 5m, 2h or 7d"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "said"), WRONG, ids=[" ".join(typed)[:60] for typed, _ in WRONG])
def test_what_cannot_be_called_is_refused_with_the_mend(world: World, typed: list[str], said: str) -> None:
    """As wrong usage; nothing is stored."""
    world.program("many", "from shop import tasks\n@tasks.task(name='one:send')\ndef a() -> None: ...\n"
                  "@tasks.task(name='two:send')\ndef b() -> None: ...\n")  # fmt: skip

    run = world.run("enqueue", "many:tasks", *typed)

    assert (run.returncode, run.stdout) == (2, "")
    assert said in " ".join(run.stderr.split())
    assert not world.database.exists()


def test_a_file_cannot_be_typed(world: World) -> None:
    """Least of all the name of one that another job has in the store."""
    world.program("files", "from fastapi import UploadFile\nfrom shop import tasks\n"
                  "@tasks.task\ndef count(file: UploadFile) -> None: ...\n")  # fmt: skip
    stored = json.dumps({"file": "0190", "filename": "x", "size": 3, "headers": []})

    for typed, said in [("a.png", "file: Input should be an object"), (stored, "names a file in the store")]:
        run = world.run("enqueue", "files:tasks", "count", f"file={typed}")
        assert (run.returncode, run.stdout) == (2, "")
        assert said in run.stderr


def test_options_of_the_call(world: World) -> None:
    """In place of what the task says."""
    options = ["--delay", "2h", "--queue", "mail", "--priority", "-3", "--unique", "daily"]

    run = world.run("enqueue", "shop:app", "add", "n=1", *options, "--json")

    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert (facts["queue"], facts["priority"], facts["unique"], facts["state"]) == ("mail", -3, "daily", "scheduled")
    assert facts["detail"] in {"in 2 h", "in 1 h", "in 119 min"}
    kept = world.run("enqueue", "shop:app", "add", "n=2", "--unique", "daily", "--json")
    assert json.loads(kept.stdout)["id"] == facts["id"]
    refused = world.run("enqueue", "shop:app", "add", "n=2", "--unique", "daily", "--on-duplicate", "refuse")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "an unfinished job has the unique key 'daily' already" in refused.stderr


def test_waiting_for_what_was_added(world: World) -> None:
    """The exit code says how it ended, or that it has not in time."""
    world.start_worker()

    good = world.run("enqueue", "shop:app", "add", "n=4", "--wait", "--json")
    assert (good.returncode, json.loads(good.stdout)["result"]) == (0, 4)
    slow = world.run("enqueue", "shop:app", "rest", "seconds=60", "--timeout", "0.2")
    assert slow.returncode == 3
    assert world.job(slow.stdout.strip()).status in ("queued", "running")
    assert "had not ended after 0.2 s; it goes on" in slow.stderr


def test_waiting_for_what_fails(world: World) -> None:
    """The failure is told."""
    world.program(
        "strict", "from shop import tasks\n@tasks.task(max_attempts=1)\ndef no() -> None: raise ValueError('no')\n"
    )
    world.start_worker(target="strict:tasks")

    run = world.run("enqueue", "strict:tasks", "no", "--wait")

    assert run.returncode == 1
    assert run.stderr == f"afterward: job {run.stdout.strip()} is failed: ValueError: no\n"


def test_what_a_task_says_does_not_steer_the_terminal(world: World) -> None:
    """Nor a standard error that somebody looks at on one."""
    world.program(
        "rude",
        "from shop import tasks\n@tasks.task(max_attempts=1)\ndef no() -> None: raise ValueError('\x1b[31mred')\n",
    )
    world.start_worker(target="rude:tasks")

    run = world.run("enqueue", "rude:tasks", "no", "--wait")

    assert run.returncode == 1
    assert run.stderr == f"afterward: job {run.stdout.strip()} is failed: ValueError: \\x1b[31mred\n"


def test_ctrl_c_ends_the_waiting_and_the_job_goes_on(world: World) -> None:
    """With the exit code that shells know it by."""
    world.enqueue_all()  # the store is made
    waiting = world.start("enqueue", "shop:app", "add", "n=1", "--wait")
    [job] = waiting.wait_for(r"^([0-9a-f-]{36})\n")

    waiting.send(signal.SIGINT)

    assert waiting.wait() == 130
    assert waiting.output() == f"{job}\n"
    assert world.job(job).status is Status.queued


def test_a_job_that_was_pruned_as_soon_as_it_had_ended_is_told(world: World) -> None:
    """Nobody can say by then how it ended."""
    waiting = world.start("enqueue", "shop:app", "add", "n=1", "--wait")
    [job] = waiting.wait_for(r"^([0-9a-f-]{36})\n")

    async def end_and_prune() -> None:
        store = SQLiteStore(world.database)
        await store.open()
        cancelled, tidied = await asyncio.gather(store.cancel([job]), store.tidy({Status.cancelled: 0}, 1, 1))
        assert (cancelled, tidied.pruned) == ([Ruling.done], 1)
        await store.close()

    asyncio.run(end_and_prune())

    assert waiting.wait() == 1
    assert f"afterward: job {job} has ended and was pruned before it could be looked at; " in waiting.output()
