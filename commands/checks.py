"""What `sensorimotor doctor` looks at. Each check takes what it needs as an argument and returns findings."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

Status = Literal["ok", "note", "warn", "fail"]
Installed = Callable[[str], str | None]


@dataclass(frozen=True)
class Finding:
    """One row of the table: what was looked at, what was found, and what to do about it."""

    what: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Clash:
    """Two versions that do not work together, known from measurement."""

    package: str
    versions: str
    other: str
    other_versions: str
    advice: str


CLASHES = (
    Clash("mujoco", "==4.0.0", "", "", "its sparse Cholesky factor is wrong; pip install 'mujoco!=4.0.0'"),
    Clash("robosuite", "<=1.5.2", "mujoco", ">=3.8", "its joint check fails there; pip install 'mujoco<3.8'"),
    Clash(
        "gymnasium-robotics",
        "<=1.4.2",
        "mujoco",
        ">=3.8",
        "its joint check fails there; pip install 'mujoco<3.8'",
    ),
    Clash(
        "gym-pusht", ">=0", "pymunk", ">=7", "gym-pusht uses an interface gone in 7; pip install 'pymunk<7'"
    ),
    Clash("zarr", "<3", "", "", "the Zarr reader is written for zarr 3; pip install 'zarr>=3'"),
)

_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 48, 48)
renderer.update_scene(data)
print(renderer.render().max())
"""


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """The interpreter against `requires-python`."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("python", "fail", text, "needs 3.11 or newer")
    return Finding("python", "ok", text)


def check_packages(requirements: Iterable[str], installed: Installed = installed_version) -> list[Finding]:
    """Every core dependency: present and in range."""
    findings = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None:
            continue
        version = installed(requirement.name)
        if version is None:
            findings.append(
                Finding(
                    requirement.name,
                    "fail",
                    "missing",
                    f"pip install '{requirement.name}{requirement.specifier}'",
                )
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            findings.append(
                Finding(
                    requirement.name,
                    "fail",
                    f"{version}, needs {requirement.specifier}",
                    f"pip install '{requirement.name}{requirement.specifier}'",
                )
            )
        else:
            findings.append(Finding(requirement.name, "ok", version))
    return findings


def check_extras(requirements: Iterable[str], installed: Installed = installed_version) -> list[Finding]:
    """Every optional extra: complete, or the command that completes it."""
    members: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, requirements):
        match = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if match and match[1] != "dev":
            members.setdefault(match[1], []).append(requirement)
    findings = []
    for extra, needed in members.items():
        versions = {r.name: installed(r.name) for r in needed}
        lacking = [r.name for r in needed if not _satisfied(r, versions[r.name])]
        present = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        if lacking:
            advice = f"pip install 'sensorimotor[{extra}]'"
            findings.append(Finding(f"extra {extra}", "note", f"without {', '.join(lacking)}", advice))
        else:
            findings.append(Finding(f"extra {extra}", "ok", present))
    return findings


def _satisfied(requirement: Requirement, version: str | None) -> bool:
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def check_clashes(
    clashes: Iterable[Clash] = CLASHES, installed: Installed = installed_version
) -> list[Finding]:
    """Versions known not to work, alone or together."""
    findings = []
    for clash in clashes:
        version, other = installed(clash.package), installed(clash.other) if clash.other else None
        if version is None or Version(version) not in SpecifierSet(clash.versions, prereleases=True):
            continue
        if clash.other and (
            other is None or Version(other) not in SpecifierSet(clash.other_versions, prereleases=True)
        ):
            continue
        pair = f"{clash.package} {version}" + (f" with {clash.other} {other}" if other else "")
        findings.append(Finding("versions", "warn", pair, clash.advice))
    return findings


def render_frame(backend: str | None) -> str:
    """Render one frame in another process, since a broken driver may crash; empty if all is well, else why not."""
    environment = dict(os.environ)
    if backend:
        environment["MUJOCO_GL"] = backend
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RENDER], env=environment, capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return "no answer within 60 s"
    if done.returncode == 0 and done.stdout.strip().isdigit() and int(done.stdout) > 0:
        return ""
    told = done.stderr.split("Exception ignored in")[0]
    raised = [line for line in told.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return raised[-1][:160] if raised else f"exit status {done.returncode}"


def check_rendering(
    render: Callable[[str | None], str] = render_frame, environment: Mapping[str, str] = os.environ
) -> Finding:
    """Whether MuJoCo draws a frame as things are, else which backend would."""
    current = environment.get("MUJOCO_GL") or None
    problem = render(current)
    shown = f"MUJOCO_GL={current}" if current else "default backend"
    if not problem:
        return Finding("rendering", "ok", f"frame drawn, {shown}")
    for backend in ("egl", "osmesa", "glfw"):
        if backend != current and not render(backend):
            return Finding("rendering", "warn", f"{shown}: {problem}", f"export MUJOCO_GL={backend}")
    return Finding(
        "rendering",
        "fail",
        f"{shown}: {problem}",
        "apt-get install libegl1 libgl1-mesa-dri && export MUJOCO_GL=egl (videos need it, training does not)",
    )


def check_video() -> Finding:
    """Whether an encoder for MP4 is at hand."""
    try:
        import imageio_ffmpeg

        return Finding("video", "ok", f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}")
    except (ImportError, RuntimeError) as error:
        return Finding("video", "fail", str(error).splitlines()[0], "pip install 'imageio[ffmpeg]'")


def check_compute() -> list[Finding]:
    """Processor, threads and accelerators."""
    import torch

    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    findings = [Finding("processor", "ok", f"{cores} cores, torch uses {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            findings.append(
                Finding("gpu", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
            )
    elif torch.backends.mps.is_available():
        findings.append(Finding("gpu", "ok", "Apple GPU (mps)"))
    else:
        findings.append(Finding("gpu", "note", "none", "fine for the quickstart, which is sized for a CPU"))
    return findings


def check_folder(folder: Path, *, needed_gib: float = 2.0) -> list[Finding]:
    """Free space and permission to write where runs will go."""
    there = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    status: Status = "ok" if free >= needed_gib else "warn"
    advice = (
        ""
        if status == "ok"
        else f"a run with videos needs about {needed_gib:.0f} GiB; free some or use run=..."
    )
    findings = [Finding("disk", status, f"{free:.1f} GiB free for {folder}", advice)]
    try:
        with tempfile.TemporaryFile(dir=there):
            findings.append(Finding("writing", "ok", f"{there} is writable"))
    except OSError as error:
        findings.append(
            Finding("writing", "fail", f"{there}: {error.strerror}", "choose another folder with run=...")
        )
    return findings
