"""What a case of the suite gets: the SDK under test, sync or async, and sandboxes that end with the case."""

import asyncio
import inspect
import json
import os
import ssl
import time
import urllib.error
import urllib.request

import e2b

TIMEOUT = 300
# A sync call that waits for what never comes ends after this time.
COMMAND_TIMEOUT = 60


async def go(value):
    """A result of either flavour: what the sync one answers, or what the async one's coroutine does."""
    return await value if inspect.isawaitable(value) else value


class Stage:
    """`sandbox_class` is the one that every call starts from."""

    def __init__(self, is_async, mode):
        self.is_async = is_async
        self.mode = mode
        self.sandbox_class = e2b.AsyncSandbox if is_async else e2b.Sandbox
        self._made = []
        self._shared = None

    async def create(self, template=None, **options):
        """Of this case alone; killed at its end."""
        options.setdefault("timeout", TIMEOUT)
        return self.keep(await go(self.sandbox_class.create(template, **options)))

    def keep(self, sandbox):
        self._made.append(sandbox)
        return sandbox

    async def shared(self):
        """One for all cases that leave a sandbox as usable as they found it."""
        if self._shared is None:
            self._shared = await go(self.sandbox_class.create(timeout=3600))
        return self._shared

    async def folder(self, name):
        sandbox = await self.shared()
        path = f"/home/user/py-{name}"
        await go(sandbox.files.make_dir(path))
        return sandbox, path

    async def end(self, failed):
        gone, self._made = self._made, []
        if failed and self._shared is not None:
            gone.append(self._shared)
            self._shared = None
        for sandbox in gone:
            try:
                await go(sandbox.kill())
            except Exception:
                pass

    async def close(self):
        if self._shared is not None:
            await go(self._shared.kill())

    def preview(self, sandbox, port):
        """Where a port of a sandbox is found: by TLS as the SDK says, else by the same name at the plain listener."""
        if self.mode == "tls":
            return f"https://{sandbox.get_host(port)}"
        name, listener = sandbox.get_host(port).split(":")[0], os.environ["E2B_SANDBOX_URL"].rsplit(":", 1)[1]
        return f"http://{name}:{listener}"

    def pause(self, sandbox, **options):
        """SDKs of 2.2 have it under an older name; what it answers came later too."""
        return (sandbox.pause if hasattr(sandbox, "pause") else sandbox.beta_pause)(**options)

    async def listed(self, **options):
        pages = self.sandbox_class.list(**options)
        found = []
        while pages.has_next:
            found.extend(await go(pages.next_items()))
        return found


class Background:
    """A command or terminal in the background, in either flavour: `out` grows as output comes, or is asked for."""

    def __init__(self, stage, pty=False):
        self.out = b"" if pty else ""
        self.handle = None
        self._is_async = stage.is_async
        self._pty = pty
        self._pieces = None

    @property
    def pid(self):
        return self.handle.pid

    def take(self, data):
        self.out += bytes(data) if self._pty else data

    def started(self, handle):
        self.handle = handle
        if not self._is_async:
            # A thread beside would do, were it not for HTTP/2 in older clients: one thread starves the other there.
            self._pieces = iter(handle)
        return self

    async def until(self, holds):
        """Reads until `holds` is true of the output."""
        if self._is_async:
            await eventually(lambda: bool(holds(self.out)))
        while not holds(self.out):
            stdout, _, pty = next(self._pieces)
            piece = pty if self._pty else stdout
            if piece is not None:
                self.take(piece)

    async def wait(self):
        return await go(self.handle.wait())

    async def kill(self):
        return await go(self.handle.kill())

    async def disconnect(self):
        await go(self.handle.disconnect())


async def background(stage, sandbox, command, **options):
    options.setdefault("timeout", COMMAND_TIMEOUT)
    run = Background(stage)
    if stage.is_async:
        options["on_stdout"] = run.take
    return run.started(await go(sandbox.commands.run(command, background=True, **options)))


async def reconnect(stage, sandbox, pid):
    run = Background(stage)
    options = {"on_stdout": run.take} if stage.is_async else {}
    return run.started(await go(sandbox.commands.connect(pid, timeout=COMMAND_TIMEOUT, **options)))


async def terminal(stage, sandbox, size=None, pid=None, **options):
    """A new shell in a terminal of this size, or that of `pid`."""
    options["timeout"] = COMMAND_TIMEOUT
    run = Background(stage, pty=True)
    if stage.is_async:
        options["on_data"] = run.take
    start = sandbox.pty.create(size, **options) if pid is None else sandbox.pty.connect(pid, **options)
    return run.started(await go(start))


async def fails(attempt, *names):
    """Asserts that it fails with an exception of the class of this name, or of one of these in older SDKs."""
    try:
        await go(attempt() if callable(attempt) else attempt)
    except Exception as error:
        assert type(error).__name__ in names, (
            f"{' or '.join(names)} was expected, it is {type(error).__name__}: {error}"
        )
        return error
    raise AssertionError(f"{' or '.join(names)} was expected, and nothing failed")


async def eventually(attempt, within=20.0):
    """Tries until it neither raises nor answers false, at most `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            result = await go(attempt())
            if result is False:
                raise AssertionError("it does not hold")
            return result
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def sh(sandbox, script, **options):
    return (await go(sandbox.commands.run(script, **options))).stdout.strip()


def same(found, expected, what=""):
    assert found == expected, f"{what} {found!r} is not {expected!r}"


async def fetch(url, method="GET", headers=None, data=None):
    """Status, body and headers of a plain request, as another program than the SDK would send it."""

    def send():
        request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
        context = ssl.create_default_context() if url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await asyncio.to_thread(send)


def parsed(body):
    return json.loads(body)
