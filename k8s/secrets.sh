#!/bin/sh
# Make the Secrets that the manifests name, with new random values; those that exist are left alone.
#
#   k8s/secrets.sh                 in the namespace fairlane of the present cluster
#   NAMESPACE=other k8s/secrets.sh
#   k8s/secrets.sh --dry-run       print what would be made, ask no cluster
#
# The admin key is printed once, and only its hash is kept. A token for models behind a licence:
#   kubectl -n fairlane create secret generic fairlane-huggingface --from-literal=token=hf_...
set -eu
NAMESPACE=${NAMESPACE:-fairlane}
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=yes; fi

random() { # 256 bits in hex
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# make NAME KEY=VALUE...: values over standard input, so that they stand on no command line.
make() {
    name=$1
    shift
    if [ -z "$dry_run" ] && kubectl -n "$NAMESPACE" get secret "$name" >/dev/null 2>&1; then
        echo "secret/$name is there already" >&2
        return 1
    fi
    {
        printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData:\n' \
            "$name" "$NAMESPACE"
        for pair in "$@"; do printf '  %s: "%s"\n' "${pair%%=*}" "${pair#*=}"; done
    } | if [ -n "$dry_run" ]; then
        cat
        echo ---
    else
        kubectl create -f - >&2
    fi
}

if [ -z "$dry_run" ]; then
    kubectl get namespace "$NAMESPACE" >/dev/null 2>&1 || kubectl create namespace "$NAMESPACE" >&2
fi
make fairlane-grant-key "key=$(random)" || :                          # signs grants
make fairlane-store "password=$(random)" "sentinel=$(random)" || :    # the store, its Sentinels
make fairlane-gcs "password=$(random)" || :                           # Ray's control plane's store
admin_key=sk-admin-$(random)
hash=$(printf %s "$admin_key" | sha256sum | cut -d' ' -f1)
if make fairlane-admin "admin.yaml=admin_key_hashes: [$hash]"; then
    if [ -z "$dry_run" ]; then
        echo "The admin key, shown this once:" >&2
        echo "$admin_key"
    fi
fi
