"""The Keys table on the emulator that executes DynamoDB, and one in-process stand-in where its absence is the point."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from handler import store
from handler.billing import keys, keytool
from handler.billing.keys import Caller, Keys
from handler.billing.keytable import KeyTable
from handler.contract.limits import NO_LIMITS, Limits
from tests.billing.conftest import Clock
from tests.stack import faults, tools
from tests.stack.ministack import MiniStack, Tables


@pytest.fixture
def table(tables: Tables, clock: Clock) -> KeyTable:
    return KeyTable(store.dynamodb, tables.keys, clock)


@pytest.fixture
def callers(tables: Tables, clock: Clock) -> Keys:
    return Keys(store.dynamodb, tables.keys, clock)


def test_a_key_is_sk_32_random_characters_and_a_checksum() -> None:
    made = {keys.make() for _ in range(200)}
    assert len(made) == 200
    assert all(len(key) == 41 and key.startswith("sk-") and keys.well_formed(key) for key in made)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:0],
        lambda key: key[:3],
        lambda key: key[:-1],
        lambda key: key + "a",
        lambda key: "pk-" + key[3:],
        lambda key: key[:10] + ("a" if key[10] != "a" else "b") + key[11:],
        lambda key: key.swapcase(),
        lambda key: "ключ" + key[4:],
    ],
)
def test_garbage_is_refused_without_a_look_at_the_table(spoil: Any) -> None:
    def no_table() -> Any:
        raise AssertionError("the table was asked")

    assert Keys(no_table, "none").find(spoil(keys.make())) is None


def test_a_created_key_is_found_with_its_account_and_role(table: KeyTable, callers: Keys) -> None:
    clear, key = table.create("acct_a", "inference", "one")
    assert callers.find(clear) == key.caller == Caller("acct_a", key.caller.key_id, "inference")
    assert key.caller.key_id.startswith("key_")


def test_a_key_has_the_limits_it_was_made_with(table: KeyTable, callers: Keys) -> None:
    limits = Limits(requests_per_minute=60, tokens_per_month=1_000_000)
    clear, key = table.create("acct_a", "inference", "limited", limits)
    found = callers.find(clear)
    assert found is not None
    assert found.limits == key.caller.limits == limits


def test_limits_are_changed_one_by_one_and_noticed_within_sixty_seconds(
    table: KeyTable, callers: Keys, clock: Clock
) -> None:
    clear, key = table.create("acct_a", "inference", "", Limits(requests_per_minute=60, tokens_per_minute=1000))
    before = callers.find(clear)
    changes = {"requests_per_minute": None, "tokens_per_month": 5000}
    assert table.limit(key.caller.key_id, changes) == Limits(tokens_per_minute=1000, tokens_per_month=5000)
    clock.now += 59
    assert callers.find(clear) == before, "still remembered"
    clock.now += 1
    found = callers.find(clear)
    assert found is not None
    assert found.limits == Limits(tokens_per_minute=1000, tokens_per_month=5000)


def test_an_admin_key_which_embeds_nothing_is_given_no_limits(table: KeyTable) -> None:
    with pytest.raises(ValueError, match="limits are for inference keys"):
        table.create("acct_a", "admin", "", Limits(requests_per_minute=1))
    _, key = table.create("acct_a", "admin", "")
    with pytest.raises(ValueError, match="limits are for inference keys"):
        table.limit(key.caller.key_id, {"requests_per_minute": 1})


def test_a_key_stored_before_there_were_limits_has_none(table: KeyTable, callers: Keys, tables: Tables) -> None:
    clear, _ = table.create("acct_a", "inference", "old")
    store.dynamodb().update_item(
        TableName=tables.keys, Key={"hash": {"S": keys.digest(clear)}}, UpdateExpression="REMOVE limits"
    )
    found = callers.find(clear)
    assert found is not None
    assert found.limits == NO_LIMITS


def test_the_table_holds_the_hash_and_nothing_of_the_clear_key(table: KeyTable, tables: Tables) -> None:
    clear, _ = table.create("acct_a", "inference", "hash only")
    hashed = hashlib.sha256(clear.encode()).hexdigest()
    rows = store.dynamodb().scan(TableName=tables.keys, ConsistentRead=True)["Items"]
    assert hashed in {row["hash"]["S"] for row in rows}
    assert clear[3:19] not in json.dumps(rows)


def test_an_unknown_key_is_nobody(callers: Keys) -> None:
    assert callers.find(keys.make()) is None


def test_a_revoked_key_stops_within_sixty_seconds(table: KeyTable, callers: Keys, clock: Clock) -> None:
    clear, key = table.create("acct_a", "inference", "revoked")
    assert callers.find(clear)
    assert table.revoke(key.caller.key_id)
    clock.now += 59
    assert callers.find(clear), "still remembered"
    clock.now += 1
    assert callers.find(clear) is None


def test_a_key_that_was_missing_is_looked_for_again_after_five_seconds(
    table: KeyTable, callers: Keys, tables: Tables, clock: Clock
) -> None:
    clear = keys.make()
    assert callers.find(clear) is None
    other, key = table.create("late", "inference", "")
    row = store.dynamodb().get_item(TableName=tables.keys, Key={"hash": {"S": keys.digest(other)}})["Item"]
    store.dynamodb().put_item(TableName=tables.keys, Item={**row, "hash": {"S": keys.digest(clear)}})
    clock.now += 4
    assert callers.find(clear) is None
    clock.now += 1
    assert callers.find(clear) == key.caller


def test_where_the_table_is_out_of_reach_keys_of_the_last_ten_minutes_are_served(
    table: KeyTable, callers: Keys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB's absence is made by hand: the emulator cannot be away for one client only."""
    clear, _ = table.create("acct_a", "inference", "stale")
    other, _ = table.create("acct_a", "inference", "never seen")
    assert callers.find(clear)

    def away(_: str) -> Caller | None:
        raise store.StoreUnavailableError("EndpointConnectionError")

    monkeypatch.setattr(callers, "_read", away)
    clock.now += 599
    assert callers.find(clear)
    with pytest.raises(store.StoreUnavailableError):
        callers.find(other)
    clock.now += 1
    with pytest.raises(store.StoreUnavailableError):
        callers.find(clear)


