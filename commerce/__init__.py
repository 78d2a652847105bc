"""The composition root: settings, URLs, and all code that uses orders, events and notifications together."""
