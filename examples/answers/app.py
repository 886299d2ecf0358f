"""An answer that is written piece by piece, and read while it is written.

A question is answered 202 at once. A durable task writes the answer, and each piece that it yields is kept before
anybody reads it: so the page can be closed and opened again, the server deployed anew, and the process that writes be
killed. Only Stop stops it.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated

from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from afterward import Afterward, BackgroundTasks, JobHandle

from .model import model_from

PAGE = Path(__file__).parent / "page"
model = model_from(os.environ)

app = FastAPI(title="Answers")
tasks = Afterward()
tasks.install(app, worker=os.environ.get("ANSWERS_WORKER") != "0")


@tasks.task(max_attempts=3)
async def answer(question: str) -> AsyncIterator[str]:
    """Each piece is kept as it is yielded; an attempt that dies is followed by another, which begins anew."""
    async for piece in model(question):
        yield piece


def get_visitor(visitor: Annotated[str | None, Cookie()] = None) -> str:
    """Whose answers a caller may see: a browser cannot send a token with an `EventSource`, but it sends its cookies."""
    if not visitor:
        raise HTTPException(401, "Open the page first: it knows visitors by a cookie.")
    return visitor


class Question(BaseModel):
    """What somebody wants to know."""

    question: Annotated[str, Field(min_length=1, max_length=500)]


app.include_router(tasks.router(owner=get_visitor, prefix="/answers"))


@app.post("/answers", status_code=202, dependencies=[Depends(tasks.owned_by(get_visitor))])
async def ask(asked: Question, background_tasks: BackgroundTasks) -> JobHandle[None]:
    """202, with the job as the body: its links say where the answer is read, and how it is stopped."""
    return background_tasks.add_task(answer, asked.question)


@app.get("/")
async def get_page(visitor: Annotated[str | None, Cookie()] = None) -> Response:
    """The page; whoever opens it for the first time is a visitor from now on."""
    response = FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})
    if not visitor:
        response.set_cookie("visitor", token_urlsafe(), httponly=True, samesite="strict")
    return response


app.mount("/page", StaticFiles(directory=PAGE))
