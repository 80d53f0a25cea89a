#!/bin/sh
# A default-deny comes to a live namespace without an outage: audit, watch, ask why, mend, enforce, prove. Fails where a
# step does not show what docs/rollout.md says of it, or where anything the shop lives on is cut at any time.
# Needs kubectl, palisade and a cluster with Palisade. `rollout.sh remove` takes everything away again.
set -eu
cd "$(dirname "$0")/rollout"

shop=palisade-shop
lived=$(mktemp)
trap 'rm -f "$lived"' EXIT

in_shop() {
    kubectl --namespace "$shop" "$@"
}

say() {
    echo
    echo "## $*"
}

# Shows a command and what it prints, which is kept for `has`.
show() {
    echo "\$ $*"
    # A negative answer is an answer.
    shown=$("$@" 2>&1) || [ $? -eq 1 ] || fail "$shown"
    printf '%s\n' "$shown"
}

fail() {
    echo "$*" >&2
    exit 1
}

# Shows a command until it prints that, or has not for a while.
until_it_has() {
    wanted=$1
    shift
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        shown=$("$@" 2>&1) || true
        case $shown in *"$wanted"*) break ;; esac
        sleep 0.5
    done
    show "$@"
    has "$wanted"
}

has() {
    case $shown in *"$1"*) ;; *) fail "expected: $1" ;; esac
}

has_not() {
    case $shown in *"$1"*) fail "not expected: $1" ;; esac
}

ask() {
    in_shop exec "$1" -- /agnhost connect --timeout=2s "$2" 2>/dev/null
}

# What the shop lives on, once.
live() {
    ask frontend "$service:80" && ask api "$db:5432" && ask report "$db:5432"
}

# The same again and again, for as long as the file is there; the file says what was cut.
live_on() {
    while [ -e "$lived" ]; do
        live || [ ! -e "$lived" ] || echo cut >>"$lived"
    done
}

if [ "${1-}" = remove ]; then
    kubectl delete --ignore-not-found --filename shop.yaml
    exit
fi

kubectl apply --filename shop.yaml
in_shop delete networkpolicy --all
in_shop wait --for=condition=Ready pod --all --timeout=180s
service=$(in_shop get service api --output 'jsonpath={.spec.clusterIP}')
api=$(in_shop get pod api --output 'jsonpath={.status.podIP}')
db=$(in_shop get pod db --output 'jsonpath={.status.podIP}')
live || fail "the shop does not work without a policy"
live_on &
customers=$!

say "Audit: nothing is denied in the namespace, and what would be is told"
kubectl annotate --overwrite namespace "$shop" palisade/mode=audit
until_it_has "$shop" palisade status
kubectl apply --filename policies.yaml

say "Watch: what would be cut, and by which policies"
until_it_has "$shop/app=report" palisade audit --namespace "$shop"
show palisade flows --namespace "$shop" --verdict audited --last 3
has "AUDITED"

say "Why: the rule that comes nearest"
show palisade explain --from "$shop/report" --to "$shop/db" --port 5432
has "allowed, in audit"
has "not by db ingress"

say "Mend: first on paper, then in the cluster"
show palisade simulate --candidate report.yaml --enforced --fail-on never
has "$shop/report"
kubectl apply --filename report.yaml
show palisade verify --expect expectations.txt --enforced
has "6 of 6 expectations hold"
show palisade lint --fail-on error
sleep 1
mended=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 3
show palisade flows --namespace "$shop" --verdict audited --since "$mended"
has_not "report"

say "Enforce: what nobody needs is denied"
kubectl annotate namespace "$shop" palisade/mode-
# An agent learns of it a moment later.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    ask stranger "$api:8080" || break
done
until_it_has "DENIED" palisade flows --namespace "$shop" --from-pod "$shop/stranger" --verdict denied --last 1
has "default-deny"

say "Prove it, with real connections"
show palisade verify --expect expectations.txt --probe
has "6 of 6 expectations hold"
show palisade probe --from "$shop/stranger" --to "$shop/db:5432"
has "DENIED"

say "What is there: by pod, by policy, in the kernel, for an audit"
show palisade pods --namespace "$shop"
has "stranger"
show palisade policies --namespace "$shop"
has "db-report"
show palisade explain --from "$shop/report" --to "$shop/db" --port 5432 --live
has "in the kernel of"
has_not "the kernel differs"
show palisade report
has "$shop"

say "The brake: whoever has to, lets everything pass for a while"
show palisade pause --for 10m --namespace "$shop"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    passed=yes
    ask stranger "$api:8080" && break
    passed=no
done
[ "$passed" = yes ] || fail "the pause is not in force"
show palisade pause --end --namespace "$shop"

cut=$(wc -l <"$lived")
rm -f "$lived"
wait "$customers"
echo
echo "what the shop lives on was cut $cut times"
[ "$cut" -eq 0 ]
