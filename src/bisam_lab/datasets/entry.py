"""The entry of a data set: all that the laboratory knows of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from ..errors import RecipeError
from .contents import Contents

__all__ = ["Archive", "Checked", "DataSet", "HumanLabels", "State", "Tell"]

State = Literal["ok", "unchecked", "missing", "broken"]
#: Takes a line of progress.
Tell: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """One official file.

    Attributes:
        path: under --data-dir.
        url: its address; None where the user must register to get it.
        md5: checksum that its authors publish or torchvision keeps; None where there is none.
        makes: file or folder under --data-dir that unpacking makes; None where the file is read as it is.
    """

    path: str
    url: str | None
    md5: str | None
    makes: str | None = None


class Checked(NamedTuple):
    """The state of one file. An ``unchecked`` file is there and can be read, but has no published checksum."""

    path: Path
    state: State
    note: str = ""


@dataclass(frozen=True)
class HumanLabels:
    """Labels that people gave to the training images.

    Attributes:
        path: their file under --data-dir.
        columns: column of the file, by the name that ``data.noise=cifar-n:NAME`` gives it.
    """

    path: str
    columns: Mapping[str, str]


def _no_archives() -> tuple[Archive, ...]:
    return ()


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: value of ``data.name`` in a recipe.
        read: takes the folder of --data-dir (the working directory without it) and returns what lies in it; None: the
            entry has no examples, but labels for another set, or pretrained weights.
        what: one phrase about its contents.
        counts: official numbers of training examples, of test examples, and of classes.
        licence: terms, as its authors state them.
        home: its address.
        inside: files or folders under --data-dir. One of them is enough to read the set. Empty: it needs none.
        remote: whether ``read`` can get the set from elsewhere when --data-dir does not hold it.
        archives: returns its official files.
        unpack: takes an archive, an empty folder to unpack into, and the path it makes; None unpacks tar and gz files.
        fetch: gets the set where ``archives`` cannot say how.
        check: yields the state of its files, after that of its archives. None: a set without archives here is read.
        partners: class that each class is mistaken for, in asymmetric noise; None: the next class.
        human: labels that people gave to its training images.
        shift: how its test set differs in kind from the training set, which validation is drawn from; empty: not.
        recipe: where a recipe names what has no examples.
        package: of the Python package index that it comes from; ``pypi:PACKAGE`` is another name of it.
    """

    name: str
    read: Callable[[Path], Contents] | None
    what: str = ""
    counts: tuple[int, int, int] | None = None
    licence: str = ""
    home: str = ""
    inside: tuple[str, ...] = ()
    remote: bool = False
    archives: Callable[[], tuple[Archive, ...]] = _no_archives
    unpack: Callable[[Path, Path, Path], None] | None = None
    fetch: Callable[[Path, Tell], None] | None = None
    check: Callable[["DataSet", Path], Iterable[Checked]] | None = None
    partners: tuple[int, ...] | None = None
    human: HumanLabels | None = None
    shift: str = ""
    recipe: str = ""
    package: str = ""

    @property
    def examples(self) -> str:
        """The official numbers, in words."""
        return "" if self.counts is None else "{} + {} examples, {} classes".format(*self.counts)

    def present(self, data_dir: Path | None) -> Path | None:
        """Return the file or folder of the set that --data-dir holds, or None."""
        places = [] if data_dir is None else [data_dir / inner for inner in self.inside]
        return next((place for place in places if place.exists()), None)

    def load(self, data_dir: Path | None) -> Contents:
        """Read the set.

        Raises:
            RecipeError: --data-dir does not hold it.
        """
        if self.read is None:
            raise RecipeError(f"data.name={self.name} has no examples: say {self.recipe}")
        if self.inside and not self.remote and self.present(data_dir) is None:
            needed = " or ".join(self.inside)
            if data_dir is None:
                raise RecipeError(
                    f"data.name={self.name} is read from disk: give its folder with --data-dir (it must hold {needed})"
                )
            raise RecipeError(
                f"--data-dir {data_dir} holds no {needed}: `bisam data fetch {self.name} --data-dir {data_dir}` gets it"
            )
        return self.read(data_dir or Path())
