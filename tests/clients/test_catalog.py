"""The table in README.md is of these clients and of the versions that are locked."""

import json
import re

from tests.clients.catalog import CLIENTS, HOUSE, Client
from tests.clients.replays import REPLAYS
from tests.stack.node import FOLDER


def rows() -> dict[str, list[str]]:
    """What follows each client in the table of README.md."""
    section = (HOUSE / "README.md").read_text().partition("\n## Compatibility\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {client: rest for client, *rest in lines[1:]}


def locked(client: Client) -> set[str]:
    """Every `name version` in the lock that the client's environment is made from."""
    if client.program.endswith(".mjs"):
        packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
        return {
            f"{each.get('name', path.partition('node_modules/')[2])} {each['version']}"
            for path, each in packages.items()
            if path
        }
    lock = f"tests/clients/locks/{client.environment}.lock" if client.environment else "requirements.lock"
    return {
        f"{name} {version}" for name, version in re.findall(r"^([\w.-]+)==([^ ]+)", (HOUSE / lock).read_text(), re.M)
    }


def test_the_table_has_every_client_and_no_other() -> None:
    assert list(rows()) == [
        *(client.title for client in CLIENTS.values()),
        "curl",
        *dict.fromkeys(replay.client for replay in REPLAYS),
    ]


def test_the_table_names_the_locked_versions() -> None:
    assert {client.title for client in CLIENTS.values() if rows()[client.title][0] not in locked(client)} == set()
