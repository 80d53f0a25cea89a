#!/bin/sh
# From nothing to the demo policies, in a cluster of minikube. docs/minikube.md explains every step.
set -eu
cd "$(dirname "$0")/../.."

cargo xtask image
minikube start --profile palisade --container-runtime containerd --cni bridge
minikube image load --profile palisade "target/dist/palisade-image-$(uname -m).tar"
kubectl apply -k deploy/kustomize
kubectl --namespace kube-system rollout status daemonset/palisade --timeout=180s
deploy/examples/demo.sh
