import hashlib
import io
import time

from stage import eventually, fails, fetch, go, parsed, same, sh

ABSENT = ("FileNotFoundException", "NotFoundException")
GIB = 2**30
PIECE = 2**20
# Takes every free block of the disk.
FILL = (
    "n=0; for size in 1G 64M 1M 4K; do "
    "while fallocate -l $size /fill$n 2> /dev/null; do n=$((n+1)); done; done; true"
)


class Watch:
    """Events of a folder in either flavour: the async SDK calls back, the sync one is asked."""

    def __init__(self, stage):
        self._is_async = stage.is_async
        self._seen = []
        self._handle = None

    async def start(self, sandbox, path, **options):
        if self._is_async:
            options["on_event"] = self._seen.append
        self._handle = await go(sandbox.files.watch_dir(path, **options))
        return self

    def events(self):
        if not self._is_async:
            self._seen.extend(self._handle.get_new_events())
        return list(self._seen)

    def pairs(self):
        return [(event.name, event.type.value) for event in self.events()]

    def forget(self):
        self.events()
        self._seen.clear()

    async def stop(self):
        await go(self._handle.stop())


async def write_read(stage):
    sandbox, path = await stage.folder("write-read")
    files = sandbox.files
    written = await go(files.write(f"{path}/a b+ü.txt", "hello\n"))
    same((written.name, written.path), ("a b+ü.txt", f"{path}/a b+ü.txt"))
    same(await go(files.read(f"{path}/a b+ü.txt")), "hello\n")
    await go(files.write(f"{path}/a b+ü.txt", "less"))
    same(await go(files.read(f"{path}/a b+ü.txt")), "less")
    data = bytes(at * 7 % 256 for at in range(70_000))
    await go(files.write(f"{path}/deep/er/bytes", data))
    same(bytes(await go(files.read(f"{path}/deep/er/bytes", format="bytes"))), data)
    await go(files.write("py-write-read/relative", "here"))
    same(await go(files.read("py-write-read/relative")), "here")
    # Folders on the way are the user's, even below the root.
    await go(files.write("/py-of-the-user/file", "x"))
    same(await sh(sandbox, 'stat -c "%U %a" /py-of-the-user /py-of-the-user/file'), "user 755\nuser 644")
    await go(files.write("of-root", "x", user="root"))
    same(await sh(sandbox, "sudo stat -c %U /root/of-root"), "root")
    many = [{"path": f"{path}/one", "data": "1"}, {"path": f"{path}/sub/two", "data": b"2"}]
    same([one.path for one in await go(files.write_files(many))], [f"{path}/one", f"{path}/sub/two"])
    same(await go(files.read(f"{path}/sub/two")), "2")
    await fails(lambda: files.read(f"{path}/absent"), *ABSENT)


async def tree(stage):
    sandbox, path = await stage.folder("tree")
    files = sandbox.files
    same(await go(files.make_dir(f"{path}/x/y")), True)
    same(await go(files.make_dir(f"{path}/x/y")), False)
    await go(files.write(f"{path}/x/file", "12345"))
    await go(files.write(f"{path}/.hidden", ""))
    listed = [(one.name, one.type.value) for one in await go(files.list(path))]
    same(listed, [(".hidden", "file"), ("x", "dir")])
    deep = [one.path for one in await go(files.list(path, depth=3))]
    same(deep, [f"{path}/{name}" for name in (".hidden", "x", "x/file", "x/y")])
    info = await go(files.get_info(f"{path}/x/file"))
    said = (info.name, info.type.value, info.size, info.mode, info.permissions, info.owner, info.group)
    same(said, ("file", "file", 5, 0o644, "-rw-r--r--", "user", "user"))
    assert abs(info.modified_time.timestamp() - time.time()) < 86_400
    moved = await go(files.rename(f"{path}/x/file", f"{path}/new/place"))
    same(moved.path, f"{path}/new/place")
    same(await go(files.exists(f"{path}/x/file")), False)
    same(await go(files.exists(f"{path}/new/place")), True)
    await go(files.remove(f"{path}/x"))
    same(await go(files.exists(f"{path}/x/y")), False)
    await go(files.remove(f"{path}/x"))
    await fails(lambda: files.get_info(f"{path}/x"), *ABSENT)
    await fails(lambda: files.list(f"{path}/x"), *ABSENT)
    await fails(lambda: files.rename(f"{path}/x", f"{path}/z"), *ABSENT)


