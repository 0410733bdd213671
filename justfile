# `just` alone lists the recipes. Those of CI are also in ./dev, which needs nothing but bash.

_default:
    @just --list

# Everything on this machine, ready to try.
demo *args:
    ./dev demo {{args}}

# All that CI runs.
test:
    ./dev test

# Unit and integration tests only; arguments go to the runner.
unit *args:
    ./dev unit {{args}}

# Client libraries and tools against the demo.
e2e:
    ./dev e2e

# On the cluster of KUBECONFIG, with IMAGE on its nodes; see e2e/kubernetes/run.
kubernetes *cases:
    cargo build --locked --quiet --package sidegate
    SIDEGATE="${CARGO_TARGET_DIR:-{{justfile_directory()}}/target}/debug/sidegate" e2e/kubernetes/run {{cases}}

fmt:
    cargo fmt

lint:
    ./dev lint

# Licences, sources and bans of the dependencies.
deny:
    cargo deny check licenses bans sources

# The container image as a tar, without Docker: for `docker load`, `ctr images import`, `kind load image-archive`.
image *args:
    scripts/image {{args}}
