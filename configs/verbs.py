"""The configuration of each verb that needs no policy: what may be written after it, and the defaults."""

from dataclasses import dataclass

from ..data.errors import ConfigError
from ..data.formats import Format


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Turn one dataset format into another.

    Attributes:
        source: file or folder to read.
        target: file or folder to write.
        source_format: format of the source; found out from the file if null.
        target_format: format of the target; found out from its name if null.
        control_hz: control steps per second, for formats that do not record them.
        overwrite: replace an existing target.
        skip_bad: leave out episodes that hold NaN or infinity and report them, instead of stopping.
    """

    source: str
    target: str
    source_format: Format | None = None
    target_format: Format | None = None
    control_hz: float | None = None
    overwrite: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.control_hz is not None and not 0 < self.control_hz < float("inf"):
            raise ConfigError(f"control_hz must be positive and finite, got {self.control_hz}")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show what a dataset holds.

    Attributes:
        path: file or folder to read.
        format: its format; found out from the file if null.
        control_hz: control steps per second, for formats that do not record them.
        picture: where the plot of the trajectories goes; beside the dataset if null, `none` for no plot.
    """

    path: str
    format: Format | None = None
    control_hz: float | None = None
    picture: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write one self-contained page about a run.

    Attributes:
        run: the run folder.
        path: where the page goes; `report.html` in the run folder if null.
    """

    run: str
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look at the machine.

    Attributes:
        folder: where runs will be written.
    """

    folder: str = "runs"


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a policy to robots and other programs.

    Attributes:
        checkpoint: folder of a run or of a checkpoint.
        host: address to listen on; any but loopback needs a token.
        port: TCP port; 0 lets the system choose.
        token: clients must show it; the environment variable SENSORIMOTOR_TOKEN if null.
        certificate: PEM file of a TLS certificate chain; clients then use wss://.
        key: PEM file of its private key, if the certificate's file does not hold it.
        clients: served at the same time.
        waiting: requests of one client that may wait; more are refused.
        device: where the policy computes.
        threads: torch threads; 1 suits a small policy asked for one chunk at a time.
    """

    checkpoint: str
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    certificate: str | None = None
    key: str | None = None
    clients: int = 16
    waiting: int = 4
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("clients", "waiting", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in 0..65535, got {self.port}")
