"""`sensorimotor rerank`: a critic picks among a trained policy's candidates; measured beside the policy alone, and saved."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ..composition.reranked import rerank
from ..composition.saved import load, save
from ..configs.composing import RerankConfig
from ..configs.train import EvaluationConfig
from ..configs.typed import plain
from ..data.errors import ConfigError
from ..data.intervals import paired_interval
from ..policies.policy import GenerativePolicy
from ..rl.factory import load_critic
from ..training.run import write_config
from .console import Screen
from .judging import judge
from .members import task_of
from .names import milliseconds, shown_name


def run(config: RerankConfig, screen: Screen) -> int:
    """Rerank, evaluate beside the policy alone on the same starts, save."""
    now = datetime.now()
    folder = Path(config.out) if config.out else Path("runs") / f"reranked-{now:%Y%m%d-%H%M%S}"
    task = task_of(config.task, [config.policy, config.critic])
    base, critic = load(config.policy), load_critic(config.critic)
    if config.sampler is not None:
        if not isinstance(base, GenerativePolicy):
            raise ConfigError(f"sampler= is for policies that sample; {type(base).__name__} does not")
        base.sampler = config.sampler
    policy = rerank(base, critic, samples=config.samples, temperature=config.temperature)
    screen.note(f"out         {folder}")
    screen.note(f"policy      {shown_name(base)}, {config.policy}")
    screen.note(f"critic      {type(critic).__name__}, {config.critic}; scores {critic.spec.horizon} actions")
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, plain(replace(config, task=task)))
    save(policy, folder)
    evaluation = EvaluationConfig(
        episodes=config.episodes, seed=config.seed, video=config.video, worlds=config.worlds
    )
    name = f"best of {config.samples}" if config.temperature == 0 else f"one of {config.samples}"
    found = judge(
        policy, name, task, evaluation, folder, screen, fitted={}, now=now, parts={"policy alone": base}
    )
    own, alone = (
        [float(row["success"]) for row in result["per_episode"]]
        for result in (found["policy"], found["baselines"][0])
    )
    gain = paired_interval(own, alone)
    screen.say(
        f"difference {100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}], the same starts"
    )
    slow, fast = (result["latency_ms"]["median"] for result in (found["policy"], found["baselines"][0]))
    screen.say(f"{milliseconds(slow)} per chunk, {slow / fast:.2f} times the policy alone")
    screen.say(policy.spread().verdict())
    screen.say(f"written: {folder}")
    screen.say(f"next: sensorimotor serve checkpoint={folder}")
    return 0
