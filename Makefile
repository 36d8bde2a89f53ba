# make demo   shows the engine at work        make test   the whole suite
# Both bring what they need: Debian packages, a virtual environment, all plugins. They run as root on Debian 12.

PYTHON  ?= python3
BIN     := .venv/bin
MEMBERS := core $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
SOURCES := core/wharfie scripts $(wildcard plugins/*/wharfie_*)
TOOLS   := ruff mypy import-linter pytest pytest-timeout pytest-xdist hypothesis docker hatchling

empty   :=
space   := $(empty) $(empty)

# What the engine needs of the host, then what only the tests use.
DEBS    := python3-venv nftables libnftables1 iproute2 busybox-static ca-certificates
DEBS    += docker-registry skopeo umoci podman openssl procps apache2-utils curl
DEBS    += runc crun runsc tini containernetworking-plugins iptables
DEBS    += e2fsprogs btrfs-progs util-linux iperf3 docker-compose criu
# What `make test-cgroup2` installs beside them; the kernel that it boots is unpacked and thrown away.
CGROUP2_DEBS := qemu-system-x86 kmod

# The tests speak through the stock docker command line; where there is none, Debian's is taken out of its package, without
# the daemon that comes with it.
CLI     := $(if $(shell command -v docker),,$(BIN)/docker)
# So is containerd, whose shim drives wharfie-runtime in a test: installed it would be a service of this host.
SHIM    := $(if $(shell command -v containerd-shim-runc-v2),,$(BIN)/containerd)
# And firewalld, with what it stands on; a test starts it in a network namespace, with a bus of its own.
WALL    := $(BIN)/firewalld
WALL_DEBS := firewalld python3-firewall python3-nftables python3-dbus python3-gi gir1.2-glib-2.0 libgirepository-1.0-1
WALL_DEBS += libglib2.0-0 dbus-daemon libdbus-1-3 libapparmor1 libcap-ng0

.PHONY: demo test test-cgroup2 check bench setup deps

demo: setup
	$(BIN)/python scripts/demo.py

test: setup $(CLI) $(SHIM) $(WALL)
	PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/pytest -n 3 --dist loadfile

# The tests of control groups on a kernel that has version 2 alone, in a virtual machine. TESTS="paths" runs others there.
test-cgroup2: DEBS += $(CGROUP2_DEBS)
test-cgroup2: setup $(CLI)
	PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/python scripts/cgroup2.py $(TESTS)

$(BIN)/docker: | deps
	folder=$$(mktemp -d) && cd $$folder && apt-get update -qq && apt-get download -qq docker.io && dpkg -x docker.io*.deb . && \
	install usr/bin/docker $(CURDIR)/$@ && rm -r $$folder

$(BIN)/containerd: | deps
	folder=$$(mktemp -d) && cd $$folder && apt-get update -qq && apt-get download -qq containerd && dpkg -x containerd*.deb . && \
	install usr/bin/ctr usr/bin/containerd-shim-runc-v2 usr/bin/containerd $(CURDIR)/$(BIN) && rm -r $$folder

$(WALL): | deps
	folder=$$(mktemp -d) && cd $$folder && apt-get update -qq && apt-get download -qq $(WALL_DEBS) && \
	for package in *.deb; do dpkg -x $$package unpacked; done && mv unpacked $(CURDIR)/$@ && rm -r $$folder

bench: setup
	$(BIN)/python scripts/bench.py
	$(BIN)/python scripts/bench_images.py
	$(BIN)/python scripts/bench_networks.py
	$(BIN)/python scripts/bench_runtimes.py
	$(BIN)/python scripts/bench_streams.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=$(subst $(space),:,$(MEMBERS) scripts) $(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/python -m wharfie.kit.coverage

# Installed again when a member appears or its pyproject, or a pinned version, changes.
setup: .venv/installed

.venv/installed: constraints.txt pyproject.toml $(MEMBERS:%=%/pyproject.toml) | deps
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(TOOLS) $(MEMBERS:%=-e ./%)
	touch $@

deps:
	@missing=$$(for name in $(DEBS); do dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || echo $$name; done); \
	test -z "$$missing" || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }
