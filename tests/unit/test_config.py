"""Settings: look-up order, references, and slips."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance import config, scalars
from appliance.config import Settings, read_file, vetted
from appliance.errors import ConfigError
from appliance.qvd_keys import QVD_KEYS


def test_the_database_wins_over_the_file_and_the_file_over_the_default() -> None:
    settings = Settings({"l7r.port": "1"}, {"l7r.port": "2"})
    assert settings[config.L7R_PORT] == 2
    assert Settings({"l7r.port": "1"})[config.L7R_PORT] == 1
    assert Settings({})[config.L7R_PORT] == 8443


@pytest.mark.parametrize("name", ["nodename", "database.url", "log.level", "path.run"])
def test_some_keys_are_the_files_alone(name: str) -> None:
    assert Settings({name: "/file"}, {name: "/database"}).text(name) == "/file"


def test_references_are_resolved_through_all_of_them() -> None:
    settings = Settings({"path.storage.root": "/srv/${site}"}, {"site": "north"})
    assert settings[config.PATH_STORAGE_IMAGES] == Path("/srv/north/images")


def test_everything_that_is_written_can_be_checked_at_once() -> None:
    settings = Settings({"l7r.port": "1", "unknown": "x", "vm.network.netmask": "24"}, {"l7r.port": "2"})
    assert settings.checked() is settings
    for database in ({"l7r.port": "x"}, {"vm.hypervisor": "xen"}, {"path.run": "${path.nowhere}"}):
        file = database if "path.run" in database else {}
        with pytest.raises(ConfigError, match=next(iter(database))):
            Settings(file, database).checked()


def test_circles_are_told() -> None:
    with pytest.raises(ConfigError, match="a -> b -> a"):
        Settings({"a": "${b}", "b": "${a}"}).text("a")


def test_a_value_that_cannot_be_read_names_key_and_source() -> None:
    with pytest.raises(ConfigError, match=r"l7r.port = 'x' \(from /etc/x\)"):
        Settings({"l7r.port": "x"}, source="/etc/x")[config.L7R_PORT]


@pytest.mark.parametrize(
    ("name", "text"),
    [("l7r.port", "web"), ("hkd.vm.starting.max", "many"), ("internal.l7r.timeout.x_start", "soon")],
)
def test_a_value_of_the_wrong_kind_is_told_in_words(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings({name: text})[config.REGISTRY[name]]
    assert "literal" not in str(refused.value)
    assert "convert" not in str(refused.value)


def test_the_file_is_in_the_syntax_of_properties(tmp_path: Path) -> None:
    file = tmp_path / "node.conf"
    file.write_text("# comment\nl7r.port = 1\nvm.network.domain: a\\\n  b\n")
    settings = read_file(file)
    assert settings[config.L7R_PORT] == 1
    assert settings[config.NETWORK_DOMAIN] == "ab"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        read_file(tmp_path / "node.conf")


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("l7r.prot", "l7r.port"),
        ("vm.network.gatewy", "vm.network.gateway"),
        ("L7R.port", "l7r.port"),
        ("path.storage.rot", "path.storage.root"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(slip: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        vetted([slip], "node.conf")


def test_no_declared_or_known_key_is_taken_for_a_slip() -> None:
    assert vetted(config.REGISTRY, "x") == []
    unread = QVD_KEYS - config.REGISTRY.keys()
    assert len(vetted(unread, "x")) == len(unread)


@pytest.mark.parametrize(
    "name", ["site.note", "auth.ldap.host", "vma.on_action.connect", "command.foo.args.extra"]
)
def test_other_names_are_kept_with_a_warning(name: str) -> None:
    assert "not used" in vetted([name], "x")[0]


def test_every_default_can_be_read() -> None:
    settings = Settings({})
    for key in config.REGISTRY.values():
        if key.default is not None:
            _ = settings[key]


@pytest.mark.parametrize("text", ["", "no", "0", "-1", "4 feet", "9" * 400, "9999999t"])
def test_a_size_is_a_number_that_a_disk_can_have(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|least|more than"):
        scalars.mib(text)


def test_a_limit_may_be_none() -> None:
    assert scalars.limit_mib("4g") == 4096
    assert scalars.limit_mib("No") is None


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("vm.network.bridge", "a b"),
        ("vm.network.bridge", ""),
        ("vm.network.bridge", "x" * 16),
        ("vm.network.bridge", "../eth0"),
        ("internal.vm.network.device.prefix", "abcdefghi"),
        ("vm.network.mac.prefix", "55:52:00"),
        ("vm.network.mac.prefix", "54:52"),
        ("vm.network.mac.prefix", "54:52:00:"),
    ],
)
def test_a_name_that_no_link_can_have_is_refused_with_its_key(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} = .* is wrong: write"):
        _ = Settings({key: text})[config.REGISTRY[key]]


def test_names_of_links_are_taken_as_they_are() -> None:
    settings = Settings({"vm.network.bridge": "br-qvd.7", "vm.network.mac.prefix": "54:52:AA"})
    assert settings[config.NETWORK_BRIDGE] == "br-qvd.7"
    assert settings[config.NETWORK_MAC_PREFIX] == "54:52:aa"
