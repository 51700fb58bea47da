"""The package as it is installed: a wheel, and an editable checkout, in fresh environments."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "axcollector", "twisted")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the package is made from, so that building leaves nothing behind."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.cache"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_installed(tmp_path: Path, checkout: Path) -> None:
    """However it is installed, `twistd` lists the plugin, and the console command works."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    pip = environment / "bin" / "pip"
    run(pip, "wheel", "-q", "--no-deps", "-w", tmp_path, checkout, cwd=tmp_path)
    (wheel,) = tmp_path.glob("axcollector-*.whl")
    editable = ["-e", ".", "--config-settings", "editable_mode=compat"]
    for how in ([wheel], ["--no-deps", "."], ["--no-deps", *editable]):
        run(pip, "install", "-q", *how, cwd=checkout)
        assert "    axcollector " in run(environment / "bin" / "twistd", "--help", cwd=tmp_path)
        assert "scope" in run(environment / "bin" / "axcollector", "--help", cwd=tmp_path)
        code = "import axcollector.api, importlib.util; print(importlib.util.find_spec('tests'))"
        assert run(environment / "bin" / "python", "-c", code, cwd=tmp_path) == "None\n"
        files = run(pip, "show", "-f", "axcollector", cwd=tmp_path)
        parts = ("py.typed", "admin/static/main.js", "admin/static/vendor/uPlot.LICENSE")
        assert "-e" in how or all(f"axcollector/{part}" in files for part in parts)
        run(pip, "uninstall", "-q", "-y", "axcollector", cwd=tmp_path)
