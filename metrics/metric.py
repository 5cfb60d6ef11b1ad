"""What a metric is: its function, and what people need to know to read its numbers.

Metrics of pairs are added to a table by a decorator, in the module that computes them::

    MASK_METRICS = MetricTable(MaskPair)

    @MASK_METRICS.metric("Dice", one_empty=0.0)
    def dice(pair: MaskPair) -> float:
        \"\"\"Twice the shared volume, over the sum of both volumes.\"\"\"

The function's name is the column in tables and files, the first paragraph of its docstring is the explanation in
reports and in the documentation. Calling the metric applies its values for empty masks first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from inspect import cleandoc
from typing import Any, Generic, TypeVar

import numpy as np

# By ``higher_is_better``; None where the sign says whether the value is too small or too large.
BETTER = {True: "higher is better", False: "lower is better", None: "0 is best"}


class WhenEmpty(Enum):
    """Values for empty masks that are not a constant; the text is for the documentation."""

    COMPUTED = "computed as usual"
    GRID_DIAGONAL = "the grid's diagonal"


class Pair(ABC):
    """A prediction and its reference on one grid.

    Attributes:
        shape: (X, Y, Z) voxels of the grid.
        spacing_mm: along X, Y, Z.
    """

    shape: tuple[int, ...]
    spacing_mm: Sequence[float]

    @property
    @abstractmethod
    def are_empty(self) -> tuple[bool, bool]:
        """Whether the prediction is empty, and whether the reference is."""

    @property
    def diagonal_mm(self) -> float:
        """Length of the grid's diagonal: no two of its points lie farther apart."""
        return float(np.linalg.norm(np.array(self.shape) * np.array(self.spacing_mm)))


P = TypeVar("P", bound=Pair)


@dataclass(frozen=True)
class Metric:
    """What a number about predictions means.

    Attributes:
        name: column in tables and files; ends in its unit (``_mm``, ``_ml``) where it has one.
        title: for reports and pictures.
        explanation: a sentence without its full stop.
        unit: "mm", "ml", or "1" where it has none.
        higher_is_better: its direction; None where 0 is best and the sign says whether it is too small or too large.
        scale: what its values are, of metrics without a unit.
    """

    name: str
    title: str
    explanation: str
    unit: str = "1"
    higher_is_better: bool | None = True
    scale: str = "share"

    @property
    def best(self) -> int:
        """The value of a perfect prediction."""
        return 1 if self.higher_is_better else 0

    @property
    def scale_and_best(self) -> str:
        """What the values are, and which is perfect: "mm, 0 is perfect"."""
        return f"{self.scale if self.unit == '1' else self.unit}, {self.best} is perfect"


@dataclass(frozen=True)
class RatioMetric(Metric):
    """A number over all cases: the sum of one column over the sum of another.

    Attributes:
        part: column of the numerator.
        whole: column of the denominator, or "cases" for the number of cases.
    """

    part: str = field(kw_only=True)
    whole: str = field(kw_only=True)


@dataclass(frozen=True)
class PairMetric(Metric, Generic[P]):
    """A metric of a single pair.

    Attributes:
        compute: its function.
        both_empty, one_empty: value where prediction and reference are empty, or only one of them.
        is_main: shown in pictures and at the top of reports.
    """

    compute: Callable[[P], float] = field(kw_only=True)
    both_empty: float | WhenEmpty = 1.0
    one_empty: float | WhenEmpty = 0.0
    is_main: bool = False

    def __call__(self, pair: P) -> float:
        """The metric's value, by ``both_empty`` and ``one_empty`` where they apply."""
        value: float | WhenEmpty = WhenEmpty.COMPUTED
        are_empty = pair.are_empty
        if all(are_empty):
            value = self.both_empty
        elif any(are_empty):
            value = self.one_empty
        if value is WhenEmpty.GRID_DIAGONAL:
            return pair.diagonal_mm
        return self.compute(pair) if isinstance(value, WhenEmpty) else value

    @property
    def values_when_empty(self) -> tuple[str, str]:
        """``both_empty`` and ``one_empty`` as text."""
        both, one = (
            value.value if isinstance(value, WhenEmpty) else f"{value:g}" for value in (self.both_empty, self.one_empty)
        )
        return both, one


# Facts of a distance between the prediction and its reference: a missed or invented object is as far off as the grid
# allows.
DISTANCE_MM: dict[str, Any] = {
    "unit": "mm",
    "higher_is_better": False,
    "both_empty": 0.0,
    "one_empty": WhenEmpty.GRID_DIAGONAL,
}


class MetricTable(dict[str, PairMetric[P]]):
    """The metrics of one kind of pairs by their names, in the order of the columns.

    Args:
        make_pair: makes a pair of prediction, reference and further inputs.
    """

    def __init__(self, make_pair: Callable[..., P]) -> None:
        super().__init__()
        self.make_pair = make_pair

    def metric(self, title: str, **facts: Any) -> Callable[[Callable[[P], float]], PairMetric[P]]:
        """Decorator that adds a function of a pair to the table.

        Args:
            title: see ``Metric``.
            facts: other attributes of ``PairMetric``.
        """

        def add(function: Callable[[P], float]) -> PairMetric[P]:
            name = function.__name__
            explanation = cleandoc(function.__doc__ or "").partition("\n\n")[0].replace("\n", " ").removesuffix(".")
            self[name] = PairMetric(name, title, explanation, compute=function, **facts)
            return self[name]

        return add

    def measure(self, prediction: Any, reference: Any, **inputs: Any) -> dict[str, float]:
        """All metrics of a pair, name -> value.

        Args:
            prediction, reference: as ``make_pair`` takes them, such as masks (X, Y, Z).
            inputs: the other arguments of ``make_pair``, such as ``spacing_mm``.
        """
        pair = self.make_pair(prediction, reference, **inputs)
        return {name: metric(pair) for name, metric in self.items()}

    @property
    def main(self) -> tuple[str, ...]:
        """Names of the main metrics."""
        return tuple(name for name, metric in self.items() if metric.is_main)

    @property
    def ranked_by(self) -> str:
        """Name of the metric by which cases are ranked: the first of the main ones; higher is better."""
        return self.main[0]


def shown(value: float | None, unit: str = "1", sign: bool = False) -> str:
    """A value as people read it: 0.897, 4.6 mm, or with its sign; a dash for None."""
    if value is None:
        return "–"
    return _digits(value, unit, sign) + ("" if unit == "1" else f" {unit}")


def shown_interval(interval: Sequence[float] | None, unit: str = "1", sign: bool = False) -> str:
    """An interval as people read it: 0.871 to 0.923, or 2.1 to 9.7 mm; a dash for None."""
    if interval is None:
        return "–"
    low, high = interval
    return f"{_digits(low, unit, sign)} to {shown(high, unit, sign)}"


def _digits(value: float, unit: str, sign: bool) -> str:
    return f"{value:{'+' if sign else ''}.{3 if unit == '1' else 1}f}".replace("-", "−")
