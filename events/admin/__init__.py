"""Admin of the event pipeline. Django imports this package, which registers the admin classes."""

from events.admin import dead_letters, outbox

__all__ = ["dead_letters", "outbox"]
