"""How the site speaks to PostgreSQL: options of its connections, and Django's backend with a cheaper check."""

CONNECTION_OPTIONS = {
    # A server that is gone, or a query that never ends, must become an error that the caller can retry.
    "connect_timeout": 5,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A process that is frozen inside a transaction must not hold up others with its locks.
    "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10s",
}
"""Parameters of libpq: seconds, but for `tcp_user_timeout`, which are milliseconds.

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""
