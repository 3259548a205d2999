"""A certificate and its key, made for the tests."""

from __future__ import annotations

import re
import subprocess


def pair() -> tuple[str, str]:
    """Return a new certificate and its key as PEM texts."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x", "-days", "9"]
    text = subprocess.run([*command, "-keyout", "-", "-out", "-"], capture_output=True, text=True, check=True).stdout
    found = {match[1]: match[0] for match in re.finditer(r"-----BEGIN (?:[A-Z]+ )*(CERTIFICATE|KEY)-----.*?-----END [A-Z ]+-----\n", text, re.DOTALL)}
    return found["CERTIFICATE"], found["KEY"]
