import asyncio
import datetime
import json
import re
import uuid

from e2b import SandboxQuery, SandboxState

from stage import eventually, fails, fetch, go, parsed, same, sh

ABSENT = "i0000000000000000000"
# What an SDK says of a sandbox that is not there, newest first.
GONE = ("SandboxNotFoundException", "NotFoundException", "SandboxException")


def ids(found):
    return [one.sandbox_id for one in found]


async def create(stage):
    sandbox = await stage.create(metadata={"purpose": "test"}, envs={"GREETING": "hello"})
    assert re.fullmatch("[a-z0-9]+", sandbox.sandbox_id)
    same(await go(sandbox.is_running()), True)
    same(await sh(sandbox, "echo $GREETING from $(whoami) in $PWD"), "hello from user in /home/user")
    same(await sh(sandbox, "echo $E2B_SANDBOX $E2B_SANDBOX_ID"), f"true {sandbox.sandbox_id}")


async def connect(stage):
    sandbox = await stage.create(timeout=200)
    await go(sandbox.files.write("note.txt", "left here"))
    before = await go(sandbox.get_info())
    other = await go(stage.sandbox_class.connect(sandbox.sandbox_id, timeout=60))
    same(other.sandbox_id, sandbox.sandbox_id)
    same(await go(other.files.read("note.txt")), "left here")
    # A shorter timeout does not shorten what is left (SDKs of 2.2 set it all the same); a longer one counts.
    if hasattr(stage.sandbox_class, "pause"):
        same((await go(sandbox.get_info())).end_at, before.end_at)
    await go(stage.sandbox_class.connect(sandbox.sandbox_id, timeout=900))
    longer = (await go(sandbox.get_info())).end_at - before.end_at
    assert longer > datetime.timedelta(seconds=500), longer
    await fails(lambda: stage.sandbox_class.connect(ABSENT), *GONE)


async def listing(stage):
    run = str(uuid.uuid4())
    odd = {"a b&c=d": "é %2F?+"}
    first = await stage.create(metadata={"run": run, **odd})
    second = await stage.create(metadata={"run": run, "which": "second"})

    async def having(**more):
        return ids(await stage.listed(query=SandboxQuery(metadata={"run": run, **more})))

    same(set(await having()), {first.sandbox_id, second.sandbox_id})
    same(await having(which="second"), [second.sandbox_id])
    same(await having(**odd), [first.sandbox_id])
    paused = SandboxQuery(metadata={"run": run}, state=[SandboxState.PAUSED])
    same(await stage.listed(query=paused), [])
    either = SandboxQuery(
        metadata={"run": run, "which": "second"}, state=[SandboxState.RUNNING, SandboxState.PAUSED]
    )
    [info] = await stage.listed(query=either)
    same(info.state, SandboxState.RUNNING)
    same(info.metadata, {"run": run, "which": "second"})
    assert info.end_at > info.started_at and info.cpu_count >= 1 and info.memory_mb >= 128


async def list_pages(stage):
    run = str(uuid.uuid4())
    made = [(await stage.create(metadata={"run": run})).sandbox_id for _ in range(3)]
    query = SandboxQuery(metadata={"run": run})
    pages = stage.sandbox_class.list(limit=2, query=query)
    same(ids(await go(pages.next_items())), [made[2], made[1]])
    assert pages.has_next
    rest = stage.sandbox_class.list(limit=2, next_token=pages.next_token, query=query)
    same(ids(await go(rest.next_items())), [made[0]])
    assert not rest.has_next
    exact = stage.sandbox_class.list(limit=3, query=query)
    same(len(await go(exact.next_items())), 3)
    assert not exact.has_next


async def list_order(stage):
    run = str(uuid.uuid4())
    metadata = {"run": run}
    first = await stage.create(metadata=metadata)
    second = await stage.create(metadata=metadata)
    both = [first.sandbox_id, second.sandbox_id]

    async def found(order=None, **more):
        options = {"order": order} if order else {}
        return ids(await stage.listed(query=SandboxQuery(metadata=metadata, **more), **options))

    same(await found(order="asc"), both)
    same(await found(order="desc"), both[::-1])
    started = (await go(second.get_info())).started_at
    same(await found(started_after=started), [second.sandbox_id])
    same(await found(order="asc", template="base"), both)
    same(await found(template="no-such-template"), [])


