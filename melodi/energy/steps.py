"""What an engine step costs, fitted from bins: so much fixed, so much for each piece of work."""

from collections import deque
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from melodi.energy.work import Tokens

Vector = npt.NDArray[np.float64]

BINS_KEPT = 400
BINS_NEEDED = 30
REFIT_EVERY = 10


class StepCosts:
    """Non-negative least squares of a bin's active joules over a rolling window of bins.

    The number of engine steps in a bin is the most tokens that any one stream received in it.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[float, ...]] = deque(maxlen=BINS_KEPT)
        self._joules: deque[float] = deque(maxlen=BINS_KEPT)
        self._costs: Vector | None = None
        self._since_fit = 0

    def learn(self, tokens: Sequence[Tokens], active_joules: float) -> None:
        """Take a bin in which all tokens are known; one without a stream teaches nothing."""
        steps = _steps(tokens)
        if steps == 0:
            return
        decode = sum(one.decode for one in tokens)
        context = sum(one.context for one in tokens)
        prefill = sum(one.prefill for one in tokens)
        self._rows.append((steps, decode, context, prefill))
        self._joules.append(active_joules)
        self._since_fit += 1
        if len(self._rows) >= BINS_NEEDED and (
            self._costs is None or self._since_fit >= REFIT_EVERY
        ):
            self._since_fit = 0
            self._costs = non_negative_fit(np.array(self._rows), np.array(self._joules))

    def weigh(self, tokens: Sequence[Tokens]) -> list[tuple[float, float]] | None:
        """Joules of each by the fitted costs, of prefill and of decoding.

        None before there is a fit, or where nothing tells the number of steps.
        """
        steps = _steps(tokens)
        if self._costs is None or steps == 0:
            return None
        fixed, per_token, per_context, per_prefill = self._costs
        present = [_presence(one, steps) for one in tokens]
        each = fixed * steps / sum(present)
        weights = []
        for one, share in zip(tokens, present, strict=True):
            decoding = min(share, one.decode)
            prefill = each * (share - decoding) + per_prefill * one.prefill
            own = per_token * one.decode + per_context * one.context
            weights.append((float(prefill), float(each * decoding + own)))
        return weights


def non_negative_fit(rows: Vector, targets: Vector) -> Vector:
    """Least squares with no coefficient below 0, by trying every set of coefficients kept.

    `rows` is (n, 4), `targets` (n,); with four unknowns there are 15 sets, and the best of
    those whose solution is not negative is the optimum (Karush-Kuhn-Tucker).
    """
    scale = np.where(rows.any(axis=0), np.abs(rows).max(axis=0), 1.0)
    gram = (rows / scale).T @ (rows / scale)
    moment = (rows / scale).T @ targets
    best, best_gain = np.zeros(rows.shape[1]), 0.0
    for size in range(1, rows.shape[1] + 1):
        for kept in combinations(range(rows.shape[1]), size):
            chosen = list(kept)
            solution = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], moment[chosen], rcond=1e-9)[0]
            gain = float(moment[chosen] @ solution)
            if (solution >= 0).all() and gain > best_gain * (1 + 1e-12):
                best, best_gain = np.zeros(rows.shape[1]), gain
                best[chosen] = solution
    return best / scale


def _steps(tokens: Sequence[Tokens]) -> float:
    return max((one.steps for one in tokens), default=0.0)


def _presence(one: Tokens, steps: float) -> float:
    """In how many of the steps it was: as many as it got tokens, as far as that is known."""
    return min(steps, max(one.steps, one.decode))
