# The checks themselves are in .ci/run, for both.
.DEFAULT_GOAL := help
.PHONY: binary help quickstart test unit cost peers tls faults ingress cluster deploy image loadtest loadtest-smoke soak fuzz fmt lint deny doc

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: ## the router with sample replicas on loopback, and curl lines to try
	cargo run --quiet --locked -- quickstart

test: ## everything that CI checks; installs what it needs
	@bash .ci/run

unit: ## the Rust tests alone
	@bash .ci/run test

cost: ## instructions and allocations of an exchange, against examples/exchange/cost.json
	@bash .ci/run cost

peers: ## the router with the stock model server, real clients and Prometheus
	@bash .ci/run peers

ingress: ## the router behind nginx: ids, addresses, streams, a drain
	@bash .ci/run ingress

cluster: ## the router on a real Kubernetes control plane; as root
	@bash .ci/run cluster

deploy: ## the chart, its manifests, alerts and dashboard
	@bash .ci/run deploy

image: ## the image, built and started
	@bash .ci/run image

tls: ## the router under a TLS scanner, OpenSSL and curl
	@bash .ci/run tls

faults: ## silent and early replicas, clock jumps, no DNS; as root
	@bash .ci/run faults

binary: ## the router as it is shipped, optimised by a trial run: target/shipped/scorefront
	deploy/build-binary

loadtest: ## waiting, speed, latency beside nginx, HAProxy, Envoy; churn, scaling, memory; a hostile crowd; judged; over an hour, quiet machine
	@bash .ci/run loadtest

loadtest-smoke: ## the same scenarios for seconds, not judged
	@bash .ci/run loadtests

soak: ## mixed load for half an hour while everything changes: all accounts must agree, memory must be flat
	@bash .ci/run soak

fuzz: ## every parser of strangers' bytes under libFuzzer, SECONDS_EACH=600 for each, two side by side
	@bash .ci/run fuzz

fmt: ## format the sources
	cargo fmt
	cd loadtests && cargo fmt
	cd fuzz && cargo fmt

lint: ## formatting and clippy
	@bash .ci/run format lint

deny: ## licences, banned crates and sources of the dependencies
	@bash .ci/run deny

doc: ## the documentation of the code
	@bash .ci/run doc
