-- name: ListResources :many
-- A page in the order of ids. Empty filters ask for all.
SELECT r.* FROM delta_resource r
WHERE r.id > @after_id
  AND (cardinality(@kinds::text[]) = 0 OR r.kind = ANY (@kinds::text[]))
  AND (cardinality(@object_ids::text[]) = 0 OR r.object_id = ANY (@object_ids::text[]))
  AND (cardinality(@namespaces::text[]) = 0 OR r.namespace = ANY (@namespaces::text[]))
  AND (cardinality(@states::text[]) = 0 OR r.state::text = ANY (@states::text[]))
  AND r.tags @> @tags::text[]
  AND r.metadata @> @labels::jsonb
ORDER BY r.id
LIMIT @batch::integer;

-- name: CountResources :many
SELECT r.kind, r.state, count(*) AS count FROM delta_resource r
WHERE (cardinality(@kinds::text[]) = 0 OR r.kind = ANY (@kinds::text[]))
  AND (cardinality(@namespaces::text[]) = 0 OR r.namespace = ANY (@namespaces::text[]))
GROUP BY r.kind, r.state
ORDER BY r.kind, r.state;

-- name: ListControllers :many
SELECT * FROM delta_controller ORDER BY name;

-- name: CountOverdue :many
-- Lifecycles whose step is overdue by more than a grace, by kind: read off the index of the dispatcher.
SELECT r.kind, count(*) AS count, min(r.dispatch_at)::timestamptz AS oldest FROM delta_resource r
WHERE r.dispatch_at < now() - @grace::interval GROUP BY r.kind ORDER BY r.kind;

-- name: ResourcesByID :many
SELECT r.* FROM (SELECT unnest(@object_ids::text[]) AS object_id) i
CROSS JOIN LATERAL (
    SELECT d.* FROM delta_resource d WHERE d.kind = @kind AND d.object_id = i.object_id LIMIT 1
) r;

-- name: ObjectIDOfHash :one
SELECT object_id FROM delta_resource WHERE kind = @kind AND hashed_id = @hashed_id;

-- name: ListNamespaces :many
SELECT * FROM delta_namespace ORDER BY name;
