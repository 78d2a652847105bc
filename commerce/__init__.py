"""The composition root: settings, URLs, and whatever must see orders, events and notifications together."""
