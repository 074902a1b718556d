"""A check for schemathesis to run beside its own: what the document admits is refused only for what no schema says."""

from typing import Any

import schemathesis

# Which ids mean a text is a matter of a vocabulary, which has holes; of texts a schema counts no tokens; and which keys
# have named another request, nobody but the service knows.
_BEYOND = {"invalid_token_id", "context_length_exceeded", "max_tokens_per_request", "idempotency_key_reused"}

# No schema says of two parameters that a period ends after it begins, nor how many buckets of a width make a page; and
# the token of a page comes out of an answer.
_BEYOND_QUERIES = {("invalid_value", name) for name in ("end_time", "limit", "page")}

# Nor whether there is a file of this id, and that one may be read.
_BEYOND_BATCHES = {("invalid_value", "input_file_id"), ("batch_not_cancellable", None)}


@schemathesis.check
def refused_only_for_what_no_schema_says(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    if response.status_code != 400 or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    error = response.json()["error"]
    # To JSON Schema 1.0 is an integer; to the contract it is not.
    written_as_number = error["code"] == "invalid_type" and error["message"].endswith("but got a number instead.")
    field = (error["code"], error["param"])
    beyond = error["code"] in _BEYOND or field in _BEYOND_QUERIES | _BEYOND_BATCHES
    assert written_as_number or beyond, error
