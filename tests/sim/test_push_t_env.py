"""The Gymnasium environment: Gymnasium's own checks, and equality with the batch."""

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sensorimotor.data.errors import ConfigError
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds
from sensorimotor.sim.push_t_env import PushT


@pytest.mark.parametrize("images", [False, True])
def test_gymnasium_accepts_it(images: bool) -> None:
    env = PushT(PushTConfig(images=images, image_size=16), render_mode="rgb_array", size=32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Box observation space m.* value is.*infinity.*")
        warnings.filterwarnings("ignore", message=".*not within the observation space.*")
        check_env(env, skip_render_check=False)
    env.close()


def test_it_is_registered() -> None:
    env = gymnasium.make("sensorimotor.sim.push_t_env:sensorimotor/PushT-v0")
    assert isinstance(env.unwrapped, PushT)
    assert env.unwrapped.spec is not None


def test_an_episode_equals_the_batch_bit_for_bit() -> None:
    seeds, config = [5, 6, 7], PushTConfig(threads=2, max_steps=30)
    batch, envs = PushTWorlds(config, worlds=3), [PushT(config) for _ in seeds]
    seen = batch.reset(seeds)
    for world, (env, seed) in enumerate(zip(envs, seeds, strict=True)):
        for key, value in env.reset(seed=seed)[0].items():
            np.testing.assert_array_equal(value, seen[key][world])
    generator = np.random.default_rng(0)
    for _ in range(30):
        action = np.clip(batch.physics.qpos[:, :2] + generator.normal(0, 0.04, (3, 2)), -0.25, 0.25)
        action = action.astype(np.float32)
        step = batch.step(action)
        for world, env in enumerate(envs):
            observation, reward, terminated, truncated, info = env.step(action[world])
            for key, value in observation.items():
                np.testing.assert_array_equal(value, step.observation[key][world])
            assert reward == step.reward[world]
            assert (terminated, truncated) == (step.terminated[world], step.truncated[world])
            assert info == {"success": bool(step.success[world]), "coverage": step.score[world]}
    assert truncated


def test_resets_without_a_seed_differ_and_follow_the_last_seed() -> None:
    def starts() -> list[np.ndarray]:
        env = PushT()
        env.reset(seed=11)
        return [env.reset()[0]["state"] for _ in range(2)]

    first, second = starts()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(starts(), [first, second])


def test_a_reset_clears_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo appends its warnings to a file in the working folder
    env = PushT()
    env.reset(seed=0)
    env.data.qvel[0] = 1e12
    with pytest.raises(RuntimeError, match="not finite"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    env.step(np.zeros(2))
    assert np.isfinite(env.data.qpos).all()


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="human"):
        PushT(render_mode="human")
