"""Writes known amounts of memory and disk, and nothing else.

writer.py COUNT FILE IN OUT

Has two areas of COUNT pages in memory and two of COUNT blocks in FILE. Commands come by the pipe IN, each is answered
with a line on OUT: `memory` writes random pages to the first area and zeros to the second, `disk` the same to the
file, past the cache; `fill` makes all four areas random; `sum` answers an MD5 of everything; `idle` does nothing.
"""

import hashlib
import mmap
import os
import sys

PAGE = 4096
STRIDE = 1021

count, file, commands, answers = sys.argv[1:]
count = int(count)
memory = mmap.mmap(-1, 2 * count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
# Aligned, as O_DIRECT wants it, and used again and again.
block = mmap.mmap(-1, PAGE)
random = open("/dev/urandom", "rb", buffering=0)
disk = os.open(file, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)


def randomise(view):
    done = 0
    while done < len(view):
        done += random.readinto(view[done:])


def fill_memory(first, last, zero):
    with memoryview(memory) as view:
        for page in range(first, last):
            with view[page * PAGE : (page + 1) * PAGE] as part:
                if zero:
                    part[:] = zeros
                else:
                    randomise(part)


def fill_disk(first, last, zero):
    for index in range(last - first):
        with memoryview(block) as view:
            if zero:
                view[:] = zeros
            else:
                randomise(view)
        os.pwritev(disk, [block], (first + index * STRIDE % (last - first)) * PAGE)
    os.fsync(disk)


def sums():
    total = hashlib.md5(memory)
    for index in range(2 * count):
        os.preadv(disk, [block], index * PAGE)
        total.update(block)
    return total.hexdigest()


zeros = bytes(PAGE)
fill_memory(0, 2 * count, False)
fill_disk(0, 2 * count, False)
for fifo in (commands, answers):
    os.mkfifo(fifo)
source = os.open(commands, os.O_RDWR)
while True:
    answer = "done"
    match os.read(source, PAGE).decode().strip():
        case "fill":
            fill_memory(0, 2 * count, False)
            fill_disk(0, 2 * count, False)
        case "memory":
            fill_memory(0, count, False)
            fill_memory(count, 2 * count, True)
        case "disk":
            fill_disk(0, count, False)
            fill_disk(count, 2 * count, True)
        case "sum":
            answer = sums()
    with open(answers, "w") as out:
        out.write(answer + "\n")
