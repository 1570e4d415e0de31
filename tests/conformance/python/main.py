"""Runs cases with the installed version of the Python SDK, which reads E2B_* from the environment. A line of JSON for
each: {"case", "outcome": "passed" | "failed" | "missing", "ms", "error"}.

    python main.py --flavour sync|async --mode plain|tls CASE...
"""

import argparse
import asyncio
import json
import os
import sys
import time
import traceback

import commands_cases
import errors_cases
import files_cases
import git_cases
import lifecycle_cases
import network_cases
import ports_cases
import sandboxes_cases
import snapshots_cases
import trouble_cases
from stage import Stage

# A case is one that waits for something that never comes after this time.
CASE_TIMEOUT = 240
MODULES = [
    sandboxes_cases,
    lifecycle_cases,
    snapshots_cases,
    commands_cases,
    files_cases,
    git_cases,
    ports_cases,
    network_cases,
    errors_cases,
    trouble_cases,
]
CASES = {name: case for module in MODULES for name, case in module.CASES.items()}


async def run(name, stage):
    started = time.monotonic()

    def say(outcome, error=None):
        line = {"case": name, "outcome": outcome, "ms": round((time.monotonic() - started) * 1000)}
        if error:
            line["error"] = error
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    if name not in CASES:
        return say("missing")
    try:
        await asyncio.wait_for(CASES[name](stage), CASE_TIMEOUT)
        await stage.end(False)
        say("passed")
    except BaseException:
        trace = traceback.format_exc()
        await stage.end(True)
        say("failed", trace)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--flavour", choices=["sync", "async"], default="sync")
    parser.add_argument("--mode", choices=["plain", "tls"], default="plain")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    stage = Stage(options.flavour == "async", options.mode)
    for name in options.cases:
        await run(name, stage)
    await stage.close()


asyncio.run(main())
sys.stdout.flush()
# Threads that still read an output are not waited for.
os._exit(0)
