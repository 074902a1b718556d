"""README's own lines on batches do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HOUSE
from tests.stack.server import PlainServer

SECTION = (HOUSE / "README.md").read_text(encoding="utf-8").partition("## Batches\n")[2].partition("\n## ")[0]


@pytest.mark.usefixtures("behind")
def test_the_snippet_works_when_pasted(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    line, snippet = (re.findall(f"```{kind}\n(.*?)```", SECTION, re.DOTALL)[0] for kind in ("json", "python"))
    (tmp_path / "texts.jsonl").write_text(line)
    client = f'from openai import OpenAI\nclient = OpenAI(base_url="{jobs_plain.url}/v1", api_key="{key}")\n'
    call = [sys.executable, "-i", "-q"]  # which reads it line by line, as it does what is pasted
    done = subprocess.run(call, input=client + snippet, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "completed BatchRequestCounts(completed=1, failed=0, total=1) None" in done.stdout, done.stderr
    assert '"custom_id":"1"' in (tmp_path / "vectors.jsonl").read_text()
    assert not (tmp_path / "errors.jsonl").exists()
    assert "Error" not in done.stderr
