-- Deliveries that were received.

-- name: ReceiveDelivery :execrows
-- No row means that the delivery was received before. If another transaction receives it at this moment, this waits for
-- its end. A delivery that has expired and was not removed yet counts as new.
INSERT INTO delta_delivery AS d (endpoint, id, expires_at) VALUES (@endpoint, @id, now() + @keep::interval)
ON CONFLICT (endpoint, id) DO UPDATE SET received_at = now(), expires_at = excluded.expires_at WHERE d.expires_at < now();

-- name: SweepDeliveries :execrows
DELETE FROM delta_delivery d WHERE (d.endpoint, d.id) IN (
    SELECT e.endpoint, e.id FROM delta_delivery e WHERE e.expires_at < now() ORDER BY e.expires_at LIMIT @most::integer
);
