package db_test

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// encodingStatements rewrite objects with another codec or key, a page at a time.
func encodingStatements(few int) map[string]frequent {
	q := db.New()
	return map[string]frequent{
		"StoredObjectsOf, ReencodeObjects": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				rows, err := q.StoredObjectsOf(ctx, conn, ids)
				if err != nil || len(rows) != len(ids) {
					return 0, fmt.Errorf("%d objects: %w", len(rows), err)
				}
				var p db.ReencodeObjectsParams
				for _, row := range rows {
					p.Ids, p.OldObjects, p.Objects = append(p.Ids, row.ID), append(p.OldObjects, row.Object), append(p.Objects, []byte(`{"delta.encoded": "AA=="}`))
					p.OldSyncedObjects, p.SyncedObjects, p.Hashes = append(p.OldSyncedObjects, ""), append(p.SyncedObjects, ""), append(p.Hashes, []byte{1})
				}
				written, err := q.ReencodeObjects(ctx, db.Planned(conn, len(p.Ids)), p)
				return len(written), err
			},
			does: few, most: 4 * few,
		},
		"StoredObjects": {
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				// Pages are planned each time.
				if err := planEachTime(ctx, conn); err != nil {
					return 0, err
				}
				rows, err := q.StoredObjects(ctx, db.Planned(conn, 200), db.StoredObjectsParams{AfterKind: "thing", AfterObjectID: "010000", Most: int32(few)})
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
	}
}
