"""Reports that take a while, each seen by whoever asked for it, who is known by a bearer token.

A request is answered 202 with the job that makes the report; a client that prefers to wait gets the report itself. The
token is validated in a dependency, so that OpenAPI knows of it, and `/docs` can log in.
"""

import os
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import BaseModel

from afterward import Afterward, BackgroundTasks, JobHandle

from .tokens import User, secret_from, token_of, user_of, user_with
from .work import Report, write_report

secret = secret_from(dict(os.environ))

app = FastAPI(title="Reports")
tasks = Afterward()
tasks.install(app)

make_report = tasks.task(max_attempts=3)(write_report)

bearer = OAuth2PasswordBearer(tokenUrl="token")


class Token(BaseModel):
    """What a login is answered, as OAuth 2 has it."""

    access_token: str
    token_type: Literal["bearer"]


def refused(why: str) -> HTTPException:
    return HTTPException(401, why, headers={"WWW-Authenticate": "Bearer"})


@app.post("/token")
def log_in(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> Token:
    """A token for a name and a password."""
    user = user_with(form.username, form.password)
    if user is None:
        raise refused("That name and that password are nobody's.")
    return Token(access_token=token_of(user, secret), token_type="bearer")  # noqa: S106 - it is a kind, and no secret


def get_user(token: Annotated[str, Depends(bearer)]) -> User:
    """Whose request it is."""
    user = user_of(token, secret)
    if user is None:
        raise refused("The token is not valid, or has expired; log in again.")
    return user


def get_user_id(user: Annotated[User, Depends(get_user)]) -> str:
    return user.id


def get_is_admin(user: Annotated[User, Depends(get_user)]) -> bool:
    return user.is_admin


# Whoever asks for a report owns its job; others get 404, but for administrators.
app.include_router(tasks.router(owner=get_user_id, admin=get_is_admin))


@app.post("/reports/{year}", status_code=202, dependencies=[Depends(tasks.owned_by(get_user_id))])
async def create_report(year: int, background_tasks: BackgroundTasks) -> JobHandle[Report]:
    """202 with the job, or, to `Prefer: wait=10`, 200 with the report if it is ready by then."""
    return background_tasks.add_task(make_report, year)
