"""`sensorimotor serve`: a policy for robots and programs elsewhere."""

import time

import torch

from ..composition.saved import load
from ..configs.verbs import ServeConfig
from ..policies.remote.client import find_token
from ..policies.remote.connection import is_loopback
from ..policies.remote.wire import require_serving
from ..real.server import HEALTH, PolicyServer, ServerConfig
from ..training.signals import stop_on_signal
from .console import Screen
from .names import shown_name

_POLL_S = 0.1


def run(config: ServeConfig, screen: Screen) -> int:
    """Serve until a signal comes."""
    require_serving()
    server_config = ServerConfig(
        host=config.host,
        port=config.port,
        token=find_token(config.token),
        certificate=config.certificate,
        key=config.key,
        clients=config.clients,
        waiting=config.waiting,
    )
    torch.set_num_threads(config.threads)
    policy = load(config.checkpoint, device=config.device)
    if not is_loopback(config.host) and config.certificate is None:
        screen.warn("without certificate= anybody on the way can read the token and change the actions")
    server = PolicyServer(policy, server_config, name=shown_name(policy))
    with stop_on_signal() as stopped, server:
        screen.say(f"serving {shown_name(policy)} at {server.url}")
        screen.note(f"health: GET {HEALTH}; Ctrl-C finishes the chunk under way and ends")
        while not stopped() and server.alive:
            time.sleep(_POLL_S)
    screen.say("stopped")
    return 0 if stopped() else 1
