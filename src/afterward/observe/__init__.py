"""What happens, as events with fields: one hook point."""

from afterward.observe.log import emit, is_enabled

__all__ = ["emit", "is_enabled"]
