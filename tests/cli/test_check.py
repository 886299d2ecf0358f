"""`afterward check`: what a code base would lose, told from its text.

Each source says at the end of a line what is to be found in it: `#! rule`, `#? rule` for what cannot be told. On all
other lines nothing may be found: a false alarm is worse than a miss.
"""

import ast
import json
import re
import sysconfig
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from afterward.cli.check import Finding, Report, check
from tests.cli.conftest import World

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))

# What every source can import. `send` takes anything.
BACKGROUND = """
    from afterward import Afterward
    from fastapi import FastAPI

    app = FastAPI()
    tasks = Afterward()
    tasks.install(app)

    @tasks.task
    def send(*args, **kwargs): ...

    @tasks.task(max_attempts=3)
    async def wait(*args, **kwargs): ...

    def plain(*args, **kwargs): ...
    """
PRELUDE = """
    from afterward import BackgroundTask, BackgroundTasks
    from background import app, plain, send, tasks, wait
    """


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Report:
    """Check a folder of these files; `__` in a name stands for a slash."""
    for name, source in files.items():
        path = folder / (name.replace("__", "/").replace("/init", "/__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
    monkeypatch.chdir(folder)
    return check([Path()])


def expected(folder: Path, mark: str) -> list[tuple[str, int, str]]:
    """What the comments in the files of a folder say."""
    return sorted(
        (path.relative_to(folder).as_posix(), number, rule)
        for path in folder.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for comment in re.findall(rf"#{re.escape(mark)} ([\w -]+)", line)
        for rule in comment.split()
    )


def told(findings: list[Finding]) -> list[tuple[str, int, str]]:
    return [(finding.path, finding.line, finding.rule) for finding in findings]


def assert_is_as_marked(folder: Path, report: Report) -> None:
    assert sorted(told(report.findings)) == expected(folder, "!"), report.findings
    assert sorted(told(report.untold)) == expected(folder, "?"), report.untold


# Which functions are lost

FUNCTIONS = {
    "what is added": """
        def local(): ...

        def endpoint(background_tasks: BackgroundTasks):
            background_tasks.add_task(send, "ada@example.com")
            background_tasks.add_task(wait, "ada@example.com")
            background_tasks.add_task(send.options(delay=3).options(queue="mail"), "ada@example.com")
            background_tasks.add_task(func=send)
            background_tasks.add_task(plain)                            #! undecorated
            background_tasks.add_task(local)                            #! undecorated
            background_tasks.add_task(func=plain)                       #! undecorated
            background_tasks.add_task(print, "text")                    #! library-function
            background_tasks.add_task(lambda: send("ada"))              #! lambda
            background_tasks.add_task(plain if app else local)          #! undecorated
            background_tasks.add_task(plain if app else send)           #? cannot-tell
            background_tasks.add_task(*[plain])                         #? cannot-tell
            background_tasks.add_task(send.enqueue, "ada@example.com")  #! bound-method
            background_tasks.add_task()                                 #? cannot-tell
        """,
    "imports": """
        import functools
        import functools as tools
        import os.path
        import shutil
        from functools import partial as bind
        import background
        import background as other

        def endpoint(background_tasks: BackgroundTasks):
            background_tasks.add_task(background.send)
            background_tasks.add_task(other.wait)
            background_tasks.add_task(background.plain)               #! undecorated
            background_tasks.add_task(background.unheard_of)          #? cannot-tell
            background_tasks.add_task(shutil.rmtree, "folder")        #! library-function
            background_tasks.add_task(os.path.exists, "folder")       #! library-function
            background_tasks.add_task(functools.partial(send, "ada")) #! partial
            background_tasks.add_task(tools.partial(plain, "ada"))    #! partial
            background_tasks.add_task(bind(print, "ada"))             #! partial
        """,
    "names that lead to a task": """
        def later(text): ...
        later = tasks.task(later)
        durable = tasks.task(max_attempts=9)
        from functools import partial
        mail_task = partial(tasks.task, queue="mail")

        @durable
        def made_so(): ...

        @mail_task(max_attempts=2)
        def by_mail(): ...

        also = tasks.task(name="also")(plain)
        again = send
        soon = send.options(priority=9)

        def endpoint(background_tasks: BackgroundTasks):
            background_tasks.add_task(later, "text")
            background_tasks.add_task(made_so)
            background_tasks.add_task(by_mail)
            background_tasks.add_task(also)
            background_tasks.add_task(again)
            background_tasks.add_task(soon)
            chosen = send
            if app:
                chosen = wait
            background_tasks.add_task(chosen)
            chosen = plain
            background_tasks.add_task(chosen)  #! undecorated
        """,
    "tasks of Celery": """
        from celery import Celery, shared_task
        import fastapi

        fleet = Celery("fleet")

        @fleet.task
        def resize(key): ...

        @fleet.task(bind=True)
        def measure(self, key): ...

        @shared_task
        def render(key): ...

        named = tasks.celery_task("elsewhere.count")

        def endpoint(background_tasks: BackgroundTasks, stock: fastapi.BackgroundTasks):
            background_tasks.add_task(resize, "key")
            background_tasks.add_task(measure, "key")
            background_tasks.add_task(render, "key")
            background_tasks.add_task(resize.s("key").set(countdown=3))
            background_tasks.add_task(named, "key")
            background_tasks.add_task(resize.delay, "key")  #! bound-method
            stock.add_task(resize, "key")                   #! stock-container
        """,
    "nested functions": """
        def endpoint(background_tasks: BackgroundTasks):
            def inner(): ...
            async def waits(): ...
            background_tasks.add_task(inner)  #! nested-function
            background_tasks.add_task(waits)  #! nested-function
        """,
    "methods": """
        import smtplib

        class Mailer:
            def send(self): ...
            @classmethod
            def make(cls) -> "Mailer": ...
            @staticmethod
            def static(): ...
            @staticmethod
            @tasks.task
            def durable(): ...
            def __call__(self): ...
            def all(self, background_tasks: BackgroundTasks):
                background_tasks.add_task(self.send)     #! bound-method
                background_tasks.add_task(self.static)   #! undecorated
                background_tasks.add_task(self.durable)
                background_tasks.add_task(self.unheard_of)  #? cannot-tell

        class Loud(Mailer): ...

        mailer = Loud()

        def endpoint(background_tasks: BackgroundTasks, given: Mailer, unknown):
            background_tasks.add_task(mailer.send)       #! bound-method
            background_tasks.add_task(given.send)        #! bound-method
            background_tasks.add_task(Mailer().send)     #! bound-method
            background_tasks.add_task(Mailer.make().send)  #! bound-method
            background_tasks.add_task(Mailer.static)     #! undecorated
            background_tasks.add_task(Mailer.durable)
            background_tasks.add_task(mailer)            #! undecorated
            background_tasks.add_task(Mailer)            #! undecorated
            background_tasks.add_task(smtplib.SMTP().quit)  #! bound-method
            background_tasks.add_task(unknown.send)      #? cannot-tell
            background_tasks.add_task(unknown)           #? cannot-tell
        """,
    "what may be anything": """
        from collections.abc import Callable
        from typing import Any, Protocol
        from afterward import Task
        from a_library_that_is_not_installed import deliver, Handler

        class Sender(Protocol):
            def __call__(self) -> None: ...

        def helper(
            background_tasks: BackgroundTasks, f: Callable[[], None], g: Any, h: Sender, i: Handler, t: Task[..., None]
        ):
            background_tasks.add_task(f)        #? cannot-tell
            background_tasks.add_task(g)        #? cannot-tell
            background_tasks.add_task(h)        #? cannot-tell
            background_tasks.add_task(i)        #? cannot-tell
            background_tasks.add_task(t)
            background_tasks.add_task(deliver)  #? cannot-tell
            background_tasks.add_task({"send": send}["send"])   #? cannot-tell
            for each in (send, wait):
                background_tasks.add_task(each)   #? cannot-tell
        """,
    "decorators": """
        import functools
        import a_library_that_is_not_installed as unknown

        def logged(function):
            @functools.wraps(function)
            def call(*args):
                return function(*args)
            return call

        def durable(function):
            return tasks.task(logged(function))

        @functools.lru_cache(maxsize=None)
        def cached(): ...
        @logged
        def told(): ...
        @durable
        def kept(): ...
        @tasks.task
        @logged
        def both(): ...
        @unknown.retry(times=3)
        def tried(): ...
        @app.get("/")
        def page(): ...

        def endpoint(background_tasks: BackgroundTasks):
            background_tasks.add_task(cached)  #! undecorated
            background_tasks.add_task(told)    #! undecorated
            background_tasks.add_task(kept)    #? cannot-tell
            background_tasks.add_task(both)
            background_tasks.add_task(tried)   #? cannot-tell
            background_tasks.add_task(page)    #! undecorated
        """,
    "a name that is bound again, under conditions": """
        try:
            from a_library_that_is_not_installed import fast as deliver
        except ImportError:
            def deliver(): ...

        try:
            from background import send as mail
        except ImportError:
            mail = None

        def endpoint(background_tasks: BackgroundTasks, mail_=mail):
            background_tasks.add_task(deliver)  #? cannot-tell
            background_tasks.add_task(mail)

        def with_a_name_of_its_own(background_tasks: BackgroundTasks, plain):
            background_tasks.add_task(plain)    #? cannot-tell
        """,
    "a line that is meant so": """
        def endpoint(background_tasks: BackgroundTasks, request):
            background_tasks.add_task(plain)  # afterward: in-memory
            background_tasks.add_task(  # afterward: in-memory, for it only counts
                plain,
                (x for x in "abc"),
            )
            background_tasks.add_task(
                plain,
                1,
            )  #afterward:in-memory
            background_tasks.add_task(plain)  #! undecorated
            background_tasks.add_task(plain)  # afterward: in-memory-ish #! undecorated
        """,
    "elsewhere than in a def": """
        from fastapi import Depends

        handlers = [lambda background_tasks: background_tasks.add_task(plain)]   #? cannot-tell

        async def endpoint(background_tasks: BackgroundTasks):
            add = background_tasks.add_task
            add(plain)                                        #! undecorated
            add(send)
            [background_tasks.add_task(plain, n) for n in range(3)]   #! undecorated
            if (job := background_tasks.add_task(plain)):     #! undecorated
                return [job, *[background_tasks.add_task(send, n) for n in range(3)]]
            await background_tasks.add_task(plain)            #! undecorated
            match app:
                case None: background_tasks.add_task(plain)   #! undecorated
        """,
    "without a request": """
        from fastapi import Request

        async def endpoint(request: Request):
            await send.enqueue("ada@example.com")
            await send.enqueue(request)                 #! request-argument
            send.options(delay=1).enqueue_sync(request) #! request-argument
            [send.prepare(lambda: 1)]                   #! function-argument
        """,
}

# What they are added to

CONTAINERS = {
    "FastAPI's own, however it is imported": """
        import fastapi
        import starlette.background
        from fastapi import BackgroundTasks as BT, background
        from fastapi.background import BackgroundTasks as BT2
        from starlette.background import BackgroundTasks as BT3
        from typing import Annotated, Optional, Union
        from fastapi import Depends

        Alias = BT
        Given = Annotated[BT, Depends(lambda: None)]

        def a(t: BT): t.add_task(send)                             #! stock-container
        def b(t: BT2): t.add_task(send)                            #! stock-container
        def c(t: BT3): t.add_task(send)                            #! stock-container
        def d(t: fastapi.BackgroundTasks): t.add_task(send)        #! stock-container
        def e(t: starlette.background.BackgroundTasks): t.add_task(send) #! stock-container
        def f(t: background.BackgroundTasks): t.add_task(send)     #! stock-container
        def g(t: "BT"): t.add_task(send)                           #! stock-container
        def h(t: BT | None = None): t.add_task(send)               #! stock-container
        def i(t: Optional[BT]): t.add_task(send)                   #! stock-container
        def j(t: Union["BT", None]): t.add_task(send)              #! stock-container
        def k(t: Alias): t.add_task(send)                          #! stock-container
        def l(t: Given): t.add_task(send)                          #! stock-container
        def m(t: Annotated["fastapi.BackgroundTasks", 1]): t.add_task(send)  #! stock-container
        def n(t: BT): t.add_task(plain)                            #! undecorated
        def o(): BT().add_task(send)                               #! stock-container
        def p(t: BackgroundTasks): t.add_task(send)
        def q(t: "BackgroundTasks | None"): t.add_task(send)
        """,
    "from dependencies and attributes": """
        from dataclasses import dataclass
        from typing import Annotated
        import fastapi
        from fastapi import Depends

        def stock(background_tasks: fastapi.BackgroundTasks) -> fastapi.BackgroundTasks:
            return background_tasks

        def ours(background_tasks: BackgroundTasks):
            yield background_tasks

        class Service:
            def __init__(self, background_tasks: BackgroundTasks, stock: fastapi.BackgroundTasks):
                self.background_tasks = background_tasks
                self._stock = stock
            def run(self):
                self.background_tasks.add_task(send)
                self.background_tasks.add_task(plain)   #! undecorated
                self._stock.add_task(send)              #! stock-container

        @dataclass
        class Other:
            background_tasks: BackgroundTasks
            def run(self):
                self.background_tasks.add_task(plain)   #! undecorated

        def endpoint(
            a=Depends(stock), b=Depends(ours), s: Service = Depends(), t: Annotated[Service, Depends()] = None,
            u=Depends(Service), v: Annotated[object, Depends(stock)] = None
        ):
            a.add_task(send)                            #! stock-container
            b.add_task(send)
            b.add_task(plain)                           #! undecorated
            s.background_tasks.add_task(plain)          #! undecorated
            t.background_tasks.add_task(plain)          #! undecorated
            u.background_tasks.add_task(plain)          #! undecorated
            v.add_task(send)                            #! stock-container
        """,
    "by hand": """
        import starlette.background
        from starlette.background import BackgroundTask as Stock
        from fastapi.responses import JSONResponse

        def endpoint():
            JSONResponse({}, background=Stock(plain))                           #! undecorated
            JSONResponse({}, background=Stock(func=send))                       #! stock-container
            JSONResponse({}, background=starlette.background.BackgroundTask(send))  #! stock-container
            JSONResponse({}, background=BackgroundTask(send, "ada"))
            JSONResponse({}, background=BackgroundTask(print, "ada"))           #! library-function
            several = BackgroundTasks([BackgroundTask(plain), BackgroundTask(send)])  #! undecorated
            several.add_task(plain)                                             #! undecorated
        """,
    "what is none": """
        from rich.progress import Progress

        class Pool:
            def add_task(self, function): ...

        class Kept(BackgroundTasks):
            def add_task(self, function, *args): ...

        def run(pool: Pool, progress: Progress, unknown, kept: Kept):
            pool.add_task(plain)
            Pool().add_task(lambda: 1)
            progress.add_task("copying", total=3)
            kept.add_task(plain)
            unknown.add_task(plain)     #? cannot-tell
        """,
}

# What cannot be stored

ARGUMENTS = {
    "connections of the web": """
        from fastapi import Request, Response, WebSocket
        from fastapi.responses import JSONResponse
        from starlette.requests import Request as R, HTTPConnection

        def endpoint(
            tasks: BackgroundTasks, request: Request, r: "R", c: HTTPConnection, response: Response, w: WebSocket
        ):
            tasks.add_task(send, request)                  #! request-argument
            tasks.add_task(send, "ada", r=r)               #! request-argument
            tasks.add_task(send, [c])                      #! request-argument
            tasks.add_task(send, {"a": (1, w)})            #! request-argument
            tasks.add_task(send, response)                 #! request-argument
            tasks.add_task(send, JSONResponse({}))         #! request-argument
            tasks.add_task(send, request.headers)          #! request-argument
            tasks.add_task(send, **dict(request=request))  #! request-argument
            tasks.add_task(send, **{"id": 1, "r": r})      #! request-argument
            tasks.add_task(send, request.method, str(request.url), f"{request}", dict(request.headers))
            tasks.add_task(send, request.headers.get("accept"), request.client.host, request.path_params["id"])
        """,
    "databases": """
        import sqlite3
        from collections.abc import AsyncIterator, Iterator
        from typing import Annotated, Any
        import asyncpg
        from fastapi import Depends
        from sqlalchemy import create_engine
        from sqlalchemy.ext.asyncio import AsyncSession
        from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
        from elsewhere import get_db as get_database, open_it
        from pydantic import BaseModel

        engine = create_engine("sqlite://")
        SessionLocal = sessionmaker(engine)

        class Base(DeclarativeBase): ...
        class User(Base): ...

        def provide():
            db = SessionLocal()
            try:
                yield db
            finally:
                db.close()

        async def typed() -> AsyncIterator[AsyncSession]: ...
        def get_session(): return open_it()
        def get_db_name(): return open_it()
        def current_user() -> User: ...
        def get_settings_db() -> dict[str, str]: ...

        SessionDep = Annotated[Session, Depends(provide)]

        @tasks.task
        def takes_its_own(number: int, db: Session = Depends(provide)): ...

        def endpoint(
            tasks: BackgroundTasks, a: Session, b: AsyncSession, c: SessionDep, e: Annotated[Session, 1],
            f: asyncpg.Connection, user: User, d: "Session" = Depends(provide), g=Depends(provide), h=Depends(typed),
            i=Depends(get_session),
            j=Depends(get_database), k=Depends(get_db_name), l: Any = Depends(get_session), m=Depends(current_user),
            n: dict = Depends(get_session), o=Depends(get_settings_db),
        ):
            tasks.add_task(send, a)         #! session-argument
            tasks.add_task(send, db=b)      #! session-argument
            tasks.add_task(send, c)         #! session-argument
            tasks.add_task(send, d)         #! session-argument
            tasks.add_task(send, e)         #! session-argument
            tasks.add_task(send, f)         #! session-argument
            tasks.add_task(send, g)         #! session-argument
            tasks.add_task(send, h)         #! session-argument
            tasks.add_task(send, i)         #! session-argument
            tasks.add_task(send, j)         #! session-argument
            tasks.add_task(send, l)         #! session-argument
            tasks.add_task(send, m)         #! object-argument
            tasks.add_task(send, user)      #! object-argument
            tasks.add_task(takes_its_own, 1)
            tasks.add_task(send, k, user.id, a.get(User, 1), n, o)
            with SessionLocal() as session, engine.begin() as connection, Session(engine) as other:
                tasks.add_task(send, session)     #! session-argument
                tasks.add_task(send, connection)  #! session-argument
                tasks.add_task(send, other)       #! session-argument
            tasks.add_task(send, sqlite3.connect("file"))  #! session-argument
            tasks.add_task(plain, a)  #! undecorated session-argument
        """,
    "a session that is data": """
        from elsewhere import Connection as Unused
        from pydantic import BaseModel
        from fastapi import Depends

        class Session(BaseModel):
            id: int

        def get_session() -> Session: ...

        def endpoint(tasks: BackgroundTasks, a: Session, b=Depends(get_session), c: Session = Depends(get_session)):
            tasks.add_task(send, a)
            tasks.add_task(send, b, c)
        """,
    "uploads": """
        from fastapi import File, UploadFile

        @tasks.task
        def takes(file: UploadFile, more: list[UploadFile] | None = None, *rest: "UploadFile", **named: UploadFile): ...
        @tasks.task
        def takes_text(file: str, more): ...

        def endpoint(tasks: BackgroundTasks, file: UploadFile, files: list[UploadFile], f: UploadFile = File()):
            tasks.add_task(takes, file, files, file, file, more=files, named=f)
            tasks.add_task(takes_text, file)         #! upload-argument
            tasks.add_task(takes_text, "", f)        #! upload-argument
            tasks.add_task(takes_text, more=files)   #! upload-argument
            tasks.add_task(takes_text, *[1], file)
            tasks.add_task(takes, file.file)         #! file-argument
            tasks.add_task(takes_text, file.filename, file.size)
        """,
    "what only this process has": """
        import asyncio, io, logging, threading
        from logging import getLogger
        from pathlib import Path
        from tempfile import NamedTemporaryFile

        logger = logging.getLogger(__name__)
        log: logging.Logger = getLogger()
        lock = threading.Lock()

        def rows():
            yield 1

        def local(): ...

        def endpoint(tasks: BackgroundTasks, items: list[int]):
            tasks.add_task(send, open("file"))               #! file-argument
            with open("file") as file, Path("file").open() as other:
                tasks.add_task(send, file)                   #! file-argument
                tasks.add_task(send, other)                  #! file-argument
                tasks.add_task(send, file.read())
            tasks.add_task(send, io.BytesIO(b""))            #! file-argument
            tasks.add_task(send, NamedTemporaryFile())       #! file-argument
            tasks.add_task(send, (n for n in items))         #! generator-argument
            tasks.add_task(send, rows())                     #! generator-argument
            tasks.add_task(send, [n for n in items])
            tasks.add_task(send, lambda: 1)                  #! function-argument
            tasks.add_task(send, callback=local)             #! function-argument
            tasks.add_task(send, wait)                       #! function-argument
            tasks.add_task(send, lock)                       #! lock-argument
            tasks.add_task(send, asyncio.Event())            #! lock-argument
            tasks.add_task(send, logger)                     #! logger-argument
            tasks.add_task(send, log)                        #! logger-argument
            tasks.add_task(send, (n for n in items), lock)   #! generator-argument lock-argument
            tasks.add_task(asyncio.to_thread, local)         #! library-function
        """,
    "objects": """
        from dataclasses import dataclass
        from enum import Enum
        from typing import Annotated, NamedTuple
        from pydantic import BaseModel, PlainSerializer
        from elsewhere import Base

        class Plain:
            def run(self, tasks: BackgroundTasks):
                tasks.add_task(send, self)        #! self-argument
                tasks.add_task(send, self.name)
                tasks.add_task(takes, self)
        class Below(Plain):
            def run(self, tasks: BackgroundTasks): tasks.add_task(send, [self])   #! self-argument
        class Model(BaseModel):
            def run(self, tasks: BackgroundTasks): tasks.add_task(send, self)
        class Unknown(Base):
            def run(self, tasks: BackgroundTasks): tasks.add_task(send, self)
        @dataclass
        class Data: ...
        class Tuple(NamedTuple): ...
        class Colour(Enum): ...
        class Told:
            @classmethod
            def __get_pydantic_core_schema__(cls, source, handler): ...

        @tasks.task
        def takes(plain: Annotated[Plain, PlainSerializer(str)]): ...
        @tasks.task
        def any_model(value: Model): ...

        def endpoint(tasks: BackgroundTasks, plain: Plain, model: Model, data: Data, told: Told, unknown: Unknown):
            tasks.add_task(any_model, plain)      #! object-argument
            tasks.add_task(takes, plain)
            tasks.add_task(send, model)
            tasks.add_task(send, data, told, unknown, Tuple(), Colour("x"), Model(), Data())
        """,
}

# How tasks are declared

DECLARATIONS = {
    "generators, which may be tasks": """
        @tasks.task
        def rows():
            yield 1

        @tasks.task()
        async def more():
            if app:
                yield 1
        """,
    "tasks inside of functions": """
        def create():
            @tasks.task
            def inner(): ...    #! nested-task

            class Inside:
                @staticmethod
                @tasks.task(name="x")
                def method(): ...   #! nested-task

            @tasks.task
            def meant(): ...  # afterward: in-memory

            @app.get("/")
            def endpoint(background_tasks: BackgroundTasks):
                background_tasks.add_task(inner)

        class Outside:
            @staticmethod
            @tasks.task
            def method(): ...
        """,
    "of somebody else": """
        from celery import Celery
        from elsewhere import tasks as unknown

        celery = Celery()

        def create():
            @celery.task
            def inner():
                yield 1

            @unknown.task
            def other(background_tasks: BackgroundTasks):
                background_tasks.add_task(other)   #? cannot-tell
        """,
}

TABLE = {**FUNCTIONS, **CONTAINERS, **ARGUMENTS, **DECLARATIONS}


@pytest.mark.parametrize("source", TABLE.values(), ids=TABLE.keys())
def test_each_line_is_told_of_as_it_is_marked(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more and no less."""
    report = checked(tmp_path, monkeypatch, background=BACKGROUND, main=dedent(PRELUDE) + dedent(source))
    assert_is_as_marked(tmp_path, report)


def test_the_table_marks_every_rule() -> None:
    """But those of whole files and whole code bases, which have tests of their own."""
    marked = {
        rule for source in TABLE.values() for line in re.findall(r"#! ([\w -]+)", source) for rule in line.split()
    }
    rules = (ROOT / "docs" / "cli.md").read_text().partition("## afterward check")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([a-z][a-z-]+)` \|", rules, flags=re.MULTILINE))
    assert documented - {"syntax", "not-installed"} == marked


# Code bases of several files

APPLICATION = {
    "shop__init": "from .background import tasks\n",
    "shop__background": """
        from afterward import Afterward, BackgroundTasks as Ours
        from fastapi import BackgroundTasks as Stock
        tasks = Afterward()
        """,
    "shop__mail__init": "from .sending import *\nfrom .sending import send_later as later\n",
    "shop__mail__sending": """
        from ..background import tasks
        from .. import tasks as same
        @tasks.task
        def send_now(): ...
        @same.task
        def send_later(): ...
        def send_never(): ...
        """,
    "shop__api__users": """
        from fastapi import APIRouter
        import shop.mail.sending
        from shop import mail
        from shop.background import Ours, Stock
        from ..mail import later, send_never
        from .cycle import other
        router = APIRouter()
        def endpoint(ours: Ours, stock: Stock):
            ours.add_task(mail.send_now)
            ours.add_task(shop.mail.sending.send_now)
            ours.add_task(later)
            ours.add_task(other)        #! undecorated
            ours.add_task(send_never)   #! undecorated
            stock.add_task(later)       #! stock-container
        """,
    "shop__api__cycle": "from .users import endpoint, other as again\nthis = again\ndef other(): ...\n",
    "shop__main": """
        from fastapi import FastAPI
        from shop import tasks
        app = FastAPI()
        tasks.install(app)
        """,
}


def test_names_are_followed_through_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By relative and absolute imports, packages that pass names on, stars and circles."""
    report = checked(tmp_path, monkeypatch, **APPLICATION)
    assert_is_as_marked(tmp_path, report)
    assert report.files == 7


def test_each_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it checked, followed, or neither: thousands of files must not take minutes."""
    parsed: Counter[str] = Counter()
    parse: Any = ast.parse

    def counting(source: str, *args: Any, **kwargs: Any) -> Any:
        parsed[source] += 1
        return parse(source, *args, **kwargs)

    monkeypatch.setattr(ast, "parse", counting)
    checked(tmp_path, monkeypatch, **APPLICATION, unrelated="x = 1\n")
    assert {source: parsed[source] for source in (path.read_text() for path in tmp_path.rglob("*.py"))} == dict(parsed)
    assert set(parsed.values()) == {1}


@pytest.mark.parametrize("layout", ["src__{}", "{}", "backend__app__{}"])
def test_the_layout_of_the_folders_does_not_matter(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the package is, and whether one checks all, a folder of it or one file."""
    files = {layout.format(name): source for name, source in APPLICATION.items()}
    everything = checked(tmp_path, monkeypatch, **files)
    assert_is_as_marked(tmp_path, everything)

    [users] = tmp_path.rglob("users.py")
    assert check([users]).findings == everything.findings
    assert check([users.parent]).findings == everything.findings
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(users.parent)
    assert [f.path for f in check([Path("users.py")]).findings] == ["users.py"] * 3


def test_a_package_of_ones_own_is_known_when_its_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be installed, or come from another place: nobody can tell whether it holds tasks until it is named."""
    source = """
        from afterward import BackgroundTasks
        from common.mail import send
        def f(t: BackgroundTasks):
            t.add_task(send)
        """
    report = checked(
        tmp_path, monkeypatch, app__main=source, libs__common__init="", libs__common__mail="def send(): ..."
    )
    assert told(check([Path("app")]).untold) == [("app/main.py", 5, "cannot-tell")]
    for paths in ([Path()], [Path("app"), Path("libs")], [Path("app"), Path("libs/common")]):
        report = check(paths)
        assert (told(report.findings), report.untold) == ([("app/main.py", 5, "undecorated")], [])


def test_a_module_of_the_code_base_that_is_not_there_may_hold_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is generated, for one; the same for one that cannot be parsed, or has the name of one of Python's."""
    report = checked(
        tmp_path,
        monkeypatch,
        shop__init="",
        shop__broken="def (",
        statistics="def mean(): ...\n",
        shop__main="""
            from afterward import BackgroundTasks
            from shop.generated import one
            from .generated import two
            from .broken import three
            from statistics import mean
            def endpoint(background_tasks: BackgroundTasks):
                background_tasks.add_task(one)    #? cannot-tell
                background_tasks.add_task(two)    #? cannot-tell
                background_tasks.add_task(three)  #? cannot-tell
                background_tasks.add_task(mean)   #? cannot-tell
            """,
    )
    assert told(report.findings) == [("shop/broken.py", 1, "syntax")]
    assert sorted(told(report.untold)) == expected(tmp_path, "?")


# Installing

DECLARED = """
    from fastapi import FastAPI
    from afterward import Afterward
    app = FastAPI()
    tasks = Afterward()  #! not-installed
    @tasks.task
    def send(): ...
    """


def test_tasks_that_are_never_installed_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are made."""
    assert_is_as_marked(tmp_path, checked(tmp_path, monkeypatch, main=DECLARED))
    several = {
        "other": "from main import app\n" + dedent(DECLARED.replace("#! not-installed", "")) + "tasks.install(app)\n"
    }
    assert_is_as_marked(tmp_path, checked(tmp_path, monkeypatch, **several))


@pytest.mark.parametrize(
    "installing",
    [
        "from main import app, tasks\ntasks.install(app, worker=False)\n",
        "import main\nmain.tasks.install(main.app)\n",
        "def create(app, tasks):\n    tasks.install(app)\n",
        "from afterward import Afterward\ndef create(app, tasks: Afterward):\n    tasks.install(app)\n",
    ],
)
def test_tasks_may_be_installed_anywhere(installing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also outside of what is checked, as long as it is of the same project; and what cannot be told is not told of."""
    declared = DECLARED.replace("#! not-installed", "")
    assert checked(tmp_path, monkeypatch, main=declared, start=installing).findings == []

    assert told(check([Path("main.py")]).findings) == []  # a file is no code base
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(dedent(declared))
    assert check([Path("package")]).findings == []


def test_tasks_without_an_app_need_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that only enqueues; one that adds to a request has an app somewhere."""
    alone = dedent(DECLARED).replace("#! not-installed", "").replace("FastAPI()", "None") + "send.enqueue_sync()\n"
    assert checked(tmp_path, monkeypatch, main=alone).findings == []

    adding = (
        "from main import send\nfrom afterward import BackgroundTasks\ndef f(t: BackgroundTasks): t.add_task(send)\n"
    )
    assert told(checked(tmp_path, monkeypatch, other=adding).findings) == [("main.py", 5, "not-installed")]


# Files

STOCK = "from fastapi import BackgroundTasks\ndef endpoint(tasks: BackgroundTasks): tasks.add_task(print)\n"


def test_folders_that_hold_no_source_are_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless they are named."""
    for folder in (".venv/lib", ".hidden", "node_modules", "a/site-packages/b", "build", "__pycache__", "kept/more"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "module.py").write_text(STOCK)
    (tmp_path / "kept" / "notes.txt").write_text("def (")
    monkeypatch.chdir(tmp_path)

    assert [finding.path for finding in check([Path()]).findings] == ["kept/more/module.py"]
    assert [finding.path for finding in check([Path("build"), Path("build/module.py")]).findings] == ["build/module.py"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b"x = 1\ndef (:\n", 2),
        (b"x = '\x00'\n", 1),
        (b"# coding: utf-8\nx = '\xff'\n", 1),
        (b"# coding: unheard-of\n", 1),
        (b"x = " + b"(" * 5_000 + b")" * 5_000, 1),
    ],
    ids=["syntax", "null", "bytes", "coding", "depth"],
)
def test_what_cannot_be_parsed_is_a_finding(
    source: bytes, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it has to do with tasks or not; the other files are checked all the same."""
    (tmp_path / "broken.py").write_bytes(source)
    (tmp_path / "related.py").write_bytes(source + b"\n# add_task")
    report = checked(tmp_path, monkeypatch, whole=STOCK)
    assert told(report.findings) == [
        ("broken.py", line, "syntax"),
        ("related.py", line, "syntax"),
        ("whole.py", 2, "library-function"),
    ]


def test_what_cannot_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that leads nowhere, for one."""
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    assert told(checked(tmp_path, monkeypatch, main="import gone\n").findings) == [("gone.py", 1, "syntax")]


def test_text_that_is_odd_but_lawful_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte order mark, another coding, carriage returns, form feeds, an invalid escape, and columns in characters."""
    head, call = (
        "from fastapi import BackgroundTasks\ndef f(t: BackgroundTasks):\n    x = '\\d'\n",
        "t.add_task(print)\n",
    )
    texts = {
        "mark": ("\ufeff" + head + "    'äöü€'; " + call).encode(),
        "latin": ("# coding: latin-1\n" + head + "    'äöü'; " + call).encode("latin-1"),
        "returns": (head + "    'äöü'; " + call).replace("\n", "\r\n").encode(),
        "feeds": (head.replace("\ndef", "\n\x0c\ndef") + "    'äöü'; " + call).encode(),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_bytes(text)
    found = {f.path: (f.line, f.column) for f in checked(tmp_path, monkeypatch, nothing="").findings}
    assert found == {"mark.py": (4, 13), "latin.py": (5, 12), "returns.py": (4, 12), "feeds.py": (5, 12)}


def test_deep_and_long_expressions_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the stack nor the patience is used up by what programs generate."""
    rebound = "\n".join("    if t: x = x or y\n    if t: y = y or x" for _ in range(500))
    chain = "".join(f"f{n} = f{n - 1}\n" for n in range(1, 500))
    source = (
        "from afterward import BackgroundTasks\n"
        f"total = {' + '.join(['1'] * 900)}\n"
        f"long = total{'.x' * 900}\n"
        f"f0 = f499\n{chain}"
        f"def f(t: BackgroundTasks, x=None, y=None):\n{rebound}\n"
        "    t.add_task(x)\n    t.add_task(f499, total)\n    t.add_task(long)\n    t.add_task(print, total)\n"
    )
    report = checked(tmp_path, monkeypatch, main=source)
    assert [finding.rule for finding in report.findings] == ["library-function"]


# The command


def test_findings_are_lines_that_editors_understand(world: World) -> None:
    """In order, on standard output; how many there are, on standard error. It ends with 1."""
    (world.folder / "api").mkdir()
    world.program("main", "from fastapi import FastAPI\n")
    world.program("api/users", STOCK + "\n" + STOCK)
    run = world.run("check", "main.py", "api")
    assert run.returncode == 1
    first, second = run.stdout.splitlines()
    assert first == (
        "api/users.py:2:39: library-function: print runs in memory only, and is lost with the process: "
        "call it in a function of your own, decorated with @tasks.task, and import BackgroundTasks from afterward"
    )
    assert second.startswith("api/users.py:5:39: ")
    assert run.stderr == "2 findings in 1 of 2 files\n"


def test_no_findings_are_no_output(world: World) -> None:
    """And it ends with 0. By default it is the current folder that is checked: here, one with the shop."""
    run = world.run("check")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "no findings in 1 file\n")
    assert json.loads(world.run("check", "--json", "shop.py").stdout) == []


UNKNOWN = "from afterward import BackgroundTasks\ndef f(t: BackgroundTasks, g):\n    t.add_task(g)\n"


def test_what_cannot_be_told_is_said_when_asked_for(world: World) -> None:
    """It is no finding, whoever asks."""
    world.program("main", UNKNOWN)
    silent, verbose = world.run("check", "main.py"), world.run("check", "main.py", "--verbose")
    assert (silent.returncode, silent.stdout) == (0, "")
    assert silent.stderr == "no findings in 1 file; 1 place of which it cannot be told (--verbose)\n"
    assert verbose.returncode == 0
    assert verbose.stdout.startswith("main.py:3:5: cannot-tell: ")


def test_findings_as_json(world: World) -> None:
    """With the same facts."""
    world.program("main", STOCK)
    world.program("other", UNKNOWN)
    run = world.run("check", "--json", "--verbose")
    assert run.returncode == 1
    first, second = json.loads(run.stdout)
    assert {name: first[name] for name in ("path", "line", "column", "rule")} == {
        "path": "main.py",
        "line": 2,
        "column": 39,
        "rule": "library-function",
    }
    assert first["message"].startswith("print runs in memory only")
    assert second["rule"] == "cannot-tell"
    assert len(json.loads(world.run("check", "--json").stdout)) == 1


def test_a_path_that_is_not_there_is_refused(world: World) -> None:
    """Nothing is checked then."""
    run = world.run("check", "shop.py", "nowhere")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "afterward: there is no file or folder nowhere\n"


def test_a_path_that_no_file_can_have_is_refused(world: World) -> None:
    """One too long for the file system."""
    run = world.run("check", "x" * 300)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"afterward: there is no file or folder {'x' * 300}\n"


def test_a_link_to_nowhere_beside_what_is_checked_is_passed_over(world: World) -> None:
    """It installs no tasks, and is no reason to stop."""
    (world.folder / "app").mkdir()
    (world.folder / "app" / "jobs.py").write_text(dedent(DECLARED))
    (world.folder / "pyproject.toml").touch()
    (world.folder / "shop.py").unlink()
    (world.folder / "broken.py").symlink_to("nowhere")

    run = world.run("check", "app")

    assert (run.returncode, run.stderr) == (1, "1 finding in 1 of 1 file\n")
    assert "app/jobs.py:5:9: not-installed: " in run.stdout


def test_nothing_is_run_and_no_store_is_needed(world: World) -> None:
    """Not even what is imported."""
    world.program("main", "import side_effect\nraise SystemExit('was run')\n" + STOCK)
    world.program("side_effect", "open('was imported', 'w')\n")
    before = sorted(world.folder.rglob("*"))
    assert world.run("check").returncode == 1
    assert sorted(world.folder.rglob("*")) == before


# Code of others


def test_the_examples_of_this_project_have_no_findings() -> None:
    """Nor is there anything that cannot be told."""
    report = check([ROOT / "examples"])
    assert (report.findings, report.untold) == ([], [])
    assert report.files >= 4


@pytest.mark.parametrize("library", ["fastapi", "starlette", "pydantic", "typer"])
def test_large_code_bases_that_have_no_tasks_have_no_findings(library: str) -> None:
    """What is not understood in them is left alone."""
    report = check([SITE_PACKAGES / library])
    assert report.findings == []
    assert report.files > 15


def test_the_tests_of_this_project_can_be_read() -> None:
    """They do everything that should not be done; each rule for functions is met."""
    report = check([ROOT / "tests"])
    assert {
        "undecorated",
        "nested-function",
        "nested-task",
        "lambda",
        "bound-method",
        "library-function",
    } <= {finding.rule for finding in report.findings}
