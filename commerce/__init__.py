"""The Django project: settings, URLs, accounts, admin, the web server, and code that uses several apps together."""
