"""The app."""

from fastapi import Depends, FastAPI

from .orders import router
from .visits import note_visit

app = FastAPI(dependencies=[Depends(note_visit)])
app.include_router(router)
