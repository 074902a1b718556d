"""The shapes of files and batches as JSON Schema (2020-12), as data."""

from handler.contract import batches, files
from handler.contract.batches import ENDPOINT, STATES, TIMES, WINDOW
from handler.contract.shapes import (
    INTEGER,
    NAME,
    NULL,
    TEXT,
    Schema,
    list_of,
    object_of,
    optional,
    ref,
    within,
)

BYTES: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}


def components() -> dict[str, Schema]:
    """Every named schema."""
    return {
        "File": _FILE,
        "FileList": _page("File"),
        "FileForm": _FORM,
        "FilePromise": _PROMISE,
        "PromisedFile": {"allOf": [ref("File"), object_of({"upload": ref("Upload")})]},
        "Upload": _UPLOAD,
        "DeletedFile": object_of({"id": TEXT, "object": {"const": "file"}, "deleted": {"const": True}}),
        "ExpiresAfter": object_of(_KEPT),
        "BatchRequest": _REQUEST,
        "Batch": _BATCH,
        "BatchList": _page("Batch"),
        "BatchFault": _FAULT,
    }


def _page(name: str) -> Schema:
    """A page, and the ids that it begins and ends with."""
    return list_of(ref(name), first_id=NAME, last_id=NAME, has_more={"type": "boolean"})


_SECOND: Schema = INTEGER | {"description": "Unix seconds."}
_PURPOSE: Schema = {"enum": ["batch"], "description": "What the file is for."}
_FILENAME: Schema = {"type": "string", "pattern": r"\.jsonl$", "maxLength": files.LONGEST_NAME}
_KEPT: dict[str, Schema] = {
    "anchor": {"enum": ["created_at"]},
    "seconds": within(files.SHORTEST_S, files.LONGEST_S),
}
_MAYBE_KEPT: Schema = {
    "anyOf": [ref("ExpiresAfter"), NULL],
    "description": f"How long to keep it; without, {files.LONGEST_S // 86400} days.",
}
_FORM_KEPT = {f"expires_after[{name}]": schema for name, schema in _KEPT.items()}

_FILE = object_of(
    {
        "id": TEXT,
        "object": {"const": "file"},
        "bytes": INTEGER,
        "created_at": _SECOND,
        "filename": TEXT,
        "purpose": {"enum": ["batch", "batch_output"], "description": "batch_output: made by a batch."},
        "status": {"enum": ["uploaded", "processed"], "description": "uploaded: its bytes are still to be put."},
        "expires_at": _SECOND,
        "status_details": NULL,
    }
)
_FORM = object_of({"file": BYTES | {"description": "JSONL, named *.jsonl."}, "purpose": _PURPOSE}, **_FORM_KEPT) | {
    "dependentRequired": {name: [*_FORM_KEPT] for name in _FORM_KEPT},
    "not": {"required": ["expires_after"]},
}
_PROMISE = object_of(
    {
        "filename": _FILENAME,
        "purpose": _PURPOSE,
        "bytes": within(1, files.MAX_BYTES) | {"description": "How many will be put, exactly."},
    },
    expires_after=_MAYBE_KEPT,
)
_UPLOAD = object_of(
    {
        "method": {"const": "PUT"},
        "url": {"type": "string", "format": "uri", "description": "Takes the bytes, once and without a key."},
        "headers": {"type": "object", "additionalProperties": TEXT, "description": "To be sent with them as they are."},
        "expires_at": INTEGER | {"description": "Unix second until which the address takes them."},
    }
)

_METADATA: Schema = {
    "maxProperties": batches.PAIRS,
    "propertyNames": {"maxLength": batches.NAME},
    "additionalProperties": {"type": "string", "maxLength": batches.VALUE},
}
_REQUEST = object_of(
    {
        "input_file_id": TEXT | {"description": "A file of purpose `batch` that is `processed`."},
        "endpoint": {"enum": [ENDPOINT]},
        "completion_window": {"enum": [WINDOW]},
    },
    metadata=optional("object", "The caller's own, told with the batch.", **_METADATA),
    output_expires_after=_MAYBE_KEPT,
)
_FAULT = object_of(
    {
        "code": {"enum": [*dict.fromkeys(fault.code for fault in batches.FAULTS)]},
        "line": {"type": ["integer", "null"], "minimum": 1, "description": "From 1; null: of the whole file."},
        "message": TEXT,
        "param": NAME,
    }
)
_BATCH = object_of(
    {
        "id": TEXT,
        "object": {"const": "batch"},
        "endpoint": {"const": ENDPOINT},
        "model": NAME | {"description": "null until the file has been checked."},
        "errors": {
            "anyOf": [list_of(ref("BatchFault")), NULL],
            "description": f"Why it has failed: {batches.MOST_FAULTS} lines at most. Or how many could not be read.",
        },
        "input_file_id": TEXT | {"description": "A file's id, or the s3:// address of an object that made the batch."},
        "completion_window": {"const": WINDOW},
        "status": {"enum": [*STATES]},
        "output_file_id": NAME | {"description": "The file of answered lines, once it has ended."},
        "error_file_id": NAME | {"description": "The file of refused and unreached lines, likewise."},
        "created_at": _SECOND,
        "expires_at": _SECOND,
        **{name: {"type": ["integer", "null"], "description": "Unix seconds."} for name in TIMES},
        "request_counts": object_of({"total": INTEGER, "completed": INTEGER, "failed": INTEGER}),
        "usage": object_of(
            {
                "input_tokens": INTEGER,
                "input_tokens_details": object_of({"cached_tokens": {"const": 0}}),
                "output_tokens": {"const": 0},
                "output_tokens_details": object_of({"reasoning_tokens": {"const": 0}}),
                "total_tokens": INTEGER,
            }
        ),
        "metadata": optional("object", "As it was given.", additionalProperties=TEXT),
    }
)
