"""The Django project: settings, URLs, and all code that uses the apps orders, events and notifications together."""
