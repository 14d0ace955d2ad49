package migrations_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/migrations"
)

var blocks = regexp.MustCompile("(?s)```(sql|sh)\n(.*?)```")

// The commands of docs/migrating-from-river.md run in order: all of the migration but its end, and then, on another installation, the way back.
func TestTheStatementsOfTheGuideRun(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../docs/migrating-from-river.md")
	require.NoError(t, err)
	for name, skip := range map[string]string{"forth": "### Going back", "and back": "### When you are content"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := string(guide)
			before, rest, found := strings.Cut(text, skip)
			require.True(t, found)
			if i := strings.Index(rest, "\n### "); i >= 0 {
				before += rest[i:]
			}
			pool := openOriginal(t, riverSettings, `CREATE VIEW mine AS SELECT count(*) FROM delta_resource`)
			for _, c := range riverCases() {
				c.row.insert(t, pool)
			}
			up, statements := 0, 0
			for _, block := range blocks.FindAllStringSubmatch(before, -1) {
				switch {
				case strings.HasPrefix(block[2], "delta migrate up"):
					require.NoError(t, migrations.Up(t.Context(), pool))
					up++
				case strings.HasPrefix(block[2], "delta migrate down"):
					require.NoError(t, migrations.Down(t.Context(), pool))
					up--
				case block[1] == "sql":
					statements++
					if strings.HasPrefix(block[2], "DROP TABLE") {
						_, err := pool.Exec(t.Context(), "DROP VIEW mine")
						require.NoError(t, err)
					}
					_, err := pool.Exec(t.Context(), block[2])
					require.NoError(t, err, block[2])
				}
			}
			require.Equal(t, map[string]int{"forth": 1, "and back": 0}[name], up)
			require.GreaterOrEqual(t, statements, 5)
			if name == "and back" {
				require.Empty(t, contentOf(t, pool, "(SELECT FROM delta_resource WHERE state IN ('scheduled', 'failed'))"))
			}
		})
	}
}
