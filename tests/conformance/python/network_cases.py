import os

from stage import fails, go, same, sh

# Two addresses of the internet that the suite made; both answer on port 80, and have names there.
ONE = os.environ.get("THAW_TEST_INTERNET", "")
TWO = os.environ.get("THAW_TEST_ELSEWHERE", "")
NAMES = ["a.b.thaw.test", "one.thaw.test", "two.thaw.test"]
ALL = "0.0.0.0/0"


async def reached(sandbox, hosts=(ONE, TWO)):
    """Which of these hosts answer the guest."""
    probes = [
        f"(timeout 4 bash -c 'read -r -n 4 a < /dev/tcp/{host}/80 && echo {host}' 2> /dev/null) &" for host in hosts
    ]
    return sorted((await sh(sandbox, "\n".join([*probes, "wait"]))).split())


async def none(stage):
    opened = await stage.create()
    same(await reached(opened), sorted([ONE, TWO]))
    same((await go(opened.get_info())).allow_internet_access, None)
    closed = await stage.create(allow_internet_access=False)
    same(await reached(closed), [])
    same((await go(closed.get_info())).allow_internet_access, False)


async def rules(stage):
    denied = await stage.create(network={"deny_out": [f"{ONE}/32"]})
    same(await reached(denied), [TWO])
    allowed = await stage.create(network={"allow_out": [ONE], "deny_out": [ALL]})
    same(await reached(allowed), [ONE])
    said = (await go(allowed.get_info())).network
    same((said["allow_out"], said["deny_out"]), ([ONE], [ALL]))
    await fails(lambda: stage.create(network={"deny_out": ["example.com"]}), "SandboxException")
    await fails(lambda: stage.create(network={"allow_out": ["example.com"]}), "SandboxException")


async def update(stage):
    sandbox = await stage.create()
    await go(sandbox.update_network({"allow_out": [TWO], "deny_out": [ALL]}))
    same(await reached(sandbox), [TWO])
    await go(stage.pause(sandbox))
    await go(sandbox.connect(timeout=120))
    same(await reached(sandbox), [TWO])
    await go(sandbox.update_network({"allow_internet_access": False}))
    same(await reached(sandbox), [])
    await go(sandbox.update_network({}))
    same(await reached(sandbox), sorted([ONE, TWO]))


async def domains(stage):
    opened = await stage.create()
    same(await reached(opened, NAMES), NAMES)
    network = {"allow_out": ["one.thaw.test", "*.b.thaw.test"], "deny_out": [ALL]}
    sandbox = await stage.create(network=network)
    same(await reached(sandbox, NAMES), ["a.b.thaw.test", "one.thaw.test"])
    same(await reached(sandbox, [TWO]), [])


CASES = {
    "network/none": none,
    "network/rules": rules,
    "network/update": update,
    "network/domains": domains,
}
