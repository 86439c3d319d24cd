"""Types into `weir passwd add` at a terminal: passwd_terminal.py WEIR CONFIG USER KEYS...

Each of KEYS is typed once the next prompt is there. Prints what the terminal showed, the exit status, and whether the
terminal echoes afterwards.
"""

import os
import pty
import sys
import termios

weir, config, user = sys.argv[1:4]
answers = [keys.encode().decode("unicode_escape").encode() for keys in sys.argv[4:]]
prompts = [b"Password of ", b"Again: "]

child, terminal = pty.fork()
if child == 0:
    os.execv(weir, [weir, "passwd", "add", user, "--config", config])
shown = b""
seen = 0
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:  # the other end is closed
        break
    if not data:
        break
    shown += data
    if answers and prompts[0] in shown[seen:] and shown.endswith(b": "):
        seen = len(shown)
        prompts.pop(0)
        os.write(terminal, answers.pop(0))
echo = None
try:
    echo = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
except termios.error:
    pass
_, status = os.waitpid(child, 0)
print(shown.decode(errors="replace"))
print("status", os.waitstatus_to_exitcode(status))
print("echo", echo)