async def watch(stage):
    sandbox, path = await stage.folder("watch")
    seen = await Watch(stage).start(sandbox, path)
    await go(sandbox.files.write(f"{path}/new.txt", "small"))
    new = [("new.txt", kind) for kind in ("create", "chmod", "write")]
    await eventually(lambda: same(seen.pairs(), new))
    seen.forget()
    await go(sandbox.files.rename(f"{path}/new.txt", f"{path}/other.txt"))
    moved = {("new.txt", "rename"), ("other.txt", "create")}
    await eventually(lambda: same(set(seen.pairs()), moved))
    seen.forget()
    await go(sandbox.files.remove(f"{path}/other.txt"))
    await eventually(lambda: ("other.txt", "remove") in seen.pairs())
    await seen.stop()
    await fails(lambda: Watch(stage).start(sandbox, f"{path}/absent"), *ABSENT, "SandboxException")


async def watch_more(stage):
    sandbox, path = await stage.folder("watch-more")
    await go(sandbox.files.make_dir(f"{path}/old"))
    seen = await Watch(stage).start(sandbox, path, recursive=True, include_entry=True)
    await go(sandbox.files.write(f"{path}/old/a", "abc"))
    await go(sandbox.files.write(f"{path}/fresh/deep/b", "abcd"))

    def all_of_it():
        events = seen.events()
        written = [one for one in events if (one.name, one.type.value) == ("old/a", "write")]
        assert written and written[0].entry.size == 3, events
        assert ("fresh", "create") in [(one.name, one.type.value) for one in events]
        assert "fresh/deep/b" in [one.name for one in events]

    await eventually(all_of_it)
    await seen.stop()
    await fails(lambda: Watch(stage).start(sandbox, f"{path}/old/a"), "InvalidArgumentException")


async def signed_url(stage):
    sandbox, path = await stage.folder("signed")
    boundary = "a-boundary"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="ignored.txt"\r\n\r\n'
        f"by form\r\n--{boundary}--\r\n"
    ).encode()
    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    status, _ = await fetch(sandbox.upload_url(f"{path}/sent.txt"), "POST", kind, body)
    same(status, 200)
    same(await go(sandbox.files.read(f"{path}/sent.txt")), "by form")
    down = sandbox.download_url(f"{path}/sent.txt")
    same(await fetch(down), (200, b"by form"))
    status, _ = await fetch(down.replace("sent.txt", "other.txt"))
    assert status in (400, 401, 502), status
    _, shadow = await fetch(sandbox.download_url("/etc/shadow", user="root"))
    assert shadow.startswith(b"root:"), shadow


async def signed_expiry(stage):
    sandbox, path = await stage.folder("expiry")
    await go(sandbox.files.write(f"{path}/file", "x"))
    good = sandbox.download_url(f"{path}/file", use_signature_expiration=60)
    same(await fetch(good), (200, b"x"))
    status, body = await fetch(sandbox.download_url(f"{path}/file", use_signature_expiration=-5))
    same(status, 401)
    assert "expired" in parsed(body)["message"]


async def formats(stage):
    sandbox, path = await stage.folder("formats")
    files = sandbox.files
    text = "zwölf Boxkämpfer 🥊\n" * 3000
    data = text.encode()
    for name, content in {"string": text, "bytes": data, "file": io.BytesIO(data)}.items():
        await go(files.write(f"{path}/{name}", content))
        same(await go(files.read(f"{path}/{name}")), text, name)
    file = f"{path}/string"
    same(bytes(await go(files.read(file, format="bytes"))), data)
    same(await collect(await go(files.read(file, format="stream"))), data)
    await go(files.write(f"{path}/zipped", text, gzip=True))
    same(await sh(sandbox, f"wc -c < {path}/zipped"), str(len(data)), "stored plain")
    same(await go(files.read(f"{path}/zipped", gzip=True)), text)
    await go(files.write(f"{path}/octets", text, use_octet_stream=True))
    same(await go(files.read(f"{path}/octets")), text)
    many = [{"path": f"{path}/many/{n}", "data": f"file {n}"} for n in range(40)]
    same(len(await go(files.write_files(many))), 40)
    same(await sh(sandbox, f"cat {path}/many/* | wc -c"), str(sum(len(one["data"]) for one in many)))
    same(await go(files.write_files([])), [])


