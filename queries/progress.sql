-- name: InformStanding :one
-- How far a run is whose listing was recorded: read off the listing, so as cheap as the run is small.
SELECT count(*) AS listed,
    count(*) FILTER (WHERE r.state IN ('scheduled', 'pending', 'failed', 'expired') AND NOT r.paused) AS unsettled
FROM delta_listing l LEFT JOIN delta_resource r ON r.kind = @kind AND r.object_id = l.object_id
WHERE l.pass = @pass;