def test_an_id_of_no_key_is_looked_for_once_in_five_seconds(
    table: KeyTable, callers: Keys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, real = list[float](), keys.items

    def counted(*of: Any) -> Any:
        scans.append(clock.now)
        return real(*of)

    monkeypatch.setattr(keys, "items", counted)
    assert [callers.named("key_none") for _ in range(50)] == [None] * 50
    assert len(scans) == 1
    _, key = table.create("acct_a", "inference", "new")
    assert callers.named(key.caller.key_id) == key.caller, "one that has not been asked for before is found at once"
    clock.now += 5
    assert callers.named("key_none") is None
    assert len(scans) == 3


def test_a_key_named_by_its_id_has_its_own_limits_and_its_accounts_until_it_ends(
    table: KeyTable, callers: Keys, clock: Clock
) -> None:
    own, shared = Limits(requests_per_minute=60), Limits(tokens_per_month=5000)
    (_, revoked), (_, rotated) = (table.create("acct_named", "inference", "", own) for _ in range(2))
    table.accounts.limit("acct_named", {"tokens_per_month": 5000})
    table.rotate(rotated.caller.key_id, 60)
    for key in (revoked, rotated):
        found = callers.named(key.caller.key_id)
        assert found is not None
        assert (found.account, found.limits, found.account_limits) == ("acct_named", own, shared)
    table.revoke(revoked.caller.key_id)
    clock.now += 60
    assert [callers.named(key.caller.key_id) for key in (revoked, rotated)] == [None, None]


def test_a_table_that_is_not_there_is_a_store_out_of_reach(ministack: MiniStack) -> None:
    with pytest.raises(store.StoreUnavailableError):
        Keys(store.dynamodb, "no-such-table").find(keys.make())


@pytest.mark.parametrize("account", ["", "a#b", "x" * 65, "a b", "ä"])
def test_an_account_that_would_break_a_records_key_is_refused(table: KeyTable, account: str) -> None:
    with pytest.raises(ValueError, match="account"):
        table.create(account, "inference", "")


def run(tables: Tables, *words: str) -> tools.Done:
    return tools.run(keytool.main, *words, env={"KEYS_TABLE": tables.keys})


def test_the_operators_tool_creates_lists_and_revokes(tables: Tables, callers: Keys) -> None:
    made = run(tables, "create", "--account", "acct_tool", "--role", "admin", "--name", "for ops")
    [clear] = made.out.splitlines()
    key_id = made.err.split(",")[0]
    assert callers.find(clear) == Caller("acct_tool", key_id, "admin")

    listed = run(tables, "list").out
    row = next(line for line in listed.splitlines() if line.startswith(key_id)).split("\t")
    assert row[1:4] == ["acct_tool", "admin", "for ops"]
    assert row[5:] == ["active", "no limits"]
    assert clear not in listed

    assert "revoked" in run(tables, "revoke", key_id).out
    assert "\trevoked 2" in run(tables, "list").out
    assert Keys(store.dynamodb, tables.keys).find(clear) is None


def test_the_operators_tool_sets_shows_and_clears_limits(tables: Tables, callers: Keys) -> None:
    options = ("--rpm", "60", "--tpm", "90000")
    made = run(tables, "create", "--account", "acct_tool", *options)
    [clear], key_id = made.out.splitlines(), made.err.split(",")[0]
    assert "60 requests per minute, 90000 tokens per minute. Keep it" in made.err

    changed = run(tables, "limits", key_id, "--rpm", "none", "--tokens-per-month", "5000000")
    assert changed.out == (
        f"{key_id}: 90000 tokens per minute, 5000000 tokens per month; functions notice within 60 seconds.\n"
    )
    found = callers.find(clear)
    assert found is not None
    assert found.limits == Limits(tokens_per_minute=90_000, tokens_per_month=5_000_000)
    listed = run(tables, "list").out
    assert "\tactive\t90000 tokens per minute, 5000000 tokens per month\n" in listed


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "1" * 16, "٣"])
def test_what_is_no_limit_is_refused(tables: Tables, value: str) -> None:
    refused = run(tables, "limits", "key_any", f"--rpm={value}")
    assert refused.status == 2
    assert "expected a whole number from 1, at most 15 digits, or `none`" in refused.err


