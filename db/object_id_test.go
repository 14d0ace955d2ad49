package db_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// Of each id that is taken for storable there can be a resource, and so of each that breaks no rule.
func TestIDsThatMayBeStoredCanBe(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	for id, is := range map[string]struct {
		rule   string
		stored bool
	}{
		"":                             {"must not be empty", false},
		"usr_3kd81mQa7Lp":              {"", true},
		" Ü/%~ \U0001f600":             {"", true},
		strings.Repeat("é", 256):       {"", true},
		strings.Repeat("é", 256) + "x": {"must be at most 512 bytes", false},
		"a\xff":                        {"must be valid UTF-8", false},
		"a\x00b":                       {"must have no control characters", false},
		"a\tb":                         {"must have no control characters", true},
		"a\u0085b":                     {"must have no control characters", true},
	} {
		require.Equal(t, is.rule, db.BrokenIDRule(id), "%q", id)
		require.Equal(t, is.stored, db.MayBeStored(id), "%q", id)
		if is.stored {
			_, err := env.Pool.Exec(t.Context(), `INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts)
				VALUES ('thing', $1, '{}', '\x00', 'default', 10)`, id)
			require.NoError(t, err, "%q", id)
		}
	}
}
