"""The command `sensorimotor <verb> [key=value ...]`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished, but something had to be left out. A failure is one message;
set SENSORIMOTOR_DEBUG=1 to see where it came from.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from . import __version__
from .commands.help import VERBS, overview, verb_help
from .data.errors import ConfigError, SensorimotorError
from .data.schema import nearest

DONE, FAILED, WRONG_USAGE, LOSS = 0, 1, 2, 3
_HELP = {"-h", "--help", "help"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output, `head` perhaps, has gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (SensorimotorError, OSError) as error:
        if os.environ.get("SENSORIMOTOR_DEBUG"):
            raise
        print(f"error: {_one_message(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return FAILED


def _dispatch(words: list[str]) -> int:
    if not words:
        _show(overview(__version__))
        return WRONG_USAGE
    verb, rest = words[0], words[1:]
    if verb in {"-V", "--version"}:
        return _show(f"sensorimotor {__version__}")
    if verb in _HELP:
        return _show(verb_help(rest[0]) if rest and rest[0] in VERBS else overview(__version__))
    if verb not in VERBS:
        return _refuse(f"unknown verb {verb!r}; {nearest(verb, VERBS)}", "sensorimotor --help")
    if _HELP & set(rest):
        return _show(verb_help(verb))
    return _run(verb, rest)


def _run(verb: str, words: list[str]) -> int:
    if sys.platform == "linux":  # MuJoCo chooses its graphics library at import; EGL needs no screen
        os.environ.setdefault("MUJOCO_GL", "egl")
    from .configs.compose import compose, show

    wanted = [word for word in words if word != "--config"]
    try:
        if len(wanted) < len(words):
            return _show(show(verb, wanted))
        config = compose(verb, wanted)
    except ConfigError as error:
        if os.environ.get("SENSORIMOTOR_DEBUG"):
            raise
        return _refuse(str(error), f"sensorimotor {verb} --help")
    from .commands.console import Screen, shown_warnings

    screen = Screen()
    with shown_warnings(screen):
        return import_module(f".commands.{verb}", __package__).run(config, screen)


def _show(text: str) -> int:
    print(text)
    return DONE


def _refuse(problem: str, help_command: str) -> int:
    print(f"error: {problem}\nsee: {help_command}", file=sys.stderr)
    return WRONG_USAGE


def _one_message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
