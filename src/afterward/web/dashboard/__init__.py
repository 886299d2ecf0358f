"""The dashboard: pages for people who look after jobs."""

from afterward.web.dashboard.router import dashboard

__all__ = ["dashboard"]
