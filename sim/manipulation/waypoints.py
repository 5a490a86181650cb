"""An expert for `lift`, `can` and `square`: the hand goes from waypoint to waypoint, each seen from the object.

Waypoints are computed anew at every step, so that the expert corrects what goes wrong, and begins again when it has
lost the object. Every episode has its own pace, heights and detours, and its own slowly varying noise, so that the
demonstrations differ also where their starts are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.errors import ConfigError
from .poses import about_z, inverse, multiply, rotate, rotation_vector, yaw
from .scene import REACH, TURN
from .task import BIN, PEG, RobosuiteWorlds

Array = NDArray[Any]

_DOWN = np.array([1.0, 0.0, 0.0, 0.0])  # the hand points at the table, its fingers open along y
_OPEN, _CLOSED = -1.0, 1.0
_HANDLE = np.array([0.054, 0.0, 0.0])  # m, the middle of the nut's handle in its own frame
_LOST = 0.09  # m between fingertips and object
_PATIENCE = 80  # control steps on the way to one waypoint, twice that with the object in the hand

Place = Callable[[Array, Array], tuple[Array, float]]  # hand (7), object (7) -> position (3) m, yaw rad


@dataclass(frozen=True, kw_only=True)
class WaypointsConfig:
    """The expert.

    Attributes:
        gain: share of the way to a waypoint that an action asks for.
        speed: slowest and fastest pace of an episode, as a share of the largest action.
        spread: standard deviation of the waypoints on free ways, metres.
        noise: standard deviation of the noise on actions, as a share of the largest.
        memory: share of the noise that is kept from one step to the next.
    """

    gain: float = 1.0
    speed: tuple[float, float] = (0.6, 1.0)
    spread: float = 0.02
    noise: float = 0.1
    memory: float = 0.8

    def __post_init__(self) -> None:
        slow, fast = self.speed
        if not 0 < slow <= fast <= 1 or not 0 < self.gain <= 2:
            raise ConfigError(
                f"speed must satisfy 0 < slowest <= fastest <= 1 and gain lie in (0, 2], got {self.speed}, {self.gain}"
            )
        if not 0 <= self.noise <= 1 or not 0 <= self.memory < 1 or not 0 <= self.spread <= 0.05:
            raise ConfigError(
                "noise must lie in [0, 1], memory in [0, 1) and spread in [0, 0.05] m, "
                f"got {self.noise}, {self.memory}, {self.spread}"
            )


@dataclass(frozen=True)
class Waypoint:
    """Where the hand should be, and when it may go on.

    Attributes:
        place: where the hand should be, and how it should be turned.
        grip: what the fingers do.
        near: m within which it is reached.
        wait: control steps to stay once it is reached.
        holding: whether the object must be in the hand.
        turned: rad within which it is reached.
        calm: what is left of the noise.
    """

    place: Place
    grip: float
    near: float
    wait: int = 0
    holding: bool = False
    turned: float = 0.2
    calm: float = 1.0


class Waypoints:
    """The expert in world 0 of a task."""

    def __init__(self, config: WaypointsConfig, worlds: RobosuiteWorlds) -> None:
        """Act in these worlds; `reset` before the first step."""
        self.config, self.worlds = config, worlds
        self._generator = np.random.default_rng(0)
        self._route: list[Waypoint] = []
        self._speed, self._at, self._waited, self._under_way = 1.0, 0, 0, 0
        self._noise = np.zeros(6)

    def reset(self, generator: np.random.Generator) -> None:
        """Begin an episode from the worlds' present state."""
        self._generator = generator
        self._speed = generator.uniform(*self.config.speed)
        self._route = route(self.worlds.config.task, generator, self.config.spread)
        self._at = self._waited = self._under_way = 0
        self._noise[:] = 0.0

    def act(self) -> Array:
        """The next action (7,), exactly as float32 holds it."""
        hand, thing = (pose[0] for pose in self.worlds.poses())
        self._under_way += 1
        holding = self._route[self._at].holding
        lost = holding and np.linalg.norm(hand[:3] - thing[:3]) > _LOST
        if lost or self._under_way > (2 if holding else 1) * _PATIENCE:
            self._at = self._waited = self._under_way = 0
        waypoint = self._route[self._at]
        place, angle = waypoint.place(hand, thing)
        way = place - hand[:3]
        turn = rotation_vector(multiply(multiply(about_z(angle), _DOWN), inverse(hand[3:])))
        if (np.linalg.norm(way) < waypoint.near and np.linalg.norm(turn) < waypoint.turned) or self._waited:
            self._waited += 1
        if self._waited > waypoint.wait and self._at + 1 < len(self._route):
            self._at, self._waited, self._under_way = self._at + 1, 0, 0
        moves = self.config.gain * np.concatenate([_limited(way / REACH), _limited(turn / TURN)])
        action = np.append(
            np.clip(self._speed * moves + waypoint.calm * self._disturbance(), -1.0, 1.0), waypoint.grip
        )
        return action.astype(np.float32)

    def close(self) -> None:
        """Nothing to release: the worlds belong to whoever made them."""

    def _disturbance(self) -> Array:
        kept = self.config.memory
        fresh = self._generator.standard_normal(6) * np.repeat([1.0, 0.3], 3)
        self._noise = kept * self._noise + np.sqrt(1 - kept**2) * self.config.noise * fresh
        return self._noise


def _limited(vector: Array) -> Array:
    """The vector, shortened to length 1 where it is longer."""
    return vector / max(1.0, float(np.linalg.norm(vector)))


