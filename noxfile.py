"""The only task runner: `python -m nox -s <session>`; `python -m nox --list` shows them."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
CONSTRAINTS = str(ROOT / "constraints.txt")
# Two workers must not fight for the cores of a small machine; nothing may phone home or open a window.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
DEFAULT = "not slow and not network and not gpu"


def prepare(session: nox.Session, *groups: str, package: str | None = ".") -> None:
    """Install dependency groups and the package, with torch held at one version."""
    wanted = [dependency for group in groups for dependency in nox.project.dependency_groups(PROJECT, group)]
    if package is not None:
        wanted += ["-e", package]
    session.env.update({**ENVIRONMENT, "PIP_CONSTRAINT": CONSTRAINTS, "UV_CONSTRAINT": CONSTRAINTS})
    session.install("-c", CONSTRAINTS, *wanted)


def pytest(session: nox.Session, marker: str, *paths: str) -> None:
    """Run the tests with a marker expression; anything after `--` is added."""
    session.run("pytest", "-n", "2", "-m", marker, *paths, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Tests and doctests that need neither minutes, the internet nor a GPU."""
    prepare(session, "test", package=".[all]")
    pytest(session, DEFAULT, "--doctest-modules", "tests", "src")


@nox.session(name="tests-slow")
def tests_slow(session: nox.Session) -> None:
    """The tests that take longer."""
    prepare(session, "test", package=".[all]")
    session.install("--no-deps", *nox.project.dependency_groups(PROJECT, "llm-test"))
    pytest(session, "slow and not network and not gpu")


@nox.session
def lint(session: nox.Session) -> None:
    """House rules and format."""
    prepare(session, "lint", package=None)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def audit(session: nox.Session) -> None:
    """Security: ruff's rules on the code, zizmor on the workflows, advisories against the lowest versions allowed."""
    prepare(session, "audit", package=None)
    session.run("ruff", "check", "--select", "S", ".")
    session.run("zizmor", "--offline", ".github/workflows")
    lowest = Path(session.create_tmp()) / "lowest.txt"
    session.run("python", "scripts/lowest_versions.py", str(lowest))
    answer = session.run("python", "scripts/lowest_versions.py", "--reachable", silent=True)
    if str(answer).strip() != "yes":
        session.log("Skipped: the advisories, which pypi.org publishes; it or they cannot be had from here.")
        return
    session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "--requirement", str(lowest))


@nox.session
def typecheck(session: nox.Session) -> None:
    """Types of the package."""
    prepare(session, "typecheck")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; every warning is an error."""
    prepare(session, "doc")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist, install the wheel into this session and import it."""
    prepare(session, "build", package=None)
    dist = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--outdir", str(dist), str(ROOT))
    wheel = max(dist.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    session.run("twine", "check", str(wheel))
    session.install("-c", CONSTRAINTS, "--force-reinstall", "--no-deps", str(wheel))
    session.install("-c", CONSTRAINTS, str(wheel))
    session.cd(session.create_tmp())  # not the checkout: the installed package must be found
    code = "import sc_drugresp as sdr; print(sdr.__version__, sdr.models.available(), sdr.datasets.toy(2, 5).shape)"
    session.run("python", "-c", code)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job from counts to an HTML report, into `sc_drugresp_demo/`."""
    prepare(session)
    session.run("python", "-m", "sc_drugresp.demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks: `nox -s bench -- real_data FOLDER`; without arguments it lists them."""
    scripts = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))}
    if not session.posargs:
        session.log(f"Name one of {sorted(scripts)}, then its own arguments.")
        return
    name, *arguments = session.posargs
    if name not in scripts:
        session.error(f"There is no benchmark {name!r}; there are {sorted(scripts)}.")
    prepare(session, package=".[scvi,scale]")
    session.run("python", str(scripts[name]), *arguments)
