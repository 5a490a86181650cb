"""Make the pictures of docs/composition.md by running its code, and say what it prints.

    python docs/pictures.py FOLDER

FOLDER is where the first commands of the page were run: it holds runs/flow, runs/diffusion and runs/critic.
"""

import os
import re
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PICTURES = ("candidates.png", "weight_curve.png")


def main(folder: Path) -> None:
    """Run the page in a folder and keep its pictures."""
    page = (DOCS / "composition.md").read_text()
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "composition.py"
        script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)))
        os.chdir(folder)
        runpy.run_path(str(script))
    for name in PICTURES:
        shutil.copy(folder / name, DOCS / name)
        print(f"written: docs/{name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
