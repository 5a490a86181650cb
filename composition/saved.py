"""Compositions as small files: members by checkpoint and checksum, and what is made of them.

`composition.json` holds no weights. A checkpoint is named by its path, relative to the file, and by the checksum of its
manifest; one that was moved is found by its checksum beside the file, one that was changed is refused. Functions and costs
written in Python cannot be saved.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.errors import CheckpointError, ConfigError
from ..data.files import write_json
from ..data.schema import from_mapping, to_mapping
from ..policies.factory import COMPOSITION, is_address
from ..policies.factory import load as load_trained
from ..policies.policy import GenerativePolicy, Policy
from ..policies.remote.client import find_token
from ..policies.remote.connection import host_of, is_loopback
from ..policies.remote.remote import connect
from ..rl.critic import Critic
from ..training.checkpoint import MANIFEST, checksum
from .composed import compose
from .critic_cost import guide_by_critic
from .described import described, identity_of
from .meeting import Part
from .node import Guided, Mixed, Named, Node, Reranked, Saved, Served, Superposed, Trained, check_types
from .reranked import rerank
from .superposed import superpose

FILE = COMPOSITION
_VERSION = 1
_PLACES = (MANIFEST, f"*/{MANIFEST}", f"checkpoints/*/{MANIFEST}", f"*/checkpoints/*/{MANIFEST}")


def save(policy: Policy, path: Path | str) -> Path:
    """Write how a policy is made of others, for `load`.

    Args:
        policy: a composition, superposition, reranked or guided policy of members that were loaded or are served.
        path: a folder, which gets `composition.json`, or a file ending in .json.

    Returns:
        The file.

    Raises:
        ConfigError: for what cannot be saved, with the reason.
    """
    path = Path(path)
    file = path if path.suffix == ".json" else path / FILE
    saved = Saved(version=_VERSION, policy=described(policy, file.resolve().parent))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, to_mapping(saved))
    return file


def load(
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    ema: bool = True,
    token: str | None = None,
    trust: bool = False,
    look_in: Sequence[Path | str] = (),
) -> Policy:
    """Open any policy: a run, a checkpoint, a policy server, or a saved composition.

    Args:
        path: what `policies.factory.load` takes, or a `composition.json` or its folder.
        device: where the policy is put.
        ema: of a run or checkpoint: use the averaged weights if there are some.
        token: for policy servers, those that a composition names too; the environment variable SENSORIMOTOR_TOKEN if
            not given, which servers of other machines that a composition names are not shown.
        trust: take members that have changed since the composition was saved.
        look_in: folders in which members that were moved are looked for by checksum, besides the composition's own and
            the one that holds it.

    Raises:
        CheckpointError: for a member that is absent or has changed, naming it.
        ConfigError: for a file of another version, or one that names something unknown.
    """
    file = composition_file(path)
    if file is None:
        return load_trained(path, device=device, ema=ema, token=token)
    saved = _read(file)
    base = file.resolve().parent
    places = (base, base.parent, *map(Path, look_in))
    return _Opening(base, places, device, token, trust).policy(saved.policy).to(device).eval()


def composition_file(path: Path | str) -> Path | None:
    """The file of a saved composition that a path means, or None if it means something else."""
    if is_address(path):
        return None
    path = Path(path)
    if path.is_dir() and (path / FILE).is_file():
        return path / FILE
    return path if path.suffix == ".json" and path.is_file() else None


def _read(file: Path) -> Saved:
    try:
        values = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no JSON: {error}; save the composition again") from error
    if not isinstance(values, dict) or values.get("version") != _VERSION:
        found = values.get("version") if isinstance(values, dict) else values
        raise ConfigError(
            f"{file} is of version {found!r}, and {_VERSION} is read here; save the composition again"
        )
    try:
        saved = from_mapping(Saved, values, where=str(file))
        check_types(saved, str(file))
    except RecursionError as error:
        raise ConfigError(f"{file} nests too deeply; save the composition again") from error
    return saved


@dataclass(frozen=True)
class _Opening:
    """Makes policies of nodes.

    Attributes:
        base: folder of the file.
        places: where members that were moved are looked for.
        device: where members are put.
        token: for policy servers.
        trust: take members that have changed.
    """

    base: Path
    places: tuple[Path, ...]
    device: torch.device | str
    token: str | None
    trust: bool

    def policy(self, node: Node) -> Policy:
        match node:
            case Trained():
                return self.trained(node)
            case Served():
                return self.served(node)
            case Mixed():
                return compose(
                    self.members(node.members),
                    node.weights,
                    total=node.total,
                    sampler=node.sampler,
                    fallback=node.fallback,
                    execute=node.execute,
                )
            case Superposed():
                return superpose(
                    self.members(node.members),
                    node.operator,
                    temperature=node.temperature,
                    prior=node.prior,
                    sampler=node.sampler,
                    fallback=node.fallback,
                )
            case Reranked():
                return rerank(
                    self.policy(node.policy),
                    self.critic(node.critic),
                    samples=node.samples,
                    temperature=node.temperature,
                    fallback=node.fallback,
                )
            case Guided():
                (part,) = self.members((node.member,))
                return guide_by_critic(
                    part, self.critic(node.critic), strength=node.strength, sampler=node.sampler
                )

    def members(self, nodes: tuple[Named, ...]) -> list[Part]:
        return [Part(self.policy(node.policy), node.name, node.columns) for node in nodes]

    def trained(self, node: Trained) -> Policy:
        policy = load_trained(self.find(node), device=self.device, ema=node.ema)
        if node.sampler is not None and isinstance(policy, GenerativePolicy):
            policy.sampler = node.sampler
        return policy

    def critic(self, node: Trained) -> Critic:
        from ..rl.factory import load_critic

        return load_critic(self.find(node), device=self.device)

    def served(self, node: Served) -> Policy:
        url = node.connection.url
        if self.token is None and find_token(None) is not None and not is_loopback(host_of(url)):
            raise ConfigError(
                f"this composition names a policy server at {url}, and files of strangers may name a stranger's: pass token= "
                "to say that a token may be sent there"
            )
        policy = connect(node.connection, token=self.token)
        found = identity_of(policy)
        if found != node.fingerprint and not self.trust:
            policy.close()
            raise CheckpointError(
                f"the policy at {url} is not the one this composition was saved with: the fingerprint of "
                f"its spec and scales is {found[:12]}, not {node.fingerprint[:12]}; compose anew, or load with trust=True"
            )
        if node.sampler is not None and isinstance(policy, GenerativePolicy):
            policy.sampler = node.sampler
        return policy

    def find(self, node: Trained) -> Path:
        """The folder of a checkpoint, where it was or where it was moved to."""
        there = self.base / node.path
        found = checksum(there) if (there / MANIFEST).is_file() else None
        if found == node.checksum or (found is not None and self.trust):
            return there
        elsewhere = next(self.same(node.checksum), None)
        if elsewhere is not None:
            return elsewhere
        if found is not None:
            raise CheckpointError(
                f"the checkpoint at {there} has changed since the composition was saved: its checksum is {found[:12]}, not "
                f"{node.checksum[:12]}; compose anew, or load with trust=True"
            )
        raise CheckpointError(
            f"no checkpoint at {there}, and none with checksum {node.checksum[:12]} in "
            f"{', '.join(str(place) for place in self.places)}; put it there, or name the folder that holds it: "
            "load(..., look_in=[...])"
        )

    def same(self, wanted: str) -> Iterator[Path]:
        """Checkpoints with this checksum, in the places and in runs there."""
        for place in self.places:
            for pattern in _PLACES:
                for manifest in sorted(place.glob(pattern)):
                    if checksum(manifest.parent) == wanted:
                        yield manifest.parent
