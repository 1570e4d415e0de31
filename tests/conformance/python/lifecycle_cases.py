import time

from stage import background, eventually, fetch, go, same, sh

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

# A process that holds a secret in its memory alone; it answers on a pipe.
KEEPER = """mkfifo /tmp/ask /tmp/answer; exec python3 -uc '
import os
secret = os.urandom(8).hex()
open("/tmp/pid", "w").write(str(os.getpid()))
while True:
    open("/tmp/ask").read()
    open("/tmp/answer", "w").write(secret)
'"""


async def secret(sandbox):
    return await sh(sandbox, "echo > /tmp/ask; cat /tmp/answer")


async def state(stage, sandbox):
    for found in await stage.listed():
        if found.sandbox_id == sandbox.sandbox_id:
            return getattr(found.state, "value", found.state)
    return None


async def pauses_at_end(stage, timeout):
    if hasattr(stage.sandbox_class, "pause"):
        return await stage.create(timeout=timeout, lifecycle={"on_timeout": "pause"})
    return stage.keep(await go(stage.sandbox_class.beta_create(timeout=timeout, auto_pause=True)))


async def pause_resume(stage):
    sandbox = await stage.create()
    keeper = await background(stage, sandbox, KEEPER, timeout=0)
    await eventually(lambda: sandbox.files.read("/tmp/pid"))
    before, boot = await secret(sandbox), await sh(sandbox, BOOT_ID)
    await go(sandbox.files.write("note.txt", "before the pause"))
    await keeper.disconnect()

    await go(stage.pause(sandbox))
    # That it is paused already is no error; newer SDKs answer False.
    assert await go(stage.pause(sandbox)) in (False, None)
    same(await state(stage, sandbox), "paused")
    same(await go(sandbox.is_running()), False)

    other = await go(stage.sandbox_class.connect(sandbox.sandbox_id))
    same(await state(stage, sandbox), "running")
    # The handle of before works too: the token is the same.
    for handle in (other, sandbox):
        same(await secret(handle), before)
        same(await sh(handle, BOOT_ID), boot)
        same(await go(handle.files.read("note.txt")), "before the pause")
    assert keeper.pid in [one.pid for one in await go(other.commands.list())]
    same(await go(other.commands.kill(keeper.pid)), True)
    late = abs(int(await sh(other, "date +%s")) - time.time())
    assert late < 5, f"the clock is {late} s off"


async def auto_pause(stage):
    sandbox = await pauses_at_end(stage, 4)
    await go(sandbox.files.write("note.txt", "kept"))

    async def paused():
        same(await state(stage, sandbox), "paused")

    await eventually(paused, 40)
    # Until it is, the answer is that it is under way; looking does not wake it.
    async def rests():
        same(await go(sandbox.is_running()), False)

    await eventually(rests)
    await paused()
    again = await go(stage.sandbox_class.connect(sandbox.sandbox_id, timeout=120))
    same(await go(again.files.read("note.txt")), "kept")


async def auto_resume(stage):
    sandbox = await stage.create(lifecycle={"on_timeout": "pause", "auto_resume": True})
    await background(stage, sandbox, "python3 -m http.server 8000", timeout=0)
    port = stage.preview(sandbox, 8000)

    async def serves():
        same((await fetch(port))[0], 200)

    await eventually(serves)
    # A call of the agent wakes it, and so does a request for any port.
    await go(stage.pause(sandbox))
    same(await sh(sandbox, "echo awake"), "awake")
    same(await state(stage, sandbox), "running")
    await go(stage.pause(sandbox))
    await serves()
    # Not without the agent's token.
    await go(stage.pause(sandbox))
    same((await fetch(f"{stage.preview(sandbox, 49983)}/files?path=x"))[0], 403)
    same(await state(stage, sandbox), "paused")


async def filesystem_only(stage):
    sandbox = await stage.create()
    await background(stage, sandbox, KEEPER, timeout=0)
    boot = await sh(sandbox, BOOT_ID)
    await go(sandbox.files.write("note.txt", "on disk"))
    await go(stage.pause(sandbox, mode="filesystem"))
    same(await go(sandbox.is_running()), False)
    await go(sandbox.connect(timeout=120))
    assert await sh(sandbox, BOOT_ID) != boot
    same(await go(sandbox.files.read("note.txt")), "on disk")
    same(await sh(sandbox, "pgrep -c python3 || true"), "0")

    auto = await stage.create(timeout=3, lifecycle={"on_timeout": {"action": "pause", "mode": "filesystem"}})
    first = await sh(auto, BOOT_ID)

    async def paused():
        same(await state(stage, auto), "paused")

    await eventually(paused, 40)
    await go(auto.connect(timeout=120))
    assert await sh(auto, BOOT_ID) != first


async def reboot(stage):
    sandbox = await stage.create()
    boot = await sh(sandbox, BOOT_ID)
    await go(sandbox.files.write("note.txt", "stays"))
    await go(sandbox.connect(on_resume="reboot"))
    same(await sh(sandbox, BOOT_ID), boot, "one that runs is left alone")
    await go(stage.pause(sandbox))
    again = await go(stage.sandbox_class.connect(sandbox.sandbox_id, on_resume="reboot"))
    assert await sh(again, BOOT_ID) != boot
    same(await go(again.files.read("note.txt")), "stays")


CASES = {
    "lifecycle/pause-resume": pause_resume,
    "lifecycle/auto-pause": auto_pause,
    "lifecycle/auto-resume": auto_resume,
    "lifecycle/filesystem-only": filesystem_only,
    "lifecycle/reboot": reboot,
}
