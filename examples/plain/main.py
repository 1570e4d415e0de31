"""The E2B SDK for Python, as it comes from PyPI, on a Thaw: E2B_API_URL (or E2B_DOMAIN) and E2B_API_KEY say where.

    pip install e2b && python examples/plain/main.py
"""

from e2b import Sandbox

with Sandbox.create(timeout=120, metadata={"example": "plain"}) as sandbox:
    print(f"sandbox {sandbox.sandbox_id}")

    sandbox.files.write("primes.py", "print([n for n in range(2, 50) if all(n % d for d in range(2, n))])\n")
    print(f"primes: {sandbox.commands.run('python3 primes.py').stdout.strip()}")

    # A process goes on after a pause where it was.
    counter = "n=0; while true; do n=$((n+1)); echo $n > /tmp/next; mv /tmp/next /tmp/count; sleep 0.2; done"
    sandbox.commands.run(counter, background=True, timeout=0)
    sandbox.commands.run("until [ -e /tmp/count ]; do sleep 0.1; done")
    sandbox.pause()
    print("paused: no process, no memory of it is left on the host")
    sandbox.connect(timeout=120)
    before = int(sandbox.files.read("/tmp/count"))
    sandbox.commands.run("sleep 1")
    after = int(sandbox.files.read("/tmp/count"))
    print(f"resumed: the counter went on from {before} to {after}")

    snapshot = sandbox.create_snapshot()
    copy = Sandbox.create(snapshot.snapshot_id, timeout=120)
    print(f"a copy knows the file too: {len(copy.files.read('primes.py'))} bytes")
    copy.kill()
    Sandbox.delete_snapshot(snapshot.snapshot_id)
