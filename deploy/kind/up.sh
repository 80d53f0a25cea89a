#!/bin/sh
# From nothing to the demo policies, in a cluster of kind. docs/kind.md explains every step.
set -eu
cd "$(dirname "$0")/../.."

cargo xtask image
kind create cluster --name palisade --config deploy/kind/cluster.yaml
docker exec --interactive palisade-control-plane \
    tee /etc/cni/net.d/10-ptp.conflist <deploy/kind/10-ptp.conflist >/dev/null
kubectl wait --for=condition=Ready node --all --timeout=180s
kind load image-archive --name palisade "target/dist/palisade-image-$(uname -m).tar"
kubectl apply -k deploy/kustomize
kubectl --namespace kube-system rollout status daemonset/palisade --timeout=180s
deploy/examples/demo.sh
