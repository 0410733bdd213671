"""The README's `console` blocks against a running demo: every command, and what the README says that it shows.

A line that begins with `$` is a command, more of it on lines that begin with `>`; what follows is its output, in which `…` stands
for anything. Addresses and files of whoever copied them are replaced by this demo's, see `HERE`; nothing else is.
"""

import json
import os
import re
import subprocess
import sys

READY = json.load(open(os.environ["READY"]))
HERE = {
    "SHOP": READY["http"]["service-a"]["postgres-b"],
    "PROMETHEUS": READY["http"]["service-a"]["prometheus"],
    "DIRECT": READY["inbound_http"]["postgres-b"],
    "CA": READY["ca_file"],
    "ISSUER": READY["issuer"],
    "PROOF": READY["subject_tokens"]["service-a"],
    "NATIVE": READY["inbound"]["postgres-b"],
    "SIDEGATE": os.environ["SIDEGATE"],
    "LOG": READY["decision_logs"]["postgres-b"],
    "DOCUMENTS": os.path.join(READY["dir"], "documents"),
}
END = "-- end of the command --"


def blocks(text):
    return re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def steps(block):
    """Pairs of a command and what it is to show."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif line.startswith("> "):
            found[-1][0] += "\n" + line[2:]
        else:
            found[-1][1].append(line)
    return found


def here(command):
    name = re.match(r"([A-Z]+)=", command)
    return f"{name[1]}='{HERE[name[1]]}'" if name and name[1] in HERE else command


def shown(commands):
    """What each of them shows, all in one shell. Nobody types faster than a decision comes into the log."""
    script = "\n".join(f"{here(command)}\nprintf '\\n{END}\\n'\nsleep 0.1" for command in commands)
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    return (run.stdout + run.stderr).replace("\r", "").split(f"\n{END}\n")


def matches(expected, output):
    """Blanks at the ends of lines and empty lines at the end do not count."""
    clean = lambda text: "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    pattern = ".*".join(re.escape(part) for part in clean(expected).split("…"))
    return re.fullmatch(pattern, clean(output), re.DOTALL) is not None


def main():
    text = open(os.path.join(os.path.dirname(__file__), "../README.md")).read()
    all_steps = [step for block in blocks(text) for step in steps(block)]
    outputs = shown([command for command, _ in all_steps])
    failed = 0
    for (command, expected), output in zip(all_steps, outputs):
        if not matches("\n".join(expected), output):
            failed += 1
            print(f"--- README: {command}\nshould show:\n{chr(10).join(expected)}\nshows:\n{output}", file=sys.stderr)
    checked = sum(1 for _, expected in all_steps if expected)
    print(f"README: {len(all_steps)} commands, {checked} with their output, {failed} failed")
    # A README without commands is a test that cannot fail.
    return 1 if failed or checked < 5 or len(outputs) < len(all_steps) else 0


if __name__ == "__main__":
    sys.exit(main())
