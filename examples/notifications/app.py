"""The app that FastAPI's documentation describes for background tasks, made real and made durable.

A notification is answered 202 at once and its mail is sent afterwards, over SMTP: once the client has read the 202, the
mail goes out even if the process is killed, the machine restarts or the mail server is down for a while.

An uploaded file is answered 202 as well, and worked on afterwards: the file is kept with its job, so that whoever takes
that up again has it.
"""

import json
import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request, UploadFile
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from afterward import Afterward, BackgroundTasks, FileTooLarge, Status, current_job

from .mail import EmailAddress, MailRefused, compose, deliver, settings_from
from .uploads import Summary, summarized, upload_settings_from

mail_settings = settings_from(os.environ)
upload_settings = upload_settings_from(os.environ)
log_file = Path(os.environ.get("NOTIFICATIONS_LOG") or "log.txt")

app = FastAPI(title="Notifications")
tasks = Afterward()
tasks.install(app)


class Accepted(BaseModel):
    """What a client is told: it will be done, by this job."""

    message: str
    job: str


@tasks.task(max_attempts=5)
def write_log(query: str) -> None:
    """Append one line of JSON to the log; the line is on the disk when this returns."""
    line = json.dumps({"job": current_job().id, "query": query}) + "\n"
    with log_file.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


@tasks.task(max_attempts=30, give_up_on=[MailRefused])
async def send(email: str, message: str = "") -> None:
    """Send one mail: try for an hour and more while the mail server is down, and not again once it refuses for good.

    However often it is tried, the Message-ID is the same: a mail that is sent twice shows as one.
    """
    mail = compose(email, message, sender=mail_settings.sender, key=current_job().idempotency_key)
    await deliver(mail, mail_settings)


def get_query(background_tasks: BackgroundTasks, q: Annotated[str | None, Query(max_length=500)] = None) -> str | None:
    """The query, if there is one; it is logged after the response."""
    if q:
        background_tasks.add_task(write_log, q)
    return q


@app.post("/send-notification/{email}", status_code=202, dependencies=[Depends(get_query)])
async def send_notification(email: EmailAddress, background_tasks: BackgroundTasks) -> Accepted:
    """Answer at once; send the notification by e-mail afterwards."""
    job = background_tasks.add_task(send, email, message="some notification")
    return Accepted(message="Notification sent in the background", job=job.id)


class Upload(BaseModel):
    """How far an uploaded file is; `summary` is there once it has succeeded."""

    job: str
    status: Status
    attempt: int
    summary: Summary | None


@tasks.task(max_attempts=5)
async def summarize(file: UploadFile) -> Summary:
    """Find out what there is to say of a file. Killed in the middle, it begins again, with the same file."""
    return await summarized(file, upload_settings)


@app.post("/uploads", status_code=202)
async def upload(file: UploadFile, background_tasks: BackgroundTasks) -> Accepted:
    """Answer once the file is kept; work on it afterwards."""
    job = background_tasks.add_task(summarize, file)
    return Accepted(message="File accepted", job=job.id)


@app.get("/uploads/{job}")
async def get_upload(job: str) -> Upload:
    """How far a file is. Whoever knows the id may look; it cannot be guessed."""
    found = await tasks.get(job)
    if found is None or found.task != summarize.name:  # nothing of other jobs is shown here
        raise HTTPException(404)
    summary = None if found.result is None else Summary.model_validate_json(found.result)
    return Upload(job=job, status=found.status, attempt=found.attempt, summary=summary)


@app.exception_handler(FileTooLarge)
async def refuse_too_large(_request: Request, _error: FileTooLarge) -> JSONResponse:
    """`add_task` refuses a file of more than 64 MiB; the client is to know why."""
    return JSONResponse({"detail": "The file is too large."}, status_code=413)
