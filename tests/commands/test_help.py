"""Help that is true: its examples compose, its keys exist, its option names are the registered ones."""

import shlex

import pytest

from sensorimotor.commands.help import VERBS
from sensorimotor.configs.compose import compose, tree
from sensorimotor.configs.store import groups, register
from sensorimotor.sim.manipulation.task import RobosuiteConfig
from sensorimotor.sim.push_t import PushTConfig
from sensorimotor.sim.tasks import TASKS

EXAMPLES = [(verb, command) for verb, help in VERBS.items() for command, _ in help.examples]


@pytest.mark.parametrize(("verb", "command"), EXAMPLES)
def test_every_example_composes(verb: str, command: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(command)
    assert name == verb
    assert type(compose(verb, words)).__name__.lower().startswith(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_every_listed_key_exists(verb: str) -> None:
    known = tree(verb, [])
    for key in VERBS[verb].keys:
        inside = known
        for part in key.split("."):
            if key not in groups(verb):
                assert part in inside, key
                inside = inside[part]


@pytest.mark.parametrize("verb", VERBS)
def test_every_top_level_key_that_is_no_tree_is_listed(verb: str) -> None:
    known = {key for key, value in tree(verb, []).items() if not isinstance(value, dict)}
    assert known - {"name", "worlds"} <= set(VERBS[verb].keys)


@pytest.mark.parametrize(
    ("verb", "group"),
    [("train", "policy"), ("train", "experiment"), ("train", "task"), ("eval", "task"), ("eval", "sampler")],
)
def test_every_option_is_listed(verb: str, group: str) -> None:
    register(verb)
    for option in groups(verb)[group]:
        assert option in VERBS[verb].keys[group]


def test_every_task_with_an_expert_is_listed() -> None:
    for name, task in TASKS.items():
        known = isinstance(task, PushTConfig | RobosuiteConfig)
        assert (name in VERBS["demos"].keys["task"].replace(",", "").split()) == known
