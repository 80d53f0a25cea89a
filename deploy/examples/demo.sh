#!/bin/sh
# Two clients ask a server through its Service, under one policy after the other; fails where a policy is not in force.
# Needs kubectl and a cluster with Palisade. `demo.sh remove` takes everything away again.
set -eu
cd "$(dirname "$0")"

in_demo() {
    kubectl --namespace palisade-demo "$@"
}

# Whether a client gets an answer, once that is as expected or has not been so for a while.
expect() {
    client=$1 expected=$2 found=
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if in_demo exec "$client" -- /agnhost connect --timeout=1s "$server:80" 2>/dev/null; then
            found=yes
        else
            found=no
        fi
        [ "$found" = "$expected" ] && break
    done
    echo "  $client -> server: $found"
    if [ "$found" != "$expected" ]; then
        echo "expected: $expected" >&2
        exit 1
    fi
}

if [ "${1-}" = remove ]; then
    kubectl delete --ignore-not-found --filename pods.yaml
    exit
fi

kubectl apply --filename pods.yaml
in_demo wait --for=condition=Ready pod --all --timeout=180s
server=$(in_demo get service server --output 'jsonpath={.spec.clusterIP}')

in_demo delete networkpolicy --all
echo "without a policy:"
expect friend yes
expect stranger yes

kubectl apply --filename policies/nobody.yaml
echo "nothing passes:"
expect friend no
expect stranger no

kubectl apply --filename policies/friend.yaml
echo "the friend may:"
expect friend yes
expect stranger no

echo "and why the stranger may not:"
# It exits 1 where the answer is no.
kubectl --namespace kube-system exec daemonset/palisade --container agent -- palisade explain \
    --from palisade-demo/stranger --to palisade-demo/server --port 8080/TCP || [ $? -eq 1 ]
