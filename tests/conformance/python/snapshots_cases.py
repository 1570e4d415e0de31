import uuid

import e2b

from stage import fails, go, same, sh

ABSENT = "i0000000000000000000"
# What is only in memory: a file of a tmpfs.
IN_MEMORY = "/dev/shm/state"


async def snapshots(stage, **options):
    pages = stage.sandbox_class.list_snapshots(**options)
    found = []
    while pages.has_next:
        found.extend(await go(pages.next_items()))
    return found


async def snapshot(stage):
    sandbox = await stage.create(envs={"WHO": "first"})
    await go(sandbox.files.write(IN_MEMORY, "frozen"))
    before = await go(sandbox.get_info())
    made = await go(sandbox.create_snapshot())
    assert made.snapshot_id
    # It goes on, under its id and with its end.
    same((await go(sandbox.get_info())).end_at, before.end_at)
    await go(sandbox.files.write(IN_MEMORY, "changed since"))
    assert made.snapshot_id in [one.snapshot_id for one in await snapshots(stage, sandbox_id=sandbox.sandbox_id)]
    spawned = await stage.create(made.snapshot_id, envs={"WHO": "second"})
    same(await go(spawned.files.read(IN_MEMORY)), "frozen")
    same(await sh(spawned, "echo $WHO $E2B_SANDBOX_ID"), f"second {spawned.sandbox_id}")
    # It outlives its sandbox.
    await go(sandbox.kill())
    await go(spawned.kill())
    late = await stage.create(made.snapshot_id)
    same(await go(late.files.read(IN_MEMORY)), "frozen")
    await go(late.kill())
    same(await go(stage.sandbox_class.delete_snapshot(made.snapshot_id)), True)
    same(await go(stage.sandbox_class.delete_snapshot(made.snapshot_id)), False)


async def named(stage):
    name = f"snap-{uuid.uuid4().hex[:8]}"
    sandbox = await stage.create()
    await go(sandbox.files.write("version", "1"))
    first = await go(sandbox.create_snapshot(name=f"{name}:v1"))
    assert any(name in said for said in first.names), first.names
    await go(sandbox.files.write("version", "2"))
    second = await go(sandbox.create_snapshot(name=name))
    wanted = [(f"{name}:v1", "1"), (name, "2"), (first.snapshot_id, "1"), (second.snapshot_id, "2")]
    for template, version in wanted:
        spawned = await stage.create(template)
        same(await go(spawned.files.read("version")), version, template)
        await go(spawned.kill())
    assert await snapshots(stage, name=name)
    same(await snapshots(stage, name="no-such-name"), [])
    await go(sandbox.kill())
    same(await go(stage.sandbox_class.delete_snapshot(name)), True)
    same(await go(stage.sandbox_class.delete_snapshot(name)), False)
    await fails(sandbox.create_snapshot, "SandboxNotFoundException")


async def fork(stage):
    sandbox = await stage.create()
    await go(sandbox.files.write(IN_MEMORY, "shared"))
    forks = await go(sandbox.fork(count=2, timeout=120))
    same(len(forks), 2)
    for one in forks:
        if isinstance(one, Exception):
            raise one
        stage.keep(one)
    same(len({one.sandbox_id for one in [sandbox, *forks]}), 3)
    for index, one in enumerate(forks):
        same(await go(one.files.read(IN_MEMORY)), "shared")
        await go(one.files.write(IN_MEMORY, f"own {index}"))
        same(await sh(one, "echo $E2B_SANDBOX_ID"), one.sandbox_id)
    for index, one in enumerate(forks):
        same(await go(one.files.read(IN_MEMORY)), f"own {index}")
    same(await go(sandbox.files.read(IN_MEMORY)), "shared")
    await fails(lambda: stage.sandbox_class.fork(ABSENT), "SandboxNotFoundException")


async def exists(stage):
    template = e2b.AsyncTemplate if stage.is_async else e2b.Template
    same(await go(template.exists("base")), True)
    same(await go(template.exists("no-such-template")), False)


async def tags(stage):
    template = e2b.AsyncTemplate if stage.is_async else e2b.Template
    name = f"tagged-{uuid.uuid4().hex[:8]}"
    sandbox = await stage.create()
    await go(sandbox.files.write("version", "1"))
    await go(sandbox.create_snapshot(name=f"{name}:v1"))
    assigned = await go(template.assign_tags(f"{name}:v1", ["production", "stable"]))
    same(sorted(assigned.tags), ["production", "stable"])
    known = {tag.tag: tag.build_id for tag in await go(template.get_tags(name))}
    same({tag: known[tag] for tag in ("v1", "production", "stable")}, dict.fromkeys(("v1", "production", "stable"), assigned.build_id))
    spawned = await stage.create(f"{name}:production")
    same(await go(spawned.files.read("version")), "1")
    await go(spawned.kill())
    await go(template.remove_tags(name, ["production", "stable"]))
    assert not {"production", "stable"} & {tag.tag for tag in await go(template.get_tags(name))}
    await fails(lambda: stage.create(f"{name}:production"), "SandboxException")
    await fails(lambda: template.assign_tags("no-such-template", "v1"), "TemplateException")
    await go(sandbox.kill())
    same(await go(stage.sandbox_class.delete_snapshot(f"{name}:v1")), True)


CASES = {
    "snapshots/create": snapshot,
    "snapshots/named": named,
    "snapshots/fork": fork,
    "templates/exists": exists,
    "templates/tags": tags,
}
