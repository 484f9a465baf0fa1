# The two commands are `make demo` and `make test`; the rest are their parts.

SHELL := /bin/bash
LLVM_PREFIX := /usr/lib/llvm-22
PACKAGES := libmlir-22-dev mlir-22-tools llvm-22-dev clang-22 libclang-22-dev libpolly-22-dev libzstd-dev zlib1g-dev
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Assembles the device code of every example with NVIDIA's own tools, if they can be had. They come as Python packages,
# need no device and are not redistributed.
CUDA_VENV := target/cuda-venv

.PHONY: help demo test test-ptxas lint setup digits private-report bless bench

help:
	@echo "make demo    train a byte-level GPT on Rust sources, on this CPU, in a few minutes"
	@echo "make test    everything that CI checks"
	@echo "make test-ptxas  assemble the CUDA code of every example with NVIDIA's ptxas (from the Python package index)"
	@echo "make digits  write dsl-examples/digits.csv (8x8 digits, from the scikit-learn package)"
	@echo "make private-report  private digits with and without filters, over five seeds: table and plots in runs/private_report"
	@echo "make bless   rewrite golden pages and generated spec tables after a look at the difference"
	@echo "make bench   step times of the workloads in dsl-examples/bench, beside PyTorch's if target/torch has it"

demo: setup
	cargo build --release -p trainc
	cargo run --release -q -p trainc -- run dsl-examples/gpt_rust.train --out runs/gpt_rust --fresh
	cargo run --release -q -p trainc -- generate runs/gpt_rust --prompt "pub fn " --tokens 400 --temperature 0.7

test: setup lint test-ptxas
ifeq ($(NEXTEST),yes)
	cargo test --workspace --doc -q
	cargo nextest run --workspace --no-fail-fast
else
	cargo test --workspace
endif

test-ptxas: setup
	@if [ ! -e $(CUDA_VENV)/done ]; then \
	    (python3 -m venv $(CUDA_VENV) && $(CUDA_VENV)/bin/pip install -q nvidia-cuda-nvcc nvidia-cuda-nvdisasm \
	        && touch $(CUDA_VENV)/done) || true; \
	fi
	@if [ -e $(CUDA_VENV)/done ]; then \
	    tools=$$(dirname $$(find $(CUDA_VENV) -name ptxas -path '*/bin/*' | head -1)); \
	    TRAINC_CUDA_TOOLS=$$(realpath $$tools) cargo test -q -p trainc-tests --test ptxas -- --ignored; \
	else \
	    echo "SKIPPED: test-ptxas (NVIDIA's assembler cannot be installed with pip); device code is not assembled"; \
	fi

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Installs LLVM and MLIR 22 from the system's packages if they are missing.
setup:
	@if [ ! -e $(LLVM_PREFIX)/lib/libMLIRCAPIIR.a ] || [ ! -e $(LLVM_PREFIX)/lib/libclang.so ]; then \
	    echo "installing LLVM and MLIR 22 (system packages)"; \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends $(PACKAGES); \
	fi

# The digits come with scikit-learn; no network beyond the package registry.
digits: dsl-examples/digits.csv

dsl-examples/digits.csv:
	python3 -m venv target/digits-venv
	target/digits-venv/bin/pip install -q scikit-learn
	target/digits-venv/bin/python dsl-examples/write_digits.py $@

private-report: setup digits
	cargo run --release -p trainc-tests --example private_report

bless:
	BLESS=1 cargo test --workspace

bench: setup
	cargo build --release -p trainc
	python3 tests/bench/compare.py $(if $(wildcard target/torch/bin/python),--python target/torch/bin/python)
