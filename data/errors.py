"""The one family of errors this project raises on purpose.

Every message names the bad value, what is allowed, and the next step.
"""


class SensorimotorError(Exception):
    """Base class: catch this to catch everything the project raises on purpose."""


class SpecError(SensorimotorError, ValueError):
    """Two specs disagree, or a spec is malformed."""


class DataError(SensorimotorError, ValueError):
    """A dataset is unreadable, inconsistent, or holds values that cannot be used."""


class NormalizerError(SensorimotorError, ValueError):
    """Statistics are missing or unusable."""


class ConfigError(SensorimotorError, ValueError):
    """A configuration names an unknown key or an impossible value."""


class CheckpointError(SensorimotorError, RuntimeError):
    """A checkpoint is absent, incomplete, or does not match its manifest."""


class SimulationError(SensorimotorError, RuntimeError):
    """The simulator's state became meaningless; the world must be reset."""


class TrainingError(SensorimotorError, RuntimeError):
    """Training cannot go on; what had been saved is intact."""


class TransportError(SensorimotorError, RuntimeError):
    """Something between two machines failed: unreachable, too late, or not understood."""


class RemoteError(TransportError):
    """A policy server did not answer in time, or answered with an error or with nonsense."""
