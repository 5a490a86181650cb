"""How a policy is made, as nodes of a saved composition."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.errors import ConfigError
from ..data.schema import to_mapping
from ..policies.policy import GenerativePolicy, Policy
from ..policies.remote.client import Client
from ..policies.remote.remote import RemotePolicy, ServedSampler
from ..rl.critic import Critic
from ..training.checkpoint import EMA, MANIFEST, MODEL, Source, checksum, read_checkpoint
from .composed import ComposedPolicy
from .critic_cost import CriticCost
from .ensemble import Ensemble
from .guided import GuidedPolicy
from .member import Member
from .node import Guided, Mixed, Named, Node, Reranked, Sampler, Served, Superposed, Trained
from .reranked import RerankedPolicy
from .superposed import SuperposedPolicy
from .weights import Observed


def described(policy: Policy, base: Path) -> Node:
    """How a policy is made; paths are relative to a folder.

    Raises:
        ConfigError: for what cannot be saved, with the reason.
    """
    match policy:
        case ComposedPolicy():
            if isinstance(policy.weights, Observed):
                raise ConfigError(
                    "weights that are a function of the observation cannot be saved; make the composition again in the "
                    "program that uses it"
                )
            return Mixed(
                members=_named(policy, base),
                weights=policy.weights,
                total=policy.total,
                sampler=_sampler(policy),
                fallback=policy.fallback,
                execute=policy.spec.execute,
            )
        case SuperposedPolicy():
            return Superposed(
                members=_named(policy, base),
                operator=policy.operator,
                temperature=policy.temperature,
                prior=policy.prior,
                sampler=_sampler(policy),
                fallback=policy.fallback,
            )
        case RerankedPolicy():
            return Reranked(
                policy=described(policy.policy, base),
                critic=_critic(policy.critic, base),
                samples=policy.samples,
                temperature=policy.temperature,
                fallback=policy.fallback,
            )
        case GuidedPolicy():
            if not isinstance(policy.cost, CriticCost):
                raise ConfigError(
                    f"the cost {policy.cost_name} is a function of Python and cannot be saved; guide again in the program "
                    "that uses it"
                )
            (member,) = _named(policy, base)
            return Guided(
                member=member,
                critic=_critic(policy.cost.critic, base),
                strength=policy.strength,
                sampler=_sampler(policy),
            )
        case RemotePolicy():
            return Served(
                connection=policy.config, fingerprint=identity_of(policy), sampler=_unserved_sampler(policy)
            )
        case Client():
            raise ConfigError(
                f"{type(policy).__name__} cannot be saved, since its server does not say what it serves; connect again in "
                "the program that uses it"
            )
        case _:
            return _trained(policy, policy.source, base, _own_sampler(policy))


def _named(policy: Ensemble, base: Path) -> tuple[Named, ...]:
    return tuple(
        Named(name=member.name, policy=described(member.policy, base), columns=_columns(member))
        for member in policy.asked
    )


def _columns(member: Member) -> tuple[int, ...] | None:
    columns = member.passage.window.columns
    return None if columns == tuple(range(member.width)) else columns


def _sampler(policy: GenerativePolicy) -> Any:
    """What a composition draws by.

    Raises:
        ConfigError: for one that only a member knows.
    """
    if not isinstance(policy.sampler, Sampler):
        raise ConfigError(
            f"{type(policy.sampler).__name__} belongs to one member alone and cannot be saved; compose with a sampler of "
            "everybody's, as in compose(..., sampler=FlowEuler())"
        )
    return policy.sampler


def _own_sampler(policy: Policy) -> Any:
    """A sampler that was put in place of the trained one."""
    if not isinstance(policy, GenerativePolicy) or policy.sampler == getattr(policy.config, "sampler", None):
        return None
    return _sampler(policy)


def _unserved_sampler(policy: RemotePolicy) -> Any:
    """A sampler that was put in place of the served one."""
    sampler, served = getattr(policy, "sampler", None), policy.service.greeting.sampler
    if sampler is None or isinstance(sampler, ServedSampler) or to_mapping(sampler) == served:
        return None
    assert isinstance(policy, GenerativePolicy)
    return _sampler(policy)


def _critic(critic: Critic, base: Path) -> Trained:
    return _trained(critic, critic.source, base, None)


def _trained(what: nn.Module, source: Source | None, base: Path, sampler: Any) -> Trained:
    if source is None:
        raise ConfigError(
            f"{type(what).__name__} was not loaded from a checkpoint, so that a file cannot name it; train it into a run "
            "folder and load that"
        )
    folder = source.folder.resolve()
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder} is gone since it was loaded; load it again from where it is now")
    if checksum(folder) != source.checksum:
        raise ConfigError(f"{folder} has changed since it was loaded; load it again")
    _check_unchanged(what, source, folder)
    return Trained(
        path=Path(os.path.relpath(folder, base)).as_posix(),
        checksum=source.checksum,
        ema=source.ema,
        sampler=sampler,
    )


def _check_unchanged(what: nn.Module, source: Source, folder: Path) -> None:
    """Raise for weights that are not the checkpoint's, which alone the file would name."""
    checkpoint, state = read_checkpoint(folder), what.state_dict()
    kept = checkpoint.tensors(EMA if source.ema and EMA in checkpoint.files else MODEL)
    for name, tensor in kept.items():
        now = state.get(name)
        if now is None or now.dtype != tensor.dtype or not torch.equal(now.cpu(), tensor):
            raise ConfigError(
                f"{name} of the {type(what).__name__} loaded from {folder} has changed since, and a file can only name "
                "the checkpoint; save the policy as a checkpoint of its own, and load that"
            )


def identity_of(policy: RemotePolicy) -> str:
    """SHA-256 of what a served policy reads and writes, and in which scales."""
    greeting = policy.service.greeting
    said = [greeting.spec.to_dict(), greeting.generative, greeting.relative, greeting.fingerprint]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
