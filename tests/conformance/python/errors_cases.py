import os

import e2b

from stage import fails, go, same

# Well formed, and nobody's.
ABSENT = "i0000000000000000000"
WRONG_KEY = "e2b_" + "0" * 40


async def key(stage):
    sandbox_id = (await stage.shared()).sandbox_id
    sandboxes = stage.sandbox_class
    wrong = {"api_key": WRONG_KEY}
    calls = [
        lambda: sandboxes.create(**wrong),
        lambda: sandboxes.list(**wrong).next_items(),
        lambda: sandboxes.get_info(sandbox_id, **wrong),
        lambda: sandboxes.connect(sandbox_id, **wrong),
        lambda: sandboxes.kill(sandbox_id, **wrong),
        lambda: sandboxes.pause(sandbox_id, **wrong),
        lambda: sandboxes.set_timeout(sandbox_id, 1, **wrong),
        lambda: sandboxes.create_snapshot(sandbox_id, **wrong),
        lambda: sandboxes.fork(sandbox_id, **wrong),
    ]
    for call in calls:
        await fails(call, "AuthenticationException")


async def absent(stage):
    sandboxes = stage.sandbox_class
    calls = [
        lambda: sandboxes.get_info(ABSENT),
        lambda: sandboxes.connect(ABSENT),
        lambda: sandboxes.pause(ABSENT),
        lambda: sandboxes.set_timeout(ABSENT, 1),
        lambda: sandboxes.get_metrics(ABSENT),
        lambda: sandboxes.create_snapshot(ABSENT),
        lambda: sandboxes.fork(ABSENT),
        lambda: sandboxes.update_network(ABSENT, {}),
        lambda: sandboxes.get_info("Not-An-Id"),
    ]
    for call in calls:
        await fails(call, "SandboxNotFoundException")
    same(await go(sandboxes.kill(ABSENT)), False)
    same(await go(sandboxes.delete_snapshot("no-such-snapshot")), False)
    same(await go(sandboxes.delete_snapshot("team/no-such:tag")), False)
    template = await fails(lambda: sandboxes.create("no-such-template"), "SandboxException")
    same(template.status_code, 404)
    assert "no-such-template" in str(template)


async def refused(stage):
    sandboxes = stage.sandbox_class

    async def status(attempt):
        return (await fails(attempt, "SandboxException")).status_code

    same(await status(lambda: stage.create(timeout=0)), 400)
    same(await status(lambda: stage.create(timeout=10**9)), 400)
    same(await status(lambda: stage.create(network={"deny_out": ["not an address"]})), 400)
    same(await status(lambda: sandboxes.list(limit=101).next_items()), 400)
    same(await status(lambda: sandboxes.list(next_token="made up").next_items()), 400)
    sandbox = await stage.create()
    used = await go(sandbox.create_snapshot())
    spawned = await stage.create(used.snapshot_id)
    same(await status(lambda: sandboxes.delete_snapshot(used.snapshot_id)), 400)
    await go(spawned.kill())
    await go(sandbox.kill())
    same(await go(sandboxes.delete_snapshot(used.snapshot_id)), True)


async def quota(stage):
    # A key of a team that may have one sandbox.
    poor = {"api_key": os.environ["THAW_TEST_POOR_KEY"]}
    one = stage.keep(await go(stage.sandbox_class.create(**poor)))
    await fails(lambda: stage.sandbox_class.create(**poor, retries=0), "RateLimitException")
    await go(one.kill())
    await go(stage.keep(await go(stage.sandbox_class.create(**poor))).kill())


async def unsupported(stage):
    # Each says so, none of them is ignored.
    await fails(lambda: stage.create(volume_mounts={"/data": "volume"}), "SandboxException")
    iam = {"tokens": {"aws": {"audience": "x", "token_type": "JWT-SVID"}}}
    await fails(lambda: stage.create(iam=iam), "SandboxException")
    await fails(lambda: stage.create(mcp={"brave": {"apiKey": "none"}}), "SandboxException")
    proxy = {"egress_proxy": {"address": "proxy.example.com:1080"}}
    await fails(lambda: stage.create(network=proxy), "SandboxException")
    rules = {"rules": {"example.com": [{"transform": {"headers": {"X-Own": "value"}}}]}}
    await fails(lambda: stage.create(network=rules), "SandboxException")
    kinds = (e2b.AsyncVolume, e2b.AsyncSecret) if stage.is_async else (e2b.Volume, e2b.Secret)
    await fails(lambda: kinds[0].create("volume"), "VolumeException")
    await fails(lambda: kinds[1].create("secret", "value"), "SecretException")
    template = e2b.AsyncTemplate if stage.is_async else e2b.Template
    await fails(lambda: template.build(template().from_base_image(), "name"), "BuildException")


CASES = {
    "errors/key": key,
    "errors/absent": absent,
    "errors/refused": refused,
    "errors/quota": quota,
    "errors/unsupported": unsupported,
}