@pytest.mark.parametrize("words", [("revoke",), ("rotate",), ("limits", "--rpm", "1")])
def test_a_key_in_its_ids_place_is_not_said_again(tables: Tables, words: tuple[str, ...]) -> None:
    clear = tables.create_key("acct_tool", "inference")
    refused = run(tables, *words, clear)
    assert refused.status == 2
    assert "that is a key, and not its id" in refused.err
    assert clear[3:10] not in refused.err + refused.out


def test_the_tool_says_what_is_wrong(tables: Tables) -> None:
    unknown = run(tables, "revoke", "key_none")
    assert (unknown.status, unknown.err) == (1, "error: no key key_none; `list` shows the ids\n")
    unknown = run(tables, "limits", "key_none", "--rpm", "1")
    assert (unknown.status, unknown.err) == (1, "error: no key key_none; `list` shows the ids\n")
    nothing = run(tables, "limits", "key_none")
    assert (nothing.status, nothing.err[:24]) == (1, "error: nothing to change")
    bad = run(tables, "create", "--account", "a#b")
    assert bad.status == 1
    assert "account 'a#b'" in bad.err
    missing = tools.run(keytool.main, "list")
    assert missing.status == 1
    assert "--table, or set KEYS_TABLE" in missing.err


# Rotation


def test_a_rotated_key_has_a_successor_alike_and_ends_with_its_grace(
    table: KeyTable, callers: Keys, clock: Clock
) -> None:
    limits = Limits(requests_per_minute=60, usd_per_month=Decimal("12.5"))
    old_clear, old = table.create("acct_a", "inference", "ci", limits)
    made = table.rotate(old.caller.key_id, 3600)
    assert made is not None
    clear, key, expires = made
    assert expires == int(clock.now) + 3600
    assert (key.name, key.caller.account, key.caller.role, key.caller.limits) == ("ci", "acct_a", "inference", limits)
    assert key.caller.key_id != old.caller.key_id
    clock.now = expires - 1.0
    assert callers.find(clear) == key.caller
    assert callers.find(old_clear) == callers.remembered(old_clear) == old.caller
    clock.now = expires
    assert callers.remembered(old_clear) is None, "to the second, remembered or not"
    assert callers.find(old_clear) is None
    assert callers.find(clear) == key.caller


def test_an_expired_key_is_nobody_to_a_process_that_never_saw_it(table: KeyTable, tables: Tables, clock: Clock) -> None:
    clear, key = table.create("acct_a", "inference", "")
    table.rotate(key.caller.key_id, 0)
    assert Keys(store.dynamodb, tables.keys, clock).find(clear) is None


