import asyncio
import re
import time

from e2b import PtySize

from stage import background, eventually, fails, go, reconnect, same, sh, terminal

EXIT = "CommandExitException"


async def foreground(stage):
    sandbox = await stage.shared()
    pieces = []
    result = await go(
        sandbox.commands.run(
            "echo out; echo err >&2",
            on_stdout=lambda text: pieces.append(f"1{text}"),
            on_stderr=lambda text: pieces.append(f"2{text}"),
        )
    )
    same((result.exit_code, result.stdout, result.stderr), (0, "out\n", "err\n"))
    same(sorted(pieces), ["1out\n", "2err\n"])
    failed = await fails(lambda: sandbox.commands.run("echo said; echo why >&2; exit 7"), EXIT)
    same((failed.exit_code, failed.stdout, failed.stderr), (7, "said\n", "why\n"))
    missing = await fails(lambda: sandbox.commands.run("no-such-program"), EXIT)
    same(missing.exit_code, 127)


async def in_background(stage):
    sandbox = await stage.shared()
    run = await background(stage, sandbox, "echo first; sleep 1; echo second; sleep 600")
    assert run.pid > 0
    await run.until(lambda out: out == "first\nsecond\n")
    [listed] = [one for one in await go(sandbox.commands.list()) if one.pid == run.pid]
    same((listed.cmd, listed.args[:2]), ("/bin/bash", ["-l", "-c"]))
    same(await sh(sandbox, f"kill -0 {run.pid} && echo alive"), "alive")
    same(await run.kill(), True)
    await fails(run.wait(), EXIT)
    assert run.pid not in [one.pid for one in await go(sandbox.commands.list())]
    short = await go(sandbox.commands.run("echo done", background=True))
    same((await go(short.wait())).stdout, "done\n")


async def stdin(stage):
    sandbox = await stage.shared()
    run = await background(stage, sandbox, 'while read line; do echo "got $line"; done', stdin=True)
    await go(sandbox.commands.send_stdin(run.pid, "one\n"))
    await run.until(lambda out: out == "got one\n")
    await go(sandbox.commands.send_stdin(run.pid, "two\nthree\n"))
    await run.until(lambda out: out == "got one\ngot two\ngot three\n")
    same(await go(sandbox.commands.kill(run.pid)), True)
    await fails(run.wait(), EXIT)


async def close_stdin(stage):
    sandbox = await stage.shared()
    run = await background(stage, sandbox, "wc -c", stdin=True)
    await go(run.handle.send_stdin("12345"))
    await go(run.handle.send_stdin(b"x" * 100_000))
    await go(run.handle.close_stdin())
    same((await run.wait()).stdout.strip(), "100005")
    same((await go(sandbox.commands.run("cat", stdin=False, timeout=10))).stdout, "")


async def stream_input(stage):
    sandbox = await stage.shared()
    run = await background(stage, sandbox, "wc -l", stdin=True)
    lines = [f"line {n}\n" for n in range(500)]
    if stage.is_async:
        async with sandbox.commands.stream_input(run.pid) as stream:
            for line in lines:
                await stream.send(line)
    else:
        sandbox.commands.stream_input(run.pid, lines)
    await go(sandbox.commands.close_stdin(run.pid))
    same((await run.wait()).stdout.strip(), "500")

    async def absent():
        if not stage.is_async:
            return sandbox.commands.stream_input(999_999, ["x"])
        async with sandbox.commands.stream_input(999_999) as stream:
            await stream.send("x")

    await fails(absent, "NotFoundException")


async def kill(stage):
    sandbox = await stage.shared()
    run = await background(stage, sandbox, "sleep 600")
    same(await go(sandbox.commands.kill(run.pid)), True)
    killed = await fails(run.wait(), EXIT)
    assert killed.exit_code != 0 and "killed" in (killed.error or ""), killed
    same(await go(sandbox.commands.kill(run.pid)), False)
    same(await go(sandbox.commands.kill(999_999)), False)
    # A signal by hand: the command may end as it likes.
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    trap = await background(stage, sandbox, script)
    await trap.until(lambda out: out == "ready\n")
    await sh(sandbox, f"kill -TERM {trap.pid}")
    ended = await fails(trap.wait(), EXIT)
    same((ended.exit_code, ended.stdout), (3, "ready\nbye\n"))


async def connect_again(stage):
    sandbox = await stage.shared()
    script = "for n in $(seq 1 200); do echo $n; sleep 0.1; done"
    run = await background(stage, sandbox, script)
    await asyncio.sleep(1)
    await run.disconnect()
    await asyncio.sleep(0.5)
    again = await reconnect(stage, sandbox, run.pid)
    same(again.pid, run.pid)

    await again.until(lambda out: len(out.split("\n")) > 3)
    assert int(again.out.split("\n")[0]) > 3, "it went on meanwhile, and that is not sent again"
    same(await again.kill(), True)
    await fails(again.wait(), EXIT)
    await fails(lambda: sandbox.commands.connect(999_999), "NotFoundException", "SandboxException")


async def timeout(stage):
    sandbox = await stage.shared()
    started = time.monotonic()
    # Older SDKs stop reading at the same moment as the agent stops the command: whichever is first.
    stopped = ("TimeoutException", "ReadTimeout")
    await fails(lambda: sandbox.commands.run("sleep 60 # of the timeout", timeout=2), *stopped)
    assert time.monotonic() - started < 15

    async def gone():
        same(await sh(sandbox, "pgrep -fc '[o]f the timeout' || true"), "0")

    await eventually(gone)
    same((await go(sandbox.commands.run("sleep 2; echo late", timeout=0))).stdout, "late\n")


