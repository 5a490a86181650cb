"""From `key=value` words on a command line to the frozen configuration of one verb.

Hydra's compose function does the composing; there is no `@hydra.main`, so no working folder is changed, no logging is
taken over, nothing is written, and `_target_` means nothing.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data.errors import ConfigError
from ..data.schema import nearest
from .resume import resumed
from .store import groups, register, root, starting_options
from .typed import alternatives, build, plain

_FIRST_KEY = {
    "inspect": "path",
    "convert": "source",
    "eval": "checkpoint",
    "serve": "checkpoint",
    "report": "run",
    "train": "experiment",
    "compose": "members",
    "rerank": "policy",
}


def compose(verb: str, words: Sequence[str]) -> Any:
    """The typed configuration of `verb` under these overrides.

    Raises:
        ConfigError: for a word that is no `key=value`, an unknown key or option (with the nearest valid one), or a
            value of the wrong type.
    """
    return build(root(verb), tree(verb, words))


def tree(verb: str, words: Sequence[str]) -> dict[str, Any]:
    """The composed configuration as plain values, not yet held against the types.

    Hydra composes what the chosen options bring; the single values are then set in the order they were written.
    """
    register(verb)
    overrides = [_parse(verb, word) for word in words]
    known = groups(verb)
    chosen = [override for override in overrides if override.key_or_group in known]
    for override in chosen:
        _check_option(override, known[override.key_or_group])
    single = [override for override in overrides if override.key_or_group not in known]
    values = _with(verb, _compose(verb, chosen), single)
    if values.get("resume") is True and "run" in values:  # of a training, whose folder says everything else
        stored = resumed(values, [override.key_or_group for override in chosen])
        values = values if stored is None else _with(verb, stored, single)
    return OmegaConf.to_container(OmegaConf.create(values), resolve=True)  # pyright: ignore[reportReturnType]


def show(verb: str, words: Sequence[str]) -> str:
    """The composed configuration as YAML; `???` stands for what has to be given."""
    return OmegaConf.to_yaml(OmegaConf.create(tree(verb, words))).rstrip()


def _compose(verb: str, chosen: Sequence[Override]) -> dict[str, Any]:
    # Hydra spells "no option of this group" with a tilde, and only where there is a default to take away.
    words = [
        f"~{override.key_or_group}" if override.value() is None else str(override.input_line)
        for override in chosen
        if override.value() is not None or override.key_or_group in starting_options(verb)
    ]
    try:
        with initialize(version_base="1.3", config_path=None):
            config = hydra_compose(verb, overrides=words)
    except (HydraException, OmegaConfBaseException) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"cannot combine {' '.join(words)}: {first}") from error
    return OmegaConf.to_container(config, resolve=False)  # pyright: ignore[reportReturnType]


def _with(verb: str, values: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    for override in overrides:
        _set(verb, values, override)
    return values


def _set(verb: str, values: dict[str, Any], override: Override) -> None:
    """Set one value; the name of an alternative, as in `policy.trunk=mlp`, brings that alternative's defaults."""
    key, value = override.key_or_group, override.value()
    _check_key(verb, key, values)
    *parents, leaf = key.split(".")
    inside = values
    for part in parents:
        inside = inside[part]
    classes = alternatives(root(verb), values, key.split("."))
    if classes and isinstance(value, str):
        if value not in classes:
            raise ConfigError(f"{key} has no option {value!r}; {nearest(value, classes)}")
        inside[leaf] = ({"kind": classes[value].__name__} if len(classes) > 1 else {}) | plain(classes[value])
    elif isinstance(value, Mapping) and isinstance(inside[leaf], Mapping):
        first = next((name for name in inside[leaf] if name != "kind"), "key")
        raise ConfigError(f"{key} is set key by key, as in {key}.{first}=...")
    else:
        inside[leaf] = value


def _parse(verb: str, word: str) -> Override:
    key, equals, value = word.partition("=")
    if not equals or not key:
        example = (
            f"{_FIRST_KEY[verb]}={word}" if verb in _FIRST_KEY and not word.startswith("-") else "seed=3"
        )
        raise ConfigError(f"{word!r} is not key=value; write it like {example}")
    if key[0] in "+~":
        raise ConfigError(f"{word!r}: write plain key=value; keys are neither added nor removed here")
    parser = OverridesParser.create()
    try:
        override = parser.parse_override(word)
        if (
            override.is_sweep_override()
        ):  # a comma outside brackets; there are no sweeps here, so it is a list
            override = parser.parse_override(f"{key}=[{value}]")
    except HydraException:
        # A path may hold characters of Hydra's grammar; taken as text it is what was meant.
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        try:
            override = parser.parse_override(f'{key}="{quoted}"')
        except HydraException as error:
            raise ConfigError(f"cannot read {word!r}; write key=value, lists as [a,b]") from error
    if override.type is not OverrideType.CHANGE or override.package:
        raise ConfigError(f"{word!r}: write plain key=value")
    return override


def _check_option(override: Override, options: list[str]) -> None:
    if str(override.value()) not in options and override.value() is not None:
        raise ConfigError(
            f"{override.key_or_group} has no option {override.value()!r}; {nearest(str(override.value()), options)}"
        )


def _check_key(verb: str, key: str, values: Mapping[str, Any]) -> None:
    paths = list(_paths(values))
    if key in paths:
        return
    *parents, leaf = key.split(".")
    if leaf in {"kind", "_target_"}:
        raise ConfigError(f"{key!r} cannot be set; choose an alternative by its name, as in policy.trunk=mlp")
    inside: Any = values
    for depth, part in enumerate(parents):
        if not isinstance(inside, Mapping) or not isinstance(inside.get(part), Mapping):
            parents = parents[:depth]
            break
        inside = inside[part]
    where = ".".join(parents)
    names = [name for name in dict.fromkeys([*inside, *(() if where else groups(verb))]) if name != "kind"]
    others = alternatives(root(verb), values, parents) if parents else {}
    having = [f"{where}={name}" for name, choice in others.items() if leaf in plain(choice)]
    if having:
        hint = f"{' and '.join(having)} would have it. "
    else:
        close = _closest(key, [*paths, *(group for group in groups(verb) if group not in paths)])
        hint = f"did you mean {' or '.join(repr(path) for path in close)}? " if close else ""
    raise ConfigError(f"unknown key {key!r}; {hint}keys of {where or verb}: {', '.join(names)}")


def _closest(key: str, paths: Sequence[str]) -> list[str]:
    """Up to two paths that may have been meant: the same last part, or else a similar spelling."""
    leaf = key.split(".")[-1]
    likeness = {path: difflib.SequenceMatcher(None, key, path).ratio() for path in paths}
    ranked = sorted(paths, key=lambda path: -likeness[path])
    close = [path for path in ranked if path.split(".")[-1] == leaf] or [
        p for p in ranked if likeness[p] > 0.6
    ]
    if not close:
        leaves = {path.split(".")[-1]: path for path in reversed(paths)}
        close = [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=2, cutoff=0.6)]
    best = likeness[close[0]] if close else 0.0
    return [path for path in close[:2] if likeness[path] > best - 0.1]


def _paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if key != "kind":
            yield prefix + key
            if isinstance(value, Mapping):
                yield from _paths(value, f"{prefix}{key}.")
