# make demo: the main job on a real VM.   make test: everything.   Both set up what is missing.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: conformance release demo test test-vmm check sim bench vectors setup generate crash soak cycles

setup:
	@sh scripts/setup.sh

demo:
	@version=$$(sh scripts/setup.sh) && node scripts/demo.ts "$$version"

test:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" node scripts/test.ts

# Each VMM against the contract of all. THAW_FIRECRACKER_BIN and THAW_FIRECRACKER_KERNEL: a real Firecracker too.
test-vmm:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" node scripts/test.ts --only vmm

# kill -9 at every step, and many rounds: minutes each; the results are kept in docs/results.
crash:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" THAW_CRASH_POINTS=all THAW_RESULTS=$(CURDIR)/docs/results/crash.md \
		node --test --test-concurrency=1 --test-force-exit tests/e2e/crash-points.test.ts tests/e2e/crash.test.ts tests/e2e/step-faults.test.ts tests/e2e/seal-faults.test.ts

soak:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" THAW_SOAK=full THAW_RESULTS=$(CURDIR)/docs/results/soak.md \
		node --test --test-force-exit tests/e2e/soak.test.ts

# 500 pauses, resumes and forks of one sandbox that is at work.
cycles:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" THAW_CYCLES=500 THAW_RESULTS=$(CURDIR)/docs/results/cycles.md \
		node --test --test-force-exit tests/e2e/cycles.test.ts

# The official E2B SDKs, newest and older, every case; writes the table of docs/e2b.md.
conformance:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" THAW_CONFORMANCE=full THAW_RESULTS=$(CURDIR)/docs/results/conformance.md \
		node --test --test-concurrency=1 --test-force-exit tests/conformance/conformance.test.ts

bench:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" node bench/main.ts

check:
	@sh scripts/setup.sh --check-only && node scripts/check.ts

# Thousands of runs of both daemons' verbs in random orders, with faults and kills.
sim:
	@sh scripts/setup.sh --check-only && node tests/sim/main.ts --write

release:
	@version=$$(sh scripts/setup.sh) && node scripts/release.ts "$$version"

vectors:
	@sh scripts/setup.sh --check-only && node scripts/test.ts --only vectors

generate:
	@sh scripts/setup.sh --check-only
	@buf generate && buf generate --template buf.gen.guest.yaml
	@node packages/control-plane/src/main.ts openapi > spec/openapi.yaml
