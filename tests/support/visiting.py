"""A person before the dashboard, without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.testclient import TestClient

from tests.support.documents import Document

LOOPBACK = ("127.0.0.1", 50000)
FROM_HERE = {"Sec-Fetch-Site": "same-origin"}


class Visitor:
    """Somebody at the machine that the app runs on, in development."""

    def __init__(self, app: Any, base: str = "/tasks", **headers: str) -> None:
        self.client = TestClient(app, base_url="http://localhost", client=LOOPBACK, headers=headers)
        self.base = base

    def get(self, path: str = "", status: int = 200, **headers: str) -> Any:
        """A page of the dashboard, as it was answered."""
        answer = self.client.get(self.base + path, headers=headers, follow_redirects=False)
        assert answer.status_code == status, answer.text
        return answer

    def see(self, path: str = "", status: int = 200) -> Document:
        """A page of the dashboard."""
        return Document(self.get(path, status).text)

    def post(self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] = FROM_HERE) -> Any:
        """Send a form."""
        return self.client.post(self.base + path, data=dict(fields), headers=headers, follow_redirects=False)

    def do(self, page: str, path: str, **fields: str) -> Document:
        """Send the form of a page that leads there, with these fields filled in; the page that one is sent on to."""
        answer = self.post(path, self.see(page).form(self.base + path) | fields)
        assert answer.status_code == 303, answer.text
        shown = self.client.get(answer.headers["location"])
        assert shown.status_code == 200
        return Document(shown.text)
