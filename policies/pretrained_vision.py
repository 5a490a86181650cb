"""Vision backbones of Hugging Face transformers (DINOv2, SigLIP, ...) from a local folder; nothing is downloaded."""

import importlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """A backbone on disk.

    Attributes:
        path: folder with `config.json`, the weights and `preprocessor_config.json`; `load` needs it again, to know
            what the network looks like.
        frozen: keep its weights as they are.
    """

    path: str
    frozen: bool = True

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError(
                "path must name the folder of a vision backbone, as save_pretrained() writes it"
            )


@dataclass(frozen=True)
class Preprocessing:
    """The numbers a backbone reads.

    Attributes:
        size: height and width.
        mean: subtracted from each colour of 0..1.
        std: what the result is divided by.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From `preprocessor_config.json`.

        Raises:
            ConfigError: if it is absent or does not say size, mean and standard deviation.
        """
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            raise ConfigError(
                f"{folder} has no preprocessor_config.json, which says how images are scaled for this backbone; "
                "copy the whole folder of the model"
            )
        try:
            values = json.loads(path.read_text())
            cropped = values.get("do_center_crop", "crop_size" in values)
            size = values["crop_size"] if cropped else values["size"]
            mean, std = tuple(values["image_mean"]), tuple(values["image_std"])
            return cls(_height_and_width(size), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} does not say `size` (or `crop_size`), `image_mean` and `image_std` ({error!r})"
            ) from error


def _height_and_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


class PretrainedVision(nn.Module):
    """Images (N, 3, h, w) of 0..1 to a feature map (N, channels, ...), resized to what the backbone was trained on.

    Attributes:
        channels: of the feature map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PretrainedConfig) -> None:
        """Read the backbone.

        Raises:
            ConfigError: if transformers is missing, or the folder holds no vision backbone.
        """
        super().__init__()
        folder = Path(config.path)
        self.preprocessing = Preprocessing.read(_checked(folder))
        self.backbone = _read_backbone(folder)
        self.frozen = config.frozen
        self.backbone.requires_grad_(not config.frozen)
        for name, values in (("mean", self.preprocessing.mean), ("std", self.preprocessing.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        with torch.no_grad():
            self.channels = self(torch.zeros(1, 3, *self.preprocessing.size)).shape[1]
        self.train()

    def train(self, mode: bool = True) -> Self:
        """A frozen backbone stays as in evaluation: nothing is dropped out of it.

        Batch normalisation always does: statistics of a batch would belong to the raw weights, and policies act with
        averaged ones (EMA).
        """
        super().train(mode)
        for module in self.backbone.modules():
            if self.frozen or isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The patches of the last layer, where they are in the image."""
        x = (
            F.interpolate(x, self.preprocessing.size, mode="bilinear", antialias=True) - self.mean
        ) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(pixel_values=x).last_hidden_state
        if features.ndim == 4:
            return features  # a convolutional backbone
        rows, columns = self._grid(features.shape[1])
        return features[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))

    def _grid(self, tokens: int) -> tuple[int, int]:
        """Rows and columns of patches; tokens before them (class, registers) stand for no place."""
        patch = getattr(self.backbone.config, "patch_size", 0)
        rows, columns = (side // patch for side in self.preprocessing.size) if patch else (0, 0)
        if not 0 < rows * columns <= tokens:
            raise ConfigError(
                f"{type(self.backbone).__name__} gives {tokens} tokens for {self.preprocessing.size} px in patches of "
                f"{patch}; use a backbone whose tokens are patches"
            )
        return rows, columns


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is not the folder of a pretrained model: no config.json; give one that save_pretrained() wrote, "
            "such as a local copy of dinov2-small"
        )
    return folder


def _read_backbone(folder: Path) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            f"pretrained backbones need the package 'transformers' ({error}); "
            'install it with pip install "sensorimotor[vision]"'
        ) from error
    try:
        model = transformers.AutoModel.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder} cannot be read as a model of transformers: {error}") from error
    backbone = getattr(model, "vision_model", model)  # of a pair of image and text towers, the first
    if (
        not isinstance(backbone, nn.Module)
        or "pixel_values" not in inspect.signature(backbone.forward).parameters
    ):
        raise ConfigError(f"{folder} holds a {type(model).__name__}, which reads no images")
    return backbone.float()
