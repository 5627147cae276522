"""Where the trials are kept."""

import optuna
import pytest
import sqlalchemy.exc

from bisam_lab.recipe import RecipeError
from bisam_lab.tuning import database as storages


def test_a_storage_that_another_process_is_just_making_is_opened_a_moment_later(tmp_path, monkeypatch):
    """Optuna makes its tables without a lock: of two machines that begin at once, one finds them half made."""
    made, calls = optuna.storages.RDBStorage, []

    def half_made(url, *given, **named):
        calls.append(url)
        if len(calls) < 3:
            raise sqlalchemy.exc.IntegrityError("INSERT INTO alembic_version", None, Exception("UNIQUE failed"))
        return made(url, *given, **named)

    monkeypatch.setattr(storages, "RDBStorage", half_made)
    monkeypatch.setattr(storages, "PAUSE", 0.0)
    assert isinstance(storages.open_database(f"sqlite:///{tmp_path / 't.db'}", 30, 120), made)
    assert len(calls) == 3
    monkeypatch.setattr(storages, "RDBStorage", lambda url, *given, **named: half_made(calls.clear() or url))
    with pytest.raises(RecipeError, match=r"cannot be opened.*UNIQUE"):
        storages.open_database(f"sqlite:///{tmp_path / 'x.db'}", 30, 120)
