# "make run" tries the program, "make test" tests it; see README.md.
GO         ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTESTFLAGS ?=
FUZZTIME   ?= 100000x
PREFIX     ?= /usr/local
VERSION    ?=
ROUNDS     ?= 200
CRASH      ?= required
SOAK       ?= 30m
AUDIT      ?= required

.PHONY: run build install deb test race lint fuzz bench crash soak audit clean

run: build
	exec bin/restante demo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/restante ./cmd/restante

# After "make build": root's PATH often has no Go.
install:
	@test -x bin/restante || { echo 'run "make build" first' >&2; exit 1; }
	install -D -m 0755 bin/restante $(DESTDIR)$(PREFIX)/bin/restante
	install -D -m 0644 cmd/restante/packaging/restante.service $(DESTDIR)/etc/systemd/system/restante.service

# For this machine and those like it. VERSION is for a source without a history.
deb: build
	cmd/restante/packaging/deb/build bin/restante '$(VERSION)' bin

test:
	$(GO) test $(GOTESTFLAGS) ./...

race:
	$(MAKE) test GOTESTFLAGS="-race $(GOTESTFLAGS)"

lint:
	@unformatted=$$(gofmt -l auth cmd pop3d smtpd storage); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted" >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# Each fuzz target for FUZZTIME: a number of inputs, or a time such as 10m.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "fuzz $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
		done; \
	done

# Bounded: some minutes. The second part writes to a new directory in DIR.
bench: build
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 200ms ./...
	bin/restante bench --dir $(or $(DIR),.)

# As root: cuts the power of a file system in a file, and kills the server,
# ROUNDS times each.
crash:
	TEST_CRASH=$(CRASH) CRASH_ROUNDS=$(ROUNDS) $(GO) test ./cmd/restante -run 'TestPowerCut|TestKill' -count=1 -v -timeout=0

soak:
	SOAK=$(SOAK) $(GO) test ./cmd/restante -run TestSoak -count=1 -v -timeout=0

# Lets floods, testssl.sh, nmap, swaks and doona loose on servers of its own, on loopback.
# AUDIT=optional does without those that are not installed, AUDIT=quick leaves out
# what takes minutes.
audit:
	TEST_AUDIT=$(AUDIT) $(GO) test ./cmd/restante -run 'TestAudit|TestFlood' -count=1 -v -timeout=0 -parallel=16

clean:
	rm -rf bin
