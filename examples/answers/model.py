"""What answers questions, piece by piece: here something that needs no network; set ANSWERS_MODEL to what you have."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import import_module
from typing import cast

Model = Callable[[str], AsyncIterator[str]]
"""The pieces of an answer to a question, as they come; joined, they are the answer."""

_ANSWER = (
    "You asked: “{question}”. This answer is made by no model, but it comes like one's: word by word, "
    "with a pause after each. Close this page, and the answer is written on; open it again, and it is here. "
    "Kill the process that writes it, and another begins it anew. Only Stop stops it."
)


def parrot(pause_seconds: float) -> Model:
    """It repeats the question, and says the same to each."""

    async def pieces(question: str) -> AsyncIterator[str]:
        for number, word in enumerate(_ANSWER.format(question=question).split(" ")):
            await asyncio.sleep(pause_seconds)
            yield word if number == 0 else f" {word}"

    return pieces


def model_from(environment: Mapping[str, str]) -> Model:
    """ANSWERS_MODEL names a function, as `module:name`; without it, a parrot that waits for ANSWERS_PAUSE seconds."""
    place = environment.get("ANSWERS_MODEL")
    if not place:
        return parrot(float(environment.get("ANSWERS_PAUSE") or 0.15))
    module, _, name = place.partition(":")
    return cast("Model", getattr(import_module(module), name))
