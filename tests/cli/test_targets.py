"""What `afterward worker` says of a MODULE:NAME, or of a store, that cannot work: what is wrong, and the mend."""

import pytest

from tests.cli.conftest import World

PROGRAMS = {
    "bare": "from fastapi import FastAPI\napp = FastAPI()\n",
    "idle": "from fastapi import FastAPI\nfrom afterward import Afterward\napp = FastAPI()\nAfterward().install(app)\n",
    "raising": "raise LookupError('no such setting')\n",
    "script": "import sys\nsys.exit(0)\n",
    "half": "import module_that_is_missing\n",
    "ill": "from afterward import Afterward\ntasks = Afterward('mysql://x')\n",
}

UNSTORABLE = """
from afterward import Afterward
tasks = Afterward()
class Odd: ...
@tasks.task
def run(odd: Odd) -> None: ...
"""

WRONG = [
    ("shop", "'shop' is not of the form MODULE:NAME; for an app named app in main.py write main:app"),
    ("shop:", "'shop:' is not of the form MODULE:NAME"),
    ("shop.py:app", "'shop.py:app' is not of the form MODULE:NAME; for this file write shop:app"),
    ("missing.py:app", "'missing.py:app' is not of the form MODULE:NAME; for this file write missing:app"),
    ("./shop.py", "'./shop.py' is not of the form MODULE:NAME; for this file write shop:app"),
    ("api/shop.py:tasks", "'api/shop.py:tasks' is not of the form MODULE:NAME; for this file write api.shop:tasks"),
    ("shop:application", "shop:application: shop has no 'application'; did you mean shop:app or shop:tasks?"),
    ("shop:app.tasks", "shop:app.tasks: shop has no 'app.tasks'; did you mean"),
    ("shop:add", "shop:add is of type Task, not an Afterward or a FastAPI app; did you mean shop:app or shop:tasks?"),
    ("missing:app", "there is no module 'missing' in "),
    ("missing.api:app", "there is no module 'missing' in "),
    ("shop.api:app", "there is no module 'shop.api' in "),
    ("half:app", "module half cannot be imported: ModuleNotFoundError: No module named 'module_that_is_missing'"),
    ("raising:app", "module raising cannot be imported: LookupError: no such setting"),
    ("script:app", "module script ends the interpreter when it is imported; put what it starts under"),
    ("bare:app", "bare:app is an app without durable tasks; call tasks.install(app) where it is made"),
    ("bare:FastAPI", "bare:FastAPI is of type type, not an Afterward or a FastAPI app; bare has no Afterward"),
    ("idle:app", "idle:app declares no tasks, so there is nothing to run; import the modules that"),
    ("ill:tasks", "module ill cannot be imported: ConfigurationError: 'mysql' names no store of this version"),
]


def test_every_wrong_target_is_named_with_its_mend(world: World) -> None:
    """Each message says what is wrong, and what to do."""
    for module, text in PROGRAMS.items():
        world.program(module, text)
    program = (
        "import sys; from afterward.cli.target import load; from afterward.errors import ConfigurationError\n"
        "for target in sys.argv[1:]:\n"
        "    try: load(target)\n"
        "    except ConfigurationError as error: print(error)\n"
        "    else: print('loaded')\n"
    )

    run = world.run_python("-c", program, *(target for target, _ in WRONG))

    said = dict(zip((target for target, _ in WRONG), run.stdout.splitlines(), strict=True))
    assert {target: said[target][: len(message)] for target, message in WRONG} == dict(WRONG)


def test_a_wrong_target_ends_the_command(world: World) -> None:
    """With the message alone; the exit code tells that this can never work."""
    run = world.run("worker", "shop:application")

    assert run.returncode == 2
    assert (
        run.stderr == "afterward: shop:application: shop has no 'application'; did you mean shop:app or shop:tasks?\n"
    )
    assert run.stdout == ""


def test_a_program_that_cannot_be_imported_is_shown_where(world: World) -> None:
    """The traceback leads to the line of the mistake, and the last line sums it up."""
    world.program("raising", PROGRAMS["raising"])

    run = world.run("worker", "raising:app")

    assert run.returncode == 2
    assert 'raising.py", line 1, in <module>' in run.stderr
    assert run.stderr.splitlines()[-1] == "afterward: module raising cannot be imported: LookupError: no such setting"


def test_arguments_that_cannot_be_stored_are_told_at_the_start(world: World) -> None:
    """Though no job is there yet."""
    world.program("unstorable", UNSTORABLE)

    run = world.run("worker", "unstorable:tasks")

    assert run.returncode == 2
    assert "task unstorable:run: argument 'odd' is annotated Odd, which cannot be stored" in run.stderr


def test_a_store_that_is_not_ours_is_named_and_left_as_it_is(world: World) -> None:
    """A worker refuses it at its start."""
    world.database.write_text("notes of somebody else, and not a database at all\n" * 100)

    run = world.run("worker", "shop:app")

    assert run.returncode == 2, run.stderr
    assert f"afterward: the store {world.database} is not a SQLite database; name another file" in run.stderr
    assert world.database.read_text().startswith("notes of somebody else")


@pytest.mark.parametrize(
    "option",
    [
        "--processes=0",
        "--processes=1001",
        "--concurrency=99999999999999999999",
        "--threads=100001",
        "--grace=-1",
        "--grace=inf",
        "--grace=nan",
        "--grace=soon",
    ],
)
def test_an_option_that_makes_no_sense_is_refused(world: World, option: str) -> None:
    """Before anything is imported."""
    run = world.run("worker", "missing:app", option)

    assert run.returncode == 2
    assert option.partition("=")[0] in run.stderr


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(world: World, missing: str) -> None:
    """The library itself needs neither."""
    program = f"import sys; sys.modules[{missing!r}] = None; from afterward.cli import main; main()"
    run = world.run_python("-c", program, "jobs")

    assert run.returncode == 1
    assert run.stderr == 'afterward: the command line needs typer and rich: pip install "afterward[cli]"\n'
