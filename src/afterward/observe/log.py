"""Events as records of the standard `logging`, under the logger "afterward".

The message reads `job.finished job_id=… task=… attempt=1`; the same fields are attributes of the record, under
`record.afterward`, for formatters that write JSON. Arguments and results are never among them.
"""

from __future__ import annotations

import logging
from typing import Any

_LOGGER = logging.getLogger("afterward")


def is_enabled(level: int) -> bool:
    """Would an event of this level be written anywhere? Ask before computing costly fields."""
    return _LOGGER.isEnabledFor(level)


def emit(level: int, event: str, error: BaseException | None = None, **fields: Any) -> None:
    """Write one event; a field that is None is left out."""
    if _LOGGER.isEnabledFor(level):
        present = {name: value for name, value in fields.items() if value is not None}
        text = " ".join([event, *(f"{name}={_shown(value)}" for name, value in present.items())])
        _LOGGER.log(level, "%s", text, exc_info=error, extra={"afterward": {"event": event, **present}})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(text) if " " in text or not text.isprintable() else text
