"""What an action has done, told on the page that is shown after it: numbers and words of ours, from its URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from afterward.sizes import many


@dataclass(frozen=True, slots=True)
class Notice:
    """`level`: `good`, or `bad` where it could not be done."""

    text: str
    level: str


_DONE = {
    "cancel": "cancelled",
    "asked": "asked to end",
    "retry": "queued again",
    "hasten": "due now",
}
_SAID = {
    "requeued": Notice("This is the new job.", "good"),
    "paused": Notice("The queue is paused: nothing is claimed from it. What runs goes on.", "good"),
    "resumed": Notice("The queue is served again.", "good"),
    "already": Notice("It was so already.", "good"),
    "forbidden": Notice("The job has moved on meanwhile, so that was not possible any more.", "bad"),
    "taken": Notice("Another unfinished job has its unique key; wait for its end, or cancel it.", "bad"),
    "word": Notice("Nothing was done: the word that you typed was another.", "bad"),
}


def notice(query: Mapping[str, str]) -> Notice | None:
    """What the URL of a page has to tell, if anything."""
    said = query.get("said", "")
    if said in _SAID:
        return _SAID[said]
    counts = {name: _number(query.get(name, "")) for name in _DONE}
    done = [f"{many(count, 'job')} {_DONE[name]}" for name, count in counts.items() if count is not None]
    refused = _number(query.get("refused", ""))
    if refused:
        done.append(f"{many(refused, 'job')} had moved on meanwhile")
    if not done:
        return None
    return Notice(f"{', '.join(done)}.", "bad" if refused else "good")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
