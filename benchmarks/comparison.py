"""The rows of the table that `make bench` prints. Each compares the product with a peer, and may have a target."""

from dataclasses import dataclass, field
from statistics import median
from typing import Literal, NamedTuple


class Pair(NamedTuple):
    """One round of a comparison: the figure of the product and that of its peer, measured one after the other.

    A figure without a peer, such as a duration in milliseconds, has 1 in `beside`.
    """

    ours: float
    beside: float

    @property
    def ratio(self) -> float:
        return self.ours / self.beside


@dataclass(kw_only=True)
class Row:
    """One line of the table that `make bench` prints: a comparison, with the figures of each round."""

    name: str
    what: str
    unit: str
    target: float | None
    """Bound of the ratio "product / peer"; None if the comparison has no target.

    It is an upper bound if `better` is "lower", otherwise a lower bound.
    """
    better: Literal["higher", "lower"] = "higher"
    rounds: list[Pair] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Return the median of the rounds' ratios, each the product's figure divided by the peer's.

        If another program disturbs one round, the median hardly changes.
        """
        return median(pair.ratio for pair in self.rounds)

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.ratio >= self.target if self.better == "higher" else self.ratio <= self.target

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "target": self.target,
            "met": self.met,
            "rounds": [[round(pair.ours, 3), round(pair.beside, 3)] for pair in self.rounds],
        }


def table(rows: list[Row]) -> str:
    """Return the table in Markdown, in the format of docs/performance.md."""
    lines = [
        "| what | unit | ours | beside | ratio | target | met |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        ours = median(pair.ours for pair in row.rounds)
        beside = median(pair.beside for pair in row.rounds)
        bound = "" if row.target is None else f"{'>=' if row.better == 'higher' else '<='} {row.target:g}"
        met = "" if row.target is None else "yes" if row.met else "**no**"
        lines.append(
            f"| `{row.name}`: {row.what} | {row.unit} | {_figure(ours)} | {_figure(beside)} "
            f"| {row.ratio:.2f} | {bound} | {met} |"
        )
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
