"""What an engine step costs, fitted from bins: so much fixed, so much for each piece of work."""

from collections import deque
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from melodi.energy.bins import Bin
from melodi.energy.columns import Vector
from melodi.energy.work import CONTEXT, MADE, PRESENT, READ, Prices

ROWS_KEPT = 400
ROWS_NEEDED = 30
REFIT_EVERY = 10
BINS_A_ROW = 8
"""A row sums bins that follow one another, so that what an edge puts into the wrong one of two
is right again; with one bin a row such errors pull the costs of work towards 0."""


class StepCosts:
    """Non-negative least squares of active joules over a rolling window of bins."""

    def __init__(self) -> None:
        self._rows = np.zeros((ROWS_KEPT, 5))
        self._learned = 0
        self._run: deque[tuple[float, ...]] = deque(maxlen=BINS_A_ROW)
        self._run_end_ns: int | None = None
        self._costs: Vector | None = None

    def learn(
        self, bin_: Bin, done: Sequence[float], *, steps: float, active_joules: float
    ) -> None:
        """Take a bin with what was done in it; one with unknown steps (0) teaches nothing."""
        if steps == 0:
            return
        if bin_.start_ns != self._run_end_ns:
            self._run.clear()
        self._run_end_ns = bin_.end_ns
        self._run.append((steps, done[MADE], done[CONTEXT], done[READ], active_joules))
        self._rows[self._learned % ROWS_KEPT] = [sum(one) for one in zip(*self._run, strict=True)]
        self._learned += 1
        if self._learned >= ROWS_NEEDED and (
            self._costs is None or self._learned % REFIT_EVERY == 0
        ):
            rows = self._rows[: self._learned]
            above = () if self._costs is None else self._costs.nonzero()[0].tolist()
            self._costs = non_negative_fit(rows[:, :4], rows[:, 4], first=above)

    def prices(self, done: Sequence[float], *, steps: float) -> Prices | None:
        """Joules by the fitted costs, for those who did this together.

        None before there is a fit, or where nothing tells the number of steps.
        """
        if self._costs is None or steps == 0:
            return None
        fixed, per_token, per_context, per_prefill = self._costs.tolist()
        each = fixed * steps / done[PRESENT] if done[PRESENT] > 0 else 0.0
        return 0.0, per_prefill, each, per_token, per_context


def non_negative_fit(rows: Vector, targets: Vector, *, first: Sequence[int] = ()) -> Vector:
    """Least squares with no coefficient below 0.

    `rows` is (n, 4), `targets` (n,). Coefficients are the optimum where those above 0 solve the
    equations of their own and no other would lower the error by rising from 0
    (Karush-Kuhn-Tucker). With four there are fifteen sets to try; `first` is tried first.
    """
    scale: Vector = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1.0
    scaled = rows / scale
    gram, moment = scaled.T @ scaled, scaled.T @ targets
    best: Vector = np.zeros(rows.shape[1])
    best_gain = 0.0
    for chosen in (list(first), *_SETS) if first else _SETS:
        solution = np.linalg.lstsq(gram[chosen][:, chosen], moment[chosen], rcond=1e-9)[0]
        gain = float(moment[chosen] @ solution)
        if (solution < 0).any() or gain <= best_gain:
            continue
        best, best_gain = np.zeros(rows.shape[1]), gain
        best[chosen] = solution
        if (moment - gram @ best <= 1e-9 * np.abs(moment).max()).all():
            break
    return best / scale


_SETS = [list(kept) for size in (4, 3, 2, 1) for kept in combinations(range(4), size)]
"""The most first: usually all costs are above 0, or all but one."""