async def environment(stage):
    sandbox = await stage.create(envs={"OF_SANDBOX": "sandbox", "BOTH": "sandbox"})
    quoted = "a \"b\" 'c' $d"
    out = await sh(
        sandbox,
        'echo "$OF_SANDBOX/$BOTH/$QUOTED"; pwd; id -un; echo $HOME',
        envs={"BOTH": "command", "QUOTED": quoted},
        cwd="/tmp",
        user="root",
    )
    same(out, f"sandbox/command/{quoted}\n/tmp\nroot\n/root")
    same(await sh(sandbox, "id -un; pwd; sudo id -un"), "user\n/home/user\nroot")


async def unicode(stage):
    sandbox = await stage.shared()
    # Written a byte at a time with a flush between: every chunk splits a character.
    text = "héllo wörld 🦀 " * 4 + "終わり"
    script = f"""import sys, time
for byte in {text!r}.encode():
    sys.stdout.buffer.write(bytes([byte])); sys.stdout.flush(); time.sleep(0.01)"""
    await go(sandbox.files.write("/tmp/slow.py", script))
    pieces = []
    result = await go(sandbox.commands.run("python3 /tmp/slow.py", on_stdout=pieces.append))
    same(result.stdout, text)
    same("".join(pieces), text)
    assert len(pieces) > 5
    long = await go(sandbox.commands.run("""python3 -c 'print("🦀" * 100000, end="")'"""))
    same(long.stdout, "🦀" * 100_000)


async def big_output(stage):
    sandbox = await stage.shared()
    length = 0

    def take(text):
        nonlocal length
        length += len(text)

    command = 'head -c 104857600 /dev/zero | tr "\\0" x'
    result = await go(sandbox.commands.run(command, on_stdout=take, timeout=0))
    same((len(result.stdout), length), (104_857_600, 104_857_600))


async def sandbox_killed(stage):
    sandbox = await stage.create()
    run = await background(stage, sandbox, "echo on; sleep 600")
    await run.until(lambda out: out == "on\n")
    same(await go(sandbox.kill()), True)
    await fails(run.wait(), "SandboxNotRunningException")


async def bad_request(stage):
    sandbox = await stage.shared()
    run = sandbox.commands.run
    missing = await fails(lambda: run("true", cwd="/no/such/folder"), "InvalidArgumentException")
    assert "does not exist" in str(missing)
    await fails(lambda: run("true", user="nobody-of-that-name"), "AuthenticationException")
    await fails(lambda: sandbox.commands.send_stdin(999_999, "x"), "NotFoundException")
    await fails(lambda: sandbox.commands.connect(999_999), "NotFoundException")
    await fails(lambda: sandbox.commands.close_stdin(999_999), "NotFoundException")
    await fails(lambda: sandbox.pty.resize(999_999, PtySize(rows=24, cols=80)), "NotFoundException")


async def pty_session(stage):
    sandbox = await stage.shared()
    shell = await terminal(stage, sandbox, PtySize(rows=24, cols=80), envs={"FROM_REQUEST": "yes"})

    def write(text):
        return go(sandbox.pty.send_stdin(shell.pid, text.encode()))

    def said(pattern):
        return shell.until(lambda out: re.search(pattern, out.decode(errors="replace")))

    await write('echo "$FROM_REQUEST $TERM $(tty) $(id -un)"; stty size\n')
    await said(r"yes xterm-256color /dev/pts/\d+ user\r\n24 80")
    await go(sandbox.pty.resize(shell.pid, PtySize(rows=50, cols=132)))
    await write("stty size; tput cols\n")
    await said(r"50 132\r\n132")
    # Ctrl-C reaches what runs.
    await write("sleep 611\n")
    await eventually(lambda: sandbox.commands.run("pgrep -f '^sleep 611'"))
    await write("\x03")
    await write('echo "then 🦀 $((40+2))"\n')
    await said("then 🦀 42")
    await write("exit 5\n")
    same((await fails(shell.wait(), EXIT)).exit_code, 5)


async def pty_reconnect(stage):
    sandbox = await stage.shared()
    shell = await terminal(stage, sandbox, PtySize(rows=24, cols=80))
    await go(sandbox.pty.send_stdin(shell.pid, b"STATE=kept\n"))
    await shell.disconnect()
    again = await terminal(stage, sandbox, pid=shell.pid)
    await go(sandbox.pty.send_stdin(shell.pid, b'echo "still $STATE"\n'))
    await again.until(lambda out: b"still kept" in out)
    assert shell.pid in [one.pid for one in await go(sandbox.commands.list())]
    same(await go(sandbox.pty.kill(shell.pid)), True)
    await fails(again.wait(), EXIT)
    same(await go(sandbox.pty.kill(shell.pid)), False)


CASES = {
    "commands/foreground": foreground,
    "commands/background": in_background,
    "commands/stdin": stdin,
    "commands/close-stdin": close_stdin,
    "commands/stream-input": stream_input,
    "commands/kill": kill,
    "commands/reconnect": connect_again,
    "commands/timeout": timeout,
    "commands/environment": environment,
    "commands/unicode": unicode,
    "commands/big-output": big_output,
    "commands/sandbox-killed": sandbox_killed,
    "commands/bad-request": bad_request,
    "pty/session": pty_session,
    "pty/reconnect": pty_reconnect,
}
