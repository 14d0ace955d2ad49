// Package identity finds the tables with a replica identity, by which updates and deletes identify their rows. Postgres refuses updates and
// deletes of a published table that has none.
package identity

// CTE belongs behind WITH in a query. It defines generated, the generated columns that are not published, and identified(oid), the tables
// with a replica identity. The index of a replica identity, also of a primary key, must be valid and not deferrable (RelationGetIndexList
// in Postgres' relcache.c). Postgres 18 also refuses updates if an unpublished generated column belongs to the identity
// (CheckCmdReplicaIdentity in execReplication.c).
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
