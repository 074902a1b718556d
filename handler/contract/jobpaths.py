"""The paths of files and batches in the OpenAPI document, where a deployment has them."""

from handler.contract import batches, errors, files
from handler.contract.body import JSON
from handler.contract.headers import OF_A_KEY, named
from handler.contract.jobschemas import BYTES
from handler.contract.operations import KEYED, idempotency, operation, query
from handler.contract.shapes import TEXT, Schema, ref, within

# What a call of an inference key can answer; one that is known by an id; one with a page; one with a body.
_OWN = (errors.WRONG_ROLE, *KEYED)
_FILE, _BATCH = (errors.NO_FILE, *_OWN), (errors.NO_BATCH, *_OWN)
_PAGE = (errors.INVALID_VALUE, *_OWN)
_BODY = (
    errors.INVALID_JSON,
    errors.MISSING_PARAMETER,
    errors.INVALID_TYPE,
    errors.OVERLOADED,
    *_PAGE,
)


def paths(*, bounded: bool) -> dict[str, Schema]:
    """The paths; `bounded`: whether a file's content must fit its host."""
    batch = operation("batch", "One batch, as far as it is.", "Batch", _BATCH)
    cancel = operation("cancel_batch", "Begin nothing more of a batch.", "Batch", (errors.NOT_CANCELLABLE, *_BATCH))
    return {
        "/v1/files": {"post": _create_file(), "get": _list_files()},
        "/v1/files/{id}": {
            "parameters": [_id("A file's id.")],
            "get": operation("file", "One file.", "File", _FILE),
            "delete": operation("delete_file", "Forget a file and its bytes.", "DeletedFile", _FILE),
        },
        "/v1/files/{id}/content": {"parameters": [_id("A file's id.")], "get": _content(bounded=bounded)},
        "/v1/batches": {"post": _create_batch(), "get": _list_batches()},
        "/v1/batches/{id}": {"parameters": [_id("A batch's id.")], "get": batch},
        "/v1/batches/{id}/cancel": {"parameters": [_id("A batch's id.")], "post": cancel},
    }


def _id(about: str) -> Schema:
    return {"name": "id", "in": "path", "required": True, "description": about, "schema": {"type": "string"}}


def _create_file() -> Schema:
    problems = (errors.FILE_FORMAT, errors.BROKEN_FORM, errors.FILE_TOO_LARGE, *_BODY)
    create = operation("create_file", "Take a file, or say how many bytes will be put to S3.", "File", problems)
    create["description"] = (
        "A form brings the bytes, as many as a request's body may have. JSON promises them: its answer has `upload`, "
        f"where they are put with one PUT, to {files.MAX_BYTES >> 30} GiB; then the file is `processed`."
    )
    named_so = {"schema": TEXT, "example": 'form-data; name="file"; filename="texts.jsonl"'}
    form = {"schema": ref("FileForm"), "encoding": {"file": {"headers": {"Content-Disposition": named_so}}}}
    promise = {"schema": ref("FilePromise")}
    create["requestBody"] = {"required": True, "content": {"multipart/form-data": form, JSON: promise}}
    create["responses"]["200"]["content"] = {JSON: {"schema": {"anyOf": [ref("PromisedFile"), ref("File")]}}}
    return create


def _list_files() -> Schema:
    listing = operation("files", "The account's files, a page of them.", "FileList", _PAGE)
    listing["parameters"] = [
        *_pages(within(1, files.MOST, files.MOST)),
        query("order", {"enum": ["asc", "desc"], "default": "desc"}, "By the time at which they were made."),
        query("purpose", TEXT, "Only files of this purpose."),
    ]
    return listing


def _content(*, bounded: bool) -> Schema:
    content = operation("file_content", "A file's bytes.", "File", (errors.NOT_PUT, *_FILE))
    content["responses"]["200"]["content"] = {"application/octet-stream": {"schema": BYTES}}
    if bounded:
        content["responses"]["303"] = {
            "description": "Bytes too many for a function URL are where `location` says, for 15 minutes.",
            "headers": named((*OF_A_KEY, "location")),
        }
    return content


def _create_batch() -> Schema:
    problems = (errors.IDEMPOTENCY_KEY, errors.KEY_REUSED, errors.BODY_TOO_LARGE, *_BODY)
    create = operation("create_batch", "Embed each line of a file.", "Batch", problems, (*OF_A_KEY, "x-emblet-replay"))
    create["parameters"] = [idempotency("with the same body a batch is made once in 48 hours.")]
    create["requestBody"] = {"required": True, "content": {JSON: {"schema": ref("BatchRequest")}}}
    return create


def _list_batches() -> Schema:
    listing = operation("batches", "The account's batches, the newest first, a page of them.", "BatchList", _PAGE)
    listing["parameters"] = _pages(within(1, batches.MOST, batches.DEFAULT))
    return listing


def _pages(limit: Schema) -> list[Schema]:
    return [query("after", TEXT, "The id that the page before ends with."), query("limit", limit, "Of a page.")]
