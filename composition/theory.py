"""When can a mixture of two estimates be better than both? Propositions 4.1 and 4.2 of GPC (arXiv 2510.01068)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MixtureError:
    """`Q(w) = E |w e_1 + (1 - w) e_2 - s|^2 = A w^2 + B w + C` of estimates `e_i = s + b_i + n_i` (Prop. 4.1).

    Attributes:
        a: A, how much the estimates differ; 0 if they are the same.
        b: B.
        c: C, the error of the second estimate alone.
    """

    a: float
    b: float
    c: float

    @classmethod
    def of(
        cls, bias_1: Array, bias_2: Array, noise_1: float, noise_2: float, shared: float
    ) -> "MixtureError":
        """From fixed errors b_i, and the noise's E|n_1|^2, E|n_2|^2 and E<n_1, n_2>."""
        apart = np.asarray(bias_1, float) - np.asarray(bias_2, float)
        return cls(
            a=float(apart @ apart) + noise_1 + noise_2 - 2 * shared,
            b=2 * float(np.asarray(bias_2, float) @ apart) - 2 * noise_2 + 2 * shared,
            c=float(np.dot(bias_2, bias_2)) + noise_2,
        )

    def at(self, w: float) -> float:
        """Q(w)."""
        return self.a * w * w + self.b * w + self.c

    @property
    def best(self) -> float:
        """The best convex weight of the first estimate; inside (0, 1) exactly where mixing beats both."""
        if self.a <= 0:
            return 0.0 if self.b >= 0 else 1.0
        return float(np.clip(-self.b / (2 * self.a), 0.0, 1.0))


def sample_error_bounds(times: Array, kappa: Array, *, lipschitz: float, gain: float) -> tuple[float, float]:
    """Bounds on `|x_hat(T) - x(T)|` for `x' = F(t, x, s)` driven by a wrong score (Prop. 4.2, Groenwall).

    They bound the error of a sample; a smaller bound is not always a smaller error.

    Args:
        times: (n,) from 0 to T.
        kappa: (n,) errors of the score.
        lipschitz: `L_x + L_s Lambda`, of F and of the score estimate together.
        gain: `L_s`, of F in the score.

    Returns:
        The bound by the errors themselves, and the larger one by their squares.
    """
    grow = np.exp(lipschitz * (times[-1] - times))
    first = np.trapezoid(grow * gain * kappa, times)
    second = np.sqrt(np.trapezoid((grow * gain) ** 2, times) * np.trapezoid(kappa**2, times))
    return float(first), float(second)
