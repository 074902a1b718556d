"""What browsers are told about other pages' calls (Fetch standard, "CORS protocol").

Keys travel in headers and never in cookies, so there is no credentials mode.
"""

import re

from starlette.datastructures import Headers, MutableHeaders

from handler.settings import SettingError

# By name, because not every browser takes `*` for all of them.
EXPOSED = ", ".join(
    (
        "x-request-id",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
        "x-emblet-token-arrays",
        "x-emblet-replay",
    )
)

_MAX_AGE_S = "7200"  # the longest that Chromium keeps a preflight's answer
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/,\s]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: what a method or a header's name may be


class Cors:
    """The setting CORS_ORIGINS: `*`, `none`, or origins separated by commas. Raises SettingError for anything else."""

    def __init__(self, setting: str) -> None:
        origins = {each.strip().lower() for each in setting.split(",")}
        if origins not in ({"*"}, {"none"}) and not all(map(_ORIGIN.fullmatch, origins)):
            raise SettingError(
                f"CORS_ORIGINS={setting}: expected `*`, `none`, or origins such as `https://app.example.com`, "
                "without a path or a slash at the end, separated by commas."
            )
        self._origins = origins

    def mark(self, answer: MutableHeaders, origin: str | None) -> None:
        """Let the page of an origin read an answer. Where every page may, the answer is the same for all of them."""
        if "*" not in self._origins:
            answer.add_vary_header("Origin")
            if origin not in self._origins:
                return
        answer["access-control-allow-origin"] = "*" if "*" in self._origins else str(origin)
        answer["access-control-expose-headers"] = EXPOSED

    def preflight(self, asked: Headers) -> dict[str, str]:
        """Headers of the 204 that a preflight gets, beside `mark`'s; none where the request is no preflight.

        What was asked for is granted by name, because `*` does not cover `Authorization`.
        """
        method = asked.get("access-control-request-method", "")
        if "origin" not in asked or not _TOKEN.fullmatch(method):
            return {}
        names = [name.strip() for name in asked.get("access-control-request-headers", "").split(",")]
        granted = ", ".join(name for name in names if _TOKEN.fullmatch(name))
        return {
            "access-control-allow-methods": method,
            **({"access-control-allow-headers": granted} if granted else {}),
            "access-control-max-age": _MAX_AGE_S,
        }
