from stage import background, fails, go, same, sh

AUTHOR = {"author_name": "A Tester", "author_email": "tester@example.com"}


async def git_local(stage):
    sandbox, path = await stage.folder("git-local")
    git = sandbox.git
    await go(git.init(path, initial_branch="main"))
    await go(sandbox.files.write(f"{path}/README.md", "first\n"))
    status = await go(git.status(path))
    same((status.current_branch, status.is_clean, status.has_untracked), ("main", False, True))
    await go(git.add(path))
    await go(git.commit(path, "One", **AUTHOR))
    same((await go(git.status(path))).is_clean, True)
    same(await sh(sandbox, f"git -C {path} log --format='%an %s'"), "A Tester One")
    await go(git.create_branch(path, "topic"))
    await go(sandbox.files.write(f"{path}/README.md", "second\n"))
    status = await go(git.status(path))
    same((status.current_branch, status.unstaged_count), ("topic", 1))
    await go(git.restore(path, paths=["README.md"]))
    same(await go(sandbox.files.read(f"{path}/README.md")), "first\n")
    await go(git.checkout_branch(path, "main"))
    branches = await go(git.branches(path))
    same((branches.current_branch, sorted(branches.branches)), ("main", ["main", "topic"]))
    await go(git.delete_branch(path, "topic"))
    await fails(lambda: git.checkout_branch(path, "no-such-branch"), "CommandExitException")


async def git_remote(stage):
    sandbox, path = await stage.folder("git-remote")
    git = sandbox.git
    await go(git.init(f"{path}/served/app.git", bare=True, initial_branch="main"))
    daemon = (
        f"git daemon --reuseaddr --export-all --enable=receive-pack --base-path={path}/served "
        "--listen=127.0.0.1 --port=9419"
    )
    await background(stage, sandbox, daemon, timeout=0)
    url = "git://127.0.0.1:9419/app.git"
    await sh(sandbox, f"for n in $(seq 50); do git ls-remote {url} && break; sleep 0.2; done")
    work, clone = f"{path}/work", f"{path}/clone"
    await go(git.init(work, initial_branch="main"))
    await go(sandbox.files.write(f"{work}/file", "1\n"))
    await go(git.add(work))
    await go(git.commit(work, "One", **AUTHOR))
    await go(git.remote_add(work, "origin", url))
    await go(git.push(work, remote="origin", branch="main", set_upstream=True))
    await go(git.clone(url, path=clone, branch="main", depth=1))
    same(await go(sandbox.files.read(f"{clone}/file")), "1\n")
    await go(sandbox.files.write(f"{work}/file", "2\n"))
    await go(git.add(work))
    await go(git.commit(work, "Two", **AUTHOR))
    await go(git.push(work))
    await go(git.pull(clone))
    same(await go(sandbox.files.read(f"{clone}/file")), "2\n")


CASES = {
    "git/local": git_local,
    "git/remote": git_remote,
}
