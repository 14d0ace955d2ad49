package delta_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// checksByName returns the checks of a diagnosis, by name and kind.
func checksByName(d *delta.Diagnosis) map[string]delta.Check {
	found := map[string]delta.Check{}
	for _, one := range d.Checks {
		name := one.Name
		if one.Kind != "" {
			name += " " + one.Kind
		}
		found[name] = one
	}
	return found
}

// The tests of the command cover each check; this one covers the API.
func TestAProgramHasTheChecksOfTheDoctor(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[account]{})))
	_, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	var d *delta.Diagnosis
	until(t, func() bool { // the schedule is created a moment after the start
		d = c.Doctor(t.Context())
		return d.State() == delta.CheckOK
	})
	found := checksByName(d)
	require.Contains(t, found["temporal"].Detail, " at "+h.TemporalAddress+", namespace "+h.TemporalNamespace, "a connection of the caller's names none")
	require.Equal(t, delta.CheckOK, found["workers account"].State)
	require.Len(t, d.Kinds, 1)
	require.Len(t, d.Temporal.Kinds, 1)
	require.WithinDuration(t, h.now(), d.At, time.Hour)
	require.Equal(t, time.UTC, d.At.Location())

	require.NoError(t, c.PauseKind(t.Context(), "account"))
	d = c.Doctor(t.Context())
	require.Equal(t, delta.CheckWarning, d.State())
	require.Equal(t, delta.Check{
		Name: "kind", Kind: "account", State: delta.CheckWarning, Detail: "paused: its resources are not worked on",
		Remedy: "when it is time: delta resume kind account",
	}, checksByName(d)["kind account"])
}

func TestTheDoctorAsksTemporalWithoutADatabase(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	pool, err := pgxpool.New(t.Context(), "postgres://127.0.0.1:1/none")
	require.NoError(t, err)
	defer pool.Close()
	c, err := delta.NewClient(pool, h.config())
	require.NoError(t, err)
	d := c.Doctor(t.Context())
	found := checksByName(d)
	require.Equal(t, delta.CheckFailure, d.State())
	require.Equal(t, delta.CheckFailure, found["database"].State)
	require.Contains(t, found["database"].Detail, "Postgres at 127.0.0.1:1 cannot be reached")
	require.Equal(t, delta.CheckOK, found["temporal"].State, fmt.Sprint(found["temporal"]))
	for _, name := range []string{"schema", "prefix", "workers", "late"} {
		require.Equal(t, delta.CheckSkipped, found[name].State, name)
	}
	require.Nil(t, d.Kinds)
	require.Nil(t, d.Temporal)

	ended, end := context.WithCancel(t.Context())
	end()
	require.Equal(t, delta.CheckFailure, c.Doctor(ended).State(), "the diagnosis has the error")
}