def test_a_key_is_rotated_once_and_not_after_its_end(table: KeyTable) -> None:
    _, key = table.create("acct_a", "inference", "")
    table.rotate(key.caller.key_id, 3600)
    with pytest.raises(ValueError, match="has been revoked or rotated before"):
        table.rotate(key.caller.key_id, 3600)
    _, key = table.create("acct_a", "inference", "")
    table.revoke(key.caller.key_id)
    with pytest.raises(ValueError, match="has been revoked or rotated before"):
        table.rotate(key.caller.key_id, 3600)
    assert table.rotate("key_none", 3600) is None


def test_the_tool_rotates(tables: Tables, table: KeyTable) -> None:
    _, old = table.create("acct_tool", "inference", "ci", Limits(tokens_per_month=5))
    done = run(tables, "rotate", old.caller.key_id, "--grace", "7d")
    [clear], described = done.out.splitlines(), done.err
    key_id = described.split(" ")[0]
    found = Keys(store.dynamodb, tables.keys).find(clear)
    assert found == Caller("acct_tool", key_id, "inference", Limits(tokens_per_month=5))
    listed = run(tables, "list").out
    [row] = [line.split("\t") for line in listed.splitlines() if line.startswith(old.caller.key_id)]
    assert row[5].startswith("active until 20")
    wrong = run(tables, "rotate", key_id, "--grace", "soon")
    assert (wrong.status, "such as 12h" in wrong.err) == (2, True)


# Accounts


def test_an_accounts_limits_come_with_each_of_its_keys_within_a_minute(
    table: KeyTable, callers: Keys, clock: Clock
) -> None:
    (one, key), (two, _) = (table.create("acct_shared", "inference", name) for name in ("one", "two"))
    stranger, other = table.create("acct_share", "inference", "")
    assert callers.find(one) == key.caller
    money = Limits(usd_per_month=Decimal("0.000001"))
    assert table.accounts.limit("acct_shared", {"usd_per_month": Decimal("0.000001")}) == money
    clock.now += 60
    for clear in (one, two):
        found = callers.find(clear)
        assert found is not None
        assert (found.limits, found.account_limits) == (NO_LIMITS, money)
    assert callers.find(stranger) == other.caller
    changed = table.accounts.limit("acct_shared", {"usd_per_month": None, "requests_per_minute": 7})
    assert changed == Limits(requests_per_minute=7)
    assert ("acct_shared", changed) in table.accounts.list()
    assert not any("account#" in row[0] for row in table.list()), "an account is no key"


