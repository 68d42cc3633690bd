#!/usr/bin/env python3
"""Adds up what the test runners said and prints the one line that ends `make test`.

Each argument is a log of one step: its name, a colon, its exit status, a colon, its path. A step without test counts (a
check) counts as one test. Lines with SKIPPED-FEATURE are repeated and counted as skipped; tests that passed at their second
try are named with what their first said. Nothing else decides anything.
"""

import re
import sys

MAX_REASONS = 10
REASON_LINES = 12
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def counts(text):
    """(passed, failed) of the runners whose summaries are in the text; None if there is none."""
    found = None

    def add(passed, failed):
        nonlocal found
        before = found or (0, 0)
        found = (before[0] + passed, before[1] + failed)

    def number(pattern, line):
        match = re.search(pattern, line)
        return int(match.group(1)) if match else 0

    for line in text.splitlines():
        # cargo nextest: Summary [ 1.2s] 10 tests run: 9 passed (1 slow), 1 failed, 0 skipped
        if re.match(r"\s*Summary \[", line):
            failed = number(r"(\d+) failed", line) + number(r"(\d+) timed out", line) + number(r"(\d+) exec failed", line)
            add(number(r"(\d+) passed", line), failed)
        # cargo test (documentation): test result: ok. 3 passed; 0 failed; ...
        elif line.startswith("test result:"):
            add(number(r"(\d+) passed", line), number(r"(\d+) failed", line))
        # vitest:      Tests  2 failed | 40 passed (42)
        elif re.match(r"\s*Tests\s+.*\(\d+\)", line):
            add(number(r"(\d+) passed", line), number(r"(\d+) failed", line))
        # playwright:  12 passed (3.4s) /  1 failed
        elif re.match(r"\s+\d+ passed \(", line):
            add(number(r"(\d+) passed", line), 0)
        elif re.match(r"\s+\d+ failed$", line):
            add(0, number(r"(\d+) failed", line))
        # playwright names those of a second try apart from the passed:  1 flaky
        elif re.match(r"\s+\d+ flaky$", line):
            add(number(r"(\d+) flaky", line), 0)
    return found


def second_tries(text):
    """The tests that passed at a second try, as their runners name them."""
    # cargo nextest: FLAKY 2/2 [ 1.2s] (1/9) package test      playwright: a number of them, then their names, indented more
    found = [line.strip() for line in text.splitlines() if re.match(r"\s*FLAKY \d+/\d+ \[", line)]
    playwright = re.search(r"^  \d+ flaky\n((?:    .*\n)+)", text, re.MULTILINE)
    if playwright:
        found.extend("FLAKY " + line.strip() for line in playwright.group(1).splitlines())
    return list(dict.fromkeys(found))


def why(text):
    """What failed tests said, shortened: each panic's place and message, or else the log's end."""
    lines = text.splitlines()
    panics = [number for number, line in enumerate(lines) if " panicked at " in line]
    found = []
    for number in panics[:MAX_REASONS]:
        message = []
        for line in lines[number : number + REASON_LINES]:
            if line.strip() in ("stack backtrace:", ""):
                break
            message.append(line.strip()[:400])
        found.extend(line for line in message if line not in found)
    return found or [line[:400] for line in lines[-REASON_LINES:]]


def main():
    passed = failed = skipped = 0
    reasons = []
    for argument in sys.argv[1:]:
        name, status, path = argument.split(":", 2)
        try:
            with open(path, encoding="utf-8", errors="replace") as log:
                text = ANSI.sub("", log.read())
        except OSError:
            text = ""
        for line in dict.fromkeys(line.strip() for line in text.splitlines() if "SKIPPED-FEATURE" in line):
            print(f"{name}: {line[line.index('SKIPPED-FEATURE'):]}")
            skipped += 1
        flaky = second_tries(text)
        if flaky:
            reasons.extend(f"{name}: {line}" for line in flaky)
            if status == "0":
                reasons.extend(f"{name}: {line}" for line in why(text))
        found = counts(text)
        if found is None:
            found = (1, 0) if status == "0" else (0, 1)
        elif status != "0" and found[1] == 0:
            # The runner broke before it could count.
            found = (found[0], 1)
        if status != "0":
            reasons.extend(f"{name}: {line}" for line in why(text))
            print(f"{name}: FAILED (see {path})")
        passed += found[0]
        failed += found[1]
    if passed + failed == 0:
        failed = 1
    for line in reasons:
        print(line)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
