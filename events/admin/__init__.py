"""Admin of the plumbing's rows. Django imports this package, which registers the admin of each model."""

from events.admin import dead_letters, outbox

__all__ = ["dead_letters", "outbox"]
