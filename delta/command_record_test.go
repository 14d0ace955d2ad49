package delta_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestRecordsOfCommandsAreChecked(t *testing.T) {
	t.Parallel()
	c := newHarness(t).client(&delta.Config{})
	for field, record := range map[string]delta.CommandRecord{
		"Actor":   {Command: "retry"},
		"Command": {Actor: "ann"},
		"Kind":    {Actor: "ann", Command: "retry", Kind: "a\x00"},
		"Filter":  {Actor: "ann", Command: "retry", Filter: strings.Repeat("f", 64<<10+1)},
	} {
		_, err := c.RecordCommand(t.Context(), &record)
		invalid := new(delta.InputError)
		require.ErrorAs(t, err, &invalid, field)
		require.Equal(t, field, invalid.Field)
	}
	_, err := c.ListCommands(t.Context(), "", "", 0, 1001)
	require.ErrorContains(t, err, "between 1 and 1000")

	// The outcome of a command is recorded once, whatever it is.
	id, err := c.RecordCommand(t.Context(), &delta.CommandRecord{Actor: "ann", Command: "retry"})
	require.NoError(t, err)
	n := int64(3)
	require.NoError(t, c.EndCommand(t.Context(), id, &n, errors.New("a\x00\xff"+strings.Repeat("b", 100_000))))
	require.NoError(t, c.EndCommand(t.Context(), id, nil, nil))
	all, err := c.ListCommands(t.Context(), "", "", 0, 10)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.EqualValues(t, 3, *all[0].Resources)
	require.Contains(t, all[0].Error, "(cut)")
}

func TestRecordsOfCommandsAreKeptForNinetyDays(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.MaintenanceJobInterval = 20 * time.Millisecond
	h.exec(`INSERT INTO delta_command (begun_at, actor, command, kind, object_id, shard, namespace, filter)
		SELECT now() - i * interval '1 day', 'ann', 'retry', '', '', '', '', '' FROM generate_series(81, 99) i`)
	h.start(config)
	until(t, func() bool { return h.countRows("SELECT count(*)::int FROM delta_command") <= 9 })
	require.Equal(t, 9, h.countRows("SELECT count(*)::int FROM delta_command WHERE begun_at > now() - interval '90 days'"))
}
