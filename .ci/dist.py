"""Look into the wheel and the source archive in a folder: what must be in them is, and nothing else.

python .ci/dist.py dist
"""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What a source archive has beside the packages.
BESIDE = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}


def sources() -> set[str]:
    """Return the files of the packages, as paths in the wheel."""
    folder = ROOT / "src"
    files = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(folder).as_posix() for path in files if ".egg-info" not in path.as_posix()}


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that matches.

    Raises:
        SystemExit: there is none, or several.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} should hold one {pattern}, and holds {[path.name for path in found]}: make dist builds it")
    return found[0]


def check(what: str, found: set[str], expected: set[str]) -> None:
    """Compare the names in an archive with those that should be there.

    Raises:
        SystemExit: they differ.
    """
    if found != expected:
        lacks, extra = sorted(expected - found), sorted(found - expected)
        sys.exit(f"{what} lacks {lacks[:9] or 'nothing'}, and has {extra[:9] or 'nothing'} that it should not")
    print(f"{what}: {len(found)} files, as they should be")


def main() -> None:
    """Check both archives."""
    folder = Path(sys.argv[1])
    wheel, archive = only(folder, "*.whl"), only(folder, "*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    check(wheel.name, packed, sources())
    about = {name.split(".dist-info/")[1] for name in names - packed}
    check(f"{wheel.name}'s own", about, {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"})
    with tarfile.open(archive) as opened:
        inside = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    check(archive.name, inside, {f"src/{name}" for name in sources()} | BESIDE)


if __name__ == "__main__":
    main()
