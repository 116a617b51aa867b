"""Takes into what is built the files that lie beside the packages; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BESIDE = ("Procfile", "alembic.ini", "migrations")


class BuildWithFiles(build_py):
    """Copies them to where app/distribution.py looks for them: loose beside the packages they would be everybody's."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        home = Path(self.build_lib, "app", "installed")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name in BESIDE:
            if Path(name).is_dir():
                shutil.copytree(name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(name, home)


setup(cmdclass={"build_py": BuildWithFiles})
