"""What `--help` prints. Nothing here imports a verb, so help is there at once."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """The help of one verb.

    Attributes:
        summary: one line for the overview.
        usage: what follows the verb.
        about: a paragraph.
        keys: the keys people set most, and what they mean.
        examples: (command without `sensorimotor`, what it does).
    """

    summary: str
    usage: str
    about: str
    keys: Mapping[str, str]
    examples: tuple[tuple[str, str], ...]


_DATASETS = "robomimic HDF5, Diffusion Policy Zarr (folder or zip), LeRobotDataset v2.1 and v3.0, npz, folder"
_EVALUATION_KEYS = {
    "episodes": "number of unseen starts (50)",
    "seed": "first start; 100000 and up to report, 200000 and up to choose (100000)",
    "video": "episodes recorded as MP4 (3)",
    "baselines": "hold_still,random,nearest,regressor: which to run on the same starts",
    "execution": "receding_horizon, temporal_ensemble, synchronous, naive_async, hard_overwrite, real_time_chunking or "
    "temporal_merge (receding_horizon)",
    "delay": "control steps until a plan arrives, for the last five (0)",
}

VERBS: Mapping[str, Verb] = {
    "train": Verb(
        summary="train a policy on demonstrations, then evaluate it; or a critic",
        usage="[experiment=NAME] [key=value ...]",
        about=(
            "Checks the data, holds some episodes out, trains, evaluates beside the baselines, and leaves everything in "
            "one run folder. Ctrl-C or SIGTERM saves first; resume=true goes on exactly where it stopped."
        ),
        keys={
            "experiment": "push_t, push_t_pixels, push_t_language, push_t_human, push_t_human_published, lift, can, square, "
            "recordings (push_t)",
            "policy": "flow, diffusion, flow_transformer, diffusion_transformer, flow_mlp, flow_points, flow_pixels, "
            "diffusion_points, diffusion_pixels, flow_arm, flow_arm_pixels, diffusion_arm, ebt, ebt_points, streaming, streaming_points, vla_tiny, "
            "vla_push_t, regressor, nearest, diffusion_unet_published, diffusion_transformer_published, ebt_published, robomimic_bc, "
            "robomimic_bc_rnn_gmm, robomimic_bc_transformer; with policy.teacher=runs/... also consistency, "
            "consistency_points, reflow, reflow_points (as the experiment says)",
            "critic": "cal_ql, iql, cal_ql_points, iql_points, cal_ql_language, iql_language: train a critic in place of a policy, "
            "on the same data; `points` with push_t's features, `language` with push_t_language's; then critic.<key>, as critic.labels.source=rewards, "
            "critic.chunk.horizon=8 (none)",
            "policy.trunk": "unet, transformer, mlp; then policy.trunk.<key>",
            "training": "preset: as the policy learns well; quick: 5,000 updates; smoke: a minute to see that everything "
            "runs (as the experiment says)",
            "training.steps": "number of updates; training.minutes=5 also ends it",
            "data.path": f"{_DATASETS}; `bundled` for push_t's own demonstrations",
            "data.mirror": "also learn from every episode mirrored, where the task has that symmetry",
            "task": "push_t, push_t_language, push_t_human, lift, can, square, or null to evaluate nothing",
            "run": "the run folder (runs/<experiment>-<time>)",
            "resume": "true goes on with an interrupted run, or begins it",
            "seed": "of everything random (0)",
            **{f"evaluation.{key}": text for key, text in _EVALUATION_KEYS.items()},
        },
        examples=(
            ("train experiment=push_t", "the bundled demonstrations, evaluated on 50 unseen starts"),
            (
                "train experiment=push_t_human data.path=pusht_cchi_v7_replay.zarr.zip policy=diffusion",
                "the published benchmark",
            ),
            (
                "train experiment=lift data.path=lift.hdf5",
                "a Panda lifts a cube, from `demos` or robomimic's files",
            ),
            (
                "train experiment=recordings data.path=my_robot.hdf5 policy.trunk=mlp",
                "your own recordings, no simulation",
            ),
            (
                "train policy=consistency_points policy.teacher=runs/quickstart",
                "a student that needs one network call where the run's policy needs ten",
            ),
            (
                "train critic=cal_ql_points experiment=push_t run=runs/critic",
                "a critic, which chooses among a policy's samples",
            ),
            ("train run=runs/quickstart resume=true", "go on with a run that was interrupted"),
        ),
    ),
    "eval": Verb(
        summary="measure a trained policy: success with interval, score, latency, videos",
        usage="checkpoint=FOLDER [key=value ...]",
        about=(
            "Runs the policy on starts that training never saw and writes evaluation.json and videos into the run folder. "
            "The task is the one the run was trained for, unless task= says otherwise."
        ),
        keys={
            "checkpoint": "a run folder (its last checkpoint), a checkpoint folder, a saved composition, or ws://host:port of a "
            "policy server",
            **_EVALUATION_KEYS,
            "baselines": f"{_EVALUATION_KEYS['baselines']} (as in the run)",
            "task": "push_t, push_t_language, push_t_human, lift, can or square, with task.<key> to change it",
            "sampler": "ddpm, ddim, dpm_solver, flow_euler, flow_heun, reverse_sde, descent, consistency_jump; then sampler.steps "
            "(as trained)",
            "worlds": "episodes run together (50)",
            "out": "where evaluation.json and videos go (the run folder)",
        },
        examples=(
            ("eval checkpoint=runs/quickstart", "50 unseen starts, beside the baselines of the run"),
            (
                "eval checkpoint=runs/quickstart episodes=200 video=0 baselines=nearest,random",
                "a narrower interval",
            ),
            (
                "eval checkpoint=runs/quickstart sampler=flow_euler sampler.steps=2 out=runs/two_steps",
                "the same policy with two network calls per plan",
            ),
            (
                "eval checkpoint=ws://127.0.0.1:8000 task=push_t out=runs/served",
                "a policy that `sensorimotor serve` holds in another process",
            ),
        ),
    ),
    "compose": Verb(
        summary="make many policies one, with nothing trained; search their weights",
        usage="members=[FOLDER,FOLDER] [key=value ...]",
        about=(
            "Mixes the members' answers at every noise level (GPC). Without weights= they are searched on starts from 200000 "
            "and reported on starts from 100000, beside every member alone. Leaves composition.json, the search and the "
            "evaluation in one folder, which eval, serve, rerank and sensorimotor.load take like a run."
        ),
        keys={
            "members": "folders of runs, checkpoints or compositions, or ws://host:port",
            "weights": "one per member, which sum to 1; searched if not given",
            "operator": "mix; or: what any member would do; and: what all agree on (mix)",
            "search": "race, grid, bayesian (race)",
            "parts": "candidates of race and grid are multiples of 1 / parts (10)",
            "candidates": "of bayesian (20)",
            "selection": "starts per candidate (200)",
            "episodes": "reported starts, which no search sees (200)",
            "value": "success or score: what the search compares (success)",
            "sampler": "ddpm, ddim, dpm_solver, flow_euler, flow_heun, reverse_sde; then sampler.steps (the members' own)",
            "data": "demonstrations, push_t, push_t_human, recordings; then data.path: members are probed on them, and a "
            "Bayesian search starts from the weights that denoise them best (none)",
            "task": "push_t, push_t_language, push_t_human, lift, can or square (that of the first member's run)",
            "fallback": "others goes on without a member that fails (none)",
            "names": "of the members in tables (their folders')",
            "resume": "true goes on with an interrupted search in out",
            "out": "the folder written (runs/composition-<time>)",
            "video": _EVALUATION_KEYS["video"],
        },
        examples=(
            (
                "compose members=[runs/flow,runs/diffusion]",
                "search the weight, report it, save the composition",
            ),
            (
                "compose members=[runs/flow,runs/diffusion] weights=[0.6,0.4] out=runs/both",
                "with known weights",
            ),
            (
                "compose members=[runs/flow,runs/diffusion] data=push_t",
                "after probing both on the bundled demonstrations",
            ),
            (
                "compose members=[runs/a,runs/b] operator=or weights=[0.2,0.8]",
                "a fifth of the chunks as a would, the rest as b would",
            ),
        ),
    ),
    "rerank": Verb(
        summary="let a critic pick among a policy's candidates (V-GPS)",
        usage="policy=FOLDER critic=FOLDER [key=value ...]",
        about=(
            "Draws K candidates per decision and takes the one a critic values most. Works on any policy: compositions and "
            "served ones too. Measured beside the policy alone on the same starts; says when candidates are too alike for "
            "any critic to help. Leaves composition.json in a folder that eval, serve and sensorimotor.load take like a run."
        ),
        keys={
            "policy": "folder of a run, checkpoint or composition, or ws://host:port",
            "critic": "folder of a critic's run: sensorimotor train critic=cal_ql ...",
            "samples": "K, candidates per decision (10)",
            "temperature": "0 takes the best; larger values choose more evenly (0)",
            "sampler": "how candidates are drawn; a higher sampler.temperature spreads them (the policy's own)",
            "episodes": "number of starts (200)",
            "seed": "first start; 100000 and up to report, 200000 and up to choose (100000)",
            "task": "push_t, push_t_language, push_t_human, lift, can or square (that of the policy's run)",
            "out": "the folder written (runs/reranked-<time>)",
            "video": _EVALUATION_KEYS["video"],
        },
        examples=(
            (
                "rerank policy=runs/quickstart critic=runs/critic",
                "the best of 10 candidates, beside the policy alone",
            ),
            (
                "rerank policy=runs/both critic=runs/critic samples=50 seed=200000 episodes=100",
                "a composition's candidates, on starts to choose settings by",
            ),
        ),
    ),
    "demos": Verb(
        summary="record demonstrations of a scripted expert",
        usage="out=FILE [key=value ...]",
        about=(
            "The expert of push_t plans with the simulator itself, that of lift, can and square goes from waypoint to "
            "waypoint. Episodes that succeed are kept, as robomimic HDF5."
        ),
        keys={
            "out": "the file to write",
            "episodes": "number of successful episodes to keep (100)",
            "seed": "first start (0); keep away from 100000 and up, which are for evaluation",
            "task": "push_t, push_t_language, lift, can or square, with task.<key> to change it",
            "expert": "the task's own; expert.<key> changes it",
            "overwrite": "true replaces an existing file",
        },
        examples=(
            ("demos out=demos.hdf5 episodes=200", "200 demonstrations of push_t"),
            ("demos task=lift out=lift.hdf5 episodes=200", "a Panda lifts a cube; needs the extra robomimic"),
            (
                "demos out=more.hdf5 episodes=50 seed=5000 task.start_range=0.1",
                "other starts, nearer to the goal",
            ),
        ),
    ),
    "convert": Verb(
        summary="turn one dataset format into another, bit for bit",
        usage="source=PATH target=PATH [key=value ...]",
        about=(
            f"Formats: {_DATASETS}. What was written is read back and compared before the command ends. A `.pth` file is "
            "a policy trained by robomimic, and becomes a checkpoint folder."
        ),
        keys={
            "source": "file or folder to read",
            "target": "file or folder to write; the suffix says the format (.hdf5, .zarr, .zip, .npz, none: folder)",
            "source_format": "robomimic, zarr, lerobot, npz or folder (found out)",
            "target_format": "the same, e.g. lerobot, which has no suffix (from the suffix)",
            "control_hz": "control steps per second, for files that do not say",
            "skip_bad": "true leaves out episodes with NaN or infinity, reports them, and ends with exit code 3",
            "overwrite": "true replaces an existing target",
        },
        examples=(
            ("convert source=demos.hdf5 target=demos.zarr.zip", "robomimic to Diffusion Policy"),
            (
                "convert source=demos.hdf5 target=demos_lerobot target_format=lerobot",
                "to LeRobotDataset v3.0",
            ),
            (
                "convert source=pusht_lowdim.npz target=pusht.hdf5 control_hz=10 skip_bad=true",
                "arrays to robomimic",
            ),
        ),
    ),
    "inspect": Verb(
        summary="show what a dataset holds: keys, shapes, units, lengths, statistics, a picture",
        usage="path=PATH [key=value ...]",
        about=f"Formats: {_DATASETS}. Numbers that are not finite are counted, not refused.",
        keys={
            "path": "file or folder to read",
            "picture": "where the plot of the trajectories goes (beside the dataset); none writes no plot",
            "format": "robomimic, zarr, lerobot, npz or folder (found out)",
            "control_hz": "control steps per second, for files that do not say",
        },
        examples=(
            ("inspect path=demos.hdf5", "the table, and demos.png beside the file"),
            ("inspect path=pusht_lowdim.npz control_hz=10 picture=none", "the table only"),
        ),
    ),
    "report": Verb(
        summary="write one self-contained HTML page about a run",
        usage="run=FOLDER [path=FILE]",
        about=(
            "Success beside the baselines, videos, training curves, latency, environment and configuration, in one file "
            "that loads nothing from anywhere and can be sent by mail."
        ),
        keys={"run": "the run folder", "path": "where the page goes (report.html in the run folder)"},
        examples=(
            ("report run=runs/quickstart", "writes runs/quickstart/report.html"),
            ("report run=runs/quickstart path=push_t.html", "somewhere else"),
        ),
    ),
    "serve": Verb(
        summary="serve a policy over websockets, so that robots and programs elsewhere can ask it",
        usage="checkpoint=FOLDER [key=value ...]",
        about=(
            "Listens on this machine only, unless host= says otherwise and there is a token. Clients load it by its "
            "address: sensorimotor.load('ws://127.0.0.1:8000'). GET /healthz answers OK. Ctrl-C or SIGTERM finishes the "
            "chunk under way, then ends; a second SIGTERM ends at once. Needs pip install 'sensorimotor[serve]'."
        ),
        keys={
            "checkpoint": "a run folder (its last checkpoint), a checkpoint folder or a saved composition",
            "port": "TCP port (8000); 0 lets the system choose",
            "host": "address to listen on (127.0.0.1)",
            "token": "clients must show it; better set in the environment variable SENSORIMOTOR_TOKEN, which others "
            "cannot read",
            "certificate": "PEM file of a TLS certificate chain; clients then use wss://",
            "key": "PEM file of its private key",
            "clients": "served at the same time (16)",
            "waiting": "requests of one client that may wait; more are refused (4)",
            "device": "where the policy computes (cpu)",
            "threads": "torch threads (1)",
        },
        examples=(
            ("serve checkpoint=runs/quickstart", "on port 8000 of this machine, for its own programs"),
            (
                "serve checkpoint=runs/quickstart host=0.0.0.0 port=8443 certificate=server.pem key=server.key",
                "for others, with SENSORIMOTOR_TOKEN set",
            ),
        ),
    ),
    "doctor": Verb(
        summary="check this machine: versions, rendering, threads, GPU, disk, extras",
        usage="[folder=PATH]",
        about="Exit code 0 if everything needed is there, 1 if something has to be repaired; says what to type.",
        keys={"folder": "where runs will be written, checked for space and permission (runs)"},
        examples=(
            ("doctor", "look at everything"),
            ("doctor folder=/tmp/runs", "with the disk that runs will be written to"),
        ),
    ),
}

_WIDTH = 100


def overview(version: str) -> str:
    """The page of `sensorimotor --help`."""
    verbs = "\n".join(f"  {name:<9}{verb.summary}" for name, verb in VERBS.items())
    return (
        f"sensorimotor {version}: from demonstrations to a moving robot\n\n"
        "usage: sensorimotor <verb> [key=value ...]\n\n"
        f"{verbs}\n\n"
        "sensorimotor <verb> --help     examples and the keys people set most\n"
        "sensorimotor <verb> --config   every key with its value, without running anything\n\n"
        "start here:\n"
        "  sensorimotor doctor\n"
        "  sensorimotor train experiment=push_t run=runs/quickstart\n"
        "  sensorimotor report run=runs/quickstart\n\n"
        "exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but something was left out\n"
        "SENSORIMOTOR_DEBUG=1 shows where an error came from."
    )


def verb_help(name: str) -> str:
    """The page of `sensorimotor <verb> --help`."""
    verb = VERBS[name]
    parts = [f"usage: sensorimotor {name} {verb.usage}", _wrap(verb.about, 0), "examples:"]
    for command, meaning in verb.examples:
        parts.append(f"  # {meaning}\n  sensorimotor {command}")
    width = max(map(len, verb.keys)) + 2
    keys = [f"  {key:<{width}}{_wrap(text, width + 2).lstrip()}" for key, text in verb.keys.items()]
    parts.append("keys:\n" + "\n".join(keys))
    parts.append(f"Every key with its value: sensorimotor {name} --config")
    return "\n\n".join(parts[:3]) + "\n" + "\n\n".join(parts[3:])


def _wrap(text: str, indent: int) -> str:
    import textwrap

    return textwrap.fill(
        text, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False
    )
