# make demo: the main job on a real VM.   make test: everything.   Both set up what is missing.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: release demo test check sim bench vectors setup generate

setup:
	@sh scripts/setup.sh

demo:
	@version=$$(sh scripts/setup.sh) && node scripts/demo.ts "$$version"

test:
	@version=$$(sh scripts/setup.sh) && THAW_VERSION_DIR="$$version" node scripts/test.ts

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
