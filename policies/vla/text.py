"""Instructions to token numbers: a short list of words, bytes, or a Hugging Face tokenizer from a local folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, assert_never

import torch
from torch import Tensor

from ...data.errors import ConfigError

_UNKNOWN = 0  # the number of every word that a list does not hold, and of padding


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """Whole words of a short list, capitals aside; all others are one and the same unknown word.

    Attributes:
        words: the list; the vocabulary has one more entry.
        length: tokens kept of a longer text.
    """

    words: tuple[str, ...]
    length: int = 16

    def __post_init__(self) -> None:
        _check_length(self.length)
        if not self.words or len(set(self.words)) < len(self.words):
            raise ConfigError(f"words must be different ones, at least one, got {self.words}")
        odd = [word for word in self.words if word != word.lower() or len(word.split()) != 1]
        if odd:
            raise ConfigError(f"words are written in lower case and without spaces, got {odd[0]!r}")


@dataclass(frozen=True, kw_only=True)
class BytesConfig:
    """The bytes of the text's UTF-8: any language, nothing to fetch.

    Attributes:
        length: bytes kept of a longer text.
    """

    length: int = 64

    def __post_init__(self) -> None:
        _check_length(self.length)


@dataclass(frozen=True, kw_only=True)
class HuggingFaceConfig:
    """A tokenizer of the transformers library, from a local folder; nothing is fetched.

    Attributes:
        folder: holds tokenizer.json or what else the tokenizer is made of.
        vocabulary: entries of the embedding, at least those of the tokenizer.
        length: tokens kept of a longer text.
        newline: end every text with a line feed, as pi0 and SmolVLA were trained with; pi0.5 was without.
    """

    folder: str
    vocabulary: int
    length: int = 48
    newline: bool = True

    def __post_init__(self) -> None:
        _check_length(self.length)
        if self.vocabulary < 1:
            raise ConfigError(f"vocabulary must be at least 1, got {self.vocabulary}")


TextConfig = WordsConfig | BytesConfig | HuggingFaceConfig


def _check_length(length: int) -> None:
    if length < 1:
        raise ConfigError(f"length must be at least 1 token, got {length}")


class Tokenizer(Protocol):
    """Texts to token numbers."""

    vocabulary: int

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, none longer than the configured length."""
        ...


def build_tokenizer(config: TextConfig) -> Tokenizer:
    """The tokenizer of a configuration."""
    match config:
        case WordsConfig():
            return Words(config)
        case BytesConfig():
            return Bytes(config)
        case HuggingFaceConfig():
            return HuggingFace(config)
        case _:
            assert_never(config)


class Words:
    """Whole words of a list."""

    def __init__(self, config: WordsConfig) -> None:
        """Number 0 is the unknown word."""
        self.length, self.vocabulary = config.length, len(config.words) + 1
        self._numbers = {word: number for number, word in enumerate(config.words, start=1)}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """One number per word."""
        split = [text.lower().split()[: self.length] for text in texts]
        return [[self._numbers.get(word.strip(".,;:!?"), _UNKNOWN) for word in words] for words in split]


class Bytes:
    """UTF-8 bytes."""

    def __init__(self, config: BytesConfig) -> None:
        """There are 256."""
        self.length, self.vocabulary = config.length, 256

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """One number per byte."""
        return [list(text.encode("utf-8")[: self.length]) for text in texts]


class HuggingFace:
    """A tokenizer of the transformers library, opened when the first text comes."""

    def __init__(self, config: HuggingFaceConfig) -> None:
        """Remember the folder."""
        self.config, self.vocabulary = config, config.vocabulary
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens with those that the tokenizer adds by itself, such as a first one."""
        if self._tokenizer is None:
            self._tokenizer = _open(Path(self.config.folder))
        if self.config.newline:
            texts = [text if text.endswith("\n") else f"{text}\n" for text in texts]
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self.config.length)["input_ids"]
        most = max((max(row, default=0) for row in tokens), default=0)
        if most >= self.vocabulary:
            raise ConfigError(
                f"the tokenizer in {self.config.folder} gives token {most}, the policy knows {self.vocabulary}; "
                "give the folder of the tokenizer it was trained with"
            )
        return tokens


def _open(folder: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            f'a Hugging Face tokenizer needs transformers ({error}); install it with pip install "sensorimotor[vla]"'
        ) from error
    if not folder.is_dir():
        raise ConfigError(f"there is no tokenizer folder {folder}; copy tokenizer.json and its kin there")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, padding_side="right")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no readable tokenizer: {error}") from error


def padded(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token numbers (B, T) and which are real (B, T), T that of the longest text and at least 1."""
    longest = max(1, *(len(row) for row in tokens))
    numbers = torch.full((len(tokens), longest), _UNKNOWN)
    valid = torch.zeros(len(tokens), longest, dtype=torch.bool)
    for i, row in enumerate(tokens):
        numbers[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        valid[i, : len(row)] = True
    return numbers.to(device), valid.to(device)
