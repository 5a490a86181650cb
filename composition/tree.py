"""A composition as text: its members with weights, parameters, and how often they were asked and failed."""

from typing import Any, Protocol, runtime_checkable

from ..policies.policy import Policy

_LINE, _GAP = "│  ", "   "


@runtime_checkable
class Branch(Protocol):
    """A policy made of others."""

    def heading(self) -> str:
        """What it is."""
        ...

    def share(self, number: int) -> str:
        """How much a member counts."""
        ...


def tree(policy: Branch) -> str:
    """Lines of a composition; members that are compositions are branches."""
    sampler = getattr(policy, "sampler", None)
    return "\n".join(_lines(policy, "" if sampler is None else f", drawn by {_call(sampler)}"))


def _lines(policy: Any, drawn: str = "") -> list[str]:
    """A composition, and how chunks are drawn, which is for the outermost one to say."""
    lines = [f"{policy.heading()}{drawn}, {_count(policy)} parameters"]
    rows = [*_members(policy), *_unused(policy)]
    names = max((len(name) for _, name, _, _ in rows), default=0)
    shares = max((len(share) for share, _, _, _ in rows), default=0)
    for place, (share, name, member, asked) in enumerate(rows):
        last = place + 1 == len(rows)
        stem, rest = ("└─ ", _GAP) if last else ("├─ ", _LINE)
        head = f"{share:>{shares}}  {name:<{names}}" if shares else f"{name:<{names}}"
        if isinstance(member, Branch):
            inner = _lines(member)
            lines.append(f"{stem}{head}  {inner[0]}{asked}")
            lines += [rest + line for line in inner[1:]]
        else:
            lines.append(f"{stem}{head}  {type(member).__name__}, {_count(member)} parameters{asked}")
    return lines


def _members(policy: Any) -> list[tuple[str, str, Policy, str]]:
    return [
        (policy.share(i), member.name, member.policy, _history(policy, member.name))
        for i, member in enumerate(policy.asked)
    ]


def _history(policy: Any, name: str) -> str:
    failed = policy.faults[name]
    asked = f", asked {policy.ledger.calls(name):,} times"
    return asked if not failed else f"{asked}, failed in {failed:,} chunk{'s' if failed > 1 else ''}"


def _unused(policy: Any) -> list[tuple[str, str, Policy, str]]:
    return [("0", part.name, part.policy, ", never asked") for part in getattr(policy, "unused", ())]


def _call(sampler: Any) -> str:
    steps = getattr(sampler, "steps", None)
    return type(sampler).__name__ + ("" if steps is None else f"({steps})")


def _count(policy: Policy) -> str:
    number = sum(p.numel() for p in policy.parameters())
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
