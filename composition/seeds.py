"""Episodes that choose and episodes that report, which are never the same."""

from dataclasses import dataclass

from ..data.errors import ConfigError

SELECTION, REPORTING = 200_000, 100_000
_SPAN = 100_000


@dataclass(frozen=True)
class Seeds:
    """Starts of episodes: 200000 and up choose weights, 100000 to 199999 report what was chosen.

    Attributes:
        selection: how many choose.
        reporting: how many report.
        first: how many starts of either kind to leave out, for a second, independent study.
    """

    selection: int = 200
    reporting: int = 500
    first: int = 0

    def __post_init__(self) -> None:
        for name in ("selection", "reporting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.first < 0 or self.first + max(self.selection, self.reporting) > _SPAN:
            raise ConfigError(
                f"there are {_SPAN} starts of either kind; got {self.selection} and {self.reporting} from {self.first} on"
            )

    def choosing(self) -> range:
        """Those that choose."""
        return range(SELECTION + self.first, SELECTION + self.first + self.selection)

    def telling(self) -> range:
        """Those that report."""
        return range(REPORTING + self.first, REPORTING + self.first + self.reporting)