async def kill(stage):
    sandbox = await stage.create()
    same(await go(sandbox.kill()), True)
    same(await go(sandbox.kill()), False)
    same(await go(sandbox.is_running()), False)
    same(await go(stage.sandbox_class.kill(sandbox.sandbox_id)), False)
    await fails(sandbox.get_info, *GONE)
    # What a command says then has changed over the versions.
    await fails(
        lambda: sandbox.commands.run("true"),
        "SandboxNotRunningException",
        "TimeoutException",
        "NotFoundException",
        "SandboxException",
    )


async def timeout(stage):
    sandbox = await stage.create(timeout=120)
    await go(sandbox.set_timeout(600))
    now = datetime.datetime.now(datetime.timezone.utc)
    left = ((await go(sandbox.get_info())).end_at - now).total_seconds()
    assert 580 < left < 610, left
    await go(sandbox.set_timeout(2))

    async def over():
        return not await go(sandbox.is_running())

    await eventually(over)
    await fails(sandbox.get_info, *GONE)
    await fails(lambda: sandbox.set_timeout(60), *GONE)


async def info(stage):
    sandbox = await stage.create(metadata={"who": "me"}, timeout=300)
    found = await go(stage.sandbox_class.get_info(sandbox.sandbox_id))
    same(found.sandbox_id, sandbox.sandbox_id)
    assert found.template_id
    same(found.metadata, {"who": "me"})
    now = datetime.datetime.now(datetime.timezone.utc)
    assert abs((found.started_at - now).total_seconds()) < 60
    span = (found.end_at - found.started_at).total_seconds()
    assert 295 < span < 330, span
    assert found.cpu_count >= 1 and found.memory_mb >= 128
    if hasattr(found, "lifecycle"):
        same(found.name, "base")
        same(dict(found.lifecycle), {"on_timeout": "kill", "auto_resume": False})


async def metrics(stage):
    sandbox = await stage.create()

    async def some():
        found = await go(sandbox.get_metrics())
        assert found, "there are no metrics yet"
        return found

    sample = (await eventually(some, 45))[-1]
    assert sample.cpu_count >= 1 and sample.cpu_used_pct >= 0
    assert 0 < sample.mem_used < sample.mem_total and sample.mem_total > 100 * 2**20
    assert 0 < sample.disk_used < sample.disk_total and sample.disk_total > 100 * 2**20
    now = datetime.datetime.now(datetime.timezone.utc)
    ago = lambda hours: now - datetime.timedelta(hours=hours)
    same(await go(sandbox.get_metrics(start=ago(2), end=ago(1))), [])


async def secured(stage):
    sandbox = await stage.create()
    agent = stage.preview(sandbox, 49983)
    same((await fetch(f"{agent}/health"))[0], 204)
    headers = {"content-type": "application/json"}
    body = json.dumps({"path": "/"}).encode()
    for token in [{}, {"x-access-token": "wrong"}]:
        url = f"{agent}/filesystem.Filesystem/ListDir"
        status, said = await fetch(url, "POST", {**headers, **token}, body)
        same((status, parsed(said)["code"]), (401, 401))
    same((await fetch(f"{agent}/files?path=/etc/passwd"))[0], 401)
    same((await fetch(f"{agent}/init", "POST", headers, b"{}"))[0], 404)


async def idempotent(stage):
    key = f"key-{uuid.uuid4()}"
    create = lambda **more: stage.create(idempotency_key=key, **more)
    first = await create(metadata={"n": "1"})
    second = await create(metadata={"n": "1"})
    same(second.sandbox_id, first.sandbox_id)
    error = await fails(lambda: create(metadata={"n": "2"}), "SandboxException")
    assert error.status_code in (409, 422), error.status_code
    # At once: one sandbox for both.
    if stage.is_async:
        other = f"key-{uuid.uuid4()}"
        pair = await asyncio.gather(*(stage.create(idempotency_key=other) for _ in range(2)))
        same(pair[0].sandbox_id, pair[1].sandbox_id)


CASES = {
    "sandboxes/create": create,
    "sandboxes/connect": connect,
    "sandboxes/list": listing,
    "sandboxes/list-pages": list_pages,
    "sandboxes/list-order": list_order,
    "sandboxes/kill": kill,
    "sandboxes/timeout": timeout,
    "sandboxes/info": info,
    "sandboxes/metrics": metrics,
    "sandboxes/secured": secured,
    "sandboxes/idempotent": idempotent,
}
