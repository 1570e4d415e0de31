"""Changes pages of memory and blocks of a file, each change following from a seed, and tells their sums.

checksummer.py SEED PAGES BLOCKS FILE IN OUT

Commands come by the pipe IN: `ballast` takes much memory and gives it back; `go` starts changing, one step after
another, until `halt`, which answers on OUT:
the number of steps done so far (u64) and the first 4 bytes of the MD5 of every page, then of every block.
What a step changes is written down in checksummer.ts, which replays it.
"""

import hashlib
import mmap
import os
import select
import struct
import sys

PAGE = 4096
PARTIAL = 64
FSYNC_EVERY = 64
BALLAST = 16 << 20

seed, pages, blocks, file, commands, answers = sys.argv[1:]
pages, blocks = int(pages), int(blocks)


def stream(label, size):
    return hashlib.shake_128(f"{seed}/{label}".encode()).digest(size)


def fill(region, index):
    return bytes(PAGE) if index % 4 == 3 else stream(f"fill/{region}/{index}", PAGE)


# Private: a shared mapping keeps what is given back.
memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for index in range(pages):
    memory[index * PAGE : (index + 1) * PAGE] = fill("memory", index)
disk = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
for index in range(blocks):
    os.pwrite(disk, fill("disk", index), index * PAGE)
os.fsync(disk)


def step(number):
    where, kind, at, which = struct.unpack("<4I", stream(f"step/{number}", 16))
    if kind % 4 < 2:
        content, offset = stream(f"content/{number}", PAGE), 0
    elif kind % 4 == 2:
        content, offset = bytes(PAGE), 0
    else:
        content, offset = stream(f"content/{number}", PARTIAL), at % (PAGE - PARTIAL)
    if which % 4 == 0:
        os.pwrite(disk, content, where % blocks * PAGE + offset)
        return
    start = where % pages * PAGE + offset
    # Half of the pages that become zero are given back instead of written.
    if kind % 4 == 2 and at % 2 == 0:
        memory.madvise(mmap.MADV_DONTNEED, start, PAGE)
    else:
        memory[start : start + len(content)] = content


def ballast():
    """Free memory in pieces large enough for the kernel to report them to the host."""
    with mmap.mmap(-1, BALLAST, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as filled:
        filled[:] = b"\xa5" * BALLAST


def sums():
    view = memoryview(memory)
    parts = [hashlib.md5(view[i * PAGE : (i + 1) * PAGE]).digest()[:4] for i in range(pages)]
    os.fsync(disk)
    # What is read below comes from the disk, not from the guest's cache.
    os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
    for i in range(blocks):
        parts.append(hashlib.md5(os.pread(disk, PAGE, i * PAGE)).digest()[:4])
    return b"".join(parts)


for fifo in (commands, answers):
    os.mkfifo(fifo)
# Open for both ways: it never ends.
source = os.open(commands, os.O_RDWR)
number, running = 0, False
while True:
    if running and not select.select([source], [], [], 0)[0]:
        step(number)
        number += 1
        if number % FSYNC_EVERY == 0:
            os.fsync(disk)
        continue
    for command in os.read(source, PAGE).decode().split():
        if command == "ballast":
            ballast()
            continue
        running = command == "go"
        if command == "halt":
            with open(answers, "wb") as out:
                out.write(struct.pack("<Q", number) + sums())
