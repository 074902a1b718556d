"""The page at `/` and `/docs`: `page.html`, filled with what this deployment serves. Loaded when it is asked for."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from handler.contract import errors
from handler.contract.embeddings import MAX_TOKENS
from handler.contract.inputs import MAX_INPUTS
from handler.contract.models import Models

_SEEDED = "<p class=warning>The weights of {} are random: its vectors mean nothing.</p>"
_UNBOUNDED = "An answer may have any size."
_BOUNDED = (
    "An answer may have {:,} bytes; for one that could not fit there is a redirect to the whole of it, or, where none "
    "is possible, a refusal before anything is embedded, with the number of texts that fits."
)
_JOBS = (
    ("/v1/files", "/v1/files/{id}", "/v1/files/{id}/content", "files of requests, and of answers to them"),
    ("/v1/batches", "/v1/batches/{id}", "/v1/batches/{id}/cancel", "each line of a file answered within 24 hours"),
)


def render(models: Models, url: str, body_bytes: int, answer_bytes: int | None, *, jobs: bool) -> str:
    """The page of a deployment under `url`; `answer_bytes`: what its host can return, None for any number; `jobs`:
    whether it has files and batches."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    first = models.all[0]
    seeded = [model.id for model in models.all if model.weights == "seeded"]
    return template.substitute(
        url=escape(url),
        model=escape(first.id),
        description=escape(first.description),
        warning=_SEEDED.format(escape(", ".join(seeded))) if seeded else "",
        models=_rows(
            (
                "<br>".join(f"<code>{escape(name)}</code>" for name in model.names),
                f"{model.dimensions:,}",
                f"{model.content_tokens:,}",
                escape(", ".join(model.supports)),
                escape(model.quantization),
                f"{model.input_per_mtok:f}",
            )
            for model in models.all
        ),
        inputs=f"{MAX_INPUTS:,}",
        tokens=f"{MAX_TOKENS:,}",
        body=f"{body_bytes:,}",
        answer=_BOUNDED.format(answer_bytes) if answer_bytes else _UNBOUNDED,
        jobs=_rows(
            (", ".join(f"<code>{path}</code>" for path in paths), escape(about)) for *paths, about in _JOBS if jobs
        ),
        errors=_rows(
            (str(each.status), f"<code>{each.code or each.type}</code>", escape(each.message))
            for each in sorted(errors.table(), key=lambda problem: problem.status)
        ),
    )


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
