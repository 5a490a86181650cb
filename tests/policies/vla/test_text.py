import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.vla.text import (
    BytesConfig,
    HuggingFaceConfig,
    WordsConfig,
    build_tokenizer,
    padded,
)


def test_words_are_found_whatever_their_case_and_others_are_one_unknown_word() -> None:
    words = build_tokenizer(WordsConfig(words=("go", "to", "red")))
    assert words.vocabulary == 4
    assert words(["Go to RED.", "fly to", ""]) == [[1, 2, 3], [0, 2], []]


def test_bytes_hold_any_language_and_stop_at_the_length() -> None:
    data = build_tokenizer(BytesConfig(length=4))
    assert data(["ä!", "12345"]) == [[0xC3, 0xA4, 0x21], [49, 50, 51, 52]]
    assert data.vocabulary == 256


def test_shorter_texts_are_padded_and_even_no_text_has_a_place() -> None:
    ids, valid = padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert valid.tolist() == [[True] * 3, [True, False, False]]
    assert padded([[]], torch.device("cpu"))[1].tolist() == [[False]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WordsConfig(words=()), "at least one"),
        (lambda: WordsConfig(words=("a", "a")), "different"),
        (lambda: WordsConfig(words=("Red",)), "lower case"),
        (lambda: BytesConfig(length=0), "at least 1"),
        (lambda: HuggingFaceConfig(folder="x", vocabulary=0), "vocabulary"),
    ],
)
def test_impossible_tokenizers_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """A tokenizer of whole words in Hugging Face's files."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    table = {word: i for i, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(" "), "removed"),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex("\n"), "isolated"),
        ]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token=None
    )
    fast.save_pretrained(str(folder))


def test_a_hugging_face_tokenizer_comes_from_a_local_folder_and_gets_a_line_feed(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ["<pad>", "<unk>", "go", "left", "\n"])
    tokens = build_tokenizer(HuggingFaceConfig(folder=str(tmp_path), vocabulary=5, length=3))
    assert tokens(["go left", "go up\n", "go left go"]) == [[2, 3, 4], [2, 1, 4], [2, 3, 2]]
    plain = build_tokenizer(HuggingFaceConfig(folder=str(tmp_path), vocabulary=5, newline=False))
    assert plain(["go left"]) == [[2, 3]]


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ["<pad>", "<unk>", "go", "left", "\n"])
    with pytest.raises(ConfigError, match="gives token 4, the policy knows 4"):
        build_tokenizer(HuggingFaceConfig(folder=str(tmp_path), vocabulary=4))(["go left"])


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "none"))):
        build_tokenizer(HuggingFaceConfig(folder=str(tmp_path / "none"), vocabulary=4))(["go"])
    with pytest.raises(ConfigError, match="no readable tokenizer"):
        build_tokenizer(HuggingFaceConfig(folder=str(tmp_path), vocabulary=4))(["go"])
