"""`python -m benchmarks.scaling` prints the tables of docs/scaling.md."""

import argparse

from benchmarks.scaling import sizes
from benchmarks.scaling.tables import tables
from benchmarks.servers import servers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure the bytes of an order anew, in about a minute")
    parser.add_argument("--orders", type=int, default=2_000, help="number of orders to measure (2,000)")
    options = parser.parse_args()
    if options.measure:
        with servers() as running_servers:
            sizes.save(sizes.measure(running_servers, orders=options.orders))
    for title, table in tables().items():
        print(f"{title}\n\n{table}\n")


if __name__ == "__main__":
    main()
