"""HTML as a test looks at it: elements, texts, forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}


@dataclass
class Element:
    """`text`: of all that is in it."""

    tag: str
    attributes: dict[str, str]
    parents: tuple[Element, ...]
    parts: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        return " ".join("".join(self.parts).split())

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()


class Document(HTMLParser):
    """A page, read as browsers read one."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(self._open))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.parts.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of this tag, with these attributes."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [one for one in self.elements if one.tag == tag and wanted.items() <= one.attributes.items()]

    def one(self, tag: str, **attributes: str) -> Element:
        """The only such element."""
        [found] = self.all(tag, **attributes)
        return found

    def form(self, action: str) -> dict[str, str]:
        """The fields of the form that leads there, as they stand."""
        form = self.one("form", action=action)
        inside = [one for one in self.elements if form in one.parents]
        fields = {one.attributes["name"]: one.attributes.get("value", "") for one in inside if one.tag == "input"}
        return fields | {
            one.attributes["name"]: "".join(one.parts).lstrip("\n") for one in inside if one.tag == "textarea"
        }

    def rows(self) -> list[dict[str, str]]:
        """The rows of its first table, by the heads of their columns."""
        heads = [one.text for one in self.all("th", scope="col")]
        found: list[dict[str, str]] = []
        for row in self.all("tr"):
            cells = [one.text for one in self.elements if one.tag in {"td", "th"} and one.parents[-1] is row]
            if cells and cells != heads:
                found.append(dict(zip(heads, cells, strict=True)))
        return found
