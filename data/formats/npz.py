"""One NumPy archive: an array per name, all steps end to end, and `episode_ends`."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..files import atomic_file
from ..spec import Spec
from .description import DESCRIPTION_KEY, Description, assemble, columns
from .foreign import ROLES, Choice, derive, sort_columns
from .opening import note, reading

_ENDS = "episode_ends"


def read_npz(
    path: Path | str,
    *,
    spec: Spec | None = None,
    control_hz: float | None = None,
    observation: Choice | None = None,
) -> Episodes:
    """Read an archive written by `write_npz`, or any with arrays of equal length and `episode_ends`.

    Args:
        path: the `.npz` file.
        spec: what the file must hold; checked.
        control_hz: control steps per second, needed where the file does not say it.
        observation: for files that are not ours; our observation keys and the file's names for them.
    """
    path = Path(path)
    with reading(path, "npz dataset", zipfile.BadZipFile, zlib.error):
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if _ENDS not in arrays:
            raise DataError(f"no array is named {_ENDS!r}; it holds {sorted(arrays)}")
        ends = arrays.pop(_ENDS)
        success = arrays.pop("success", None)
        if DESCRIPTION_KEY in arrays:
            description = Description.from_json(str(arrays.pop(DESCRIPTION_KEY)))
            return assemble(
                description, arrays, ends, success, spec=spec, control_hz=control_hz, choice=observation
            )
        metadata = {}
        steps, left_out = _per_step(arrays, ends)
        if left_out:
            note(metadata, f"{path}: arrays that are not one value per step are left out: {left_out}")
        found, roles = sort_columns(steps)
        return derive(
            found,
            roles,
            {},
            ends,
            spec=spec,
            control_hz=control_hz,
            choice=observation,
            success=None if success is None else success.astype(bool),
            metadata=metadata,
        )


def _per_step(arrays: Mapping[str, Array], ends: Array) -> tuple[dict[str, Array], list[str]]:
    steps = int(ends[-1]) if ends.size else 0
    usual = {name for names in ROLES.values() for name in names}  # these must have the right length
    kept = {k: v for k, v in arrays.items() if k in usual or (v.ndim > 0 and len(v) == steps)}
    return kept, sorted(set(arrays) - set(kept))


def write_npz(episodes: Episodes, path: Path | str, *, compressed: bool = True) -> None:
    """Write one archive; it appears whole or not at all."""
    description = Description.of(episodes, reserved=(_ENDS, DESCRIPTION_KEY))
    arrays = columns(episodes) | {_ENDS: episodes.ends, DESCRIPTION_KEY: np.array(description.to_json())}
    if episodes.success is not None:
        arrays["success"] = episodes.success
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    # Not np.savez: it adds a suffix to the path and has parameters that some array could be named like.
    with atomic_file(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
