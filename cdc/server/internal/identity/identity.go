// Package identity tells of which tables updates and deletes name their rows. Postgres refuses updates and deletes of a
// published table of which they do not.
package identity

// CTE is what a query has after WITH: generated has generated columns that no publication has, and identified(oid) the tables with
// an identity. A replica identity, a primary key also, is one of an index that is valid and not deferrable
// (RelationGetIndexList in Postgres' relcache.c). Postgres 18 refuses updates, too, where a generated column that is not published
// belongs to it (CheckCmdReplicaIdentity in execReplication.c).
const CTE = `generated AS (
	SELECT attrelid, attnum FROM pg_attribute
	WHERE attgenerated <> '' AND NOT attisdropped AND current_setting('server_version_num')::int >= 180000
), identified AS (
	SELECT c.oid FROM pg_class c
	WHERE c.relkind IN ('r', 'p') AND (
		c.relreplident = 'f' AND NOT EXISTS (SELECT FROM generated g WHERE g.attrelid = c.oid)
		OR EXISTS (
			SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
			AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
			AND NOT EXISTS (SELECT FROM generated g WHERE g.attrelid = c.oid AND g.attnum = ANY (i.indkey))))
)`
