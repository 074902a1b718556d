"""`make bench-door`, small."""

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import door
from tests.conftest import serving
from tests.stack.ministack import MiniStack, Tables

PARTS = ["event", "app", "auth", "read", "parse", "tokenize", "encode", "render", "record", "result"]


def test_each_part_of_a_request_is_told(
    ministack: MiniStack, tables: Tables, seeded: Path, measured: Callable[[str], None]
) -> None:
    env, key = serving(ministack.env, tables, seeded), tables.create_key("acct_door", "inference")

    seen = list(door.measure(env, key, passes=2))

    assert [name for name, _ in seen] == [*door.LOADS] * 2
    for _, request in seen:
        assert list(request.parts) == PARTS
        assert all(ms > 0 for ms in request.parts.values())
        assert request.beside < sum(request.parts.values()) - request.parts["encode"]
    *_, row = door.table(seen)
    measured(f"ms of a warm request: {row}")
