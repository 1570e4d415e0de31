import os

from stage import fails, go, same

BUSY = os.environ.get("THAW_TEST_BUSY", "")
HUNG = os.environ.get("THAW_TEST_HUNG", "")
FORKED = os.environ.get("THAW_TEST_FORKED", "")


async def busy(stage):
    sandboxes = stage.sandbox_class
    once = {"retries": 0}
    calls = [
        lambda: sandboxes.create(**once),
        lambda: sandboxes.pause(BUSY, **once),
        lambda: sandboxes.create_snapshot(BUSY, **once),
        lambda: sandboxes.fork(BUSY, **once),
    ]
    for call in calls:
        await fails(call, "ServiceBusyException")
    # Nothing has happened to it.
    same((await go(sandboxes.get_info(BUSY))).state.value, "running")


async def unresponsive(stage):
    sandboxes = stage.sandbox_class
    error = await fails(lambda: sandboxes.connect(HUNG), "GuestUnresponsiveException")
    assert "memory" in str(error)
    same((await go(sandboxes.get_info(HUNG))).state.value, "paused")


async def forks(stage):
    made = await go(stage.sandbox_class.fork(FORKED, count=6))
    told = [type(fork).__name__ if isinstance(fork, Exception) else "started" for fork in made]
    expected = ["NotFound", "Authentication", "RateLimit", "ServiceBusy", "Sandbox"]
    same(told, [f"{name}Exception" for name in expected] + ["started"])


CASES = {
    "trouble/busy": busy,
    "trouble/unresponsive": unresponsive,
    "trouble/forks": forks,
}