async def pieces_of(stream):
    if hasattr(stream, "__aiter__"):
        async for piece in stream:
            yield piece
    else:
        for piece in stream:
            yield piece


async def collect(stream):
    return b"".join([bytes(piece) async for piece in pieces_of(stream)])


async def metadata(stage):
    sandbox, path = await stage.folder("metadata")
    files = sandbox.files
    said = {"author": "me", "stage": "two words"}
    sent = {"Author": "me", "stage": "two words"}
    same((await go(files.write(f"{path}/a", "x", metadata=sent))).metadata, said)
    same((await go(files.get_info(f"{path}/a"))).metadata, said)
    same((await go(files.list(path)))[0].metadata, said)
    # Each upload says all of it anew.
    same((await go(files.write(f"{path}/a", "y"))).metadata, None)
    same((await go(files.get_info(f"{path}/a"))).metadata, None)
    long = {"key": "v" * 5000}
    await fails(lambda: files.write(f"{path}/b", "x", metadata=long), "InvalidArgumentException")


async def special(stage):
    sandbox, path = await stage.folder("special")
    files = sandbox.files
    await go(files.write(f"{path}/target", "seen through"))
    await sh(sandbox, "ln -s target link; ln -s nowhere broken; mkfifo pipe; mkdir d; ln -s d dirlink", cwd=path)
    same(await go(files.read(f"{path}/link")), "seen through")
    link = await go(files.get_info(f"{path}/link"))
    same((link.symlink_target, link.permissions[0]), (f"{path}/target", "L"))
    same([one.name for one in await go(files.list(path))], ["d", "dirlink", "link", "target"])
    same(await go(files.exists(f"{path}/broken")), True)
    assert (await go(files.read("/proc/version"))).startswith("Linux version")
    await go(files.write(f"{path}/empty", ""))
    same(await go(files.read(f"{path}/empty")), "")


class Numbered(io.RawIOBase):
    """1 GiB of numbered pieces, hashed as they are read."""

    def __init__(self):
        self.hash = hashlib.sha256()
        self._at = 0
        self._rest = b""

    def readable(self):
        return True

    def read(self, size=-1):
        if not self._rest and self._at < GIB // PIECE:
            self._rest = self._at.to_bytes(4, "big") + bytes([self._at % 251]) * (PIECE - 4)
            self.hash.update(self._rest)
            self._at += 1
        size = len(self._rest) if size is None or size < 0 else size
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


async def big(stage):
    sandbox = await stage.create(timeout=900)
    content = Numbered()
    await go(sandbox.files.write("/home/user/big", content, use_octet_stream=True, request_timeout=0))
    same((await go(sandbox.files.get_info("/home/user/big"))).size, GIB)
    received, length = hashlib.sha256(), 0
    stream = await go(sandbox.files.read("/home/user/big", format="stream", request_timeout=0))
    async for piece in pieces_of(stream):
        received.update(piece)
        length += len(piece)
    same(length, GIB)
    same(received.hexdigest(), content.hash.hexdigest())


async def bad_request(stage):
    sandbox, path = await stage.folder("bad")
    files = sandbox.files
    await go(files.write(f"{path}/file", "x"))
    await fails(lambda: files.read(path), "InvalidArgumentException")
    await fails(lambda: files.write(path, "x"), "InvalidArgumentException")
    await fails(lambda: files.list(f"{path}/file"), "InvalidArgumentException")
    await fails(lambda: files.make_dir(f"{path}/file"), "InvalidArgumentException")
    await fails(lambda: files.read(f"{path}/absent"), "FileNotFoundException")
    nobody = "nobody-of-that-name"
    await fails(lambda: files.read(f"{path}/file", user=nobody), "AuthenticationException")
    await fails(lambda: files.list(path, user=nobody), "AuthenticationException")
    full = await stage.create()
    await sh(full, FILL, user="root", timeout=0)
    more = b"x" * (8 * 2**20)
    await fails(lambda: full.files.write("/home/user/more", more), "NotEnoughSpaceException")


CASES = {
    "files/write-read": write_read,
    "files/tree": tree,
    "files/watch": watch,
    "files/watch-more": watch_more,
    "files/signed-url": signed_url,
    "files/signed-expiry": signed_expiry,
    "files/formats": formats,
    "files/metadata": metadata,
    "files/special": special,
    "files/big": big,
    "files/bad-request": bad_request,
}
