"""An application whose store is on a PostgreSQL server that a standby follows."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from servers.postgres import Server
from tests.support.processes import Starter
from tests.support.proxy import Proxy
from tests.support.served_site import ServedSite
from tests.support.site import Door
from tests.support.tables import Tables


class PairedSite(ServedSite):
    """Its processes reach the primary, and later the standby, by the same URL: through `network`."""

    def __init__(self, folder: Path, starter: Starter, ending: ExitStack, primary: Server, standby: Server) -> None:
        super().__init__(folder, starter, ending, primary)
        self.standby = standby
        self.network = ending.enter_context(Proxy(primary.port))

    @property
    def url(self) -> str:
        return self.network.url(self._url)

    @property
    def url_of_both(self) -> str:
        """Of the two servers themselves: who connects looks for the one that takes writes."""
        account, _, place = self._url.partition("@")
        first, _, database = place.partition("/")
        second = f"127.0.0.1:{self.standby.port}"
        return f"{account}@{first},{second}/{database}?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """The standby takes writes from now on, and whoever connects gets to it. Connections that are open stay."""
        self.standby.promote()
        self.server = self.standby
        self.tables.close()
        self.tables = Tables(self.standby.url(self._url.rpartition("/")[2]))
        self._ending.callback(self.tables.close)
        self.network.server_port = self.standby.port

    def job_at(self, door: Door, job: str) -> Any:
        """How a job stands, by what the application answers; None where it knows none, or cannot say."""
        answer = door.request("GET", f"/status/{job}")
        return answer.body["status"] if answer.status == 200 else None
