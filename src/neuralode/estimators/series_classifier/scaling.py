"""Standardization of series: values, covariates and times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from neuralode.data.tables.scaling import Scaling
from neuralode.nn import Observations


@dataclass(frozen=True)
class SeriesScaling:
    """Standardization of values and covariates, with times since the start in units of the typical length of a series.

    Parameters
    ----------
    values : Scaling
        Scaling of the channels.
    static : Scaling or None
        Scaling of the covariates.
    span : float
        The unit of time.

    Examples
    --------
    >>> observed = Observations.gather([([5.0, 9.0], [[1.0], [3.0]])], dtype=torch.float64)
    >>> scaled = SeriesScaling.fit(observed).apply(observed)
    >>> scaled.times.tolist(), scaled.values.flatten().tolist()
    ([[0.0, 1.0]], [-1.0, 1.0])
    """

    values: Scaling
    static: Scaling | None
    span: float

    @classmethod
    def fit(cls, observed: Observations) -> SeriesScaling:
        """Return the scaling of series in float64; its unit of time is the median length of the series with one."""
        spans = observed.times[:, -1] - observed.start
        spans = spans[spans > 0]
        static = None if observed.static is None else Scaling.fit(observed.static.numpy(), logs=False)
        table = torch.where(observed.seen, observed.values, torch.nan).flatten(0, 1).numpy()
        return cls(Scaling.fit(table, logs=False), static, float(spans.median()) if len(spans) else 1.0)

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return len(self.values.mean)

    @property
    def covariates(self) -> int:
        """Return the number of covariates, 0 for none."""
        return 0 if self.static is None else len(self.static.mean)

    def apply(self, observed: Observations) -> Observations:
        """Scale series in float64; raise `ValueError` unless channels and covariates match in number."""
        covariates = 0 if observed.static is None else observed.static.shape[-1]
        for what, has, wanted in (
            ("channels", observed.channels, self.channels),
            ("covariates", covariates, self.covariates),
        ):
            if has != wanted:
                raise ValueError(f"the series have {has} {what}; wanted {wanted}, as in the training series.")
        values = torch.as_tensor(self.values.apply(observed.values.numpy()))
        static = None
        if self.static is not None and observed.static is not None:
            static = torch.as_tensor(self.static.apply(observed.static.numpy()))
        return replace(
            observed,
            times=(observed.times - observed.start[:, None]) / self.span,
            values=torch.where(observed.seen, values, 0),
            start=torch.zeros_like(observed.start),
            static=static,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold, for `from_json`."""
        static = None if self.static is None else self.static.to_json()
        return {"values": self.values.to_json(), "static": static, "span": self.span}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SeriesScaling:
        """Return the scaling that `to_json` described."""
        static = None if content["static"] is None else Scaling.from_json(content["static"])
        return cls(Scaling.from_json(content["values"]), static, content["span"])
