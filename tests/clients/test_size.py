"""The AI SDK asks for digits, and puts up to 2,048 texts into a request: more than a function URL can return."""

from collections.abc import Callable

from tests.clients.catalog import CLIENTS, unless_named
from tests.clients.conftest import MODEL, Served
from tests.stack.frontdoor import FrontDoor

AI_SDK = CLIENTS["ai-sdk"]
FITTING = 953  # vectors of 384 numbers


@unless_named("ai-sdk")
def test_size_beyond_the_doors_is_an_error_that_names_what_fits(
    door: Served, inference_key: str, offline: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    record_property("client", AI_SDK.title)
    record_property("check", "size")

    told = AI_SDK.ask(door.url, inference_key, MODEL, {"large": {"texts": ["a"] * (FITTING + 1)}}, offline)

    record_property("library", told["library"])
    [answer] = told["answers"]
    if isinstance(door, FrontDoor):
        assert (answer["error"]["name"], answer["error"]["status"]) == ("AI_APICallError", 400)
        assert f"Send at most {FITTING} inputs" in answer["error"]["message"]
    else:
        assert len(answer["vectors"]) == FITTING + 1
