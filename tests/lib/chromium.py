"""A page on disk as headless Chromium shows it, in a network namespace that has no network."""

from __future__ import annotations

import html
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def dom(page: str) -> str:
    """Return the page at a file: address once it is loaded, as HTML."""
    with tempfile.TemporaryDirectory() as profile:
        command = ["unshare", "--net", "chromium", *_OPTIONS, f"--user-data-dir={profile}", "--dump-dom", page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def measure(page: Path, expression: str) -> Any:
    """Return what an expression of JavaScript gives in the loaded page.

    The page's policy allows no scripts, so a copy beside the page is asked, which has this script and not the policy.
    """
    text = page.read_text(encoding="utf-8")
    script = f"<script>addEventListener('load', () => {{ document.documentElement.dataset.measured = JSON.stringify({expression}) }})</script>"
    copy = page.with_name(f"measured-{page.name}")
    copy.write_text(_POLICY.sub("", text).replace("</head>", script + "</head>", 1), encoding="utf-8")
    try:
        match = re.search(r'data-measured="([^"]*)"', dom(copy.as_uri()))
    finally:
        copy.unlink()
    assert match, f"{page} did not run the script"
    return json.loads(html.unescape(match[1]))
