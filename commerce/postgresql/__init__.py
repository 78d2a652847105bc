"""Django's PostgreSQL backend with a cheaper health check, and the options of its connections."""

CONNECTION_OPTIONS = {
    # A lost server or an endless query must become an error, so that the caller can retry.
    "connect_timeout": 5,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A process that freezes inside a transaction must not block others with its locks.
    "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10s",
}
"""Connection parameters of libpq. Times are in seconds, except `tcp_user_timeout`, which is in milliseconds.

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""
