"""Where the suites come from: packages of Debian and PyPI, kept in a cache folder outside this one.

Rules:
- Nothing of these projects is committed. Versions and checksums stand in `requirements.txt` and
  `sdists.txt`; the source package of PostgreSQL has the version of the server that is
  installed, and apt checks it by its signed index.
- Each is made once a machine: a folder with `.ready` in it is used again.
- Where something cannot be had, `UnavailableError` says what and why: the suite is skipped, and
  that is told.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parents[1]
READY = ".ready"
_SCRATCH_S = 900
# Made from the tarball as it is: what regress.so needs of the server's headers, and nothing more.
_CONFIGURE = ["./configure", "--quiet", "--without-readline", "--without-zlib", "--without-icu"]
_MODULES = ("refint.so", "autoinc.so")


class UnavailableError(Exception):
    """A suite cannot be had here, and why."""


def cache() -> Path:
    """Return the folder that all of this is kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "handrail" / "torture"


def regression(major: int, pg_config: str) -> Path:
    """Return PostgreSQL's `src/test/regress` with `regress.so` built; the folder `lib` has modules.

    Raises:
        UnavailableError: the source package cannot be had or built.
    """
    package = f"postgresql-{major}"
    version = _said(["dpkg-query", "-W", "-f", "${Version}", package])
    folder = cache() / f"{package}_{re.sub('[^A-Za-z0-9.]', '-', version)}"
    _make_once(folder, lambda at: _build_regression(package, version, pg_config, at))
    return folder / "regress"


def python() -> tuple[list[str], Mapping[str, str]]:
    """Return an interpreter that has the suites' clients and pytest, and the environment for it.

    Raises:
        UnavailableError: the packages cannot be had.
    """
    wanted = HERE / "requirements.txt"
    folder = cache() / f"packages-{sys.version_info[0]}.{sys.version_info[1]}-{_digest(wanted)}"
    words = ["install", "--require-hashes", "--only-binary", ":all:", "-r", str(wanted)]
    _make_once(folder, lambda at: _pip([*words, "--target", str(at)]))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    # The base interpreter: this one's own packages (and pytest's plugins among them) stay out.
    program = Path(sys.base_prefix, "bin", version)
    return [str(program), "-S"], {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def suite(name: str) -> Path:
    """Return the unpacked source distribution of a client.

    Raises:
        UnavailableError: it cannot be had.
    """
    lines = (HERE / "sdists.txt").read_text(encoding="utf-8").splitlines()
    wanted = next(line for line in lines if line.startswith(f"{name}=="))
    folder = cache() / wanted.split()[0].replace("==", "-")
    _make_once(folder, lambda at: _unpack_sdist(wanted, at))
    return next(path for path in folder.iterdir() if path.is_dir())


def _make_once(folder: Path, make: Callable[[Path], object]) -> None:
    """Make a folder, unless an earlier run has finished doing so."""
    if (folder / READY).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"  making {folder} ...", file=sys.stderr, flush=True)
    make(folder)
    (folder / READY).touch()


def _build_regression(package: str, version: str, pg_config: str, at: Path) -> None:
    _fetch_debian(package, version, at)
    source = next(path for path in at.iterdir() if (path / "configure").is_file())
    _do(_CONFIGURE, source)
    _do(["make", "-s", "-C", "src/backend", "generated-headers"], source)
    _do(["make", "-s", "-C", "src/test/regress", "regress.so"], source)
    regress, made = source / "src/test/regress", at / "regress"
    shutil.copytree(regress, made, ignore=shutil.ignore_patterns("*.o", "*.c", "*.h"))
    (made / "lib").mkdir()
    installed = Path(_said([pg_config, "--pkglibdir"]))
    for module in (regress / "regress.so", *(installed / name for name in _MODULES)):
        shutil.copy(module, made / "lib")
    shutil.rmtree(source)


def _fetch_debian(package: str, version: str, at: Path) -> None:
    """Unpack a source package in `at`, by lists of our own: neither root nor a deb-src line."""
    for folder in ("sources", "lists/partial", "cache/archives/partial"):
        (at / folder).mkdir(parents=True)
    _write_source_lists(at / "sources")
    options = [f"Dir::Etc::sourceparts={at / 'sources'}", "Dir::Etc::sourcelist=/dev/null"]
    options += [f"Dir::State::lists={at / 'lists'}", f"Dir::Cache={at / 'cache'}"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    _do([*apt, "update"], at)
    # The installed version may have left the archive: the suite of another minor release will do,
    # because it is compared with a direct run and not with what that release expects.
    listed = _said(["apt-cache", *apt[2:], "showsrc", package])
    versions = dict.fromkeys((version, *re.findall(r"(?m)^Version: (\S+)$", listed)))
    for number, wanted in enumerate(versions, start=1):
        try:
            return _do([*apt, "source", f"{package}={wanted}"], at)
        except UnavailableError:
            if number == len(versions):
                raise
    return None


def _write_source_lists(folder: Path) -> None:
    """Write this machine's own lists of Debian again, for sources."""
    here = Path("/etc/apt")
    for path in (here / "sources.list", *(here / "sources.list.d").glob("*")):
        if path.suffix not in {".list", ".sources"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".sources":
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
        else:
            found = re.findall(r"(?m)^deb(?:-src)? (.*debian.*)$", text)
            text = "".join(f"deb-src {line}\n" for line in dict.fromkeys(found))
        if "debian" in text:
            (folder / path.name).write_text(text, encoding="utf-8")


def _unpack_sdist(wanted: str, at: Path) -> None:
    lock = at / "wanted.txt"
    lock.write_text(wanted + "\n", encoding="utf-8")
    words = ["download", "--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", str(lock)]
    _pip([*words, "--dest", str(at)])
    with tarfile.open(next(at.glob("*.tar.gz"))) as archive:
        archive.extractall(at, filter="data")
    unpacked = next(path for path in at.iterdir() if path.is_dir())
    for path in unpacked.iterdir():
        # Its own package, not built, would be imported instead of the installed one.
        if path.is_dir() and path.name != "tests":
            shutil.rmtree(path)


def _pip(words: Sequence[str]) -> None:
    wheel = next((TOP / "scripts/vendor").glob("pip-*.whl"))
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    _do(argv, HERE, {"PYTHONPATH": str(wheel)})


def _do(argv: Sequence[str], at: Path, more: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            argv,
            cwd=at,
            env={**os.environ, **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SCRATCH_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise UnavailableError(f"{' '.join(argv[:2])} failed: {said}")


def _said(argv: Sequence[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"{' '.join(argv)}: {error}") from error


def _digest(path: Path) -> str:
    import hashlib  # noqa: PLC0415  only here

    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
