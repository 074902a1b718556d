"""Invoices and exports as the operator's tool makes them: from the ledger, to the last decimal."""

import _thread
import csv
import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from handler import settings, store
from handler.billing import exports, invoicetool, known
from handler.billing.buckets import Bucket, Group, Sums, line_item
from handler.billing.ledger import Ledger, Record, Work
from handler.billing.months import Month
from handler.billing.rollups import Rollups
from tests.conftest import HOUSE
from tests.stack import spending
from tests.stack.ministack import MiniStack, Tables
from tests.stack.spending import Spent

ACCOUNTS = ("acct_inv_a", "acct_inv_b")
FEBRUARY, MARCH = "2024-02", "2024-03"
BUCKET = "invoices-export"


@pytest.fixture(scope="module")
def tables(ministack: MiniStack) -> Tables:
    """Their own: an invoice of all accounts reads each day of each that there is."""
    return ministack.create_tables(HOUSE / "template.yaml", "invoices")


@pytest.fixture(scope="module")
def records(tables: Tables) -> list[Record]:
    """Of two accounts, before, in and after the last days of February."""
    made = spending.made_up(4, ACCOUNTS, 120)
    spending.write(tables, made)
    return made


@pytest.fixture(autouse=True)
def environment(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("keys", "usage", "rollups"):
        monkeypatch.setenv(f"{name.upper()}_TABLE", getattr(tables, name))
    settings.read.cache_clear()
    yield
    settings.read.cache_clear()


@pytest.fixture
def account(tables: Tables) -> str:
    """One that has a key and nothing else, of no other test."""
    name = f"acct_{len(tables.key_rows())}"
    tables.create_key(name, "inference")
    return name


@pytest.fixture(scope="module")
def bucket(tables: Tables) -> str:
    store.s3().create_bucket(Bucket=BUCKET)
    return BUCKET


def in_month(records: list[Record], month: str) -> list[Record]:
    return [record for record in records if f"{record.work.time:%Y-%m}" == month]


def lines(records: list[Record]) -> dict[tuple[str, ...], Spent]:
    sums = spending.spent(
        records,
        lambda each: (each.account, each.key_id, each.model, line_item(each.model, each.work.door)),
    )
    return {label: spent for label, spent in sums.items() if any(spent)}


def spent_of(row: dict[str, Any]) -> Spent:
    return int(row["tokens"]), int(row["requests"]), Fraction(row["usd"])


def total(records: list[Record]) -> Spent:
    [(_, spent)] = spending.spent(records, lambda _: None).items()
    return spent


@pytest.mark.parametrize("source", ["ledger", "rollups"])
@pytest.mark.parametrize("month", [FEBRUARY, MARCH])
def test_a_csv_has_a_row_for_each_account_key_model_and_line_item(
    records: list[Record], capsys: pytest.CaptureFixture[str], month: str, source: str
) -> None:
    found = {}
    for account in ACCOUNTS:
        call = ["--month", month, "--account", account, "--format", "csv", "--from", source]
        assert invoicetool.main(call) == 0
        for row in csv.DictReader(capsys.readouterr().out.splitlines()):
            found[row["account"], row["key_id"], row["model"], row["line_item"]] = spent_of(row)
    assert found == lines(in_month(records, month))


def test_without_an_account_all_that_have_rollups_or_keys_are_told(
    records: list[Record], tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger is read even of an account that the rollups do not know, as long as it has a key; it is told so."""
    tables.create_key("acct_inv_new", "inference")
    tables.create_key("*", "admin")
    work = Work("1" * 32, "0" * 16, datetime(2024, 2, 3, tzinfo=UTC), "http")
    Ledger(store.dynamodb, tables.usage).write(Record(work, "acct_inv_new", "key_n", "bge-m3", 7, 1, Decimal("0.01")))

    assert invoicetool.main(["--month", FEBRUARY, "--format", "json"]) == 1
    out, err = capsys.readouterr()
    invoice = json.loads(out)
    by_account = {each["account"]: spent_of(each["total"]) for each in invoice["accounts"]}
    assert by_account["acct_inv_new"] == (7, 1, Fraction(7, 10**8))
    assert by_account.keys() == {*ACCOUNTS, "acct_inv_new"}, "and no `*`, which is nobody's"
    assert [*spent_of(invoice["total"])] == [sum(column) for column in zip(*by_account.values(), strict=True)]
    assert invoice["total"]["usd"] == f"{Decimal(invoice['total']['usd']):f}"
    assert "difference: acct_inv_new, 2024-02-03: the ledger has 7 tokens, 1 requests, 0.00000007 USD" in err
    assert "the rollups 0 tokens, 0 requests, 0 USD" in err


def test_json_reconciles_line_by_line_and_in_its_totals(
    records: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoicetool.main(["--month", FEBRUARY, "--account", ACCOUNTS[0], "--format", "json"]) == 0
    out, err = capsys.readouterr()
    invoice = json.loads(out)
    [account] = invoice["accounts"]
    mine = [record for record in in_month(records, FEBRUARY) if record.account == ACCOUNTS[0]]
    assert {
        (account["account"], row["key_id"], row["model"], row["line_item"]): spent_of(row) for row in account["lines"]
    } == lines(mine)
    assert spent_of(account["total"]) == spent_of(invoice["total"]) == total(mine)
    assert invoice["month"] == FEBRUARY
    assert f"{invoice['total']['tokens']} tokens, {invoice['total']['requests']} requests" in err


def test_a_table_has_totals_and_its_columns_in_line(records: list[Record], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoicetool.main(["--month", FEBRUARY, "--account", ACCOUNTS[0], "--from", "rollups"]) == 0
    rows = capsys.readouterr().out.splitlines()
    mine = [record for record in in_month(records, FEBRUARY) if record.account == ACCOUNTS[0]]
    assert len({len(row) for row in rows}) == 1  # numbers end at the same column
    assert rows[0].split() == ["account", "key_id", "model", "line_item", "tokens", "requests", "usd"]
    assert re.split(r"  +", rows[-2])[:2] == [ACCOUNTS[0], "total"]
    tokens, requests, usd = (each.replace(",", "") for each in rows[-1].split()[1:])
    assert (int(tokens), int(requests), Fraction(usd)) == total(mine)


def test_rollups_that_differ_from_the_ledger_are_told_day_by_day(
    records: list[Record], tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    group, account, day = (
        Group("key_d", "bge-m3", "bge-m3, input_tokens"),
        "acct_inv_off",
        datetime(2024, 2, 9, tzinfo=UTC),
    )
    rolled = Bucket(int(day.timestamp()), 2, {group: Sums(9, 2, Decimal("0.00000009"))})
    Rollups(store.dynamodb, tables.rollups).set(account, "1d", rolled)
    work = Work("2" * 32, "a" * 16, day + timedelta(hours=3), "message")
    Ledger(store.dynamodb, tables.usage).write(Record(work, account, "key_d", "bge-m3", 4, 1, Decimal("0.01")))

    assert invoicetool.main(["--month", FEBRUARY, "--account", account, "--format", "csv"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [f'{account},key_d,bge-m3,"bge-m3, input_tokens",4,1,0.00000004']  # the ledger's
    assert err.splitlines()[0] == (
        f"difference: {account}, 2024-02-09: the ledger has 4 tokens, 1 requests, 0.00000004 USD, "
        "the rollups 9 tokens, 2 requests, 0.00000009 USD"
    )
    assert invoicetool.main(["--month", FEBRUARY, "--account", account, "--from", "rollups"]) == 0


def test_a_day_that_is_not_over_is_told_and_not_compared(
    tables: Tables, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    record = Record(Work("3" * 32, "b" * 16, now, "http"), account, "key_n", "bge-m3", 3, 1, Decimal("0.01"))
    Ledger(store.dynamodb, tables.usage).write(record)
    assert invoicetool.main(["--month", f"{now:%Y-%m}", "--account", account, "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert f"note: {now:%Y-%m} is not over, and records that wait in the ledger queue may join it until " in err


def test_long_reads_show_that_they_go_on(
    records: list[Record], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invoicetool, "_EVERY_S", 0.0)
    assert invoicetool.main(["--month", FEBRUARY, "--account", ACCOUNTS[0], "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    counts = [int(n) for n in re.findall(rf"^(\d+) records read, now of {ACCOUNTS[0]} \.\.\.$", err, re.MULTILINE)]
    assert len(counts) == 29
    assert counts == sorted(counts)
    assert counts[-1] == len([each for each in in_month(records, FEBRUARY) if each.account == ACCOUNTS[0]])
    assert "records read" not in out


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["--month", "2024-13"], "'2024-13' is no month"),
        (["--month", "November"], "'November' is no month: expected one such as 2026-11"),
        ([], "the following arguments are required: --month"),
        (["export", "--month", FEBRUARY, "--to", "bucket/x"], "'bucket/x' is no place in S3: expected s3://bucket/"),
    ],
)
def test_words_that_are_off_are_named(capsys: pytest.CaptureFixture[str], call: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        invoicetool.main(call)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_table_that_is_not_named_or_not_there_is_told(
    account: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for names, value, said in (
        (["USAGE_TABLE", "ROLLUPS_TABLE", "KEYS_TABLE"], "", "USAGE_TABLE, ROLLUPS_TABLE, KEYS_TABLE: not set"),
        (["USAGE_TABLE"], "no-such-usage", "ResourceNotFoundException on no-such-usage"),
        (["KEYS_TABLE"], "no-such-keys", "table no-such-keys: "),
    ):
        with monkeypatch.context() as patch:
            for name in names:
                patch.setenv(name, value)
            settings.read.cache_clear()
            assert invoicetool.main(["--month", FEBRUARY, "--account", account]) == 1
            assert said in capsys.readouterr().err


@pytest.mark.parametrize("call", [[], ["export", "--to", f"s3://{BUCKET}/none/"]])
def test_a_month_to_come_and_an_account_that_nobody_has_are_errors_and_no_empty_invoice(
    bucket: str, capsys: pytest.CaptureFixture[str], call: list[str]
) -> None:
    for month, more, said in (
        ("2999-01", [], "error: 2999-01 has not begun"),
        (FEBRUARY, ["--account", "typo"], "error: no account typo: it has neither keys nor rollups"),
    ):
        assert invoicetool.main([*call, "--month", month, *more]) == 1
        out, err = capsys.readouterr()
        assert (out, err.startswith(said)) == ("", True)
    assert objects("none/") == {}


def test_a_month_that_late_records_may_join_is_told_so_until_they_may_no_more() -> None:
    month = Month.parse(FEBRUARY)
    notes = [month.note(month.end + seconds) for seconds in (3599, 3600, 14 * 86400 - 1, 14 * 86400)]
    assert notes[0] == f"{FEBRUARY} is not over, and records that wait in the ledger queue may join it until 2024-03-15"
    assert notes[1] == notes[2]
    assert notes[1].endswith(f"may join {FEBRUARY} until 2024-03-15: make this again then")
    assert notes[3] == ""


# The export


@pytest.fixture
def few_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a month, its first day and its last, today, and those on which these tests have records: each is read by
    sixteen queries."""
    days = vars(Month)["days"].fget
    kept = {1, 5, 6, 7, 8, 20, 28, datetime.now(UTC).day}
    few = property(lambda month: [day for day in days(month) if day.day in kept or day == days(month)[-1]])
    monkeypatch.setattr(Month, "days", few)


def objects(prefix: str) -> dict[str, bytes]:
    """All that lies under a prefix, by its name behind it."""
    client = store.s3()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    names = [each["Key"] for page in pages for each in page.get("Contents", [])]
    return {name.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def export(prefix: str, *more: str) -> int:
    return invoicetool.main(["export", "--month", FEBRUARY, "--to", f"s3://{BUCKET}/{prefix}", *more])


def test_an_export_has_every_record_of_the_month_once_as_the_table_holds_it(
    records: list[Record], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("all", "--account", ACCOUNTS[0]) == 0
    mine = [record for record in in_month(records, FEBRUARY) if record.account == ACCOUNTS[0]]
    found = objects("all/")
    manifest = json.loads(found.pop(f"{FEBRUARY}/{ACCOUNTS[0]}/manifest.json"))
    by_day = defaultdict[str, list[Record]](list)
    for record in mine:
        by_day[f"{FEBRUARY}/{ACCOUNTS[0]}/{record.work.time:%Y-%m-%d}.jsonl"].append(record)
    assert found.keys() == by_day.keys()
    for name, body in found.items():
        rows = [json.loads(line, parse_float=str, parse_int=str) for line in body.splitlines()]
        wanted = [{key: next(iter(value.values())) for key, value in each.item().items()} for each in by_day[name]]
        assert sorted(map(key_of, rows)) == sorted(map(key_of, wanted))
        by_key = {key_of(each): each for each in wanted}
        for row in rows:
            # DynamoDB normalizes numbers: the same one in fewer digits, or with an exponent.
            assert as_numbers(row) == as_numbers(by_key[key_of(row)])
    assert {each["key"].removeprefix("all/"): each["records"] for each in manifest["objects"]} == {
        name: len(of_it) for name, of_it in by_day.items()
    }
    assert spent_of(manifest["total"]) == total(mine)
    assert f"{len(mine)} records" in capsys.readouterr().err


def key_of(row: dict[str, Any]) -> tuple[str, str]:
    return row["pk"], row["sk"]


def as_numbers(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"usd_per_mtok": Decimal(row["usd_per_mtok"])}


@pytest.mark.usefixtures("few_days")
def test_an_export_that_is_made_again_makes_the_same_objects(records: list[Record], bucket: str) -> None:
    assert export("again/", "--account", ACCOUNTS[0]) == 0
    first = objects("again/")
    assert export("again/", "--account", ACCOUNTS[0]) == 0
    assert objects("again/") == first


@pytest.mark.usefixtures("few_days")
def test_a_record_that_came_late_is_in_the_next_export_unless_that_resumes_one(
    tables: Tables, bucket: str, account: str
) -> None:
    ledger = Ledger(store.dynamodb, tables.usage)
    work = Work("4" * 32, "c" * 16, datetime(2024, 2, 5, tzinfo=UTC), "http")
    tokens = []
    for n, more in enumerate(((), ("--resume",), ())):
        ledger.write(Record(replace(work, id=f"{n:032}"), account, "key_l", "bge-m3", 10**n, 1, Decimal("0.01")))
        assert export("late", "--account", account, *more) == 0
        found = objects("late/")
        rows = found[f"{FEBRUARY}/{account}/2024-02-05.jsonl"].splitlines()
        tokens.append(sum(json.loads(row)["tokens"] for row in rows))
        assert json.loads(found[f"{FEBRUARY}/{account}/manifest.json"])["total"]["tokens"] == tokens[-1]
    assert tokens == [1, 1, 111]


@pytest.mark.usefixtures("few_days")
def test_an_export_that_ended_goes_on_where_it_was(
    records: list[Record], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export("whole", "--account", ACCOUNTS[0]) == 0
    whole = objects("whole/")
    read, asked = exports.records, list[str]()

    def failing(client: Any, table: str, account: str, day: datetime) -> Any:
        if day.day == 29 and not asked:
            raise ValueError("the power is gone")
        return read(client, table, account, day)

    monkeypatch.setattr(exports, "records", failing)
    assert export("broken", "--account", ACCOUNTS[0]) == 1
    partial = objects("broken/")
    assert partial
    assert not any("manifest" in name for name in partial)

    def counted(client: Any, table: str, account: str, day: datetime) -> Any:
        asked.append(f"{day:%Y-%m-%d}")
        return read(client, table, account, day)

    monkeypatch.setattr(exports, "records", counted)
    assert export("broken", "--account", ACCOUNTS[0], "--resume") == 0
    assert not {f"{FEBRUARY}/{ACCOUNTS[0]}/{day}.jsonl" for day in asked} & partial.keys()
    renamed = {name: body.replace(b"broken/", b"whole/") for name, body in objects("broken/").items()}
    assert renamed == whole


@pytest.mark.usefixtures("few_days")
def test_a_day_larger_than_memory_is_put_whole(
    tables: Tables, bucket: str, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_IN_MEMORY", 1000)
    day, ledger = datetime(2024, 2, 20, tzinfo=UTC), Ledger(store.dynamodb, tables.usage)
    for n in range(40):
        work = Work(f"{n:032x}", f"{n % 16:x}" * 16, day + timedelta(seconds=n), "http")
        ledger.write(Record(work, account, "key_l", "bge-m3", n, 1, Decimal("0.01")))
    assert export("long", "--account", account) == 0
    found = objects("long/")
    rows = [json.loads(line) for line in found[f"{FEBRUARY}/{account}/2024-02-20.jsonl"].splitlines()]
    assert sorted(row["tokens"] for row in rows) == [*range(40)]


MANIFEST = f"{FEBRUARY}/manifest.json"


def put(tables: Tables, account: str, day: datetime, tokens: int = 1) -> Record:
    record = Record(
        Work(f"{tokens:032}", "d" * 16, day, "http"), account, "key_x", "bge-m3", tokens, 1, Decimal("0.01")
    )
    Ledger(store.dynamodb, tables.usage).write(record)
    return record


@pytest.mark.usefixtures("few_days")
def test_an_object_that_does_not_say_what_it_has_is_written_anew(tables: Tables, bucket: str, account: str) -> None:
    put(tables, account, datetime(2024, 2, 6, tzinfo=UTC), 6)
    name = f"{FEBRUARY}/{account}/2024-02-06.jsonl"
    store.s3().put_object(Bucket=BUCKET, Key=f"copied/{name}", Body=b"another's")
    assert export("copied", "--account", account, "--resume") == 0
    found = objects("copied/")
    assert json.loads(found[name])["tokens"] == 6
    assert json.loads(found[f"{FEBRUARY}/{account}/manifest.json"])["total"]["tokens"] == 6


@pytest.mark.usefixtures("few_days")
def test_a_record_without_a_field_is_named_and_no_manifest_is_there(
    tables: Tables, bucket: str, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = put(tables, account, datetime(2024, 2, 7, tzinfo=UTC))
    assert export("broken-record", "--account", account) == 0
    assert f"{FEBRUARY}/{account}/manifest.json" in objects("broken-record/")
    item = record.item()
    del item["usd_per_mtok"]
    store.dynamodb().put_item(TableName=tables.usage, Item=item)
    capsys.readouterr()
    assert export("broken-record", "--account", account) == 1
    where = f"{item['pk']['S']} {item['sk']['S']}"
    assert capsys.readouterr().err == f"error: the record {where} cannot be read: KeyError('usd_per_mtok')\n"
    assert f"{FEBRUARY}/{account}/manifest.json" not in objects("broken-record/"), "the first one is no longer true"
    store.dynamodb().delete_item(TableName=tables.usage, Key=record.key())


@pytest.mark.usefixtures("few_days")
def test_a_manifest_of_all_accounts_is_not_there_once_one_is_exported_anew(
    records: list[Record], tables: Tables, bucket: str, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "accounts", lambda *_: [ACCOUNTS[0], account])
    put(tables, account, datetime(2024, 2, 8, tzinfo=UTC))
    assert export("both") == 0
    assert MANIFEST in objects("both/")
    assert export("both", "--account", account) == 0
    assert {MANIFEST, f"{FEBRUARY}/{account}/manifest.json"} & objects("both/").keys() == {
        f"{FEBRUARY}/{account}/manifest.json"
    }
    assert export("both", "--resume") == 0
    assert {MANIFEST, f"{FEBRUARY}/{account}/manifest.json"} & objects("both/").keys() == {MANIFEST}


@pytest.mark.usefixtures("few_days")
def test_a_month_that_is_not_over_has_no_manifest_and_its_days_are_written_again(
    tables: Tables, bucket: str, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    for tokens in (1, 10):
        put(tables, account, now, tokens)
        call = ["export", "--month", f"{now:%Y-%m}", "--account", account, "--to", f"s3://{BUCKET}/now", "--resume"]
        assert invoicetool.main(call) == 0
        [(name, body)] = objects("now/").items()
        assert name.endswith(f"{now:%Y-%m-%d}.jsonl")
    assert sum(json.loads(line)["tokens"] for line in body.splitlines()) == 11, (
        "it was not over when it was first written"
    )
    assert f"{now:%Y-%m} so far, without a manifest: 1 objects, 2 records" in capsys.readouterr().err


def test_ctrl_c_ends_a_long_day_too(
    records: list[Record], bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [first, *_] = [record.item() for record in in_month(records, FEBRUARY)]
    interrupt = itertools.chain([_thread.interrupt_main], itertools.repeat(lambda: time.sleep(0.001)))

    def endless(*_: Any) -> Iterator[dict[str, Any]]:
        for each in interrupt:
            yield first
            each()

    monkeypatch.setattr(exports, "records", endless)
    assert export("interrupted", "--account", ACCOUNTS[0]) == 130
    assert objects("interrupted/") == {}


@pytest.mark.parametrize(("text", "days"), [("2024-02", 29), ("2023-02", 28), ("2024-12", 31), ("1999-01", 31)])
def test_a_month_has_its_days(text: str, days: int) -> None:
    month = Month.parse(text)
    assert len(month.days) == days
    assert month.end - month.start == days * 86400
    assert str(month) == text
