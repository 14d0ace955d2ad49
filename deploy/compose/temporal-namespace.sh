#!/bin/sh
# Registers a namespace and the search attributes of Delta's workflows. Running it again changes nothing. TEMPORAL_ADDRESS says where the
# server is, and TEMPORAL_NAMESPACE which namespace: "default" unless set.
set -eu

namespace=${TEMPORAL_NAMESPACE:-default}
# The frontend listens before it serves.
tries=60
until temporal operator cluster health >/dev/null 2>&1; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || { temporal operator cluster health; exit 1; }
	sleep 1
done
temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1 ||
	temporal operator namespace create --namespace "$namespace" --retention 72h
# The server answers "not found" until its caches have the new namespace.
tries=60
until temporal operator search-attribute create --namespace "$namespace" \
	--name DeltaKind --type Keyword --name DeltaNamespace --type Keyword --name DeltaState --type Keyword; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || exit 1
	sleep 1
done
