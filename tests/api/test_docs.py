"""What tools and people read: the OpenAPI document, held against what is really accepted and answered, and the page."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from handler.api.app import create_app
from handler.contract import errors, openapi
from handler.contract.embeddings import Rules
from handler.contract.models import Models
from handler.contract.payload import LAMBDA_BYTES
from handler.service import Service
from handler.settings import Settings
from tests.api.conftest import MODEL, Door
from tests.api.described import Document, check, conforms, fetch, operations, resolve
from tests.api.test_intake import without_cl100k
from tests.api.test_manners import FOR_ADMINS, GETS
from tests.conftest import HOUSE
from tests.stack import spending
from tests.stack.ministack import Tables


@pytest.fixture
def document(door: Door) -> Document:
    return fetch(door.url)


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


# The document itself


def test_it_is_openapi_3_1_of_this_version_and_this_address(door: Door, document: Document) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["version"]
    [server] = document["servers"]
    host = httpx.get(f"{door.url}/openapi.json").request.headers["host"]
    assert server["url"] in (f"http://{host}", "https://emblet0000000000000000000000test.lambda-url.us-east-1.on.aws")


def test_it_describes_every_route_and_no_other(document: Document) -> None:
    described = {path.replace("{name}", MODEL): set(item) - {"parameters"} for path, item in document["paths"].items()}
    posts = {path: {"post"} for path in ("/v1/embeddings", "/invocations")}
    assert described == {path: {"get"} for path in (*GETS, *FOR_ADMINS)} | posts


def test_it_knows_every_form_of_key_and_which_paths_are_public(door: Door, document: Document) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {(each["type"], each.get("scheme") or each["name"]) for each in schemes.values()} == {
        ("http", "bearer"),
        ("http", "basic"),
        ("apiKey", "api-key"),
        ("apiKey", "x-api-key"),
    }
    assert document["security"] == [{name: []} for name in schemes]
    for path, method, operation in operations(document):
        answer = door.ask(method.upper(), path.replace("{name}", MODEL), headers={"authorization": ""})
        assert (answer.status_code == 401) == (operation.get("security") != [])
        assert ("401" in operation["responses"]) == (answer.status_code == 401)


# Those of a request without a route, of a head that is no HTTP, of usage and costs, and of files and batches.
NO_EMBEDDINGS = {errors.UNKNOWN_URL, errors.WRONG_METHOD, errors.BROKEN_HTTP, errors.HEAD_TOO_LARGE}
NO_EMBEDDINGS |= {errors.REPORT_TOO_LARGE, errors.FILE_FORMAT, errors.BROKEN_FORM, errors.NO_FILE, errors.NO_BATCH}
NO_EMBEDDINGS |= {errors.NOT_CANCELLABLE, errors.NOT_PUT, errors.FILE_TOO_LARGE}


@dataclass(frozen=True)
class Kind:
    """A deployment, and what its callers find there; answers are bounded where it has a `room`."""

    settings: dict[str, str] = field(default_factory=dict)
    room: int | None = None
    redirects: bool = False
    metered: bool = False
    jobs: bool = False
    takes_ids: bool = True
    takes_empty: bool = True

    @property
    def possible(self) -> set[errors.Problem]:
        """The errors that an embedding can have."""
        never = {*NO_EMBEDDINGS, errors.TOKEN_ARRAYS if self.takes_ids else errors.TOKEN_ID}
        never |= {errors.EMPTY_STRING} if self.takes_empty else set()
        never |= {errors.RESPONSE_TOO_LARGE} if self.room is None else set()
        return {*errors.table()} - never


BUCKET, METRICS = {"results_bucket": "b"}, {"metrics": "on"}
JOBS = BUCKET | {"jobs_table": "t"}
KINDS = {
    "plain": Kind(),
    "plain with a bucket": Kind(BUCKET),
    "plain with metrics": Kind(METRICS, metered=True),
    "plain with batches": Kind(JOBS, jobs=True),
    "function": Kind(room=LAMBDA_BYTES),
    "function with a bucket": Kind(BUCKET, room=LAMBDA_BYTES, redirects=True),
    "function with batches": Kind(JOBS, room=LAMBDA_BYTES, redirects=True, jobs=True),
    "function with metrics": Kind(METRICS | {"aws_lambda_runtime_api": "x"}, room=LAMBDA_BYTES),
    "model's own ids": Kind({"token_arrays": "model"}),
    "no ids": Kind({"token_arrays": "reject"}, takes_ids=False),
    "no empty text": Kind({"empty_input": "reject"}, takes_empty=False),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def its_app(kind: Kind, minilm: Path, tables: Tables) -> FastAPI:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, **kind.settings)  # type: ignore[arg-type]
    return create_app(Service.open(config), kind.room)


@pytest.fixture
def its_document(its_app: FastAPI) -> Document:
    found: Document = TestClient(its_app).get("/openapi.json").json()
    return found


def test_a_deployment_tells_of_each_route_that_it_has_and_of_no_other(its_app: FastAPI, its_document: Document) -> None:
    routes = {
        (str(each.path).replace(":path", ""), method.lower())
        for each in iter_route_contexts(its_app.routes)
        for method in each.methods or ()
    }
    assert {(path, method) for path, method, _ in operations(its_document)} == routes


def test_its_schemas_are_json_schema_and_its_references_lead_somewhere(its_document: Document) -> None:
    for schema in its_document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for node in nodes(its_document):
        if isinstance(node, dict):
            assert "nullable" not in node  # a word of OpenAPI 3.0 that 3.1 ignores
            assert resolve(its_document, node) is not None


def test_each_operation_has_a_name_of_its_own_and_all_it_can_answer(its_document: Document) -> None:
    found = list(operations(its_document))
    assert len({operation["operationId"] for *_, operation in found}) == len(found)
    for path, _, operation in found:
        assert {"200", "500"} <= operation["responses"].keys()
        parameters = its_document["paths"][path].get("parameters", [])
        assert {each["name"] for each in parameters} == set(re.findall(r"\{(\w+)\}", path))


def test_embeddings_tells_every_error_that_it_can_have_and_no_other(kind: Kind, its_document: Document) -> None:
    responses = its_document["paths"]["/v1/embeddings"]["post"]["responses"]
    told = {status: response["description"] for status, response in responses.items() if status >= "400"}
    assert told.keys() == {str(problem.status) for problem in kind.possible}
    for problem in errors.table():
        assert (problem.message in told.get(str(problem.status), "")) == (problem in kind.possible)


def test_a_redirect_is_told_of_where_there_can_be_one(kind: Kind, its_document: Document) -> None:
    for path in ("/v1/embeddings", "/invocations"):
        assert ("303" in its_document["paths"][path]["post"]["responses"]) == kind.redirects


def test_content_behind_a_redirect_is_told_of_where_a_file_may_not_fit(kind: Kind, its_document: Document) -> None:
    if kind.jobs:
        responses = its_document["paths"]["/v1/files/{id}/content"]["get"]["responses"]
        assert ("303" in responses) == (kind.room is not None)


def test_the_page_tells_of_files_and_batches_where_they_are(kind: Kind, its_app: FastAPI) -> None:
    text = Page(TestClient(its_app).get("/").text).text
    assert ("/v1/batches" in text) == ("/v1/files/{id}/content" in text) == kind.jobs


def test_metrics_are_told_of_where_they_are(kind: Kind, its_document: Document) -> None:
    assert ("/metrics" in its_document["paths"]) == kind.metered


def test_an_input_is_what_the_deployment_takes(kind: Kind, its_document: Document) -> None:
    def admitted(value: Any) -> bool:
        try:
            check(its_document, _request(its_document), {"model": MODEL, "input": value})
        except ValidationError:
            return False
        return True

    assert admitted("a")
    assert admitted(["a", "b"])
    assert [admitted(ids) for ids in ([1], [[1]])] == [kind.takes_ids] * 2
    assert [admitted(empty) for empty in ("", ["a", ""])] == [kind.takes_empty] * 2
    told = {header for response in _answers(its_document) for header in response["headers"]}
    assert ("x-emblet-token-arrays" in told) == kind.takes_ids
    assert ("averaged" in its_document["components"]["schemas"]["EmbeddingResponse"]["properties"]) == kind.takes_ids


def test_a_layer_that_cannot_read_token_ids_takes_none_whatever_the_setting(
    minilm: Path, tables: Tables, tmp_path: Path
) -> None:
    without = without_cl100k(minilm, tmp_path / "layer")
    config = Settings(model_dir=str(without), keys_table=tables.keys, usage_table=tables.usage)
    document = TestClient(create_app(Service.open(config))).get("/openapi.json").json()
    with pytest.raises(ValidationError):
        check(document, _request(document), {"model": MODEL, "input": [1]})


def test_metrics_answers_as_it_says(minilm: Path, tables: Tables) -> None:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, metrics="on")
    http = TestClient(create_app(Service.open(config)))
    document = http.get("/openapi.json").json()
    conforms(document, "GET", "/metrics", http.get("/metrics"))
    conforms(document, "GET", "/metrics", http.get("/metrics", headers={"content-encoding": "gzip"}))


# What is answered


@pytest.mark.parametrize("path", GETS)
def test_what_a_get_answers_is_described(door: Door, document: Document, path: str) -> None:
    template = path.replace(MODEL, "{name}")
    conforms(document, "GET", template, door.ask("GET", path))
    conforms(document, "GET", template, door.ask("GET", path, headers={"content-encoding": "gzip"}))
    if template.startswith("/v1/models"):
        conforms(document, "GET", template, door.ask("GET", path, headers={"authorization": ""}))
    if template.endswith("{name}"):
        conforms(document, "GET", template, door.ask("GET", "/v1/models/none"))


@pytest.fixture(scope="module")
def admin_of_usage(tables: Tables) -> str:
    """The admin key of an account that has used something."""
    spending.write(tables, spending.made_up(3, ["acct_docs"], 20))
    return tables.create_key("acct_docs", "admin")


@pytest.mark.parametrize("path", FOR_ADMINS)
@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"start_time": 1_709_164_800, "group_by": "project_id,api_key_id"}, 200),
        ({"start_time": 1_709_164_800, "end_time": 1_709_510_400, "limit": 2}, 200),
        ({}, 400),
        ({"start_time": 0, "bucket_width": "1w"}, 400),
        ({"start_time": 0, "user_ids": "user_1"}, 400),
    ],
    ids=str,
)
def test_what_a_report_answers_is_described(
    door: Door,
    document: Document,
    admin_of_usage: str,
    path: str,
    parameters: dict[str, Any],
    status: int,
) -> None:
    admin = {"authorization": f"Bearer {admin_of_usage}"}
    answer = door.ask("GET", path, params=parameters, headers=admin)
    assert answer.status_code == status
    conforms(document, "GET", path, answer)
    conforms(document, "GET", path, door.ask("GET", path, params=parameters))  # with an inference key


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"input": ""},
    {"input": ["a", "b"]},
    {"input": [1, 2, 3]},
    {"input": [[1, 2], [3]]},
    {"truncate": True},
    {"encoding_format": "base64"},
    {"encoding_format": None, "dimensions": None, "user": None, "truncate": None},
    {"embedding_types": None, "output_dtype": None, "multi_vector_dtype": None},
    {"dimensions": 384, "user": "somebody", "truncate": False, "embedding_types": ["dense"], "output_dtype": "float"},
    {"multi_vector_dtype": "float32"},
    {"model": "sentence-transformers/all-MiniLM-L6-v2", "unknown": {"field": 1}},
]
REFUSED: list[dict[str, Any]] = [
    {"model": None},
    {"model": "none"},
    {"model": 5},
    {"input": None},
    {"input": []},
    {"input": {}},
    {"input": [[]]},
    {"input": ["a", 1]},
    {"input": [True]},
    {"input": [1.5]},
    {"input": ["a"] * 2049},
    {"encoding_format": "int8"},
    {"dimensions": 383},
    {"dimensions": True},
    {"dimensions": "384"},
    {"user": 5},
    {"truncate": "true"},
    {"embedding_types": []},
    {"embedding_types": ["Dense"]},
    {"embedding_types": "dense"},
    {"embedding_types": ["dense", "sparse"]},
    {"output_dtype": "int4"},
    {"output_dtype": "int8"},
    {"multi_vector_dtype": "float64"},
]


@pytest.mark.parametrize("values", ACCEPTED, ids=str)
def test_what_it_admits_is_accepted_and_answered_as_it_says(
    door: Door, document: Document, values: dict[str, Any]
) -> None:
    check(document, _request(document), {"model": MODEL, "input": "text"} | values)
    answer = door.embed(**values, headers={"x-emblet-timing": "true"})
    assert answer.status_code == 200
    conforms(document, "POST", "/v1/embeddings", answer)


@pytest.mark.parametrize("values", REFUSED, ids=lambda values: str(values)[:40])
def test_what_it_does_not_admit_is_refused_as_it_says(door: Door, document: Document, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check(document, _request(document), {"model": MODEL, "input": "text"} | values)
    answer = door.embed(**values)
    assert 400 <= answer.status_code < 500
    conforms(document, "POST", "/v1/embeddings", answer)


def _answers(document: Document) -> Iterator[Any]:
    for _, _, operation in operations(document):
        yield from operation["responses"].values()


def _request(document: Document) -> Any:
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]
    assert body["required"]
    return body["content"]["application/json"]["schema"]


def test_it_describes_the_rows_of_a_model_with_all_outputs(minilm: Path, tables: Tables) -> None:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage)
    [small] = Service.open(config).models.all
    outputs = ("dense", "token_states", "sparse", "multi_vector")
    models = Models(replace(small, revision="5617a9f61b028005a4858fdac845db406aefb181", outputs=outputs))
    document = openapi.document(models, "http://x", openapi.Deployment(Rules()))
    rows = {"Model": models.all[0].row(), "Price": models.all[0].price(), "ModelCard": models.all[0].card(healthy=True)}
    assert rows["Model"]["supports"] == ["embeddings", "sparse", "multi_vector"]
    for name, row in rows.items():
        check(document, document["components"]["schemas"][name], row)


@pytest.mark.parametrize("setting", ["true", "false"])
def test_what_truncate_is_by_default_is_the_deployments(minilm: Path, tables: Tables, setting: str) -> None:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, truncate=setting)
    document = TestClient(create_app(Service.open(config))).get("/openapi.json").json()
    field = document["components"]["schemas"]["EmbeddingRequest"]["properties"]["truncate"]
    assert field["default"] is (setting == "true")


# The page


class Page(HTMLParser):
    """What a page's elements would fetch or run, where its links lead, and its text."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action") or (tag == "link" and name == "href"):
                self.sources.append(str(value))
            elif name == "href":
                self.links.append(str(value))
            elif name == "id":
                self.ids.add(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # every element is closed in its turn

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_page_is_whole_without_any_other_host_or_script(door: Door, path: str) -> None:
    answer = door.ask("GET", path, headers={"authorization": ""})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    page = Page(answer.text)
    assert page.open == []
    assert page.sources == []
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert "url(" not in answer.text
    assert "/openapi.json" in page.links
    for link in page.links:
        assert link.removeprefix("#") in page.ids or door.ask("GET", link).status_code == 200


def test_the_page_shows_how_to_call_this_very_deployment(door: Door, document: Document) -> None:
    text = Page(door.ask("GET", "/docs").text).text
    [server] = document["servers"]
    assert f"curl {server['url']}/v1/embeddings" in text
    assert f'OpenAI(base_url="{server["url"]}/v1"' in text
    assert f'baseURL: "{server["url"]}/v1"' in text
    assert MODEL in text
    assert "$" not in text.replace("$API_KEY", "")


def test_the_page_tells_models_limits_and_every_error(door: Door) -> None:
    html = door.ask("GET", "/").text
    text = Page(html).text
    for fact in (
        MODEL,
        "sentence-transformers/all-MiniLM-L6-v2",
        "384",
        "254",
        "0.01",
        "2,048",
        "300,000",
        "67,108,864",
    ):
        assert fact in text
    for problem in errors.table():
        assert problem.message in text
        assert (problem.code or problem.type) in text
    assert ("6,283,264 bytes" in text) == ("lambda-url" in text)


@pytest.mark.parametrize(
    ("host", "scheme", "shown"),
    [
        ("emblet.example.com", "https", "https://emblet.example.com/v1"),
        ("127.0.0.1:8000", None, "http://127.0.0.1:8000/v1"),
        ("[::1]:8000", None, "http://[::1]:8000/v1"),
        ('x"><script>alert(1)</script>', None, "http://localhost/v1"),
        ("x';rm -rf ~;'", "javascript", "http://localhost/v1"),
    ],
)
def test_the_address_is_the_callers_own_and_nothing_but_an_address(
    minilm: Path, tables: Tables, host: str, scheme: str | None, shown: str
) -> None:
    headers = {"host": host} | ({"x-forwarded-proto": scheme} if scheme else {})
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage)
    with TestClient(create_app(Service.open(config))) as http:
        page, described = http.get("/", headers=headers), http.get("/openapi.json", headers=headers)
    assert f'base_url="{shown}"' in Page(page.text).text
    assert described.json()["servers"] == [{"url": shown.removesuffix("/v1")}]
    assert "script" not in page.text


def test_a_model_of_random_weights_says_so(seeded: Path, tables: Tables) -> None:
    config = Settings(model_dir=str(seeded), keys_table=tables.keys, usage_table=tables.usage)
    with TestClient(create_app(Service.open(config))) as http:
        assert "its vectors mean nothing" in Page(http.get("/").text).text