def route(task: str, generator: np.random.Generator, spread: float) -> list[Waypoint]:
    """The waypoints of one episode."""
    high = np.array([0.0, 0.0, generator.uniform(0.08, 0.14)])
    aside = generator.normal(0.0, spread, 3)
    aside[2] = abs(aside[2])
    match task:
        case "lift":
            return _lift_route(generator, high, aside)
        case "can":
            return _can_route(generator, high, aside)
        case _:
            return _square_route(generator, high, aside)


def _lift_route(generator: np.random.Generator, high: Array, aside: Array) -> list[Waypoint]:
    grasp = np.array([0.0, 0.0, generator.uniform(-0.008, 0.005)])

    def at(offset: Array) -> Place:
        return lambda _, o: (o[:3] + offset, _aligned(o, 4))

    return [
        Waypoint(at(high + aside), _OPEN, near=0.03),
        Waypoint(at(grasp), _OPEN, near=0.008, turned=0.1, calm=0.5),
        Waypoint(at(grasp), _CLOSED, near=0.02, wait=7, calm=0.5),
        Waypoint(at(high), _CLOSED, near=0.02, holding=True),
    ]


def _can_route(generator: np.random.Generator, high: Array, aside: Array) -> list[Waypoint]:
    grasp = np.array([0.0, 0.0, generator.uniform(0.005, 0.03)])
    angle = generator.uniform(-0.4, 0.4)
    # The bin's middle is at the end of the arm's reach.
    drop = np.array([*BIN[:2] - 0.045, 0.0]) + grasp + generator.uniform(-0.015, 0.015, 3)
    carry, low = generator.uniform(1.05, 1.1), generator.uniform(0.88, 0.89)

    def at(offset: Array) -> Place:
        return lambda _, o: (o[:3] + offset, angle)

    def into(height: float) -> Place:
        return lambda *_: (drop + np.array([0.0, 0.0, height]), angle)

    def lifted(_: Array, o: Array) -> tuple[Array, float]:
        return np.array([o[0], o[1], carry]) + grasp, angle

    return [
        Waypoint(at(1.2 * high + aside), _OPEN, near=0.03),
        Waypoint(at(grasp), _OPEN, near=0.01, calm=0.5),
        Waypoint(at(grasp), _CLOSED, near=0.03, wait=7, calm=0.5),
        Waypoint(lifted, _CLOSED, near=0.06, holding=True),
        Waypoint(into(carry), _CLOSED, near=0.05, holding=True),
        Waypoint(into(low), _CLOSED, near=0.03, holding=True, calm=0.5),
        Waypoint(into(low), _OPEN, near=0.06, wait=4),
        Waypoint(into(carry), _OPEN, near=0.02),
    ]


def _square_route(generator: np.random.Generator, high: Array, aside: Array) -> list[Waypoint]:
    grip = _HANDLE + np.array([generator.uniform(0.004, 0.014), 0.0, 0.0])  # clear of the frame
    carry = generator.uniform(1.0, 1.04)

    def handle(_: Array, o: Array) -> tuple[Array, float]:
        return o[:3] + rotate(o[3:], grip), _aligned(o, 2)

    def above(h: Array, o: Array) -> tuple[Array, float]:
        place, angle = handle(h, o)
        return place + high + aside, angle

    def lifted(h: Array, _: Array) -> tuple[Array, float]:
        return np.array([h[0], h[1], carry]), _own_yaw(h)

    def onto(height: float) -> Place:
        def place(h: Array, o: Array) -> tuple[Array, float]:
            """Where the hand is when the nut, as it lies in the hand, is square to the peg and around it."""
            arm = h[:3] - o[:3]
            turn = _to_square(float(yaw(o[3:])), _own_yaw(h), arm)
            return np.array([*PEG, height]) + rotate(about_z(turn), arm), _own_yaw(h) + turn

        return place

    return [
        Waypoint(above, _OPEN, near=0.03),
        Waypoint(handle, _OPEN, near=0.008, turned=0.1, calm=0.3),
        Waypoint(handle, _CLOSED, near=0.03, wait=8, calm=0.3),
        Waypoint(lifted, _CLOSED, near=0.03, holding=True),
        Waypoint(onto(carry), _CLOSED, near=0.006, turned=0.06, wait=1, holding=True, calm=0.3),
        Waypoint(onto(0.92), _CLOSED, near=0.02, turned=0.1, holding=True, calm=0.3),
        Waypoint(onto(0.83), _CLOSED, near=0.01, holding=True, calm=0.3),
        Waypoint(onto(0.83), _OPEN, near=0.05, wait=5),
    ]


def _own_yaw(hand: Array) -> float:
    """How far the hand is turned from the pose of the start."""
    return float(yaw(multiply(hand[3:], _DOWN)))


def _aligned(thing: Array, faces: int) -> float:
    """The yaw closest to 0 at which the fingers close on one of an object's faces, which repeat `faces` times a turn."""
    period = 2 * np.pi / faces
    return float((yaw(thing[3:]) + period / 2) % period - period / 2)


def _to_square(nut: float, hand: float, arm: Array) -> float:
    """How far to turn a nut in the hand so that it is square to the axes.

    The least turn that leaves the wrist free and does not put the hand, `arm` from the nut, beyond the arm's reach.
    """
    least = (-nut + np.pi / 4) % (np.pi / 2) - np.pi / 4

    def cost(turn: float) -> float:
        beyond = rotate(about_z(turn), arm)[0]
        return abs(turn) + 10 * max(0.0, abs(hand + turn) - 2.0) + 80 * max(0.0, float(beyond) - 0.02)

    return float(min((least + k * np.pi / 2 for k in (-2, -1, 0, 1, 2)), key=cost))
