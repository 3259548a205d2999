# Appends what Apache logs to the file that the only argument names, which it opens anew when that was rotated: for CustomLog and ErrorLog "|...".
# Apache itself would have to be told, and while it makes its processes anew mod_wsgi answers some requests with 503 (seen with 4.9.4).
import os
import signal
import sys

path = sys.argv[1]
# The end of the input is the end of the log, and comes after the last line; a stop or reload of Apache signals before it.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
# Apache's stderr is a pipe to such a process: one that held its own would never see the end.
os.dup2(os.open(os.devnull, os.O_RDWR), 2)
os.dup2(2, 1)


def is_open(log: int) -> bool:
    try:
        return os.path.samestat(os.fstat(log), os.stat(path))
    except OSError:
        return False


log, rest = -1, b""
while True:
    piece = os.read(0, 65536)
    # A line stays in one file.
    lines, newline, rest = (rest + piece).rpartition(b"\n") if piece else (rest, b"", b"")
    lines += newline
    try:
        if lines and not is_open(log):
            if log >= 0:
                os.close(log)
            log = -1
            log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        while lines:
            lines = lines[os.write(log, lines) :]
    except OSError:
        pass  # a full disk: the site is worth more than its log
    if not piece:
        break
