"""Which observations a policy sees and how long a chunk it predicts."""

from dataclasses import dataclass

from ..data.errors import ConfigError
from ..data.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """Window lengths, in control steps.

    Attributes:
        observation: keys the policy reads; empty for every key of the data that is neither an image nor text.
        observation_steps: O, latest observations seen.
        horizon: H, actions predicted.
        execute: E, actions executed before the next prediction.
        start: steps from now to a chunk's first action, 0 for "now"; Diffusion Policy's release uses 1 - O.
    """

    observation: tuple[str, ...] = ()
    observation_steps: int = 2
    horizon: int = 16
    execute: int = 8
    start: int = 0

    def __post_init__(self) -> None:
        for name in ("observation_steps", "horizon", "execute"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 - self.observation_steps <= self.start <= 0:
            raise ConfigError(f"start must lie in [{1 - self.observation_steps}, 0], got {self.start}")
        if self.execute - self.start > self.horizon:
            raise ConfigError(
                f"executing {self.execute} actions from now with start {self.start} needs a horizon of at least "
                f"{self.execute - self.start}, got {self.horizon}"
            )

    def apply(self, spec: Spec) -> Spec:
        """A policy's spec, from that of its data."""
        keys = self.observation or tuple(
            k for k, f in spec.observation.items() if f.dtype not in ("uint8", "str")
        )
        return spec.keep(keys).chunked(
            observation_steps=self.observation_steps,
            horizon=self.horizon,
            execute=self.execute,
            start=self.start,
        )
