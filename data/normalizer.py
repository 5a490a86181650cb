"""Affine normalisation of observations and actions, with an exact inverse.

Every kind is `normalised = (x - offset) / scale`, element by element, so that members of a composition can be
compared by two vectors each. Statistics are buffers: they move with the module and are saved as safetensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .episodes import Episodes
from .errors import NormalizerError
from .files import atomic_file

Kind = Literal["min_max", "mean_std", "quantile", "identity"]


@dataclass(frozen=True, kw_only=True)
class NormalizerConfig:
    """How each field is scaled.

    Attributes:
        observation: kind used for observations that are not images.
        action: kind used for actions; `min_max` maps the data to [-1, 1].
        quantiles: lower and upper share mapped to -1 and 1 by `quantile` (pi0.5 uses 1 % and 99 %).
        floor: a spread below this counts as constant and is not divided by.
        like: run or checkpoint folder of a trained policy whose scales of actions are taken over in place of this data's.
            Noised actions of the two then mean the same, so that they can be composed; policies read it, see
            `policies.statistics.scaled_like`.
    """

    observation: Kind = "min_max"
    action: Kind = "min_max"
    quantiles: tuple[float, float] = (0.01, 0.99)
    floor: float = 1e-6
    like: str | None = None

    def __post_init__(self) -> None:
        low, high = self.quantiles
        if not 0 <= low < high <= 1:
            raise NormalizerError(f"quantiles must satisfy 0 <= low < high <= 1, got {self.quantiles}")


class Normalizer(nn.Module):
    """Offsets and scales per key; `action` is a key like any other."""

    def __init__(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take (offset, scale) per key, each shaped like one step of the field."""
        super().__init__()
        self.keys = tuple(sorted(statistics))
        for key, (offset, scale) in statistics.items():
            if not (torch.isfinite(offset).all() and torch.isfinite(scale).all() and (scale > 0).all()):
                raise NormalizerError(
                    f"{key!r} needs finite offsets and positive scales, got offset {offset.tolist()}, "
                    f"scale {scale.tolist()}; check the data with `sensorimotor inspect`"
                )
            self.register_buffer(f"{_mangle(key)}__offset", offset.float().clone())
            self.register_buffer(f"{_mangle(key)}__scale", scale.float().clone())

    @classmethod
    def fit(cls, episodes: Episodes, config: NormalizerConfig | None = None) -> Self:
        """Compute statistics from a dataset; images and text have none and are left out."""
        config = config or NormalizerConfig()
        arrays = {
            k: v for k, v in episodes.observation.items() if v.dtype != np.uint8 and v.dtype.kind != "U"
        }
        statistics = {k: _statistics(k, v, config.observation, config) for k, v in arrays.items()}
        statistics["action"] = _statistics("action", episodes.action, config.action, config)
        return cls(statistics)

    def affine(self, key: str) -> tuple[Tensor, Tensor]:
        """(offset, scale) of one key.

        Raises:
            NormalizerError: if there are no statistics for the key.
        """
        if key not in self.keys:
            raise NormalizerError(
                f"no statistics for {key!r}; known keys are {list(self.keys)}. "
                "Fit the normalizer on data that holds this key, or load it from the checkpoint"
            )
        name = _mangle(key)
        return self.get_buffer(f"{name}__offset"), self.get_buffer(f"{name}__scale")

    def normalize(self, key: str, x: Tensor) -> Tensor:
        """Physical units to normalised numbers; any leading shape."""
        offset, scale = self.affine(key)
        return (x - offset) / scale

    def unnormalize(self, key: str, x: Tensor) -> Tensor:
        """Inverse of `normalize`."""
        offset, scale = self.affine(key)
        return x * scale + offset

    def save(self, path: Path | str) -> None:
        """Write the statistics as safetensors."""
        tensors = {}
        for key in self.keys:
            offset, scale = self.affine(key)
            tensors[f"{key}/offset"], tensors[f"{key}/scale"] = offset.contiguous(), scale.contiguous()
        with atomic_file(Path(path)) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Inverse of `save`."""
        tensors = load_file(path)
        keys = sorted({name.rsplit("/", 1)[0] for name in tensors})
        try:
            return cls({key: (tensors[f"{key}/offset"], tensors[f"{key}/scale"]) for key in keys})
        except KeyError as error:
            raise NormalizerError(f"{path} lacks {error}; each key needs an offset and a scale") from error


def _mangle(key: str) -> str:
    return key.replace(".", "__dot__")  # a buffer name may not hold a dot


def _statistics(
    key: str, array: NDArray[np.generic], kind: Kind, config: NormalizerConfig
) -> tuple[Tensor, Tensor]:
    x = np.asarray(array, dtype=np.float64)
    if not np.isfinite(x).all():
        raise NormalizerError(
            f"{key!r} holds {int((~np.isfinite(x)).sum())} values that are not finite; run check_finite()"
        )
    match kind:
        case "min_max":
            low, high = x.min(0), x.max(0)
            offset, scale = (high + low) / 2, (high - low) / 2
        case "quantile":
            low, high = np.quantile(x, config.quantiles, axis=0)
            offset, scale = (high + low) / 2, (high - low) / 2
        case "mean_std":
            offset, scale = x.mean(0), x.std(0)
        case "identity":
            offset, scale = np.zeros(x.shape[1:]), np.ones(x.shape[1:])
        case _:
            raise NormalizerError(f"unknown normaliser kind {kind!r}; allowed are {Kind.__args__}")
    scale = np.where(scale < config.floor, 1.0, scale)  # a constant element maps to 0, and back exactly
    return torch.tensor(offset, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32)


def same_affine(members: Sequence[Normalizer], key: str = "action") -> bool:
    """Whether all members scale this key identically."""
    reference = members[0].affine(key)
    return all(
        all(torch.equal(a, b) for a, b in zip(m.affine(key), reference, strict=True)) for m in members[1:]
    )