def test_a_key_that_is_remembered_costs_no_read_of_its_account(
    table: KeyTable, callers: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear, _ = table.create("acct_a", "inference", "")
    callers.find(clear)
    monkeypatch.setattr(callers, "_client", lambda: pytest.fail("the table was asked"))
    monkeypatch.setattr(callers._accounts, "_client", lambda: pytest.fail("the table was asked"))
    assert callers.find(clear)


def test_the_tool_sets_shows_and_clears_an_accounts_limits(tables: Tables) -> None:
    options = ("--rpm", "60", "--usd-per-month", "25.50")
    refused = run(tables, "limits", "--account", "acct_t", *options)
    assert (refused.status, "error: no account acct_t" in refused.err) == (1, True)
    assert "of acct_t" not in run(tables, "list").out, "and nothing was made of it"
    tables.create_key("acct_t", "inference")
    done = run(tables, "limits", "--account", "acct_t", *options)
    assert done.out == (
        "all keys of acct_t: 60 requests per minute, 25.5 USD per month; functions notice within 60 seconds.\n"
    )
    assert "all keys of acct_t\t60 requests per minute, 25.5" in run(tables, "list").out
    run(tables, "limits", "--account", "acct_t", "--rpm", "none", "--usd-per-month", "none")
    assert "all keys of acct_t" not in run(tables, "list").out
    both = run(tables, "limits", "key_any", "--account", "acct_t", "--rpm", "1")
    neither = run(tables, "limits", "--rpm", "1")
    nobody = run(tables, "limits", "--account", "*", "--rpm", "1")
    assert [both.status, neither.status, nobody.status] == [2, 2, 1]


@pytest.mark.parametrize("value", ["0", "-1", "1e3", "NaN", "0." + "1" * 13, "1" * 10])
def test_what_is_no_amount_of_money_is_refused(tables: Tables, value: str) -> None:
    refused = run(tables, "limits", "key_any", f"--usd-per-month={value}")
    assert (refused.status, "expected a decimal number above 0" in refused.err) == (2, True)


# Operators who are two, and answers that are lost


def test_two_operators_lose_none_of_each_others_limits(table: KeyTable, tables: Tables) -> None:
    _, key = table.create("acct_two", "inference", "")
    changes: list[dict[str, Any]] = [
        {"requests_per_minute": 60},
        {"tokens_per_minute": 7000},
        {"tokens_per_month": 10**6},
        {"usd_per_month": Decimal("25.5")},
    ]
    operators = [KeyTable(store.dynamodb, tables.keys) for _ in changes]
    with ThreadPoolExecutor(len(changes)) as pool:
        list(pool.map(lambda each, change: each.limit(key.caller.key_id, change), operators, changes))
        list(pool.map(lambda each, change: each.accounts.limit("acct_two", change), operators, changes))
    wanted = Limits(60, 7000, 10**6, Decimal("25.5"))
    assert [each.caller.limits for _, each in table.list() if each.caller.key_id == key.caller.key_id] == [wanted]
    assert table.accounts.limits("acct_two") == wanted


def test_limits_that_are_changed_while_a_key_is_rotated_are_not_lost(
    table: KeyTable, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rotation has read is old by the time it writes: it writes nothing."""
    clear, key = table.create("acct_a", "inference", "")
    read = table._row(key.caller.key_id)
    table.limit(key.caller.key_id, {"requests_per_minute": 1})
    monkeypatch.setattr(table, "_row", lambda _: read)
    with pytest.raises(ValueError, match="changed just now"):
        table.rotate(key.caller.key_id, 3600)
    assert Keys(store.dynamodb, tables.keys).find(clear)


def test_a_key_revoked_while_it_is_rotated_gets_no_successor(table: KeyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = table.create("acct_revoked", "inference", "")
    read = table._row(key.caller.key_id)
    table.revoke(key.caller.key_id)
    monkeypatch.setattr(table, "_row", lambda _: read)
    with pytest.raises(ValueError, match="has been revoked or rotated before"):
        table.rotate(key.caller.key_id, 3600)
    assert [each.caller for _, each in table.list() if each.caller.account == "acct_revoked"] == [key.caller]


def refusing(operation: str, times: int) -> Any:
    """A client whose first answers are lost, after the work was done."""
    made = faults.client(operation, times, code="InternalServerError", status=500, done=True)
    return lambda: made


def test_a_key_whose_first_answer_is_lost_is_made_once(table: KeyTable, callers: Keys, tables: Tables) -> None:
    clear, key = KeyTable(refusing("PutItem", 1), tables.keys).create("acct_lost", "inference", "")
    assert callers.find(clear) == key.caller
    assert [each.caller for _, each in table.list() if each.caller.account == "acct_lost"] == [key.caller]


def test_limits_whose_answers_are_lost_are_set(table: KeyTable, tables: Tables) -> None:
    _, key = table.create("acct_a", "inference", "")
    operator = KeyTable(refusing("UpdateItem", 1), tables.keys)
    assert operator.limit(key.caller.key_id, {"requests_per_minute": 9}) == Limits(requests_per_minute=9)


@pytest.mark.parametrize(("words", "operation"), [(["create"], "PutItem"), (["rotate"], "TransactWriteItems")])
def test_a_key_of_which_no_answer_came_is_told_to_be_there_perhaps(
    words: list[str],
    operation: str,
    table: KeyTable,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, old = table.create("acct_perhaps", "inference", "")
    of = [old.caller.key_id] if words == ["rotate"] else ["--account", "acct_perhaps"]
    monkeypatch.setattr(store, "dynamodb", refusing(operation, 2))
    assert keytool.main([*words, *of, "--table", tables.keys]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "may be there that nobody has: `list` shows the newest last, `revoke` ends it" in err


def test_what_is_refused_outright_is_not_told_to_be_there_perhaps(
    ministack: MiniStack, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keytool.main(["create", "--account", "acct_none", "--table", "no-such-table"]) == 1
    assert "may be there" not in capsys.readouterr().err
