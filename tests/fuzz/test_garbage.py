"""Structured garbage at both doors: every answer is the contract's, and only what is answered is billed.

An ordinary run asks the same cases each time. `make fuzz EXAMPLES=50000` explores others.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings

from handler.billing import keys
from tests.fuzz.bodies import CANARY, WORD, with_fields
from tests.fuzz.case import Case
from tests.fuzz.doors import Door, Function, Plain
from tests.fuzz.inspection import inspect
from tests.fuzz.oracle import judge
from tests.fuzz.requests import cases
from tests.fuzz.tally import Tally
from tests.stack.ministack import Tables

ACCOUNT = "acct_fuzz"
EXPLORED = int(os.environ.get("EXAMPLES", "0"))
ORDINARY = {"plain": 2000, "function": 300}
OF_ALL_KINDS = 2000  # so many cases have every outcome among them
OUTCOMES = {
    *("200", "204", "400", "401", "401 invalid_api_key", "403 insufficient_permissions", "404 model_not_found"),
    *("400 array_above_max_length", "400 context_length_exceeded", "400 empty_array", "400 invalid_token_id"),
    *("400 invalid_type", "400 invalid_value", "400 missing_required_parameter", "400 unsupported_value"),
    *("405", "415 unsupported_media_type"),
}
SHOWN = 4000  # bytes of a request that failed
NAMES_OF_KEYS = {name: f"${name.upper()}_KEY" for name in ("inference", "admin", "unknown")}

# At the limits, and beyond; too large to be made at random.
EXTREMES = [
    with_fields(input=[""] * 2048, encoding_format="base64"),
    with_fields(input=[""] * 2049),
    with_fields(input=[[7]] * 2049),
    with_fields(input=[WORD * 254] * 3),
    with_fields(input=[WORD * 5000, "", WORD * 255], truncate=True),
    with_fields(input=WORD * 1_000_000),
    with_fields(input="\u4e2d" * 254),
    with_fields(input=[100256] * 300_000),
    with_fields(user="x" * 5_000_000),
    with_fields(input={"a" * 5_000_000: 1}),
]


@pytest.fixture
def secrets(tables: Tables) -> dict[str, str]:
    """Of an account that nobody else uses."""
    made = {role: tables.create_key(ACCOUNT, role) for role in ("inference", "admin")}
    return made | {"unknown": keys.make()}


@pytest.fixture(params=ORDINARY)
def door(request: pytest.FixtureRequest, secrets: dict[str, str]) -> Iterator[Door]:
    if request.param == "function":
        yield Function(request.getfixturevalue("function_url"), secrets)
        return
    plain = Plain(request.getfixturevalue("plain"), secrets)
    yield plain
    plain.close()


def test_garbage_gets_the_contracts_answer_and_only_what_is_answered_is_billed(
    door: Door, secrets: dict[str, str], tables: Tables, request: pytest.FixtureRequest
) -> None:
    tally, ordinary = Tally(told=bool(EXPLORED)), ORDINARY[request.node.callspec.params["door"]]
    asked = EXPLORED * ordinary // ORDINARY["plain"] or ordinary
    before = {record["sk"]["S"] for record in tables.records()}

    def ask(case: Case) -> None:
        verdict = judge(case)
        note(f"{verdict}\n{shown(case.wire(NAMES_OF_KEYS))}")
        reply = door.ask(case)
        tally.add(reply, verdict, inspect(case, reply, verdict))
        assert not any(key[3:20].encode() in reply.body for key in secrets.values())

    for body in EXTREMES:
        ask = example(Case(body))(ask)
    chosen = settings(
        max_examples=asked,
        derandomize=not EXPLORED,
        deadline=None,
        phases=[phase for phase in Phase if phase != Phase.explain],  # which asks a hundred times more
        suppress_health_check=[*HealthCheck],
    )
    try:
        chosen(given(cases())(ask))()
    finally:
        print(tally)

    assert tally.cases >= asked
    assert tally.cases < OF_ALL_KINDS or tally.outcomes.keys() >= OUTCOMES
    written = [record for record in tables.records() if record["sk"]["S"] not in before]
    # An attempt that an earlier one excuses leaves a mark beside its record, of no tokens.
    billed = [record for record in written if record["sk"]["S"].count("#") == 3]
    assert not sum(int(record["tokens"]["N"]) for record in written if record not in billed)
    found = {record["sk"]["S"].rpartition("#")[2]: int(record["tokens"]["N"]) for record in billed}
    assert found == tally.billed
    assert len(billed) == len(found)
    log = door.log
    assert CANARY not in log
    assert not [name for name, key in secrets.items() if key[3:20] in log]


def shown(sent: bytes) -> str:
    """A request as bytes, for the message of a failure."""
    return repr(sent) if len(sent) <= SHOWN else f"{sent[:SHOWN]!r}… ({len(sent)} bytes)"
