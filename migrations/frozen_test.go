package migrations_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/frozen"
	"github.com/chariot-giving/delta/migrations"
)

var position = regexp.MustCompile(`^column \d+ `)

// Users query the tables, and clients of the release before run on the migrated schema while they are replaced. So tables, columns, types and functions stay.
// Of functions only the signature is recorded: a migration may give one another body.
func TestTheSchemaIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	pool := emptySchema(t, deltatest.New(t), "")
	require.NoError(t, migrations.Up(t.Context(), pool))
	var lines []string
	for line := range strings.SplitSeq(dump(t, pool), "\n") {
		// From Postgres 18 on, NOT NULL is a constraint with a name too.
		if !strings.HasPrefix(line, "function ") && !strings.Contains(line, ": NOT NULL ") {
			lines = append(lines, position.ReplaceAllString(line, "column "))
		}
	}
	rows, err := pool.Query(t.Context(), `
		SELECT replace(format('function %s(%s) returns %s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid)),
			quote_ident(current_schema()) || '.', '')
		FROM pg_proc WHERE pronamespace = current_schema()::regnamespace`)
	require.NoError(t, err)
	functions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	frozen.Check(t, "../api/schema.txt", append(lines, functions...))
}
