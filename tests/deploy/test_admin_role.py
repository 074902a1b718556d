"""What the operator's tools ask of AWS, each of them run, held against the rights that the template's AdminRole has."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest

from handler import settings, store
from handler.billing import invoicetool, keytool, ledgertool, pricetool, rolluptool
from handler.billing.ledger import Attempt, Identity, Ledger, Record, Work
from handler.billing.outbox import Outbox
from tests.conftest import HOUSE
from tests.stack import cloudformation
from tests.stack.ministack import MiniStack, Tables

Right = tuple[str, str]  # action, and table or bucket

PREFIX, ACCOUNT, BUCKET = "admin", "acct_admin", "admin-export"
NOW = datetime.now(UTC).replace(microsecond=0)
LATER = "--at 2099-01-01T00:00:00Z"
DAY = f"--from {NOW:%Y-%m-%d} --to {NOW:%Y-%m-%d}"
MONTH = f"--month {NOW:%Y-%m}"

BOOKS = {("dynamodb:Query", "Usage"), ("dynamodb:Query", "Rollups"), ("dynamodb:Scan", "Keys")}
# README's table.
NEEDS: dict[str, set[Right]] = {
    "keys": {("dynamodb:Scan", "Keys"), ("dynamodb:PutItem", "Keys"), ("dynamodb:UpdateItem", "Keys")},
    "prices": {
        ("dynamodb:Scan", "Prices"),
        ("dynamodb:PutItem", "Prices"),
        ("dynamodb:DeleteItem", "Prices"),
        ("dynamodb:Scan", "Keys"),
    },
    "rollups check": BOOKS,
    "rollups rebuild": BOOKS | {("dynamodb:PutItem", "Rollups")},
    "reports": BOOKS,
    "reports export": BOOKS | {("s3:GetObject", BUCKET), ("s3:PutObject", BUCKET), ("s3:DeleteObject", BUCKET)},
    "ledger replay": {
        ("dynamodb:Query", "Usage"),
        ("dynamodb:PutItem", "Usage"),
        ("dynamodb:PutItem", "Entries"),
        ("dynamodb:UpdateItem", "Limits"),
        ("dynamodb:UpdateItem", "Rollups"),
    },
}
ACTIONS = {"HeadObject": "GetObject"}  # what IAM calls an operation by another name


@pytest.fixture(scope="module")
def tables(ministack: MiniStack) -> Tables:
    made = ministack.create_tables(HOUSE / "template.yaml", PREFIX)
    made.create_key(ACCOUNT, "inference")
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    Ledger(store.dynamodb, made.usage).write(record(NOW))
    return made


def record(time: datetime, **others: Any) -> Record:
    work = Work(f"{len(others):032x}", "a" * 64, time, "http", **others)
    return Record(work, ACCOUNT, "key_1", "bge-m3", 5, 1, Decimal("0.01"))


@pytest.fixture
def asked(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Right]]:
    """Filled with the rights that whatever is called needs."""
    for name in ("keys", "usage", "limits", "prices", "entries", "rollups"):
        monkeypatch.setenv(f"{name.upper()}_TABLE", getattr(tables, name))
    found: set[Right] = set()

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        service = model.service_model.service_name
        parts = [(model.name, params)]
        if model.name == "TransactWriteItems":
            parts = [(f"{verb}Item", part) for each in params["TransactItems"] for verb, part in each.items()]
        for operation, of in parts:
            where = of["TableName"].removeprefix(f"{PREFIX}-") if service == "dynamodb" else of["Bucket"]
            found.add((f"{service}:{ACTIONS.get(operation, operation)}", where))

    made = (store._dynamodb, store._ledger, store._s3, rolluptool._client, settings.read)
    boto3.setup_default_session()
    boto3.DEFAULT_SESSION.events.register("provide-client-params.*", note)  # type: ignore[union-attr]
    for each in made:
        each.cache_clear()
    yield found
    boto3.setup_default_session()
    for each in made:
        each.cache_clear()


def run(tool: Callable[[list[str]], int], *calls: str, status: int = 0) -> None:
    for call in calls:
        assert tool(call.split()) == status, call


def keys(capsys: pytest.CaptureFixture[str], _: Path) -> None:
    run(keytool.main, f"create --account {ACCOUNT} --rpm 5")
    key_id = capsys.readouterr().err.split(",")[0]
    run(keytool.main, "list", f"limits {key_id} --rpm 6 --tpm none", f"limits --account {ACCOUNT} --rpm 9")
    run(keytool.main, f"rotate {key_id}", f"revoke {key_id}")


def prices(_: pytest.CaptureFixture[str], __: Path) -> None:
    own = f"--account {ACCOUNT} {LATER}"
    run(pricetool.main, "set m --usd 1 --batch-usd 1 --new", f"set m --usd 1 --batch-factor 0.5 {own}", "list")
    run(pricetool.main, f"end m {own}", f"withdraw m {own}")


def replay(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    def broken() -> NoReturn:
        raise RuntimeError("no queue")

    outbox, time = Outbox(broken, "nowhere", "emblet-Embed"), NOW - timedelta(hours=3)
    outbox.keep(record(time, attempt=Attempt(1, 60.0)))
    outbox.keep(record(time, attempt=None, identity=Identity("http", "b" * 64, "c" * 64, 172800)))
    log = folder / "log"
    log.write_text(capsys.readouterr().out)
    run(ledgertool.main, f"replay {log}")


CALLS: dict[str, Callable[[pytest.CaptureFixture[str], Path], None]] = {
    "keys": keys,
    "prices": prices,
    "rollups check": lambda *_: run(rolluptool.main, f"check {DAY}", status=1),
    "rollups rebuild": lambda *_: run(rolluptool.main, f"rebuild {DAY}"),
    "reports": lambda *_: run(invoicetool.main, MONTH, f"{MONTH} --from rollups"),
    "reports export": lambda *_: run(invoicetool.main, f"export {MONTH} --to s3://{BUCKET}/ --resume"),
    "ledger replay": replay,
}


@pytest.mark.parametrize("tool", NEEDS)
def test_a_tool_asks_for_what_readme_says_it_needs(
    asked: set[Right], capsys: pytest.CaptureFixture[str], tmp_path: Path, tool: str
) -> None:
    CALLS[tool](capsys, tmp_path)
    assert asked == NEEDS[tool]


def test_the_role_has_the_rights_of_all_the_tools_but_for_the_operators_bucket_and_no_others() -> None:
    role = cloudformation.load(HOUSE / "template.yaml")["Resources"]["AdminRole"]["Properties"]
    statements = [each for policy in role["Policies"] for each in policy["PolicyDocument"]["Statement"]]
    rights = {
        (action, resource["Fn::GetAtt"][0])
        for each in statements
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
        for resource in (each["Resource"] if isinstance(each["Resource"], list) else [each["Resource"]])
    }

    assert {each["Effect"] for each in statements} == {"Allow"}
    assert "ManagedPolicyArns" not in role
    needed = {right for rights in NEEDS.values() for right in rights if right[1] != BUCKET}
    assert rights == needed | {("logs:FilterLogEvents", logs) for logs in ("EmbedLogs", "WorkLogs")}


def test_readme_says_what_each_tool_needs() -> None:
    rows = [line for line in (HOUSE / "README.md").read_text().splitlines() if line.startswith("| `")]
    for tool, rights in NEEDS.items():
        [row] = [each for each in rows if each.startswith(f"| `{tool}` |")]
        for action, where in rights:
            assert action.partition(":")[2] in row, (tool, action)
            assert where == BUCKET or where in row, (tool, where)
