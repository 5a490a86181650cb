"""Learning from a trained policy: what the teacher and its student must agree on, and where the teacher is kept."""

from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError, NormalizerError, SpecError, TrainingError
from ..data.normalizer import same_affine
from ..data.spec import Spec
from ..data.windows import Batch
from .network import Features, NetworkPolicy
from .policy import GenerativePolicy, Policy

HOW = "name the folder of a trained run with policy.teacher=runs/... (in Python: learn_from(policy))"


class Student(NetworkPolicy):
    """A policy that is trained against another one.

    The teacher is no part of it: neither of its parameters nor of its checkpoints. A trained student is loaded and
    sampled without one.
    """

    _teacher: tuple[GenerativePolicy, ...] = ()  # in a tuple, so that torch does not take it for a part

    @property
    def teacher(self) -> GenerativePolicy:
        """The teacher, on the student's device.

        Raises:
            TrainingError: if none was given.
        """
        if not self._teacher:
            raise TrainingError(f"{type(self).__name__} learns from a trained policy; {HOW}")
        (teacher,) = self._teacher
        return teacher if teacher.device == self.device else teacher.to(self.device)

    def learn_from(self, teacher: Policy) -> None:
        """Take a teacher, frozen, and begin with its weights wherever name and shape are the same.

        Raises:
            ConfigError: if it cannot be asked at any noise level, or acts relative to something else.
            SpecError: if it reads or predicts something else.
            NormalizerError: if it scales actions differently.
        """
        if not isinstance(teacher, GenerativePolicy):
            raise ConfigError(
                f"{type(teacher).__name__} cannot teach: it has no answer at a noise level; "
                "give a diffusion or flow policy"
            )
        check_same_spec(self.spec, teacher.spec)
        check_relative(self.relative, teacher)
        if not same_affine([self.normalizer, teacher.normalizer]):
            raise NormalizerError(
                "student and teacher scale actions differently; build the student with the teacher's normalizer"
            )
        copy_matching(self, teacher)
        self._teacher = (teacher.eval().requires_grad_(False),)

    def lesson(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Features, Any]:
        """Normalised chunks, the student's condition and the teacher's; both see observations disturbed alike."""
        seen = self._disturb(batch.observation, generator)
        with torch.no_grad():
            told = self.teacher.encode(seen)
        action, condition = self._pair(seen, batch, generator)
        return action, condition, told if self.draws == 1 else told.repeat(self.draws)


def check_relative(mine: str | None, teacher: Policy) -> None:
    """Raise unless the teacher's actions are offsets from the same observation as the student's.

    Raises:
        ConfigError: naming both.
    """
    if mine != (theirs := getattr(teacher, "relative", None)):
        raise ConfigError(
            f"relative differs: student {mine!r}, teacher {theirs!r}; "
            f"set policy.relative={'null' if theirs is None else theirs}"
        )


def check_same_spec(student: Spec, teacher: Spec) -> None:
    """Raise unless both read and predict the same.

    Raises:
        SpecError: naming the first field that differs and both values.
    """
    if list(student.observation) != list(teacher.observation):
        raise SpecError(
            f"observation differs: student {list(student.observation)}, teacher {list(teacher.observation)}; "
            "set policy.chunk.observation"
        )
    fields = {
        f"observation {key!r}": (field, teacher.observation[key])
        for key, field in student.observation.items()
    }
    fields["action"] = (student.action, teacher.action)
    for what, (mine, theirs) in fields.items():
        if mine != theirs:
            raise SpecError(f"{what} differs: student {mine}, teacher {theirs}; train both on the same data")
    for what in ("control_hz", "observation_steps", "horizon", "execute", "start"):
        if (mine := getattr(student, what)) != (theirs := getattr(teacher, what)):
            remedy = (
                "train both on the same data" if what == "control_hz" else f"set policy.chunk.{what}={theirs}"
            )
            raise SpecError(f"{what} differs: student {mine}, teacher {theirs}; {remedy}")


def copy_matching(student: nn.Module, teacher: nn.Module) -> None:
    """Copy the teacher's parameters to the student's of the same name and shape."""
    theirs = dict(teacher.named_parameters())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name in theirs and theirs[name].shape == parameter.shape:
                parameter.copy_(theirs[name])
