from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, InvalidRequest
from tunesmith.core.ids import new_id, stable_id
from tunesmith.core.settings import load_settings


def test_settings_come_from_the_environment() -> None:
    settings = load_settings(
        {"TUNESMITH_HOME": "~/x", "TUNESMITH_PORT": "99", "TUNESMITH_LEASE_S": "2.5", "OTHER": "1"}
    )
    assert settings.home == Path.home() / "x"
    assert settings.port == 99
    assert settings.lease_s == 2.5
    assert settings.resolved_database_url == f"sqlite:///{Path.home() / 'x' / 'tunesmith.db'}"


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="TUNESMITH_PROT"):
        load_settings({"TUNESMITH_PROT": "99"})


def test_a_value_that_is_no_number_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="TUNESMITH_PORT is 'abc'"):
        load_settings({"TUNESMITH_PORT": "abc"})


def test_an_error_says_where_what_and_how_to_mend() -> None:
    error = DataError("The role is 'bot'.", line=4, json_path="$.messages[0].role", mend="Use user.")
    assert str(error) == "Line 4 at $.messages[0].role: The role is 'bot'. Use user."


def test_identifiers() -> None:
    assert new_id("file-") != new_id("file-")
    assert len(new_id("ftjob-")) == len("ftjob-") + 24
    assert stable_id("ftevent-", "job", 1) == stable_id("ftevent-", "job", 1)
    assert stable_id("ftevent-", "job", 1) != stable_id("ftevent-", "job", 11)
