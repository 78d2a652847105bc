"""The earlier commit of this repository that the benchmarks compare with."""

EARLIER = "beed5ef"
"""Id of the last commit that ran on gunicorn, before placing an order was made faster.

It needs the same versions of packages as the present commit, so it runs in the present virtual environment.
"""
GUNICORN = ("gunicorn", "commerce.wsgi", "--config", "deploy/gunicorn.conf.py")
"""Command of the web server of the commit `EARLIER`, as it was deployed."""
